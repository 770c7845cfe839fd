"""Correct: paint with napari's own tools, say what is checked, go to where it is doubtful."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from magicgui.widgets import CheckBox, Container, PushButton

from napari_unet.errors import LabelsError
from napari_unet.widget.annotation import Annotation
from napari_unet.widget.comparison import is_comparison
from napari_unet.widget.doubt import DoubtTour
from napari_unet.widget.fields import (
    choice,
    column,
    named,
    problem_line,
    row,
    show_problem,
    text_line,
)
from napari_unet.widget.layers import plane_problem, shown_index
from napari_unet.widget.object_tools import (
    CUT_KEY,
    DELETE_KEY,
    MERGE_KEY,
    ObjectTools,
    next_number,
)
from napari_unet.widget.remains import find
from napari_unet.widget.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Labels

    from napari_unet.settings import InstanceSettings

NEXT_KEY = "Shift-N"
CHECK_KEY = "Shift-K"
OBJECT_KEYS = (
    f"With the mouse over an object: {DELETE_KEY} deletes it, {CUT_KEY} cuts it there, "
    f"{MERGE_KEY} on each of two merges them."
)


class CorrectPanel:
    """The third section of the dock.

    Parameters
    ----------
    session : Session
        The state the panels share.
    settings : callable
        Tells how objects are found at present.
    """

    def __init__(self, session: Session, settings: Callable[[], InstanceSettings]) -> None:
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
            "Go to the spot that would teach most, as the network is least sure there; again for "
            f"the next one ({NEXT_KEY}).",
        )
        self.check_spot = named(
            PushButton(text="Check spot"),
            "check_spot",
            f"Mark the box around the doubtful spot as checked ({CHECK_KEY}).",
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
        self.object_keys = named(
            text_line("object_keys", OBJECT_KEYS),
            "object_keys",
            "The keys work on the labels chosen above, in the plane you see; a cut goes the short "
            "way through the object. Ctrl+Z takes back what a key did.",
        )
        self.summary = text_line("corrections", "")
        self.problem = problem_line("labels")
        self.container: Container = column(
            self.labels,
            self.problem,
            row(self.new_object, self.next_uncertain),
            self.object_keys,
            row(self.region, self.whole_plane, self.check_spot),
            self.strokes_count,
            self.summary,
        )
        self._tour = DoubtTour(session, self.container.native, settings, CHECK_KEY)
        self._tools = ObjectTools(session)
        self._connect()

    def _connect(self) -> None:
        session = self._session
        self._bind_keys()
        session.closed.connect(self._free_keys)
        session.layers_changed.connect(self._on_layers)
        session.layer_chosen.connect(self._on_layer_chosen)
        self.labels.changed.connect(lambda layer: session.use_labels(layer))
        self.new_object.changed.connect(self.start_object)
        self.region.changed.connect(self.mark_region)
        self.whole_plane.changed.connect(self.check_plane)
        self.next_uncertain.changed.connect(self.go_to_uncertain)
        self.check_spot.changed.connect(self.check_doubtful)
        self.strokes_count.changed.connect(self._on_strokes_count)
        session.labels_changed.connect(self._show)
        session.busy_changed.connect(self._show)
        for layer in self._layers():
            if find(layer) is not None:  # of an earlier dock: Segment is to know of it, too
                session.annotation(layer)
        self._on_layers()

    # -- actions ------------------------------------------------------------------------------

    def start_object(self) -> None:
        """Take the brush and a number no object has."""
        layer = self._session.labels
        if layer is None:
            return
        try:
            layer.selected_label = next_number(layer)
        except LabelsError as error:
            self._session.tell(str(error), warn=True)
            return
        self._session.viewer.layers.selection.active = layer
        layer.mode = "paint"

    def mark_region(self) -> None:
        """Let the person draw a checked region."""
        annotation = self._with_plane()
        if annotation is not None:
            annotation.regions.draw()
            self._session.tell("Draw a box around what you have checked.")

    def check_plane(self) -> None:
        """Mark the plane that is shown as checked."""
        annotation = self._with_plane()
        if annotation is not None:
            plane = shown_index(self._session.viewer, annotation.labels)
            if not annotation.regions.check_plane(plane):
                self._session.tell("This plane is checked already.")
            self._session.viewer.layers.selection.active = annotation.labels

    def go_to_uncertain(self) -> None:
        """Ask for the most doubtful spot that was not looked at yet, and go there."""
        annotation = self.annotation()
        if annotation is None or annotation.token is None:
            self._session.tell("Press Segment first: doubt is read from its probabilities.")
        elif not self._session.is_busy:
            self._tour.go_on(annotation)

    def check_doubtful(self) -> None:
        """Mark the box around the doubtful spot that is shown as checked."""
        if not self._tour.check():
            self._session.tell(f"Go to a doubtful spot first ({NEXT_KEY}).")

    def annotation(self) -> Annotation | None:
        """Return the corrections of the labels at hand."""
        layer = self._session.labels
        return None if layer is None else self._session.annotation(layer)

    # -- private ------------------------------------------------------------------------------

    def _keys(self) -> dict[str, Callable[[], None]]:
        """List what the keys of the viewer do while the dock is open."""
        return {
            NEXT_KEY: self.go_to_uncertain,
            CHECK_KEY: self.check_doubtful,
            DELETE_KEY: self._tools.delete,
            MERGE_KEY: self._tools.merge,
            CUT_KEY: self._tools.cut,
        }

    def _bind_keys(self) -> None:
        for key, action in self._keys().items():
            self._session.viewer.bind_key(key, lambda _, do=action: do(), overwrite=True)

    def _free_keys(self) -> None:
        for key in self._keys():
            self._session.viewer.bind_key(key, None, overwrite=True)

    def _with_plane(self) -> Annotation | None:
        """Return the corrections at hand if the viewer shows a plane; else say why not."""
        problem = plane_problem(self._session.viewer)
        if problem is not None:
            self._session.tell(problem)
        return None if problem else self.annotation()

    def _layers(self) -> list[Labels]:
        from napari.layers import Labels

        layers = self._session.viewer.layers
        return [la for la in layers if isinstance(la, Labels) and not is_comparison(la)]

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

    def _show(self, _: Any = None) -> None:
        """Bring all controls in step with the labels at hand."""
        layer, busy = self._session.labels, self._session.is_busy
        with self.labels.changed.blocked():
            self.labels.reset_choices()
            if layer is not None and layer in self._layers():
                self.labels.value = layer
        problem = None if self._session.live is not None else _labels_problem(layer)
        wrong = show_problem(self.problem, problem) or layer is None
        annotation = None if wrong else self.annotation()
        for control in (self.new_object, self.region, self.whole_plane, self.strokes_count):
            control.enabled = annotation is not None
        self.next_uncertain.enabled = self.check_spot.enabled = (
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
