r"""Cut apart objects that touch, each blob by itself.

A blob is a group of connected pixels above the threshold. Where the network also says how deep
inside an object a pixel is (distance) or where objects end (boundary), seeds grow until they
meet; else the depth is measured, and what is joined by a neck is cut there::

    foreground      ___/‾‾‾‾‾‾‾‾‾\___     above the threshold: one blob
    depth           ___/‾\_____/‾\___     above the seed level, with a peak: two seeds
    labels          ...11111122222...     the seeds grow until they meet (watershed)

Nothing here looks beyond the pixels of a blob and their neighbours, and wherever two ways are
equally good the one that comes first row by row is taken. So a blob is cut the same way alone, in
a window or in the whole image, which is what :mod:`napari_unet.arrays.blocks` builds on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]
    Depth = NDArray[np.floating[Any]]
    Labels = NDArray[np.int32]

SEED_LEVEL = 0.5  # of the relative depth in an object: see arrays.targets
SEED_PEAK = 0.65  # a seed must reach it somewhere: a shallow one is a dent in another's slope
SMOOTHING_ROUNDS = 2  # of the measured depth, so that a rough edge is no cause to split
NECK_DEPTH_PX = 0.375  # how much deeper than the neck between them two parts must be
STEPS = 255  # of the network's depth: with few of them the watershed is faster
STEPS_PER_PX = 16  # of the measured depth


def split_by_depth(blobs: Labels, depth: Depth) -> Labels:
    """Cut blobs in which the network marked the middles of several objects.

    Parameters
    ----------
    blobs : ndarray of int32, shape (Y, X) or (Z, Y, X)
        Connected pixels 1..n, 0 is background.
    depth : ndarray of float, same shape, range 0..1
        How deep inside its object a pixel is.

    Returns
    -------
    ndarray of int32, same shape
        Objects in any order of their numbers; a blob with no seed or one is one object.
    """
    return _cut_crowded(blobs, *_grown(blobs, depth, least=2))


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
    return _cut_crowded(blobs, *_parted(blobs, least=2))


def split_around_seeds(blobs: Labels, depth: Depth | None) -> tuple[Labels, NDArray[np.intp]]:
    """Cut blobs of which this may be only a part, and tell where the middle of each object is.

    Parameters
    ----------
    blobs : ndarray of int32, shape (Y, X) or (Z, Y, X)
        Connected pixels 1..n, 0 is background.
    depth : ndarray of float, same shape, range 0..1, or None
        How deep inside its object a pixel is; measured if not given.

    Returns
    -------
    ndarray of int32, same shape
        Objects 1..n; 0 where nothing marks an object.
    ndarray of int, shape (n + 1,)
        For each object, the first pixel (of the flat array) of the seed it grew from: the same
        in any window that holds the seed.
    """
    parts, seeds = _parted(blobs, least=1) if depth is None else _grown(blobs, depth, least=1)
    at = np.flatnonzero(seeds)[::-1]
    first = np.zeros(parts.max(initial=0) + 1, np.intp)
    first[seeds.ravel()[at]] = at
    return parts, first


def _cut_crowded(blobs: Labels, parts: Labels, _: Labels) -> Labels:
    """Put parts in the place of the blobs that were cut."""
    return np.where(parts > 0, parts + blobs.max(initial=0), blobs)


def _grown(blobs: Labels, depth: Depth, least: int) -> tuple[Labels, Labels]:
    """Cut blobs of at least so many seeds by the network's depth; return the seeds, too."""
    seeds = _seeds(blobs, depth)
    inside = _holding(blobs, seeds, least)[blobs]
    seeds = np.where(inside, seeds, 0)
    return _grow(seeds, -np.rint(np.clip(depth, 0, 1) * STEPS), inside), seeds


def _parted(blobs: Labels, least: int) -> tuple[Labels, Labels]:
    """Cut blobs of at least so many peaks at their necks; return the deepest peaks, too."""
    mask = blobs > 0
    if mask.all() or not mask.any():
        return np.zeros_like(blobs), np.zeros_like(blobs)
    depth = _measured_depth(mask)
    peaks = components(_is_peak(depth, mask))
    inside = _holding(blobs, peaks, least)[blobs]
    peaks = np.where(inside, peaks, 0)
    basins = _grow(peaks, -np.rint(depth * STEPS_PER_PX), inside)
    deepest = _merge_across_shallow_necks(basins, depth)
    is_deepest = deepest == np.arange(len(deepest))
    return deepest[basins], np.where(is_deepest[peaks], peaks, 0)


def components(mask: Mask) -> Labels:
    """Give each group of connected pixels (no diagonals) its number, 1..n row by row."""
    from scipy import ndimage

    labels = np.zeros(mask.shape, np.int32)
    ndimage.label(mask, output=labels)
    return labels


def neighbours(ndim: int) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Give, for each axis, where the first and the second of two neighbouring pixels lie."""
    for axis in range(ndim):
        before = (slice(None),) * axis
        yield (*before, slice(None, -1)), (*before, slice(1, None))


def _seeds(blobs: Labels, depth: Depth) -> Labels:
    """Find the places of enough depth that reach a peak; others are left to their blob."""
    places = components((blobs > 0) & (depth > SEED_LEVEL))
    has_peak = np.zeros(places.max(initial=0) + 1, bool)
    has_peak[places[depth > SEED_PEAK]] = True
    has_peak[0] = False
    return np.where(has_peak[places], places, 0)


def _holding(blobs: Labels, seeds: Labels, least: int) -> Mask:
    """Say of each blob, the background first, if it holds at least so many seeds."""
    at = np.flatnonzero(seeds)
    blob_of_seed = np.zeros(seeds.max(initial=0) + 1, np.int32)
    blob_of_seed[seeds.ravel()[at]] = blobs.ravel()[at]
    holding: Mask = np.bincount(blob_of_seed, minlength=blobs.max(initial=0) + 1) >= least
    holding[0] = False
    return holding


def _grow(seeds: Labels, height: Depth, mask: Mask) -> Labels:
    """Let seeds grow within the mask, low places first, until they meet."""
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


def _measured_depth(mask: Mask) -> Depth:
    """Measure the distance to the background, and smooth it within each blob."""
    import edt

    depth: Depth = edt.edt(np.ascontiguousarray(mask), black_border=False)
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
    np.maximum.at(depths, basins.ravel(), depth.ravel())
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
