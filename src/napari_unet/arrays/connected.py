"""Connected pixels: groups of them, neighbours, and the holes that objects enclose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Labels = NDArray[np.int32]
    Mask = NDArray[np.bool_]


def components(mask: Mask) -> Labels:
    """Give each group of connected pixels its number.

    Parameters
    ----------
    mask : ndarray of bool, shape (Y, X) or (Z, Y, X)
        The pixels.

    Returns
    -------
    ndarray of int32, same shape
        1..n row by row; what meets only at a corner is two groups.
    """
    from scipy import ndimage

    labels = np.zeros(mask.shape, np.int32)
    ndimage.label(mask, output=labels)
    return labels


def neighbours(ndim: int) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Give, for each axis, where the first and the second of two neighbouring pixels lie.

    Parameters
    ----------
    ndim : int
        Number of axes.

    Yields
    ------
    tuple
        Two indices that give arrays of one shape.
    """
    for axis in range(ndim):
        before = (slice(None),) * axis
        yield (*before, slice(None, -1)), (*before, slice(1, None))


def fill_holes(labels: Labels) -> Labels:
    """Give background that lies inside a single object to that object.

    Parameters
    ----------
    labels : ndarray of int32, shape (Y, X) or (Z, Y, X)
        Labels, 0 is background.

    Returns
    -------
    ndarray of int32, same shape
        A gap between several objects stays, and so does what reaches the border of the image.
    """
    gaps = components(labels == 0)
    is_open = np.zeros(int(gaps.max(initial=0)) + 1, bool)  # to the border
    is_open[0] = True  # no gap at all
    for axis in range(labels.ndim):
        is_open[np.take(gaps, [0, -1], axis=axis)] = True
    # What is left lies within the border: each of its pixels has all its neighbours.
    at = np.flatnonzero(~is_open[gaps])
    flat, gap = labels.ravel(), gaps.ravel()[at]
    least = np.full(len(is_open), np.iinfo(np.int32).max, np.int32)
    most = np.zeros(len(is_open), np.int32)
    for step in np.cumprod((1, *labels.shape[:0:-1])):
        for beside in (at - step, at + step):
            neighbour = flat[beside]
            meets = neighbour > 0
            np.minimum.at(least, gap[meets], neighbour[meets])
            np.maximum.at(most, gap[meets], neighbour[meets])
    owner = np.where(least == most, most, 0)
    filled = labels.copy()
    filled.ravel()[at] = owner[gap]
    return filled


def fill_own_holes(labels: Labels, mask: Mask) -> Labels:
    """Fill holes inside objects; foreground without a label is another object.

    Parameters
    ----------
    labels : ndarray of int32, shape (Y, X) or (Z, Y, X)
        Some of the objects, 0 is everything else.
    mask : ndarray of bool, same shape
        What belongs to any object.

    Returns
    -------
    ndarray of int32, same shape
        As by :func:`fill_holes`.
    """
    foreign = np.int32(labels.max(initial=0) + 1)
    filled = fill_holes(np.where(mask & (labels == 0), foreign, labels))
    return np.where(filled == foreign, 0, filled)
