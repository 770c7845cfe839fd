"""A model in words: the lines that the dock and the command line show of its card.

Needs no torch: what is computed from the network, e.g. its receptive field, is handed in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_unet.settings import Architecture

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_unet.models.card import Card, Learned
    from napari_unet.models.model import Model
    from napari_unet.settings import Normalization

UNKNOWN = "unknown"
_NAMED = 3
_NAMES = {
    "input_channels": "the channels",
    "normalization": "the scaling of grey values",
    "activation": "what the outputs are turned into",
    "outputs": "the outputs",
    "labels": "objects or classes",
}


def describe(card: Card, facts: Mapping[str, Any] | None = None) -> list[tuple[str, str]]:
    """Say what a model is, line by line.

    Parameters
    ----------
    card : Card
        Of the model.
    facts : mapping, optional
        What was computed from the network and its file: ``receptive_field`` and ``halo`` in
        pixels, ``parameters``, ``exact``, ``sha256``; as far as they are there.

    Returns
    -------
    list of (str, str)
        What it is about, and what is known of it.
    """
    known = facts or {}
    return [
        ("name", card.name),
        ("segments", card.segments),
        ("input", ", ".join(card.input_channels)),
        ("grey values", describe_normalization(card.normalization)),
        ("output", f"{', '.join(card.outputs)} ({card.activation}), {card.labels} labels"),
        ("network", describe_network(card)),
        ("norm", describe_norms(card)),
        ("receptive field", _receptive_field(known)),
        ("parameters", f"{known['parameters']:,}" if "parameters" in known else UNKNOWN),
        ("object size", _with_unit(card.object_size_px, "px")),
        ("pixel size", _with_unit(card.pixel_size_um, "um")),
        ("trained on", card.training_data),
        ("licence", card.licence),
        *([("authors", ", ".join(card.authors))] if card.authors else []),
        *(("cite", text) for text in card.cite),
        ("made from", card.parent or ("unknown" if card.source else "random weights")),
        ("made on", card.created or UNKNOWN),
        *((f"score {name}", _score(value)) for name, value in card.scores.items()),
        *((f"learned {step.created[:10]}", _learned(step)) for step in card.history),
        *([("source", card.source)] if card.source else []),
        *_checksums(card, known),
        *((f"told: {topic}", what) for topic, what in card.told.items()),
        *((f"assumed: {field}", why) for field, why in card.assumed.items()),
    ]


def measure(model: Model) -> dict[str, Any]:
    """Tell what is computed from the network of a model.

    Parameters
    ----------
    model : Model
        Any.

    Returns
    -------
    dict
        ``receptive_field``, ``halo`` and ``stride`` in pixels; ``exact``: whether tiles can give
        what the whole image gives; ``parameters``: how many numbers are learned.
    """
    net = model.net
    return {
        "receptive_field": net.receptive_field,
        "halo": net.halo,
        "stride": net.stride,
        "exact": net.exact,
        "parameters": sum(weight.numel() for weight in net.parameters()),
    }


def describe_network(card: Card) -> str:
    """Say in a few words which network a model is.

    Parameters
    ----------
    card : Card
        Of the model.

    Returns
    -------
    str
        E.g. ``U-Net 2D, 32-64-128, preset same-bn``.
    """
    shape = card.architecture
    if "widths" in type(shape).model_fields:
        levels = "-".join(map(str, getattr(shape, "widths", ())))
        preset = getattr(shape, "preset", None)
        named = f", preset {preset}" if preset else ""
        return f"U-Net {shape.spatial_dims}D, {levels}{named}"
    layers = len(getattr(shape, "nodes", ()))
    family = getattr(shape, "family", UNKNOWN)
    return f"{family} {shape.spatial_dims}D, {layers} layers"


def describe_norms(card: Card) -> str:
    """Say which norms stand between the layers of a network.

    Parameters
    ----------
    card : Card
        Of the model.

    Returns
    -------
    str
        E.g. ``batch`` or ``group (8 groups)``; several where there are several.
    """
    shape = card.architecture
    if isinstance(shape, Architecture):
        return shape.norm
    kinds = {
        f"group ({node.groups} groups)" if node.kind == "group" else node.kind
        for node in shape.nodes
        if node.op == "norm"
    }
    return ", ".join(sorted(kinds)) or "none"


def describe_lesson(step: Learned) -> str:
    """Say what a model learned from.

    Parameters
    ----------
    step : Learned
        One step of its history.

    Returns
    -------
    str
        E.g. ``2 regions on 1 plane, 14 objects``.
    """
    taught = _counted(step.planes, "plane")
    if step.regions:
        taught = f"{_counted(step.regions, 'region')} on {taught}"
    return f"{taught}, {_counted(step.objects, 'object')}" if step.objects else taught


def describe_normalization(how: Normalization) -> str:
    """Say how grey values are scaled.

    Parameters
    ----------
    how : Normalization
        Of a card.

    Returns
    -------
    str
        E.g. ``percentiles 1 to 99.8 become 0 to 1``.
    """
    texts = {
        "percentile": f"percentiles {how.low:g} to {how.high:g} become 0 to 1",
        "divide": f"divided by {how.divisor:g}",
        "mean-std": "mean 0 and standard deviation 1",
        "min-max": "darkest 0, brightest 1",
        "fixed": f"minus {_numbers(how.offsets)}, divided by {_numbers(how.scales)}",
        "none": "as they are",
    }
    text = texts[how.kind]
    if how.joint and how.kind in ("percentile", "mean-std", "min-max"):
        text += ", over all channels together"
    if how.limits != (None, None):
        text = f"cut off at {_bounds(how.limits)}, then {text}"
    if (how.gain, how.shift) != (1, 0):
        text += f", times {how.gain:g} plus {how.shift:g}"
    if how.clip != (None, None):
        text += f", cut off at {_bounds(how.clip)}"
    return text


def introduce(card: Card, facts: Mapping[str, Any]) -> str:
    """Say in a sentence or two what a file was recognised as, and what had to be assumed.

    Parameters
    ----------
    card : Card
        Of a model that was just opened.
    facts : mapping
        As for :func:`describe`.

    Returns
    -------
    str
        For the status line.
    """
    if card.source is None:
        return f"{card.name} is ready."
    inputs, classes = len(card.input_channels), len(card.outputs)
    text = (
        f"{card.source}: recognised as {describe_network(card)}, "
        f"{inputs} channel{'s' * (inputs != 1)} in, {classes} output{'s' * (classes != 1)}."
    )
    if not card.assumed:
        return text
    doubtful = [_NAMES.get(field, field) for field in card.assumed]
    named, more = doubtful[:_NAMED], len(doubtful) - _NAMED
    rest = f" and {more} more" if more > 0 else ""
    return f"{text} Assumed: {', '.join(named)}{rest}. See Card… for the reasons, and to change it."


def _learned(step: Learned) -> str:
    """Say what a model learned from corrections, and what came of it."""
    scores = [
        f"{name} {step.before[name]:.3f} to {value:.3f}"
        for name, value in step.after.items()
        if name in step.before
    ]
    shown = f" ({', '.join(scores[:_NAMED])})" if scores else ""
    return f"from {step.parent}: {describe_lesson(step)}, {step.outcome}{shown}"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _receptive_field(facts: Mapping[str, Any]) -> str:
    """Say how far the network looks."""
    if "receptive_field" not in facts:
        return UNKNOWN
    exact = "" if facts.get("exact", True) else "; looks at the whole tile, tiles are approximate"
    return f"{facts['receptive_field']} px{exact}"


def _checksums(card: Card, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name the checksums that are known."""
    texts = (("hash", facts.get("sha256")), ("hash of source", card.source_sha256))
    different = facts.get("sha256") != card.source_sha256
    return [
        (name, f"SHA-256 {text}") for name, text in texts if text and (different or name == "hash")
    ]


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _bounds(values: tuple[float | None, float | None]) -> str:
    return " and ".join(f"{value:g}" for value in values if value is not None)


def _score(value: float) -> str:
    """Say a score with three digits, a count as it is."""
    return f"{value:.0f}" if value > 1 else f"{value:.3f}"


def _with_unit(value: float | None, unit: str) -> str:
    """Say a size."""
    return UNKNOWN if value is None else f"{value:g} {unit}"
