"""The most doubtful place is found, and never where somebody has looked already."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.arrays.uncertainty import around, doubt, most_uncertain
from napari_unet.errors import ImageError


def doubtful_at(shape, centre, half=10):
    probability = np.full(shape, 0.02, np.float32)
    window = tuple(slice(c - half, c + half) for c in centre[-2:])
    probability[(*centre[:-2], *window)] = 0.5
    return probability


def test_doubt_is_greatest_at_one_half():
    assert np.allclose(doubt(np.array([0.0, 0.25, 0.5, 0.75, 1.0])), [0, 0.5, 1, 0.5, 0])


def test_the_doubtful_spot_is_found_in_its_plane():
    probability = doubtful_at((3, 80, 100), (1, 30, 60))
    plane, y, x = most_uncertain(probability, window_px=20)
    assert plane == 1
    assert abs(y - 30) <= 1
    assert abs(x - 60) <= 1


def test_a_place_that_is_vouched_for_is_not_chosen_again():
    probability = np.maximum(doubtful_at((80, 100), (30, 60)), doubtful_at((80, 100), (60, 20), 6))
    vouched = np.zeros(probability.shape, bool)
    vouched[15:45, 45:75] = True
    assert np.hypot(*np.subtract(most_uncertain(probability, window_px=20), (30, 60))) < 2
    y, x = most_uncertain(probability, vouched, window_px=20)
    assert not vouched[y, x]
    assert abs(y - 60) <= 2
    assert abs(x - 20) <= 2


def test_places_that_were_looked_at_are_passed_by_in_turn_until_none_is_left():
    probability = np.maximum(doubtful_at((80, 100), (30, 60)), doubtful_at((80, 100), (60, 20), 6))
    visited = []
    for _ in range(99):
        looked = around(visited, probability.shape, window_px=20)
        assert len(visited) == 0 or looked[visited[-1]]
        place = most_uncertain(probability, looked, window_px=20)
        if place is None:
            break
        visited.append(place)
    assert np.hypot(*np.subtract(visited[0], (30, 60))) < 3
    assert any(np.hypot(*np.subtract(place, (60, 20))) < 8 for place in visited[1:9])
    assert len(set(visited)) == len(visited) < 99


def test_what_was_looked_at_is_in_one_plane():
    mask = around([(1, 2, 3)], (3, 40, 40), window_px=10)
    assert (mask.sum(), mask[1, :7, :8].sum()) == (7 * 8, 7 * 8)


def test_an_edge_of_one_object_is_less_doubtful_than_a_doubtful_area():
    probability = doubtful_at((128, 128), (30, 30), 12)
    probability[60:120, 60:120] = 0.98
    probability[60:120, 60] = probability[60:120, 119] = 0.5
    y, x = most_uncertain(probability, window_px=24)
    assert (y, x) < (50, 50)


def test_with_everything_vouched_for_there_is_no_place():
    probability = doubtful_at((2, 30, 30), (0, 15, 15), 5)
    assert most_uncertain(probability, np.ones(probability.shape, bool)) is None
    last = np.ones(probability.shape, bool)
    last[1, 3, 4] = False
    assert most_uncertain(probability, last) == (1, 3, 4)


def test_not_a_number_is_no_doubt():
    probability = doubtful_at((60, 60), (40, 40), 5)
    probability[:20] = np.nan
    assert most_uncertain(probability, window_px=10)[0] > 30


def test_arrays_that_do_not_belong_together_are_refused():
    with pytest.raises(ImageError, match=r"\(3, 3\)"):
        most_uncertain(np.zeros((4, 4), np.float32), np.zeros((3, 3), bool))
