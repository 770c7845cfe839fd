"""What two models label otherwise, laid over the open image: the difference, or either one.

The plane in view is labelled with both. What comes is a labels layer of its own, which is there to
be looked at: it cannot be painted in, is offered nowhere as labels to correct or export, and goes
when the comparison ends. The labels at hand are hidden meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QButtonGroup, QHBoxLayout, QLabel, QRadioButton, QVBoxLayout, QWidget

from napari_unet.arrays.differences import ADDED, CHANGED, GONE
from napari_unet.widget.annotation import plane_of_image
from napari_unet.widget.layers import (
    METADATA_KEY,
    layer_array,
    place_labels,
    plane_problem,
    shown_index,
    to_layer_shape,
)

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_unet.widget.channels import Subject
    from napari_unet.widget.segment_panel import SegmentPanel
    from napari_unet.widget.session import Session

OFF, DIFFERENCE, OLD, NEW = "off", "difference", "old", "new"
KINDS = {  # colours that the colour-blind tell apart (Okabe and Ito), bright on dark and light
    ADDED: ("added", "#009e73"),
    GONE: ("gone", "#d55e00"),
    CHANGED: ("changed", "#f0e442"),
}
NOT_COMPARED = "This plane was not compared yet: choose again what to show."
OPACITY = 0.7
COMPARISON = "is_comparison"


class Comparison(QWidget):
    """Three ways to look at two models on the open image, and what the colours mean.

    Parameters
    ----------
    session : Session
        The state the panels share.
    segment : SegmentPanel
        Says which image is looked at, with which settings.
    old, new : str
        What names the models to the engine.
    names : tuple of str
        What the person reads of the old and the new one.
    parent : QWidget, optional
        Where it stands.
    """

    shown = Signal(str)

    def __init__(
        self,
        session: Session,
        segment: SegmentPanel,
        old: str,
        new: str,
        names: tuple[str, str],
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._session, self._segment = session, segment
        self._models = {"old": old, "new": new}
        self._arrays: dict[str, np.ndarray] = {}
        self._layer: Labels | None = None
        self._hidden: Labels | None = None
        self._wanted = OFF
        self._plane: tuple[int, ...] = ()
        self._counts = ""
        self.legend = QLabel(objectName="difference_legend", wordWrap=True)
        policy = self.legend.sizePolicy()
        policy.setRetainSizeWhenHidden(True)
        self.legend.setSizePolicy(policy)
        self.legend.setVisible(False)
        self._group = QButtonGroup(self)
        self.buttons: dict[str, QRadioButton] = {}
        row = QHBoxLayout()
        row.setContentsMargins(0, 0, 0, 0)
        for key, text, tooltip in (
            (OFF, "nothing", "Show the labels as they were."),
            (DIFFERENCE, "what differs", "Colour what the new model adds, leaves out or changes."),
            (OLD, names[0], "Show what the old model labels in this plane."),
            (NEW, names[1], "Show what the new model labels in this plane."),
        ):
            button = QRadioButton(text, objectName=f"show_{key}")
            button.setToolTip(tooltip)
            self._group.addButton(button)
            self.buttons[key] = button
            row.addWidget(button)
            button.clicked.connect(lambda _=False, chosen=key: self.show_labels(chosen))
        self.buttons[OFF].setChecked(True)
        row.addStretch(1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(QLabel("<b>Show on the image</b>"))
        layout.addLayout(row)
        layout.addWidget(self.legend)
        session.busy_changed.connect(self._on_busy)
        session.viewer.layers.events.removed.connect(self._on_removed)
        session.viewer.dims.events.current_step.connect(self._on_plane)
        self._on_busy(session.is_busy)

    def show_labels(self, which: str) -> None:
        """Show one of "off", "difference", "old" and "new" on the image."""
        self._wanted = which
        if which == OFF:
            self.clear()
        elif self._layer is not None and self._is_in_view():
            self._put(which)
        else:
            self._take_off()
            self._ask()

    def clear(self) -> None:
        """Take the layer away and show the labels at hand again."""
        self._wanted = OFF
        self.buttons[OFF].setChecked(True)
        self.legend.setVisible(False)
        self._take_off()
        self._show_hidden()

    def end(self) -> None:
        """Clear up for good."""
        self.clear()
        self._session.busy_changed.disconnect(self._on_busy)
        self._session.viewer.layers.events.removed.disconnect(self._on_removed)
        self._session.viewer.dims.events.current_step.disconnect(self._on_plane)

    # -- private ------------------------------------------------------------------------------

    def _take_off(self) -> None:
        """Remove the layer, if it is there."""
        layer, self._layer = self._layer, None
        self._arrays = {}
        if layer is not None and layer in self._session.viewer.layers:
            self._session.viewer.layers.remove(layer)

    def _is_in_view(self) -> bool:
        """Whether the viewer shows the plane that was compared."""
        layer = self._layer
        return layer is not None and shown_index(self._session.viewer, layer) == self._plane

    def _on_plane(self, _: Any = None) -> None:
        """Say so where nothing was compared yet: no colour does not mean no difference there."""
        if self._layer is not None:
            self.legend.setText(self._counts if self._is_in_view() else NOT_COMPARED)
            self.legend.setVisible(self._wanted == DIFFERENCE or not self._is_in_view())

    def _ask(self) -> None:
        """Let both models label the plane in view."""
        subject = self._subject()
        problem = plane_problem(self._session.viewer)
        if subject is None:
            problem = "Choose the image under Segment first."
        if problem is not None or subject is None:
            self._session.tell(problem or "")
            self.clear()
            return
        gathered = subject.gather()
        axes = place_labels(subject.image, subject.axes).axes
        lead = "".join(axis for axis in subject.axes if axis not in "CYX")
        at = dict(zip(subject.axes, shown_index(self._session.viewer, subject.image), strict=False))
        plane = tuple(at.get(axis, 0) for axis in axes[:-2])
        settings = self._segment.settings(gathered.channels, invert=subject.invert)
        started = self._session.start(
            "Labelling with both models",
            "compare",
            lambda result: self._on_compared(subject, {a: at[a] for a in lead}, result),
            arrays={"image": plane_of_image(gathered, axes, plane)},
            old=self._models["old"],
            new=self._models["new"],
            axes="".join(axis for axis in gathered.axes if axis in "CYX"),
            settings=settings.model_dump(mode="json"),
        )
        if started is None:
            self.clear()
        else:
            started.failed.connect(lambda *_: self.clear())
            started.cancelled.connect(self.clear)

    def _subject(self) -> Subject | None:
        """Return the image that is looked at: that of the labels at hand, else the chosen one."""
        labels = self._session.labels
        subject = None if labels is None else self._session.annotation(labels).subject
        if subject is None or subject.image not in self._session.viewer.layers:
            subject = self._segment.subject()
        return subject

    def _on_compared(self, subject: Subject, at: dict[str, int], result: dict[str, Any]) -> None:
        if subject.image not in self._session.viewer.layers or self._wanted == OFF:
            self.clear()
            return
        placement = place_labels(subject.image, subject.axes)
        sizes = dict(zip(subject.axes, layer_array(subject.image).shape, strict=True))
        out_axes = "".join(axis for axis in subject.axes if axis != "C")
        where = tuple(at.get(axis, slice(None)) for axis in out_axes)
        for which in (DIFFERENCE, OLD, NEW):
            whole = np.zeros(
                [sizes[axis] for axis in out_axes], np.int32
            )  # other planes: no memory
            whole[where] = result[which]
            self._arrays[which] = to_layer_shape(whole, placement)
        self._counts = _legend(result)
        self.legend.setText(self._counts)
        active = self._session.viewer.layers.selection.active
        self._hide_labels()
        self._layer = self._session.viewer.add_labels(
            self._arrays[self._wanted],
            name=f"{subject.image.name}: old and new model",
            opacity=OPACITY,
            metadata={METADATA_KEY: {"axes": placement.axes, COMPARISON: True}},
            **placement.kwargs,
        )
        self._plane = shown_index(self._session.viewer, self._layer)
        self._session.viewer.layers.selection.active = active
        self._put(self._wanted)
        self._session.tell(_counted(result))

    def _put(self, which: str) -> None:
        """Fill the layer with one of the three."""
        from napari.utils.colormaps import DirectLabelColormap, label_colormap

        layer = self._layer
        if layer is None:
            return
        layer.data = self._arrays[which]
        if which == DIFFERENCE:
            colors: dict[int | None, str] = {None: "transparent", 0: "transparent"}
            colors |= {number: color for number, (_, color) in KINDS.items()}
            layer.colormap = DirectLabelColormap(color_dict=colors)
        else:
            layer.colormap = label_colormap()
        layer.editable = False
        self._wanted = which
        self.legend.setVisible(which == DIFFERENCE)
        self.buttons[which].setChecked(True)
        self.shown.emit(which)

    def _hide_labels(self) -> None:
        """Hide the labels at hand: under the colours of the comparison nobody can read either."""
        labels = self._session.labels
        if labels is not None and labels.visible and self._hidden is None:
            labels.visible = False
            self._hidden = labels

    def _show_hidden(self) -> None:
        """Show the labels again, unless others have taken their place meanwhile."""
        labels, self._hidden = self._hidden, None
        is_at_hand = self._session.labels is labels
        if labels is not None and is_at_hand:
            labels.visible = True

    def _on_removed(self, event: Any) -> None:
        if event.value is self._layer:
            self._layer = None
            self.clear()

    def _on_busy(self, is_busy: bool) -> None:
        for button in self.buttons.values():
            button.setEnabled(not is_busy)


def is_comparison(layer: Any) -> bool:
    """Say whether a labels layer is only there to be looked at.

    Parameters
    ----------
    layer : napari.layers.Layer
        Any.

    Returns
    -------
    bool
        True for the layer of a :class:`Comparison`.
    """
    return bool(layer.metadata.get(METADATA_KEY, {}).get(COMPARISON))


def _legend(result: dict[str, Any]) -> str:
    """Say what the colours mean, and how often each is there."""
    return "&nbsp;&nbsp; ".join(
        f"<span style='color:{color}'>&#9632;</span> {result[name]} {name}"
        for name, color in KINDS.values()
    )


def _counted(result: dict[str, Any]) -> str:
    """Say in a sentence how much differs."""
    counts = ", ".join(f"{result[name]} {name}" for name, _ in KINDS.values())
    return f"In this plane, by the new model: {counts}."
