"""What an engine has in the system: its process, its threads, its temporary folder.

They are kept apart from the engine, a Qt object that may be destroyed from outside, so that they
can be given back even then, and at the end of the program.
"""

from __future__ import annotations

import time
from threading import Thread
from typing import TYPE_CHECKING

from napari_unet.widget.exchange import Exchange, remove_stale

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_unet.widget.process import WorkerProcess


class Belongings:
    """The process in use, those that are ending, the threads and the folder for arrays."""

    def __init__(self) -> None:
        self.process: WorkerProcess | None = None
        self._dying: set[WorkerProcess] = set()
        self._threads: list[Thread] = []
        self._exchange: Exchange | None = None

    @property
    def exchange(self) -> Exchange:
        """The folder for arrays, made when first needed."""
        if self._exchange is None:
            self._exchange = Exchange()
        return self._exchange

    def hold(self, process: WorkerProcess) -> None:
        """Take a new process; with the first one, clean up after earlier sessions."""
        if self._exchange is None:
            self.run(remove_stale)
        self.process = process

    def drop_process(self) -> None:
        """Kill the process without waiting for its end."""
        process, self.process = self.process, None
        if process is None:
            return
        self._dying = {other for other in self._dying if other.is_alive}
        self._dying.add(process)
        process.discard()

    def run(self, work: Callable[[], object]) -> None:
        """Do something in the background."""
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = Thread(target=work, daemon=True, name="napari-unet-exchange")
        self._threads.append(thread)
        thread.start()

    def release(self, wait_ms: int) -> None:
        """End and remove everything."""
        deadline = time.monotonic() + wait_ms / 1000
        self.drop_process()
        while self._dying:
            process = self._dying.pop()
            process.waitForFinished(max(1, int((deadline - time.monotonic()) * 1000)))
        while self._threads:
            self._threads.pop().join(max(0.0, deadline - time.monotonic()))
        if self._exchange is not None:
            self._exchange.remove()
            self._exchange = None
