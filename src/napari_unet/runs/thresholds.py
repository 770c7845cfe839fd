"""At which probability an object begins: fitted on what networks had never seen.

A network that has learned from few labels gives probabilities that are too high or too low on
other images, and an object may be lost for the threshold alone. The check of a training
(:mod:`napari_unet.runs.rounds`) has looked at labels that did not teach it, and the network that
comes out begins with its weights. So the threshold is fitted on what the check gave there. It goes
half of the way to the one that would have been best, if that is as good, too: a peak far away is
luck. Of those that are as good in the check a higher one is taken for the best: what comes out has
learned more and is surer of objects, so that on images it has not seen gaps between them close
first. That reason alone carries no threshold beyond 0.7, however often one learns.

The verdict is not judged on what the threshold was chosen by: whether the gain may be luck is asked
place by place (:mod:`napari_unet.runs.places`), and a fifth of the places at a time is seen with
the threshold that the other four suggest. The scores that are shown are those with the fitted one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.runs.evaluate import find_in, score, tally
from napari_unet.runs.places import Tally

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.models.card import Card
    from napari_unet.runs.evaluate import Scores
    from napari_unet.runs.judged import Part
    from napari_unet.settings import SegmentSettings

    Tried = dict[float, tuple[float, float]]
    """Of each threshold, the objects found, and these with all missed and all wrong labels."""

TRIED = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
AS_GOOD = 0.02  # of AP: less makes no difference between two thresholds
HIGHEST = 0.7  # to which a threshold goes that is as good as a lower one
FOLDS = 5  # parts of the places, each seen with what the others suggest


def fit_threshold(usual: float, tried: Tried) -> float:
    """Move the threshold towards the best one.

    Parameters
    ----------
    usual : float
        The threshold so far, 0..1.
    tried : dict of float to (float, float)
        Of each threshold, that so far among them, the objects found, and these with all missed
        and all wrong labels.

    Returns
    -------
    float
        One of those that were tried; the old one if half of the way it is worse by much.
    """
    ap = {threshold: right / whole if whole else 1.0 for threshold, (right, whole) in tried.items()}
    best = min(ap, key=lambda threshold: (-ap[threshold], abs(threshold - usual)))
    if not ap[best]:
        return usual
    as_good = [each for each in ap if ap[each] >= ap[best] - AS_GOOD]
    best = max([best, *(each for each in as_good if each <= max(HIGHEST, usual))])
    middle = (usual + best) / 2
    halfway = min(ap, key=lambda each: (round(abs(each - middle), 6), abs(each - best)))
    return halfway if ap[halfway] >= ap[usual] - AS_GOOD else usual


def score_fitted(
    card: Card, parts: Sequence[Part], segment: SegmentSettings
) -> tuple[Scores, float]:
    """Fit the threshold on what the check gave, and score it.

    Parameters
    ----------
    card : Card
        Of its model; of objects, not of classes.
    parts : sequence of Part
        What it gave where it had not learned, and the truth.
    segment : SegmentSettings
        How objects were found so far; their threshold is tried, too.

    Returns
    -------
    scores : Scores
        Over all parts, with the fitted threshold; in their tallies each place is seen with what
        the others suggest.
    threshold : float
        The fitted one, 0..1.
    """
    usual = segment.instances.threshold
    objects, pixels = {}, {}
    for threshold in sorted({usual, *TRIED}):
        judged = find_in(card, parts, with_threshold(segment, threshold))
        in_objects, pixels[threshold] = tally(card, judged)
        if in_objects is None:
            raise ValueError("a threshold was to be fitted for classes, which have none")
        objects[threshold] = in_objects
    fitted = fit_threshold(usual, _sums(objects))
    seen = {
        threshold: np.zeros(len(objects[usual].right), bool) for threshold in objects
    }  # the places that are seen with each threshold
    for fold in _folds(objects):
        seen[fit_threshold(usual, _sums(objects, ~fold))] |= fold
    scores = score(card, parts, with_threshold(segment, fitted))
    return replace(scores, objects=_joined(objects, seen), pixels=_joined(pixels, seen)), fitted


def with_threshold(segment: SegmentSettings, threshold: float) -> SegmentSettings:
    """Return the same settings with another threshold."""
    return segment.replace(instances=segment.instances.replace(threshold=threshold))


def _sums(objects: dict[float, Tally], where: slice | np.ndarray = slice(None)) -> Tried:
    """Add up what is right, and all there is, over some places."""
    return {
        threshold: (float(each.right[where].sum()), float(each.whole[where].sum()))
        for threshold, each in objects.items()
    }


def _folds(objects: dict[float, Tally]) -> list[np.ndarray]:
    """Part the places, neighbours together, so that there is about as much in each part."""
    is_used = np.any([each.whole.any(axis=1) for each in objects.values()], axis=0)
    number = (np.cumsum(is_used) - is_used) * FOLDS // max(int(is_used.sum()), 1)
    return [number == fold for fold in range(FOLDS)]


def _joined(tallies: dict[float, Tally], seen: dict[float, np.ndarray]) -> Tally:
    """Take from each tally the places that are seen with its threshold."""
    right, whole = (
        sum(
            getattr(tallies[threshold], side) * where[:, np.newaxis]
            for threshold, where in seen.items()
        )
        for side in ("right", "whole")
    )
    return Tally(right, whole)
