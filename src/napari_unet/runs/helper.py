"""``python -m napari_unet.runs.helper``: learns together with the process that has started it.

It is told its place on standard input, and then what to learn, once or several times; it takes a
step whenever the first process does. The pipe stays open as long as the first process lives, so
its end is the end of this one, too, whatever happened there.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING

from napari_unet.errors import UnetError
from napari_unet.runs.learner import Learner
from napari_unet.runs.team import READY, Dismissed, Member

if TYPE_CHECKING:
    from napari_unet.runs.team import Place, Work


def main() -> None:
    """Learn until the first process ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is the first process's business
    place: Place = pickle.load(sys.stdin.buffer)
    todo: SimpleQueue[Work] = SimpleQueue()
    threading.Thread(target=_listen, args=(todo,), daemon=True).start()
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    try:
        member = Member(place)
        while True:
            learn(member, todo.get())
    except UnetError as error:
        sys.stderr.write(f"\n{error}\n")
    except Exception as error:  # noqa: BLE001 - the edge: the first process tells it
        sys.stderr.write(f"\n{type(error).__name__}: {' '.join(str(error).split())}\n")
    sys.stderr.flush()
    os._exit(1)


def learn(member: Member, work: Work) -> None:
    """Take step after step with the others, until the first one has something else to do.

    Parameters
    ----------
    member : Member
        Which of them this process is.
    work : Work
        What to learn, and from what.
    """
    learner = Learner(work.model, work.settings)
    learner.restore(*work.state)
    learner.join(member)
    while True:
        try:
            learner.step(work.crops, 0.0)
        except Dismissed:
            return
        learner.mean_loss()  # which nobody asks for here


def _listen(todo: SimpleQueue[Work]) -> None:
    """Hear what is to be learned, and leave at once when the other end of the pipe is closed."""
    try:
        while True:
            todo.put(pickle.load(sys.stdin.buffer))
    except (EOFError, OSError, pickle.UnpicklingError):
        os._exit(0)


if __name__ == "__main__":
    main()
