"""The card of a model in a window: what is known of it, and the one place to change it.

On the left stands what the network and its file tell, and what had to be assumed; on the right
what a person may know better: first what the file leaves open of the network, one list for each
point, then the fields of the card. Above, a piece of the open image shows what a change does, as
soon as it is made. Nothing is saved before it makes sense: the sentence below the fields says what
does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QFormLayout,
    QFrame,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_unet.errors import SettingError
from napari_unet.models.assumptions import Assumption
from napari_unet.models.card import Card
from napari_unet.models.description import describe
from napari_unet.settings import Normalization
from napari_unet.widget.assumption_fields import AssumptionFields, who_tells
from napari_unet.widget.card_preview import CardPreview
from napari_unet.widget.fields import PROBLEM_COLOR, help_of
from napari_unet.widget.session import LoadedModel

NORMALIZATIONS = {
    "percentiles become 0 and 1": "percentile",
    "mean 0, standard deviation 1": "mean-std",
    "darkest 0, brightest 1": "min-max",
    "divided by a number": "divide",
    "fixed numbers for each channel": "fixed",
    "as they are": "none",
}
ACTIVATIONS = {
    "sigmoid: each output by itself": "sigmoid",
    "softmax: the outputs share 100 %": "softmax",
    "none: they are probabilities already": "none",
}
KINDS = {"objects, each with a number": "instance", "classes": "semantic"}
NUMBERS_OF = {
    "percentile": ("low", "high"),
    "divide": ("divisor",),
    "fixed": ("offsets", "scales"),
}
"""The fields that a way of scaling needs."""
NUMBER_LABELS = {
    "low": "Lower percentile",
    "high": "Upper percentile",
    "divisor": "Divided by",
    "offsets": "Subtracted",
    "scales": "Divided by",
}
FACTS_WIDTH_PX = 400
FIELDS_WIDTH_PX = 430
HEIGHT_PX = 640
SETTLED_MS = 350
"""After the last change, before the picture follows."""


class CardDialog(QDialog):
    """Shows a card and lets a person change it.

    Parameters
    ----------
    model : LoadedModel
        The model in use.
    can_try : bool
        Whether there is an image to show what a change does.
    preset : dict, optional
        Fields of the card that are set already, as plain values.
    parent : QWidget, optional
        The window it belongs to.
    """

    saved = Signal(object, object)
    """The changed fields, as plain values, and what was told of the network."""
    tried = Signal(object, object)
    """All fields as they are now, and what was told, to be tried on the open image."""

    def __init__(
        self,
        model: LoadedModel,
        *,
        can_try: bool = True,
        preset: dict[str, Any] | None = None,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setObjectName("card_dialog")
        self.setWindowTitle(f"Card of {model.card.name}")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._card = card = model.card
        self._scaling_rows: dict[str, tuple[QLabel, QLineEdit]] = {}
        self.facts = QLabel(facts_html(model))
        self.facts.setObjectName("model_card")
        self.facts.setToolTip("What the network and its file tell, and what had to be assumed.")
        self.facts.setWordWrap(True)
        self.facts.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.facts.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._can_try = can_try
        self.preview = CardPreview(has_image=can_try, parent=self)
        self.assumptions = AssumptionFields(_assumptions(model), self)
        self.told = QLabel(who_tells(_assumptions(model)))
        self.told.setWordWrap(True)
        self.assumptions.changed.connect(self._validate)
        self._settle = QTimer(self, singleShot=True, interval=SETTLED_MS)
        self._settle.timeout.connect(self._try)
        form = self._form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self.name = self._line("name", "Name", card.name)
        self.segments = self._line("segments", "Segments", card.segments)
        self.channels = self._line("input_channels", "Channels", _joined(card.input_channels))
        self.scaling = self._choice(
            "normalization", "Grey values", NORMALIZATIONS, card.normalization.kind
        )
        for field, label in NUMBER_LABELS.items():
            self._add_number(field, label)
        self.activation = self._choice("activation", "Outputs are", ACTIVATIONS, card.activation)
        self.outputs = self._line("outputs", "Names of outputs", _joined(card.outputs))
        self.kind = self._choice("labels", "Labels are", KINDS, card.labels)
        self.pixel_size = self._line("pixel_size_um", "Pixel size (µm)", _text(card.pixel_size_um))
        self.object_size = self._line(
            "object_size_px", "Object size (px)", _text(card.object_size_px)
        )
        self.training_data = self._line("training_data", "Trained on", card.training_data)
        self.licence = self._line("licence", "Licence", card.licence)
        self.authors = self._line("authors", "Authors", _joined(card.authors))
        self.cite = self._line("cite", "To cite", "; ".join(card.cite))
        self.problem = QLabel()
        self.problem.setObjectName("card_problem")
        self.problem.setWordWrap(True)
        self.problem.setStyleSheet(f"color: {PROBLEM_COLOR};")
        self.buttons = QDialogButtonBox(
            QDialogButtonBox.StandardButton.Save | QDialogButtonBox.StandardButton.Cancel
        )
        self.save = self.buttons.button(QDialogButtonBox.StandardButton.Save)
        self.save.setObjectName("save_card")
        self.save.setToolTip(
            "Keep the model with this card in your folder of models; a file elsewhere stays as it "
            "is."
        )
        self._lay_out()
        self.scaling.currentIndexChanged.connect(self._show_numbers)
        self.buttons.accepted.connect(self._on_save)
        self.buttons.rejected.connect(self.reject)
        self._preset(preset or {})
        self._show_numbers()
        self._validate()

    def follow(self, assumptions: list[Any]) -> None:
        """Show what is open as the file is read now.

        Parameters
        ----------
        assumptions : list
            Those of the file, as plain values.
        """
        self.assumptions.show_all([Assumption.model_validate(one) for one in assumptions])

    def changes(self) -> dict[str, Any]:
        """Return the fields that differ from the card.

        Returns
        -------
        dict
            Plain values by the names of the card's fields.

        Raises
        ------
        SettingError
            If a field does not make sense.
        """
        values = self._values()
        return {key: value for key, value in values.items() if value != self._plain(key)}

    # -- private ------------------------------------------------------------------------------

    def _lay_out(self) -> None:
        fields = QWidget()
        fields.setLayout(self._form)
        self._form.setContentsMargins(0, 0, 0, 0)
        left, right = QVBoxLayout(), QWidget()
        left.addWidget(self.preview)
        left.addWidget(_scrolled(self.facts, FACTS_WIDTH_PX), 1)
        stack = QVBoxLayout(right)
        stack.setContentsMargins(0, 0, 0, 0)
        if self.assumptions.has_any():
            stack.addWidget(QLabel("<b>What the tensors do not tell</b>"))
            stack.addWidget(self.told)
            stack.addWidget(self.assumptions)
            stack.addWidget(QLabel("<b>Card</b>"))
        stack.addWidget(fields)
        stack.addStretch(1)
        columns = QHBoxLayout()
        columns.addLayout(left, 1)
        columns.addWidget(_scrolled(right, FIELDS_WIDTH_PX), 1)
        layout = QVBoxLayout(self)
        layout.addLayout(columns, 1)
        layout.addWidget(self.problem)
        layout.addWidget(self.buttons)
        self.resize(FACTS_WIDTH_PX + FIELDS_WIDTH_PX + 40, HEIGHT_PX)

    def _line(self, field: str, label: str, text: str) -> QLineEdit:
        """Add a field of text."""
        line = QLineEdit(text)
        line.setCursorPosition(0)
        line.textChanged.connect(self._validate)
        self._add(line, field, label, help_of(Card, field))
        return line

    def _choice(self, field: str, label: str, choices: dict[str, str], value: str) -> QComboBox:
        """Add a field of a few values."""
        box = QComboBox()
        box.addItems(list(choices))
        box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        box.setMinimumContentsLength(12)
        box.setCurrentIndex(list(choices.values()).index(value))
        box.currentIndexChanged.connect(self._validate)
        self._add(box, field, label, help_of(Card, field))
        return box

    def _add_number(self, field: str, label: str) -> None:
        """Add a number, or one for each channel, that some ways of scaling need."""
        value = getattr(self._card.normalization, field)
        line = QLineEdit(
            ", ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else f"{value:g}"
        )
        line.textChanged.connect(self._validate)
        name = self._add(line, field, f"    {label}", help_of(Normalization, field))
        self._scaling_rows[field] = (name, line)

    def _add(self, widget: QWidget, field: str, label: str, tooltip: str) -> QLabel:
        """Put a field into the form; what was assumed is marked."""
        mark = " *" if field in self._card.assumed else ""
        name = QLabel(label + mark)
        why = self._card.assumed.get(field)
        widget.setToolTip(f"{tooltip}\nAssumed: {why}" if why else tooltip)
        widget.setObjectName(f"card_{field}")
        widget.setAccessibleName(label.strip())
        name.setBuddy(widget)
        self._form.addRow(name, widget)
        return name

    def _show_numbers(self) -> None:
        """Show the numbers that the chosen way of scaling needs."""
        needed = NUMBERS_OF.get(NORMALIZATIONS[self.scaling.currentText()], ())
        for field, widgets in self._scaling_rows.items():
            for widget in widgets:
                widget.setVisible(field in needed)

    def _values(self) -> dict[str, Any]:
        """Return all fields as plain values; what is not understood is told."""
        kind = NORMALIZATIONS[self.scaling.currentText()]
        numbers = {field: self._number(field) for field in NUMBERS_OF.get(kind, ())}
        normalization = self._card.normalization.replace(kind=kind, **numbers)
        return {
            "name": self.name.text().strip(),
            "segments": self.segments.text().strip() or "unknown",
            "input_channels": _names(self.channels.text(), _sign(self._card.input_channels)),
            "normalization": normalization.model_dump(mode="json"),
            "activation": ACTIVATIONS[self.activation.currentText()],
            "outputs": _names(self.outputs.text(), _sign(self._card.outputs)),
            "labels": KINDS[self.kind.currentText()],
            "pixel_size_um": _size(self.pixel_size.text(), "Pixel size"),
            "object_size_px": _size(self.object_size.text(), "Object size"),
            "training_data": self.training_data.text().strip() or "unknown",
            "licence": self.licence.text().strip() or "unknown",
            "authors": _names(self.authors.text(), _sign(self._card.authors)),
            "cite": _names(self.cite.text(), ";"),
        }

    def _plain(self, field: str) -> Any:
        """Return a field of the card as it was, as a plain value."""
        return self._card.model_dump(mode="json")[field]

    def _number(self, field: str) -> Any:
        """Read the number, or the numbers, of a way of scaling."""
        name, line = self._scaling_rows[field]
        numbers = [_as_number(text, name.text().strip()) for text in _names(line.text())]
        if isinstance(getattr(self._card.normalization, field), tuple):
            return numbers
        if len(numbers) != 1:
            raise SettingError(f"{name.text().strip()}: give one number.")
        return numbers[0]

    def _validate(self) -> None:
        """Say what does not make sense; Save follows."""
        if not hasattr(self, "save"):  # the fields are being made
            return
        try:
            values = self._values()
            if not values["name"]:
                raise SettingError("Give the model a name.")
            self._card.replace(**values)
        except SettingError as error:
            self.problem.setText(str(error))
        else:
            self.problem.setText("")
        is_well = not self.problem.text()
        self.save.setEnabled(is_well)
        if is_well and self._can_try:
            self.preview.wait()
            self._settle.start()

    def _try(self) -> None:
        """Ask what comes out with all that is set."""
        if self.save.isEnabled():
            self.tried.emit(self._values(), self.assumptions.values())

    def _preset(self, values: dict[str, Any]) -> None:
        """Set what was picked elsewhere: how grey values are scaled."""
        how = values.get("normalization")
        if how is None:
            return
        self.scaling.setCurrentIndex(list(NORMALIZATIONS.values()).index(how["kind"]))
        for field in NUMBERS_OF.get(how["kind"], ()):
            value = how[field]
            numbers = value if isinstance(value, list | tuple) else [value]
            self._scaling_rows[field][1].setText(", ".join(f"{number:g}" for number in numbers))

    def _on_save(self) -> None:
        changes, told = self.changes(), self.assumptions.values()
        if changes or told:
            self.saved.emit(changes, told)
        self.accept()


def _assumptions(model: LoadedModel) -> list[Assumption]:
    """Return what the file of a model leaves open."""
    return [Assumption.model_validate(one) for one in model.facts.get("assumptions", ())]


def facts_html(model: LoadedModel) -> str:
    """Lay out the card of a model as a table."""
    rows = describe(model.card, model.facts)
    known = [(name, text) for name, text in rows if not name.startswith(("assumed: ", "told: "))]
    told = [(name[6:], text) for name, text in rows if name.startswith("told: ")]
    assumed = [(name[9:], text) for name, text in rows if name.startswith("assumed: ")]
    table = "".join(
        f"<tr><td width='33%'><b>{escape(name)}</b></td><td>{escape(_breakable(text))}</td></tr>"
        for name, text in known
    )
    return (
        f"<table cellpadding='2' width='100%'>{table}</table>"
        f"{_notes('What you said', told, '')}{_notes('What was assumed', assumed, ' *')}"
    )


def _notes(heading: str, notes: list[tuple[str, str]], mark: str) -> str:
    """Lay out sentences under a heading; nothing if there are none."""
    lines = "".join(f"<p><b>{escape(name)}</b>{mark}: {escape(text)}</p>" for name, text in notes)
    return f"<h4>{heading}</h4>{lines}" if notes else ""


def _breakable(text: str) -> str:
    """Let long checksums wrap."""
    return " ".join(
        "\u200b".join(word[at : at + 16] for at in range(0, len(word), 16))
        for word in text.split(" ")
    )


def _scrolled(widget: QWidget, width_px: int) -> QScrollArea:
    """Put a widget into a column that scrolls."""
    area = QScrollArea()
    area.setWidget(widget)
    area.setWidgetResizable(True)
    area.setFrameShape(QFrame.Shape.NoFrame)
    area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    area.setMinimumWidth(width_px)
    return area


def _sign(names: Sequence[str]) -> str:
    """Return what parts names: commas, unless there are some in the names."""
    return ";" if any("," in name for name in names) else ","


def _joined(names: Sequence[str]) -> str:
    """Write names into a field."""
    return f"{_sign(names)} ".join(names)


def _names(text: str, parted_by: str = ",") -> list[str]:
    """Read names that commas part."""
    return [name.strip() for name in text.split(parted_by) if name.strip()]


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _size(text: str, label: str) -> float | None:
    """Read a size; nothing is unknown."""
    return _as_number(text, label) if text.strip() not in ("", "unknown") else None


def _as_number(text: str, label: str) -> float:
    """Read a number."""
    try:
        return float(text.strip())
    except ValueError as error:
        raise SettingError(f"{label}: {text.strip()!r} is no number. Write e.g. 0.5.") from error
