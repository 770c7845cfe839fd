"""Where a correction would teach the most: the place the network is least sure about.

A pixel is doubtful if its foreground probability is near 1/2: ``1 - 2 |p - 1/2|``, 0..1. Edges of
objects are always a little doubtful, so the doubt is averaged over a window of the size of a few
objects; what is vouched for already does not count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

WINDOW_PX = 96


def doubt(probability: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Turn foreground probability into doubt.

    Parameters
    ----------
    probability : ndarray of float, range 0..1
        Foreground probability.

    Returns
    -------
    ndarray of float32, same shape, range 0..1
        1 where the probability is 1/2, 0 where it is 0 or 1.
    """
    doubts: NDArray[np.float32] = 1 - 2 * np.abs(np.asarray(probability, np.float32) - 0.5)
    return doubts


def most_uncertain(
    probability: NDArray[np.floating[Any]],
    vouched: NDArray[np.bool_] | None = None,
    window_px: int = WINDOW_PX,
) -> tuple[int, ...] | None:
    """Find the place the network is least sure about.

    Parameters
    ----------
    probability : ndarray of float, shape (..., Y, X), range 0..1
        Foreground probability of a plane or a stack of planes; may be a memory map.
    vouched : ndarray of bool, same shape, optional
        What is vouched for already: it neither counts nor is it chosen.
    window_px : int
        Side of the square over which doubt is averaged, in pixels.

    Returns
    -------
    tuple of int or None
        Index (..., y, x) of the middle of the most doubtful square; None if everything is
        vouched for.

    Raises
    ------
    ImageError
        If the array has no plane, or ``vouched`` has another shape.
    """
    if probability.ndim < 2 or (vouched is not None and vouched.shape != probability.shape):
        raise ImageError(
            f"Cannot look for doubtful places in a probability of shape {probability.shape}"
            + ("" if vouched is None else f" with a checked area of shape {vouched.shape}")
            + ". Give arrays of one shape (..., Y, X)."
        )
    best, place = -1.0, None
    for index in np.ndindex(probability.shape[:-2]):
        known = None if vouched is None else np.asarray(vouched[index])
        found = _worst_of_plane(np.asarray(probability[index]), known, window_px)
        if found is not None and found[0] > best:
            best, place = found[0], (*index, *found[1])
    return place


def around(
    places: Iterable[tuple[int, ...]], shape: tuple[int, ...], window_px: int = WINDOW_PX
) -> NDArray[np.bool_]:
    """Mark the squares around places that were looked at, so that the next search passes them by.

    Parameters
    ----------
    places : iterable of tuple of int
        Indices (..., y, x).
    shape : tuple of int
        Shape (..., Y, X) of what they lie in.
    window_px : int
        Side of the squares, in pixels.

    Returns
    -------
    ndarray of bool, shape ``shape``
        True around each place, in its plane.
    """
    mask = np.zeros(shape, bool)
    half = max(1, window_px // 2)
    for place in places:
        square = tuple(slice(max(0, at - half), at + half) for at in place[-2:])
        mask[place[:-2]][square] = True
    return mask


def _worst_of_plane(
    plane: NDArray[np.floating[Any]], known: NDArray[np.bool_] | None, window_px: int
) -> tuple[float, tuple[int, int]] | None:
    """Mean doubt of the worst window of a plane, and its middle."""
    from scipy import ndimage

    doubts = doubt(np.nan_to_num(plane))
    if known is not None:
        if known.all():
            return None
        doubts[known] = 0
    # Twice over half the window: the middle of a doubtful spot counts more than its rim. Beyond
    # the edge of the image there is nothing to doubt.
    half = max(1, window_px // 2)
    once = ndimage.uniform_filter(doubts, half, mode="constant")
    mean = ndimage.uniform_filter(once, half, mode="constant")
    if known is not None:
        mean[known] = -1
    y, x = np.unravel_index(int(np.argmax(mean)), mean.shape)
    return float(mean[y, x]), (int(y), int(x))
