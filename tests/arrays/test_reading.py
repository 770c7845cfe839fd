"""A plane that is read window by window is the plane, and each chunk is decoded once."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_unet.arrays import reading
from napari_unet.arrays.axes import plan_planes
from napari_unet.arrays.reading import PlaneReader, plane_of


class Chunked:
    """An array in chunks that counts how often each pixel is decoded."""

    def __init__(self, array, chunks):
        self.array, self.chunks = array, chunks
        self.shape, self.dtype = array.shape, array.dtype
        self.times_read = np.zeros(array.shape, int)

    def __getitem__(self, at):
        self.times_read[at] += 1
        return self.array[at]


@given(st.data())
def test_any_window_of_a_chunked_plane_is_that_of_the_plane(data):
    axes = data.draw(st.sampled_from(["YX", "CYX", "TCYX", "YXC", "TZYX"]))
    size = {"T": 2, "Z": 3, "C": 3, "Y": 70, "X": 90}
    shape = tuple(size[axis] for axis in axes)
    image = np.arange(np.prod(shape)).reshape(shape)
    chunks = tuple(data.draw(st.integers(1, length)) for length in shape)
    if data.draw(st.booleans()):  # as dask says it
        chunks = tuple(
            tuple(min(chunk, length - start) for start in range(0, length, chunk))
            for chunk, length in zip(chunks, shape, strict=True)
        )
    planes = plan_planes(shape, axes)
    index = tuple(length - 1 for length in planes.lead_shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "LEAST_CELL_PX", {2: data.draw(st.sampled_from([1, 20]))})
        patch.setattr(reading, "KEPT_BYTES", data.draw(st.sampled_from([0, 10_000])))
        reader = PlaneReader(Chunked(image, chunks), planes, index, None, planes.channels)
        expected = planes.read(image, index)
        assert reader.shape == expected.shape
        for _ in range(3):
            window = tuple(
                slice(*sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2))))
                for n in planes.spatial_shape
            )
            np.testing.assert_array_equal(
                reader[(slice(None), *window)], expected[(slice(None), *window)]
            )


def test_chunks_are_decoded_once_although_windows_overlap():
    image = Chunked(np.random.default_rng(0).integers(0, 99, (900, 1000)), (300, 400))
    reader = PlaneReader(image, plan_planes((900, 1000), "YX"), (), None, 1)
    for top, left in itertools.product(range(0, 900, 100), range(0, 1000, 100)):
        reader[:, top : top + 200, left : left + 200]
    assert (image.times_read == 1).all()


def test_no_more_than_the_limit_is_kept(monkeypatch):
    monkeypatch.setattr(reading, "KEPT_BYTES", 2 * 300 * 400 * 8)
    image = Chunked(np.zeros((900, 1200)), (300, 400))
    reader = PlaneReader(image, plan_planes((900, 1200), "YX"), (), None, 1)
    for top, left in itertools.product(range(0, 900, 300), range(0, 1200, 400)):
        reader[:, top : top + 300, left : left + 400]
        assert sum(kept.nbytes for kept in reader._kept.values()) <= reading.KEPT_BYTES


def test_an_array_in_memory_is_not_copied():
    image = np.zeros((2, 30, 40))
    reader = PlaneReader(image, plan_planes(image.shape, "ZYX"), (1,), None, 1)
    assert np.shares_memory(reader[:, 5:9, 3:7], image)


def test_channels_are_picked_and_their_mean_is_of_their_dtype():
    image = np.arange(3 * 8 * 9, dtype=np.uint8).reshape(3, 8, 9)
    planes = plan_planes(image.shape, "CYX")
    picked = PlaneReader(image, planes, (), (2, 0), 2)
    np.testing.assert_array_equal(picked[:, 1:3, :], image[[2, 0], 1:3])
    mean = PlaneReader(image, planes, (), None, 1)
    assert mean.dtype == mean[:, :, :].dtype == np.float32
    np.testing.assert_allclose(mean[:, :, :][0], image.mean(axis=0))


@pytest.mark.parametrize("maps", [(), (2,)])
def test_a_plane_of_a_stack_is_written_where_it_lies(maps):
    planes = plan_planes((3, 2, 20, 30), "TCYX")
    in_memory, elsewhere = (np.zeros((*maps, 3, 20, 30)) for _ in range(2))
    for array in (in_memory, Stored(elsewhere)):
        plane = plane_of(array, planes, (1,))
        assert plane.shape == (*maps, 20, 30)
        window = (*[slice(None)] * len(maps), slice(2, 5), slice(7, 9))
        plane[window] = 4
        assert (plane[window] == 4).all()
    np.testing.assert_array_equal(in_memory, elsewhere)
    assert in_memory.sum() == 4 * 6 * max(sum(maps), 1)
    assert not in_memory[..., [0, 2], :, :].any()


class Stored:
    """An array that is no numpy array."""

    def __init__(self, array):
        self._array, self.shape, self.dtype = array, array.shape, array.dtype

    def __getitem__(self, at):
        return self._array[at]

    def __setitem__(self, at, values):
        self._array[at] = values
