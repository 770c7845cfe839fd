"""``demo``: the whole loop on a generated image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_unet.cli.finetune import SHOWN, cell
from napari_unet.cli.options import finetune_settings
from napari_unet.files.atomic import check_writable

if TYPE_CHECKING:
    import argparse

    from napari_unet.cli.output import Console
    from napari_unet.runs.demo import DemoResult


def run_demo(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Run the loop, write its files, and say whether it helped."""
    from napari_unet.cli.window import require_window
    from napari_unet.runs.demo import TRAINING, demo_steps
    from napari_unet.runs.progress import drive

    if options.gui:
        require_window()
    settings = finetune_settings(options, TRAINING)
    check_writable(options.out / "report.json")
    job = demo_steps(options.out, settings, seed=settings.seed)
    result = drive(job, progress=console.progress)
    console.say("\nOutside the corrected boxes, where nobody helped:")
    rows = [("before", result.before), ("after", result.after)]
    console.table(
        [
            ("", *(name.upper() for name in SHOWN)),
            *((name, *(cell(scores[key]) for key in SHOWN)) for name, scores in rows),
        ]
    )
    console.say(result.finetune.verdict)
    console.say("\nWritten:")
    console.table([(f"  {name}", path) for name, path in result.files.items()])
    if options.gui:
        _show(result)
    return {
        "before": result.before,
        "after": result.after,
        "corrected_objects": result.corrected_objects,
        "outcome": result.finetune.outcome,
        "verdict": result.finetune.verdict,
        "files": result.files,
    }


def _show(result: DemoResult) -> None:
    """Open the result in napari and wait until it is closed."""
    from napari_unet.files.images import read_image
    from napari_unet.widget import application

    image = read_image(result.files["image"])
    labels = {"before": result.labels_before, "after": result.labels_after}
    application.show_results(image, labels)
    application.run()
