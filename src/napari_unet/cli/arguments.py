"""The commands and options of ``napari-unet``; help texts of settings come from their fields."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import TYPE_CHECKING, Any, NoReturn, get_args

from napari_unet.cli.options import INSTANCE_FIELDS, SEGMENT_FIELDS, add_fields
from napari_unet.errors import UnetError, UsageError
from napari_unet.settings import (
    ExportFormat,
    ExportSettings,
    FinetuneSettings,
    InstanceSettings,
    MaskKind,
    SegmentSettings,
    ZarrFormat,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

DEFAULT_MODEL = "nuclei"
MODEL_FORMATS = ("safetensors", "state-dict", "torchscript", "onnx", "bioimageio")
SAMPLE_NAMES = ("nuclei", "tissue", "stack", "cell", "coins", "histology")
TRAINING_FIELDS = (
    "learning_rate",
    "optimizer",
    "momentum",
    "weight_decay",
    "l1",
    "dropout",
    "loss",
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
    "dimmed",
    "changed_crops",
    "seed",
    "precision",
    "devices",
)

_EPILOG = (
    "Exit status: 0 done; 1 an error, told on standard error; 2 wrong usage: what can be known to "
    "be wrong from the command line alone, e.g. a value out of its range."
)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands.

    Returns
    -------
    argparse.ArgumentParser
        Its result has ``command``, ``run`` (module and function), ``json`` and ``debug``.
    """
    parser = _Parser(
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
        _add_convert,
        _add_doctor,
    ):
        add(commands.add_parser)
    return parser


class _Parser(argparse.ArgumentParser):
    """Tells wrong usage as an error of ours, after one line of usage."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        raise UsageError(message)


class _Version(argparse.Action):
    """Look the version up only when it is asked for."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "nargs": 0})

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from napari_unet import __version__

        sys.stdout.write(f"napari-unet {__version__}\n")
        parser.exit()


def _command(add: Callable[..., Any], name: str, run: str, needs: str, text: str) -> Any:
    """Start a command with what all commands have; ``needs`` is what it cannot do without."""
    parser = add(
        name,
        help=text,
        description=text,
        epilog=_EPILOG,
        allow_abbrev=False,
        usage=" ".join(f"napari-unet {name} {needs} [OPTION ...]".split()),
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object on standard output, nothing else"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _add_demo(add: Callable[..., argparse.ArgumentParser]) -> None:
    text = "Run the whole loop on a generated image: segment, correct, fine-tune, export."
    parser = _command(add, "demo", "demo:run_demo", "", text)
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=_path,
        default="demo",
        help="where to write; default: demo",
    )
    parser.add_argument("--gui", action="store_true", help="show the result in napari")
    _add_budget(parser, default="220 steps, about a minute")
    add_fields(parser, FinetuneSettings, "seed")
    add_fields(parser, SegmentSettings, "device")


def _add_open(add: Callable[..., argparse.ArgumentParser]) -> None:
    text = "Open napari with the U-Net dock."
    parser = _command(add, "open", "window:run_open", "[IMAGE ...]", text)
    parser.add_argument(
        "images", metavar="IMAGE", type=_path, nargs="*", help="image files to open"
    )
    parser.add_argument("--model", metavar="M", help="name or file of the model to start with")
    parser.add_argument("--sample", choices=SAMPLE_NAMES, help="open a sample image")


def _add_models(add: Callable[..., argparse.ArgumentParser]) -> None:
    _command(add, "models", "models:run_models", "", "List the installed models.")


def _add_info(add: Callable[..., argparse.ArgumentParser]) -> None:
    text = "Show the card of a model: what it eats and gives."
    parser = _command(add, "info", "models:run_info", "MODEL", text)
    parser.add_argument("model", metavar="MODEL", help="name or file of the model")
    _add_assume(parser)


