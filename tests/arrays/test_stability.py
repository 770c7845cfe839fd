"""Objects that come out otherwise at the least change."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.arrays.stability import measure_stability
from napari_unet.arrays.uncertainty import EXTENT, PIXELS, SPLIT, most_telling
from napari_unet.settings import InstanceSettings

SETTINGS = InstanceSettings()
OUTPUTS = ("foreground", "distance")


def disc(shape: tuple[int, int], y: int, x: int, radius: int) -> np.ndarray:
    """Return how deep inside a disc each pixel is, 0..1."""
    ys, xs = np.mgrid[: shape[0], : shape[1]]
    depth = 1 - np.hypot(ys - y, xs - x) / radius
    return np.clip(depth, 0, None).astype(np.float32)


@pytest.fixture
def plane() -> np.ndarray:
    """Return a sure disc, one of which half is faint, and two joined by an unsure saddle."""
    shape = (120, 300)
    foreground, distance = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for depth in (disc(shape, 60, 50, 25), disc(shape, 60, 140, 25)):
        foreground[depth > 0] = 0.98
        distance = np.maximum(distance, depth)
    foreground[60:, 110:170] *= 0.55
    one, other = disc(shape, 60, 225, 26), disc(shape, 60, 255, 26)
    foreground[(one > 0) | (other > 0)] = 0.98
    joined = np.maximum(one, other)
    saddle = (slice(54, 67), slice(225, 256))
    joined[saddle] = np.maximum(joined[saddle], 0.53)
    return np.stack([foreground, np.maximum(distance, joined)])


def test_a_sure_object_is_stable_and_unsure_ones_tell_why(plane) -> None:
    found = measure_stability(plane, OUTPUTS, SETTINGS)
    assert found.doubt[60, 50] < 0.1
    assert found.extent[50, 140] > 0.3, "half of it comes and goes with the threshold"
    assert found.split[50, 140] < 0.1
    assert found.split[60, 225] > 0.3, "it may be one or two"
    assert found.extent[60, 225] < 0.1
    assert found.doubt[5, 5] == 0


def test_without_anything_that_tells_objects_apart_only_the_threshold_counts(plane) -> None:
    found = measure_stability(plane[:1], OUTPUTS[:1], SETTINGS)
    assert found.extent[50, 140] > 0.3
    assert not found.split.any()


def test_what_would_be_an_object_at_a_lower_threshold_is_doubtful(plane) -> None:
    plane[0, 92:116, 30:70] = 0.45
    found = measure_stability(plane, OUTPUTS, SETTINGS)
    assert (found.extent[95:110, 35:65] == 1).all()


def test_an_empty_plane_has_no_doubt() -> None:
    found = measure_stability(np.zeros((2, 40, 40), np.float32), OUTPUTS, SETTINGS)
    assert not found.doubt.any()


def test_the_most_telling_spot_is_where_objects_are_unsure_and_it_tells_why(plane) -> None:
    def stability(index):
        return measure_stability(plane, OUTPUTS, SETTINGS)

    vouched = np.zeros(plane.shape[1:], bool)
    seen = []
    for _ in range(2):
        spot = most_telling(plane[0], stability, vouched, window_px=48)
        assert spot is not None
        seen.append(spot)
        x = spot.position[1]
        vouched[:, max(0, x - 60) : x + 60] = True
    places = {spot.reason: spot.position[1] for spot in seen}
    assert abs(places[SPLIT] - 240) < 40
    faint = places.get(EXTENT, places.get(PIXELS))
    assert faint is not None
    assert abs(faint - 140) < 40


def test_where_all_is_vouched_for_there_is_no_spot(plane) -> None:
    def stability(index):
        raise AssertionError("nothing is left to look into")

    assert most_telling(plane[0], stability, np.ones(plane.shape[1:], bool)) is None


def test_of_a_stack_only_the_most_doubtful_planes_are_looked_into(plane) -> None:
    stack = np.stack([plane] * 6, axis=1)
    stack[0, 2:] = np.round(stack[0, 2:])
    asked = []

    def stability(index):
        asked.append(index)
        return measure_stability(stack[(slice(None), *index)], OUTPUTS, SETTINGS)

    spot = most_telling(stack[0], stability)
    assert spot is not None
    assert len(spot.position) == 3
    assert len(asked) == 3
    assert {(0,), (1,)} <= set(asked)
