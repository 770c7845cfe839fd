"""The offer to go on with a training that did not come to its end.

While a training runs, its folder is locked by this window. A folder without a lock was broken off,
by whatever end of the process, of napari or of the computer, or it was stopped by the person.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from magicgui.widgets import Container, PushButton

from napari_unet.widget.exchange import lock_at
from napari_unet.widget.fields import column, named, row, text_line
from napari_unet.worker.unfinished import (
    REQUEST_FILE,
    Unfinished,
    discard,
    find_unfinished,
    find_useless,
    lock_path,
    new_training,
)

if TYPE_CHECKING:
    from pathlib import Path

    from qtpy.QtCore import QLockFile

    from napari_unet.widget.session import Session


class BrokenOff:
    """Trainings that can go on: the line that tells of one, and two buttons.

    Parameters
    ----------
    session : Session
        The state the panels share.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock: QLockFile | None = None
        self._running: Path | None = None
        self._stopped: Path | None = None
        self.offered: Unfinished | None = None
        self.text = text_line("unfinished")
        self.go_on = named(
            PushButton(text="Go on"),
            "go_on",
            "Go on with this training where it was, with the labels it was given then.",
        )
        self.discard = named(
            PushButton(text="Discard"),
            "discard_training",
            "Forget this training. No model and no label is touched.",
        )
        self._buttons = row(self.go_on, self.discard)
        self.container: Container = column(self.text, self._buttons)
        self.discard.changed.connect(self._on_discard)
        session.busy_changed.connect(self.refresh)
        session.closed.connect(self.end)
        for folder in find_useless():
            if _is_free(folder):
                discard(folder)
        self.refresh()

    def begin(self) -> Path:
        """Lock a new folder for a training that starts now; what was stopped is given up."""
        if self._stopped is not None:
            discard(self._stopped)
            self._stopped = None
        return self._take(new_training())

    def take_up(self) -> Path | None:
        """Lock the folder of the training that is offered."""
        return None if self.offered is None else self._take(self.offered.folder)

    def end(self, *, is_unwanted: bool = False, was_stopped: bool = False) -> Path | None:
        """Let go of the folder of the training that ran.

        Parameters
        ----------
        is_unwanted : bool
            It was cancelled: nothing of it is kept.
        was_stopped : bool
            The person ended it early: it may go on until the next one begins.

        Returns
        -------
        Path or None
            The folder; None if no training ran.
        """
        lock, self._lock = self._lock, None
        folder, self._running = self._running, None
        if lock is not None:
            lock.unlock()
        if folder is not None and (is_unwanted or not (folder / REQUEST_FILE).exists()):
            discard(folder)
        self._stopped = folder if was_stopped else self._stopped
        return folder

    def refresh(self, _: object = None) -> None:
        """Offer the newest training that nobody is at."""
        is_busy = self._session.is_busy
        free = [] if is_busy else [found for found in find_unfinished() if _is_free(found.folder)]
        self.offered = free[0] if free else None
        self.container.visible = self.offered is not None
        if self.offered is not None:
            more = f" {len(free) - 1} more like it." if len(free) > 1 else ""
            self.text.value = f"{self.offered.describe()}{more}"

    def _take(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = lock_at(lock_path(folder))
        self._lock.tryLock(0)
        self._running = folder
        return folder

    def _on_discard(self) -> None:
        if self.offered is not None:
            discard(self.offered.folder)
            self._session.tell("The training is forgotten; the models are as they were.")
            self.refresh()


def _is_free(folder: Path) -> bool:
    """Say whether no window is at a training."""
    lock = lock_at(lock_path(folder))
    is_free = bool(lock.tryLock(0))
    if is_free:
        lock.unlock()
    return is_free
