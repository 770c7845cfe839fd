"""Several answers to the same piece of an image, side by side: the person picks by looking."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QImage, QPixmap
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

from napari_unet.models.card import FOREGROUND, Card

PICTURE_PX = 190
TINT = np.array((255, 140, 0), np.float32)
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
    can_pick : bool
        Whether one of them is to be picked here, or they are only shown.
    parent : QWidget, optional
        The window it belongs to.
    """

    picked = Signal(int)

    def __init__(
        self,
        groups: dict[str, list[str]],
        result: dict[str, Any],
        image: np.ndarray,
        chosen: int = 0,
        *,
        can_pick: bool = True,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setObjectName("trial_dialog")
        self.setWindowTitle("Which one is right?")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._result, self._grey, self._can_pick = result, _grey(image), can_pick
        self._group = QButtonGroup(self)
        self._group.idToggled.connect(self._follow)
        self.buttons = QDialogButtonBox(
            QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel
        )
        self.use = self.buttons.button(QDialogButtonBox.StandardButton.Ok)
        self.use.setText("Use this one")
        self.use.setObjectName("use_trial")
        self.use.setToolTip("Label the image with the one that is marked.")
        self.use.setVisible(can_pick)
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
        seen.addWidget(_picture(np.repeat(self._grey[..., None], 3, -1)))
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
            "The image as you see it. Beside it, what would be labelled is orange."
            + (" Pick the one that marks your objects." if self._can_pick else "")
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
            foreground = foreground_of(card, np.asarray(probability))
            threshold = card.instances.threshold
            layout.addWidget(_picture(_tinted(self._grey, foreground, threshold)))
            share = float((foreground >= threshold).mean())
            layout.addWidget(button)
            layout.addWidget(QLabel(f"{share:.0%} of it labelled"))
        layout.addStretch(1)
        return box

    def _follow(self, *_: Any) -> None:
        """Let the button follow the choice."""
        self.use.setEnabled(self._group.checkedId() >= 0)

    def _on_accepted(self) -> None:
        self.picked.emit(self._group.checkedId())
        self.accept()


def foreground_of(card: Card, probability: np.ndarray) -> np.ndarray:
    """Return the probability that there is something, of one plane.

    Parameters
    ----------
    card : Card
        Says what the outputs are.
    probability : ndarray of float32, shape (classes, Y, X) or (classes, Z, Y, X)
        Of a volume the middle plane is taken.

    Returns
    -------
    ndarray of float32, shape (Y, X)
        In 0..1.
    """
    if probability.ndim > 3:
        probability = probability.reshape(len(probability), -1, *probability.shape[-2:])
        probability = probability[:, probability.shape[1] // 2]
    if FOREGROUND in card.outputs:
        return probability[card.outputs.index(FOREGROUND)]
    if len(probability) == 1:
        return probability[0]
    return np.clip(1 - probability[0], 0, 1)


def grey_plane(array: np.ndarray, axes: str, channels: tuple[int, ...] | None) -> np.ndarray:
    """Return one grey plane of an image to look at, shape (Y, X)."""
    image = np.asarray(array, np.float32)
    if "C" in axes:
        image = np.moveaxis(image, axes.index("C"), 0)
        image = (image[list(channels)] if channels else image).mean(axis=0)
    while image.ndim > 2:
        image = image[len(image) // 2]
    return image


def _grey(image: np.ndarray) -> np.ndarray:
    """Scale an image to 0..255 so that it can be seen."""
    values = np.nan_to_num(np.asarray(image, np.float32))
    low, high = np.percentile(values, (0.5, 99.5)) if values.size else (0, 1)
    return np.clip((values - low) / max(high - low, 1e-9), 0, 1) * 255


def _tinted(grey: np.ndarray, probability: np.ndarray, threshold: float) -> np.ndarray:
    """Lay over an image what would be labelled, the stronger the surer."""
    sure = np.clip((np.nan_to_num(probability) - threshold) / (1 - threshold), 0, 1)
    share = np.where(probability >= threshold, 0.35 + 0.4 * sure, 0)[..., None]
    return grey[..., None] * (1 - share) + TINT * share


def _picture(rgb: np.ndarray) -> QLabel:
    """Show an array (Y, X, 3) as a picture of a fixed size."""
    data = np.ascontiguousarray(np.clip(rgb, 0, 255).astype(np.uint8))
    height, width = data.shape[:2]
    image = QImage(data.data, width, height, 3 * width, QImage.Format.Format_RGB888).copy()
    picture = QLabel()
    picture.setFixedSize(PICTURE_PX, PICTURE_PX)
    picture.setAlignment(Qt.AlignmentFlag.AlignCenter)
    picture.setPixmap(
        QPixmap.fromImage(image).scaled(
            PICTURE_PX,
            PICTURE_PX,
            Qt.AspectRatioMode.KeepAspectRatio,
            Qt.TransformationMode.SmoothTransformation,
        )
    )
    return picture
