"""The distance to the background is exact, whichever way it is measured."""

from __future__ import annotations

import edt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_unet.arrays import distance
from napari_unet.arrays.distance import DEEPEST_PX, distance_to_background


@settings(max_examples=80, deadline=None)
@given(st.tuples(st.integers(1, 150), st.integers(1, 150)), st.integers(0, 10**6))
def test_the_distance_of_any_shape_is_that_of_scipy(shape, seed):
    random = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(random.normal(size=shape), random.choice([0.6, 2, 6, 20]))
    mask = smooth > np.quantile(smooth, random.uniform(0, 0.9))
    expected = ndimage.distance_transform_edt(mask)
    measured = distance_to_background(mask)
    assert measured.dtype == np.float32
    if not mask.all():
        np.testing.assert_allclose(measured, expected, rtol=1e-6)


@pytest.mark.parametrize("depth", [DEEPEST_PX - 1, DEEPEST_PX, DEEPEST_PX + 1, 2 * DEEPEST_PX])
@pytest.mark.parametrize("turned", [False, True])
def test_what_is_deep_is_measured_as_well_as_what_is_not(depth, turned):
    mask = np.ones((2 * depth + 1, 40), bool)
    mask[[0, -1]] = False
    mask = mask.T if turned else mask
    assert distance_to_background(mask).max() == depth


def test_rows_that_are_all_inside_are_as_deep_as_their_neighbours_say():
    mask = np.ones((9, 700), bool)
    mask[0] = False
    np.testing.assert_array_equal(distance_to_background(mask)[:, 350], np.arange(9))


def test_the_general_method_is_used_only_for_depth_and_volumes(monkeypatch):
    calls = []
    monkeypatch.setattr(edt, "edt", lambda mask, **_: calls.append(mask.shape))
    disc = np.hypot(*np.ogrid[-50:50, -50:50]) < 40
    distance_to_background(disc)
    assert calls == []
    distance_to_background(disc[None])
    monkeypatch.setattr(distance, "DEEPEST_PX", 20)
    distance_to_background(disc)
    assert calls == [(1, 100, 100), (100, 100)]
