"""How well a model does where the truth is known.

A model is judged the way it is used: the whole plane's grey values, the same tiles, the same
search for objects at the size of the image (:mod:`napari_unet.runs.judged`). Only the plane's other
end is spared: the network looks at what was vouched
for and at the halo around it, which gives the same values (for networks that measure all they
see at once, instance norm for example, nearly the same). Whether one model is better than another
is told in :mod:`napari_unet.runs.verdict`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.arrays import metrics
from napari_unet.errors import LabelsError
from napari_unet.models.model import Model, check_model
from napari_unet.runs.background import Background
from napari_unet.runs.judged import Part, at_image_size, truth_in
from napari_unet.runs.labelling import find_labels
from napari_unet.runs.places import Tally, divide, place_of
from napari_unet.runs.predict import predict_steps
from napari_unet.runs.progress import Job, drive
from napari_unet.runs.sample_checks import check_samples
from napari_unet.runs.samples import grown_box, prepare_plane
from napari_unet.settings import Normalization, SegmentSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_unet.models.card import Card
    from napari_unet.runs.progress import Cancel, Progress
    from napari_unet.runs.samples import Plane, Sample

    Mask = NDArray[np.bool_]
    Judged = tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]], Mask]
    """Labels, truth and where it is known, of one plane."""


@dataclass(frozen=True)
class Scores:
    """How well a model does; of classes there are pixel scores only, of objects all."""

    iou: float
    """Intersection over union, 0..1: of objects and background, or the mean over the classes."""
    dice: float
    """Twice the intersection over the sum, 0..1, likewise."""
    ap50: float | None = None
    """TP / (TP + FP + FN) at IoU 0.5, 0..1."""
    mean_ap: float | None = None
    """Its mean over IoU 0.5, 0.55 ... 0.95."""
    f1: float | None = None
    """2 TP / (2 TP + FP + FN) at IoU 0.5, 0..1."""
    are: float | None = None
    """Adapted Rand error, 0..1; 0 is best."""
    tp: int | None = None
    """Objects found."""
    fp: int | None = None
    """Labels that are no object's."""
    fn: int | None = None
    """Objects not found."""
    missed: int | None = None
    """Objects without a label."""
    spurious: int | None = None
    """Labels without an object."""
    merged: int | None = None
    """Labels over several objects."""
    split: int | None = None
    """Objects under several labels."""
    objects: Tally | None = field(default=None, compare=False, repr=False)
    """AP at IoU 0.5 place by place, to compare with another model; None for classes."""
    pixels: Tally | None = field(default=None, compare=False, repr=False)
    """IoU likewise, of objects and background or of each class."""

    @property
    def main(self) -> float:
        """The score that judges: AP at IoU 0.5 of objects, or IoU of classes; 0..1."""
        return self.iou if self.ap50 is None else self.ap50

    def as_dict(self) -> dict[str, float]:
        """Return those scores that there are."""
        values = {name: getattr(self, name) for name in SCORE_NAMES}
        return {name: value for name, value in values.items() if value is not None}


SCORE_NAMES = tuple(each.name for each in fields(Scores) if each.name not in ("objects", "pixels"))


def evaluate(
    model: Model,
    samples: Sequence[Sample],
    segment: SegmentSettings | None = None,
    *,
    progress: Callable[[Progress], None] | None = None,
    cancel: Cancel | None = None,
) -> Scores:
    """Judge a model on labelled planes.

    Parameters
    ----------
    model : Model
        Network and card.
    samples : sequence of Sample
        Planes with labels; only what is vouched for counts.
    segment : SegmentSettings, optional
        As the planes would be segmented; if not given, objects are found as the card suggests.
    progress : callable, optional
        Called with each :class:`napari_unet.runs.progress.Progress`.
    cancel : threading.Event or callable returning bool, optional
        Asked several times a second.

    Returns
    -------
    Scores
        Over all planes; AP from the summed counts.

    Raises
    ------
    LabelsError
        If the samples tell nothing, see :func:`napari_unet.runs.sample_checks.check_samples`.
    Cancelled
        If ``cancel`` became true.
    """
    return drive(evaluate_steps(model, samples, segment), progress, cancel)


