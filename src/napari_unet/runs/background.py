"""Compute beside a job, so that the job can be cancelled before the computing is over.

One tile of a large network, or the watershed of a large plane, takes longer than a person waits
for Cancel. Such a call runs in a thread while the job says, many times a second, that it is
alive. A cancelled job returns at once; the thread ends with the call it is in, or sooner if that
asks whether anybody waits, and what it computed is dropped.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from threading import Event
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, cast

from napari_unet.network.threads import release_idle_threads
from napari_unet.runs.progress import Job, Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

P = ParamSpec("P")
R = TypeVar("R")

INTERVAL_S = 0.05
"""How often a job is asked: a slider that moves on ends a job and waits for that."""


class Background:
    """A thread for one job; used in a ``with``, and left at once when the job is closed."""

    def __init__(self) -> None:
        self._is_left = Event()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="napari-unet")

    def __enter__(self) -> Self:
        """Return itself; the thread that computes from now on is another one."""
        release_idle_threads()
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the thread to finish its call; it starts no other."""
        self._is_left.set()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def is_left(self) -> bool:
        """Say whether nobody waits for what is computed any more."""
        return self._is_left.is_set()

    def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Call a function in the thread, yielding until it is done; its errors are raised here.

        Parameters
        ----------
        function : callable
            Must not change anything that outlives the job.
        *args, **kwargs
            Its arguments.

        Returns
        -------
        object
            What the function returns.
        """
        future = self._executor.submit(function, *args, **kwargs)
        while not wait([future], timeout=INTERVAL_S).done:
            yield Progress()
        return future.result()

    def go_through(self, steps: Generator[object, None, R]) -> Job[R]:
        """Go through a generator in the thread, yielding at least after each of its steps.

        Parameters
        ----------
        steps : generator
            Of what it yields, Progress is passed on.

        Returns
        -------
        object
            What the generator returns.
        """
        while True:
            ended, result = yield from self.run(_advance, steps)
            if ended:
                return cast("R", result)
            yield result if isinstance(result, Progress) else Progress()


def _advance(steps: Generator[object, None, R]) -> tuple[bool, Any]:
    """Take one step: say if the generator has ended, and what it yielded or returned."""
    try:
        return False, next(steps)
    except StopIteration as end:
        return True, end.value
