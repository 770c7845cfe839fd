"""Several answers to the same piece of an image, side by side: the person picks by looking."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QButtonGroup,
    QDialog,
    QDialogButtonBox,
    QFrame,
    QGridLayout,
    QLabel,
    QRadioButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_unet.models.card import Card
from napari_unet.widget.pictures import PICTURE_PX, answer, as_grey, picture

HEIGHT_PX = 680


class TrialDialog(QDialog):
    """Shows what each trial makes of a piece of an image.

    Parameters
    ----------
    groups : dict of str to list of str
        The titles of the trials, in their order, row by row under a heading.
    result : dict
        What the job "try_models" gave.
    image : ndarray, shape (Y, X)
        What they were tried on, grey.
    chosen : int
        The trial that is in use now.
    parent : QWidget, optional
        The window it belongs to.
    """

    picked = Signal(int)
    adjusted = Signal(int)
    """The trial whose single assumptions are to be changed, in the window of the card."""

    def __init__(
        self,
        groups: dict[str, list[str]],
        result: dict[str, Any],
        image: np.ndarray,
        chosen: int = 0,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setObjectName("trial_dialog")
        self.setWindowTitle("Which one is right?")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._result, self._grey = result, as_grey(image)
        self._group = QButtonGroup(self)
        self._group.idToggled.connect(self._follow)
        self.buttons = QDialogButtonBox(
            QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel
        )
        self.use = self.buttons.button(QDialogButtonBox.StandardButton.Ok)
        self.use.setText("Use this one")
        self.use.setObjectName("use_trial")
        self.use.setToolTip("Label the image with the one that is marked.")
        self.adjust = self.buttons.addButton(
            "Adjust this one…", QDialogButtonBox.ButtonRole.ActionRole
        )
        self.adjust.setObjectName("adjust_trial")
        self.adjust.setToolTip(
            "Change single assumptions of the one that is marked, and see what each change does."
        )
        self.adjust.clicked.connect(self._on_adjusted)
        self.buttons.accepted.connect(self._on_accepted)
        self.buttons.rejected.connect(self.reject)
        grid = self._lay_out(groups)
        button = self._group.button(chosen)
        if button is not None and button.isEnabled():
            button.setChecked(True)
        self._follow()
        columns = max(map(len, groups.values())) + 1
        self.resize(
            columns * (PICTURE_PX + grid.spacing()) + 80,
            min(HEIGHT_PX, len(groups) * (PICTURE_PX + 90) + 80),
        )

    def pick(self, number: int) -> None:
        """Choose a trial, as a click on it does."""
        self._group.button(number).setChecked(True)

    def _lay_out(self, groups: dict[str, list[str]]) -> QGridLayout:
        """Put the image to the left, the trials row after row beside it."""
        grid = QGridLayout()
        grid.setSpacing(10)
        seen = QVBoxLayout()
        seen.addWidget(picture(np.repeat(self._grey[..., None], 3, -1)))
        seen.addWidget(self._hint(), 1)
        grid.addLayout(seen, 1, 0)
        number = 0
        for row, (heading, titles) in enumerate(groups.items()):
            if heading:
                grid.addWidget(QLabel(f"<b>{escape(heading)}</b>"), 2 * row, 1, 1, -1)
            for column, title in enumerate(titles, start=1):
                grid.addWidget(self._trial(number, title), 2 * row + 1, column)
                number += 1
        grid.setRowStretch(2 * len(groups), 1)
        grid.setColumnStretch(max(map(len, groups.values())) + 1, 1)
        inner = QWidget()
        inner.setLayout(grid)
        area = QScrollArea()
        area.setWidget(inner)
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        layout = QVBoxLayout(self)
        layout.addWidget(area, 1)
        layout.addWidget(self.buttons)
        return grid

    def _hint(self) -> QLabel:
        """Say what the pictures mean."""
        hint = QLabel(
            "The image as you see it. Beside it, what would be labelled is orange. Pick the one "
            "that marks your objects."
        )
        hint.setWordWrap(True)
        hint.setMaximumWidth(PICTURE_PX)
        hint.setAlignment(Qt.AlignmentFlag.AlignTop)
        return hint

    def _trial(self, number: int, title: str) -> QWidget:
        """Build the picture of one trial with the button that picks it."""
        box = QWidget()
        layout = QVBoxLayout(box)
        layout.setContentsMargins(0, 0, 0, 0)
        button = QRadioButton(title)
        button.setObjectName(f"trial_{number}")
        button.setToolTip(f"Take this one: {title}.")
        self._group.addButton(button, number)
        probability = self._result.get(f"probability_{number}")
        if probability is None:
            button.setEnabled(False)
            why = QLabel(self._result.get("problems", {}).get(str(number), "It gave no answer."))
            why.setWordWrap(True)
            why.setFixedWidth(PICTURE_PX)
            layout.addWidget(why)
            layout.addWidget(button)
        else:
            card = Card.model_validate(self._result["cards"][str(number)])
            rgb, share = answer(self._grey, card, probability)
            layout.addWidget(picture(rgb))
            layout.addWidget(button)
            layout.addWidget(QLabel(f"{share:.0%} of it labelled"))
        layout.addStretch(1)
        return box

    def _follow(self, *_: Any) -> None:
        """Let the button follow the choice."""
        self.use.setEnabled(self._group.checkedId() >= 0)
        self.adjust.setEnabled(self._group.checkedId() >= 0)

    def _on_accepted(self) -> None:
        self.picked.emit(self._group.checkedId())
        self.accept()

    def _on_adjusted(self) -> None:
        self.adjusted.emit(self._group.checkedId())
        self.reject()
