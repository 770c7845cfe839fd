"""What files leave open whatever network they hold: how grey values come in, what goes out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_unet.models.assumptions import FILE, YOU, Assumption, check_told
from napari_unet.models.card import FOREGROUND
from napari_unet.models.description import describe_normalization
from napari_unet.settings import Normalization

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_unet.models.card import Card

OUTPUTS = {
    "sigmoid": "each output by itself",
    "softmax": "the outputs share 100 %",
    "none": "they are probabilities already",
}
SCALINGS = {
    "percentile": Normalization(),
    "mean-std": Normalization(kind="mean-std"),
    "min-max": Normalization(kind="min-max"),
    "divide-255": Normalization(kind="divide", divisor=255),
    "divide-65535": Normalization(kind="divide", divisor=65535),
    "none": Normalization(kind="none"),
}
_AS_IN_THE_CARD = "as-in-card"


def card_assumptions(
    card: Card, tellers: Mapping[str, str] | None = None
) -> tuple[Assumption, ...]:
    """List what may be told of a card beside its network.

    Parameters
    ----------
    card : Card
        Of a model.
    tellers : mapping of str to str, optional
        Who tells a field of it, if it is not the file itself.

    Returns
    -------
    tuple of Assumption
        ``output`` and ``normalization``; told by nobody where the card assumes them.
    """
    scalings = {name: describe_normalization(how) for name, how in SCALINGS.items()}
    scaling = next(
        (name for name, how in SCALINGS.items() if how == card.normalization), _AS_IN_THE_CARD
    )
    if scaling == _AS_IN_THE_CARD:
        scalings = {scaling: describe_normalization(card.normalization), **scalings}
    return (
        Assumption(
            name="output",
            topic="activation",
            value=card.activation,
            choices=OUTPUTS,
            told_by=_told_by(card, "activation", tellers or {}),
        ),
        Assumption(
            name="normalization",
            topic="normalization",
            value=scaling,
            choices=scalings,
            told_by=_told_by(card, "normalization", tellers or {}),
        ),
    )


def as_told(card: Card, values: Mapping[str, Any]) -> Card:
    """Change a card as a person says.

    Parameters
    ----------
    card : Card
        As it is.
    values : mapping of str to str
        Of ``output`` and ``normalization``.

    Returns
    -------
    Card
        What was told is no longer called assumed.

    Raises
    ------
    ModelError
        If a value is not possible.
    """
    told = check_told(values, card_assumptions(card))
    changes: dict[str, Any] = {}
    if "output" in told:
        changes["activation"] = told["output"]
        if "outputs" in card.assumed:
            changes["outputs"] = usual_outputs(len(card.outputs), told["output"])
    if told.get("normalization", _AS_IN_THE_CARD) != _AS_IN_THE_CARD:
        changes["normalization"] = SCALINGS[told["normalization"]].model_dump()
    return card.replace(**changes, **told_of(card, {_TOPICS[name] for name in told}, changes))


def usual_outputs(classes: int, activation: str) -> tuple[str, ...]:
    """Name outputs as they most often are.

    Parameters
    ----------
    classes : int
        How many there are.
    activation : str
        What turns them into probabilities.

    Returns
    -------
    tuple of str
        One output is the foreground; with softmax the first of several is the background.
    """
    if classes == 1:
        return (FOREGROUND,)
    if activation != "softmax":
        return (FOREGROUND, *(f"output {number}" for number in range(2, classes + 1)))
    if classes == 2:
        return ("background", FOREGROUND)
    return ("background", *(f"class {number}" for number in range(1, classes)))


def told_of(card: Card, topics: set[str], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``assumed`` and ``told`` of a card when a person has told some fields of it.

    Parameters
    ----------
    card : Card
        As it is.
    topics : set of str
        Fields that a person has told.
    changes : mapping of str to value
        Their new values, as far as they are other ones.

    Returns
    -------
    dict
        The two fields of the card.
    """
    said = card.replace(**changes)
    sentences = {
        "activation": (
            "The outputs are taken as probabilities."
            if said.activation == "none"
            else f"{said.activation.capitalize()} turns the outputs into probabilities."
        ),
        "normalization": f"Grey values: {describe_normalization(said.normalization)}.",
        "input_channels": f"The channels are {', '.join(said.input_channels)}.",
        "outputs": f"The outputs are {', '.join(said.outputs)}.",
        "labels": f"Labels are {said.labels}.",
    }
    mine = {topic: sentences[topic] for topic in topics if topic in sentences}
    return {
        "assumed": {topic: why for topic, why in card.assumed.items() if topic not in topics},
        "told": {**card.told, **mine},
    }


_TOPICS = {"output": "activation", "normalization": "normalization"}


def _told_by(card: Card, field: str, tellers: Mapping[str, str]) -> str:
    """Say who tells a field of a card."""
    if field in card.told:
        return YOU
    return "" if field in card.assumed else tellers.get(field, FILE)
