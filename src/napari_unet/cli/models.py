"""``models`` and ``info``: what is installed, and one model's card."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from napari_unet.models import library

if TYPE_CHECKING:
    import argparse

    from napari_unet.cli.output import Console
    from napari_unet.models.card import Card

_NAME_CHARACTERS = 27
_LINE_CHARACTERS = 72


def run_models(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """List the models; a damaged file is told, it does not hide the others."""
    entries = library.list_models()
    damaged = library.list_damaged()
    if entries:
        console.table(
            [
                ("NAME", "FROM", "SIZE", "SEGMENTS"),
                *(
                    (entry.name, entry.origin, _megabytes(entry.path), entry.card.segments)
                    for entry in entries
                ),
            ]
        )
    else:
        console.say("There are no models.")
    for path, reason in damaged:
        console.note(f"{path}: {reason}")
    console.say(f"\nYour own models are in {library.user_folder()}")
    return {
        "models": [
            {"name": entry.name, "origin": entry.origin, "path": entry.path, "card": entry.card}
            for entry in entries
        ],
        "damaged": [{"path": path, "reason": reason} for path, reason in damaged],
        "folder": library.user_folder(),
    }


def run_info(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Show the card of a model."""
    path = library.find_model(options.model)
    card = library.read_card(path)
    for name, value in (*_rows(card), ("file", f"{path} ({_megabytes(path)})")):
        start = name.ljust(_NAME_CHARACTERS - 1) + " "
        text = textwrap.fill(value, _LINE_CHARACTERS, break_long_words=False)
        console.say(start + textwrap.indent(text, " " * len(start)).lstrip())
    return {"path": path, "bytes": path.stat().st_size, "card": card}


def _rows(card: Card) -> list[tuple[str, str]]:
    """Say the card of a model in lines."""
    net = card.architecture
    levels = "-".join(map(str, net.widths))
    rows = [
        ("name", card.name),
        ("segments", card.segments),
        ("input", ", ".join(card.input_channels)),
        ("grey values", _normalisation(card)),
        ("output", f"{', '.join(card.outputs)} ({card.activation}), {card.labels} labels"),
        ("network", f"U-Net {net.spatial_dims}D, {levels}, preset {net.preset or 'none'}"),
        ("object size", _with_unit(card.object_size_px, "px")),
        ("pixel size", _with_unit(card.pixel_size_um, "um")),
        ("trained on", card.training_data),
        ("licence", card.licence),
        ("made from", card.parent or "random weights"),
        ("made on", card.created or "unknown"),
    ]
    rows += [(f"score {name}", _score(value)) for name, value in card.scores.items()]
    return rows


def _normalisation(card: Card) -> str:
    """Say how grey values are scaled."""
    how = card.normalization
    if how.kind == "percentile":
        return f"percentiles {how.low:g} to {how.high:g} become 0 to 1"
    if how.kind == "divide":
        return f"divided by {how.divisor:g}"
    return how.kind


def _score(value: float) -> str:
    """Say a score with three digits, a count as it is."""
    return f"{value:.0f}" if value > 1 else f"{value:.3f}"


def _with_unit(value: float | None, unit: str) -> str:
    """Say a size."""
    return "unknown" if value is None else f"{value:g} {unit}"


def _megabytes(path: Any) -> str:
    """Say the size of a file."""
    return f"{path.stat().st_size / 1e6:.1f} MB"
