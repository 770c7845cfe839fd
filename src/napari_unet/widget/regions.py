"""Region boxes: the areas whose labels the person vouches for, on a shapes layer.

Everything inside a shape is checked: 0 there is background. A whole plane is checked by a
rectangle around it, so that there is one kind of mark to see, move and delete.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QObject, Signal

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels, Shapes

EDGE_COLOR = "#ffd33d"


class Regions(QObject):
    """The checked regions of one labels layer.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        Where the shapes layer is shown.
    labels : napari.layers.Labels
        The layer whose labels are vouched for; the shapes lie exactly on it.
    """

    changed = Signal()

    def __init__(self, viewer: ViewerModel, labels: Labels, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._labels = labels
        self._layer: Shapes | None = None
        self._find_earlier()

    @property
    def layer(self) -> Shapes | None:
        """The shapes layer, or None if there is none or the person deleted it."""
        return self._layer if self._layer in self._viewer.layers else None

    @property
    def count(self) -> int:
        """How many regions are marked."""
        return 0 if self.layer is None else len(self.layer.data)

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

    def check_plane(self, plane: tuple[int, ...]) -> None:
        """Mark one whole plane as checked."""
        self.add_box(plane, 0, 0, *self._labels.data.shape[-2:])

    def planes(self) -> set[tuple[int, ...]]:
        """Return the planes (indices of the slider axes) that have a checked region."""
        lead_shape = self._labels.data.shape[:-2]
        found = {_plane_of(corners) for corners in self._outlines()}
        return {p for p in found if all(0 <= i < n for i, n in zip(p, lead_shape, strict=True))}

    def mask(self, plane: tuple[int, ...]) -> np.ndarray:
        """Return what is checked in one plane: bool, shape (Y, X), True inside any shape."""
        shape = self._labels.data.shape[-2:]
        mask = np.zeros(shape, dtype=bool)
        kinds = [] if self.layer is None else self.layer.shape_type
        for corners, kind in zip(self._outlines(), kinds, strict=True):
            if _plane_of(corners) == plane:
                _fill(mask, corners[:, -2:], kind)
        return mask

    def adopt(self, older: Regions) -> None:
        """Take over the shapes layer of an older labelling of the same image."""
        if older.layer is not None:
            layer = older.layer
            older.close()
            self._follow(layer)
            layer.name = f"{self._labels.name} checked"
            self.changed.emit()

    def close(self) -> None:
        """Stop following the shapes layer; it stays in the viewer."""
        if self._layer is not None:
            self._layer.events.set_data.disconnect(self._on_set_data)
            self._layer = None

    def _find_earlier(self) -> None:
        """Go on with the regions that an earlier dock has left in the viewer."""
        from napari.layers import Shapes

        name = f"{self._labels.name} checked"
        layer = self._viewer.layers[name] if name in self._viewer.layers else None
        if isinstance(layer, Shapes) and layer.ndim == self._labels.ndim:
            self._follow(layer)

    def _outlines(self) -> list[np.ndarray]:
        return [] if self.layer is None else [np.asarray(c, dtype=float) for c in self.layer.data]

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
            self._follow(layer)
        return self._layer

    def _follow(self, layer: Shapes) -> None:
        self._layer = layer
        layer.events.set_data.connect(self._on_set_data)

    def _on_set_data(self, event: object = None) -> None:
        self.changed.emit()


def _plane_of(corners: np.ndarray) -> tuple[int, ...]:
    """Return the plane a shape lies in, by its first corner."""
    return tuple(round(float(v)) for v in corners[0][:-2])


def _fill(mask: np.ndarray, outline: np.ndarray, kind: str) -> None:
    """Set the pixels of a mask whose centres lie inside an outline (Y, X)."""
    if kind == "rectangle" and _is_upright(outline):
        y0, x0 = np.clip(np.ceil(outline.min(axis=0)), 0, mask.shape).astype(int)
        y1, x1 = np.clip(np.floor(outline.max(axis=0)) + 1, 0, mask.shape).astype(int)
        mask[y0:y1, x0:x1] = True
        return
    from skimage.draw import polygon

    if kind == "ellipse":  # napari gives the corners of its box
        centre, a, b = outline.mean(axis=0), outline[1] - outline[0], outline[2] - outline[1]
        turn = np.linspace(0, 2 * np.pi, 90, endpoint=False)[:, None]
        outline = centre + np.cos(turn) * a / 2 + np.sin(turn) * b / 2
    mask[polygon(outline[:, 0], outline[:, 1], mask.shape)] = True


def _is_upright(outline: np.ndarray) -> bool:
    """Tell whether a rectangle's sides run along the axes."""
    return all(len(np.unique(np.round(outline[:, k], 3))) <= 2 for k in range(2))
