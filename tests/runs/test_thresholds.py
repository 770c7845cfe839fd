"""The threshold follows what the checks had never seen, and is not judged on what chose it."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.models.card import Card
from napari_unet.runs.evaluate import score
from napari_unet.runs.judged import Part
from napari_unet.runs.thresholds import TRIED, fit_level, fit_threshold, score_fitted
from napari_unet.settings import Architecture, InstanceSettings, SegmentSettings

CARD = Card(
    name="cells",
    architecture=Architecture(widths=(4, 8)),
    instances=InstanceSettings(min_size=4, split=False),
)
SEGMENT = SegmentSettings(instances=CARD.instances)


def part(inside: float, around: float, seed: int = 0) -> Part:
    """Give squares a probability, and a larger square around each of them another one."""
    truth = np.zeros((120, 120), np.int32)
    probability = np.full((1, 120, 120), 0.02, np.float32)
    for number in range(16):
        y, x = 30 * (number // 4) + 10, 30 * (number % 4) + 10
        truth[y : y + 10, x : x + 10] = number + 1
        probability[0, y - 8 : y + 18, x - 8 : x + 18] = around
        probability[0, y : y + 10, x : x + 10] = inside
    noise = np.random.default_rng(seed).uniform(-0.01, 0.01, probability.shape)
    return Part((probability + noise).astype(np.float32), truth, np.ones(truth.shape, bool))


def fitted(*parts: Part) -> float:
    return score_fitted(CARD, parts, SEGMENT)[1].threshold


def test_what_is_scored_is_what_is_found_with_the_fitted_threshold() -> None:
    parts = [part(0.9, 0.52, 1), part(0.9, 0.52, 2)]
    scores, found = score_fitted(CARD, parts, SEGMENT)
    assert found.threshold != 0.5
    assert found == CARD.instances.replace(threshold=found.threshold), "all else stays"
    assert scores == score(CARD, parts, SEGMENT.replace(instances=found))
    assert scores.objects is not None
    assert scores.objects.score == scores.ap50 == 1


@pytest.mark.parametrize(
    ("ap", "threshold"),
    [
        pytest.param({0.3: 10, 0.4: 20, 0.5: 40, 0.6: 60, 0.7: 70, 0.8: 5}, 0.6, id="half"),
        pytest.param(
            {0.3: 10, 0.4: 20, 0.5: 40, 0.6: 50, 0.7: 70, 0.8: 5}, 0.6, id="less than half"
        ),
        pytest.param({0.3: 10, 0.4: 20, 0.5: 40, 0.6: 41, 0.7: 45, 0.8: 70}, 0.7, id="farther"),
        pytest.param({0.3: 10, 0.4: 20, 0.5: 40, 0.6: 30, 0.7: 30, 0.8: 70}, 0.5, id="a peak"),
        pytest.param({0.3: 70, 0.4: 67, 0.5: 40, 0.6: 30, 0.7: 20, 0.8: 5}, 0.4, id="lower"),
        pytest.param({0.3: 10, 0.4: 20, 0.5: 40, 0.6: 60, 0.7: 20, 0.8: 5}, 0.6, id="one step"),
        pytest.param({0.3: 10, 0.4: 20, 0.5: 40, 0.6: 37, 0.7: 20, 0.8: 5}, 0.5, id="worse"),
        pytest.param({0.3: 10, 0.4: 20, 0.5: 40, 0.6: 39, 0.7: 39, 0.8: 5}, 0.6, id="as good"),
        pytest.param(dict.fromkeys((0.3, 0.4, 0.5, 0.6, 0.7, 0.8), 90), 0.6, id="all the same"),
        pytest.param(dict.fromkeys((0.3, 0.4, 0.5, 0.6, 0.7, 0.8), 0), 0.5, id="nothing helps"),
    ],
)
def test_half_of_the_way_to_the_best_one_is_gone_if_it_helps(
    ap: dict[float, int], threshold: float
) -> None:
    assert fit_threshold(0.5, {tried: (right, 100) for tried, right in ap.items()}) == threshold


def test_learning_again_and_again_carries_no_threshold_away() -> None:
    thresholds = [0.5]
    for _ in range(5):
        tried = dict.fromkeys((*TRIED, thresholds[-1]), (90.0, 100.0))
        thresholds.append(fit_threshold(thresholds[-1], tried))
    assert thresholds[-1] == 0.7
    assert fit_threshold(0.85, dict.fromkeys((*TRIED, 0.85), (90.0, 100.0))) == 0.85, "the own one"


def test_the_threshold_follows_the_probabilities() -> None:
    assert fitted(part(0.9, 0.52)) == 0.6
    assert fitted(part(0.45, 0.1)) == 0.4
    assert fitted(part(0.9, 0.1)) == 0.6, "as good, and surer"


def test_the_threshold_is_that_of_all_parts_together() -> None:
    too_low, fine = part(0.45, 0.1), part(0.9, 0.1)
    assert fitted(too_low, fine) == 0.4, "suits both"
    too_high = part(0.9, 0.52)
    assert fitted(too_high, too_low) == 0.6, "there is more to gain: wrong labels vanish, too"


def test_each_place_is_judged_with_what_the_others_suggest() -> None:
    """Objects of which all but one are found best at 0.5; that one alone would move it."""
    odd = part(0.9, 0.1)
    odd.probability[0, :30, :30] = part(0.45, 0.1).probability[0, :30, :30]
    usual = score(CARD, [odd], SEGMENT)
    scores, found = score_fitted(CARD, [odd], SEGMENT)
    assert (usual.tp, scores.tp) == (15, 16)
    assert found.threshold == 0.4
    assert scores.objects is not None
    assert scores.objects.score == pytest.approx(15 / 16), "it may not be judged on itself"


def test_without_a_better_threshold_the_tallies_are_those_of_the_usual_one() -> None:
    each = part(0.9, 0.1)
    scores, usual = score_fitted(CARD, [each], SEGMENT)[0], score(CARD, [each], SEGMENT)
    for mine, theirs in ((scores.objects, usual.objects), (scores.pixels, usual.pixels)):
        assert mine is not None
        assert theirs is not None
        np.testing.assert_array_equal(mine.right, theirs.right)
        np.testing.assert_array_equal(mine.whole, theirs.whole)


DEEP = CARD.replace(
    architecture=Architecture(widths=(4, 8), classes=2),
    outputs=("foreground", "distance"),
    instances=InstanceSettings(min_size=4),
)
SPLITTING = SegmentSettings(instances=DEEP.instances)


def bars(saddle: float, *, is_one: bool) -> Part:
    """Draw bars of two deep halves with a saddle between; each is one object or two."""
    truth = np.zeros((120, 120), np.int32)
    probability = np.full((2, 120, 120), 0.02, np.float32)
    for number in range(16):
        y, x = 30 * (number // 4) + 5, 30 * (number % 4) + 5
        halves = slice(x, x + 9), slice(x + 9, x + 18)
        for half, columns in enumerate(halves, start=1):
            truth[y : y + 10, columns] = 2 * number + (1 if is_one else half)
        probability[0, y : y + 10, x : x + 18] = 0.95
        probability[1, y : y + 10, x : x + 18] = 0.8
        probability[1, y : y + 10, x + 8 : x + 10] = saddle
    return Part(probability, truth, np.ones(truth.shape, bool))


def test_objects_with_a_dent_in_the_middle_are_joined_and_touching_ones_are_split() -> None:
    for part, level in (
        (bars(0.45, is_one=True), 0.4),
        (bars(0.55, is_one=False), 0.6),
        (bars(0.45, is_one=False), 0.5),
        (bars(0.55, is_one=True), 0.5),
    ):
        scores, found = score_fitted(DEEP, [part], SPLITTING)
        assert found.split_level == level
        assert scores.ap50 == 1
        assert scores.objects is not None
        assert scores.objects.score == 1
    assert score(DEEP, [bars(0.45, is_one=True)], SPLITTING).ap50 == 0.5


def test_a_level_is_not_judged_on_the_place_that_chose_it() -> None:
    one = bars(0.8, is_one=True)
    one.probability[1, :30, :30] = bars(0.45, is_one=True).probability[1, :30, :30]
    scores, found = score_fitted(DEEP, [one], SPLITTING)
    assert (found.split_level, scores.ap50) == (0.4, 1)
    assert scores.objects is not None
    assert scores.objects.score == pytest.approx(16 / 17), "the others suggest no other level"


@pytest.mark.parametrize(
    ("ap", "level"),
    [
        pytest.param({0.3: 70, 0.4: 60, 0.5: 40, 0.6: 30, 0.7: 20}, 0.4, id="half"),
        pytest.param({0.3: 70, 0.4: 41, 0.5: 40, 0.6: 30, 0.7: 20}, 0.5, id="a peak"),
        pytest.param({0.3: 10, 0.4: 20, 0.5: 40, 0.6: 44, 0.7: 20}, 0.6, id="one step"),
        pytest.param({0.3: 10, 0.4: 20, 0.5: 40, 0.6: 42, 0.7: 20}, 0.5, id="next to nothing"),
        pytest.param(dict.fromkeys((0.3, 0.4, 0.5, 0.6, 0.7), 90), 0.5, id="all the same"),
        pytest.param(dict.fromkeys((0.3, 0.4, 0.5, 0.6, 0.7), 0), 0.5, id="nothing helps"),
    ],
)
def test_the_level_moves_half_of_the_way_only_if_that_gains(
    ap: dict[float, int], level: float
) -> None:
    assert fit_level(0.5, {tried: (right, 100) for tried, right in ap.items()}) == level


def test_without_depth_or_splitting_no_level_is_tried() -> None:
    unsplit = SPLITTING.replace(instances=DEEP.instances.replace(split=False))
    _, found = score_fitted(DEEP, [bars(0.45, is_one=True)], unsplit)
    assert found.split_level == 0.5
