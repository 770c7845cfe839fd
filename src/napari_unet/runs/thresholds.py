"""At which probability an object begins: fitted on what a network had never seen.

A network that has learned from few labels gives probabilities that are too high or too low on
other images, and an object may be lost for the threshold alone. The checks of a training
(:mod:`napari_unet.runs.rounds`) have looked at labels that did not teach them. The threshold goes
half of the way to the one that would have been best there: the network that comes out has learned
more than they had. Only where half of the way gives less than half of the gain does it go all of
it.

To judge a check, its threshold is fitted on the other check's part. So it is never judged on what
it was chosen by.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unet.arrays.metrics import match_objects
from napari_unet.runs.evaluate import find_in, score_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.models.card import Card
    from napari_unet.runs.evaluate import Judged, Part, Scores
    from napari_unet.settings import SegmentSettings

    Tried = dict[float, tuple[int, int]]
    """Of each threshold, the objects found, and these with all missed and all wrong labels."""

TRIED = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
LEAST_GAIN = 0.02  # of AP: for less, the threshold stays


def try_thresholds(card: Card, parts: Sequence[Part], segment: SegmentSettings) -> Tried:
    """Count what would be found with each threshold.

    Parameters
    ----------
    card : Card
        Of the model that gave the probabilities; of objects, not of classes.
    parts : sequence of Part
        What it gave where it had not learned, and the truth.
    segment : SegmentSettings
        How objects were found so far; their threshold is tried, too.

    Returns
    -------
    dict of float to (int, int)
        Of each threshold, the objects found, and these with all missed and all wrong labels.
    """
    tried = {}
    for threshold in sorted({segment.instances.threshold, *TRIED}):
        judged = find_in(card, parts, with_threshold(segment, threshold))
        matches = [match_objects(labels, truth, labelled=mask) for labels, truth, mask in judged]
        found = sum(each.tp for each in matches)
        tried[threshold] = found, found + sum(each.fp + each.fn for each in matches)
    return tried


def fit_threshold(usual: float, checks: Sequence[Tried]) -> float:
    """Move the threshold towards the best one.

    Parameters
    ----------
    usual : float
        The threshold so far, 0..1.
    checks : sequence of dict
        What :func:`try_thresholds` gave for each check; the threshold so far is among them.

    Returns
    -------
    float
        One of those that were tried; the old one if none is better by much.
    """
    if not checks:
        return usual
    ap = {}
    for threshold in checks[0]:
        right, whole = (sum(tried[threshold][side] for tried in checks) for side in range(2))
        ap[threshold] = right / whole if whole else 1.0
    best = min(ap, key=lambda tried: (-ap[tried], abs(tried - usual)))
    gain = ap[best] - ap[usual]
    if gain < LEAST_GAIN:
        return usual
    middle = (usual + best) / 2
    halfway = min(ap, key=lambda tried: (round(abs(tried - middle), 6), abs(tried - best)))
    is_enough = ap[halfway] - ap[usual] >= max(LEAST_GAIN, gain / 2)
    return halfway if is_enough else best


def score_checks(
    card: Card,
    found: Sequence[Sequence[Part]],
    checks: Sequence[Tried],
    segment: SegmentSettings,
) -> Scores:
    """Score what the checks gave, each with the threshold that is fitted on the others' parts.

    Parameters
    ----------
    card : Card
        Of their models.
    found : sequence of sequence of Part
        For each check, what it gave.
    checks : sequence of dict
        What :func:`try_thresholds` gave for each check; empty if the threshold is not fitted.
    segment : SegmentSettings
        How objects were found so far.

    Returns
    -------
    Scores
        Over all parts.
    """
    judged: list[Judged] = []
    for number, own in enumerate(found):
        others = [tried for n, tried in enumerate(checks) if n != number]
        threshold = fit_threshold(segment.instances.threshold, others)
        judged += find_in(card, own, with_threshold(segment, threshold))
    return score_labels(card, judged)


def with_threshold(segment: SegmentSettings, threshold: float) -> SegmentSettings:
    """Return the same settings with another threshold."""
    return segment.replace(instances=segment.instances.replace(threshold=threshold))
