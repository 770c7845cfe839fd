"""Our card in files of other formats, written by :mod:`napari_unet.models.export`.

A network that was saved as TorchScript, ONNX or a package brings its card along, so that opening
it again assumes nothing. What the file itself says of the network wins over the card.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_unet.errors import SettingError
from napari_unet.models.assumptions import OUR_CARD
from napari_unet.models.card import Card
from napari_unet.settings import checked

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from napari_unet.models.found import Found

_OF_THE_FILE = frozenset({"architecture", "activation", "source", "source_sha256"})
_LONGEST = 10_000_000


def with_card(found: Found, card: str | dict[str, Any] | None, kept: Collection[str] = ()) -> Found:
    """Add what our card knows to what a reader has found.

    Parameters
    ----------
    found : Found
        A network in a file.
    card : str, dict or None
        Our card in that file, as JSON or as its values; None if there is none.
    kept : collection of str
        Fields that the file tells better than the card.

    Returns
    -------
    Found
        With nothing assumed that the card tells; unchanged if the card is none of ours or
        describes another network.
    """
    values = _values(card)
    told = {
        field: value
        for field, value in values.items()
        if field in Card.model_fields and field not in {*_OF_THE_FILE, *kept}
    }
    if not told:
        return found
    known = {**found.card, **told}
    known.setdefault("activation", values.get("activation", "sigmoid"))
    try:
        checked(Card, {**known, "architecture": found.architecture})
    except SettingError:
        return found
    assumed = {field: text for field, text in found.assumed.items() if field not in values}
    before = known.pop("assumed", {})
    return replace(
        found,
        card=known,
        assumed={**before, **assumed},
        tellers={**found.tellers, **dict.fromkeys(told, OUR_CARD)},
    )


def each_with_card(readings: Sequence[Found], card: str | None) -> list[Found]:
    """Add what our card knows to all readings of a file, and leave out those it contradicts.

    Parameters
    ----------
    readings : sequence of Found
        How the network in a file may be meant.
    card : str or None
        Our card in that file, as JSON; None if there is none.

    Returns
    -------
    list of Found
        As :func:`with_card` gives them. Where the file does not tell whether the network's values
        are probabilities already, only those remain that say what the card says.
    """
    told = [with_card(found, card) for found in readings]
    activation = _values(card).get("activation")
    meant = [
        replace(new, title="" if "activation" in old.assumed else new.title)
        for old, new in zip(readings, told, strict=True)
        if new is old or "activation" not in old.assumed or new.card["activation"] == activation
    ]
    return meant or told


def _values(card: str | dict[str, Any] | None) -> dict[str, Any]:
    """Read a card; empty if it is none."""
    if isinstance(card, str):
        try:
            card = json.loads(card) if len(card) < _LONGEST else None
        except (ValueError, RecursionError):
            card = None
    return card if isinstance(card, dict) else {}
