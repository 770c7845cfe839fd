"""Results go to standard output, all else to standard error; any name can be written."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_unet.cli.output import Console, plain
from napari_unet.errors import FileError


def test_progress_is_shown_on_a_terminal_only(monkeypatch, capsys) -> None:
    from napari_unet.runs.progress import TileDone

    quiet = Console()
    quiet.progress(TileDone(1, 4))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    loud = Console()
    loud.progress(TileDone(1, 4))
    loud.say("result")
    shown = capsys.readouterr()
    assert "tile 1 of 4" in shown.err
    assert shown.err.endswith("\r")
    assert shown.out == "result\n"


def test_a_name_that_the_terminal_cannot_show_is_no_error(monkeypatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    Console().say("naïve \udcff.tif")
    assert raw.getvalue() == b"na\\xefve \\udcff.tif\n"


@pytest.mark.parametrize(
    ("path", "error", "told"),
    [
        ("x/a.tif", "a.tif is no image.", "x/a.tif is no image. Skipped."),
        ("x/a.tif", "There is no file x/a.tif.", "There is no file x/a.tif. Skipped."),
        ("x/a.tif", "The labels are empty.", "x/a.tif: The labels are empty. Skipped."),
        ("x/a.tif", "b.tif does not fit a.tif.", "b.tif does not fit a.tif. Skipped."),
    ],
)
def test_what_was_left_out_is_named_once(capsys, path, error, told) -> None:
    console = Console()
    console.left_out(Path(path), FileError(error))
    assert console.problems == [told]
    assert capsys.readouterr().err == f"napari-unet: {told}\n"


def test_everything_becomes_plain_json() -> None:
    values = {"a": np.float32(0.5), "b": float("nan"), "c": (np.int64(1), Path("x")), 4: None}
    assert json.loads(json.dumps(plain(values), allow_nan=False)) == {
        "a": 0.5,
        "b": None,
        "c": [1, "x"],
        "4": None,
    }
