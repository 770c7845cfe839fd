"""Equally good models seldom look different by luck, and a better one is told from them."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.special import ndtr

from napari_unet.models.card import Card
from napari_unet.runs import places as module
from napari_unet.runs.evaluate import score_labels
from napari_unet.runs.places import Tally, count_places, divide, measure_difference, place_of
from napari_unet.runs.verdict import compare
from napari_unet.settings import Architecture

RNG = np.random.default_rng
CELLS = Card(name="cells", architecture=Architecture(widths=(4, 8)))


def tally(right, whole) -> Tally:
    return Tally(np.array(right, float)[:, None], np.array(whole, float)[:, None])


COUNTS = st.lists(st.tuples(*[st.integers(0, 3)] * 4), min_size=1, max_size=20)


@settings(max_examples=30)
@given(COUNTS)
def test_gains_add_up_to_more_than_chance_only_if_the_score_is_higher(counts):
    old_right, old_rest, new_right, new_rest = np.array(counts).T
    before, after = (
        tally(old_right, old_right + old_rest),
        tally(new_right, new_right + new_rest),
    )
    found = measure_difference(before, after)
    both_exist = before.whole.any() and after.whole.any()
    if both_exist:
        assert (found.chance < 1) == (after.score > before.score + 1e-9)
    assert found.gain == pytest.approx(after.score - before.score)
    assert measure_difference(before, after) == found


def test_the_chance_is_that_of_all_tosses_counted_out():
    gains = np.array([0.4, 0.1, -0.2, 0.3, 0.25])
    tosses = [np.dot(signs, gains) for signs in product((-1, 1), repeat=5)]
    counted = np.mean([toss >= gains.sum() - 1e-9 for toss in tosses])
    assert module._chance(gains) == pytest.approx(counted)


def test_drawn_tosses_agree_with_counted_ones(monkeypatch):
    gains = RNG(0).normal(0.4, 1, 12)
    exact = module._chance(gains)
    monkeypatch.setattr(module, "TOSSED_EXACTLY", 0)
    assert 0.02 < exact < 0.3
    assert module._chance(gains) == pytest.approx(exact, abs=0.02)


def test_a_gain_in_each_of_five_places_is_one_toss_in_32():
    found = measure_difference(tally([0] * 5, [1] * 5), tally([1] * 5, [1] * 5))
    assert found.chance == 1 / 32
    assert (found.gain, found.places, found.differing) == (1, 5, 5)
    assert found.interval == (1, 1)


def test_thousands_of_places_are_put_together_and_nothing_is_lost():
    random = RNG(1)
    before, after = (
        tally(random.integers(0, 3, 5000), np.full(5000, 3)),
        tally(random.integers(0, 4, 5000), np.full(5000, 3)),
    )
    found = measure_difference(before, after)
    assert found.places == module.MOST_PLACES
    assert found.chance < 0.01
    assert found.interval[0] < found.gain < found.interval[1]


def test_places_are_two_objects_wide_and_differ_between_planes():
    truth = np.zeros((100, 130), np.int32)
    y, x = np.indices(truth.shape)
    for number, centre in enumerate(((20, 20), (20, 60), (70, 100)), 1):
        truth[np.hypot(y - centre[0], x - centre[1]) <= 10] = number
    mask = np.ones(truth.shape, bool)
    first, second = divide([truth, truth], [mask, mask], semantic=False)
    width = np.argmax(first[0] != first[0, 0])
    assert width == pytest.approx(40, abs=2)
    assert not set(np.unique(first)) & set(np.unique(second))
    assert place_of(truth, first)[1] == first[20, 20]
    assert place_of(truth, first)[3] == first[70, 100]
    assert count_places([truth], [mask], semantic=False) == 3
    mask[:50] = False
    assert count_places([truth], [mask], semantic=False) == 1


# ---------------------------------------------------------------- two models that are equally good


def true_cells(seed, shape):
    """Cells that touch, about 12 px wide: a plane divided by its nearest seeds."""
    random = RNG(seed)
    grid = np.mgrid[6 : shape[0] : 12, 6 : shape[1] : 12].reshape(2, -1).T
    seeds = np.clip(grid + random.integers(-3, 4, grid.shape), 0, np.array(shape) - 1)
    away = np.ones(shape, bool)
    away[tuple(seeds.T)] = False
    distance, nearest = ndimage.distance_transform_edt(away, return_indices=True)
    at = np.ravel_multi_index(tuple(nearest), shape)
    _, names = np.unique(at, return_inverse=True)
    labels = (names.reshape(shape) + 1) * (distance < 5.5)
    missing = random.random(labels.max() + 1) < 0.3
    kept = np.where(missing[labels], 0, labels)
    return np.unique(kept, return_inverse=True)[1].reshape(shape).astype(np.int32)


def labelled_by_a_model(truth, seed, errors):
    """Lose, merge, shrink and make up cells; neighbours fare alike."""
    random = RNG(seed)
    field = ndimage.gaussian_filter(random.standard_normal(truth.shape), 4)
    middle = place_of(truth, np.arange(truth.size).reshape(truth.shape))
    level = field.ravel()[middle] / field.std() + random.standard_normal(len(middle))
    luck = ndtr(level / np.sqrt(2))
    luck[0] = 0.5  # the background is no cell
    labels = np.where((luck < errors)[truth], 0, truth)
    merged = (luck > 1 - errors / 2)[truth]
    labels = np.where(merged, ndimage.label(merged)[0] + truth.max() + 1, labels)
    spots = np.argwhere((truth == 0) & (field > np.quantile(field, 1 - errors)))
    for number in range(random.poisson(errors * truth.max() / 4)):
        y, x = spots[random.integers(len(spots))]
        labels[y : y + 6, x : x + 6] = 3 * truth.max() + number
    return labels


def outcomes(runs, shape, old_errors, new_errors):
    taken = 0
    for run in range(runs):
        truth = true_cells(run, shape)
        mask = np.ones(shape, bool)
        before, after = (
            score_labels(CELLS, [(labelled_by_a_model(truth, 10 * run + k, errors), truth, mask)])
            for k, errors in ((1, old_errors), (2, new_errors))
        )
        taken += compare(before, after).outcome == "better"
    return taken / runs


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(64, 128), (64, 256), (128, 256)], ids=str)
def test_a_model_that_is_no_better_is_taken_at_most_once_in_twenty_times(shape):
    share = outcomes(300, shape, 0.3, 0.3)
    assert share <= 0.05 + 1.65 * np.sqrt(0.05 * 0.95 / 300)


@pytest.mark.slow
def test_a_model_that_is_clearly_better_is_mostly_taken():
    assert outcomes(100, (64, 128), 0.45, 0.1) > 0.8
    assert outcomes(100, (128, 256), 0.3, 0.15) > 0.8
