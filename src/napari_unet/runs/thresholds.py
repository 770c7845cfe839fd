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

from napari_unet.runs.evaluate import find_in, score, score_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.models.card import Card
    from napari_unet.runs.evaluate import Judged, Part, Scores
    from napari_unet.settings import SegmentSettings

TRIED = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
LEAST_GAIN = 0.02  # of AP: for less, the threshold stays


def fit_threshold(card: Card, parts: Sequence[Part], segment: SegmentSettings) -> SegmentSettings:
    """Move the threshold towards the best one.

    Parameters
    ----------
    card : Card
        Of the model that gave the probabilities; of objects, not of classes.
    parts : sequence of Part
        What it gave where it had not learned, and the truth.
    segment : SegmentSettings
        How objects were found so far.

    Returns
    -------
    SegmentSettings
        The same but for the threshold.
    """
    usual = segment.instances.threshold
    ap = {tried: _ap(card, parts, segment, tried) for tried in {usual, *TRIED}}
    best = min(ap, key=lambda tried: (-ap[tried], abs(tried - usual)))
    gain = ap[best] - ap[usual]
    if gain < LEAST_GAIN:
        return segment
    halfway = round((usual + best) / 2, 2)
    is_enough = _ap(card, parts, segment, halfway) - ap[usual] >= max(LEAST_GAIN, gain / 2)
    return _with(segment, halfway if is_enough else best)


def score_checks(
    card: Card, found: Sequence[Sequence[Part]], segment: SegmentSettings, *, fit: bool
) -> Scores:
    """Score what the checks gave, each with the threshold that is fitted on the others' parts.

    Parameters
    ----------
    card : Card
        Of their models.
    found : sequence of sequence of Part
        For each check, what it gave.
    segment : SegmentSettings
        How objects were found so far.
    fit : bool
        Whether the threshold is fitted at all.

    Returns
    -------
    Scores
        Over all parts.
    """
    judged: list[Judged] = []
    for number, own in enumerate(found):
        others = [part for n, parts in enumerate(found) if n != number for part in parts]
        settings = fit_threshold(card, others, segment) if fit and others else segment
        judged += find_in(card, own, settings)
    return score_labels(card, judged)


def _ap(card: Card, parts: Sequence[Part], segment: SegmentSettings, threshold: float) -> float:
    """AP at IoU 0.5 with another threshold."""
    return score(card, parts, _with(segment, threshold)).main


def _with(segment: SegmentSettings, threshold: float) -> SegmentSettings:
    """Return the same settings with another threshold."""
    return segment.replace(instances=segment.instances.replace(threshold=threshold))
