"""Whether one model does better than another by more than chance, on the same held-out labels.

Two models that are equally good on the whole still differ on a few objects, by luck. How much, is
seen on the held-out part itself. It is divided into places, squares of about two objects a side::

    +-------+-------+-------+      what is found, missed or made up within one place hangs
    | +1    |       |  +2   |      together (two nuclei merged are two missed and one made up),
    +-------+-------+-------+      so a place counts as one: what the new model gains there.
    |       |  -1   |  +1   |
    +-------+-------+-------+

If neither model were better, each place could as well have gone to the other one: gain and loss
are a toss of a coin. The share of all tosses that give as large a gain in sum as the one seen is
how often chance alone would do it (a paired permutation test [1]_). It needs no assumption on how
the gains are distributed, is right for few places as for many, and is exact for few.

References
----------
.. [1] Good (2005), Permutation, Parametric and Bootstrap Tests of Hypotheses,
   doi:10.1007/b138696.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]
    Counts = NDArray[np.float64]

SIDE_IN_OBJECTS = 2.0  # typical diameters along a side of a place
LEAST_SIDE_PX = 8
CLASSES_SIDE_PX = 32  # where labels are classes
MOST_PLACES = 256  # more are put together with their neighbours
TOSSED_EXACTLY = 12  # places: up to here every outcome of the tosses is counted
TOSSES = 4999
RESAMPLED = 999
INTERVAL = (0.025, 0.975)


@dataclass(frozen=True, eq=False)
class Tally:
    """A score that is a share, place by place: of each kind, how much is right of how much.

    Attributes
    ----------
    right, whole : ndarray of float64, shape (places, kinds)
        AP: objects found, and objects and wrong labels; IoU: pixels in both, and in either. The
        score is the sum of the one by the sum of the other, and of several kinds the mean.
    """

    right: Counts
    whole: Counts

    @property
    def score(self) -> float:
        """The score over all places, 0..1; 1 if there is nothing to find and nothing found."""
        return float(_score(self.right.sum(axis=0), self.whole.sum(axis=0)))


@dataclass(frozen=True)
class Difference:
    """How much better another model does on the same places, and what chance could do."""

    gain: float
    """New score minus old, -1..1."""
    interval: tuple[float, float]
    """Where 95 % of the gains lie if the places are drawn again (bootstrap)."""
    chance: float
    """How often chance alone gives such a gain or a larger one, 0..1."""
    places: int
    """In which there is anything to judge."""
    differing: int
    """In which the two models differ."""


def divide(
    truths: Sequence[NDArray[np.integer[Any]]], masks: Sequence[Mask], *, semantic: bool
) -> list[NDArray[np.int64]]:
    """Divide the held-out parts of some planes into places.

    Parameters
    ----------
    truths : sequence of ndarray of int, shape (Y, X)
        True labels of each plane.
    masks : sequence of ndarray of bool, shape (Y, X)
        Of each plane, what is held out.
    semantic : bool
        Whether the labels are classes, not objects.

    Returns
    -------
    list of ndarray of int, shape (Y, X)
        Of each plane, the number of the place each pixel belongs to, from 0 and different in each
        plane, as if the whole plane were divided.
    """
    side = CLASSES_SIDE_PX if semantic else _side(truths, masks)
    names, first = [], 0
    for truth in truths:
        rows, columns = (np.arange(length) // side for length in truth.shape)
        name = first + rows[:, np.newaxis] * (columns[-1] + 1) + columns
        names.append(name)
        first = int(name[-1, -1]) + 1
    return names


def count_places(
    truths: Sequence[NDArray[np.integer[Any]]], masks: Sequence[Mask], *, semantic: bool
) -> int:
    """Count the places in which there is something to find.

    Parameters
    ----------
    truths : sequence of ndarray of int, shape (Y, X)
        True labels of each plane.
    masks : sequence of ndarray of bool, shape (Y, X)
        Of each plane, what is held out.
    semantic : bool
        Whether the labels are classes, not objects.

    Returns
    -------
    int
        How many.
    """
    used: set[int] = set()
    for truth, mask, names in zip(
        truths, masks, divide(truths, masks, semantic=semantic), strict=True
    ):
        held = np.where(mask, truth, 0)
        at = names[held > 0] if semantic else place_of(held, names)[np.unique(held[held > 0])]
        used.update(np.unique(at).tolist())
    return len(used)


def place_of(labels: NDArray[np.integer[Any]], names: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find the place in which the middle of each label lies.

    Parameters
    ----------
    labels : ndarray of int, shape (Y, X)
        0 is background.
    names : ndarray of int, shape (Y, X)
        See :func:`divide`.

    Returns
    -------
    ndarray of int, shape (largest label + 1,)
        By the number of the label; of numbers that do not occur it means nothing.
    """
    at = np.nonzero(labels)
    numbers = labels[at]
    sizes = np.maximum(np.bincount(numbers, minlength=1), 1)
    y, x = (np.bincount(numbers, axis, minlength=1) / sizes for axis in at)
    places: NDArray[np.int64] = names[y.astype(int), x.astype(int)]
    return places


