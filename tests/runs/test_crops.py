"""Crops are drawn from what was vouched for, and what nobody knows weighs nothing."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.runs.crops import Crops
from tests.runs.fields import CARD, box, discs, plane_of


def test_weights_are_zero_where_nothing_is_known_and_high_where_corrected():
    labels = np.zeros((96, 96), np.int32)
    labels[40:50, 40:50] = 1
    vouched = box(labels.shape, 32, 32, 64, 64)
    changed = box(labels.shape, 40, 40, 50, 45) & vouched
    crops = Crops([plane_of(labels, vouched, changed)], [np.zeros_like(vouched)], CARD, 96, 0, 3.0)
    images, targets, weights = crops.draw(1, np.random.default_rng(0))
    assert images.shape == targets.shape == weights.shape == (1, 1, 96, 96)
    assert np.array_equal(weights[0, 0] > 0, vouched)
    assert np.array_equal(targets[0, 0] > 0, labels > 0)
    assert weights[0, 0][changed].min() == pytest.approx(3.0)
    assert weights[0, 0][vouched & ~changed].min() == pytest.approx(1.0)


def test_crops_prefer_places_that_were_corrected():
    labels = discs((256, 256))
    changed = box(labels.shape, 200, 200, 210, 210)
    everything, nothing = np.ones(labels.shape, bool), np.zeros(labels.shape, bool)

    def hits(changed):
        plane = plane_of(labels, everything, changed)
        windows = Crops([plane], [nothing], CARD, 32).draw_windows(300, np.random.default_rng(0))
        return sum(160 < y < 220 and 160 < x < 220 for _, (y, x) in windows)

    assert hits(changed) > 130
    assert hits(nothing) < 60


def test_the_margin_of_an_unpadded_network_is_seen_but_weighs_nothing():
    labels = discs((60, 60))
    everything, nothing = np.ones(labels.shape, bool), np.zeros(labels.shape, bool)
    crops = Crops([plane_of(labels, everything)], [nothing], CARD, 32, 10)
    images, _, weights = crops.draw(5, np.random.default_rng(0))
    assert images.shape[-2:] == (52, 52)
    assert weights[..., 10:-10, 10:-10].min() > 0
    at_corner = Crops([plane_of(labels, everything)], [nothing], CARD, 60, 10)
    image = at_corner.draw(1, np.random.default_rng(0))[0][0, 0]
    assert np.array_equal(image[9], image[11]), "mirrored at the edge of the plane"


def test_a_plane_smaller_than_a_crop_is_mirrored_with_weight_0():
    labels = discs((40, 30), spacing=20, radius=5)
    everything, nothing = np.ones(labels.shape, bool), np.zeros(labels.shape, bool)
    crops = Crops([plane_of(labels, everything)], [nothing], CARD, 64)
    images, _, weights = crops.draw(1, np.random.default_rng(0))
    assert images.shape == (1, 1, 64, 64)
    assert np.array_equal(weights[0, 0] > 0, box((64, 64), 0, 0, 40, 30))


def test_a_part_of_a_batch_is_drawn_as_in_the_whole():
    labels = discs((100, 120))
    everything, nothing = np.ones(labels.shape, bool), np.zeros(labels.shape, bool)
    crops = Crops([plane_of(labels, everything)], [nothing], CARD, 32)
    whole = crops.draw(6, one := np.random.default_rng(0))
    parts = crops.draw(6, other := np.random.default_rng(0), slice(2, 5))
    assert all(np.array_equal(a[2:5], b) for a, b in zip(whole, parts, strict=True))
    assert one.bit_generator.state == other.bit_generator.state
