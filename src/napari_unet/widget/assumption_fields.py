"""What a file of weights leaves open, point by point: a list to choose from for each."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QFormLayout, QLabel, QSizePolicy, QWidget

from napari_unet.models.assumptions import OF_CARD, YOU, Assumption


class AssumptionFields(QWidget):
    """One list for each assumption about the network, that in use first.

    Parameters
    ----------
    assumptions : sequence of Assumption
        Those of a file; what belongs to the card is left out.
    parent : QWidget, optional
        The window it belongs to.
    """

    changed = Signal()

    def __init__(self, assumptions: Sequence[Assumption], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("assumptions")
        self._told: dict[str, str] = {}
        self._shown: tuple[str, ...] = ()
        self._boxes: dict[str, QComboBox] = {}
        self._form = QFormLayout(self)
        self._form.setContentsMargins(0, 0, 0, 0)
        self._form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self.show_all(assumptions)

    def has_any(self) -> bool:
        """Say whether anything is open."""
        return bool(self._boxes)

    def values(self) -> dict[str, str]:
        """Return what the person has told here.

        Returns
        -------
        dict of str to str
            Values by the names of assumptions.
        """
        return {name: value for name, value in self._told.items() if name in self._shown}

    def show_all(self, assumptions: Sequence[Assumption]) -> None:
        """Show what is open; an answer may open or close other questions.

        Parameters
        ----------
        assumptions : sequence of Assumption
            As the file is read with what was told so far.
        """
        mine = [one for one in assumptions if one.name not in OF_CARD]
        names = tuple(one.name for one in mine)
        if names == self._shown:
            return
        self._shown = names
        kept = self.focusWidget().objectName() if self.focusWidget() is not None else ""
        while self._form.rowCount():
            self._form.removeRow(0)
        self._boxes = {one.name: self._add(one) for one in mine}
        self.setVisible(bool(mine))
        for box in self._boxes.values():
            if box.objectName() == kept:
                box.setFocus()

    def _add(self, assumption: Assumption) -> QComboBox:
        """Add the list of one assumption, in which what is in use stands first."""
        box = QComboBox()
        box.setObjectName(f"assume_{assumption.name}")
        box.setAccessibleName(assumption.topic)
        box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        box.setMinimumContentsLength(12)
        box.setEditable(assumption.form != "choice")
        values = [assumption.value, *(v for v in assumption.choices if v != assumption.value)]
        for value in values:
            box.addItem(assumption.choices.get(value) or value, value)
        mark = "" if assumption.told_by else " *"
        label = QLabel(f"{assumption.topic[:1].upper()}{assumption.topic[1:]}{mark}")
        label.setWordWrap(True)
        label.setBuddy(box)
        box.setToolTip(_help(assumption))
        self._form.addRow(label, box)
        name = assumption.name
        if box.isEditable():
            box.currentTextChanged.connect(lambda text: self._tell(name, text.strip()))
        else:
            box.currentIndexChanged.connect(lambda _: self._tell(name, box.currentData()))
        return box

    def _tell(self, name: str, value: str) -> None:
        """Note what a person says."""
        self._told[name] = value
        self.changed.emit()


def who_tells(assumptions: Sequence[Assumption]) -> str:
    """Say in a line who tells what a file does not.

    Parameters
    ----------
    assumptions : sequence of Assumption
        Those of a file.

    Returns
    -------
    str
        E.g. that a star is assumed and the rest is as a family has it.
    """
    tellers = {one.told_by for one in assumptions if one.name not in OF_CARD}
    parts = ["* is assumed"] if "" in tellers else []
    parts += ["some of it you have told"] if YOU in tellers else []
    names = ", ".join(sorted(tellers - {"", YOU}))
    rest = "the rest is" if parts else "this is"
    parts += [f"{rest} as {names} has it"] if names else []
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}. Change what you know better."


def _help(assumption: Assumption) -> str:
    """Explain an assumption."""
    told = (
        "The file does not tell this; it is assumed."
        if not assumption.told_by
        else f"Told by {assumption.told_by}."
    )
    return f"{told} Change it if you know better, or see in the picture what a change does."
