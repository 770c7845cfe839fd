"""Beside the fields of a card: what the model makes of the open image, as it is and as set now."""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QGridLayout, QLabel, QWidget

from napari_unet.models.card import Card
from napari_unet.widget.fields import PROBLEM_COLOR
from napari_unet.widget.pictures import PICTURE_PX, answer, as_grey, picture

WAITING = "Looking at the image…"


class CardPreview(QWidget):
    """Two pictures of a piece of the image, and a line below each.

    Parameters
    ----------
    has_image : bool
        Whether there is an image to show.
    parent : QWidget, optional
        The window it belongs to.
    """

    def __init__(self, *, has_image: bool, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("card_preview")
        self._pictures = [QLabel(), QLabel()]
        self.lines = [QLabel("as it is"), QLabel("as set now")]
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        for column, (shown, line) in enumerate(zip(self._pictures, self.lines, strict=True)):
            shown.setFixedSize(PICTURE_PX, PICTURE_PX)
            shown.setAlignment(Qt.AlignmentFlag.AlignCenter)
            shown.setStyleSheet("background: rgba(128, 128, 128, 40);")
            line.setWordWrap(True)
            line.setFixedWidth(PICTURE_PX)
            line.setAlignment(Qt.AlignmentFlag.AlignTop)
            grid.addWidget(shown, 0, column)
            grid.addWidget(line, 1, column)
        grid.setColumnStretch(2, 1)
        hint = QLabel(
            "A piece of what is in view; what would be labelled is orange."
            if has_image
            else "Open an image to see here what each change does."
        )
        hint.setObjectName("preview_hint")
        hint.setWordWrap(True)
        grid.addWidget(hint, 2, 0, 1, 3)
        if not has_image:
            for widget in (*self._pictures, *self.lines):
                widget.hide()

    def wait(self) -> None:
        """Say that the right picture is of before the last change."""
        self._say(1, f"as set now. {WAITING}")

    def fail(self, place: int, why: str) -> None:
        """Say in the place of a picture why there is none.

        Parameters
        ----------
        place : int
            0 for the card as it is, 1 for the card as set now.
        why : str
            A sentence.
        """
        self._pictures[place].clear()
        self._say(place, why, is_problem=True)

    def show_answer(
        self, place: int, image: np.ndarray, card: dict[str, Any], probability: np.ndarray
    ) -> None:
        """Show what a model makes of the piece.

        Parameters
        ----------
        place : int
            0 for the card as it is, 1 for the card as set now.
        image : ndarray, shape (Y, X)
            The piece, grey.
        card : dict
            The card as plain values.
        probability : ndarray of float32, shape (classes, Y, X) or (classes, Z, Y, X)
            What the model answered.
        """
        rgb, share = answer(as_grey(image), Card.model_validate(card), probability)
        picture(rgb, self._pictures[place])
        self._say(place, f"{('as it is', 'as set now')[place]}: {share:.0%} labelled")

    def _say(self, place: int, text: str, *, is_problem: bool = False) -> None:
        self.lines[place].setText(text)
        self.lines[place].setStyleSheet(f"color: {PROBLEM_COLOR};" if is_problem else "")
