"""Next uncertain: one doubtful spot after the other, each shown so that it can be judged.

The engine finds the most telling place; what is vouched for and where the person has been led to
already are left out, until there is nothing else and the tour starts again. Around the spot a box
shows what one more key marks as checked: a few objects, as whole as can be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_unet.arrays.uncertainty import around
from napari_unet.widget.spot_marker import SpotMarker, find_canvas
from napari_unet.widget.view import camera_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Labels
    from qtpy.QtWidgets import QWidget

    from napari_unet.settings import InstanceSettings
    from napari_unet.widget.annotation import Annotation
    from napari_unet.widget.session import Session

BOX_IN_OBJECTS = 6
"""Side of the box to check, in typical diameters of an object ..."""
BOX_PX = (96, 256)
"""... but not less, nor more, in image pixels."""
REACH_PX = 300
"""How far around a spot objects are looked at for their size."""
IN_VIEW = 1.7
"""How much of the image is shown around a spot, in sides of the box ..."""
WELL_IN_VIEW = (1.15, 3.0)
"""... unless the person looks at about as much already."""
CANVAS_PX = 700
"""Size of the canvas on the screen where it is unknown."""


class Box(NamedTuple):
    """Pixels top..bottom-1, left..right-1 of a plane."""

    plane: tuple[int, ...]
    top: int
    left: int
    bottom: int
    right: int


class DoubtTour:
    """Leads the person from one doubtful spot to the next.

    Parameters
    ----------
    session : Session
        The state the panels share.
    panel : QWidget
        In the window with the canvas.
    settings : callable
        Tells how objects are found at present.
    check_key : str
        What the person presses to mark the box around a spot as checked.
    """

    def __init__(
        self,
        session: Session,
        panel: QWidget,
        settings: Callable[[], InstanceSettings],
        check_key: str,
    ) -> None:
        self._session = session
        self._panel = panel
        self._settings = settings
        self._check_key = check_key
        self._annotation: Annotation | None = None
        self._box: Box | None = None
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
        self._session.tell("Looking for the spot that would teach most…")
        self._session.start(
            "Looking for a doubtful spot",
            "uncertain",
            lambda result: self._on_found(annotation, result),
            quiet=True,
            arrays={"vouched": looked_at},
            token=annotation.token,
            settings=self._settings().model_dump(mode="json"),
        )

    def check(self) -> bool:
        """Mark the box around the spot as checked; returns False if there is no spot."""
        annotation, box = self._annotation, self._box
        if annotation is None or box is None:
            return False
        self._hide()
        annotation.regions.add_box(box.plane, box.top, box.left, box.bottom, box.right)
        self._session.viewer.layers.selection.active = annotation.labels
        self._session.tell("Checked: all in the box is the truth now.")
        return True

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
        annotation.labels.events.paint.connect(self._on_paint)
        annotation.regions.changed.connect(self._hide)
        why = result.get("why") or "the network is not sure here"
        self._session.tell(
            f"Doubtful spot {len(annotation.visited)}: {why}. Correct what is wrong in the box, "
            f"then press {self._check_key}."
        )

    def _go_to(self, layer: Labels, index: tuple[float, ...]) -> None:
        """Put a spot into the middle of the canvas, at a zoom at which one can paint."""
        viewer, canvas = self._session.viewer, find_canvas(self._panel)
        self._box = box = _box_around(layer, index)
        lead = index[:-2]
        world = np.array(viewer.dims.point, dtype=float)
        world[-layer.ndim :] = layer.data_to_world(index)
        corners = np.tile(world, (2, 1))
        for corner, at in zip(corners, ((box.top, box.left), (box.bottom, box.right)), strict=True):
            corner[-layer.ndim :] = layer.data_to_world((*lead, *(np.array(at) - 0.5)))
        viewer.dims.set_point(range(viewer.dims.ndim), world)
        camera = camera_of(viewer)
        camera.center = world[list(viewer.dims.displayed)]
        on_screen = CANVAS_PX if canvas is None else min(canvas.width(), canvas.height())
        side = max(box.bottom - box.top, box.right - box.left) * float(layer.scale[-1])
        if not WELL_IN_VIEW[0] <= on_screen / (camera.zoom * side) <= WELL_IN_VIEW[1]:
            camera.zoom = on_screen / (IN_VIEW * side)
        viewer.layers.selection.active = layer
        if canvas is not None:
            caption = f"{self._check_key}: all in this box is checked"
            self._marker.show(canvas, world, corners, caption)

    def _on_paint(self, _: Any = None) -> None:
        """Leave the box while the person corrects what is in it."""
        self._marker.hide_ring()

    def _on_labels(self) -> None:
        if self._annotation is not None and self._session.labels is not self._annotation.labels:
            self._hide()

    def _hide(self, _: Any = None) -> None:
        """Take the mark away with the person's next action."""
        annotation, self._annotation, self._box = self._annotation, None, None
        self._marker.hide()
        if annotation is not None:
            annotation.labels.events.paint.disconnect(self._on_paint)
            annotation.regions.changed.disconnect(self._hide)


def _box_around(layer: Labels, index: tuple[float, ...]) -> Box:
    """Return the box to check around a spot: as large as a few of the objects there."""
    plane = tuple(int(i) for i in index[:-2])
    height, width = layer.data.shape[-2:]
    y, x = int(index[-2]), int(index[-1])
    rows = slice(max(0, y - REACH_PX), y + REACH_PX)
    near = np.asarray(layer.data[plane][rows, max(0, x - REACH_PX) : x + REACH_PX])
    _, areas = np.unique(near[near > 0], return_counts=True)
    areas = np.sort(areas)
    # The object that a labelled pixel typically is in: specks hardly count.
    middle = np.searchsorted(np.cumsum(areas), areas.sum() / 2)
    diameter = 2 * np.sqrt(areas[middle] / np.pi) if areas.size else 0
    side = int(np.clip(BOX_IN_OBJECTS * diameter, *BOX_PX))
    top = int(np.clip(y - side // 2, 0, max(0, height - side)))
    left = int(np.clip(x - side // 2, 0, max(0, width - side)))
    return Box(plane, top, left, min(height, top + side), min(width, left + side))


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
