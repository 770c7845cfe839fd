"""Region boxes: the areas whose labels the person vouches for, on a shapes layer.

Everything inside a shape is checked: 0 there is background. A whole plane is checked by a
rectangle around it, so that there is one kind of mark to see, move and delete. A shape counts if
it encloses pixels of one plane; lines enclose nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels, Shapes

EDGE_COLOR = "#ffd33d"
AREA_KINDS = {"rectangle", "ellipse", "polygon"}
LINE_REFUSED = "A line encloses nothing, so it does not count as checked. Draw a box or a polygon."
ACROSS_REFUSED = (
    "A shape that crosses several planes does not count as checked. Draw it on one plane, with y "
    "and x in view."
)
EMPTY_REFUSED = "A shape that holds no pixel of the image does not count as checked."


@dataclass(frozen=True)
class Area:
    """The pixels a shape encloses: a plane, a box in it and, unless it is all, which of the box."""

    plane: tuple[int, ...]
    box: tuple[slice, slice]
    inside: np.ndarray | None

    @property
    def footprint(self) -> tuple[Any, ...]:
        """What two areas have in common that check the same pixels."""
        (rows, columns), inside = self.box, self.inside
        bounds = (rows.start, rows.stop, columns.start, columns.stop)
        return (self.plane, bounds, b"" if inside is None else np.packbits(inside).tobytes())


class Regions(QObject):
    """The checked regions of one labels layer.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        Where the shapes layer is shown.
    labels : napari.layers.Labels
        The layer whose labels are vouched for; the shapes lie exactly on it.
    layer : napari.layers.Shapes, optional
        Regions that an earlier dock has left in the viewer; by default looked for by their name.
    """

    changed = Signal()
    refused = Signal(str)

    def __init__(
        self,
        viewer: ViewerModel,
        labels: Labels,
        parent: QObject | None = None,
        *,
        layer: Shapes | None = None,
    ) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._labels = labels
        self._layer: Shapes | None = None
        self._areas: dict[Any, Area | None] = {}
        self._told: set[str] = set()
        viewer.layers.events.removed.connect(self._on_removed)
        if layer is not None and layer in viewer.layers:
            self._follow(layer)
        else:
            self._find_earlier()

    @property
    def layer(self) -> Shapes | None:
        """The shapes layer, or None if there is none or the person deleted it."""
        return self._layer if self._layer in self._viewer.layers else None

    @property
    def count(self) -> int:
        """How many different areas are checked."""
        return len(self.areas())

    def draw(self) -> Shapes:
        """Let the person draw the next region: the layer is selected in rectangle mode."""
        layer = self._ensure_layer()
        self._viewer.layers.selection.active = layer
        layer.mode = "add_rectangle"
        return layer

    def add_box(self, plane: tuple[int, ...], y0: int, x0: int, y1: int, x1: int) -> None:
        """Mark the pixels y0..y1-1, x0..x1-1 of a plane (index of the slider axes) as checked."""
        corners = np.array([[y0, x0], [y0, x1], [y1, x1], [y1, x0]]) - 0.5
        lead = np.tile(np.asarray(plane, dtype=float), (4, 1)).reshape(4, -1)
        self._ensure_layer().add_rectangles(np.hstack([lead, corners]), edge_color=EDGE_COLOR)

    def check_plane(self, plane: tuple[int, ...]) -> bool:
        """Mark one whole plane as checked; returns False if it was already."""
        if plane in self.planes() and self.mask(plane).all():
            return False
        self.add_box(plane, 0, 0, *self._labels.data.shape[-2:])
        return True

    def areas(self) -> list[Area]:
        """List what the shapes enclose, each area once; what holds no pixel is left out."""
        shape, known, found = self._labels.data.shape, self._areas, {}
        for corners, kind in self._shapes():
            key = (kind, corners.tobytes(), shape)
            found[key] = known[key] if key in known else _area(corners, kind, shape)
        self._areas = found
        return list({area.footprint: area for area in found.values() if area}.values())

    def planes(self) -> set[tuple[int, ...]]:
        """Return the planes (indices of the slider axes) that have a checked region."""
        return {area.plane for area in self.areas()}

    def mask(self, plane: tuple[int, ...]) -> np.ndarray:
        """Return what is checked in one plane: bool, shape (Y, X), True inside any shape."""
        mask = np.zeros(self._labels.data.shape[-2:], dtype=bool)
        for area in self.areas():
            if area.plane == plane:
                mask[area.box] |= True if area.inside is None else area.inside
        return mask

    def adopt(self, older: Regions) -> None:
        """Take over the shapes layer of an older labelling of the same image."""
        layer = older.layer
        if layer is not None:
            older.release()
            self._follow(layer)
            layer.name = f"{self._labels.name} checked"
            self.changed.emit()

    def release(self) -> None:
        """Let go of the shapes layer; it stays in the viewer."""
        if self._layer is not None:
            self._layer.events.set_data.disconnect(self._on_set_data)
            self._layer.events.data.disconnect(self._on_data)
            self._layer = None

    def close(self) -> None:
        """Stop following the viewer."""
        self.release()
        self._viewer.layers.events.removed.disconnect(self._on_removed)

    def _find_earlier(self) -> None:
        """Go on with the regions that an earlier dock has left in the viewer."""
        from napari.layers import Shapes

        name = f"{self._labels.name} checked"
        layer = self._viewer.layers[name] if name in self._viewer.layers else None
        if isinstance(layer, Shapes) and layer.ndim == self._labels.ndim:
            self._follow(layer)

    def _shapes(self) -> list[tuple[np.ndarray, str]]:
        """List corners and kind of each shape."""
        layer = self.layer
        if layer is None:
            return []
        corners = [np.asarray(c, dtype=float) for c in layer.data]
        return list(zip(corners, map(str, layer.shape_type), strict=True))

    def _ensure_layer(self) -> Shapes:
        if self.layer is None:
            labels = self._labels
            layer = self._viewer.add_shapes(
                ndim=labels.ndim,
                name=f"{labels.name} checked",
                edge_color=EDGE_COLOR,
                face_color="transparent",
                edge_width=max(1.0, min(labels.data.shape[-2:]) / 250),
                scale=labels.scale,
                translate=labels.translate,
                rotate=labels.rotate,
                shear=labels.shear,
                affine=labels.affine.affine_matrix,
                units=labels.units,
                axis_labels=labels.axis_labels,
            )
            self.release()
            self._follow(layer)
        return self._layer

    def _follow(self, layer: Shapes) -> None:
        self._layer = layer
        layer.events.set_data.connect(self._on_set_data)
        layer.events.data.connect(self._on_data)

    def _on_set_data(self, event: object = None) -> None:
        self.changed.emit()

    def _on_data(self, event: Any) -> None:
        """Say, once for each reason, why a shape that was finished does not count."""
        if getattr(event, "action", "") not in ("added", "changed"):
            return
        shape = self._labels.data.shape
        reasons = {_why_refused(corners, kind, shape) for corners, kind in self._shapes()}
        for reason in sorted(reasons - self._told - {""}):
            self._told.add(reason)
            self.refused.emit(reason)

    def _on_removed(self, event: Any) -> None:
        if event.value is self._layer:
            self.changed.emit()


def _why_refused(corners: np.ndarray, kind: str, shape: tuple[int, ...]) -> str:
    """Say why a shape checks nothing; empty if it does."""
    if kind not in AREA_KINDS:
        return LINE_REFUSED
    if _plane_of(corners) is None:
        return ACROSS_REFUSED
    return "" if _area(corners, kind, shape) else EMPTY_REFUSED


def _plane_of(corners: np.ndarray) -> tuple[int, ...] | None:
    """Return the plane a shape lies in, or None if its corners are in several."""
    planes = np.unique(np.round(corners[:, :-2]).astype(int), axis=0)
    return tuple(planes[0].tolist()) if len(planes) == 1 else None


def _area(corners: np.ndarray, kind: str, shape: tuple[int, ...]) -> Area | None:
    """Return what a shape encloses of labels of a given shape, or None if that is nothing."""
    plane = _plane_of(corners)
    if kind not in AREA_KINDS or plane is None:
        return None
    if not all(0 <= i < n for i, n in zip(plane, shape[:-2], strict=True)):
        return None
    outline = _outline(corners[:, -2:], kind)
    # A pixel is inside if its centre is.
    y0, x0 = np.clip(np.ceil(outline.min(axis=0)), 0, shape[-2:]).astype(int).tolist()
    y1, x1 = np.clip(np.floor(outline.max(axis=0)) + 1, 0, shape[-2:]).astype(int).tolist()
    if y1 <= y0 or x1 <= x0:
        return None
    box = (slice(y0, y1), slice(x0, x1))
    if kind == "rectangle" and _is_upright(outline):
        return Area(plane, box, None)
    from skimage.draw import polygon

    inside = np.zeros((y1 - y0, x1 - x0), dtype=bool)
    inside[polygon(outline[:, 0] - y0, outline[:, 1] - x0, inside.shape)] = True
    return Area(plane, box, inside) if inside.any() else None


def _outline(corners: np.ndarray, kind: str) -> np.ndarray:
    """Return the outline (Y, X) of a shape; of an ellipse napari gives the corners of its box."""
    if kind != "ellipse":
        return corners
    centre, a, b = corners.mean(axis=0), corners[1] - corners[0], corners[2] - corners[1]
    turn = np.linspace(0, 2 * np.pi, 90, endpoint=False)[:, None]
    return centre + np.cos(turn) * a / 2 + np.sin(turn) * b / 2


def _is_upright(outline: np.ndarray) -> bool:
    """Tell whether a rectangle's sides run along the axes."""
    return all(len(np.unique(np.round(outline[:, k], 3))) <= 2 for k in range(2))
