"""What can be known to be wrong from the command line alone is wrong usage: 2."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.cli.arguments import SAMPLE_NAMES
from napari_unet.sample_data import SAMPLES

SEGMENT = ("segment", "a.tif", "--out", "x")
FINETUNE = ("finetune", "--images", "a", "--labels", "b", "--out")
EXPORT = ("export", "a.tif", "--out")


def test_the_names_of_samples_are_those_there_are() -> None:
    assert tuple(SAMPLES) == SAMPLE_NAMES


WRONG = [
    pytest.param([], "COMMAND", id="no command"),
    pytest.param(["segmnt"], "segmnt", id="a misspelt command"),
    pytest.param(["segment", "a.tif"], "--out", id="something is missing"),
    pytest.param([*SEGMENT, "--formt", "png"], "--formt", id="a misspelt option"),
    pytest.param([*SEGMENT, "--format", "jpg"], "jpg", id="a format that is none"),
    pytest.param([*SEGMENT, "--tile-px", "8"], "16", id="below the least"),
    pytest.param([*SEGMENT, "--tile-px", "many"], "integer", id="no number"),
    pytest.param([*SEGMENT, "--threshold", "2"], "0.99", id="above the largest"),
    pytest.param([*SEGMENT, "--object-size-px", "nan"], "--object-size-px", id="not a number"),
    pytest.param([*SEGMENT, "--channels", "1,a"], "integer", id="a channel that is none"),
    pytest.param([*SEGMENT, "--channels=-1"], "from 0", id="a negative channel"),
    pytest.param([*SEGMENT, "--axes", "QX"], "unknown letter Q", id="unknown axes"),
    pytest.param([*SEGMENT, "--axes", ""], "do not end in YX", id="empty axes"),
    pytest.param([*SEGMENT, "--device", "tpu"], "tpu", id="an unknown processor"),
    pytest.param(["segment", "a.tif", "--out", ""], "no path", id="an empty path"),
    pytest.param([*FINETUNE, "c", "--seconds", "9", "--steps", "9"], "not allowed", id="both"),
    pytest.param([*FINETUNE, "c", "--seed", "9" * 30], "4294967295", id="too large a seed"),
    pytest.param([*FINETUNE, "c.pth"], ".safetensors", id="weights of another kind"),
    pytest.param([*EXPORT, "x.jpg"], "does not tell a format", id="a mask without a format"),
    pytest.param([*EXPORT, "x.tif", "--format", "png"], "End it in .png", id="another format"),
    pytest.param([*EXPORT, "x.tif", "--pixel-size-um", "0"], "positive", id="no pixel size"),
    pytest.param([*EXPORT, "x.tif", "--pixel-size-um", "1e-15"], "1e-06", id="a tiny pixel"),
    pytest.param(["info"], "MODEL", id="no model"),
]


@pytest.mark.parametrize(("arguments", "sentence"), WRONG)
def test_wrong_usage_is_2_in_one_sentence_and_with_json_it_is_in_the_object(
    run, arguments: list[str], sentence: str
) -> None:
    done = run(*arguments)
    assert (done.status, done.out) == (2, "")
    *usage, told = done.err.splitlines()
    assert told.startswith("napari-unet: ")
    assert sentence in told
    assert [line.startswith("usage: napari-unet") for line in usage] in ([], [True])
    printed = run(*arguments, "--json")
    assert printed.status == 2
    assert printed.json["errors"] == [told.removeprefix("napari-unet: ")]
    assert printed.err == done.err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--tile-px", "16", "--halo-px", "8"), "A tile of 16 px"),
        (("--channels", "5"), "Channel 5 is not there"),
        (("--axes", "ZYX"), "name 3 axes"),
    ],
)
def test_what_depends_on_the_image_or_the_model_is_an_error_1(
    run, threshold_model, tmp_path, options, sentence
) -> None:
    np.save(tmp_path / "a.npy", np.zeros((40, 40), np.uint8))
    done = run(
        "segment", tmp_path / "a.npy", "--model", threshold_model, "--out", tmp_path, *options
    )
    assert done.status == 1
    assert sentence in done.err
    assert len(done.err.splitlines()) == 1


def test_the_rule_stands_in_the_help(run) -> None:
    shown = " ".join(run("segment", "--help").out.split())
    assert "2 wrong usage: what can be known to be wrong from the command line alone" in shown


def test_the_version_goes_to_standard_output(run) -> None:
    done = run("--version")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("napari-unet ")
