"""The threshold follows what the checks had never seen, and is not judged on what chose it."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.models.card import Card
from napari_unet.runs.evaluate import score
from napari_unet.runs.judged import Part
from napari_unet.runs.thresholds import TRIED, fit_threshold, score_fitted, with_threshold
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
    return score_fitted(CARD, parts, SEGMENT)[1]


def test_what_is_scored_is_what_is_found_with_the_fitted_threshold() -> None:
    parts = [part(0.9, 0.52, 1), part(0.9, 0.52, 2)]
    scores, threshold = score_fitted(CARD, parts, SEGMENT)
    assert threshold != 0.5
    assert scores == score(CARD, parts, with_threshold(SEGMENT, threshold))
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
    scores, threshold = score_fitted(CARD, [odd], SEGMENT)
    assert (usual.tp, scores.tp) == (15, 16)
    assert threshold == 0.4
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
