"""Next uncertain: one doubtful spot after the other, each shown so that it can be judged.

The engine finds the most doubtful place; what is vouched for and where the person has been led to
already are left out, until there is nothing else and the tour starts again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.arrays.uncertainty import around
from napari_unet.widget.spot_marker import SpotMarker, find_canvas
from napari_unet.widget.view import camera_of

if TYPE_CHECKING:
    from napari.layers import Labels
    from qtpy.QtWidgets import QWidget

    from napari_unet.widget.annotation import Annotation
    from napari_unet.widget.session import Session

JUMP_WIDTH_PX = 256
"""How much of the image is shown around a doubtful spot, in image pixels ..."""
WIDTHS_PX = (64, 400)
"""... unless the person looks at about as much already."""
CANVAS_PX = 700
"""Size of the canvas on the screen where it is unknown."""


class DoubtTour:
    """Leads the person from one doubtful spot to the next.

    Parameters
    ----------
    session : Session
        The state the panels share.
    panel : QWidget
        In the window with the canvas.
    """

    def __init__(self, session: Session, panel: QWidget) -> None:
        self._session = session
        self._panel = panel
        self._annotation: Annotation | None = None
        self._marker = SpotMarker(session.viewer)
        session.busy_changed.connect(lambda is_busy: self._hide() if is_busy else None)
        session.closed.connect(self._hide)
        session.labels_changed.connect(self._on_labels)

    def go_on(self, annotation: Annotation) -> None:
        """Ask for the next spot of a labelling whose probability is kept, and go there."""
        vouched = _vouched_of_token(annotation)
        looked_at = vouched | around(annotation.visited, vouched.shape)
        if looked_at.all():
            annotation.visited.clear()
            looked_at = vouched
        self._session.start(
            "Looking for a doubtful spot",
            "uncertain",
            lambda result: self._on_found(annotation, result),
            quiet=True,
            arrays={"vouched": looked_at},
            token=annotation.token,
        )

    def _on_found(self, annotation: Annotation, result: dict[str, Any]) -> None:
        if annotation.labels not in self._session.viewer.layers:
            return
        if result["position"] is None:
            self._session.tell("Nothing is left to check: all of it is vouched for.")
            return
        position = tuple(int(i) for i in result["position"])
        annotation.visited.append(position)
        self._annotation = annotation
        self._go_to(annotation.labels, _layer_index(annotation, position))
        annotation.labels.events.paint.connect(self._hide)
        annotation.regions.changed.connect(self._hide)
        self._session.tell(
            f"Doubtful spot {len(annotation.visited)}: check it, then mark it as a region."
        )

    def _go_to(self, layer: Labels, index: tuple[float, ...]) -> None:
        """Put a spot into the middle of the canvas, at a zoom at which one can paint."""
        viewer, canvas = self._session.viewer, find_canvas(self._panel)
        world = np.array(viewer.dims.point, dtype=float)
        world[-layer.ndim :] = layer.data_to_world(index)
        viewer.dims.set_point(range(viewer.dims.ndim), world)
        camera = camera_of(viewer)
        camera.center = world[list(viewer.dims.displayed)]
        on_screen = CANVAS_PX if canvas is None else min(canvas.width(), canvas.height())
        pixel = float(layer.scale[-1])
        if not WIDTHS_PX[0] <= on_screen / (camera.zoom * pixel) <= WIDTHS_PX[1]:
            width = min(JUMP_WIDTH_PX, max(layer.data.shape[-2:]))
            camera.zoom = on_screen / (width * pixel)
        viewer.layers.selection.active = layer
        if canvas is not None:
            self._marker.show(canvas, world)

    def _on_labels(self) -> None:
        if self._annotation is not None and self._session.labels is not self._annotation.labels:
            self._hide()

    def _hide(self, _: Any = None) -> None:
        """Take the mark away with the person's next action."""
        annotation, self._annotation = self._annotation, None
        self._marker.hide()
        if annotation is not None:
            annotation.labels.events.paint.disconnect(self._hide)
            annotation.regions.changed.disconnect(self._hide)


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


def _layer_index(annotation: Annotation, position: tuple[int, ...]) -> tuple[float, ...]:
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
