"""The menu More… of the section Model: what is done with the files of models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qtpy.QtCore import QFile, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QFileDialog, QInputDialog, QMenu, QMessageBox, QWidget

from napari_unet.errors import UnetError
from napari_unet.models.library import (
    forget_model,
    is_bundled,
    is_own_file,
    remove_model,
    rename_model,
    report_path,
)
from napari_unet.widget.session import Session


class ModelMenu(QMenu):
    """Open a folder or a model by its name; rename, remove and show the file of the one in use.

    Parameters
    ----------
    session : Session
        The state the panels share.
    load : callable
        Opens a model by its path or name.
    refresh : callable
        Lists the models anew.
    parent : QWidget
        The button it belongs to.
    """

    def __init__(
        self,
        session: Session,
        load: Callable[[str], None],
        refresh: Callable[[], None],
        parent: QWidget,
    ) -> None:
        super().__init__(parent)
        self._session, self._load, self._refresh = session, load, refresh
        self.setToolTipsVisible(True)
        self.folder = self._add(
            "open_folder", "Open folder…", "Use the folder of a bioimage.io model.", self.ask_folder
        )
        self.nickname = self._add(
            "open_nickname",
            "Open by bioimage.io name…",
            "Download a model by its nickname, e.g. affable-shark.",
            self.ask_nickname,
        )
        self.addSeparator()
        self.rename = self._add(
            "rename_model", "Rename…", "Give the file of the model another name.", self.ask_name
        )
        self.remove = self._add(
            "remove_model",
            "Remove…",
            "Put the model's file into the trash; of a file elsewhere only forget it.",
            self.ask_removal,
        )
        self.reveal = self._add(
            "reveal_model", "Show its folder", "Open the folder of the file.", self.show_folder
        )
        self.aboutToShow.connect(self.follow)
        session.busy_changed.connect(self.follow)
        self.follow()

    def follow(self, _: bool = False) -> None:
        """Offer what can be done with the model in use."""
        model, is_busy = self._session.model, self._session.is_busy
        is_own = model is not None and is_own_file(model.path)
        self.folder.setEnabled(not is_busy)
        self.nickname.setEnabled(not is_busy)
        self.rename.setEnabled(is_own and not is_busy)
        self.remove.setEnabled(model is not None and not is_busy and not is_bundled(model.path))
        self.reveal.setEnabled(model is not None and model.path.exists())

    def ask_folder(self) -> None:
        """Ask for a folder and open it."""
        folder = QFileDialog.getExistingDirectory(self.parentWidget(), "Open a model's folder")
        if folder:
            self._load(folder)

    def ask_nickname(self) -> None:
        """Ask for the name of a bioimage.io model and open it."""
        name, is_given = QInputDialog.getText(
            self.parentWidget(), "Open by bioimage.io name", "Nickname, e.g. affable-shark:"
        )
        if is_given and name.strip():
            self._load(name.strip())

    def ask_name(self) -> None:
        """Ask for another name and rename the file."""
        model = self._session.model
        if model is None:
            return
        name, is_given = QInputDialog.getText(
            self.parentWidget(), "Rename", "New name:", text=model.path.stem
        )
        if is_given and name.strip() and name.strip() != model.path.stem:
            try:
                renamed = rename_model(model.path, name.strip())
            except UnetError as error:
                self._session.tell(str(error), warn=True)
                return
            self._refresh()
            self._load(str(renamed))

    def ask_removal(self) -> None:
        """Ask whether to remove the file, and do it; what is in use stays in use."""
        model = self._session.model
        if model is None:
            return
        if not is_own_file(model.path):
            forget_model(model.path)
            self._refresh()
            self._session.tell(f"{model.path.name} is off the list; the file itself stays.")
            return
        answer = QMessageBox.question(
            self.parentWidget(), "Remove", f"Put {model.path.name} into the trash?"
        )
        if answer == QMessageBox.StandardButton.Yes:
            self._remove(model.path)

    def show_folder(self) -> None:
        """Show the folder of the file in the system's file manager."""
        model = self._session.model
        if model is not None:
            QDesktopServices.openUrl(QUrl.fromLocalFile(str(model.path.parent)))

    def _remove(self, path: Path) -> None:
        """Put a file into the trash; where there is none, ask again and delete it."""
        if _moved_to_trash(path):
            _moved_to_trash(report_path(path))  # of the run that made it, if there is one
        else:
            answer = QMessageBox.question(
                self.parentWidget(),
                "Remove",
                f"There is no trash for {path.name}. Delete it for good?",
            )
            if answer != QMessageBox.StandardButton.Yes:
                return
            try:
                remove_model(path)
            except UnetError as error:
                self._session.tell(str(error), warn=True)
                return
        self._refresh()
        self._session.tell(f"{path.name} was removed. It stays in use until you choose another.")

    def _add(self, name: str, text: str, tooltip: str, action: Callable[[], None]):
        """Add an entry."""
        entry = self.addAction(text)
        entry.setObjectName(name)
        entry.setToolTip(tooltip)
        entry.triggered.connect(lambda _=False: action())
        return entry


def _moved_to_trash(path: Path) -> bool:
    """Put a file into the system's trash."""
    moved = QFile.moveToTrash(str(path))
    return bool(moved[0] if isinstance(moved, tuple) else moved)