def evaluate_steps(
    model: Model, samples: Sequence[Sample], segment: SegmentSettings | None = None
) -> Job[Scores]:
    """Judge a model on labelled planes, as a job; see :func:`evaluate`.

    Yields
    ------
    Progress
        Several times a second.
    """
    check_model(model)
    segment = model.card.complete(segment)
    check_samples(samples, model.card, segment.channels)
    with Background() as background:
        planes = []
        for sample in samples:
            plane = yield from background.run(
                prepare_plane, sample, model.card, segment, model.net.halo, model.net.stride
            )
            planes += [plane] if plane is not None else []
    return (yield from judge_steps(model, planes, [plane.vouched for plane in planes], segment))


def judge_steps(
    model: Model, planes: Sequence[Plane], masks: Sequence[Mask], segment: SegmentSettings
) -> Job[Scores]:
    """Judge a model on parts of prepared planes, as a job.

    Parameters
    ----------
    model : Model
        Network and card.
    planes : sequence of Plane
        Scaled grey values and truth.
    masks : sequence of ndarray of bool, shape (Y, X)
        Of each plane, where to judge; an object that lies mostly outside does not count.
    segment : SegmentSettings
        As the planes would be segmented.

    Yields
    ------
    Progress
        Several times a second.

    Raises
    ------
    LabelsError
        If there is nothing to judge on.
    """
    parts = yield from look_steps(model, planes, masks, segment)
    with Background() as background:
        return (yield from background.run(score, model.card, parts, segment))


def look_steps(
    model: Model, planes: Sequence[Plane], masks: Sequence[Mask], segment: SegmentSettings
) -> Job[list[Part]]:
    """Compute what a model gives where it is to be judged, as a job; see :func:`judge_steps`.

    Yields
    ------
    Progress
        Several times a second.

    Raises
    ------
    LabelsError
        If there is nothing to judge on.
    """
    # Grey values and objects are scaled already, and the channels chosen.
    scaled = Model(model.net, model.card.replace(normalization=Normalization(kind="none")))
    settings = segment.replace(channels=None, invert=False, object_size_px=None)
    parts = []
    with Background() as background:
        for plane, mask in zip(planes, masks, strict=True):
            if mask.any():
                area = grown_box(mask, model.net.halo, model.net.stride)
                image = plane.image[(slice(None), *area)]
                seen = yield from predict_steps(scaled, image, "CYX", settings)
                probability = yield from background.run(at_image_size, plane, area, seen)
                parts.append(Part(probability, *truth_in(plane, area, mask)))
    if not parts:
        raise LabelsError("Nothing is vouched for, so there is nothing to judge on.")
    return parts


def score(card: Card, parts: Sequence[Part], segment: SegmentSettings) -> Scores:
    """Find what there is in some parts, and score it.

    Parameters
    ----------
    card : Card
        Of the model that gave the probabilities.
    parts : sequence of Part
        What it gave, and the truth.
    segment : SegmentSettings
        How objects are found.

    Returns
    -------
    Scores
        Over all parts.
    """
    return score_labels(card, find_in(card, parts, segment))


def find_in(card: Card, parts: Sequence[Part], segment: SegmentSettings) -> list[Judged]:
    """Find objects or classes in what a model gave.

    Parameters
    ----------
    card : Card
        Of the model that gave the probabilities.
    parts : sequence of Part
        What it gave, and the truth.
    segment : SegmentSettings
        How objects are found.

    Returns
    -------
    list of (ndarray of int32, ndarray of int32, ndarray of bool)
        Of each part, the labels, the truth, and where it is known.
    """
    return [
        (find_labels(card, part.probability, segment.instances), part.truth, part.mask)
        for part in parts
    ]


