"""What is in the description of a package, taken for nothing but what it is."""

from __future__ import annotations

import math
from typing import Any


def dicts(holder: dict[str, Any], field: str) -> list[dict[str, Any]]:
    """Return the entries of a list that are mappings."""
    entries = holder.get(field)
    return (
        [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    )


def as_dict(value: Any) -> dict[str, Any]:
    """Return a mapping, or an empty one in place of anything else."""
    return value if isinstance(value, dict) else {}


def text_of(value: Any) -> str:
    """Return a text of one line; empty in place of what is none."""
    return " ".join(str(value).split()) if isinstance(value, str | int | float) else ""


def positive(value: Any, default: float) -> float:
    """Return a number above 0, or the default."""
    number = finite(value)
    return number if number is not None and number > 0 else default


def finite(value: Any) -> float | None:
    """Return a finite number, or None."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
