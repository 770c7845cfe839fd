"""The window's end of the computing process: one job at a time, and nothing waits for it.

::

    submit --> arrays are written --> the process is ready --> sent --> done | failed
       |               (thread)              |                  |
       +------ cancel: at once --------------+                  +-- cancel: asked, then killed

The engine keeps the process warm and starts another one when it dies. Whatever happens to the
process, the image, the labels and the settings are in the window and stay as they are.
"""

from __future__ import annotations

import shutil
import time
import traceback
import weakref
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

from qtpy.QtCore import QCoreApplication, QObject, QTimer, Signal

from napari_unet.errors import WorkerError
from napari_unet.widget.belongings import Belongings
from napari_unet.widget.exchange import (
    Token,
    copy_small,
    explain_unwritten,
    open_result,
    write_array,
)
from napari_unet.widget.process import WorkerProcess
from napari_unet.worker import protocol

JOBS = "napari_unet.worker.jobs"
CANCEL_PATIENCE_MS = 800
CLOSE_WAIT_MS = 2000
DEATHS_ALLOWED = 3
DEATHS_WINDOW_S = 60.0


class Job(QObject):
    """One running request.

    Exactly one of ``done``, ``failed`` and ``cancelled`` comes, then ``finished``. By then the
    engine takes the next job, so a slot of any of them may submit one.

    Attributes
    ----------
    name : str
        What was asked for, e.g. "segment".
    is_running : bool
        False once it has ended in one way or another.
    traceback : str
        Where a defect came from; empty as long as there was none.
    """

    progressed = Signal(object)
    done = Signal(object)
    failed = Signal(str, bool)
    cancelled = Signal()
    finished = Signal()

    def __init__(self, engine: Engine, number: int, name: str) -> None:
        super().__init__()
        self.number = number
        self.name = name
        self.is_running = True
        self.traceback = ""
        self._engine = engine

    def cancel(self) -> None:
        """End the job and keep nothing of it; the answer comes within a second."""
        self._engine.cancel(self)

    def stop(self) -> None:
        """End the job early and keep what was reached so far."""
        self._engine.stop(self)

    def look(self, region: protocol.Region) -> None:
        """Let a region come first: one start and stop for each axis of the labels."""
        self._engine.look(self, region)


