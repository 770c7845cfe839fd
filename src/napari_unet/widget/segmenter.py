"""Runs the segmentation of an image and puts the labels where they belong.

Labels go into a layer that lies exactly on the image. A layer the person has worked in is never
written to: a newer run gets a layer of its own, into which what the person vouched for is
carried over, and the older layer stays as it is, hidden.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.widget.annotation import Annotation, labels_metadata
from napari_unet.widget.layers import layer_array, place_labels, to_layer_shape
from napari_unet.widget.live_labels import LAYER_DTYPE, LiveLabels
from napari_unet.widget.view import ViewFollower, shown_region

if TYPE_CHECKING:
    from napari.layers import Image, Labels

    from napari_unet.settings import InstanceSettings, SegmentSettings
    from napari_unet.widget.channels import Gathered, Subject
    from napari_unet.widget.engine import Job
    from napari_unet.widget.session import Session
    from napari_unet.worker.protocol import Region

RELABEL_JOB = "label"


class Segmenter:
    """The actions behind Segment and behind the sliders below it.

    Parameters
    ----------
    session : Session
        The state the panels share.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def segment(
        self,
        subject: Subject,
        gathered: Gathered,
        settings: SegmentSettings,
        plane: dict[str, int],
    ) -> None:
        """Label an image.

        Parameters
        ----------
        subject : Subject
            The image and its channels.
        gathered : Gathered
            The same as one array.
        settings : SegmentSettings
            Tiles, device, thresholds.
        plane : dict of str to int
            Position on the axes to look at one plane of; empty for the whole image.
        """
        model = self._session.model
        if model is None:
            return
        array, axes = _take(gathered.array, gathered.axes, plane)
        older = self._older(subject)
        is_new = older is None or not older.is_unedited
        live = LiveLabels(
            self._session,
            lambda: self._new_layer(subject) if older is None or is_new else older,
            plane,
            is_new=is_new,
        )
        job = self._session.start(
            f"Segmenting {subject.image.name}",
            "segment",
            lambda result: self._on_segmented(subject, live, older, plane, result),
            arrays={"image": array},
            model=model.reference,
            axes=axes,
            settings=settings.model_dump(mode="json"),
            view=self._view(subject, plane),
        )
        self._watch(job, live)
        if job is not None:
            self._end_with(subject.image, job)
            follower = ViewFollower(self._session.viewer, self._session)
            follower.moved.connect(lambda: job.look(self._view(subject, plane)))
            job.finished.connect(follower.close)

    def forget_tiles(self) -> None:
        """Let the next run begin with tiles as large as if memory had never run out."""
        self._session.start(
            "Forgetting small tiles",
            "forget_tiles",
            lambda _: self._session.tell("The next run begins with larger tiles again."),
            quiet=True,
        )

    def relabel(self, settings: InstanceSettings) -> None:
        """Find the objects again in the kept probability of the labels at hand."""
        annotation = self._current()
        if annotation is None or self._session.model is None:
            return
        if annotation.token is None:
            self._session.tell(
                "The probabilities of these labels are not at hand. Press Segment, then move the "
                "threshold."
            )
            return
        if not annotation.is_unedited:
            self._session.tell("These labels hold your corrections. Press Segment for new ones.")
            return
        subject, plane = annotation.subject, annotation.token_plane
        live = LiveLabels(self._session, lambda: annotation, plane, is_new=False)
        job = self._session.start(
            "Finding the objects again",
            RELABEL_JOB,
            lambda result: self._on_relabelled(live, result),
            quiet=True,
            token=annotation.token,
            settings=settings.model_dump(mode="json"),
            view=None if subject is None else self._view(subject, plane),
        )
        self._watch(job, live)

    def _watch(self, job: Job | None, live: LiveLabels) -> None:
        """Let a job show its labels as they come, and take them back if it does not end well."""
        if job is not None:
            live.open_for(job)
            job.progressed.connect(live.on_progress)
            job.failed.connect(lambda *_: live.undo())
            job.cancelled.connect(live.undo)

    def _end_with(self, image: Image, job: Job) -> None:
        """End a job when its image is closed."""
        removed = self._session.viewer.layers.events.removed

        def on_removed(event: Any) -> None:
            if event.value is image:
                job.cancel()

        removed.connect(on_removed)
        job.finished.connect(lambda: removed.disconnect(on_removed))

    def _view(self, subject: Subject, plane: dict[str, int]) -> Region:
        """Return what the person sees of an image, without the axes of a chosen plane."""
        region = shown_region(self._session.viewer, subject.image, subject.axes)
        axes = (axis for axis in subject.axes if axis != "C")
        return tuple(span for axis, span in zip(axes, region, strict=True) if axis not in plane)

    def _current(self) -> Annotation | None:
        labels = self._session.labels
        return None if labels is None else self._session.annotation(labels)

    def _on_segmented(
        self,
        subject: Subject,
        live: LiveLabels,
        older: Annotation | None,
        plane: dict[str, int],
        result: dict[str, Any],
    ) -> None:
        """Finish the labels and make them those at hand."""
        if subject.image not in self._session.viewer.layers or not live.is_open:
            live.undo()
            self._session.tell("The image was closed while it was being labelled.")
            return
        annotation = live.annotation
        annotation.token, annotation.token_plane = result.get("token"), plane
        live.finish(result["labels"])
        if older is not None and older is not annotation:
            live.make_room(_largest(annotation) + _largest(older))
            if plane:
                _copy_other_planes(older, annotation, plane)
            annotation.carry_over(older)
            older.labels.visible = False
        self._session.use_labels(annotation.labels)
        self._session.tell(
            f"{self._count(result['labels'])} objects in {result['seconds']:.1f} s."
            + "".join(f" {note}" for note in result.get("notes", ()))
        )

    def _on_relabelled(self, live: LiveLabels, result: dict[str, Any]) -> None:
        if live.is_open:
            live.finish(result["labels"])
            self._session.tell(f"{self._count(result['labels'])} objects.")
        else:
            live.undo()

    def _count(self, labels: np.ndarray) -> int:
        """Count objects: each plane, or volume of a network of volumes, is numbered from 1."""
        model = self._session.model
        dims = model.card.architecture.spatial_dims if model else 2
        if not labels.size:
            return 0
        return int(labels.reshape(-1, math.prod(labels.shape[-dims:])).max(axis=1).sum())

    def _older(self, subject: Subject) -> Annotation | None:
        """Return the labelling of an image to go on from: the one at hand, or else the newest."""
        made = [
            a
            for a in self._session.annotations()
            if a.subject is not None
            and a.subject.image is subject.image
            and a.subject.axes == subject.axes
            and a.labels in self._session.viewer.layers
        ]
        current = self._current()
        return current if current in made else made[-1] if made else None

    def _new_layer(self, subject: Subject) -> Annotation:
        """Add an empty labels layer that lies on the image."""
        model = self._session.model
        placement = place_labels(subject.image, subject.axes)
        sizes = zip(layer_array(subject.image).shape, subject.axes, strict=True)
        shape = [size for size, axis in sizes if axis != "C"]
        empty = to_layer_shape(np.zeros(shape, LAYER_DTYPE), placement)
        layer: Labels = self._session.viewer.add_labels(
            empty,
            name=f"{subject.image.name} labels",
            visible=False,  # drawn as soon as napari has made it
            metadata=labels_metadata(
                placement.axes, subject.image.name, model.card if model else None
            ),
            **placement.kwargs,
        )
        # Until the labels are there, nothing is the uncorrected state; it takes no memory.
        base = np.broadcast_to(LAYER_DTYPE(0), empty.shape)
        return self._session.annotation(layer, subject, base)


def _take(array: Any, axes: str, plane: dict[str, int]) -> tuple[Any, str]:
    """Cut one plane out of an array, lazily where the array is lazy."""
    if not plane:
        return array, axes
    index = tuple(plane.get(axis, slice(None)) for axis in axes)
    return array[index], "".join(axis for axis in axes if axis not in plane)


def _index(annotation: Annotation, plane: dict[str, int]) -> tuple[int | slice, ...]:
    """Return the index of a plane in the labels layer."""
    axes = annotation.labels_axes
    return tuple(plane.get(axis, slice(None)) for axis in axes)


def _copy_other_planes(older: Annotation, newer: Annotation, plane: dict[str, int]) -> None:
    """Let the planes that were not labelled this time stay as they were."""
    index = _index(newer, plane)
    kept, base = np.array(newer.labels.data[index]), np.array(older.edits.base)
    newer.labels.data[...] = older.labels.data
    newer.labels.data[index] = base[index] = kept
    newer.edits.restart(base)


def _largest(annotation: Annotation) -> int:
    """Return the largest label of a layer."""
    return int(np.max(annotation.labels.data, initial=0))