def _add_segment(add: Callable[..., argparse.ArgumentParser]) -> None:
    text = "Segment images and write their masks as <name>_labels.tif."
    needs = "IMAGE [IMAGE ...] --out DIR"
    parser = _command(add, "segment", "segment:run_segment", needs, text)
    parser.add_argument(
        "images", metavar="IMAGE", type=_path, nargs="+", help="image files or folders of them"
    )
    _add_model(parser)
    parser.add_argument(
        "--out", metavar="DIR", type=_path, required=True, help="folder for the masks"
    )
    parser.add_argument(
        "--probability", action="store_true", help="also write <name>_probability.tif (or .zarr)"
    )
    parser.add_argument(
        "--format",
        action="append",
        choices=(*get_args(ExportFormat), *get_args(ZarrFormat)),
        help=(
            "file format of the masks, may be repeated; default: TIFF for ImageJ; with zarr and "
            "ome-zarr images may be larger than memory, and a run that was broken off goes on"
        ),
    )
    parser.add_argument(
        "--forget-tiles",
        action="store_true",
        help="forget which tiles fitted when memory ran out earlier: begin with larger ones again",
    )
    _add_segmenting(parser)


def _add_finetune(add: Callable[..., argparse.ArgumentParser]) -> None:
    text = "Let a model learn from images and their labels, which are paired by name."
    needs = "--images DIR --labels DIR --out FILE"
    parser = _command(add, "finetune", "finetune:run_finetune", needs, text)
    _add_model(parser)
    parser.add_argument(
        "--images", metavar="DIR", type=_path, required=True, help="folder of images"
    )
    parser.add_argument(
        "--labels",
        metavar="DIR",
        type=_path,
        required=True,
        help="folder of labels, 0 is background",
    )
    parser.add_argument(
        "--checked",
        metavar="DIR",
        type=_path,
        help=(
            "folder of masks, one for each image and of the same name: where a mask is 0, the "
            "labels say nothing; default: all of each image is labelled"
        ),
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        type=_weights_path,
        required=True,
        help="where to save the model (.safetensors)",
    )
    parser.add_argument(
        "--keep-anyway",
        action="store_true",
        help="save the new model under this name even if it is not better on the held-out labels",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the same training where it was broken off",
    )
    _add_budget(parser)
    group = parser.add_argument_group("how it learns")
    add_fields(group, FinetuneSettings, *TRAINING_FIELDS)
    _add_segmenting(parser, but_for=TRAINING_FIELDS)


def _add_evaluate(add: Callable[..., argparse.ArgumentParser]) -> None:
    text = "Judge masks against the truth: files, or folders paired by name."
    parser = _command(add, "evaluate", "masks:run_evaluate", "PRED TRUTH", text)
    parser.add_argument("pred", metavar="PRED", type=_path, help="masks to be judged")
    parser.add_argument("truth", metavar="TRUTH", type=_path, help="true masks")
    parser.add_argument(
        "--volumes",
        action="store_true",
        help="objects of stacks are volumes; without it each plane is judged on its own",
    )


def _add_export(add: Callable[..., argparse.ArgumentParser]) -> None:
    text = "Write labels in another format."
    parser = _command(add, "export", "masks:run_export", "LABELS --out FILE", text)
    parser.add_argument("labels", metavar="LABELS", type=_path, help="file of labels")
    parser.add_argument("--out", metavar="FILE", type=_path, required=True, help="the mask")
    text = f"{ExportSettings.model_fields['format'].description} Default: as the name ends."
    parser.add_argument("--format", choices=get_args(ExportFormat), help=text)
    text = f"{ExportSettings.model_fields['kind'].description} Default: instance."
    parser.add_argument("--kind", choices=get_args(MaskKind), help=text)
    parser.add_argument(
        "--image",
        metavar="IMAGE",
        type=_path,
        help="image the labels belong to: its axes and pixel size",
    )
    parser.add_argument(
        "--pixel-size-um", type=float, metavar="UM", help="pixel size in micrometres"
    )


