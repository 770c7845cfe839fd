"""Do something short in a thread of its own and hear of its end on the GUI thread."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any

from qtpy.QtCore import QObject, Signal


class InThread(QObject):
    """A call in a thread: exactly one of ``returned`` and ``failed`` comes.

    Parameters
    ----------
    function : callable
        Must not touch Qt or napari.
    *arguments, **named
        What it is called with.
    """

    returned = Signal(object)
    failed = Signal(object)

    def __init__(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        super().__init__()
        self._call = (function, arguments, named)
        self._thread = Thread(target=self._run, daemon=True, name="napari-unet-thread")

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def _run(self) -> None:
        function, arguments, named = self._call
        try:
            result = function(*arguments, **named)
        except Exception as error:  # noqa: BLE001 - handed over to whoever asked
            self._tell(self.failed, error)
        else:
            self._tell(self.returned, result)

    def _tell(self, signal: Any, value: Any) -> None:
        try:
            signal.emit(value)
        except RuntimeError:  # the window has gone meanwhile
            return
