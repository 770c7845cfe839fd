"""Runs the segmentation of an image and puts the labels where they belong.

Labels go into a layer that lies exactly on the image. A layer the person has worked in is never
written to: a newer run gets a layer of its own, into which what the person vouched for is
carried over, and the older layer stays as it is, hidden.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.widget.annotation import Annotation, labels_metadata
from napari_unet.widget.layers import layer_array, place_labels, to_layer_shape

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_unet.settings import InstanceSettings, SegmentSettings
    from napari_unet.widget.channels import Gathered, Subject
    from napari_unet.widget.session import Session


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
        self._session.start(
            f"Segmenting {subject.image.name}",
            "segment",
            lambda result: self._on_segmented(subject, plane, result),
            arrays={"image": array},
            model=str(model.path),
            axes=axes,
            settings=settings.model_dump(mode="json"),
        )

    def relabel(self, settings: InstanceSettings) -> None:
        """Find the objects again in the kept probability of the labels at hand."""
        annotation = self._current()
        if annotation is None or annotation.token is None or self._session.model is None:
            return
        if not annotation.is_unedited:
            self._session.tell("These labels hold your corrections. Press Segment for new ones.")
            return
        self._session.start(
            "Finding the objects again",
            "label",
            lambda result: self._on_relabelled(annotation, result),
            quiet=True,
            token=annotation.token,
            settings=settings.model_dump(mode="json"),
        )

    def _current(self) -> Annotation | None:
        labels = self._session.labels
        return None if labels is None else self._session.annotation(labels)

    def _on_segmented(
        self, subject: Subject, plane: dict[str, int], result: dict[str, Any]
    ) -> None:
        """Put new labels into a layer and make it the one at hand."""
        if subject.image not in self._session.viewer.layers:
            self._session.tell("The image was closed while it was being labelled.")
            return
        older = self._newest(subject)
        if older is not None and older.is_unedited:
            annotation = older
        else:
            annotation = self._new_layer(subject, None if plane else result["labels"])
        annotation.token, annotation.token_plane = result.get("token"), plane
        _write(annotation, result["labels"])
        if older is not None and older is not annotation:
            if plane:
                _copy_other_planes(older, annotation, plane)
            annotation.carry_over(older)
            older.labels.visible = False
        self._session.use_labels(annotation.labels)
        self._session.tell(
            f"{_count(result['labels'])} objects in {result['seconds']:.1f} s."
            + "".join(f" {note}" for note in result.get("notes", ()))
        )

    def _on_relabelled(self, annotation: Annotation, result: dict[str, Any]) -> None:
        if annotation.labels in self._session.viewer.layers and annotation.is_unedited:
            _write(annotation, result["labels"])
            self._session.tell(f"{_count(result['labels'])} objects.")

    def _newest(self, subject: Subject) -> Annotation | None:
        """Return the newest labelling of an image that is still open."""
        made = [
            a
            for a in self._session.annotations()
            if a.subject is not None
            and a.subject.image is subject.image
            and a.subject.axes == subject.axes
            and a.labels in self._session.viewer.layers
        ]
        return made[-1] if made else None

    def _new_layer(self, subject: Subject, labels: np.ndarray | None) -> Annotation:
        """Add a labels layer that lies on the image, with a copy of the labels or empty."""
        placement = place_labels(subject.image, subject.axes)
        if labels is None:
            sizes = zip(layer_array(subject.image).shape, subject.axes, strict=True)
            labels = np.zeros([n for n, axis in sizes if axis != "C"], dtype=np.int32)
        model = self._session.model
        layer: Labels = self._session.viewer.add_labels(
            to_layer_shape(np.array(labels), placement),
            name=f"{subject.image.name} labels",
            metadata=labels_metadata(
                placement.axes, subject.image.name, model.card if model else None
            ),
            **placement.kwargs,
        )
        base = to_layer_shape(labels, placement)
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


def _write(annotation: Annotation, labels: np.ndarray) -> None:
    """Write labels into the layer in place, as its new uncorrected state."""
    layer, plane = annotation.labels, annotation.token_plane
    target = layer.data[_index(annotation, plane)]
    labels = annotation.with_checked(labels.reshape(target.shape), plane)
    if not np.array_equal(target, labels):
        target[...] = labels
        layer.refresh()
    annotation.edits.restart(None if plane else labels)


def _copy_other_planes(older: Annotation, newer: Annotation, plane: dict[str, int]) -> None:
    """Let the planes that were not labelled this time stay as they were."""
    index = _index(newer, plane)
    kept, base = np.array(newer.labels.data[index]), np.array(older.edits.base)
    newer.labels.data[...] = older.labels.data
    newer.labels.data[index] = base[index] = kept
    newer.edits.restart(base)


def _count(labels: np.ndarray) -> int:
    """Count objects: each plane is numbered from 1."""
    if not labels.size:
        return 0
    return int(labels.reshape(-1, *labels.shape[-2:]).max(axis=(1, 2)).sum())
