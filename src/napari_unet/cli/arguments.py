"""The commands and options of ``napari-unet``; help texts of settings come from their fields."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, get_args

from napari_unet.cli.options import INSTANCE_FIELDS, SEGMENT_FIELDS, add_fields
from napari_unet.settings import (
    ExportFormat,
    ExportSettings,
    FinetuneSettings,
    InstanceSettings,
    MaskKind,
    SegmentSettings,
)

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_MODEL = "nuclei"
SAMPLE_NAMES = ("nuclei", "tissue", "stack", "cell", "coins", "histology")
TRAINING_FIELDS = (
    "learning_rate",
    "weight_decay",
    "batch",
    "crop_px",
    "frozen_levels",
    "batch_norm",
    "correction_weight",
    "held_out",
    "flips",
    "zoom",
    "rotation_degrees",
    "elastic_px",
    "grey_values",
    "seed",
)

_EPILOG = "Exit status: 0 done, 1 an error (told on standard error), 2 wrong usage."


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands.

    Returns
    -------
    argparse.ArgumentParser
        Its result has ``command``, ``run`` (module and function), ``json`` and ``debug``.
    """
    parser = argparse.ArgumentParser(
        prog="napari-unet",
        description="Segment images with a U-Net, correct, fine-tune, export.",
        epilog=_EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, help="show the version and end")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for add in (
        _add_demo,
        _add_open,
        _add_models,
        _add_info,
        _add_segment,
        _add_finetune,
        _add_evaluate,
        _add_export,
        _add_doctor,
    ):
        add(commands.add_parser)
    return parser


class _Version(argparse.Action):
    """Look the version up only when it is asked for."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "nargs": 0})

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from napari_unet import __version__

        parser.exit(message=f"napari-unet {__version__}\n")


def _command(add: Callable[..., argparse.ArgumentParser], name: str, run: str, text: str) -> Any:
    """Start a command with what all commands have."""
    parser = add(name, help=text, description=text, epilog=_EPILOG, allow_abbrev=False)
    parser.set_defaults(run=run)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object on standard output, nothing else"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _add_demo(add: Callable[..., argparse.ArgumentParser]) -> None:
    text = "Run the whole loop on a generated image: segment, correct, fine-tune, export."
    parser = _command(add, "demo", "demo:run_demo", text)
    parser.add_argument(
        "--out", metavar="DIR", default="demo", help="where to write; default: demo"
    )
    parser.add_argument("--gui", action="store_true", help="show the result in napari")
    _add_budget(parser)
    add_fields(parser, FinetuneSettings, "seed")
    add_fields(parser, SegmentSettings, "device")


def _add_open(add: Callable[..., argparse.ArgumentParser]) -> None:
    parser = _command(add, "open", "window:run_open", "Open napari with the U-Net dock.")
    parser.add_argument("images", metavar="IMAGE", nargs="*", help="image files to open")
    parser.add_argument("--model", metavar="M", help="name or file of the model to start with")
    parser.add_argument("--sample", choices=SAMPLE_NAMES, help="open a sample image")


def _add_models(add: Callable[..., argparse.ArgumentParser]) -> None:
    _command(add, "models", "models:run_models", "List the installed models.")


def _add_info(add: Callable[..., argparse.ArgumentParser]) -> None:
    parser = _command(
        add, "info", "models:run_info", "Show the card of a model: what it eats and gives."
    )
    parser.add_argument("model", metavar="MODEL", help="name or file of the model")


def _add_segment(add: Callable[..., argparse.ArgumentParser]) -> None:
    text = "Segment images and write their masks as <name>_labels.tif."
    parser = _command(add, "segment", "segment:run_segment", text)
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="image files or folders of them")
    _add_model(parser)
    parser.add_argument("--out", metavar="DIR", required=True, help="folder for the masks")
    parser.add_argument(
        "--probability", action="store_true", help="also write <name>_probability.tif"
    )
    parser.add_argument(
        "--format",
        action="append",
        choices=get_args(ExportFormat),
        help="file format of the masks, may be repeated; default: TIFF for ImageJ",
    )
    _add_segmenting(parser)


def _add_finetune(add: Callable[..., argparse.ArgumentParser]) -> None:
    text = "Let a model learn from images and their labels, which are paired by name."
    parser = _command(add, "finetune", "finetune:run_finetune", text)
    _add_model(parser)
    parser.add_argument("--images", metavar="DIR", required=True, help="folder of images")
    parser.add_argument(
        "--labels", metavar="DIR", required=True, help="folder of labels, 0 is background"
    )
    parser.add_argument(
        "--out", metavar="FILE", required=True, help="where to save the model (.safetensors)"
    )
    parser.add_argument("--resume", action="store_true", help=argparse.SUPPRESS)  # not there yet
    _add_budget(parser)
    group = parser.add_argument_group("how it learns")
    add_fields(group, FinetuneSettings, *TRAINING_FIELDS)
    _add_segmenting(parser)


def _add_evaluate(add: Callable[..., argparse.ArgumentParser]) -> None:
    text = "Judge masks against the truth: files, or folders paired by name."
    parser = _command(add, "evaluate", "masks:run_evaluate", text)
    parser.add_argument("pred", metavar="PRED", help="masks to be judged")
    parser.add_argument("truth", metavar="TRUTH", help="true masks")
    parser.add_argument(
        "--volumes",
        action="store_true",
        help="objects of stacks are volumes; without it each plane is judged on its own",
    )


def _add_export(add: Callable[..., argparse.ArgumentParser]) -> None:
    parser = _command(add, "export", "masks:run_export", "Write labels in another format.")
    parser.add_argument("labels", metavar="LABELS", help="file of labels")
    parser.add_argument("--out", metavar="FILE", required=True, help="the mask")
    text = f"{ExportSettings.model_fields['format'].description} Default: as the name ends."
    parser.add_argument("--format", choices=get_args(ExportFormat), help=text)
    text = f"{ExportSettings.model_fields['kind'].description} Default: instance."
    parser.add_argument("--kind", choices=get_args(MaskKind), help=text)
    parser.add_argument(
        "--image", metavar="IMAGE", help="image the labels belong to: its axes and pixel size"
    )
    parser.add_argument(
        "--pixel-size-um", type=float, metavar="UM", help="pixel size in micrometres"
    )


def _add_doctor(add: Callable[..., argparse.ArgumentParser]) -> None:
    text = "Look whether all that is needed is there, and say what mends what is not."
    _command(add, "doctor", "doctor:run_doctor", text)


def _add_model(parser: argparse.ArgumentParser) -> None:
    """Add the choice of a model."""
    parser.add_argument(
        "--model",
        metavar="M",
        default=DEFAULT_MODEL,
        help=f"name or file of the model; default: {DEFAULT_MODEL}",
    )


def _add_budget(parser: argparse.ArgumentParser) -> None:
    """Add the budget of a training: time or steps."""
    group = parser.add_mutually_exclusive_group()
    add_fields(group, FinetuneSettings, "seconds", "steps")


def _add_segmenting(parser: argparse.ArgumentParser) -> None:
    """Add how an image is given to the network and objects are found."""
    group = parser.add_argument_group("how it segments")
    group.add_argument(
        "--axes", metavar="A", help="axes of the images, e.g. TZCYX; default: as the file says"
    )
    add_fields(group, SegmentSettings, *SEGMENT_FIELDS)
    add_fields(group, InstanceSettings, *INSTANCE_FIELDS, default="the model's")
