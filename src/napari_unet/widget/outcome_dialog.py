"""Before and after: what a retraining has brought, side by side, and what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QGridLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

if TYPE_CHECKING:
    from napari_unet.widget.comparison import Comparison

SHOWN_SCORES = (
    ("ap50", "AP at IoU 0.5", "{:.2f}", "Found / (found + missed + made up), 0 to 1."),
    ("missed", "Missed", "{:.0f}", "Objects without a label."),
    ("spurious", "Spurious", "{:.0f}", "Labels where there is no object."),
    ("merged", "Merged", "{:.0f}", "Labels over several objects."),
    ("split", "Split", "{:.0f}", "Objects under several labels."),
    ("iou", "Pixel IoU", "{:.2f}", "Share of object pixels both agree on, 0 to 1."),
)
OUTCOMES = {
    "better": "Better",
    "not better": "Not better",
    "cannot judge": "It cannot be judged yet",
}
WIDTH_PX = 400


class OutcomeDialog(QDialog):
    """Shows the scores of the old and the new model on held-out labels.

    It stays open beside the image as long as the person likes.

    Parameters
    ----------
    result : dict
        What the job gave: outcome, verdict, before and after.
    names : tuple of str
        Of the old and the new model.
    used : str
        Name of the model in use.
    comparison : Comparison or None
        To look at both on the open image; None if there is no old model any more.
    parent : QWidget, optional
        The window it belongs to.
    """

    used_new = Signal()
    went_back = Signal()

    def __init__(
        self,
        result: dict[str, Any],
        names: tuple[str, str],
        used: str,
        comparison: Comparison | None = None,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setObjectName("outcome_dialog")
        self.setWindowTitle("Before and after")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setMinimumWidth(WIDTH_PX)
        self._comparison, self._outcome, self._names = comparison, result["outcome"], names
        self._has_old = comparison is not None
        self.headline = QLabel(objectName="outcome_headline", wordWrap=True)
        verdict = QLabel(result["verdict"], objectName="verdict", wordWrap=True)
        verdict.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        layout = QVBoxLayout(self)
        layout.addWidget(self.headline)
        layout.addWidget(verdict)
        if result.get("before") and result.get("after"):
            layout.addLayout(_table(result["before"], result["after"], names))
        if comparison is not None:
            layout.addSpacing(6)
            layout.addWidget(comparison)
        self.switch = QPushButton(objectName="outcome_switch")
        self.switch.clicked.connect(self._on_switch)
        self.tell_used(used)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        buttons.addButton(self.switch, QDialogButtonBox.ButtonRole.ActionRole)
        buttons.rejected.connect(self.close)
        layout.addSpacing(6)
        layout.addWidget(buttons)
        self.finished.connect(lambda _: self._end())

    def tell_used(self, name: str) -> None:
        """Say which model is in use by now, and offer the other one."""
        old, new = self._names
        self._is_taken = name == new
        self.headline.setText(f"<h3>{headline(self._outcome, self._names, name)}</h3>")
        anyway = "" if self._outcome == "better" else " anyway"
        self.switch.setText(f"Back to {old}" if self._is_taken else f"Use {new}{anyway}")
        self.switch.setEnabled(self._has_old or not self._is_taken)
        self.switch.setToolTip(
            "Use the model this one was retrained from. Nothing is deleted."
            if self._is_taken
            else "Switch to the retrained model."
        )

    def _on_switch(self) -> None:
        """Ask for the other model."""
        (self.went_back if self._is_taken else self.used_new).emit()
        self.close()

    def closeEvent(self, event: Any) -> None:
        """Take the comparison off the image with the dialog."""
        self._end()
        super().closeEvent(event)

    def _end(self) -> None:
        comparison, self._comparison = self._comparison, None
        if comparison is not None:
            comparison.end()


def headline(outcome: str, names: tuple[str, str], used: str) -> str:
    """Say in a few words what came of a retraining, and which model is in use.

    Parameters
    ----------
    outcome : str
        "better", "not better" or "cannot judge".
    names : tuple of str
        Of the old and the new model.
    used : str
        Name of the model in use: one of them, or another one since.

    Returns
    -------
    str
        One sentence.
    """
    old, new = names
    is_better = outcome == "better"
    how = {
        new: "is in use now" if is_better else "is in use all the same",
        old: "is in use again" if is_better else "stays in use",
    }
    return f"{OUTCOMES[outcome]}: {used} {how.get(used, 'is in use')}."


def _table(
    before: dict[str, float], after: dict[str, float], names: tuple[str, str]
) -> QGridLayout:
    """Lay out before and after side by side."""
    grid = QGridLayout()
    grid.setHorizontalSpacing(18)
    grid.setColumnStretch(0, 1)
    heads = ("on held-out labels", f"before<br>({names[0]})", f"<b>after</b><br>({names[1]})")
    for column, text in enumerate(heads):
        grid.addWidget(_cell(text, is_number=column > 0), 0, column)
    shown = [line for line in SHOWN_SCORES if line[0] in before and line[0] in after]
    for row, (key, text, form, tooltip) in enumerate(shown, start=1):
        name = QLabel(text)
        name.setToolTip(tooltip)
        grid.addWidget(name, row, 0)
        grid.addWidget(_cell(form.format(before[key])), row, 1)
        grid.addWidget(_cell(f"<b>{form.format(after[key])}</b>"), row, 2)
    return grid


def _cell(text: str, *, is_number: bool = True) -> QLabel:
    cell = QLabel(text)
    if is_number:
        cell.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
    return cell
