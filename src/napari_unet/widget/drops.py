"""Folders and files of weights that are dropped on the image: the dock takes them.

napari asks by the ending which plugin reads a file, and asks the person where several could. A
folder has no ending, and every plugin that takes folders would be asked for each of them. So as
long as the dock is there it looks at what is dropped itself: what is a model by its content goes
to the dock, all else goes its way.
"""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QMainWindow, QWidget

from napari_unet.widget.contributions import is_for_us


class DropWatch(QObject):
    """Watches the middle of a window for models that are dropped on it.

    Parameters
    ----------
    take : callable
        Gets the path of a model that was dropped.
    parent : QObject
        The watch ends with it.
    """

    def __init__(self, take: Callable[[str], None], parent: QObject) -> None:
        super().__init__(parent)
        self._take = take
        self._watched: list[QWidget] = []

    def watch(self, window: QWidget) -> None:
        """Watch a window, if it is one with a middle, and no other any more."""
        self.stop()
        middle = window.centralWidget() if isinstance(window, QMainWindow) else None
        if middle is not None:
            places = [middle, *middle.findChildren(QWidget)]
            self._watched = [place for place in places if place.acceptDrops()]
            for place in self._watched:
                place.installEventFilter(self)

    def stop(self) -> None:
        """Watch no longer."""
        for place in self._watched:
            try:
                place.removeEventFilter(self)
            except RuntimeError:  # it has gone with its window
                continue
        self._watched = []

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Take what is dropped if it is a model; let everything else go on."""
        if event.type() != QEvent.Type.Drop:
            return False
        urls = event.mimeData().urls()
        if len(urls) != 1 or not urls[0].isLocalFile() or not is_for_us(urls[0].toLocalFile()):
            return False
        event.acceptProposedAction()
        self._take(urls[0].toLocalFile())
        return True
