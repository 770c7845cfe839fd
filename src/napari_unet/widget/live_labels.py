"""The labels layer a run writes into while it computes.

The layer is there from the first tile on and cannot be painted in until the run is over. When
the run ends in any other way than well, the layer is as it was before, or gone if the run made
it::

    click --> open --> part --> part --> ... --> finish(labels)
               |                                 undo()
               new layer, or the one nobody has worked in
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QTimer

from napari_unet.worker.protocol import as_region, open_array

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_unet.widget.annotation import Annotation
    from napari_unet.widget.engine import Job
    from napari_unet.widget.session import Session

PAUSE_MS = 20
"""Between what napari takes long for, so that the window can move in between."""
LAYER_DTYPE = np.uint16
"""napari shows 16 bits as they are; 32 it has to map, each time."""


class LiveLabels:
    """Labels under construction.

    Parameters
    ----------
    session : Session
        The state the panels share.
    open_annotation : callable
        Returns the labels to write into, made if need be; called once, when there is something
        to write.
    plane : dict of str to int
        Position on the slider axes of the plane that is labelled; empty for all.
    is_new : bool
        The layer is made for this run and goes if the run does not end well.
    """

    def __init__(
        self,
        session: Session,
        open_annotation: Callable[[], Annotation],
        plane: dict[str, int],
        *,
        is_new: bool,
    ) -> None:
        self._session, self._open, self._plane = session, open_annotation, plane
        self._is_new = is_new
        self._annotation: Annotation | None = None
        self._path = ""
        self._labels: np.ndarray | None = None
        self._written: list[tuple[slice, ...]] = []
        self._mode = ""
        self._mask: np.ndarray | None = None
        self._has_checked = False

    @property
    def annotation(self) -> Annotation:
        """The labels that are written into, opened now at the latest."""
        if self._annotation is None:
            self._session.live = self
            self._annotation = self._open()
            layer = self._annotation.labels
            if self._is_new:
                QTimer.singleShot(PAUSE_MS, self._show)
            self._mode = str(layer.mode)
            layer.editable = False
        return self._annotation

    @property
    def is_open(self) -> bool:
        """Whether the layer is still in the viewer, or has yet to be made."""
        made = self._annotation
        return made is None or made.labels in self._session.viewer.layers

    def open_for(self, job: Job) -> None:
        """Close an older layer to the brush now; make a new one in a moment."""
        if self._is_new:
            QTimer.singleShot(PAUSE_MS, lambda: job.is_running and self.annotation)
        else:
            _ = self.annotation

    def owns(self, layer: Any) -> bool:
        """Whether a layer is the one under construction; any new one while that is being made."""
        return self._annotation is None or layer is self._annotation.labels

    def on_progress(self, event: Any) -> None:
        """Show a part that the process has labelled; other events are not for us."""
        if event.kind != "labels" or not self.is_open:
            return
        annotation = self.annotation
        if self._labels is None or event.labels != self._path:
            self._path, self._labels = event.labels, open_array(event.labels)
        self.make_room(event.largest)
        index = tuple(slice(start, stop) for start, stop in as_region(event.region))
        target, checked = self._run_axes(annotation.labels.data)[index], self._checked()
        values = self._labels[index]
        self._written.append(index)
        target[...] = values if checked is None else np.where(checked[index], target, values)
        annotation.labels.refresh()

    def make_room(self, largest: int) -> None:
        """Make sure that the layer, in which nobody has worked yet, can hold a label."""
        layer = self.annotation.labels
        if largest > np.iinfo(layer.data.dtype).max:
            layer.data = layer.data.astype(np.int32)

    def finish(self, labels: np.ndarray) -> None:
        """Put the final labels in place, as the new uncorrected state."""
        annotation, plane = self.annotation, self._plane
        self.make_room(int(labels.max(initial=0)))
        target = annotation.labels.data[self._index()]
        labels = annotation.with_checked(labels.reshape(target.shape), plane)
        if not np.array_equal(target, labels):
            target[...] = labels
            annotation.labels.refresh()
        annotation.edits.restart(None if plane else labels)
        self._let_go()

    def undo(self) -> None:
        """Leave nothing of a run that did not end well."""
        if self._annotation is None or not self.is_open:
            self._session.live = None
            return
        annotation = self._annotation
        self._let_go()
        if self._is_new:
            self._session.viewer.layers.remove(annotation.labels)
        elif self._written:
            labels, base = map(self._run_axes, (annotation.labels.data, annotation.edits.base))
            for index in self._written:
                labels[index] = base[index]
            annotation.labels.refresh()

    def _show(self) -> None:
        """Let a new layer be drawn: napari has made it by now, one thing at a time."""
        if self.is_open:
            self.annotation.labels.visible = True

    def _let_go(self) -> None:
        """Give the layer to the person."""
        layer = self.annotation.labels
        layer.editable = True
        layer.mode = self._mode
        self._session.live = None

    def _index(self) -> tuple[int | slice, ...]:
        """Return the index of the plane in the labels layer."""
        return tuple(self._plane.get(axis, slice(None)) for axis in self.annotation.labels_axes)

    def _run_axes(self, array: np.ndarray) -> np.ndarray:
        """View an array of the layer's shape by the axes of the run: no plane, no channels."""
        axes = self.annotation.labels_axes
        index = tuple(0 if axis == "C" else self._plane.get(axis, slice(None)) for axis in axes)
        view: np.ndarray = array[index]
        return view

    def _checked(self) -> np.ndarray | None:
        """Return which pixels of the run the person has checked (bool); None if none at all."""
        if self._mask is None:
            regions = self.annotation.regions
            mask = np.zeros(self.annotation.labels.data.shape, dtype=bool)
            for plane in regions.planes():
                mask[plane] = regions.mask(plane)
            self._mask = self._run_axes(mask)
            self._has_checked = bool(regions.planes())
        return self._mask if self._has_checked else None
