"""An image is shown to the network at the size it knows; the result has the image's pixels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from napari_unet.errors import SettingError
from napari_unet.models.card import Card
from napari_unet.models.model import Model
from napari_unet.runs.predict import predict, segment
from napari_unet.runs.samples import Sample, prepare_plane
from napari_unet.runs.zoom import (
    choose_zoom,
    rescaled,
    resize,
    resize_mask,
    resize_part,
    sources,
    zoomed_shape,
)
from napari_unet.settings import InstanceSettings, SegmentSettings


@pytest.fixture
def model(tiny_unet) -> Model:
    return Model(tiny_unet, Card(name="t", architecture=tiny_unet.architecture, object_size_px=20))


def test_the_factor_is_that_of_the_two_object_sizes(model) -> None:
    assert choose_zoom(model.card, SegmentSettings()) == 1
    assert choose_zoom(model.card, SegmentSettings(object_size_px=80)) == 0.25
    assert zoomed_shape((100, 3), 0.25) == (25, 1)
    assert InstanceSettings(min_size=64).scaled(0.25).min_size == 4


@pytest.mark.parametrize(("size", "new"), [(100, 37), (37, 100), (50, 50), (3, 1), (1, 40)])
def test_parts_of_a_plane_are_parts_of_it_at_another_size(size, new) -> None:
    ends = sorted({0, size // 3, size // 2, size})
    parts = [rescaled([slice(a, b)], [size], [new])[0] for a, b in itertools.pairwise(ends)]
    assert parts[0].start == 0
    assert parts[-1].stop == new
    assert all(part.start < part.stop <= new for part in parts)
    if new >= size:
        assert all(a.stop == b.start for a, b in itertools.pairwise(parts))


@pytest.mark.parametrize("size", [1.0, 321.0])
def test_a_size_far_from_what_the_model_knows_is_refused(model, size: float) -> None:
    with pytest.raises(SettingError, match="too far"):
        choose_zoom(model.card, SegmentSettings(object_size_px=size))


def test_a_model_that_does_not_know_its_object_size_says_so(model) -> None:
    card = model.card.replace(object_size_px=None)
    with pytest.raises(SettingError, match="does not say how large"):
        choose_zoom(card, SegmentSettings(object_size_px=20))


def test_smooth_scaling_keeps_place_and_mean_in_2d_and_3d() -> None:
    y, x = np.mgrid[:48, :64]
    ramp = (y + 2 * x)[None].astype(np.uint16)
    half = resize(ramp, (24, 32))
    assert half.dtype == np.float32
    assert half.mean() == pytest.approx(ramp.mean(), rel=1e-3)
    np.testing.assert_allclose(resize(half, (48, 64))[0, 8:-8, 8:-8], ramp[0, 8:-8, 8:-8], atol=1)
    volume = np.random.default_rng(0).normal(size=(2, 6, 8, 10))
    assert resize(volume, (3, 4, 5)).mean() == pytest.approx(volume.mean(), abs=1e-6)
    np.testing.assert_array_equal(resize(ramp, (48, 64)), ramp)


def test_grey_values_with_a_large_offset_give_the_same_result(model, blobs) -> None:
    settings = SegmentSettings(object_size_px=40)
    image = blobs.image.round().astype(np.int64)
    near, far = (predict(model, image + offset, "YX", settings) for offset in (0, 2**31))
    np.testing.assert_allclose(near, far, atol=1e-5)


@pytest.mark.parametrize("other", [(15, 20), (7, 9), (30, 40), (44, 97)])
def test_a_mask_keeps_thin_lines_and_labels_are_looked_up_where_they_are_known(other) -> None:
    shape = (30, 40)
    labels = 1 + np.arange(1200).reshape(shape)
    known = np.zeros(shape, bool)
    known[5:14, 7], known[20, :25], known[25:, 31:] = True, True, True  # two strokes, a box
    known[np.arange(18), 12 + np.arange(18)] = True  # and a slanting stroke
    small = resize_mask(known, other)
    at = np.nonzero(known)
    expected = np.zeros(other, bool)
    expected[tuple(((at[n] + 0.5) * other[n] // shape[n]).astype(int) for n in (0, 1))] = True
    if other <= shape:
        np.testing.assert_array_equal(small, expected)
    assert (small | ~expected).all()
    whole = [slice(0, side) for side in shape], shape, [slice(0, side) for side in other], other
    at = sources(known, *whole)
    np.testing.assert_array_equal(known[at], small)
    nearest = sources(np.ones(shape, bool), *whole)
    there = known[nearest]
    np.testing.assert_array_equal(labels[at][there | ~small], labels[nearest][there | ~small])


def test_labels_of_a_part_are_looked_up_as_in_its_plane() -> None:
    shape, other = (60, 80), (21, 27)
    known = np.zeros(shape, bool)
    known[20:40, 31] = known[33, 12:70] = True
    labels = np.arange(4800).reshape(shape)
    whole = labels[sources(known, [slice(0, 60), slice(0, 80)], shape, np.s_[0:21, 0:27], other)]
    wanted = (slice(4, 17), slice(2, 26))
    part = rescaled(wanted, other, shape)
    there = sources(known[part], part, shape, wanted, other)
    kept = resize_mask(known, other)[wanted]
    assert kept.sum() > 25
    np.testing.assert_array_equal(labels[part][there][kept], whole[wanted][kept])


@pytest.mark.parametrize("other", [(23, 41), (131, 97), (60, 140)])
def test_a_part_is_scaled_as_in_its_plane(other) -> None:
    shape = (60, 80)
    maps = np.random.default_rng(0).random((2, *shape), np.float32)
    whole = resize(maps, other)
    for part in ((slice(16, 48), slice(8, 80)), (slice(0, 60), slice(0, 33))):
        wanted = rescaled(part, shape, other)
        scaled = resize_part(maps[:, *part], part, shape, wanted, other)
        expected = whole[:, *wanted]
        assert scaled.shape == expected.shape
        inner = (slice(None), slice(4, -4), slice(4, -4))  # beside the part nothing is known
        np.testing.assert_allclose(scaled[inner], expected[inner], atol=1e-6)
        corner = (slice(None), *(slice(None, -4) if s.start == 0 else slice(4, -4) for s in part))
        np.testing.assert_allclose(scaled[corner], expected[corner], atol=1e-6)


def test_an_image_enlarged_and_told_so_gives_the_enlarged_result(model, blobs) -> None:
    """Negative control: not told so, the network sees other objects."""
    twice = np.kron(blobs.image, np.ones((2, 2), np.float32))
    small = predict(model, blobs.image, "YX")
    told = predict(model, twice, "YX", SegmentSettings(object_size_px=40))
    untold = predict(model, twice, "YX")
    assert told.shape == (1, *twice.shape)
    expected = resize(small, twice.shape)
    near, far = (float(np.abs(p - expected).mean()) for p in (told, untold))
    assert near < 0.4 * far


def test_planes_of_any_size_and_stack_come_back_at_their_own_size(model) -> None:
    for shape, axes in [((1, 1), "YX"), ((3, 70, 41), "ZYX"), ((5, 300), "YX")]:
        labels = segment(
            model, np.ones(shape, np.uint8), axes, SegmentSettings(object_size_px=33.3)
        )
        assert labels.shape == shape


def test_learning_sees_what_segmenting_sees(model, blobs) -> None:
    labelled = np.zeros(blobs.labels.shape, bool)
    labelled[:64, :96] = True
    sample = Sample(blobs.image[None], blobs.labels, labelled=labelled)
    plane = prepare_plane(sample, model.card, SegmentSettings(object_size_px=40), reach_px=8)
    assert plane is not None
    assert plane.vouched.sum() == pytest.approx(labelled.sum() / 4, rel=0.02)
    assert plane.image.shape[1:] == plane.truth.shape
    inside = {int(n) for n in np.unique(plane.truth[plane.vouched])} - {0}
    assert len(inside) == len(set(np.unique(blobs.labels[labelled])) - {0})
