"""Correct: paint with napari's own tools, say what is checked, go to where it is doubtful."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import CheckBox, Container, PushButton

from napari_unet.widget.annotation import Annotation
from napari_unet.widget.fields import (
    choice,
    column,
    named,
    problem_line,
    row,
    show_problem,
    text_line,
)
from napari_unet.widget.layers import shown_index
from napari_unet.widget.session import Session

if TYPE_CHECKING:
    from napari.layers import Labels

NEXT_KEY = "Shift-N"
JUMP_WIDTH_PX = 256
"""How much of the image is shown around a doubtful spot, in image pixels ..."""
SCREEN_PX = 700
"""... on about this many pixels of the screen."""


class CorrectPanel:
    """The third section of the dock.

    Parameters
    ----------
    session : Session
        The state the panels share.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.labels = choice(
            "labels", "Labels", "The labels layer to correct, learn from and export.", self._layers
        )
        self.new_object = named(
            PushButton(text="New object"),
            "new_object",
            "Take the next free number and the brush, to paint an object that was missed.",
        )
        self.next_uncertain = named(
            PushButton(text="Next uncertain"),
            "next_uncertain",
            f"Go to the spot where the network is least sure ({NEXT_KEY}).",
        )
        self.region = named(
            PushButton(text="Mark region"),
            "region",
            "Draw a box. Everything in it is then checked: what is 0 there is background.",
        )
        self.whole_plane = named(
            PushButton(text="Whole plane"),
            "whole_plane",
            "Mark all of the plane you see as checked.",
        )
        self.strokes_count = named(
            CheckBox(text="Painted strokes count, too", label="", value=True),
            "strokes_count",
            "Learn from painted pixels even where they lie outside of a checked region.",
        )
        self.summary = text_line("corrections", "")
        self.problem = problem_line("labels")
        self.container: Container = column(
            self.labels,
            self.problem,
            row(self.new_object, self.next_uncertain),
            row(self.region, self.whole_plane),
            self.strokes_count,
            self.summary,
        )
        self._connect()

    def _connect(self) -> None:
        session = self._session
        session.layers_changed.connect(self._on_layers)
        session.layer_chosen.connect(self._on_layer_chosen)
        self.labels.changed.connect(lambda layer: session.use_labels(layer))
        self.new_object.changed.connect(self.start_object)
        self.region.changed.connect(self.mark_region)
        self.whole_plane.changed.connect(self.check_plane)
        self.next_uncertain.changed.connect(self.go_to_uncertain)
        self.strokes_count.changed.connect(self._on_strokes_count)
        session.labels_changed.connect(self._show)
        session.busy_changed.connect(self._show)
        self._on_layers()

    # -- actions ------------------------------------------------------------------------------

    def start_object(self) -> None:
        """Take the brush and a number no object has."""
        layer = self._session.labels
        if layer is not None:
            number = int(np.max(layer.data, initial=0)) + 1
            if number > np.iinfo(layer.data.dtype).max:
                self._session.tell(
                    f"These labels are {layer.data.dtype} and have no number left. Convert the "
                    "layer to int32 (right click > Convert data type).",
                    warn=True,
                )
                return
            layer.selected_label = number
            self._session.viewer.layers.selection.active = layer
            layer.mode = "paint"

    def mark_region(self) -> None:
        """Let the person draw a checked region."""
        annotation = self.annotation()
        if annotation is not None:
            annotation.regions.draw()
            self._session.tell("Draw a box around what you have checked.")

    def check_plane(self) -> None:
        """Mark the plane that is shown as checked."""
        annotation = self.annotation()
        if annotation is not None:
            plane = shown_index(self._session.viewer, annotation.labels)
            annotation.regions.check_plane(plane)
            self._session.viewer.layers.selection.active = annotation.labels

    def go_to_uncertain(self) -> None:
        """Ask for the most doubtful spot that is not vouched for, and go there."""
        annotation = self.annotation()
        if annotation is None or annotation.token is None:
            self._session.tell("Press Segment first: doubt is read from its probabilities.")
            return
        self._session.start(
            "Looking for a doubtful spot",
            "uncertain",
            lambda result: self._on_uncertain(annotation, result),
            quiet=True,
            arrays={"vouched": _vouched_of_token(annotation)},
            token=annotation.token,
        )

    def annotation(self) -> Annotation | None:
        """Return the corrections of the labels at hand."""
        layer = self._session.labels
        return None if layer is None else self._session.annotation(layer)

    # -- private ------------------------------------------------------------------------------

    def _layers(self) -> list[Labels]:
        from napari.layers import Labels

        return [la for la in self._session.viewer.layers if isinstance(la, Labels)]

    def _on_layers(self) -> None:
        self.labels.reset_choices()
        if self._session.labels is None and self.labels.value is not None:
            self._session.use_labels(self.labels.value)
        self._show()

    def _on_layer_chosen(self, layer: Any) -> None:
        """Follow the layer list: the labels the person selects, or those of the image."""
        if self._session.is_busy:
            return
        of_image = [
            a.labels
            for a in self._session.annotations()
            if a.subject is not None and a.subject.image is layer and a.labels in self._layers()
        ]
        if layer in self._layers():
            self._session.use_labels(layer)
        elif of_image:
            self._session.use_labels(of_image[-1])

    def _on_strokes_count(self, value: bool) -> None:
        annotation = self.annotation()
        if annotation is not None:
            annotation.strokes_count = value
            self._session.labels_changed.emit()

    def _on_uncertain(self, annotation: Annotation, result: dict[str, Any]) -> None:
        """Show the spot in the middle of the canvas, at a zoom at which one can paint."""
        position = result["position"]
        if position is None:
            self._session.tell("Nothing is left to check: all of it is vouched for.")
            return
        layer, viewer = annotation.labels, self._session.viewer
        index = _layer_index(annotation, position)
        world = layer.data_to_world(index)
        viewer.dims.set_point(range(viewer.dims.ndim - layer.ndim, viewer.dims.ndim), world)
        camera = getattr(viewer, "scene", viewer).camera  # napari 0.9 moved it
        camera.center = world[-2:]
        camera.zoom = SCREEN_PX / (JUMP_WIDTH_PX * float(layer.scale[-1]))
        viewer.layers.selection.active = layer
        self._session.tell("Check this spot, then mark it as a region.")

    def _show(self, _: Any = None) -> None:
        """Bring all controls in step with the labels at hand."""
        layer, busy = self._session.labels, self._session.is_busy
        with self.labels.changed.blocked():
            self.labels.reset_choices()
            if layer is not None and layer in self._layers():
                self.labels.value = layer
        wrong = show_problem(self.problem, _labels_problem(layer))
        annotation = None if wrong else self.annotation()
        for control in (self.new_object, self.region, self.whole_plane, self.strokes_count):
            control.enabled = annotation is not None
        self.next_uncertain.enabled = (
            annotation is not None and annotation.token is not None and not busy
        )
        self.summary.value = "" if annotation is None else f"{annotation.describe()}."
        if annotation is not None:
            with self.strokes_count.changed.blocked():
                self.strokes_count.value = annotation.strokes_count


def _labels_problem(layer: Labels | None) -> str | None:
    """Say why a labels layer cannot be corrected."""
    if layer is None:
        return "Press Segment to get labels, or add a labels layer."
    if layer.multiscale:
        return "A multiscale labels layer cannot be painted in. Choose another."
    if layer.ndim < 2:
        return "These labels have no plane. Choose another layer."
    return None


def _vouched_of_token(annotation: Annotation) -> np.ndarray:
    """Return what is vouched for, over the area whose probability is kept."""
    vouched = np.zeros(np.shape(annotation.labels.data), dtype=bool)
    for plane in annotation.planes():
        vouched[plane] = annotation.vouched(plane)
    index = tuple(
        annotation.token_plane.get(axis, 0 if axis == "C" else slice(None))
        for axis in annotation.labels_axes
    )
    return vouched[index]


def _layer_index(annotation: Annotation, position: list[int]) -> tuple[float, ...]:
    """Turn a position in the kept probability into an index of the labels layer."""
    rest = iter(position)
    return tuple(
        float(annotation.token_plane[axis])
        if axis in annotation.token_plane
        else 0.0
        if axis == "C"
        else float(next(rest))
        for axis in annotation.labels_axes
    )
