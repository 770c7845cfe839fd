"""Small help for building panels: names, tooltips and the sentence beside a wrong field."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox, Container, Label
from magicgui.widgets.bases import Widget
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QLabel, QScrollArea, QSizePolicy, QWidget

if TYPE_CHECKING:
    from napari_unet.settings import Settings

PROBLEM_COLOR = "#ff6b6b"
LONGEST_LABEL = 16
"""Characters of a label beside a control."""


def named(widget: Widget, name: str, tooltip: str) -> Any:
    """Give a control the name scripts rely on and the sentence that explains it."""
    widget.native.setObjectName(name)
    widget.tooltip = tooltip
    widget.native.setToolTip(tooltip)
    widget.native.setAccessibleName(widget.label or name)
    return widget


def help_of(settings: type[Settings], field: str) -> str:
    """Return the text of a settings field: it is the tooltip of its control."""
    return settings.model_fields[field].description or ""


def choice(
    name: str,
    label: str,
    tooltip: str,
    choices: Callable[[], Iterable[Any]] | list[Any],
    **options: Any,
) -> ComboBox:
    """Build a combo box that is no wider than its place, however long its choices are.

    Choices given as a function are asked for each time ``reset_choices`` is called.
    """
    listed = (lambda _: list(choices())) if callable(choices) else choices
    box = ComboBox(label=shortened(label), choices=listed, nullable=False, **options)
    box.native.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    box.native.setMinimumWidth(90)
    return named(box, name, tooltip)


def shortened(label: str) -> str:
    """Cut a label that would push the controls out of the dock."""
    return label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 1] + "…"


def text_line(name: str, text: str = "") -> Label:
    """Build a line of text that wraps and can be copied."""
    line = Label(value=text, label="", gui_only=True)
    native: QLabel = line.native
    native.setObjectName(name)
    native.setWordWrap(True)
    native.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
    return line


def problem_line(name: str) -> Label:
    """Build the line that says what is wrong with the field above it; hidden while all is well."""
    line = text_line(f"{name}_problem")
    line.native.setStyleSheet(f"color: {PROBLEM_COLOR};")
    line.visible = False
    return line


def show_problem(line: Label, text: str | None) -> bool:
    """Show or hide a problem; returns whether there is one."""
    line.value = text or ""
    line.visible = bool(text)
    return bool(text)


def scroll_to(control: Widget) -> None:
    """Bring a control into view in the scroll area around it, once it is laid out."""
    native: QWidget = control.native
    area: QWidget | None = native
    while area is not None and not isinstance(area, QScrollArea):
        area = area.parentWidget()
    if area is not None:
        timer = QTimer(native, singleShot=True)
        timer.timeout.connect(lambda: area.ensureWidgetVisible(native, 0, 0))
        timer.timeout.connect(timer.deleteLater)
        timer.start(0)


def column(*rows: Widget, labels: bool = True) -> Container:
    """Stack controls, each with its label to the left."""
    box = Container(widgets=rows, labels=labels)
    box.margins = (4, 2, 4, 2)
    return box


def row(*buttons: Widget) -> Container:
    """Lay buttons side by side, without labels."""
    box = Container(widgets=buttons, layout="horizontal", labels=False, label="")
    box.margins = (0, 0, 0, 0)
    return box