def score_labels(card: Card, judged: Sequence[Judged]) -> Scores:
    """Score labels, and count in each place what is right.

    Parameters
    ----------
    card : Card
        Tells objects from classes.
    judged : sequence of (ndarray of int, ndarray of int, ndarray of bool)
        Labels, truth and where it is known; see :func:`find_in`.

    Returns
    -------
    Scores
        Over all of them.
    """
    objects, pixels = tally(card, judged)
    if objects is None:
        return _score_classes(pixels)
    pooled = metrics.pooled(metrics.evaluate(*parts) for parts in judged)
    counts = {name: int(pooled[name]) for name in metrics.COUNTS}
    scores = {name: pooled[name] for name in SCORE_NAMES if name not in metrics.COUNTS}
    return Scores(**scores, **counts, objects=objects, pixels=pixels)  # type: ignore[arg-type]


def tally(card: Card, judged: Sequence[Judged]) -> tuple[Tally | None, Tally]:
    """Count in each place what is right.

    Parameters
    ----------
    card : Card
        Tells objects from classes.
    judged : sequence of (ndarray of int, ndarray of int, ndarray of bool)
        Labels, truth and where it is known; see :func:`find_in`.

    Returns
    -------
    objects : Tally or None
        AP at IoU 0.5; None for classes.
    pixels : Tally
        IoU.
    """
    classes = max(2, len(card.outputs)) if card.labels == "semantic" else None
    names = divide(
        [truth for _, truth, _ in judged],
        [mask for _, _, mask in judged],
        semantic=classes is not None,
    )
    count = 1 + max(int(name.max()) for name in names)
    pixels = _tally_pixels(judged, names, count, classes)
    return None if classes else _tally_objects(judged, names, count), pixels


def _tally_objects(
    judged: Sequence[Judged], names: Sequence[NDArray[np.int64]], count: int
) -> Tally:
    """Count the objects found, lost and made up in each place."""
    right, whole = np.zeros(count), np.zeros(count)
    for (labels, truth, mask), places in zip(judged, names, strict=True):
        matches = metrics.match_objects(labels, truth, labelled=mask)
        of_truth = place_of(np.where(mask, truth, 0), places)
        of_labels = place_of(np.where(mask, labels, 0), places)
        found = of_truth[[true for _, true in matches.pairs]]
        np.add.at(right, found, 1)
        np.add.at(whole, found, 1)
        np.add.at(whole, of_truth[list(matches.lost)], 1)
        np.add.at(whole, of_labels[list(matches.spare)], 1)
    return Tally(right[:, np.newaxis], whole[:, np.newaxis])


def _tally_pixels(
    judged: Sequence[Judged],
    names: Sequence[NDArray[np.int64]],
    count: int,
    classes: int | None,
) -> Tally:
    """Count the pixels of each class, or of objects, that agree in each place."""
    right, whole = np.zeros((2, count, (classes or 2) - 1))
    for (labels, truth, mask), places in zip(judged, names, strict=True):
        for kind in range(right.shape[1]):
            ours, theirs = (
                mask & (each > 0 if classes is None else each == kind + 1)
                for each in (labels, truth)
            )
            right[:, kind] += np.bincount(places[ours & theirs], minlength=count)
            whole[:, kind] += np.bincount(places[ours | theirs], minlength=count)
    return Tally(right, whole)


def _score_classes(pixels: Tally) -> Scores:
    """Score classes over all planes: the mean over those that occur, without the background."""
    both, either = pixels.right.sum(axis=0), pixels.whole.sum(axis=0)
    occurs = either > 0
    if not occurs.any():  # there is nothing to find and nothing was found
        return Scores(iou=1.0, dice=1.0, pixels=pixels)
    dice = 2 * both[occurs] / (either + both)[occurs]
    return Scores(iou=pixels.score, dice=float(dice.mean()), pixels=pixels)
