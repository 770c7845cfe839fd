"""Where a correction would teach the most: the place the network is least sure about.

A pixel is doubtful if its foreground probability is near 1/2: ``1 - 2 |p - 1/2|``, 0..1. Edges of
objects are always a little doubtful, so the doubt is averaged over a window of the size of a few
objects; what is vouched for already does not count. Where it is known how stable the objects are
(:mod:`napari_unet.arrays.stability`), their doubt is added to that of the pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from napari_unet.arrays.stability import Stability

WINDOW_PX = 96
PLANES_LOOKED_INTO = 3  # of a stack: the most doubtful ones by their pixels

PIXELS, EXTENT, SPLIT = "pixels", "extent", "split"


@dataclass(frozen=True)
class Spot:
    """A place to look at.

    Attributes
    ----------
    position : tuple of int
        Index (..., y, x).
    reason : str
        What is doubtful there most: :data:`PIXELS` (whether there is anything), :data:`EXTENT`
        (how far objects reach) or :data:`SPLIT` (where one ends and the next begins).
    """

    position: tuple[int, ...]
    reason: str


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
    ranked = _rank_planes(probability, vouched, window_px)
    return ranked[0][1] if ranked else None


def most_telling(
    probability: NDArray[np.floating[Any]],
    stability: Callable[[tuple[int, ...]], Stability],
    vouched: NDArray[np.bool_] | None = None,
    window_px: int = WINDOW_PX,
) -> Spot | None:
    """Find the place where pixels and objects together are most doubtful.

    Parameters
    ----------
    probability : ndarray of float, shape (..., Y, X), range 0..1
        Foreground probability of a plane or a stack of planes; may be a memory map.
    stability : callable
        Tells of the plane of an index how stable its objects are; asked for few planes only.
    vouched : ndarray of bool, same shape, optional
        What is vouched for already: it neither counts nor is it chosen.
    window_px : int
        Side of the square over which doubt is averaged, in pixels.

    Returns
    -------
    Spot or None
        None if everything is vouched for.

    Raises
    ------
    ImageError
        If the array has no plane, or ``vouched`` has another shape.
    """
    best, spot = -1.0, None
    for _, place in _rank_planes(probability, vouched, window_px)[:PLANES_LOOKED_INTO]:
        index = place[:-2]
        known = None if vouched is None else np.asarray(vouched[index])
        objects = stability(index)
        layers = {
            PIXELS: doubt(np.nan_to_num(np.asarray(probability[index]))),
            EXTENT: np.where(objects.extent >= objects.split, objects.extent, 0),
            SPLIT: np.where(objects.extent < objects.split, objects.split, 0),
        }
        means = {name: _windowed(layer, known, window_px) for name, layer in layers.items()}
        mean = np.sum(list(means.values()), axis=0)
        score, at = _highest(mean, known)
        if score > best:
            reason = max(means, key=lambda name: float(means[name][at]))
            best, spot = score, Spot((*index, *at), reason)
    return spot


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


def _rank_planes(
    probability: NDArray[np.floating[Any]], vouched: NDArray[np.bool_] | None, window_px: int
) -> list[tuple[float, tuple[int, ...]]]:
    """List mean doubt and middle of the worst window of each plane, the worst plane first."""
    if probability.ndim < 2 or (vouched is not None and vouched.shape != probability.shape):
        raise ImageError(
            f"Cannot look for doubtful places in a probability of shape {probability.shape}"
            + ("" if vouched is None else f" with a checked area of shape {vouched.shape}")
            + ". Give arrays of one shape (..., Y, X)."
        )
    found = []
    for index in np.ndindex(probability.shape[:-2]):
        known = None if vouched is None else np.asarray(vouched[index])
        if known is None or not known.all():
            doubts = doubt(np.nan_to_num(np.asarray(probability[index])))
            score, at = _highest(_windowed(doubts, known, window_px), known)
            found.append((score, (*index, *at)))
    return sorted(found, key=lambda plane: -plane[0])


def _windowed(
    doubts: NDArray[np.float32], known: NDArray[np.bool_] | None, window_px: int
) -> NDArray[np.float32]:
    """Average doubt over windows; beyond the edge and where it is known there is none."""
    from scipy import ndimage

    doubts = doubts if known is None else np.where(known, np.float32(0), doubts)
    # Twice over half the window: the middle of a doubtful spot counts more than its rim.
    half = max(1, window_px // 2)
    once = ndimage.uniform_filter(doubts, half, mode="constant")
    mean: NDArray[np.float32] = ndimage.uniform_filter(once, half, mode="constant")
    return mean


def _highest(
    mean: NDArray[np.float32], known: NDArray[np.bool_] | None
) -> tuple[float, tuple[int, int]]:
    """Return the largest value that is not known, and where it is."""
    open_to_doubt = mean if known is None else np.where(known, np.float32(-1), mean)
    y, x = np.unravel_index(int(np.argmax(open_to_doubt)), mean.shape)
    return float(mean[y, x]), (int(y), int(x))
