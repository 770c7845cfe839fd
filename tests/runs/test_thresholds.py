"""The threshold follows what the checks had never seen, and is not judged on what chose it."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.models.card import Card
from napari_unet.runs import thresholds as module
from napari_unet.runs.evaluate import Part, score
from napari_unet.runs.thresholds import fit_threshold, score_checks
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


def test_the_threshold_moves_half_of_the_way_to_the_best_one() -> None:
    too_high, too_low = part(0.9, 0.52), part(0.45, 0.1)
    assert score(CARD, [too_high], SEGMENT).ap50 == 0
    assert fit_threshold(CARD, [too_high], SEGMENT).instances.threshold == pytest.approx(0.55)
    low = fit_threshold(CARD, [too_low], SEGMENT).instances.threshold
    assert low == 0.4, "half of the way would give less than half of the gain"


def test_a_threshold_that_is_right_stays() -> None:
    assert fit_threshold(CARD, [part(0.9, 0.1)], SEGMENT) == SEGMENT
    assert fit_threshold(CARD, [part(0.5, 0.5)], SEGMENT) == SEGMENT, "nothing helps"


def test_each_check_is_judged_with_the_threshold_of_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = part(0.9, 0.52, 1), part(0.9, 0.52, 2)
    asked = []
    real = module.fit_threshold

    def remember(card: Card, parts: list[Part], segment: SegmentSettings) -> SegmentSettings:
        asked.append(parts)
        return real(card, parts, segment)

    monkeypatch.setattr(module, "fit_threshold", remember)
    assert score_checks(CARD, [[first], [second]], SEGMENT, fit=True).ap50 == 1
    assert asked == [[second], [first]]
    right = part(0.45, 0.1)  # the other's threshold does not suit this one
    assert score_checks(CARD, [[first], [right]], SEGMENT, fit=True).ap50 == pytest.approx(0)


def test_a_single_check_is_judged_as_objects_are_found_so_far() -> None:
    assert score_checks(CARD, [[part(0.9, 0.52)]], SEGMENT, fit=True).ap50 == 0
    assert score_checks(CARD, [[part(0.9, 0.52)]] * 2, SEGMENT, fit=False).ap50 == 0
