"""All versions of the model in use: what each learned, what came of it, and back to any of them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QDialog,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_unet.models.card import main_score
from napari_unet.models.description import describe_lesson

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_unet.models.versions import Version
    from napari_unet.widget.comparison import Comparison

COLUMNS = ("Version", "Made", "Learned from", "Outcome", "AP before", "after")
SIZE_PX = (760, 380)
HINT = (
    "Each version learned from the one it stands under. The scores are those on the labels kept "
    "aside at that time, so before and after of one line can be compared, lines with each other "
    "only roughly: look at them on the image for that."
)


class VersionsDialog(QDialog):
    """The versions as a tree; one click on the button uses the marked one.

    Parameters
    ----------
    versions : list of Version
        Oldest first, see :func:`napari_unet.models.versions.list_versions`.
    in_use : Path
        The model in use.
    compare : callable
        Makes the comparison of the model in use with another version.
    parent : QWidget, optional
        The window it belongs to.
    """

    used = Signal(object)
    removed = Signal(object)

    def __init__(
        self,
        versions: list[Version],
        in_use: Path,
        compare: Callable[[Version, Version], Comparison],
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setObjectName("versions_dialog")
        self.setWindowTitle("Versions")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._in_use, self._compare = in_use, compare
        self._versions = versions
        self._comparison: Comparison | None = None
        self.tree = QTreeWidget(objectName="versions")
        self.tree.setHeaderLabels(COLUMNS)
        self.tree.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.tree.setAllColumnsShowFocus(True)
        self.tree.currentItemChanged.connect(self._follow)
        self.tree.itemDoubleClicked.connect(lambda *_: self._on_use())
        self.use = self._button("use_version", "Use this version", self._on_use)
        self.use.setToolTip("Segment with the marked version from now on.")
        self.look = self._button("compare_version", "Compare on the image", self._on_compare)
        self.look.setToolTip("Show on the image what the marked version labels otherwise.")
        self.remove = self._button("remove_version", "Delete", self._on_remove)
        self.remove.setToolTip("Delete a version that was set aside, for good.")
        self.close_button = self._button("close_versions", "Close", self.close)
        hint = QLabel(HINT, wordWrap=True)
        row = QHBoxLayout()
        row.addWidget(self.use)
        row.addWidget(self.look)
        row.addWidget(self.remove)
        row.addStretch(1)
        row.addWidget(self.close_button)
        self._layout = QVBoxLayout(self)
        self._layout.addWidget(self.tree, 1)
        self._layout.addWidget(hint)
        self._layout.addLayout(row)
        self.finished.connect(lambda _: self._end_comparison())
        self.fill(versions)

    def sizeHint(self) -> QSize:
        """Return the size at which all columns are seen, in pixels."""
        return QSize(*SIZE_PX)

    def fill(self, versions: list[Version]) -> None:
        """Show versions, each under the one it learned from; the one in use is marked."""
        self._versions = versions
        self.tree.clear()
        items: dict[tuple[str, ...], QTreeWidgetItem] = {}
        for number, version in enumerate(versions):
            item = QTreeWidgetItem(_texts(version, is_in_use=version.path == self._in_use))
            item.setData(0, Qt.ItemDataRole.UserRole, number)
            for column in (4, 5):
                item.setTextAlignment(column, Qt.AlignmentFlag.AlignRight)
            if version.learned is not None:
                item.setToolTip(2, describe_lesson(version.learned))
            parent = items.get(version.steps[:-1]) if version.steps else None
            if parent is None:
                self.tree.addTopLevelItem(item)
            else:
                parent.addChild(item)
            items[version.steps] = item
            if version.path is None:
                item.setDisabled(True)
            if version.path == self._in_use:
                for column in range(len(COLUMNS)):
                    font = item.font(column)
                    font.setBold(True)
                    item.setFont(column, font)
                self.tree.setCurrentItem(item)
        self.tree.expandAll()
        header = self.tree.header()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self._follow()

    def choose(self, name: str) -> None:
        """Mark a version, as a click on it does."""
        for item in self.tree.findItems(name, Qt.MatchFlag.MatchStartsWith | _RECURSIVE):
            if self._versions[item.data(0, Qt.ItemDataRole.UserRole)].name == name:
                self.tree.setCurrentItem(item)

    def closeEvent(self, event: Any) -> None:
        """Take the comparison off the image with the dialog."""
        self._end_comparison()
        super().closeEvent(event)

    # -- private ------------------------------------------------------------------------------

    def _button(self, name: str, text: str, action: Callable[[], Any]) -> QPushButton:
        button = QPushButton(text, objectName=name)
        button.setAutoDefault(False)
        button.clicked.connect(lambda _=False: action())
        return button

    def _marked(self) -> Version | None:
        item = self.tree.currentItem()
        return None if item is None else self._versions[item.data(0, Qt.ItemDataRole.UserRole)]

    def _current(self) -> Version | None:
        return next((v for v in self._versions if v.path == self._in_use), None)

    def _follow(self, *_: Any) -> None:
        """Offer what can be done with the marked version."""
        version = self._marked()
        is_other = version is not None and version.path not in (None, self._in_use)
        self.use.setEnabled(is_other)
        self.look.setEnabled(is_other and self._current() is not None)
        self.remove.setEnabled(is_other and version is not None and version.is_set_aside)
        self._end_comparison()

    def _on_use(self) -> None:
        version = self._marked()
        if version is not None and self.use.isEnabled():
            self.used.emit(version.path)
            self.close()

    def _on_compare(self) -> None:
        current, version = self._current(), self._marked()
        if current is None or version is None:
            return
        old, new = sorted((current, version), key=self._versions.index)
        self._end_comparison()
        self._comparison = self._compare(old, new)
        self._layout.insertWidget(2, self._comparison)
        self._comparison.show_labels("difference")

    def _on_remove(self) -> None:
        version = self._marked()
        if version is not None:
            self.removed.emit(version.path)

    def _end_comparison(self) -> None:
        comparison, self._comparison = self._comparison, None
        if comparison is not None:
            comparison.end()
            comparison.hide()
            comparison.deleteLater()


_RECURSIVE = Qt.MatchFlag.MatchRecursive


def _texts(version: Version, *, is_in_use: bool) -> list[str]:
    """Say what a version is, column by column."""
    state = " (in use)" if is_in_use else " (file removed)" if version.path is None else ""
    learned = version.learned
    if learned is None:
        return [f"{version.name}{state}", "", "where it began", "", "", ""]
    aside = ", set aside" if version.is_set_aside else ""
    before, after = _score(learned.before), _score(learned.after)
    return [
        f"{version.name}{state}",
        _local_time(learned.created),
        describe_lesson(learned),
        f"{learned.outcome}{aside}",
        before,
        after,
    ]


def _score(scores: dict[str, float]) -> str:
    """Return the score that judges, as text."""
    value = main_score(scores)
    return "" if value is None else f"{value:.2f}"


def _local_time(created: str) -> str:
    """Say when a version was made, as the clock on the wall shows it."""
    try:
        return datetime.fromisoformat(created).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return created
