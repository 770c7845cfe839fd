"""A report is written whole or not at all, and read back as it was."""

from __future__ import annotations

import pytest

from napari_unet.errors import FileError
from napari_unet.runs.report import read_report, versions, write_report


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
