"""What the window and the computing process say to each other.

One JSON object per line: requests go to the standard input of the process, events come from its
standard output. Arrays do not travel in the lines: they are .npy files in a temporary folder
that the window owns, written by one side and mapped into memory by the other.

::

    window                                           process
      | <------------------------------------ Ready     |  torch is imported
      | Request(id=3, job="segment", ...) ------------> |
      | <------------------------------- Progress(3)    |  any number of times
      | Cancel(3), Stop(3) or Look(3) ----------------> |  at any time
      | <------------ Done(3), Failed(3), Cancelled(3)  |  exactly one of them

Both sides import this module, so it imports neither torch nor Qt.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = np.ndarray[Any, np.dtype[Any]]
Region = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Request:
    """A job to run.

    ``parameters`` are plain JSON values; ``arrays`` maps names to .npy files that the job may
    read; arrays of the result are written into ``folder``.
    """

    id: int
    job: str
    folder: str
    parameters: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cancel:
    """End job ``id`` as soon as it can be interrupted and keep nothing of it."""

    id: int


@dataclass(frozen=True)
class Stop:
    """End job ``id`` early; what was learned so far is judged and kept."""

    id: int


@dataclass(frozen=True)
class Look:
    """The person looks at ``region`` of what job ``id`` computes: let that come first.

    One start and stop for each axis of the labels, in pixels.
    """

    id: int
    region: Region


@dataclass(frozen=True)
class Ready:
    """The process can compute at once; ``device`` says on what, e.g. "CPU, 2 cores"."""

    device: str


@dataclass(frozen=True)
class Progress:
    """Job ``id`` is alive.

    Kind "tile": ``done`` of ``total`` tiles are computed. Kind "step": training step ``step`` is
    over, with its mean ``loss`` and, where it was judged, the ``held_out`` score (0..1). Kind
    "before": the model as it is has the score ``held_out``, told before the first step. Kind
    "labels": the labels of ``region`` can be read in the .npy file ``labels``, the ``largest`` of
    them is given. Kind "note": ``text`` is for the person. ``fraction`` (0..1) and
    ``seconds_left`` are there with tiles and steps as far as they are known.
    """

    id: int
    kind: Literal["tile", "step", "before", "labels", "note"]
    fraction: float | None = None
    seconds_left: float | None = None
    done: int | None = None
    total: int | None = None
    step: int | None = None
    loss: float | None = None
    held_out: float | None = None
    region: Region | None = None
    labels: str = ""
    largest: int = 0
    text: str = ""


@dataclass(frozen=True)
class Done:
    """Job ``id`` has ended well, with plain ``values`` and the .npy files of its ``arrays``."""

    id: int
    values: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Failed:
    """Job ``id`` has ended badly.

    ``is_expected`` tells an explained error, whose ``message`` is a sentence, from a defect,
    whose ``message`` holds the kind of error and its first line, and which has a ``traceback``.
    With ``is_last`` the process ends after it: another one must do the next job.
    """

    id: int
    message: str
    is_expected: bool
    traceback: str = ""
    is_last: bool = False


@dataclass(frozen=True)
class Cancelled:
    """Job ``id`` was cancelled and left nothing."""

    id: int


Event = Ready | Progress | Done | Failed | Cancelled

Message = Request | Cancel | Stop | Look

_EVENTS: dict[str, type[Event]] = {
    "ready": Ready,
    "progress": Progress,
    "result": Done,
    "error": Failed,
    "cancelled": Cancelled,
}
_EVENT_NAMES = {kind: name for name, kind in _EVENTS.items()}


def encode(message: Message | Event) -> bytes:
    """Write a message as one line.

    Parameters
    ----------
    message : Request, Cancel, Stop, Look or event
        Its values may hold settings, paths and numpy scalars beside plain JSON values.

    Returns
    -------
    bytes
        One JSON object and a line feed.

    Raises
    ------
    TypeError
        If a value cannot be written as JSON.
    """
    if isinstance(message, Cancel):
        values: dict[str, Any] = {"cancel": message.id}
    elif isinstance(message, Stop):
        values = {"stop": message.id}
    elif isinstance(message, Look):
        values = {"look": message.id, "region": message.region}
    elif isinstance(message, Request):
        values = vars(message)
    else:
        values = {"event": _EVENT_NAMES[type(message)], **vars(message)}
    return json.dumps(values, default=_as_json).encode() + b"\n"


def decode_request(line: bytes) -> Message:
    """Read a line from the window.

    Raises
    ------
    ValueError
        If the line is no request.
    """
    try:
        values = json.loads(line)
        if "cancel" in values:
            return Cancel(int(values["cancel"]))
        if "stop" in values:
            return Stop(int(values["stop"]))
        if "look" in values:
            return Look(int(values["look"]), as_region(values["region"]))
        return Request(**values)
    except (ValueError, TypeError) as error:
        raise ValueError(f"No request: {line[:200]!r}") from error


def as_region(values: Sequence[Sequence[int]]) -> Region:
    """Return a region from what JSON made of it."""
    return tuple((int(start), int(stop)) for start, stop in values)


def decode_event(line: bytes) -> Event | None:
    """Read a line from the process; None if it is something else, e.g. a library's message."""
    try:
        values = json.loads(line)
        return _EVENTS[values.pop("event")](**values)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def open_array(path: str | Path, *, is_writable: bool = False) -> Array:
    """Map a .npy file into memory.

    Parameters
    ----------
    path : str or Path
        The file; it is never changed through the array.
    is_writable : bool
        The array can be written to; the changes stay in memory.

    Returns
    -------
    ndarray
        Read from disk as it is used.
    """
    mode: Literal["c", "r"] = "c" if is_writable else "r"
    array: Array = np.load(path, mmap_mode=mode, allow_pickle=False)
    return array


def _as_json(value: Any) -> Any:
    """Turn what JSON does not know into what it knows."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be sent to the computing process.")
