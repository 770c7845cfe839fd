import numpy as np
import pytest

from napari_unet.arrays.axes import check_axes, guess_axes, labels_axes, name_plane, plan_planes
from napari_unet.errors import ImageError

EVERY_AXIS = {"T": 3, "Z": 4, "C": 2, "Y": 6, "X": 5}
ALL_AXES = [
    *["YX", "YXC", "CYX", "ZYX", "TYX", "TZYX", "ZTYX", "ZCYX", "CZYX", "TCYX", "CTYX"],
    *["TZCYX", "TCZYX", "CTZYX", "ZTCYX", "TYXC", "TZYXC"],
]

AXES_AND_DIMS = [(axes, dims) for axes in ALL_AXES for dims in (2, 3) if dims == 2 or "Z" in axes]


def image_with(axes):
    shape = tuple(EVERY_AXIS[axis] for axis in axes)
    return np.arange(np.prod(shape)).reshape(shape)


class Recorder:
    """An array that remembers how much was read of it at once."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.read = array, array.shape, array.dtype, []

    def __getitem__(self, index):
        part = self.array[index]
        self.read.append(part.shape)
        return part


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((512, 640), "YX"),
        ((1, 1), "YX"),
        ((40, 512, 512), "ZYX"),
        ((1, 512, 512), "ZYX"),
        ((3, 512, 512), "CYX"),
        ((512, 640, 3), "YXC"),
        ((512, 640, 4), "YXC"),
        ((2, 75, 75, 75), "CZYX"),
        ((75, 2, 75, 75), "ZCYX"),
        ((20, 9, 64, 64), "TZYX"),
        ((22, 256, 320, 3), "ZYXC"),
        ((20, 9, 3, 64, 64), "TZCYX"),
        ((20, 3, 9, 64, 64), "TCZYX"),
        ((9, 9, 9, 64, 64), "TZCYX"),
    ],
)
def test_axes_are_guessed_from_the_shape(shape, axes):
    assert guess_axes(shape) == axes
    assert check_axes(axes, shape) == axes


def test_colour_that_is_known_is_not_guessed():
    assert guess_axes((2, 2, 3), rgb=True) == "YXC"
    assert guess_axes((9, 2, 2, 3), rgb=True) == "ZYXC"
    assert guess_axes((5, 9, 64, 64, 3), rgb=True) == "TZYXC"


@pytest.mark.parametrize("shape", [(), (5,), (9,) * 6, (3, 9, 9, 9, 9, 9)])
def test_a_shape_without_a_usual_reading_is_told(shape):
    with pytest.raises(ImageError, match="axes="):
        guess_axes(shape)


@pytest.mark.parametrize(
    ("axes", "shape", "sentence"),
    [
        pytest.param("QYX", (3, 4, 5), "unknown letter Q", id="unknown"),
        pytest.param("YYX", (3, 4, 5), "twice", id="doubled"),
        pytest.param("XYZ", (3, 4, 5), "do not end in YX", id="order"),
        pytest.param("YX", (3, 4, 5), "name 2 axes, but the image has 3", id="number"),
        pytest.param("ZYX", (0, 4, 5), "empty", id="empty"),
        pytest.param("ZYX", (float("nan"), 4, 5), "does not know its own size", id="unknown size"),
    ],
)
def test_axes_that_do_not_fit_are_told(axes, shape, sentence):
    with pytest.raises(ImageError, match=sentence):
        check_axes(axes, shape)


def test_small_letters_are_capitals():
    assert check_axes("zyx", (3, 4, 5)) == "ZYX"


@pytest.mark.parametrize(("axes", "dims"), AXES_AND_DIMS)
def test_planes_read_and_put_back_in_place_are_the_image(axes, dims):
    image = image_with(axes)
    planes = plan_planes(image.shape, axes, dims)
    channel_last = np.moveaxis(image, axes.index("C"), -1) if "C" in axes else image[..., None]
    rebuilt = np.full((*planes.out_shape, planes.channels), -1)
    for index in planes.indices():
        plane = planes.read(image, index)
        assert plane.shape == (planes.channels, *planes.spatial_shape)
        rebuilt[planes.out_index(index)] = np.moveaxis(plane, 0, -1)

    assert planes.out_axes == labels_axes(axes)
    assert (rebuilt == channel_last).all()


@pytest.mark.parametrize(("axes", "dims"), AXES_AND_DIMS)
def test_a_window_is_a_part_of_the_plane_and_nothing_more_is_read(axes, dims):
    image = Recorder(image_with(axes))
    planes = plan_planes(image.shape, axes, dims)
    window = (slice(1, 3), slice(2, 5), slice(0, 4))[-dims:]
    index = list(planes.indices())[-1]
    part = planes.read(image, index, window)

    assert (part == planes.read(image.array, index)[(slice(None), *window)]).all()
    assert [np.prod(shape) for shape in image.read] == [part.size]


def test_transparency_is_not_read():
    planes = plan_planes((6, 5, 4), "YXC")
    assert planes.channels == 3
    assert planes.read(np.zeros((6, 5, 4)), ()).shape == (3, 6, 5)
    assert plan_planes((4, 6, 5), "CYX").channels == 4


def test_a_volume_without_z_is_told():
    with pytest.raises(ImageError, match=r"volumes.*axes='ZYX'"):
        plan_planes((9, 6, 5), "TYX", 3)


def test_a_plane_is_named_as_the_sliders_count():
    assert name_plane("cells", "TZ", (0, 3)) == "cells, T 0, Z 3"
    assert name_plane("cells", "", ()) == "cells"
