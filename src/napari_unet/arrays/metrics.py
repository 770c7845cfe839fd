"""How well labels agree with the truth, in objects and in pixels.

An object is found if a label overlaps it with an IoU (intersection over union) of at least 0.5;
each label counts for one object only. What was not found is told apart as a person sees it::

    missed     an object without a label of its own
    spurious   a label where there is no object
    merged     one label over several objects (it holds half or more of each)
    split      one object under several labels (it holds half or more of each)

AP here is TP / (TP + FP + FN), as in the Data Science Bowl 2018 [1]_: not the area under a
precision-recall curve that COCO calls by the same name.

References
----------
.. [1] Caicedo et al. (2019), Nucleus segmentation across imaging experiments: the 2018 Data
   Science Bowl, doi:10.1038/s41592-019-0612-7.
.. [2] Arganda-Carreras et al. (2015), Crowdsourcing the creation of image segmentation
   algorithms for connectomics, doi:10.3389/fnana.2015.00142.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.errors import LabelsError, described

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    Labels = NDArray[np.integer[Any]]

IOU = 0.5
IOU_STEPS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
COUNTS = ("tp", "fp", "fn", "missed", "spurious", "merged", "split")


@dataclass(frozen=True)
class Matches:
    """How the labels of one image and its true objects correspond.

    Attributes
    ----------
    tp : int
        Objects found.
    fp : int
        Labels that are no object's.
    fn : int
        Objects not found.
    missed : int
        Objects not found that are neither part of a merged label nor split.
    spurious : int
        Labels without an object that neither merge objects nor are pieces of one.
    merged : int
        Labels over several objects.
    split : int
        Objects under several labels.
    pairs : tuple of (int, int)
        Label and true object of each one found.
    spare : tuple of int
        The labels that are no object's.
    lost : tuple of int
        The true objects not found.
    """

    tp: int
    fp: int
    fn: int
    missed: int
    spurious: int
    merged: int
    split: int
    pairs: tuple[tuple[int, int], ...] = ()
    spare: tuple[int, ...] = ()
    lost: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Side:
    """One of the two label arrays: its objects, the background left out."""

    ids: NDArray[np.int64]
    sizes: NDArray[np.int64]  # pixels where both are known
    known: NDArray[np.bool_]  # half or more of the object lies where both are known
    whole: NDArray[np.int64]  # pixels, wherever they are
    complete: NDArray[np.bool_]  # the object ends where both are known, on all sides


@dataclass(frozen=True)
class _Overlap:
    """Which label shares how many pixels with which true object (positions in the sides)."""

    label: _Side
    truth: _Side
    label_at: NDArray[np.int64]
    truth_at: NDArray[np.int64]
    both: NDArray[np.int64]


def match_objects(
    labels: Labels,
    truth: Labels,
    iou: float = IOU,
    labelled: NDArray[np.bool_] | None = None,
) -> Matches:
    """Match labels with true objects, as many as possible, each once.

    Parameters
    ----------
    labels : ndarray of int, shape (Y, X) or (Z, Y, X)
        Instance labels to be judged, 0 is background.
    truth : ndarray of int, same shape
        True instance labels.
    iou : float
        Smallest intersection over union of a match, above 0 up to 1.
    labelled : ndarray of bool, same shape, optional
        Where the truth is known. Both arrays are cut to it, but for labels held against an object
        that ends there on all sides: what they cover beyond is not that object. An unmatched
        object of which less than half lies there counts neither for nor against.

    Returns
    -------
    Matches
        Counts and pairs.

    Raises
    ------
    LabelsError
        If these are no labels, or the shapes differ.
    """
    return _match(_overlap(labels, truth, labelled), iou)


def evaluate(
    labels: Labels, truth: Labels, labelled: NDArray[np.bool_] | None = None
) -> dict[str, float]:
    """Judge labels against the truth in object and in pixel terms.

    Parameters
    ----------
    labels : ndarray of int, shape (Y, X) or (Z, Y, X)
        Instance labels to be judged, 0 is background.
    truth : ndarray of int, same shape
        True instance labels.
    labelled : ndarray of bool, same shape, optional
        Where the truth is known; see :func:`match_objects`.

    Returns
    -------
    dict of str to float
        ``ap50``: TP / (TP + FP + FN) at IoU 0.5; ``mean_ap``: its mean over IoU 0.5, 0.55 ...
        0.95; ``f1``: 2 TP / (2 TP + FP + FN) at 0.5; ``iou`` and ``dice``: of objects against
        background, in pixels; ``are``: adapted Rand error [2]_ over the pixels of true objects,
        0 is best; and the counts ``tp``, ``fp``, ``fn``, ``missed``, ``spurious``, ``merged``,
        ``split``. Where both are empty they agree: 1 (``are``: 0). Where there are labels and the
        truth is empty, nothing is right: 0 (``are``: 1). ``are`` counts the unlabelled pixels of
        objects as one label, as scikit-image does.

    Raises
    ------
    LabelsError
        If these are no labels, or the shapes differ.

    References
    ----------
    .. [2] Arganda-Carreras et al. (2015), doi:10.3389/fnana.2015.00142.
    """
    overlap = _overlap(labels, truth, labelled)
    at_half = _match(overlap, IOU)
    all_steps = [_average_precision(_match(overlap, step)) for step in IOU_STEPS]
    counts = {name: float(getattr(at_half, name)) for name in COUNTS}
    return {
        "ap50": _average_precision(at_half),
        "mean_ap": float(np.mean(all_steps)),
        "f1": _f1(counts),
        **_pixel_scores(overlap),
        "are": _adapted_rand_error(overlap),
        **counts,
    }


def pooled(scores: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Put the scores of several images together.

    Parameters
    ----------
    scores : iterable of mapping
        What :func:`evaluate` gave for each image.

    Returns
    -------
    dict of str to float
        The same keys. Counts are summed and ``ap50`` and ``f1`` follow from the sums, so an
        image counts by its objects; the others are means weighted by TP + FP + FN.

    Raises
    ------
    LabelsError
        If there are no scores.
    """
    images = list(scores)
    if not images:
        raise LabelsError("There are no scores to put together. Evaluate at least one image.")
    sums = {name: float(sum(image[name] for image in images)) for name in COUNTS}
    objects = [image["tp"] + image["fp"] + image["fn"] for image in images]
    weights = objects if sum(objects) else [1.0] * len(images)
    means = {
        name: float(np.average([image[name] for image in images], weights=weights))
        for name in images[0]
        if name not in COUNTS
    }
    total = sums["tp"] + sums["fp"] + sums["fn"]
    return {**means, "ap50": sums["tp"] / total if total else 1.0, "f1": _f1(sums), **sums}


