"""``convert``: from any weights that can be opened to any format that can be written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

    from napari_unet.cli.output import Console


def run_convert(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Open weights and write them in another format; say what had to be assumed."""
    from napari_unet.models.export import export_model, model_format
    from napari_unet.models.opening import load_model

    form = options.format or model_format(options.destination)
    model = load_model(options.source, assume=dict(options.assume or ()))
    path = export_model(
        model,
        options.destination,
        form,
        authors=options.author or (),
        licence=options.licence,
        cite=options.cite or (),
        description=options.description,
    )
    console.say(f"{path} ({path.stat().st_size / 1e6:.1f} MB, {form})")
    for field, text in model.card.assumed.items():
        console.note(f"{field}: {text}")
    return {"path": path, "format": form, "bytes": path.stat().st_size, "card": model.card}
