"""A file is there whole, or not at all."""

from pathlib import Path

import pytest

from napari_unet.errors import FileError
from napari_unet.files.atomic import check_writable, written_beside


def test_the_file_appears_only_when_the_block_has_ended(tmp_path: Path):
    target = tmp_path / "new" / "mask.tif"
    with written_beside(target) as beside:
        beside.write_text("half")
        assert not target.exists()
        assert beside.parent == target.parent
    assert target.read_text() == "half"
    assert list(target.parent.iterdir()) == [target]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    target = tmp_path / "mask.tif"
    target.write_text("old")

    def write_half() -> None:
        with written_beside(target) as beside:
            beside.write_text("half")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_half()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_in_the_way_is_told_in_a_sentence(tmp_path: Path):
    target = tmp_path / "mask.tif"
    target.mkdir()
    with pytest.raises(FileError, match=r"cannot be written.*Choose"), written_beside(target) as b:
        b.write_text("x")
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_in_place_of_the_folder_is_told_in_a_sentence(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(FileError, match="cannot be written"),
        written_beside(tmp_path / "file" / "mask.tif"),
    ):
        pytest.fail("there is nowhere to write")


def test_trying_a_place_leaves_nothing_and_harms_nothing(tmp_path):
    there = tmp_path / "model.safetensors"
    there.write_bytes(b"old")
    check_writable(there)
    check_writable(tmp_path / "new folder" / "model.safetensors")
    assert there.read_bytes() == b"old"
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["model.safetensors"]


def test_a_place_that_cannot_be_written_is_told_before_the_work(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileError, match="cannot be written"):
        check_writable(tmp_path / "file" / "model.safetensors")
    with pytest.raises(FileError, match="is a folder"):
        check_writable(tmp_path)