def measure_difference(before: Tally, after: Tally) -> Difference:
    """Compare two models place by place.

    Parameters
    ----------
    before, after : Tally
        Of the old and the new model, on the same places.

    Returns
    -------
    Difference
        The same each time for the same tallies.
    """
    is_used = (before.whole + after.whole).any(axis=1)
    right = np.stack([before.right[is_used], after.right[is_used]])  # (2, places, kinds)
    whole = np.stack([before.whole[is_used], after.whole[is_used]])
    if right.shape[1] > MOST_PLACES:
        starts = np.linspace(0, right.shape[1], MOST_PLACES, endpoint=False).astype(int)
        right, whole = (np.add.reduceat(each, starts, axis=1) for each in (right, whole))
    # The score at which gain and loss cancel, between the two; so the gains add up to something
    # above 0 exactly if the new score is the higher one.
    total = whole.sum(axis=(0, 1))
    level = right.sum(axis=(0, 1)) / np.maximum(total, 1)
    gains = ((right[1] - right[0]) - level * (whole[1] - whole[0])) / np.maximum(total, 1)
    summed = gains.sum(axis=1)
    summed = summed[np.abs(summed) > 1e-12]
    return Difference(
        gain=after.score - before.score,
        interval=_interval(right, whole),
        chance=_chance(summed),
        places=right.shape[1],
        differing=len(summed),
    )


def _side(truths: Sequence[NDArray[np.integer[Any]]], masks: Sequence[Mask]) -> int:
    """Side of a place for objects of the usual size of these, in pixels."""
    sizes = []
    for truth, mask in zip(truths, masks, strict=True):
        inside = np.bincount(truth[mask], minlength=1)
        whole = np.bincount(truth.ravel(), minlength=len(inside))[: len(inside)]
        sizes.append(whole[1:][inside[1:] > 0])
    every = np.concatenate(sizes)
    if not every.size:
        return CLASSES_SIDE_PX
    diameter = 2 * float(np.sqrt(np.median(every) / np.pi))
    return max(LEAST_SIDE_PX, round(SIDE_IN_OBJECTS * diameter))


def _score(right: Counts, whole: Counts) -> Any:
    """Shares along the last axis, and the mean of those that there are."""
    is_there = whole > 0
    shares = np.where(is_there, right / np.maximum(whole, 1), 0).sum(axis=-1)
    kinds = is_there.sum(axis=-1)
    return np.where(kinds > 0, shares / np.maximum(kinds, 1), 1.0)


def _chance(gains: Counts) -> float:
    """Share of all tosses of a coin for each gain that give the sum seen, or a larger one."""
    seen = gains.sum() - 1e-12
    if seen <= 0:
        return 1.0
    if len(gains) <= TOSSED_EXACTLY:
        tosses = np.arange(2 ** len(gains))[:, np.newaxis] >> np.arange(len(gains)) & 1
        return float(((1 - 2 * tosses) @ gains >= seen).mean())
    tosses = np.random.default_rng(0).integers(0, 2, (TOSSES, len(gains)), np.int8)
    reached = int(((1 - 2 * tosses.astype(np.float32)) @ gains.astype(np.float32) >= seen).sum())
    return (1 + reached) / (1 + TOSSES)


def _interval(right: Counts, whole: Counts) -> tuple[float, float]:
    """Where most differences lie if as many places are drawn from these, with repetition."""
    places = right.shape[1]
    if not places:
        return 0.0, 0.0
    random = np.random.default_rng(0)
    times = random.multinomial(places, np.full(places, 1 / places), RESAMPLED).astype(float)
    old, new = (_score(times @ right[i], times @ whole[i]) for i in range(2))
    low, high = np.quantile(new - old, INTERVAL)
    return float(low), float(high)
