"""What a person changed in labels, and what of it counts as truth.

Nothing here changes an array it was given. All of it works for a plane (Y, X) and for stacks of
planes (..., Y, X).

What is true is known only where somebody vouched for it. Objects do not care about that line::

      1 1 | 7 7        labels: 1 was corrected inside the vouched area (left of the line),
      1 1 | 7 7        7 is what the model said outside
      2 2 | 0 0

    1 goes on as 7 behind the line, so both are one object: its middle is at the line, not its
    edge. 2 ends exactly at the line: nobody knows where its true edge is. :func:`join_outside`
    tells both, so that a network learns neither a false edge nor a false middle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.errors import LabelsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Labels = NDArray[np.integer[Any]]
    Mask = NDArray[np.bool_]

# A convex object cut by a box has at most half of its outline on the cut; one that was painted
# by itself has all of it on the edge of what is vouched for.
CUT_SHARE = (0.05, 0.6)
SPECK_SHARE = 0.05  # a part smaller than this share of the largest is a slip of the brush


def changed(base: Labels, now: Labels) -> Mask:
    """Tell where labels differ from what they were.

    Parameters
    ----------
    base, now : ndarray of int, shape (..., Y, X)
        The labels before and after the person worked on them.

    Returns
    -------
    ndarray of bool, same shape
        True where the number is another one.

    Raises
    ------
    LabelsError
        If the shapes differ.
    """
    base, now = np.asarray(base), np.asarray(now)
    _refuse_other_shape(now, base.shape, "labels before")
    differs: Mask = base != now
    return differs


def renamed_as(base: Labels, now: Labels) -> Labels:
    """Give the objects of older labels the numbers they have now, where they are the same.

    An object that only got another number was not corrected.

    Parameters
    ----------
    base, now : ndarray of int, same shape
        Instance labels before and after.

    Returns
    -------
    ndarray of int, dtype of ``base`` or wider
        ``base``, in which an object that covers exactly the pixels of an object of ``now`` has
        that object's number.

    Raises
    ------
    LabelsError
        If the shapes differ.
    """
    differs = changed(base, now)
    if not differs.any():
        return base
    was, became = np.asarray(base)[differs], np.asarray(now)[differs]
    # What lost or kept a pixel under its number is not the same object under another one.
    in_question = np.union1d(was, became)
    kept = np.unique(np.asarray(base)[~differs & np.isin(base, in_question)])
    areas = _areas(was), _areas(became)
    step = int(became.max(initial=0)) + 1
    pairs = _areas(was.astype(np.int64) * step + became)
    numbers = {
        old: new
        for (old, new), count in ((divmod(pair, step), n) for pair, n in pairs.items())
        if old and new and count == areas[0][old] == areas[1][new]
    }
    for number in kept.tolist():
        numbers.pop(number, None)
    taken = set(kept.tolist())
    numbers = {old: new for old, new in numbers.items() if new not in taken}
    if not numbers:
        return np.asarray(base)
    result = np.array(base, dtype=_wide_enough(np.asarray(base).dtype, max(numbers.values())))
    old_ids = np.array(sorted(numbers))
    new_ids = np.array([numbers[old] for old in old_ids.tolist()])
    at = np.minimum(np.searchsorted(old_ids, was), len(old_ids) - 1)
    result[differs] = np.where(old_ids[at] == was, new_ids[at], was)
    return result


def count_changes(base: Labels, now: Labels) -> int:
    """Count the objects that were added, removed or altered.

    Parameters
    ----------
    base, now : ndarray of int, shape (..., Y, X)
        The labels before and after the person worked on them.

    Returns
    -------
    int
        Objects with at least one pixel more or less than before.

    Raises
    ------
    LabelsError
        If the shapes differ.
    """
    differs = changed(base, now)
    ids = np.union1d(np.asarray(base)[differs], np.asarray(now)[differs])
    return int(np.count_nonzero(ids))


def keep_vouched(new: Labels, old: Labels, mask: Mask) -> Labels:
    """Put what was vouched for in older labels into newer ones.

    Parameters
    ----------
    new : ndarray of int, shape (..., Y, X)
        Labels of a later run.
    old : ndarray of int, same shape
        The labels the person worked on.
    mask : ndarray of bool, same shape
        Where the older labels are the truth.

    Returns
    -------
    ndarray of int, dtype of ``new`` or wider
        The older labels where they are vouched for, under their own numbers; elsewhere the newer
        ones, under the number of the vouched object they belong to, or else a free one.

    Raises
    ------
    LabelsError
        If the shapes differ.
    """
    new, old = np.asarray(new), np.asarray(old)
    _refuse_other_shape(old, new.shape, "new labels")
    _refuse_other_shape(mask, new.shape, "new labels")
    was, vouched = new[mask], old[mask]
    is_outside = np.zeros(int(new.max(initial=0)) + 1, bool)
    is_outside[new[~mask]] = True
    is_outside[0] = False
    ids = np.flatnonzero(is_outside)
    free = int(vouched.max(initial=0)) + 1
    numbers = np.zeros(len(is_outside), _wide_enough(new.dtype, free + len(ids)))
    numbers[ids] = np.arange(free, free + len(ids))
    for number, owner in _most_frequent(was[was > 0], vouched[was > 0]).items():
        if owner and numbers[number]:
            numbers[number] = owner
    result: Labels = numbers[new]
    result[mask] = vouched
    return result


def join_outside(labels: Labels, mask: Mask) -> tuple[NDArray[np.int32], Mask]:
    """Let vouched objects go on outside, and tell which are cut at the edge of the area.

    Parameters
    ----------
    labels : ndarray of int, shape (Y, X) or (Z, Y, X)
        The truth where vouched for, elsewhere what a model or nobody said.
    mask : ndarray of bool, same shape
        Where the labels are vouched for.

    Returns
    -------
    joined : ndarray of int32
        The objects under new numbers: every connected part is an object of its own, also where
        two share a number, and what meets along the edge of the area is one object. Parts of one
        number that are connected outside are one, too, as where a gap between two areas cuts it.
    cut : ndarray of bool
        Vouched pixels of objects that end exactly where the area ends, so that their true
        extent is unknown.

    Raises
    ------
    LabelsError
        If the shapes differ.
    """
    _refuse_other_shape(mask, labels.shape, "labels")
    inside = _connected_anywhere(separate_parts(np.where(mask, labels, 0)), labels)
    outside = separate_parts(np.where(mask, 0, labels))
    joined = np.where(outside > 0, outside + inside.max(initial=0), inside).astype(np.int32)
    ours, theirs = _across_the_edge(joined, mask)
    touching = (ours > 0) & (theirs > 0)
    numbers = np.arange(joined.max(initial=0) + 1, dtype=np.int32)
    for other, own in _most_frequent(theirs[touching], ours[touching]).items():
        numbers[other] = own
    joined = numbers[joined]
    return joined, _cut_objects(joined, mask)


def _connected_anywhere(parts: Labels, labels: Labels) -> NDArray[np.int32]:
    """Make one of the parts that belong to one connected piece of the labels."""
    from skimage.measure import label

    pieces = np.asarray(label(labels, background=0, connectivity=1), np.int32)
    is_part = parts > 0
    first: dict[int, int] = {}
    numbers = np.arange(parts.max(initial=0) + 1, dtype=np.int32)
    for part, piece in _most_frequent(parts[is_part], pieces[is_part]).items():
        numbers[part] = first.setdefault(piece, part)
    return numbers[parts]


def separate_parts(labels: Labels) -> NDArray[np.int32]:
    """Give every connected part of an object a number of its own.

    A brush that keeps its number from nucleus to nucleus paints many objects as one. Specks far
    smaller than the largest part of an object stay with it.

    Parameters
    ----------
    labels : ndarray of int, shape (Y, X) or (Z, Y, X)
        Instance labels, 0 is background.

    Returns
    -------
    ndarray of int32, same shape
        Labels 1..n; parts that meet only at a corner are apart.
    """
    from skimage.measure import label

    parts = np.asarray(label(labels, background=0, connectivity=1), np.int32)
    sizes = np.bincount(parts.ravel())
    owners = np.zeros(len(sizes), np.int64)
    owners[parts.ravel()] = np.asarray(labels).ravel()
    by_size = np.argsort(sizes, kind="stable")
    largest = {int(owners[part]): int(part) for part in by_size}  # the last one stays
    leaders = np.array([largest[int(owner)] for owner in owners], np.int32)
    is_speck = sizes < SPECK_SHARE * sizes[leaders]
    kept: Labels = np.where(is_speck, leaders, np.arange(len(sizes)))[parts]
    return renumber(kept).astype(np.int32)


def renumber(labels: Labels) -> Labels:
    """Give the objects the numbers 1..n without a gap, in the order they have.

    Parameters
    ----------
    labels : ndarray of int
        Instance labels, 0 is background.

    Returns
    -------
    ndarray of int
        New labels of the same dtype.
    """
    ids, at = np.unique(labels, return_inverse=True)
    numbers = np.cumsum(ids > 0)
    return numbers[at].reshape(labels.shape).astype(labels.dtype)


def _areas(labels: Labels) -> dict[int, int]:
    """Count the pixels of each number."""
    ids, counts = np.unique(labels, return_counts=True)
    return dict(zip(ids.tolist(), counts.tolist(), strict=True))


def _most_frequent(keys: Labels, values: Labels) -> dict[int, int]:
    """For each key, the value it most often stands beside."""
    if not keys.size:
        return {}
    pairs, counts = np.unique(np.stack([keys, values]), axis=1, return_counts=True)
    order = np.argsort(counts, kind="stable")  # the most frequent is written last
    return {int(key): int(value) for key, value in pairs[:, order].T}


def _across_the_edge(labels: Labels, mask: Mask) -> tuple[Labels, Labels]:
    """Labels of neighbours of which the first is vouched for and the second is not."""
    ours, theirs = [], []
    for axis in range(labels.ndim):
        ahead = (slice(None),) * axis + (slice(1, None),)
        behind = (slice(None),) * axis + (slice(None, -1),)
        for one, other in ((ahead, behind), (behind, ahead)):
            at_edge = mask[one] & ~mask[other]
            ours.append(labels[one][at_edge])
            theirs.append(labels[other][at_edge])
    return np.concatenate(ours), np.concatenate(theirs)


def _cut_objects(joined: Labels, mask: Mask) -> Mask:
    """Vouched pixels of the objects of which a part of the outline, not all, is the edge."""
    ours, theirs = _across_the_edge(joined, mask)
    count = int(joined.max(initial=0)) + 1
    at_edge = np.bincount(ours[ours != theirs], minlength=count)
    outline = _outline_lengths(joined, count)
    share = at_edge / np.maximum(outline, 1)
    is_cut = (share > CUT_SHARE[0]) & (share <= CUT_SHARE[1])
    is_cut[0] = False
    cut: Mask = is_cut[joined] & mask
    return cut


def _outline_lengths(labels: Labels, count: int) -> NDArray[np.int64]:
    """Pixel sides of each object that face another label."""
    lengths = np.zeros(count, np.int64)
    for axis in range(labels.ndim):
        ahead = labels[(slice(None),) * axis + (slice(1, None),)]
        behind = labels[(slice(None),) * axis + (slice(None, -1),)]
        differs = ahead != behind
        for side in (ahead, behind):
            lengths += np.bincount(side[differs], minlength=count)
    return lengths


def _wide_enough(dtype: np.dtype[Any], largest: int) -> np.dtype[Any]:
    """Return the dtype, or int32 or int64 where the largest number does not fit."""
    for kind in (dtype, np.dtype(np.int32)):
        if largest <= np.iinfo(kind).max:
            return kind
    return np.dtype(np.int64)


def _refuse_other_shape(array: NDArray[Any], shape: tuple[int, ...], what: str) -> None:
    """Raise unless an array has the shape of what it belongs to."""
    if array.shape != shape:
        raise LabelsError(
            f"An array of shape {array.shape} does not belong to {what} of shape {shape}. "
            "Give arrays of one shape."
        )
