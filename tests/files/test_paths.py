"""A path is what people give as one; anything else is told."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from napari_unet.errors import FileError
from napari_unet.files.paths import as_path, is_there


def test_text_and_paths_are_taken_and_the_tilde_is_the_own_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert as_path("a b é.tif") == Path("a b é.tif")
    assert as_path(tmp_path) == tmp_path
    assert as_path("~/x.tif") == tmp_path / "x.tif"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (None, "The path of a mask was expected, None was given"),
        (5, "the number 5 was given"),
        (b"x.tif", "a bytes was given"),
        (["x.tif"], "a list was given"),
        ("", "'' is no path of a mask"),
        ("a\0b", "no path of a mask"),
        pytest.param(
            "~no-such-person/x.tif",
            "cannot be found.*Write the whole path",
            marks=pytest.mark.skipif(sys.platform == "win32", reason="Windows guesses"),
        ),
    ],
)
def test_what_is_no_path_is_told(given: object, sentence: str) -> None:
    with pytest.raises(FileError, match=sentence):
        as_path(given, "a mask")


def test_what_cannot_be_looked_at_is_told(tmp_path, monkeypatch) -> None:
    assert is_there(tmp_path)
    assert not is_there(tmp_path / "none")

    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", refuse)
    with pytest.raises(FileError, match="x cannot be looked at: Permission denied"):
        is_there(Path("x"))
