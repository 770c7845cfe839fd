"""A person's hand: clicks and strokes as real mouse events on a shown napari window."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QScrollArea, QWidget

MOVE_MS = 16
"""napari and vispy drop mouse moves that follow each other faster."""


class Hand:
    """Uses a dock and the canvas of its viewer the way a person does.

    Parameters
    ----------
    viewer : napari.Viewer
        With its window shown.
    dock : UnetDock
        In that window.
    """

    def __init__(self, viewer: Any, dock: Any) -> None:
        self.viewer = viewer
        self.dock = dock
        self.canvas = viewer.window._qt_viewer.canvas
        self.camera = getattr(viewer, "scene", viewer).camera  # napari 0.9 moved it

    def find(self, name: str) -> Any:
        """Find a control of the dock by the name scripts rely on."""
        found = self.dock.findChild(QWidget, name)
        assert found is not None, f"no control is named {name}"
        return found

    def click(self, name: str) -> None:
        """Scroll a control into view and press it with the left button."""
        control = self.find(name)
        area = self.dock.findChild(QScrollArea)
        if area.isAncestorOf(control):
            area.ensureWidgetVisible(control, 0, 40)
        self.rest(50)
        assert control.isVisible(), f"{name} cannot be seen"
        assert control.isEnabled(), f"{name} is disabled: {self.status}"
        QTest.mouseClick(control, Qt.MouseButton.LeftButton)
        self.rest(50)

    @property
    def status(self) -> str:
        """What the dock's status line says."""
        return str(self.find("status").text())

    def rest(self, milliseconds: int) -> None:
        """Let the window live for a while."""
        QTest.qWait(milliseconds)

    def wait(self, until: Callable[[], bool], seconds: float = 120) -> float:
        """Wait with the window alive; returns how long it took, in seconds."""
        start = time.monotonic()
        while not until():
            assert time.monotonic() - start < seconds, f"waited for {seconds} s"
            QTest.qWait(10)
        return time.monotonic() - start

    def wait_idle(self, seconds: float = 120) -> float:
        """Wait until no job runs, two short looks apart, as one job may start the next."""
        session = self.dock.session
        taken = self.wait(lambda: not session.is_busy, seconds)
        self.rest(60)
        return taken + self.wait(lambda: not session.is_busy, seconds)

    def spot(self, layer: Any, y: float, x: float) -> QPoint:
        """Return where a pixel of a layer is on the canvas."""
        index = (0,) * (layer.ndim - 2) + (y, x)
        world = np.asarray(layer.data_to_world(index))[-2:]
        centre = np.asarray(self.camera.center)[-2:]
        height, width = self.canvas.size
        from_middle = (world - centre) * self.camera.zoom
        return QPoint(round(width / 2 + from_middle[1]), round(height / 2 + from_middle[0]))

    def stroke(self, layer: Any, points: Iterable[tuple[float, float]]) -> None:
        """Press, move along pixels (Y, X) of a layer, release."""
        from qtpy.QtCore import QEvent
        from qtpy.QtGui import QMouseEvent

        native = self.canvas.native
        left, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
        spots = [self.spot(layer, y, x) for y, x in points]

        def send(kind: Any, at: QPoint, button: Any, buttons: Any) -> None:
            there, on_screen = QPointF(at), QPointF(native.mapToGlobal(at))
            event = QMouseEvent(
                kind, there, on_screen, button, buttons, Qt.KeyboardModifier.NoModifier
            )
            QApplication.sendEvent(native, event)
            QTest.qWait(MOVE_MS)

        send(QEvent.Type.MouseMove, spots[0], none, none)
        send(QEvent.Type.MouseButtonPress, spots[0], left, left)
        for spot in spots[1:]:
            send(QEvent.Type.MouseMove, spot, none, left)
        send(QEvent.Type.MouseButtonRelease, spots[-1], left, none)
        QTest.qWait(60)

    def line(self, layer: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Draw a straight stroke from pixel to pixel."""
        steps = np.linspace(0, 1, 12)[:, None]
        self.stroke(layer, (np.asarray(start) * (1 - steps) + np.asarray(end) * steps).tolist())

    def picture(self, path: Any) -> None:
        """Keep what the whole window shows."""
        QTest.qWait(120)
        self.viewer.screenshot(str(path), canvas_only=False, flash=False)