class Engine(QObject):
    """Runs jobs in a process of its own.

    Parameters
    ----------
    parent : QObject, optional
        The engine closes with it.
    jobs : str
        Module that has the jobs; another one only in tests.

    Attributes
    ----------
    device : str
        What the process computes on, e.g. "CPU, 2 cores"; empty until it has told.
    status : str
        "starting", "ready", "busy", "restarting" or "closed".
    """

    status_changed = Signal(str)
    notice = Signal(str)

    _written = Signal(int, object)

    def __init__(self, parent: QObject | None = None, *, jobs: str = JOBS) -> None:
        super().__init__(parent)
        self.device = ""
        self.status = "closed"
        self._jobs = jobs
        self._belongings = Belongings()
        self._is_closed = False
        self._is_ready = False
        self._deaths: list[float] = []
        self._job: Job | None = None
        self._request: protocol.Request | None = None
        self._is_written = False
        self._is_sent = False
        self._is_cancelling = False
        self._abandoned = Event()
        self._count = 0
        self._patience = QTimer(self)
        self._patience.setSingleShot(True)
        self._patience.setInterval(CANCEL_PATIENCE_MS)
        self._patience.timeout.connect(self._on_out_of_patience)
        self._written.connect(self._on_written)
        # Nothing of Python's but the finalizer may hear of the end: the garbage collector may
        # already have taken a function of ours apart, and calling it then would crash.
        finalizer = weakref.finalize(self, self._belongings.release, CLOSE_WAIT_MS)
        self.destroyed.connect(finalizer)
        application = QCoreApplication.instance()
        if application is not None:
            application.aboutToQuit.connect(self.close)

    def start(self) -> None:
        """Start the process, unless it runs already; returns at once."""
        if self._is_closed or self._belongings.process is not None:
            return
        self._deaths.clear()
        self._launch("starting")

    def submit(
        self, job: str, *, arrays: Mapping[str, Any] | None = None, **parameters: Any
    ) -> Job:
        """Ask for a job; it begins as soon as the process is ready.

        Parameters
        ----------
        job : str
            Name of the job, e.g. "segment".
        arrays : mapping of str to array-like
            numpy, dask or zarr. Up to 32 MiB in all are copied now, so that they may be
            changed at once; more is read in the background and must stay as it is until the
            first progress.
        **parameters
            Plain values, paths or settings.

        Returns
        -------
        Job
            Its signals tell the rest.

        Raises
        ------
        WorkerError
            If another job is running or the engine is closed.
        TypeError
            If a parameter cannot be sent.
        """
        if self._is_closed:
            raise WorkerError("The computing process has ended with its panel. Open U-Net again.")
        if self._job is not None:
            raise WorkerError(
                f"The job {self._job.name!r} is still running. Wait for its end or cancel it."
            )
        self.start()
        number = self._count + 1
        folder = self._belongings.exchange.make_room(number)
        copies = copy_small(arrays or {})
        paths = {name: folder / f"input-{at}.npy" for at, name in enumerate(copies)}
        request = protocol.Request(
            number, job, str(folder), parameters, {name: str(path) for name, path in paths.items()}
        )
        protocol.encode(request)
        self._count = number
        self._job = Job(self, number, job)
        self._request = request
        self._is_written = self._is_sent = self._is_cancelling = False
        self._abandoned = Event()
        self._announce()
        if copies:
            work = [(paths[name], array) for name, array in copies.items()]
            self._belongings.run(partial(self._write, number, work, self._abandoned))
        else:
            self._on_written(number, None)
        return self._job

    def cancel(self, job: Job) -> None:
        """End a job; see :meth:`Job.cancel`."""
        if job is not self._job or self._is_cancelling:
            return
        process = self._belongings.process
        if process is None or not self._is_sent:
            self._settle("cancelled")
            return
        self._is_cancelling = True
        process.say(protocol.Cancel(job.number))
        self._patience.start()

    def stop(self, job: Job) -> None:
        """End a job early; see :meth:`Job.stop`."""
        process = self._belongings.process
        if job is self._job and process is not None and self._is_sent:
            process.say(protocol.Stop(job.number))

    def look(self, job: Job, region: protocol.Region) -> None:
        """Let a region come first; see :meth:`Job.look`."""
        process = self._belongings.process
        if job is self._job and process is not None and self._is_sent:
            process.say(protocol.Look(job.number, region))

    def close(self, wait_ms: int = CLOSE_WAIT_MS) -> None:
        """End the process and whatever belongs to it; again and again does no harm.

        Parameters
        ----------
        wait_ms : int
            Longest time to wait for the end of the process and of background writing.
        """
        if self._is_closed:
            return
        self._is_closed = True
        self._belongings.drop_process()
        if self._job is not None:
            self._settle("cancelled")
        self._announce()
        self._belongings.release(wait_ms)

    def _launch(self, status: str) -> None:
        """Start a new process."""
        process = WorkerProcess(self._jobs)
        process.said.connect(self._on_event)
        process.ended.connect(self._on_ended)
        self._is_ready = False
        self._belongings.hold(process)
        self._set_status(status)
        process.start()

    def _write(self, number: int, work: list[tuple[Path, Any]], abandoned: Event) -> None:
        """Write the arrays of a request; runs in a thread."""
        problem: Exception | None = None
        try:
            for path, array in work:
                write_array(path, array, abandoned.is_set)
        except Exception as error:  # noqa: BLE001 - told to the person by the main thread
            problem = error
        if abandoned.is_set():
            shutil.rmtree(work[0][0].parent, ignore_errors=True)
            return
        try:
            self._written.emit(number, problem)
        except RuntimeError:  # the window has gone meanwhile
            return

    def _on_written(self, number: int, problem: Exception | None) -> None:
        """Go on with a request whose arrays are on disk, or tell why they are not."""
        if self._job is None or number != self._job.number:
            return
        if problem is not None:
            message, is_expected = explain_unwritten(problem)
            self._job.traceback = "".join(traceback.format_exception(problem))
            self._settle("failed", message, is_expected)
            return
        self._is_written = True
        self._send_if_possible()

    def _send_if_possible(self) -> None:
        """Send the request once its arrays are written and the process is ready."""
        process, request = self._belongings.process, self._request
        if process is None or request is None or not self._is_ready:
            return
        if self._is_written and not self._is_sent:
            self._is_sent = True
            process.say(request)

    def _on_event(self, event: protocol.Event) -> None:
        """Pass an event on to the job it belongs to; late ones are dropped."""
        if isinstance(event, protocol.Ready):
            self.device = event.device
            self._is_ready = True
            self._announce()
            self._send_if_possible()
        elif self._job is None or event.id != self._job.number or not self._is_sent:
            return
        elif isinstance(event, protocol.Progress):
            if not self._is_cancelling:
                self._job.progressed.emit(event)
        elif self._is_cancelling or isinstance(event, protocol.Cancelled):
            self._settle("cancelled")
        elif isinstance(event, protocol.Done):
            self._on_done(event)
        else:
            self._is_ready = self._is_ready and not event.is_last
            self._job.traceback = event.traceback
            self._settle("failed", event.message, event.is_expected)

    def _on_done(self, event: protocol.Done) -> None:
        """Open the arrays of a result and hand it over."""
        try:
            arrays = {name: open_result(path) for name, path in event.arrays.items()}
        except (OSError, ValueError) as error:
            self._settle("failed", f"The result cannot be read ({error}). Run it again.", True)
            return
        values = dict(event.values)
        for name, path in event.arrays.items():
            if values.get("token") == path:
                values["token"] = Token(path, arrays[name])
        self._settle("done", {**values, **arrays})

    def _on_out_of_patience(self) -> None:
        """Kill a process that does not hear Cancel and start another one."""
        if not self._is_cancelling:
            return
        self._belongings.drop_process()
        self._launch("restarting")
        self._settle("cancelled")

    def _on_ended(self, how: str) -> None:
        """Start the process again after it died, unless it dies again and again."""
        complaint = self._belongings.process.last_complaint if self._belongings.process else ""
        self._belongings.drop_process()
        died_in_job = self._is_sent
        if not died_in_job:
            now = time.monotonic()
            self._deaths = [at for at in self._deaths if now - at < DEATHS_WINDOW_S] + [now]
        if len(self._deaths) >= DEATHS_ALLOWED:
            self._give_up(how, complaint)
            return
        self._launch("restarting")
        self._tell_restart(how, died_in_job=died_in_job)

    def _tell_restart(self, how: str, *, died_in_job: bool) -> None:
        """Tell the person, and the job if it was running."""
        self.notice.emit(
            f"The computing process ended unexpectedly ({how}) and was started again; "
            "your labels are untouched."
        )
        if self._job is None or not died_in_job:
            return
        if self._is_cancelling:
            self._settle("cancelled")
            return
        self._settle(
            "failed",
            f"The computing process ended unexpectedly ({how}) during {self._job.name!r} and "
            "was started again; nothing was changed. Try again.",
            True,
        )

    def _give_up(self, how: str, complaint: str) -> None:
        """Tell that there is no process to compute; the next job tries it again."""
        sentence = (
            f"The computing process cannot be started ({how}): "
            f"{complaint or 'it left no message'}. Run napari-unet doctor in a terminal."
        )
        self._set_status("closed")
        self.notice.emit(sentence)
        if self._job is not None:
            self._settle("failed", sentence, True)

    def _settle(self, outcome: str, *values: Any) -> None:
        """End the current job in one of its ways; from here on the next one may come."""
        job, request = self._job, self._request
        if job is None or request is None:
            return
        is_left_over = outcome != "done" and self._is_written
        self._abandoned.set()
        self._patience.stop()
        self._job = self._request = None
        self._is_written = self._is_sent = self._is_cancelling = False
        job.is_running = False
        if is_left_over and not self._is_closed:
            self._belongings.run(partial(shutil.rmtree, request.folder, ignore_errors=True))
        self._announce()
        getattr(job, outcome).emit(*values)
        job.finished.emit()

    def _announce(self) -> None:
        """Tell the status as it follows from what is there."""
        if self._is_closed:
            self._set_status("closed")
        elif self._is_ready and self._belongings.process is not None:
            self._set_status("ready" if self._job is None else "busy")

    def _set_status(self, status: str) -> None:
        """Tell a status that is new."""
        if status != self.status:
            self.status = status
            self.status_changed.emit(status)
