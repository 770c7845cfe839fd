r"""Cut apart objects that touch, each blob by itself.

A blob is a group of connected pixels above the threshold. Where the network also says how deep
inside an object a pixel is (distance) or where objects end (boundary), seeds grow until they
meet; else the depth is measured, and what is joined by a neck is cut there, see
:mod:`napari_unet.arrays.necks`::

    foreground      ___/‾‾‾‾‾‾‾‾‾\___     above the threshold: one blob
    depth           ___/‾\_____/‾\___     above the seed level, with a peak: two seeds
    labels          ...11111122222...     the seeds grow until they meet (watershed)

Nothing here looks beyond the pixels of a blob and their neighbours, and wherever two ways are
equally good the one that comes first row by row is taken. So a blob is cut the same way alone, in
a window or in the whole image, which is what :mod:`napari_unet.arrays.search` builds on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.arrays.connected import components
from napari_unet.arrays.growing import STEPS, grow, is_holding
from napari_unet.arrays.necks import split_into_parts
from napari_unet.arrays.packing import Packed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Depth = NDArray[np.floating[Any]]
    Labels = NDArray[np.int32]

LEVEL = 0.5  # of the relative depth in an object: see arrays.targets
LEAST_PEAK = 0.65  # a seed must reach it somewhere: a shallow one is a dent in another's slope
PEAK_ABOVE_LEVEL = 0.1  # at least


def split_by_depth(blobs: Labels, depth: Depth, level: float = LEVEL) -> Labels:
    """Cut blobs in which the network marked the middles of several objects.

    Parameters
    ----------
    blobs : ndarray of int32, shape (Y, X) or (Z, Y, X)
        Connected pixels 1..n, 0 is background.
    depth : ndarray of float, same shape, range 0..1
        How deep inside its object a pixel is.
    level : float
        Above it lies the middle of an object; where two middles meet above it, they are one.

    Returns
    -------
    ndarray of int32, same shape
        Objects in any order of their numbers; a blob with no seed or one is one object.
    """
    parts, _ = _grown(blobs, depth, level, least=2)
    return _cut_crowded(blobs, parts)


def split_at_necks(blobs: Labels) -> Labels:
    """Cut blobs where they are thin, by the depth that is measured in themselves.

    Parameters
    ----------
    blobs : ndarray of int32, shape (Y, X) or (Z, Y, X)
        Connected pixels 1..n, 0 is background.

    Returns
    -------
    ndarray of int32, same shape
        Objects in any order of their numbers.
    """
    parts, _ = split_into_parts(blobs, only_crowded=True)
    return _cut_crowded(blobs, parts)


def split_around_seeds(
    blobs: Labels, depth: Depth | None, level: float = LEVEL
) -> tuple[Labels, NDArray[np.intp]]:
    """Cut blobs of which this may be only a part, and tell where the middle of each object is.

    Parameters
    ----------
    blobs : ndarray of int32, shape (Y, X) or (Z, Y, X)
        Connected pixels 1..n, 0 is background.
    depth : ndarray of float, same shape, range 0..1, or None
        How deep inside its object a pixel is; measured if not given.
    level : float
        As for :func:`split_by_depth`.

    Returns
    -------
    ndarray of int32, same shape
        Objects 1..n; 0 where nothing marks an object.
    ndarray of int, shape (n + 1,)
        For each object, the first pixel (of the flat array) of the seed it grew from: the same
        in any window that holds the seed.
    """
    parts, seeds = (
        split_into_parts(blobs, only_crowded=False)
        if depth is None
        else _grown(blobs, depth, level, least=1)
    )
    at = np.flatnonzero(seeds)[::-1]
    first = np.zeros(parts.max(initial=0) + 1, np.intp)
    first[seeds.ravel()[at]] = at
    return parts, first


def _cut_crowded(blobs: Labels, parts: Labels) -> Labels:
    """Put parts in the place of the blobs that were cut."""
    return np.where(parts > 0, parts + blobs.max(initial=0), blobs)


def _grown(blobs: Labels, depth: Depth, level: float, least: int) -> tuple[Labels, Labels]:
    """Cut blobs of at least so many seeds by the network's depth; return the seeds, too."""
    seeds = _seeds(blobs, depth, level)
    packed = Packed(blobs, is_holding(blobs, seeds, least))
    height = -np.rint(np.clip(packed.take(depth), 0, 1) * STEPS)
    parts = np.zeros_like(blobs)
    packed.put(grow(packed.take(seeds), height, packed.mask), parts)
    return parts, seeds


def _seeds(blobs: Labels, depth: Depth, level: float) -> Labels:
    """Find the places of enough depth that reach a peak; others are left to their blob."""
    places = components((blobs > 0) & (depth > level))
    has_peak = np.zeros(places.max(initial=0) + 1, bool)
    has_peak[places[depth > max(LEAST_PEAK, level + PEAK_ABOVE_LEVEL)]] = True
    has_peak[0] = False
    return np.where(has_peak[places], places, 0)
