"""Blobs are cut where objects meet, and only there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_unet.arrays.connected import components
from napari_unet.arrays.splitting import split_around_seeds, split_at_necks, split_by_depth

SIDE = 80


def disc(y: float, x: float, radius: float) -> np.ndarray:
    """Pixels of a disc in a plane of SIDE x SIDE."""
    ys, xs = np.ogrid[:SIDE, :SIDE]
    return np.hypot(ys - y, xs - x) <= radius


def two_discs(apart: float, radius: float = 14) -> np.ndarray:
    """Two discs so far apart from middle to middle."""
    return disc(40, 40 - apart / 2, radius) | disc(40, 40 + apart / 2, radius)


def count(labels: np.ndarray) -> int:
    return len(np.unique(labels[labels > 0]))


def renumbered(labels: np.ndarray) -> np.ndarray:
    """Labels in the order of their first pixels, so that two ways to count can be compared."""
    names, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(np.where(names == 0, -1, first)))
    return order[inverse].reshape(labels.shape)


@pytest.mark.parametrize(("apart", "objects"), [(8, 1), (26, 2)])
def test_two_discs_are_cut_only_where_a_neck_is_between_them(apart, objects):
    blobs = components(two_discs(apart))
    assert blobs.max() == 1
    assert count(split_at_necks(blobs)) == objects


def test_the_cut_goes_through_the_neck():
    parts = split_at_necks(components(two_discs(26)))
    left, right = (
        np.unique(parts[:, half][parts[:, half] > 0]) for half in (np.s_[:38], np.s_[43:])
    )
    assert len(left) == len(right) == 1
    assert left != right


def test_a_rough_outline_is_no_reason_to_cut():
    random = np.random.default_rng(0)
    for _ in range(20):
        rough = disc(40, 40, 18) ^ (random.random((SIDE, SIDE)) < 0.15) & disc(40, 40, 19)
        blobs = components(ndimage.binary_opening(rough | disc(40, 40, 16)))
        assert count(split_at_necks(blobs)) == count(blobs)


def test_blobs_without_a_cut_keep_their_pixels_and_the_cut_ones_lose_none():
    mask = two_discs(26) | disc(10, 10, 6) | disc(70, 60, 5)
    blobs = components(mask)
    parts = split_at_necks(blobs)
    np.testing.assert_array_equal(parts > 0, mask)
    assert count(parts) == blobs.max() + 1
    for name in np.unique(parts[mask]):
        assert len(np.unique(blobs[parts == name])) == 1


def test_the_depth_of_the_network_says_where_the_middles_are():
    mask = disc(40, 40, 20)
    left, right = disc(40, 32, 5), disc(40, 48, 5)
    one = np.where(left, 0.9, 0.3).astype(np.float32)
    two = np.where(left | right, 0.9, 0.3).astype(np.float32)
    shallow = np.where(left, 0.9, np.where(right, 0.6, 0.3)).astype(np.float32)
    blobs = components(mask)
    assert count(split_by_depth(blobs, one)) == 1
    assert count(split_by_depth(blobs, two)) == 2
    assert count(split_by_depth(blobs, shallow)) == 1


def test_middles_that_meet_above_the_level_are_one():
    blobs = components(disc(40, 40, 20))
    dented = np.where(disc(40, 32, 7) | disc(40, 48, 7), 0.9, 0.45).astype(np.float32)
    assert count(split_by_depth(blobs, dented)) == 2
    assert count(split_by_depth(blobs, dented, 0.4)) == 1
    joined = np.where(disc(40, 32, 7) | disc(40, 48, 7), 0.9, 0.55).astype(np.float32)
    assert count(split_by_depth(blobs, joined)) == 1
    assert count(split_by_depth(blobs, joined, 0.6)) == 2
    assert count(split_by_depth(blobs, joined, 0.85)) == 1, "no seed reaches its peak"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.booleans(), st.sampled_from([(60, 70), (12, 20, 20)]))
def test_every_blob_is_cut_as_it_is_alone(seed, has_depth, shape):
    random = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(random.normal(size=shape), 2)
    blobs = components(smooth > np.quantile(smooth, 0.6))
    depth = np.round(ndimage.gaussian_filter(random.random(shape), 1), 2).astype(np.float32)
    depth = (depth - depth.min()) / np.ptp(depth)

    def cut(some):
        return split_by_depth(some, depth) if has_depth else split_at_necks(some)

    together = cut(blobs)
    for name in random.permutation(np.arange(1, blobs.max() + 1))[:4]:
        alone = np.where(blobs == name, 1, 0).astype(np.int32)
        parts = np.where(blobs == name, together, 0)
        np.testing.assert_array_equal(renumbered(cut(alone)), renumbered(parts))


def test_an_object_is_known_by_the_first_pixel_of_its_seed():
    blobs = components(two_discs(26) | disc(10, 10, 6))
    parts, first = split_around_seeds(blobs, None)
    assert len(first) == parts.max() + 1
    named = parts.ravel()[first[1:]]
    np.testing.assert_array_equal(named[named > 0], np.unique(parts[parts > 0]))
    shifted = np.roll(blobs, (0, 3), axis=(0, 1))
    _, moved = split_around_seeds(shifted, None)
    np.testing.assert_array_equal(np.unique(moved[moved > 0]), np.unique(first[first > 0]) + 3)


def test_what_no_seed_marks_is_no_object_around_seeds():
    blobs = components(two_discs(26))
    parts, _ = split_around_seeds(blobs, np.zeros(blobs.shape, np.float32))
    assert not parts.any()
