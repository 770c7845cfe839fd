"""A report is written whole or not at all, and read back as it was."""

from __future__ import annotations

import pytest

from napari_unet.errors import FileError
from napari_unet.runs.report import read_report, read_settings, versions, write_report
from napari_unet.settings import FinetuneSettings, SegmentSettings


def test_a_report_comes_back_as_it_was_written(tmp_path):
    report = {"versions": versions(), "before": None, "after": {"ap50": 0.5}, "seed": 3}
    path = write_report(tmp_path / "new folder" / "r.json", report)
    assert read_report(path) == report
    assert {"napari_unet", "torch", "python", "numpy"} <= versions().keys()


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = write_report(tmp_path / "r.json", {"run": 1})
    with pytest.raises((TypeError, ValueError)):
        write_report(path, {"run": object()})
    with pytest.raises(ValueError, match="JSON"):
        write_report(path, {"loss": float("nan")})
    assert read_report(path) == {"run": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["r.json"]


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "\x00"])
def test_another_file_is_refused(tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(FileError, match=r"r\.json"):
        read_report(tmp_path / "r.json")
    with pytest.raises(FileError):
        read_report(tmp_path / "missing.json")


FINETUNE = FinetuneSettings(steps=7, seconds=None, zoom=2)
SEGMENT = SegmentSettings(invert=True, tile_px=512)
PLAIN = {"settings": FINETUNE.model_dump(mode="json"), "segment": SEGMENT.model_dump(mode="json")}


@pytest.mark.parametrize(
    ("report", "settings"),
    [
        pytest.param({"outcome": "better", **PLAIN}, (FINETUNE, SEGMENT), id="a fine-tuning"),
        pytest.param({"report": PLAIN, "verdict": "Better."}, (FINETUNE, SEGMENT), id="printed"),
        pytest.param({"settings": PLAIN["segment"]}, (None, SEGMENT), id="a segmentation"),
    ],
)
def test_the_settings_of_a_run_are_found_in_its_report(tmp_path, report, settings):
    assert read_settings(write_report(tmp_path / "r.json", report)) == settings


@pytest.mark.parametrize(
    ("report", "sentence"),
    [
        ({"before": 1}, "holds no settings"),
        ({"settings": {"steps": 1, "speed": 3}, "segment": {}}, "do not fit this.*setting speed"),
        ({"settings": 5}, "do not fit this version"),
        ({"settings": {}, "segment": [1]}, "do not fit this version"),
    ],
)
def test_settings_that_are_none_are_told_with_the_name_of_the_file(tmp_path, report, sentence):
    path = write_report(tmp_path / "r.json", report)
    with pytest.raises(FileError, match=sentence) as caught:
        read_settings(path)
    assert str(path) in str(caught.value)