def _overlap(labels: Labels, truth: Labels, labelled: NDArray[np.bool_] | None) -> _Overlap:
    """Count the pixels that each label shares with each true object."""
    labels, truth = _as_labels(labels, "labels"), _as_labels(truth, "truth")
    labelled = None if labelled is None else np.asarray(labelled)
    shapes = {labels.shape, truth.shape} | ({labelled.shape} if labelled is not None else set())
    if len(shapes) > 1:
        raise LabelsError(
            f"Labels of shape {labels.shape} cannot be compared with a truth of shape "
            f"{truth.shape}"
            + (f" known in an area of shape {labelled.shape}" if labelled is not None else "")
            + ". Give arrays of one shape."
        )
    label_ids, label_at = _positions(labels)
    truth_ids, truth_at = _positions(truth)
    known = np.ones(labels.size, bool) if labelled is None else labelled.ravel().astype(bool)
    pairs, both = np.unique(label_at[known] * len(truth_ids) + truth_at[known], return_counts=True)
    rows, columns = np.divmod(pairs, len(truth_ids))
    objects = (rows > 0) & (columns > 0)
    end = np.zeros(labels.shape, bool) if labelled is None else _at_the_end(labelled)
    return _Overlap(
        _side(label_ids, label_at, known, end.ravel()),
        _side(truth_ids, truth_at, known, end.ravel()),
        rows[objects] - 1,
        columns[objects] - 1,
        both[objects],
    )


def _as_labels(given: Any, what: str) -> Labels:
    """Refuse what are no labels."""
    try:
        array = np.asarray(given)
    except ValueError as error:
        raise LabelsError(
            f"The {what} cannot be read as an array ({error}). Give an array of whole numbers."
        ) from error
    if array.dtype.kind not in "iub" or array.ndim < 2:
        found = f"of type {array.dtype}" if array.ndim >= 2 else described(given)
        raise LabelsError(
            f"The {what} are {found}, an array of whole numbers was expected. Give labels: 0 is "
            "background, each object has a number."
        )
    if array.size and array.min() < 0:
        raise LabelsError(
            f"The {what} hold {array.min()}; 0 and above were expected. Give labels: 0 is "
            "background, each object has a number."
        )
    return array


def _positions(labels: Labels) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids that occur, the background always first, and the position of each pixel's id."""
    found, inverse = np.unique(labels, return_inverse=True)
    ids, at = found.astype(np.int64), inverse.ravel().astype(np.int64)
    if 0 in ids:
        return ids, at
    return np.concatenate([np.zeros(1, np.int64), ids]), at + 1


def _at_the_end(labelled: NDArray[Any]) -> NDArray[np.bool_]:
    """Where the truth is not known, and the pixels beside."""
    from scipy.ndimage import binary_dilation

    end: NDArray[np.bool_] = binary_dilation(~labelled.astype(bool))
    return end


def _side(
    ids: NDArray[np.int64],
    at: NDArray[np.int64],
    known: NDArray[np.bool_],
    end: NDArray[np.bool_],
) -> _Side:
    """Sizes of the objects of one array; those with no pixel in the known area have size 0."""
    inside = np.bincount(at[known], minlength=len(ids))[1:]
    whole = np.bincount(at, minlength=len(ids))[1:]
    at_the_end = np.bincount(at[end], minlength=len(ids))[1:]
    return _Side(ids[1:], inside, 2 * inside >= whole, whole, at_the_end == 0)


