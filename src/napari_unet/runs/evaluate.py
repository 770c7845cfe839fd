"""How well a model does where the truth is known, and whether another one does better.

A model is judged the way it is used: the whole plane's grey values, the same tiles, the same
search for objects. Only the plane's other end is spared: the network looks at what was vouched
for and at the halo around it, which gives the same values (for networks that measure all they
see at once, instance norm for example, nearly the same).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_unet.arrays import metrics
from napari_unet.errors import LabelsError
from napari_unet.models.model import Model, check_model
from napari_unet.runs.background import Background
from napari_unet.runs.predict import find_labels, predict_steps
from napari_unet.runs.progress import Job, drive
from napari_unet.runs.samples import check_samples, grown_box, prepare_plane
from napari_unet.runs.zoom import choose_zoom, zoomed_instances
from napari_unet.settings import Normalization, SegmentSettings, given_or_default

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_unet.runs.progress import Cancel, Progress
    from napari_unet.runs.samples import Plane, Sample

    Mask = NDArray[np.bool_]

Outcome = Literal["better", "not better", "cannot judge"]

LEAST_IOU_GAIN = 0.01  # that makes a model better if it finds as many objects
LARGEST_IOU_LOSS = 0.05  # that finding more objects may cost


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

    @property
    def main(self) -> float:
        """The score that judges: AP at IoU 0.5 of objects, or IoU of classes; 0..1."""
        return self.iou if self.ap50 is None else self.ap50

    def as_dict(self) -> dict[str, float]:
        """Return those scores that there are."""
        return {name: value for name, value in asdict(self).items() if value is not None}


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
        If the samples tell nothing, see :func:`napari_unet.runs.samples.check_samples`.
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
    segment = given_or_default(segment, SegmentSettings(instances=model.card.instances))
    check_samples(samples, model.card)
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
    # Grey values and objects are scaled already, and the channels chosen.
    scaled = Model(model.net, model.card.replace(normalization=Normalization(kind="none")))
    settings = segment.replace(channels=None, invert=False, object_size_px=None)
    instances = zoomed_instances(segment.instances, choose_zoom(model.card, segment))
    judged = []
    with Background() as background:
        for plane, mask in zip(planes, masks, strict=True):
            if mask.any():
                area = grown_box(mask, model.net.halo, model.net.stride)
                image = plane.image[(slice(None), *area)]
                probability = yield from predict_steps(scaled, image, "CYX", settings)
                labels = yield from background.run(find_labels, model.card, probability, instances)
                judged.append((labels, plane.truth[area], mask[area]))
        if not judged:
            raise LabelsError("Nothing is vouched for, so there is nothing to judge on.")
        judge = _judge_classes if model.card.labels == "semantic" else _judge_objects
        return (yield from background.run(judge, judged))


def compare(before: Scores | None, after: Scores | None) -> tuple[Outcome, str]:
    """Decide whether a new model is taken.

    It is better if it finds objects better (AP at IoU 0.5) and loses next to nothing in pixels;
    or if it finds them as well, with no more spurious ones, and is clearly better in pixels
    (IoU). Classes are judged by IoU alone.

    Parameters
    ----------
    before, after : Scores or None
        Of the old and the new model on the same held-out labels; None if there were none.

    Returns
    -------
    outcome : {"better", "not better", "cannot judge"}
        Only a better model should take the place of the old one unasked.
    verdict : str
        The same in a sentence or two for the person, with what to do.
    """
    if before is None or after is None:
        return (
            "cannot judge",
            "Too few labels to judge: mark one more region. The new model is there to be tried; "
            "until then the old one stays in use.",
        )
    name = "IoU" if after.ap50 is None else "AP at IoU 0.5"
    change = f"{name} went from {before.main:.2f} to {after.main:.2f}, pixel IoU from "
    change += f"{before.iou:.2f} to {after.iou:.2f}"
    if _is_better(before, after):
        return "better", f"Better on held-out labels: {change}."
    return (
        "not better",
        f"Not better on held-out labels: {change}. The old model stays in use. Check one more "
        "region where it errs, then retrain.",
    )


def _is_better(before: Scores, after: Scores) -> bool:
    """Whether the new model is better by the rule of :func:`compare`."""
    gain = after.iou - before.iou
    if before.ap50 is None or after.ap50 is None:
        return gain > LEAST_IOU_GAIN
    if after.ap50 == before.ap50:
        return gain > LEAST_IOU_GAIN and (after.spurious or 0) <= (before.spurious or 0)
    return after.ap50 > before.ap50 and gain > -LARGEST_IOU_LOSS


def _judge_objects(judged: Sequence[tuple[Any, Any, Mask]]) -> Scores:
    """Score objects over all planes."""
    pooled = metrics.pooled(metrics.evaluate(*parts) for parts in judged)
    known = {field.name for field in fields(Scores)} - {*metrics.COUNTS}
    counts = {name: int(pooled[name]) for name in metrics.COUNTS}
    scores = {name: value for name, value in pooled.items() if name in known}
    return Scores(**scores, **counts)  # type: ignore[arg-type]  # which names are counts


def _judge_classes(judged: Sequence[tuple[Any, Any, Mask]]) -> Scores:
    """Score classes over all planes: the mean over those that occur, without the background."""
    labels = np.concatenate([labels[mask] for labels, _, mask in judged])
    truth = np.concatenate([truth[mask] for _, truth, mask in judged])
    ious, dices = [1.0], [1.0]  # if there is nothing to find and nothing was found
    classes = [c for c in np.union1d(labels, truth) if c > 0]
    if classes:
        both = [int(((labels == c) & (truth == c)).sum()) for c in classes]
        sums = [int((labels == c).sum() + (truth == c).sum()) for c in classes]
        ious = [b / (s - b) for b, s in zip(both, sums, strict=True)]
        dices = [2 * b / s for b, s in zip(both, sums, strict=True)]
    return Scores(iou=float(np.mean(ious)), dice=float(np.mean(dices)))
