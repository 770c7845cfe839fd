"""What one labelling of an image finds otherwise than another: added, gone, changed.

Objects of two labellings are the same if their IoU is at least 0.5, as AP counts them. Of the
rest::

    added      a new object where the old labelling had mostly background
    gone       an old object where the new labelling has mostly background
    changed    what is there in both, but otherwise: merged, split, or another outline
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.arrays.metrics import match_objects
from napari_unet.errors import LabelsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Labels = NDArray[np.integer[Any]]

ADDED, GONE, CHANGED = 1, 2, 3
MOSTLY = 0.5  # share of an object's pixels


@dataclass(frozen=True, eq=False)
class Differences:
    """Where two labellings differ, and how often.

    Attributes
    ----------
    classes : ndarray of uint8, shape of the labels
        :data:`ADDED`, :data:`GONE`, :data:`CHANGED`, or 0 where both agree.
    added, gone : int
        Objects; of classes, connected areas.
    changed : int
        Connected areas: objects that became one are one area.
    """

    classes: NDArray[np.uint8]
    added: int
    gone: int
    changed: int


def compare_objects(old: Labels, new: Labels) -> Differences:
    """Compare instance labels.

    Parameters
    ----------
    old, new : ndarray of int, shape (Y, X) or (Z, Y, X)
        0 is background.

    Returns
    -------
    Differences
        Whole objects are marked, not the pixels that differ.

    Raises
    ------
    LabelsError
        If these are no labels, or the shapes differ.
    """
    found = match_objects(new, old)
    came, is_added = _alone(new, found.spare, old)
    went, is_gone = _alone(old, found.lost, new)
    classes = np.zeros(new.shape, np.uint8)
    classes[(came & ~is_added[new]) | (went & ~is_gone[old])] = CHANGED
    classes[is_gone[old]] = GONE
    classes[is_added[new]] = ADDED
    added, gone = int(np.count_nonzero(is_added)), int(np.count_nonzero(is_gone))
    return Differences(classes, added, gone, _areas(classes == CHANGED))


def compare_classes(old: Labels, new: Labels) -> Differences:
    """Compare class labels pixel by pixel.

    Parameters
    ----------
    old, new : ndarray of int, shape (Y, X) or (Z, Y, X)
        0 is background.

    Returns
    -------
    Differences
        Added is what was background, gone what is background now.

    Raises
    ------
    LabelsError
        If the shapes differ.
    """
    if old.shape != new.shape:
        raise LabelsError(
            f"Labels of shape {new.shape} cannot be compared with labels of shape {old.shape}. "
            "Give arrays of one shape."
        )
    classes = np.zeros(new.shape, np.uint8)
    classes[(old > 0) & (new > 0) & (old != new)] = CHANGED
    classes[(old == 0) & (new > 0)] = ADDED
    classes[(old > 0) & (new == 0)] = GONE
    added, gone, changed = (_areas(classes == kind) for kind in (ADDED, GONE, CHANGED))
    return Differences(classes, added, gone, changed)


def _alone(
    labels: Labels, ids: tuple[int, ...], other: Labels
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the pixels of some objects, and which numbers are mostly background elsewhere."""
    count = int(labels.max(initial=0)) + 1
    sizes = np.bincount(labels.ravel(), minlength=count)
    covered = np.bincount(labels.ravel(), weights=other.ravel() > 0, minlength=count)
    is_alone = np.zeros(count, bool)
    is_alone[list(ids)] = True
    return is_alone[labels], is_alone & (covered < MOSTLY * sizes)


def _areas(mask: NDArray[np.bool_]) -> int:
    """Count the connected areas of a mask; what meets at a corner is one."""
    from scipy import ndimage

    return int(ndimage.label(mask, np.ones((3,) * mask.ndim))[1])
