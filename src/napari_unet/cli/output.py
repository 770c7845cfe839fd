"""What the command line says: results on standard output, all else on standard error.

With ``--json`` standard output holds one JSON object and nothing else; what libraries print in
the meantime goes to standard error.
"""

from __future__ import annotations

import io
import json
import math
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_unet.runs.progress import JudgedBefore, Note, Progress, StepDone, TileDone

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_unet.errors import UnetError

_SHORTEST_PAUSE_S = 0.1
_BAR_CHARACTERS = 24


class Console:
    """Where a command writes to.

    Parameters
    ----------
    as_json : bool
        Standard output is for the JSON object only.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.problems: list[str] = []
        self._out = sys.stdout
        self._err = sys.stderr
        for stream in (self._out, self._err):
            if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
                stream.reconfigure(errors="backslashreplace")  # any name can be written
        self._shown = 0.0
        self._line_width = 0

    def say(self, text: str = "") -> None:
        """Write a line of the result for people."""
        self.clear()
        if not self.as_json:
            self._out.write(text + "\n")
            self._out.flush()

    def table(self, rows: Sequence[Sequence[object]]) -> None:
        """Write rows with their columns below each other."""
        cells = [[str(cell) for cell in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        for row in cells:
            padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.say("  ".join(padded).rstrip())

    def note(self, text: str) -> None:
        """Write a line that is not part of the result."""
        self.clear()
        self._err.write(text + "\n")
        self._err.flush()

    def problem(self, text: str) -> None:
        """Tell what went wrong; the command ends with exit status 1."""
        self.problems.append(text)
        self.note(f"napari-unet: {text}")

    def left_out(self, path: Path, error: UnetError, outcome: str = "Skipped.") -> None:
        """Tell why one file of several could not be used; its name is told once."""
        text = str(error)
        if text.startswith(path.name):
            text = f"{path}{text.removeprefix(path.name)}"
        elif path.name not in text:
            text = f"{path}: {text}"
        self.problem(f"{text} {outcome}")

    def traceback(self) -> None:
        """Write the traceback of the exception that is being handled."""
        self.note(traceback.format_exc().rstrip())

    def progress(self, event: Progress) -> None:
        """Show how far a job is, on a terminal only; notes are always shown."""
        if isinstance(event, Note):
            self.note(event.text)
        elif isinstance(event, JudgedBefore):
            self.note(f"The model as it is scores {event.held_out:.3f} of 1 on what is kept aside.")
        elif self._err.isatty() and time.monotonic() - self._shown > _SHORTEST_PAUSE_S:
            self._show(_progress_line(event))

    def result(self, values: Mapping[str, Any]) -> None:
        """Write the JSON object, if that is wanted."""
        self.clear()
        if self.as_json:
            errors = {"errors": self.problems} if self.problems else {}
            text = json.dumps(plain({**values, **errors}), allow_nan=False, indent=2)
            self._out.write(text + "\n")
            self._out.flush()

    def clear(self) -> None:
        """Take the progress line away."""
        if self._line_width:
            self._err.write("\r" + " " * self._line_width + "\r")
            self._err.flush()
            self._line_width = 0

    def _show(self, line: str) -> None:
        self._err.write("\r" + line.ljust(self._line_width))
        self._err.flush()
        self._line_width = max(self._line_width, len(line))
        self._shown = time.monotonic()


def plain(value: Any) -> Any:
    """Turn values into what JSON knows; a number that is none becomes null."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "model_dump"):
        return plain(value.model_dump(mode="json"))
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _progress_line(event: Progress) -> str:
    """Say a progress in one line."""
    if isinstance(event, TileDone) and event.total:
        return f"{_bar(event.done / event.total)} tile {event.done} of {event.total}"
    if isinstance(event, StepDone):
        held_out = "" if event.held_out is None else f", held-out {event.held_out:.3f}"
        return (
            f"{_bar(event.fraction)} step {event.step}, loss {event.loss:.3f}{held_out}, "
            f"{event.seconds_left:.0f} s left"
        )
    return "..."


def _bar(fraction: float) -> str:
    """Draw a bar."""
    filled = round(min(max(fraction, 0.0), 1.0) * _BAR_CHARACTERS)
    return "[" + "#" * filled + "." * (_BAR_CHARACTERS - filled) + "]"
