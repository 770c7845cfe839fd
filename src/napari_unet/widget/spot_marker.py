"""A ring on the canvas around one spot, and a box around what would be checked with it.

Both are painted by Qt above the picture, so they are no layer: they can be neither saved, exported
nor counted, and take no mouse click. They follow the camera and are gone as soon as the viewer
shows another plane.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen
from qtpy.QtWidgets import QMainWindow, QWidget

from napari_unet.widget.view import camera_of

if TYPE_CHECKING:
    from napari.components import ViewerModel

RADIUS_PX = 26
RING_COLOR = QColor("#00e5ff")
SHADE_COLOR = QColor(0, 0, 0, 160)


class Mark(QWidget):
    """The ring and the box, over the whole canvas.

    Parameters
    ----------
    canvas : QWidget
        What they are drawn above.
    """

    def __init__(self, canvas: QWidget) -> None:
        super().__init__(canvas, objectName="uncertain_spot")
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.middle = QPointF()
        self.box = QRectF()
        self.caption = ""
        self.is_ringed = True

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw bright lines with a dark rim, to be seen on any image."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        for color, width, style in (
            (SHADE_COLOR, 4.0, Qt.PenStyle.SolidLine),
            (RING_COLOR, 2.0, Qt.PenStyle.DashLine),
        ):
            painter.setPen(QPen(color, width, style))
            painter.drawRect(self.box)
            if self.is_ringed:
                painter.setPen(QPen(color, width))
                painter.drawEllipse(self.middle, RADIUS_PX, RADIUS_PX)
        self._write(painter)
        painter.end()

    def _write(self, painter: QPainter) -> None:
        """Write the caption on a dark ground along the upper edge of the box, inside the canvas."""
        if not self.caption:
            return
        seen = self.box.intersected(QRectF(self.rect()))
        if seen.isEmpty():
            return
        text = painter.fontMetrics().boundingRect(self.caption)
        ground = QRectF(seen.left(), seen.top(), text.width() + 12, text.height() + 6)
        if seen.top() - ground.height() >= 0:
            ground.moveBottom(seen.top())
        painter.fillRect(ground, SHADE_COLOR)
        painter.setPen(RING_COLOR)
        painter.drawText(ground, Qt.AlignmentFlag.AlignCenter, self.caption)


class SpotMarker:
    """Shows one spot of a viewer until it is hidden or out of view.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        The viewer.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._mark: Mark | None = None
        self._world: np.ndarray | None = None
        self._corners: np.ndarray = np.zeros((2, 0))

    def show(
        self, canvas: QWidget, world: np.ndarray, corners: np.ndarray, caption: str = ""
    ) -> None:
        """Mark a point of the world and a box around it.

        Parameters
        ----------
        canvas : QWidget
            Of the viewer.
        world : ndarray of float
            The point, one coordinate for each axis of the viewer.
        corners : ndarray of float, shape (2, axes)
            Two opposite corners of the box, likewise.
        caption : str
            Written at the box.
        """
        self.hide()
        self._world = np.asarray(world, dtype=float)
        self._corners = np.asarray(corners, dtype=float)
        self._mark = Mark(canvas)
        self._mark.caption = caption
        self._camera.events.connect(self._follow)
        self._viewer.dims.events.connect(self._on_dims)
        self._follow()

    def hide_ring(self) -> None:
        """Leave the box only: the person works inside it."""
        if self._mark is not None:
            self._mark.is_ringed = False
            self._follow()

    @property
    def is_shown(self) -> bool:
        """Whether there is a mark."""
        return self._mark is not None

    def hide(self) -> None:
        """Take the mark away."""
        mark, self._mark = self._mark, None
        if mark is None:
            return
        self._camera.events.disconnect(self._follow)
        self._viewer.dims.events.disconnect(self._on_dims)
        try:
            mark.hide()
            mark.deleteLater()
        except RuntimeError:  # it went with the window
            return

    @property
    def _camera(self) -> Any:
        return camera_of(self._viewer)

    def _follow(self, event: Any = None) -> None:
        """Put the mark where the spot is on the canvas now."""
        if self._mark is None or self._world is None:
            return
        if self._viewer.dims.ndisplay != 2:
            self.hide()
            return
        try:
            self._mark.resize(self._mark.parentWidget().size())
            self._mark.middle = self._on_canvas(self._world)
            first, last = (self._on_canvas(corner) for corner in self._corners)
            self._mark.box = QRectF(first, last).normalized()
            self._mark.show()
            self._mark.update()
        except RuntimeError:  # the canvas has gone
            self._mark = None

    def _on_canvas(self, world: np.ndarray) -> QPointF:
        """Return where a point of the world is on the canvas."""
        dims, camera = self._viewer.dims, self._camera
        canvas = self._mark.parentWidget() if self._mark is not None else None
        if canvas is None:
            return QPointF()
        offset = world[list(dims.displayed)] - np.asarray(camera.center)[-2:]
        down, right = offset * camera.zoom * _directions(camera)
        return QPointF(canvas.width() / 2 + right, canvas.height() / 2 + down)

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