def _match(overlap: _Overlap, iou: float) -> Matches:
    """Match at one IoU and tell the rest apart."""
    label_found, truth_found, pairs = _pair_up(overlap, iou)
    merging, merged = _held_by_several(
        overlap.label_at, overlap.truth_at, overlap, overlap.truth.sizes, len(overlap.label.ids)
    )
    splitting, pieces = _held_by_several(
        overlap.truth_at, overlap.label_at, overlap, overlap.label.sizes, len(overlap.truth.ids)
    )
    spare = ~label_found & overlap.label.known & (overlap.label.sizes > 0)
    lost = ~truth_found & overlap.truth.known & (overlap.truth.sizes > 0)
    return Matches(
        tp=len(pairs),
        fp=int(spare.sum()),
        fn=int(lost.sum()),
        missed=int((lost & ~merged & ~splitting).sum()),
        spurious=int((spare & ~merging & ~pieces).sum()),
        merged=int(merging.sum()),
        split=int(splitting.sum()),
        pairs=pairs,
        spare=tuple(overlap.label.ids[spare].tolist()),
        lost=tuple(overlap.truth.ids[lost].tolist()),
    )


def _pair_up(
    overlap: _Overlap, iou: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], tuple[tuple[int, int], ...]]:
    """Match as many pairs of enough IoU as possible; flags of both sides, and the ids."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    ends = overlap.truth.complete[overlap.truth_at]
    sizes = np.where(
        ends, overlap.label.whole[overlap.label_at], overlap.label.sizes[overlap.label_at]
    )
    sizes = sizes + overlap.truth.sizes[overlap.truth_at]
    # written as a product, so that an IoU of exactly 1/2 is not lost to rounding
    enough = overlap.both >= iou * (sizes - overlap.both) - 1e-9
    at = (overlap.label_at[enough], overlap.truth_at[enough])
    shape = (len(overlap.label.ids), len(overlap.truth.ids))
    label_found, truth_found = np.zeros(shape[0], bool), np.zeros(shape[1], bool)
    if not enough.any():
        return label_found, truth_found, ()
    graph = coo_array((np.ones(len(at[0]), np.int8), at), shape=shape).tocsr()
    partner = maximum_bipartite_matching(graph, perm_type="column")
    label_found = partner >= 0
    truth_found[partner[label_found]] = True
    pairs = zip(
        overlap.label.ids[label_found].tolist(),
        overlap.truth.ids[partner[label_found]].tolist(),
        strict=True,
    )
    return label_found, truth_found, tuple(pairs)


def _held_by_several(
    holders: NDArray[np.int64],
    held: NDArray[np.int64],
    overlap: _Overlap,
    held_sizes: NDArray[np.int64],
    count: int,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Objects that hold half or more of each of several others; and those others."""
    half = 2 * overlap.both >= held_sizes[held]
    several = np.bincount(holders[half], minlength=count) > 1
    members = np.zeros(len(held_sizes), bool)
    members[held[half & several[holders]]] = True
    return several, members


def _average_precision(matches: Matches) -> float:
    """TP / (TP + FP + FN); 1 if there is nothing to find and nothing found."""
    total = matches.tp + matches.fp + matches.fn
    return matches.tp / total if total else 1.0


def _f1(counts: Mapping[str, float]) -> float:
    """2 TP / (2 TP + FP + FN); 1 if there is nothing to find and nothing found."""
    total = 2 * counts["tp"] + counts["fp"] + counts["fn"]
    return 2 * counts["tp"] / total if total else 1.0


def _pixel_scores(overlap: _Overlap) -> dict[str, float]:
    """IoU and Dice of all objects together against the background."""
    both = int(overlap.both.sum())
    total = int(overlap.label.sizes.sum() + overlap.truth.sizes.sum())
    if total == 0:
        return {"iou": 1.0, "dice": 1.0}
    return {"iou": both / (total - both), "dice": 2 * both / total}


def _adapted_rand_error(overlap: _Overlap) -> float:
    """One minus the F-score of pixel pairs; unlabelled pixels of objects count as one label."""
    if not len(overlap.truth.ids):
        return 1.0 if overlap.label.sizes.any() else 0.0
    covered = np.bincount(overlap.truth_at, overlap.both, minlength=len(overlap.truth.ids))
    bare = overlap.truth.sizes - covered
    by_label = np.bincount(overlap.label_at, overlap.both, minlength=len(overlap.label.ids))
    together = _pairs(overlap.both) + _pairs(bare)
    apart = _pairs(overlap.truth.sizes) + _pairs(by_label) + _pairs(bare.sum())
    return float(1 - 2 * together / apart) if apart else 0.0


def _pairs(counts: Any) -> float:
    """Ordered pairs of pixels within each count, summed."""
    values = np.asarray(counts, np.float64)
    return float((values * (values - 1)).sum())
