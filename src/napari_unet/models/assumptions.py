"""What a file does not tell and a person may know: each point has a name and the ways it may be.

The tensors of a network say how many channels a layer reads, not which function follows it. Such
points are decided by the family of the network where its names are known, else by a default; a
person who knows better says ``name=value``, on the command line, in Python or in the dock.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from napari_unet.errors import ModelError, shortened
from napari_unet.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

YOU = "you"
"""Who told what a person said."""
OUR_CARD, PACKAGE, FILE = "the card", "the package", "the file"
"""Who tells of a card what nobody assumed: our card in the file, a description, the network."""
OF_CARD = ("output", "normalization")
"""Names of what is open of a card, whatever network it is."""
_SIZE = r"[1-9]\d?(x[1-9]\d?){0,2}"


class Assumption(Settings):
    """A point that the file leaves open, how it is read, and how else it might be."""

    name: str = Field(description="What it is called in name=value, e.g. skip_order.")
    topic: str = Field(description="What it is about in words; the card tells it under this name.")
    value: str = Field(description="How it is read now: one of the choices, or a number.")
    choices: dict[str, str] = Field(description="What it may be, each with a few words on it.")
    form: Literal["choice", "number", "sizes"] = Field(
        "choice",
        description="Whether other numbers are possible, too, or several sizes like 2,1x2x2.",
    )
    told_by: str = Field(
        "",
        description="Who tells it: the family of the network, the file, a person; else a default.",
    )


def with_told(
    assumptions: Iterable[Assumption], names: Iterable[str], told_by: str
) -> tuple[Assumption, ...]:
    """Note who has told some points.

    Parameters
    ----------
    assumptions : iterable of Assumption
        All of them.
    names : iterable of str
        Of those that were told.
    told_by : str
        Who did.

    Returns
    -------
    tuple of Assumption
        In the same order.
    """
    mine = set(names)
    return tuple(one.replace(told_by=told_by) if one.name in mine else one for one in assumptions)


def check_told(values: Mapping[str, Any], assumptions: Sequence[Assumption]) -> dict[str, str]:
    """Check what a person says of a file against what it leaves open.

    Parameters
    ----------
    values : mapping of str to str or number
        By the names of assumptions.
    assumptions : sequence of Assumption
        Those of the file.

    Returns
    -------
    dict of str to str
        The same values as they are written.

    Raises
    ------
    ModelError
        If a name or a value is not possible; the sentence says which are.
    """
    known = {one.name: one for one in assumptions}
    checked = {}
    for name, value in values.items():
        if name not in known:
            possible = ", ".join(dict.fromkeys((*known, *OF_CARD)))
            raise ModelError(
                f"{shortened(str(name))} is nothing that these weights leave open. What can be "
                f"told is {possible}."
            )
        checked[name] = _checked_value(known[name], value)
    return checked


def _checked_value(assumption: Assumption, value: Any) -> str:
    """Return a value as it is written among the choices."""
    text = f"{value:g}" if isinstance(value, float) else str(value).strip()
    if text in assumption.choices or text == assumption.value:
        return text
    choices = list(assumption.choices)
    if assumption.form == "sizes" and re.fullmatch(rf"{_SIZE}( ?, ?{_SIZE})*", text):
        return text.replace(" ", "")
    if assumption.form == "number" and as_number(text) is not None:
        return text
    kinds = {
        "choice": "is not possible for these weights. Choose",
        "number": "is no number of 0 or more. Give one, e.g.",
        "sizes": "is no list of whole numbers from 1 to 99, or of some for each axis, as 1x2x2. "
        "Write e.g.",
    }
    said = " or ".join(filter(None, [", ".join(choices[:-1]), choices[-1]]))
    text = shortened(text)
    raise ModelError(f"{assumption.name}={text} {kinds[assumption.form]} {said}.")


def as_number(text: str) -> float | None:
    """Read a number of 0 or more.

    Parameters
    ----------
    text : str
        As written.

    Returns
    -------
    float or None
        None if it is none.
    """
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def describe_assumption(assumption: Assumption) -> str:
    """Say how a point is read and what else may be said.

    Parameters
    ----------
    assumption : Assumption
        Any.

    Returns
    -------
    str
        E.g. ``skip-first, told by you; else upsampled-first``.
    """
    others = [value for value in assumption.choices if value != assumption.value]
    told = f", told by {assumption.told_by}" if assumption.told_by else ""
    if assumption.form != "choice":
        others.append(f"any {assumption.form}")
    return f"{assumption.value}{told}; else {', '.join(others)}"
