"""How sure the labels themselves are: which objects come out otherwise at the least change.

A network can be sure of each pixel, and yet whether two nuclei are one hangs on a little. So the
objects are found again with the threshold a little lower and higher, and with what tells them
apart (distance, boundary) a little weaker and stronger::

    stability of an object = the least IoU it has with its best partner, over all changes
    doubt of an object     = 1 - stability
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.arrays.instances import SPLITTING, find_instances

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_unet.settings import InstanceSettings

    Labels = NDArray[np.int32]
    Map = NDArray[np.float32]

THRESHOLD_STEP = 0.12
THRESHOLDS = (0.05, 0.95)
DEPTH_FACTORS = (0.85, 1.15)


@dataclass(frozen=True, eq=False)
class Stability:
    """The doubt about the objects of one plane.

    Attributes
    ----------
    extent : ndarray of float32, shape (Y, X), range 0..1
        For each pixel of an object: how much of it comes and goes with the threshold; 1 where
        there is none, and would be one at a lower threshold.
    split : ndarray of float32, shape (Y, X), range 0..1
        Likewise with what tells it from its neighbours: it may be several, or a part of one.
    """

    extent: Map
    split: Map

    @property
    def doubt(self) -> Map:
        """Either of them, whichever is larger."""
        larger: Map = np.maximum(self.extent, self.split)
        return larger


def measure_stability(
    probability: NDArray[np.floating[Any]], outputs: tuple[str, ...], settings: InstanceSettings
) -> Stability:
    """Tell which objects of a plane come out otherwise at the least change.

    Parameters
    ----------
    probability : ndarray of float, shape (K, Y, X), range 0..1
        One map per output.
    outputs : tuple of str
        Their names.
    settings : InstanceSettings
        As the objects are found.

    Returns
    -------
    Stability
        All 0 where no object is found.

    Raises
    ------
    ModelError
        If the number of maps is not the number of outputs.
    """
    maps = np.asarray(probability, np.float32)
    labels = find_instances(maps, outputs, settings)
    extent, split = (np.zeros(int(labels.max(initial=0)) + 1, np.float32) for _ in range(2))
    might_be = np.zeros(labels.shape, bool)
    for other in _other_thresholds(settings):
        others = find_instances(maps, outputs, other)
        _note(extent, labels, others)
        might_be |= _only_in(others, labels)
    for depth in _other_depths(maps, outputs) if settings.split else ():
        _note(split, labels, find_instances(depth, outputs, settings))
    return Stability(np.where(might_be, np.float32(1), extent[labels]), split[labels])


def _only_in(others: Labels, labels: Labels) -> NDArray[np.bool_]:
    """Return the pixels of the objects that have none in common with any object of labels."""
    met = np.bincount(others.ravel(), weights=labels.ravel() > 0)
    is_new = met == 0
    is_new[0] = False
    only: NDArray[np.bool_] = is_new[others]
    return only


def _other_thresholds(settings: InstanceSettings) -> Iterator[InstanceSettings]:
    for step in (-THRESHOLD_STEP, THRESHOLD_STEP):
        threshold = float(np.clip(settings.threshold + step, *THRESHOLDS))
        yield settings.replace(threshold=threshold)


def _other_depths(maps: Map, outputs: tuple[str, ...]) -> Iterator[Map]:
    """Yield the maps with what tells objects apart weaker and stronger."""
    told = [number for number, name in enumerate(outputs) if name in SPLITTING]
    for factor in DEPTH_FACTORS if told else ():
        changed = maps.copy()
        changed[told] = np.minimum(changed[told] * np.float32(factor), 1)
        yield changed


def _note(doubts: Map, labels: Labels, others: Labels) -> None:
    """Note for each object how little of it any object of other labels has, if that is more."""
    count = int(others.max(initial=0)) + 1
    pairs, both = np.unique(
        labels.ravel().astype(np.int64) * count + others.ravel(), return_counts=True
    )
    one, other = np.divmod(pairs, count)
    area, other_area = np.bincount(labels.ravel()), np.bincount(others.ravel())
    iou = both / (area[one] + other_area[other] - both)
    best = np.zeros(len(doubts))
    are_objects = (one > 0) & (other > 0)
    np.maximum.at(best, one[are_objects], iou[are_objects])
    doubts[1:] = np.maximum(doubts[1:], 1 - best[1:])
