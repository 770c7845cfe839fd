"""Labels must lie exactly on their image, whatever its axes and its place in the world."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from napari.layers import Image, Labels
from napari.layers._source import layer_source

from napari_unet.widget.layers import (
    from_layer_shape,
    guess_layer_axes,
    note_axes,
    pixel_size,
    place_labels,
    possible_axes,
    shown_index,
    to_layer_shape,
)

TURN = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])


def labels_on(image: Image, axes: str) -> Labels:
    """Make the labels layer of an image as the dock does."""
    placement = place_labels(image, axes)
    sizes = zip(image.data.shape, axes, strict=True)
    shape = tuple(n for n, axis in sizes if axis != "C")
    return Labels(to_layer_shape(np.zeros(shape, np.int32), placement), **placement.kwargs)


def test_axes_are_read_from_labels_shape_and_rgb() -> None:
    assert guess_layer_axes(Image(np.zeros((8, 9)))) == "YX"
    assert guess_layer_axes(Image(np.zeros((8, 9, 3), np.uint8), rgb=True)) == "YXC"
    assert guess_layer_axes(Image(np.zeros((5, 2, 8, 9)))) == "ZCYX"
    assert guess_layer_axes(Image(np.zeros((12, 8, 9)))) == "ZYX"
    named = Image(np.zeros((12, 8, 9)), axis_labels=("time", "y", "x"))
    assert guess_layer_axes(named) == "TYX"


def test_a_few_planes_are_planes_unless_something_says_they_are_channels() -> None:
    image = Image(np.zeros((3, 8, 9)))
    assert guess_layer_axes(image) == "ZYX", "as napari shows them: a slider"
    named = Image(np.zeros((3, 8, 9)), axis_labels=("channel", "y", "x"))
    assert guess_layer_axes(named) == "CYX"
    note_axes(image, "TYX")
    assert guess_layer_axes(image) == "TYX"
    image.metadata["other"] = 1
    note_axes(image, "CYX")
    assert guess_layer_axes(image) == "CYX"
    assert image.metadata["other"] == 1


@pytest.mark.parametrize(
    ("how", "axes"),
    [
        ({"imagej": True, "metadata": {"axes": "CYX"}}, "CYX"),
        ({"imagej": True, "metadata": {"axes": "TYX"}}, "TYX"),
        ({"ome": True, "metadata": {"axes": "CYX"}}, "CYX"),
        ({"photometric": "minisblack", "metadata": None}, "ZYX"),
    ],
)
def test_what_the_file_says_about_its_axes_counts(tmp_path, how, axes) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, np.zeros((3, 40, 50), np.uint8), **how)
    with layer_source(path=str(path)):  # as napari marks what it opens
        image = Image(tifffile.imread(path))
    assert image.data.shape == (3, 40, 50)
    assert guess_layer_axes(image) == axes
    path.write_bytes(b"overwritten meanwhile")
    assert guess_layer_axes(image) == "ZYX"


@pytest.mark.parametrize(("ndim", "first"), [(2, "YX"), (3, "ZYX"), (4, "TZYX"), (5, "TZCYX")])
def test_every_reading_names_each_axis_once(ndim: int, first: str) -> None:
    readings = possible_axes(Image(np.zeros((2,) * ndim)))
    assert readings[0] == first
    assert all(len(set(axes)) == len(axes) == ndim for axes in readings)


def test_labels_share_every_transform_of_a_plane() -> None:
    image = Image(
        np.zeros((20, 30)),
        scale=(0.5, 0.25),
        translate=(7, -3),
        rotate=TURN,
        shear=[0.2],
        affine=np.array([[1, 0.1, 2], [0, 1, 3], [0, 0, 1]]),
        units=("um", "um"),
        axis_labels=("y", "x"),
    )
    labels = labels_on(image, "YX")
    for corner in [(0, 0), (19, 0), (4, 29)]:
        np.testing.assert_allclose(labels.data_to_world(corner), image.data_to_world(corner))
    assert labels.units == image.units
    assert labels.axis_labels == image.axis_labels


def test_labels_of_a_leading_channel_axis_lie_on_the_trailing_axes() -> None:
    image = Image(np.zeros((3, 20, 30)), scale=(1, 0.5, 0.25), translate=(0, 7, -3))
    labels = labels_on(image, "CYX")
    assert labels.ndim == 2
    np.testing.assert_allclose(labels.data_to_world((4, 5)), image.data_to_world((1, 4, 5))[1:])


def test_labels_of_a_channel_axis_in_between_show_at_every_channel() -> None:
    image = Image(np.zeros((5, 3, 20, 30)), scale=(2, 1, 0.5, 0.5))
    labels = labels_on(image, "ZCYX")
    assert labels.data.shape == (5, 1, 20, 30)
    for channel in range(3):
        world = image.data_to_world((4, channel, 6, 7))
        np.testing.assert_array_equal(np.round(labels.world_to_data(world)), (4, 0, 6, 7))
    labels.metadata["napari-unet"] = {"axes": "ZCYX"}
    data, axes = from_layer_shape(labels)
    assert (data.shape, axes) == ((5, 20, 30), "ZYX")


def test_the_plane_shown_is_read_in_the_layers_own_pixels() -> None:
    viewer = ViewerModel()
    image = viewer.add_image(np.zeros((9, 20, 30)), scale=(2, 1, 1), translate=(10, 0, 0))
    viewer.add_image(np.zeros((4, 9, 20, 30)))
    viewer.dims.set_point(1, 10 + 2 * 6)
    assert shown_index(viewer, image) == (6,)


def test_pixel_size_is_told_in_micrometres_or_as_unitless() -> None:
    nano = Labels(np.zeros((4, 5), np.int32), scale=(250, 500), units=("nm", "nm"))
    assert pixel_size(nano) == (pytest.approx((0.25, 0.5)), "um")
    volume = Labels(np.zeros((3, 4, 5), np.int32), scale=(2, 1, 1), units=("um",) * 3)
    volume.metadata["napari-unet"] = {"axes": "ZYX"}
    assert pixel_size(volume) == (pytest.approx((2, 1, 1)), "um")
    plain = Labels(np.zeros((4, 5), np.int32), units=("pixel", "pixel"))
    assert pixel_size(plain) == ((1.0, 1.0), "pixel")
