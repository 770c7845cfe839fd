"""Where an object begins and what parts two of them: fitted on what networks had never seen.

A network that has learned from few labels gives probabilities that are too high or too low on
other images, and an object may be lost for the threshold alone. The check of a training
(:mod:`napari_unet.runs.rounds`) has looked at labels that did not teach it, and the network that
comes out begins with its weights. So the threshold is fitted on what the check gave there. It goes
half of the way to the one that would have been best, if that is as good, too: a peak far away is
luck. Of those that are as good in the check a higher one is taken for the best: what comes out has
learned more and is surer of objects, so that on images it has not seen gaps between them close
first. That reason alone carries no threshold beyond 0.7, however often one learns.

The depth that such a network gives may have dents in the middle of an object, and objects come out
in parts; or none between two, and they come out as one. So the level at which objects are split is
fitted next, with that threshold, and goes half of the way, too, if it gains more than next to
nothing.

The verdict is not judged on what these two were chosen by: whether the gain may be luck is asked
place by place (:mod:`napari_unet.runs.places`), and a fifth of the places at a time is seen with
what the other four suggest. The scores that are shown are those with what all of them do.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.arrays.instances import gives_depth
from napari_unet.runs.evaluate import find_in, score, tally
from napari_unet.runs.places import Tally

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unet.models.card import Card
    from napari_unet.runs.evaluate import Scores
    from napari_unet.runs.judged import Part
    from napari_unet.settings import InstanceSettings, SegmentSettings

    Tried = dict[float, tuple[float, float]]
    """Of each value, the objects found, and these with all missed and all wrong labels."""
    Places = NDArray[np.bool_]

TRIED = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
TRIED_LEVELS = (0.3, 0.4, 0.5, 0.6, 0.7)
AS_GOOD = 0.02  # of AP: less makes no difference between two values
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
    ap = _ap(tried)
    best = _best(usual, ap)
    if not ap[best]:
        return usual
    as_good = [each for each in ap if ap[each] >= ap[best] - AS_GOOD]
    best = max([best, *(each for each in as_good if each <= max(HIGHEST, usual))])
    halfway = _halfway(usual, best, ap)
    return halfway if ap[halfway] >= ap[usual] - AS_GOOD else usual


def fit_level(usual: float, tried: Tried) -> float:
    """Move the level at which objects are split towards the best one.

    Parameters
    ----------
    usual : float
        The level so far, 0..1.
    tried : dict of float to (float, float)
        As for :func:`fit_threshold`.

    Returns
    -------
    float
        One of those that were tried; the old one if hardly more is found at any other.
    """
    ap = _ap(tried)
    halfway = _halfway(usual, _best(usual, ap), ap)
    return halfway if ap[halfway] > ap[usual] + AS_GOOD else usual


def score_fitted(
    card: Card, parts: Sequence[Part], segment: SegmentSettings
) -> tuple[Scores, InstanceSettings]:
    """Fit threshold and level on what the check gave, and score it.

    Parameters
    ----------
    card : Card
        Of its model; of objects, not of classes.
    parts : sequence of Part
        What it gave where it had not learned, and the truth.
    segment : SegmentSettings
        How objects were found so far; that is tried, too.

    Returns
    -------
    scores : Scores
        Over all parts, with what was fitted; in their tallies each place is seen with what the
        others suggest.
    fitted : InstanceSettings
        How objects are found best.
    """
    usual = segment.instances
    levels = {usual.split_level}
    if usual.split and gives_depth(card.outputs):
        levels |= set(TRIED_LEVELS)

    @cache
    def tallied(threshold: float, level: float) -> tuple[Tally, Tally]:
        """Count in each place what is right."""
        instances = usual.replace(threshold=threshold, split_level=level)
        judged = find_in(card, parts, segment.replace(instances=instances))
        objects, pixels = tally(card, judged)
        if objects is None:
            raise ValueError("a threshold was to be fitted for classes, which have none")
        return objects, pixels

    def fit(where: Places) -> tuple[float, float]:
        """Fit both on some places."""
        threshold = fit_threshold(
            usual.threshold,
            {
                each: _sums(tallied(each, usual.split_level)[0], where)
                for each in sorted({usual.threshold, *TRIED})
            },
        )
        tried = {each: _sums(tallied(threshold, each)[0], where) for each in sorted(levels)}
        return threshold, fit_level(usual.split_level, tried)

    at_usual = [tallied(each, usual.split_level)[0] for each in TRIED]
    everywhere = np.ones(len(at_usual[0].right), bool)
    threshold, level = fit(everywhere)
    seen: dict[tuple[float, float], Places] = {}  # the places that are seen with each pair
    for fold in _folds(at_usual):
        pair = fit(~fold)
        seen[pair] = seen.get(pair, ~everywhere) | fold
    fitted = usual.replace(threshold=threshold, split_level=level)
    scores = score(card, parts, segment.replace(instances=fitted))
    objects, pixels = (
        _joined([(tallied(*pair)[kind], where) for pair, where in seen.items()]) for kind in (0, 1)
    )
    return replace(scores, objects=objects, pixels=pixels), fitted


def _ap(tried: Tried) -> dict[float, float]:
    """Return the AP at IoU 0.5 of each value; 1 if there is nothing to find and nothing found."""
    return {value: right / whole if whole else 1.0 for value, (right, whole) in tried.items()}


def _best(usual: float, ap: dict[float, float]) -> float:
    """Return the value of the highest AP; of several the one nearest to the usual one."""
    return min(ap, key=lambda value: (-ap[value], abs(value - usual)))


def _halfway(usual: float, best: float, ap: dict[float, float]) -> float:
    """Return the value that was tried and is nearest to the middle of two."""
    middle = (usual + best) / 2
    return min(ap, key=lambda value: (round(abs(value - middle), 6), abs(value - best)))


def _sums(objects: Tally, where: Places) -> tuple[float, float]:
    """Add up what is right, and all there is, over some places."""
    return float(objects.right[where].sum()), float(objects.whole[where].sum())


def _folds(tallies: Sequence[Tally]) -> list[Places]:
    """Part the places, neighbours together, so that there is about as much in each part."""
    is_used = np.any([each.whole.any(axis=1) for each in tallies], axis=0)
    number = (np.cumsum(is_used) - is_used) * FOLDS // max(int(is_used.sum()), 1)
    return [number == fold for fold in range(FOLDS)]


def _joined(seen: Sequence[tuple[Tally, Places]]) -> Tally:
    """Take from each tally the places that are seen with it."""
    right, whole = (
        sum(getattr(each, side) * where[:, np.newaxis] for each, where in seen)
        for side in ("right", "whole")
    )
    return Tally(right, whole)
