"""What a long job says while it runs, and how to drive one from plain code.

A job is a generator: each ``yield`` is a :class:`Progress` and a place where it can be
cancelled; its return value is the result. The worker process, the command line, the tests and
the Python functions all drive the same generators.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from threading import Event
from typing import TypeVar

from napari_unet.errors import Cancelled, SettingError, described

R = TypeVar("R")


@dataclass(frozen=True)
class Progress:
    """Something happened; the job is alive and can be cancelled here."""


@dataclass(frozen=True)
class TileDone(Progress):
    """``done`` of ``total`` tiles are computed, counted over all planes."""

    done: int
    total: int


@dataclass(frozen=True)
class StepDone(Progress):
    """A training step is over.

    ``fraction`` is the used part of the budget (0..1), ``seconds_left`` the estimate of what
    remains, ``loss`` the mean loss since the last report, ``held_out`` the score on held-out
    pixels (0..1) where this step judged it, else None.
    """

    step: int
    fraction: float
    seconds_left: float
    loss: float
    held_out: float | None = None


@dataclass(frozen=True)
class JudgedBefore(Progress):
    """The model as it is has the score ``held_out`` (0..1) on what is kept aside.

    Told before the first step, so that the scores of the steps have something to be held against.
    """

    held_out: float


@dataclass(frozen=True)
class LabelsDone(Progress):
    """The labels of a part of the image can be looked at, while the rest is being computed.

    ``region`` has a start and a stop for each axis of the labels; ``largest`` is the largest
    label in it.
    """

    region: tuple[tuple[int, int], ...]
    largest: int


@dataclass(frozen=True)
class Note(Progress):
    """One line the person should read, e.g. that a smaller tile had to be used."""

    text: str
    is_caveat: bool = False
    """It holds wherever the result is used again, e.g. that it is approximate."""


Job = Generator[Progress, None, R]
Cancel = Event | Callable[[], bool]


def drive(
    job: Job[R],
    progress: Callable[[Progress], None] | None = None,
    cancel: Cancel | None = None,
) -> R:
    """Run a job to its end.

    Parameters
    ----------
    job : generator
        One of the ``*_steps`` functions of :mod:`napari_unet.runs`.
    progress : callable, optional
        Called with each :class:`Progress`.
    cancel : threading.Event or callable returning bool, optional
        Asked after each progress; once true, the job is closed.

    Returns
    -------
    object
        What the job returns.

    Raises
    ------
    SettingError
        If ``progress`` or ``cancel`` cannot be called.
    Cancelled
        If ``cancel`` became true.
    """
    if progress is not None and not callable(progress):
        raise _not_callable("progress", progress)
    is_cancelled = as_question("cancel", cancel)
    try:
        while True:
            try:
                event = next(job)
            except StopIteration as end:
                result: R = end.value
                return result
            if progress is not None:
                progress(event)
            if is_cancelled():
                raise Cancelled("Cancelled; nothing was changed.")
    finally:
        job.close()  # also if a function that was given fails


def as_question(name: str, given: Cancel | None) -> Callable[[], bool]:
    """Return what can be asked whether a job is to end.

    Parameters
    ----------
    name : str
        Of the argument, for the error.
    given : threading.Event or callable returning bool, optional
        If None, the answer is always no.

    Returns
    -------
    callable
        Returns a bool.

    Raises
    ------
    SettingError
        If it can neither be set nor called.
    """
    if given is None:
        return bool  # which is False
    if isinstance(given, Event):
        return given.is_set
    if not callable(given):
        raise _not_callable(name, given)
    return given


def _not_callable(name: str, given: object) -> SettingError:
    return SettingError(
        f"{name} is something to call, {described(given)} was given. Give a function."
    )
