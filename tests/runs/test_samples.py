"""A sample becomes what the network sees: scaled, completed, cut to what is vouched for."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.errors import ImageError
from napari_unet.models.card import Card
from napari_unet.runs import samples as sampling
from napari_unet.runs.held_out import objects_in
from napari_unet.runs.samples import Sample, grown_box, prepare_plane
from napari_unet.settings import Architecture, SegmentSettings
from tests.runs.fields import box, discs

CARD = Card(name="x", architecture=Architecture(widths=(3, 4)))
IMAGE = np.arange(2000, dtype=np.uint16).reshape(1, 40, 50)
LABELS = np.pad(np.ones((20, 20), int), ((10, 10), (10, 20)))


def test_a_plane_is_cut_to_what_is_vouched_for_on_the_grid() -> None:
    mask = np.zeros(LABELS.shape, bool)
    mask[13:21, 17:29] = True
    assert grown_box(mask, 3, 4) == (slice(8, 24), slice(12, 32))
    assert grown_box(mask, 100) == (slice(0, 40), slice(0, 50))
    assert grown_box(mask, 9, 8) == (slice(0, 32), slice(8, 40))
    corner = np.pad(np.ones((5, 5), bool), ((33, 0), (42, 0)))  # ends off the grid
    assert grown_box(corner, 5, 8) == (slice(24, 38), slice(32, 47))
    plane = prepare_plane(Sample(IMAGE, LABELS, mask), CARD, SegmentSettings(), 3, 4)
    assert plane is not None
    assert plane.image.shape == (1, 16, 20)
    assert plane.vouched.sum() == mask.sum()
    nothing = Sample(IMAGE, LABELS, np.zeros_like(mask))
    assert prepare_plane(nothing, CARD, SegmentSettings(), 3, 4) is None


def test_what_changed_may_be_any_array_of_0_and_others() -> None:
    sample = Sample(IMAGE, LABELS, changed=(LABELS * 3).astype(np.int16))
    plane = prepare_plane(sample, CARD, SegmentSettings(), 0)
    assert plane is not None
    assert plane.changed.dtype == bool
    assert plane.changed.sum() == (LABELS > 0).sum()


def sample(labels=None, labelled=None, image=None) -> Sample:
    labels = discs((64, 80)) if labels is None else labels
    if image is None:
        image = 100 + 50 * np.random.default_rng(0).random((1, *np.shape(labels)))
    return Sample(image, labels, labelled)


def test_grey_values_are_scaled_as_the_whole_plane_not_as_the_region():
    image = np.zeros((1, 64, 80))
    image[0, :, 40:] = 100
    mask = box((64, 80), 0, 0, 32, 32)  # dark all over
    plane = prepare_plane(sample(labelled=mask, image=image), CARD, SegmentSettings(), 4)
    assert plane.image.max() == 0
    inverted = prepare_plane(
        sample(labelled=mask, image=image), CARD, SegmentSettings(invert=True), 4
    )
    assert inverted.image.min() == 1
    assert plane.truth.shape == (36, 36)
    assert plane.vouched.sum() == 32 * 32


def test_channels_are_chosen_as_in_use():
    image = np.stack([np.full((64, 80), value, float) for value in (0, 1, 2)])
    image[1, 0, :40] = 9
    settings = SegmentSettings(channels=(1,))
    plane = prepare_plane(sample(image=image), CARD, settings, 0)
    assert plane.image.shape == (1, 64, 80)
    assert plane.image[0, 0, 0] > plane.image[0, 5, 5]
    with pytest.raises(ImageError):
        prepare_plane(sample(image=image), CARD, SegmentSettings(channels=(3,)), 0)


def test_one_number_for_many_objects_is_taken_for_many_objects():
    labels = np.minimum(discs((64, 80)), 1)
    plane = prepare_plane(sample(labels=labels), CARD, SegmentSettings(), 0)
    assert objects_in(plane, plane.vouched) == len(np.unique(discs((64, 80)))) - 1


def test_of_a_large_image_only_what_is_near_is_gone_through(monkeypatch) -> None:
    """Objects far from what is checked cost no time: there may be thousands."""
    gone_through = []
    real = sampling.join_outside

    def remember(labels, mask):
        gone_through.append(labels.shape)
        return real(labels, mask)

    monkeypatch.setattr(sampling, "join_outside", remember)
    large = sample(discs((640, 800)), box((640, 800), 300, 300, 340, 350))
    for settings in (SegmentSettings(), SegmentSettings(object_size_px=40)):
        card = CARD.replace(object_size_px=20)
        plane = prepare_plane(large, card, settings, 8)
        assert plane.vouched.any()
        assert max(gone_through.pop()) <= 50 + 2 * 8 * 2
