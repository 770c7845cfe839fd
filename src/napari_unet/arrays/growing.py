"""Seeds that grow within their blobs until they meet (watershed)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.arrays.connected import neighbours

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Labels = NDArray[np.int32]
    Mask = NDArray[np.bool_]
    Height = NDArray[np.floating[Any]]

STEPS = 255
"""Of the height at most, in which seeds grow together: with few of them it is faster."""


def is_holding(blobs: Labels, seeds: Labels, least: int) -> Mask:
    """Say which blobs hold at least so many seeds.

    Parameters
    ----------
    blobs : ndarray of int32, shape (Y, X) or (Z, Y, X)
        Connected pixels 1..n, 0 is background.
    seeds : ndarray of int32, same shape
        Each within a blob; 0 is none.
    least : int
        How many.

    Returns
    -------
    ndarray of bool, shape (n + 1,)
        By the number of the blob; False for the background.
    """
    at = np.flatnonzero(seeds)
    blob_of_seed = np.zeros(seeds.max(initial=0) + 1, np.int32)
    blob_of_seed[seeds.ravel()[at]] = blobs.ravel()[at]
    holding: Mask = np.bincount(blob_of_seed, minlength=blobs.max(initial=0) + 1) >= least
    holding[0] = False
    return holding


def grow(seeds: Labels, height: Height, mask: Mask) -> Labels:
    """Let seeds grow within the mask, low places first, until they meet.

    Parameters
    ----------
    seeds : ndarray of int32, shape (Y, X) or (Z, Y, X)
        Numbers from 1; 0 is none.
    height : ndarray of float, same shape, at most 0
        Whole numbers; where it is equal, the pixel that was reached first is first.
    mask : ndarray of bool, same shape
        Where they may grow.

    Returns
    -------
    ndarray of int32, same shape
        The seeds, grown.
    """
    from skimage.segmentation import watershed

    if not seeds.any():
        return seeds

    # Pixels amid a seed have nothing to grow into: without them there is half as much to do.
    amid = seeds > 0
    for first, second in neighbours(seeds.ndim):
        both = (seeds[first] > 0) & (seeds[second] > 0)
        amid[first] &= both
        amid[second] &= both
    # Seeds start row by row, whatever else is in the image: each pixel of them has its own turn.
    start = height.astype(np.float64)
    at = np.flatnonzero(seeds)
    start.ravel()[at] = at - (start.size + STEPS * 2.0**20)
    grown = watershed(start, np.where(amid, 0, seeds), mask=mask & ~amid)
    return np.where(amid, seeds, grown).astype(np.int32, copy=False)
