"""Models are found by name or path; what is none is refused with its own sentence."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from napari_unet.errors import ModelError
from napari_unet.models import formats, library, own_file
from napari_unet.models.card import Card
from napari_unet.settings import Architecture

CARD = Card(name="cells", architecture=Architecture(widths=(3, 4)))


def write_card(path: Path, card: Card = CARD) -> Path:
    """Write a file with a card and no real weights: the library looks at the header only."""
    save_file({"a": np.ones(2, np.float32)}, path, {formats.CARD_KEY: card.model_dump_json()})
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
        assert own_file.read_card(entry.path) == CARD


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


def test_the_card_is_read_from_files_of_ours_only(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    for content, sentence in {
        b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12\n": "Git LFS pointer",
        b"<!DOCTYPE html><html></html>": "web page",
        b"": "damaged or incomplete",
        b"not weights at all, only text": "text, not weights",
        b"\x80\x02}q\x00." * 9: "PyTorch weights.*Open it with load_model",
    }.items():
        path.write_bytes(content)
        with pytest.raises(ModelError, match=sentence):
            own_file.read_card(path)


def test_a_header_whose_length_looks_like_another_format_is_read(tmp_path: Path) -> None:
    lengths = set()
    for letters in range(0, 1200, 8):
        card = CARD.replace(segments="x" * letters)
        path = write_card(tmp_path / "own.safetensors", card)
        lengths.add(path.read_bytes()[:2])
        assert own_file.read_card(path) == card
    assert any(start[0] == 0x80 for start in lengths)
    assert any(start[0] == 0x20 for start in lengths)


def test_folders_missing_files_and_bare_weights_have_no_card(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is a folder"):
        own_file.read_card(tmp_path)
    with pytest.raises(ModelError, match="no weights file"):
        own_file.read_card(tmp_path / "none.safetensors")
    bare = tmp_path / "bare.safetensors"
    save_file({"a": np.ones(2, np.float32)}, bare)
    with pytest.raises(ModelError, match=r"no card.*load_model"):
        own_file.read_card(bare)


def write_pickle(path: Path) -> Path:
    """Write what the library takes for weights of others without opening it."""
    path.write_bytes(pickle.dumps({"a": 1}))
    return path


def test_weights_of_others_are_listed_by_what_they_are(folder: Path) -> None:
    write_card(folder / "unet.safetensors")
    foreign = write_pickle(folder / "unet.pth")
    save_file({"a": np.ones(2, np.float32)}, folder / "bare.safetensors")
    (folder / "notes.txt").write_text("what I trained")
    (folder / "gone.pth").write_bytes(b"")
    listed = {entry.name: entry for entry in library.list_models()}
    assert set(listed) == {"unet", "unet.pth", "bare"}
    assert listed["unet.pth"].card is None
    assert listed["unet.pth"].format.text == "PyTorch weights"
    assert library.find_model("unet.pth") == foreign
    ((path, reason),) = library.list_damaged()
    assert path.name == "gone.pth"
    assert "empty" in reason


def test_files_opened_lately_are_listed_last_the_newest_first(folder: Path) -> None:
    write_card(folder / "mine.safetensors")
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    first, second = (write_pickle(elsewhere / name) for name in ("a.pth", "b.pth"))
    for path in (first, second, folder / "mine.safetensors"):
        library.remember_model(path)
    library.remember_model(first, 2)
    listed = [(entry.reference, entry.origin) for entry in library.list_models()]
    assert listed == [
        (str(folder / "mine.safetensors"), "user"),
        (f"{first}#3", "recent"),
        (str(second), "recent"),
    ]
    first.unlink()
    library.forget_model(second)
    assert [entry.name for entry in library.list_models()] == ["mine"]


def test_a_list_of_recent_files_that_is_no_list_is_ignored(folder: Path) -> None:
    for text in ("", "{}", "[1]", '[["a", "b"]]', "null", "[" * 100_000):
        (folder.parent / "recent.json").write_text(text)
        assert library.recent_models() == []
    library.remember_model(folder.parent / "a.pth")
    assert len(library.recent_models()) == 1


def test_no_more_files_are_remembered_than_a_person_looks_through(folder: Path) -> None:
    for number in range(40):
        library.remember_model(folder.parent / f"{number}.pth")
    noted = library.recent_models()
    assert len(noted) == 12
    assert noted[0][0].name == "39.pth"


def test_a_reading_is_named_behind_the_file(folder: Path) -> None:
    path = write_pickle(folder / "net.pth")
    assert library.find_reading("net.pth") == (path, 0)
    assert library.find_reading("net.pth#1") == (path, 0)
    assert library.find_reading("net.pth#3") == (path, 2)
    assert library.find_reading(f"{path}#2") == (path, 1)
    odd = write_pickle(folder / "odd#2")
    assert library.find_reading(odd) == (odd, 0), "the name of a file wins"
    for wrong in ("net.pth#0", "net.pth#x", "net.pth#", "net.pth#1000000", "#2"):
        with pytest.raises(ModelError):
            library.find_reading(wrong)


def test_only_files_in_the_own_folder_are_renamed_and_removed(folder: Path) -> None:
    bundled = write_card(folder.parent / "bundled" / "nuclei.safetensors")
    mine = write_card(folder / "mine.safetensors")
    for action in (lambda p: library.rename_model(p, "new"), library.remove_model):
        with pytest.raises(ModelError, match="not in your folder"):
            action(bundled)
    for taken in ("nuclei", "NUCLEI"):
        with pytest.raises(ModelError, match="already"):
            library.rename_model(mine, taken)
    with pytest.raises(ModelError, match="no name"):
        library.rename_model(mine, "..")
    renamed = library.rename_model(mine, "ours")
    assert renamed == folder / "ours.safetensors"
    assert library.rename_model(renamed, "Ours").name == "Ours.safetensors"
    package = folder / "package"
    package.mkdir()
    (package / "rdf.yaml").write_text("x")
    library.remove_model(package)
    library.remove_model(folder / "Ours.safetensors")
    assert list(folder.iterdir()) == []
    assert bundled.exists()


@pytest.mark.parametrize(
    ("shape", "axes", "channels", "why"),
    [
        ({}, "YX", 1, None),
        ({}, "CYX", 5, None),
        ({}, "TZYX", 1, None),
        ({"in_channels": 3}, "YXC", 3, None),
        ({"in_channels": 3}, "YX", 1, "needs 3 channels, the image has 1"),
        ({"spatial_dims": 3}, "ZYX", 1, None),
        ({"spatial_dims": 3}, "TYX", 1, "needs a z axis"),
    ],
)
def test_a_model_says_why_it_does_not_fit(shape, axes, channels, why) -> None:
    architecture = Architecture(widths=(3, 4), **shape)
    names = tuple(map(str, range(architecture.in_channels)))
    card = Card(name="a", architecture=architecture, input_channels=names)
    assert library.misfit(card, axes, channels) == why


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
