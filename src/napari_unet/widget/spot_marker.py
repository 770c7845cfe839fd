"""A ring on the canvas around one spot: painted by Qt above the picture, so it is no layer.

It can be neither saved, exported nor counted, and takes no mouse click. It follows the camera and
is gone as soon as the viewer shows another plane.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QPointF, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen
from qtpy.QtWidgets import QMainWindow, QWidget

from napari_unet.widget.view import camera_of

if TYPE_CHECKING:
    from napari.components import ViewerModel

RADIUS_PX = 26
RING_COLOR = QColor("#00e5ff")
SHADE_COLOR = QColor(0, 0, 0, 160)


class Ring(QWidget):
    """The ring itself.

    Parameters
    ----------
    canvas : QWidget
        What it is drawn above.
    """

    def __init__(self, canvas: QWidget) -> None:
        super().__init__(canvas, objectName="uncertain_spot")
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setFixedSize(2 * RADIUS_PX + 6, 2 * RADIUS_PX + 6)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw a bright ring with a dark rim, to be seen on any image."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        middle = QPointF(self.width() / 2, self.height() / 2)
        for color, width in ((SHADE_COLOR, 5.0), (RING_COLOR, 2.0)):
            painter.setPen(QPen(color, width))
            painter.drawEllipse(middle, RADIUS_PX, RADIUS_PX)
        painter.end()


class SpotMarker:
    """Shows one spot of a viewer until it is hidden or out of view.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        The viewer.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._ring: Ring | None = None
        self._world: np.ndarray | None = None

    def show(self, canvas: QWidget, world: np.ndarray) -> None:
        """Mark a point of the world, one coordinate for each axis of the viewer."""
        self.hide()
        self._world = np.asarray(world, dtype=float)
        self._ring = Ring(canvas)
        self._camera.events.connect(self._follow)
        self._viewer.dims.events.connect(self._on_dims)
        self._follow()

    def hide(self) -> None:
        """Take the mark away."""
        ring, self._ring = self._ring, None
        if ring is None:
            return
        self._camera.events.disconnect(self._follow)
        self._viewer.dims.events.disconnect(self._on_dims)
        try:
            ring.hide()
            ring.deleteLater()
        except RuntimeError:  # it went with the window
            return

    @property
    def _camera(self) -> Any:
        return camera_of(self._viewer)

    def _follow(self, event: Any = None) -> None:
        """Put the ring where the spot is on the canvas now."""
        if self._ring is None or self._world is None:
            return
        dims, camera = self._viewer.dims, self._camera
        if dims.ndisplay != 2:
            self.hide()
            return
        offset = self._world[list(dims.displayed)] - np.asarray(camera.center)[-2:]
        down, right = offset * camera.zoom * _directions(camera)
        try:
            canvas = self._ring.parentWidget()
            self._ring.move(
                round(canvas.width() / 2 + right - self._ring.width() / 2),
                round(canvas.height() / 2 + down - self._ring.height() / 2),
            )
            self._ring.show()
        except RuntimeError:  # the canvas has gone
            self._ring = None

    def _on_dims(self, event: Any) -> None:
        """Leave with the plane the spot is in; other changes only move it."""
        shown, spot = np.asarray(self._viewer.dims.point), self._world
        sliders = list(self._viewer.dims.not_displayed)
        if spot is None or len(spot) != len(shown):
            self.hide()
        elif np.allclose(shown[sliders], spot[sliders]):
            self._follow()
        else:
            self.hide()


def find_canvas(panel: QWidget) -> QWidget | None:
    """Return the canvas of the window a panel is docked in, or None if it is in none."""
    from qtpy.QtOpenGLWidgets import QOpenGLWidget

    window: QWidget | None = panel
    while window is not None and not isinstance(window, QMainWindow):
        window = window.parentWidget()
    centre = None if window is None else window.centralWidget()
    return None if centre is None else centre.findChild(QOpenGLWidget)


def _directions(camera: Any) -> np.ndarray:
    """Return 1 or -1 for the axis that runs down and the one that runs right on the screen."""
    vertical, horizontal = getattr(camera, "orientation2d", ("down", "right"))
    return np.array([-1 if vertical == "up" else 1, -1 if horizontal == "left" else 1])
