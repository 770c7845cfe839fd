"""``models`` and ``info``: what is installed, and one model's card."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from napari_unet.models import library, own_file
from napari_unet.models.assumptions import describe_assumption
from napari_unet.models.description import describe, measure

if TYPE_CHECKING:
    import argparse

    from napari_unet.cli.output import Console
    from napari_unet.models.library import Entry
    from napari_unet.models.opening import Reading

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
                    (entry.name, entry.origin, _megabytes(entry.path), _segments(entry))
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
            {
                "name": entry.name,
                "origin": entry.origin,
                "path": entry.path,
                "format": entry.format.text,
                "card": entry.card,
            }
            for entry in entries
        ],
        "damaged": [{"path": path, "reason": reason} for path, reason in damaged],
        "folder": library.user_folder(),
    }


def run_info(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Show the card of a model of any format, and in which ways its file can be read."""
    from napari_unet.models.opening import choose, find_weights, read_weights

    path, number = find_weights(options.model)
    readings = read_weights(path)
    chosen = choose(path, readings, number).assume(dict(options.assume or ()))
    model = chosen.load()
    facts = measure(model)
    facts["sha256"] = None if path.is_dir() else own_file.checksum(path)
    rows = [*describe(model.card, facts), ("file", f"{path} ({_megabytes(path)})")]
    if len(readings) > 1:
        rows += [(f"reading {at}", _title(path, at, one)) for at, one in enumerate(readings, 1)]
    if model.card.source is not None:
        rows += [(f"--assume {one.name}", describe_assumption(one)) for one in chosen.assumptions]
    for name, value in rows:
        text = textwrap.fill(value, _LINE_CHARACTERS, break_long_words=False)
        text = textwrap.indent(text, " " * _NAME_CHARACTERS)
        if len(name) < _NAME_CHARACTERS:
            console.say(name.ljust(_NAME_CHARACTERS) + text.lstrip())
        else:  # a long name has a line of its own
            console.say(f"{name}\n{text}")
    return {
        "path": path,
        "bytes": None if path.is_dir() else path.stat().st_size,
        **facts,
        "reading": number + 1,
        "readings": [one.title for one in readings],
        "assumptions": chosen.assumptions,
        "card": model.card,
    }


def _title(path: Any, number: int, reading: Reading) -> str:
    """Say how a reading differs and how it is asked for."""
    return f"{reading.title} (ask for it with {path.name}#{number})"


def _segments(entry: Entry) -> str:
    """Say what a model labels; of weights from elsewhere what they are."""
    return entry.format.text if entry.card is None else entry.card.segments


def _megabytes(path: Any) -> str:
    """Say the size of a file."""
    return "folder" if path.is_dir() else f"{path.stat().st_size / 1e6:.1f} MB"
