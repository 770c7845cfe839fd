"""``napari-unet open`` shows images with their calibration, and the dock."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from napari_unet.errors import FileError, ModelError
from napari_unet.files.images import read_image
from napari_unet.widget import application
from napari_unet.widget.contributions import find_dock


@pytest.fixture
def viewers(make_napari_viewer, monkeypatch):
    """Let the application open test viewers, which are closed and checked at the end."""
    monkeypatch.setattr("napari.Viewer", make_napari_viewer)


@pytest.fixture
def engine(monkeypatch):
    """Start no computing process, and nothing in the background."""
    monkeypatch.setattr("napari_unet.widget.engine.Engine.start", lambda self: None)
    monkeypatch.setattr("napari_unet.widget.dock.warm_up", lambda: None, raising=False)


@pytest.mark.slow
def test_images_and_a_sample_open_with_pixel_size_and_the_dock(viewers, engine, tmp_path) -> None:
    size = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 2.0}
    stack = np.zeros((5, 40, 50), np.uint16)
    tifffile.imwrite(tmp_path / "s.ome.tif", stack, ome=True, metadata={"axes": "ZYX", **size})
    colour = np.zeros((40, 50, 3), np.uint8)
    tifffile.imwrite(tmp_path / "c.tif", colour, photometric="rgb")
    viewer = application.open_viewer([tmp_path / "s.ome.tif", tmp_path / "c.tif"], sample="tissue")
    first, second, third = viewer.layers
    assert tuple(first.scale) == (2.0, 0.5, 0.5)
    assert [str(unit) for unit in first.units] == ["micrometer"] * 3
    assert first.axis_labels == ("z", "y", "x")
    assert (second.rgb, second.ndim) == (True, 2)
    assert third.name == "tissue"
    dock = find_dock(viewer)
    assert dock is not None
    dock.close_session()


@pytest.mark.slow
def test_results_lie_over_the_image(viewers, engine, tmp_path) -> None:
    size = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    path = tmp_path / "i.ome.tif"
    tifffile.imwrite(path, np.zeros((40, 50), np.uint8), ome=True, metadata={"axes": "YX", **size})
    labels = {name: np.ones((40, 50), np.int32) for name in ("before", "after")}
    viewer = application.show_results(read_image(path), labels)
    image, before, after = viewer.layers
    assert (before.visible, after.visible) == (False, True)
    assert tuple(after.scale) == tuple(image.scale) == (0.5, 0.5)
    find_dock(viewer).close_session()


def test_what_cannot_be_opened_is_told_before_a_window_opens(tmp_path, monkeypatch) -> None:
    def refuse() -> None:
        raise AssertionError("a window was opened")

    monkeypatch.setattr("napari.Viewer", refuse)
    with pytest.raises(FileError):
        application.open_viewer([tmp_path / "none.tif"])
    with pytest.raises(ModelError):
        application.open_viewer(model="no-such-model", sample="nuclei")
