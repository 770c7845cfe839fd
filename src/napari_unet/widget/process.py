"""The computing process as seen from the window: start it, write requests, read events."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path

from qtpy.QtCore import QProcess, Qt, Signal

from napari_unet.worker import protocol

STDERR_KEPT = 8000

_log = logging.getLogger(__name__)


class WorkerProcess(QProcess):
    """One run of ``python -m napari_unet.worker``.

    It has no parent: a QProcess that is destroyed while it runs blocks the window. Whoever makes
    it holds it until it has ended.

    Parameters
    ----------
    jobs : str
        Module that has the jobs.
    """

    said = Signal(object)
    ended = Signal(str)

    def __init__(self, jobs: str) -> None:
        super().__init__()
        self.setProgram(find_python())
        self.setArguments(["-P", "-m", "napari_unet.worker", "--jobs", jobs])
        self._line = b""
        self._complaints = ""
        self.is_discarded = False
        self.readyReadStandardOutput.connect(self._read_events)
        self.readyReadStandardError.connect(self._read_complaints)
        self.finished.connect(self._on_finished)
        # Queued: a process that cannot be started says so within start() already.
        self.errorOccurred.connect(self._on_error, Qt.ConnectionType.QueuedConnection)

    @property
    def last_complaint(self) -> str:
        """The last line the process wrote to its standard error."""
        lines = [line.strip() for line in self._complaints.splitlines() if line.strip()]
        return lines[-1] if lines else ""

    @property
    def is_alive(self) -> bool:
        """The process has not ended yet."""
        return bool(self.state() != QProcess.ProcessState.NotRunning)

    def say(self, message: protocol.Message) -> None:
        """Send a message; it is written as soon as the process reads."""
        self.write(protocol.encode(message))

    def discard(self) -> None:
        """Kill the process and never signal again."""
        self.is_discarded = True
        self.kill()

    def _read_events(self) -> None:
        """Pass on each whole line that is an event."""
        self._line += bytes(self.readAllStandardOutput())
        *lines, self._line = self._line.split(b"\n")
        for line in lines:
            event = protocol.decode_event(line)
            if event is not None and not self.is_discarded:
                self.said.emit(event)

    def _read_complaints(self) -> None:
        """Keep the end of what the process writes to its standard error."""
        text = bytes(self.readAllStandardError()).decode(errors="replace")
        _log.debug("%s", text.rstrip())
        self._complaints = (self._complaints + text)[-STDERR_KEPT:]

    def _on_finished(self) -> None:
        """Tell how the process ended, after the last of its events."""
        self._read_events()
        self._read_complaints()
        if not self.is_discarded:
            crashed = self.exitStatus() == QProcess.ExitStatus.CrashExit
            self.ended.emit(_how_it_ended(self.exitCode(), is_crash=crashed))

    def _on_error(self, error: QProcess.ProcessError) -> None:
        """Tell that the process could not be started; other errors end in finished."""
        if error == QProcess.ProcessError.FailedToStart and not self.is_discarded:
            self._complaints = self.errorString()
            self.ended.emit("could not be started")


def find_python() -> str:
    """Return the Python to start: where napari brings its own program, that beside it."""
    candidates = [sys.executable, getattr(sys, "_base_executable", None)]
    for candidate in candidates:
        if candidate and Path(candidate).name.lower().startswith(("python", "pypy")):
            return candidate
    folder = Path(sys.prefix)
    beside = folder / "python.exe" if sys.platform == "win32" else folder / "bin" / "python3"
    return str(beside) if beside.exists() else sys.executable


def _how_it_ended(code: int, *, is_crash: bool) -> str:
    """Put the end of a process into a few words."""
    if not is_crash:
        return f"exit status {code}"
    if sys.platform == "win32":
        return f"crash 0x{code & 0xFFFFFFFF:08x}"
    return f"signal {code}" + (", often for lack of memory" if code == signal.SIGKILL else "")
