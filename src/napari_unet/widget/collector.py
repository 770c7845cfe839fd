"""Keep Python's garbage collector from stopping the window while a job runs.

A full pass of the collector walks over every object of napari and its libraries and stops the
window for 0.15 s and more. While a job runs, what is there already is left out of the passes;
afterwards the collector looks at everything again, so nothing is kept for good.
"""

from __future__ import annotations

import gc

from qtpy.QtCore import QObject, QTimer

SETTLE_MS = 2000


class QuietCollector(QObject):
    """Holds the collector back while it is told to, and a moment longer."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._settle = QTimer(self, singleShot=True, interval=SETTLE_MS)
        self._settle.timeout.connect(gc.unfreeze)

    def hold(self) -> None:
        """Leave the objects of now out of the passes to come; takes no time."""
        self._settle.stop()
        gc.freeze()

    def release(self) -> None:
        """Take them in again in a moment: what a job brought is put into the window first."""
        self._settle.start()

    def follow(self, is_busy: bool) -> None:
        """Hold while something is busy, release when it is not."""
        if is_busy:
            self.hold()
        else:
            self.release()

    def close(self) -> None:
        """Take all objects in again, now."""
        self._settle.stop()
        gc.unfreeze()