def _add_convert(add: Callable[..., argparse.ArgumentParser]) -> None:
    text = "Write a model for another program, from any weights that can be opened."
    parser = _command(add, "convert", "convert:run_convert", "MODEL FILE", text)
    parser.add_argument("source", metavar="MODEL", help="name or file of the model")
    parser.add_argument(
        "destination",
        metavar="FILE",
        type=_path,
        help=(
            "what to write; its ending says the format: .safetensors, .pth (state dict), .pt "
            "(TorchScript), .onnx, .zip (package for bioimage.io)"
        ),
    )
    parser.add_argument(
        "--format", choices=MODEL_FORMATS, help="the format, whatever the name ends in"
    )
    _add_assume(parser)
    group = parser.add_argument_group("for bioimage.io, where the model's card does not know it")
    group.add_argument(
        "--author", metavar="NAME", action="append", help="who made the model; may be repeated"
    )
    group.add_argument("--licence", metavar="SPDX", help="licence of the weights, e.g. CC-BY-4.0")
    group.add_argument(
        "--cite",
        metavar="TEXT",
        action="append",
        help="what to cite, with its DOI or address; may be repeated",
    )
    group.add_argument("--description", metavar="TEXT", help="what the model does, in a sentence")


def _add_doctor(add: Callable[..., argparse.ArgumentParser]) -> None:
    text = "Look whether all that is needed is there, and say what mends what is not."
    _command(add, "doctor", "doctor:run_doctor", "", text)


def _add_model(parser: argparse.ArgumentParser) -> None:
    """Add the choice of a model."""
    parser.add_argument(
        "--model",
        metavar="M",
        default=DEFAULT_MODEL,
        help=f"name or file of the model; default: {DEFAULT_MODEL}",
    )
    _add_assume(parser)


def _add_assume(parser: argparse.ArgumentParser) -> None:
    """Add what a person knows of weights whose file does not tell it."""
    parser.add_argument(
        "--assume",
        metavar="NAME=VALUE",
        action="append",
        type=_assumption,
        help=(
            "what the file of the weights does not tell, e.g. activation=elu or "
            "skip_order=skip-first; may be repeated; `napari-unet info` lists what is open"
        ),
    )


def _add_budget(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Add the budget of a training: time or steps."""
    group = parser.add_mutually_exclusive_group()
    add_fields(group, FinetuneSettings, "seconds", "steps", default=default)


def _add_segmenting(parser: argparse.ArgumentParser, but_for: Sequence[str] = ()) -> None:
    """Add how an image is given to the network and objects are found, but for what is there."""
    group = parser.add_argument_group("how it segments")
    group.add_argument(
        "--settings",
        metavar="REPORT",
        type=_path,
        help="JSON report of an earlier run whose settings are used where no option says otherwise",
    )
    group.add_argument(
        "--axes",
        metavar="A",
        type=_axes,
        help="axes of the images, e.g. TZCYX; default: as the file says",
    )
    fields = (name for name in SEGMENT_FIELDS if name not in but_for)
    add_fields(group, SegmentSettings, *fields)
    add_fields(group, InstanceSettings, *INSTANCE_FIELDS, default="the model's")


def _path(text: str) -> Path:
    """Read a path."""
    from napari_unet.files.paths import as_path

    with _told():
        return as_path(text)


def _weights_path(text: str) -> Path:
    """Read where a model is to be saved."""
    from napari_unet.models.own_file import weights_path

    with _told():
        return weights_path(text)


def _assumption(text: str) -> tuple[str, str]:
    """Read name=value; whether a file leaves it open is seen later."""
    name, sign, value = (part.strip() for part in text.partition("="))
    if not (name and sign and value):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no assumption. Write a name and a value, e.g. activation=elu."
        )
    return name, value


def _axes(text: str) -> str:
    """Read axes; whether they fit an image is seen later."""
    from napari_unet.arrays.axes import check_axes

    with _told():
        return check_axes(text, [1] * len(text))


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Let argparse tell what is wrong with a value."""
    try:
        yield
    except UnetError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
