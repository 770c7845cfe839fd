"""Models are found by name or path; what is none is refused with its own sentence."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from napari_unet.errors import ModelError
from napari_unet.models import library
from napari_unet.models.card import Card
from napari_unet.settings import Architecture

CARD = Card(name="cells", architecture=Architecture(widths=(3, 4)))


def write_card(path: Path, card: Card = CARD) -> Path:
    """Write a file with a card and no real weights: the library looks at the header only."""
    save_file({"a": np.ones(2, np.float32)}, path, {library.CARD_KEY: card.model_dump_json()})
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an empty user's folder and an empty bundle."""
    (tmp_path / "user").mkdir()
    (tmp_path / "bundled").mkdir()
    monkeypatch.setattr(library, "user_folder", lambda: tmp_path / "user")
    monkeypatch.setattr(library, "_BUNDLED", tmp_path / "bundled")
    return tmp_path / "user"


def test_the_bundled_model_comes_first_and_wins_its_name(folder: Path) -> None:
    bundled = write_card(folder.parent / "bundled" / "nuclei.safetensors")
    mine = write_card(folder / "nuclei.safetensors")
    write_card(folder / "a.safetensors")
    assert [(entry.name, entry.origin) for entry in library.list_models()] == [
        ("nuclei", "bundled"),
        ("a", "user"),
        ("nuclei (yours)", "user"),
    ]
    assert library.find_model("nuclei") == bundled
    assert library.find_model("nuclei (yours)") == mine


def test_every_listed_name_is_found_again(folder: Path) -> None:
    for name in ("b", "c.d", "mine 2"):
        write_card(folder / f"{name}.safetensors")
    for entry in library.list_models():
        assert library.find_model(entry.name) == entry.path
        assert library.read_card(entry.path) == CARD


def test_damaged_files_are_told_apart_and_do_not_hide_the_others(folder: Path) -> None:
    write_card(folder / "good.safetensors")
    bad = folder / "bad.safetensors"
    bad.write_bytes(write_card(folder / "bad.safetensors").read_bytes()[:40])
    assert [entry.name for entry in library.list_models()] == ["good"]
    ((path, reason),) = library.list_damaged()
    assert path == bad
    assert "damaged or incomplete" in reason


def test_files_that_are_still_being_written_are_not_listed(folder: Path) -> None:
    write_card(folder / ".half.safetensors")
    assert library.list_models() == []


def test_an_unknown_name_tells_the_known_ones(folder: Path) -> None:
    write_card(folder / "good.safetensors")
    with pytest.raises(ModelError, match=r"'nucleii'.*Installed models: good"):
        library.find_model("nucleii")
    with pytest.raises(ModelError):
        library.find_model("")


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        ("new", "new"),
        ("nuclei", "nuclei 3"),
        ("nuclei 2", "nuclei 3"),
        ("Nuclei", "Nuclei 3"),
        ("a/b:c", "a b c"),
        ("..", "model"),
        ("cells 2024", "cells 2024"),
    ],
)
def test_free_names_count_on_and_can_be_file_names(folder: Path, wanted: str, given: str) -> None:
    write_card(folder / "nuclei.safetensors")
    write_card(folder / "nuclei 2.safetensors")
    assert library.free_name(wanted) == given


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", b"x" * 50)
    return buffer.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12345\n"
FOREIGN = [
    ("pointer.safetensors", LFS, "Git LFS pointer"),
    ("page.safetensors", b"<!DOCTYPE html><html></html>", "web page"),
    ("net.pth", _zip(), "PyTorch weights; this cannot be opened yet"),
    ("renamed.safetensors", _zip(), "zip archive.*cannot be opened yet"),
    ("old.pt", b"\x80\x02}q\x00." * 9, "PyTorch weights.*cannot be opened yet"),
    ("no_ending", b"\x80\x02}q\x00." * 9, "pickle.*cannot be opened yet"),
    ("net.h5", b"\x89HDF\r\n\x1a\n" + bytes(60), "Keras.*cannot be opened yet"),
    ("net.onnx", b"\x08\x07\x12\x07pytorch" * 4, "ONNX.*cannot be opened yet"),
    ("empty.safetensors", b"", "damaged or incomplete"),
    ("seven.safetensors", b"1234567", "damaged or incomplete"),
    ("text.safetensors", b"not weights at all, only text", "not a weights file"),
]


@pytest.mark.parametrize(("name", "content", "sentence"), FOREIGN, ids=[f[0] for f in FOREIGN])
def test_other_files_are_refused_with_their_own_sentence(
    name: str, content: bytes, sentence: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=sentence):
        library.read_card(tmp_path / name)


def test_a_header_whose_length_looks_like_another_format_is_read(tmp_path: Path) -> None:
    lengths = set()
    for letters in range(0, 1200, 8):
        card = CARD.replace(segments="x" * letters)
        path = write_card(tmp_path / "own.safetensors", card)
        lengths.add(path.read_bytes()[:2])
        assert library.read_card(path) == card
    assert any(start[0] == 0x80 for start in lengths)
    assert any(start[0] == 0x20 for start in lengths)


def test_folders_missing_files_and_bare_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is a folder"):
        library.read_card(tmp_path)
    with pytest.raises(ModelError, match="no weights file"):
        library.read_card(tmp_path / "none.safetensors")
    bare = tmp_path / "bare.safetensors"
    save_file({"a": np.ones(2, np.float32)}, bare)
    with pytest.raises(ModelError, match=r"no card.*cannot be opened yet"):
        library.read_card(bare)


def test_listing_models_imports_no_torch() -> None:
    code = (
        "import sys; from napari_unet.models import library; library.list_models();"
        "assert 'torch' not in sys.modules and 'napari' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_folder_that_may_not_be_read_has_no_models(folder: Path, monkeypatch) -> None:
    bundled = write_card(folder.parent / "bundled" / "nuclei.safetensors")
    real = Path.glob

    def refuse(path: Path, pattern: str):
        if path == folder:
            raise PermissionError(13, "Permission denied")
        return real(path, pattern)

    monkeypatch.setattr(Path, "glob", refuse)
    assert [entry.path for entry in library.list_models()] == [bundled]
    assert library.find_model("nuclei") == bundled
