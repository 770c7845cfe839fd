"""Zarr arrays and OME-Zarr images stand at their place once they are complete, and not before."""

from __future__ import annotations

import errno
import json
import sys

import numpy as np
import pytest

from napari_unet.errors import FileError
from napari_unet.files.zarrs import Companion, ZarrFile, choose_chunks, import_zarr, writing

zarr = pytest.importorskip("zarr")


def described(folder):
    """Read the attributes of an OME-Zarr image."""
    return json.loads((folder / ".zattrs").read_text())


def test_nothing_is_at_the_place_until_it_is_complete(tmp_path):
    path = tmp_path / "labels.zarr"
    file = ZarrFile(path, (50, 60), "int32", "YX", 2)
    file.array[:] = 7
    assert not path.exists()
    assert file.finish(are_labels=True) == path
    assert (zarr.open_array(path, mode="r")[:] == 7).all()
    assert [entry.name for entry in tmp_path.iterdir()] == ["labels.zarr"]


def test_what_stood_at_the_place_is_replaced(tmp_path):
    path = tmp_path / "labels.zarr"
    for value in (1, 2):
        file = ZarrFile(path, (50, 60), "int32", "YX", 2)
        file.array[:] = value
        file.finish(are_labels=True)
    assert (zarr.open_array(path, mode="r")[:] == 2).all()


def test_what_an_earlier_run_wrote_is_still_there(tmp_path):
    path = tmp_path / "labels.zarr"
    ZarrFile(path, (50, 60), "int32", "YX", 2).array[:10] = 3
    assert ZarrFile(path, (50, 60), "int32", "YX", 2).array[:].sum() == 3 * 10 * 60


@pytest.mark.parametrize("change", [{"shape": (50, 61)}, {"dtype": "float32"}])
def test_what_an_earlier_run_wrote_of_another_kind_is_dropped(tmp_path, change):
    path, given = tmp_path / "a.ome.zarr", {"shape": (50, 60), "dtype": "int32"}
    ZarrFile(path, **given, axes="YX", spatial_dims=2).array[:] = 3
    assert not ZarrFile(path, **(given | change), axes="YX", spatial_dims=2).array[:].any()


def test_labels_have_smaller_copies_and_probabilities_have_none(tmp_path):
    for are_labels, shapes in (
        (True, [(3, 2100, 900), (3, 1050, 450), (3, 525, 225)]),
        (False, [(3, 2100, 900)]),
    ):
        file = ZarrFile(tmp_path / "a.ome.zarr", (3, 2100, 900), "int32", "ZYX", 2, (2, 0.5, 0.5))
        values = np.random.default_rng(0).integers(0, 9, (3, 2100, 900))
        file.array[:] = values
        path = file.finish(are_labels=are_labels)
        (scales,) = described(path)["multiscales"]
        found = [zarr.open_array(path / level["path"], mode="r") for level in scales["datasets"]]
        assert [level.shape for level in found] == shapes
        for step, level in enumerate(found):
            np.testing.assert_array_equal(level[:], values[:, :: 2**step, :: 2**step])
        assert ("image-label" in described(path)) is are_labels


def test_pixel_sizes_are_told_in_micrometres_and_grow_with_the_level(tmp_path):
    file = ZarrFile(tmp_path / "a.ome.zarr", (2, 2, 1100, 90), "int32", "TZYX", 2, (2, 0.5, 0.25))
    (scales,) = described(file.finish(are_labels=True))["multiscales"]
    assert [(axis["name"], axis["type"], axis.get("unit")) for axis in scales["axes"]] == [
        ("t", "time", None),
        *((name, "space", "micrometer") for name in "zyx"),
    ]
    assert [level["coordinateTransformations"][0]["scale"] for level in scales["datasets"]] == [
        [1, 2, 0.5, 0.25],
        [1, 2, 1, 0.5],
    ]


def test_chunks_hold_one_plane_or_a_part_of_it():
    assert choose_chunks((7, 3, 2000, 300), 2) == (1, 1, 512, 300)
    assert choose_chunks((7, 100, 2000, 300), 3) == (1, 64, 64, 64)


def test_a_folder_that_cannot_be_written_is_told_in_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match=r"cannot be written: .* Choose another folder"):
        ZarrFile(tmp_path / "file" / "a.ome.zarr", (5, 6), "int32", "YX", 2)


def test_a_full_disk_is_told_of_zarr_and_left_alone_of_others(tmp_path):
    full = OSError(errno.ENOSPC, "No space left on device")
    stored = ZarrFile(tmp_path / "a.zarr", (5, 6), "int32", "YX", 2).array
    with pytest.raises(FileError, match="No space left on device"), writing(stored):
        raise full
    with pytest.raises(OSError, match="No space left") as caught, writing(np.zeros(3)):
        raise full
    assert not isinstance(caught.value, FileError)


def test_a_companion_stays_until_it_is_removed_and_fits_or_is_made_anew(tmp_path):
    labels = zarr.create_array(tmp_path / "labels.zarr", shape=(50, 60), dtype="i4")
    companion = Companion(labels, (1, 50, 60), 2)
    companion.array[:] = 0.5
    assert (Companion(labels, (1, 50, 60), 2).array[:] == 0.5).all()
    assert not Companion(labels, (2, 50, 60), 2).array[:].any()
    companion.remove()
    assert [entry.name for entry in tmp_path.iterdir()] == ["labels.zarr"]


def test_only_an_array_in_a_folder_can_have_a_companion(tmp_path):
    on_disk = zarr.create_array(tmp_path / "a.zarr", shape=(5, 6), dtype="i4")
    in_memory = zarr.create_array({}, shape=(5, 6), dtype="i4")
    assert Companion.is_possible_beside(on_disk)
    assert not Companion.is_possible_beside(in_memory)
    assert not Companion.is_possible_beside(np.zeros((5, 6)))


def test_a_missing_or_old_package_is_told_with_the_command_that_mends_it(monkeypatch):
    monkeypatch.setattr(zarr, "__version__", "2.18.0")
    with pytest.raises(FileError, match=r"installed is 2.18.0. Run: pip install --upgrade zarr"):
        import_zarr("a.zarr")
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(FileError, match=r"a.zarr needs one more package. Run: pip install zarr"):
        import_zarr("a.zarr")
