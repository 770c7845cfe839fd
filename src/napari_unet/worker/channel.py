"""The two directions between the computing process and the window, as the process sees them."""

from __future__ import annotations

import os
import sys
import time
from queue import Empty, SimpleQueue
from typing import IO, TYPE_CHECKING, Any

from napari_unet.runs.progress import JudgedBefore, LabelsDone, Note, Progress, StepDone, TileDone
from napari_unet.worker import protocol

if TYPE_CHECKING:
    from pathlib import Path

SHORTEST_PAUSE_S = 0.03
LABELS_FILE = "labels.npy"
"""In the folder of a request: labels that can be looked at before the job is done."""


class Inbox:
    """The requests of the window, in order; Cancel, Stop and Look overtake them."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._requests: SimpleQueue[protocol.Request] = SimpleQueue()
        self._cancelled: set[int] = set()
        self._stopped: set[int] = set()
        self._looked_at: dict[int, protocol.Region] = {}

    def next(self, patience_s: float | None = None) -> protocol.Request | None:
        """Wait for the next request; None if none came in time."""
        try:
            return self._requests.get(timeout=patience_s)
        except Empty:
            return None

    def is_cancelled(self, request: int) -> bool:
        """Say if a job was cancelled."""
        return request in self._cancelled

    def is_stopped(self, request: int) -> bool:
        """Say if a job is to end early."""
        return request in self._stopped

    def looked_at(self, request: int) -> protocol.Region | None:
        """Return where the person looks now, if that was told during a job."""
        return self._looked_at.get(request)

    def listen(self) -> None:
        """Take requests until the window closes its end; then end the process."""
        for line in iter(self._stream.readline, b""):
            try:
                message = protocol.decode_request(line)
            except ValueError as error:
                sys.stderr.write(f"{error}\n")
                continue
            if isinstance(message, protocol.Cancel):
                self._cancelled.add(message.id)
            elif isinstance(message, protocol.Stop):
                self._stopped.add(message.id)
            elif isinstance(message, protocol.Look):
                self._looked_at[message.id] = message.region
            else:
                self._requests.put(message)
        os._exit(0)


class Outbox:
    """The events for the window."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def send(self, event: protocol.Event) -> None:
        """Write one event; without a window to read it, the process ends."""
        try:
            self._stream.write(protocol.encode(event))
            self._stream.flush()
        except OSError:
            os._exit(0)


class Reporter:
    """Turns the progress of one job into events, not more often than they can be seen."""

    def __init__(self, request: int, outbox: Outbox, folder: Path) -> None:
        self._request = request
        self._labels = str(folder / LABELS_FILE)
        self._outbox = outbox
        self._started = time.monotonic()
        self._last = -SHORTEST_PAUSE_S

    def report(self, progress: Progress) -> None:
        """Send a progress; what follows close on another one is left out."""
        passed = time.monotonic() - self._started
        is_soon = passed - self._last < SHORTEST_PAUSE_S
        if isinstance(progress, Note):
            self._send("note", text=progress.text)
        elif isinstance(progress, JudgedBefore):
            self._send("before", held_out=progress.held_out)
        elif isinstance(progress, LabelsDone):
            self._send("labels", labels=self._labels, **vars(progress))
        elif isinstance(progress, TileDone) and not (is_soon and progress.done < progress.total):
            self._last = passed
            left = passed / progress.done * (progress.total - progress.done)
            fraction = progress.done / progress.total
            self._send("tile", fraction=fraction, seconds_left=left, **vars(progress))
        elif isinstance(progress, StepDone) and not (is_soon and progress.held_out is None):
            self._last = passed
            self._send("step", **vars(progress))

    def _send(self, kind: Any, **values: Any) -> None:
        self._outbox.send(protocol.Progress(self._request, kind, **values))
