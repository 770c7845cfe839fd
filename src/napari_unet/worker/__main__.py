"""The process that computes: ``python -m napari_unet.worker``.

It reads requests from standard input, runs one job at a time and writes events to standard
output. A thread of its own listens to the input, so that Cancel and Stop are heard during a job
and the process ends at once when the window is gone, however it went. Only events go to the
standard output: it is put aside first, and whatever libraries print goes to standard error.

What the jobs are is told by a module, see :class:`Jobs`: :mod:`napari_unet.worker.jobs`, or
another one in tests.
"""

from __future__ import annotations

import argparse
import errno
import faulthandler
import importlib
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_unet.errors import Cancelled, UnetError, WorkerError
from napari_unet.network.threads import wait_with_the_system
from napari_unet.runs.progress import Job, drive
from napari_unet.worker import protocol
from napari_unet.worker.channel import Inbox, Outbox, Reporter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_unet.worker.protocol import Array

NICENESS = 5
TIDY_AFTER_S = 0.5
"""A job that follows at once, as while a slider is drawn, does not wait for that."""
PARENT_CHECK_S = 1.0


@dataclass(frozen=True)
class Call:
    """What a job gets beside its parameters.

    ``arrays`` are read-only; arrays of the result may be made as files in ``folder``;
    ``is_stopped`` tells that the person wants what was reached so far, now; ``looked_at`` tells
    where the person has gone to look since the request, if anywhere.
    """

    arrays: dict[str, Array]
    folder: Path
    is_stopped: Callable[[], bool]
    looked_at: Callable[[], protocol.Region | None] = lambda: None


class Jobs(Protocol):
    """What a module of jobs offers."""

    JOBS: dict[str, Callable[..., Job[dict[str, Any]]]]

    def prepare(self) -> str:
        """Import and warm up what the jobs need; return the description of the device."""

    def explain(self, error: BaseException) -> str | None:
        """Put an error that is not a defect into a sentence; None for a defect."""

    def is_spoilt(self, error: BaseException) -> bool:
        """Say if no job can succeed in this process after an error."""

    def tidy(self) -> None:
        """Give memory back when there is nothing to do."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until the window closes the standard input.

    Parameters
    ----------
    arguments : sequence of str, optional
        Those of the command line, if not given.
    """
    parser = argparse.ArgumentParser(prog="napari_unet.worker")
    parser.add_argument("--jobs", default="napari_unet.worker.jobs")
    chosen = parser.parse_args(arguments)
    outbox = Outbox(_put_standard_output_aside())
    _behave()
    inbox = Inbox(sys.stdin.buffer)
    threading.Thread(target=inbox.listen, name="listen", daemon=True).start()
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    try:
        jobs: Jobs = importlib.import_module(chosen.jobs)
        outbox.send(protocol.Ready(jobs.prepare()))
        serve(jobs, inbox, outbox)
    except BaseException:  # noqa: BLE001 - the window shows the last line of it
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # an orderly end would wait for the thread that listens


def serve(jobs: Jobs, inbox: Inbox, outbox: Outbox) -> None:
    """Run one job after the other, and tidy up whenever there is nothing to do.

    Parameters
    ----------
    jobs : module
        Has the jobs.
    inbox, outbox : Inbox, Outbox
        Both directions to the window.
    """
    is_tidy = True
    while True:
        request = inbox.next(None if is_tidy else TIDY_AFTER_S)
        if request is None:
            jobs.tidy()
        else:
            carry_out(request, jobs, inbox, outbox)
        is_tidy = request is None


def carry_out(request: protocol.Request, jobs: Jobs, inbox: Inbox, outbox: Outbox) -> None:
    """Run a job to its end, whatever the end is, and tell the window.

    Parameters
    ----------
    request : Request
        What to do.
    jobs : module
        Has the jobs.
    inbox, outbox : Inbox, Outbox
        Both directions to the window.
    """
    is_spoilt = False
    try:
        event = _run(request, jobs, inbox, outbox)
    except Cancelled:
        event = protocol.Cancelled(request.id)
    except UnetError as error:
        event = protocol.Failed(request.id, str(error), is_expected=True)
    except BaseException as error:  # noqa: BLE001 - the edge of the process: all is told
        is_spoilt = jobs.is_spoilt(error)
        event = replace(_failed(request, error, jobs.explain(error)), is_last=is_spoilt)
    _remove(request.arrays.values())
    outbox.send(event)
    if is_spoilt:
        os._exit(1)  # the window starts another process


def _run(request: protocol.Request, jobs: Jobs, inbox: Inbox, outbox: Outbox) -> protocol.Event:
    """Run a job and store the arrays of its result."""
    if request.job not in jobs.JOBS:
        raise WorkerError(f"There is no job {request.job!r}. Restart napari after an update.")
    folder = Path(request.folder)
    arrays = {name: protocol.open_array(path) for name, path in request.arrays.items()}
    call = Call(
        arrays,
        folder,
        is_stopped=lambda: inbox.is_stopped(request.id),
        looked_at=lambda: inbox.looked_at(request.id),
    )
    values = drive(
        jobs.JOBS[request.job](call, **request.parameters),
        progress=Reporter(request.id, outbox, folder).report,
        cancel=lambda: inbox.is_cancelled(request.id),
    )
    stored = {
        name: _store(name, value, folder)
        for name, value in values.items()
        if isinstance(value, np.ndarray)
    }
    plain = {name: value for name, value in values.items() if name not in stored}
    return protocol.Done(request.id, plain, stored)


def _store(name: str, array: Array, folder: Path) -> str:
    """Return the file of an array, written now unless it was made as a file."""
    if isinstance(array, np.memmap) and array.filename is not None:
        path = Path(array.filename)
        if path.parent == folder:
            return str(path)
    path = folder / f"{name}.npy"
    np.save(path, array, allow_pickle=False)
    return str(path)


def _failed(
    request: protocol.Request, error: BaseException, sentence: str | None
) -> protocol.Failed:
    """Tell an error that is not one of ours."""
    sentence = sentence or _explain(error)
    if sentence is not None:
        return protocol.Failed(request.id, sentence, is_expected=True)
    first_line = next(iter(str(error).splitlines()), "")
    message = f"{type(error).__name__}: {first_line}".removesuffix(": ")
    trace = "".join(traceback.format_exception(error))
    return protocol.Failed(request.id, message, is_expected=False, traceback=trace)


def _explain(error: BaseException) -> str | None:
    """Put a lack of memory or disk into a sentence."""
    if isinstance(error, MemoryError):
        return (
            "The memory of this computer does not suffice. "
            "Use a smaller image or tile, or close other programs."
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return (
            f"The disk is full; the temporary folder is {tempfile.gettempdir()}. "
            "Free some space or set TMPDIR to another folder, then start napari again."
        )
    return None


def _remove(paths: Any) -> None:
    """Remove files as far as the system lets us; the window removes the rest with its folder."""
    for path in paths:
        try:
            Path(path).unlink(missing_ok=True)
        except OSError:
            continue


def _put_standard_output_aside() -> IO[bytes]:
    """Keep the standard output for events; what others print goes to standard error."""
    events = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return events


def _behave() -> None:
    """Leave Ctrl+C to the window, the processor first to others, and say where we crash."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    wait_with_the_system()
    faulthandler.enable()


def _end_with_parent() -> None:
    """End the process when its parent has gone; a forked sibling may keep our input open."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_S)
    os._exit(0)


if __name__ == "__main__":
    main()
