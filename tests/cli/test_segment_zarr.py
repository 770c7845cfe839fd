"""``napari-unet segment`` from zarr to zarr: calibrated, block by block, and on after a break."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_unet.files.images import read_image
from napari_unet.runs import plane_run

zarr = pytest.importorskip("zarr")


@pytest.fixture
def squares() -> np.ndarray:
    """Return bright squares on black, uint8, shape (Y, X)."""
    image = np.zeros((150, 1300), np.uint8)
    for left in range(4, 1290, 20):
        image[20:32, left : left + 12] = 200
    return image


def write_ome(path: Path, image: np.ndarray, axes: str, scale: list[float], version: int) -> Path:
    """Write an OME-Zarr image of version 0.4 or 0.5, with two resolutions."""
    group = zarr.create_group(path, zarr_format=version)
    for level, step in enumerate((1, 2)):
        part = image[..., ::step, ::step]
        chunks = (1,) * (part.ndim - 2) + (64, 64)
        group.create_array(str(level), shape=part.shape, chunks=chunks, dtype=part.dtype)[:] = part
    named = [
        {"name": a, "type": "space", "unit": "micrometer"}
        if a in "zyx"
        else {"name": a, "type": "channel"}
        for a in axes.lower()
    ]
    datasets = [
        {"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        for level in (0, 1)
    ]
    scales = [{"axes": named, "datasets": datasets}]
    group.attrs.update(
        {"multiscales": scales}
        if version == 2
        else {"ome": {"version": "0.5", "multiscales": scales}}
    )
    return path


@pytest.mark.parametrize("version", [2, 3])
def test_ome_zarr_becomes_calibrated_ome_zarr(run, threshold_model, tmp_path, squares, version):
    image = write_ome(tmp_path / "in.zarr", squares[np.newaxis], "cyx", [1, 0.5, 0.25], version)
    out = tmp_path / "out"
    arguments = ["segment", image, "--model", threshold_model, "--out", out]
    ran = run(*arguments, "--format", "ome-zarr", "--json")
    assert ran.status == 0, ran.err
    (result,) = ran.json["images"]
    assert result["objects"] == 65
    labels = read_image(out / "in_labels.ome.zarr")
    assert labels.pixel_size_um == (0.5, 0.25)
    assert labels.axes == "YX"
    np.testing.assert_array_equal(labels.array[:] > 0, squares > 0)
    assert [path.name for path in out.iterdir()] == ["in_labels.ome.zarr"]
    group = zarr.open_group(out / "in_labels.ome.zarr", mode="r")
    small = group["1"]
    np.testing.assert_array_equal(small[:], labels.array[::2, ::2])
    (scales,) = group.attrs["multiscales"]
    last = scales["datasets"][1]["coordinateTransformations"][0]["scale"]
    assert last == [1.0, 0.5]
    assert "image-label" in group.attrs


def test_plain_zarr_gives_what_tiff_gives(run, threshold_model, tmp_path, squares):
    stack = np.stack([squares, squares[::-1]])
    stored = zarr.create_array(
        tmp_path / "big.zarr", shape=stack.shape, chunks=(1, 64, 64), dtype="u1"
    )
    stored[:] = stack
    formats = ["--format", "zarr", "--format", "imagej-tiff", "--probability"]
    arguments = ["segment", tmp_path / "big.zarr", "--model", threshold_model, "--axes", "ZYX"]
    ran = run(*arguments, "--out", tmp_path, *formats)
    assert ran.status == 0, ran.err
    labels = zarr.open_array(tmp_path / "big_labels.zarr", mode="r")
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels[:], read_image(tmp_path / "big_labels.tif").array)
    probability = zarr.open_array(tmp_path / "big_probability.zarr", mode="r")
    np.testing.assert_array_equal(probability[0] > 0.5, stack > 0)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_same_command_goes_on_where_it_was_broken_off(
    run, threshold_model, tmp_path, squares, monkeypatch
):
    stored = zarr.create_array(
        tmp_path / "big.zarr", shape=squares.shape, chunks=(64, 64), dtype="u1"
    )
    stored[:] = squares
    arguments = ["segment", tmp_path / "big.zarr", "--model", threshold_model, "--out", tmp_path]
    arguments += ["--format", "zarr", "--tile-px", "64"]
    add, written = plane_run.Unfinished.add, []

    def break_after_five(unfinished, index, core):
        add(unfinished, index, core)
        written.append(core)
        if len(written) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(plane_run.Unfinished, "add", break_after_five)
    broken = run(*arguments)
    assert broken.status == 1
    assert "the same command goes on" in broken.err
    assert not (tmp_path / "big_labels.zarr").exists()
    ran = run(*arguments)
    assert ran.status == 0, ran.err
    assert "5 tiles are done" in ran.err
    assert len({str(core) for core in written}) == len(written)  # none was computed twice
    labels = zarr.open_array(tmp_path / "big_labels.zarr", mode="r")
    np.testing.assert_array_equal(labels[:] > 0, squares > 0)
    assert labels[:].max() == 65
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_without_the_package_a_sentence_says_what_to_do(
    run, threshold_model, tmp_path, squares, monkeypatch
):
    np.save(tmp_path / "a.npy", squares)
    monkeypatch.setitem(__import__("sys").modules, "zarr", None)
    arguments = ["segment", tmp_path / "a.npy", "--model", threshold_model, "--out", tmp_path]
    ran = run(*arguments, "--format", "zarr")
    assert ran.status == 1
    assert "pip install zarr" in ran.err
    ran = run(*arguments, "--format", "zarr", "--format", "ome-zarr")
    assert "Choose one" in ran.err
