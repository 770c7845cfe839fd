"""The small operations that a package does before and after its network."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from napari_unet.errors import ModelError

EPS = 1e-6  # what bioimage.io adds to a scale unless a package says otherwise
_LETTERS = {"batch": "b", "channel": "c", "index": "i", "time": "t"}
WHOLE_RANGE = (0.0, 100.0)


@dataclass(frozen=True)
class Step:
    """One operation of a package: its name and its options."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    def number(self, option: str, default: float | None = None) -> float:
        """Return an option that must be a finite number."""
        return _number(self, option, self.options.get(option, default))

    def numbers(self, option: str, default: float | None = None) -> list[float]:
        """Return an option that is one number, or a list with one per channel."""
        value = self.options.get(option, default)
        values = value if isinstance(value, list | tuple) else [value]
        if not values:
            raise ModelError(f"Step {self.name} of the package has no {option}. {ASK}")
        return [_number(self, option, each) for each in values]

    def bound(self, option: str) -> float | None:
        """Return an option that is a number, or None where there is none."""
        return None if self.options.get(option) is None else self.number(option)

    def axes(self) -> str | None:
        """Return the letters of the axes it runs over; None: all."""
        axes = self.options.get("axes")
        if axes is None:
            return None
        return "".join(_LETTERS.get(str(axis), str(axis)) for axis in axes)


ASK = "Ask who made the package, or open its weights file alone."


def _number(step: Step, option: str, value: Any) -> float:
    """Read a number; YAML takes 1e-6 for a text."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ModelError(
            f"Step {step.name} of the package has {option} = {value!r}, which is no number. {ASK}"
        )
    return number


def cannot(step: Step, reason: str) -> ModelError:
    """Make the error of a step that cannot be followed."""
    return ModelError(f"The package's step {step.name!r} cannot be followed here: {reason}. {ASK}")
