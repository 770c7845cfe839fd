r"""Cut blobs where they are thin, by a depth that is measured in the blobs themselves.

Every peak of the depth may be the middle of an object. Two of them are one object unless both are
deeper than the neck between them::

    blob         ____/‾‾‾‾‾‾‾‾\_______
    depth        ___ /\.../\  \_______    two peaks and the neck (...) between them
    cut          ___/‾‾‾\|/‾‾‾\_______    only if both peaks are NECK_DEPTH_PX deeper than it
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.arrays.connected import components, neighbours
from napari_unet.arrays.distance import distance_to_background
from napari_unet.arrays.growing import grow, is_holding
from napari_unet.arrays.packing import Packed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Labels = NDArray[np.int32]
    Mask = NDArray[np.bool_]
    Depth = NDArray[np.floating[Any]]

SMOOTHING_ROUNDS = 2  # of the measured depth, so that a rough edge is no cause to split
NECK_DEPTH_PX = 0.375  # how much deeper than the neck between them two parts must be
STEPS_PER_PX = 16  # of the measured depth: with few steps seeds grow faster


def split_into_parts(blobs: Labels, *, only_crowded: bool) -> tuple[Labels, Labels]:
    """Cut blobs at their necks.

    Parameters
    ----------
    blobs : ndarray of int32, shape (Y, X) or (Z, Y, X)
        Connected pixels 1..n, 0 is background.
    only_crowded : bool
        Leave out blobs that are one part.

    Returns
    -------
    ndarray of int32, same shape
        The parts, numbered in any way; 0 for background and blobs that were left out.
    ndarray of int32, same shape
        The deepest place of each part under its number.
    """
    parts, middles = np.zeros_like(blobs), np.zeros_like(blobs)
    mask = blobs > 0
    if mask.all() or not mask.any():
        return parts, middles
    depth = measure_depth(mask)
    peaks = components(_is_peak(depth, mask))
    packed = Packed(blobs, is_holding(blobs, peaks, least=2 if only_crowded else 1))
    depth, peaks = packed.take(depth), packed.take(peaks)
    basins = grow(peaks, -np.rint(depth * STEPS_PER_PX), packed.mask)
    deepest = _merge_across_shallow_necks(basins, depth)
    is_deepest = deepest == np.arange(len(deepest))
    packed.put(deepest[basins], parts)
    packed.put(np.where(is_deepest[peaks], peaks, 0), middles)
    return parts, middles


def measure_depth(mask: Mask) -> Depth:
    """Measure the distance to the background, and smooth it within each blob.

    Parameters
    ----------
    mask : ndarray of bool, shape (Y, X) or (Z, Y, X)
        What belongs to any blob; some pixel does not.

    Returns
    -------
    ndarray of float32, same shape
        In pixels; 0 in the background.
    """
    depth = distance_to_background(mask)
    for _ in range(SMOOTHING_ROUNDS):
        for first, second in neighbours(mask.ndim):
            quarter = depth * depth.dtype.type(0.25)
            depth *= depth.dtype.type(0.5)
            depth[second] += quarter[first]
            depth[first] += quarter[second]
            depth *= mask
    return depth


def _is_peak(depth: Depth, mask: Mask) -> Mask:
    """Find pixels that no neighbour is deeper than."""
    peak = mask.copy()
    for first, second in neighbours(mask.ndim):
        peak[first] &= depth[first] >= depth[second]
        peak[second] &= depth[second] >= depth[first]
    return peak


def _merge_across_shallow_necks(basins: Labels, depth: Depth) -> NDArray[np.int32]:
    """Join basins unless both are deeper than the neck between them.

    Returns for each basin the deepest one of its part. Necks are gone through from the deepest:
    what has met so far is a group, and a group that is hardly deeper than the neck belongs to
    what lies beyond it.
    """
    count = int(basins.max(initial=0)) + 1
    depths = np.zeros(count, depth.dtype)
    at = np.flatnonzero(basins)
    np.maximum.at(depths, basins.ravel()[at], depth.ravel()[at])
    deepest: list[float] = depths.tolist()
    peak = list(deepest)
    group, part = list(range(count)), list(range(count))
    for neck, one, other in _necks(basins, depth):
        a, b = _root(group, one), _root(group, other)
        if a == b:
            continue
        if min(peak[a], peak[b]) - neck <= NECK_DEPTH_PX:
            p, q = _root(part, one), _root(part, other)
            deep, shallow = (p, q) if (deepest[p], -p) >= (deepest[q], -q) else (q, p)
            part[shallow] = deep
        group[b] = a
        peak[a] = max(peak[a], peak[b])
    return np.array([_root(part, basin) for basin in range(count)], np.int32)


def _necks(basins: Labels, depth: Depth) -> list[tuple[float, int, int]]:
    """List the necks between basins that touch, the deepest first: (depth, basin, basin)."""
    pairs, depths = [], []
    for first, second in neighbours(basins.ndim):
        one, other = basins[first], basins[second]
        meet = np.nonzero((one != other) & (one > 0) & (other > 0))
        pairs.append(np.sort(np.stack([one[meet], other[meet]]), axis=0))
        depths.append(np.minimum(depth[first][meet], depth[second][meet]))
    (one, other), neck = np.concatenate(pairs, axis=1), np.concatenate(depths)
    order = np.lexsort((-neck, other, one))
    one, other, neck = one[order], other[order], neck[order]
    is_deepest = np.ones(len(neck), bool)  # of its pair
    is_deepest[1:] = (one[1:] != one[:-1]) | (other[1:] != other[:-1])
    at = np.flatnonzero(is_deepest)
    at = at[np.argsort(-neck[at], kind="stable")]
    return list(zip(neck[at].tolist(), one[at].tolist(), other[at].tolist(), strict=True))


def _root(parents: list[int], node: int) -> int:
    """Follow a node to its root, and let all on the way point to it."""
    root = node
    while parents[root] != root:
        root = parents[root]
    while parents[node] != root:
        parents[node], node = root, parents[node]
    return root
