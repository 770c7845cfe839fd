"""``finetune``: a model learns from a folder of images and their labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_unet.cli.files import pair_files
from napari_unet.cli.masks import read_labels
from napari_unet.cli.options import given, segment_settings
from napari_unet.errors import LabelsError, ModelError, SettingError, UnetError
from napari_unet.files.atomic import check_writable
from napari_unet.files.images import read_image
from napari_unet.models.library import weights_path
from napari_unet.settings import FinetuneSettings, checked

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from napari_unet.cli.output import Console
    from napari_unet.models.model import Model
    from napari_unet.runs.samples import Sample

SHOWN = ("ap50", "f1", "iou", "missed", "spurious", "merged", "split")


def run_finetune(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Fine-tune a model and save it, unless it has become worse."""
    from napari_unet.models.model import Model, load_model, save_model
    from napari_unet.runs.finetune import finetune_steps
    from napari_unet.runs.progress import drive
    from napari_unet.runs.report import write_report

    if options.resume:
        raise SettingError("Resuming a stopped run is not there yet. Start it without --resume.")
    out = weights_path(options.out)
    check_writable(out)
    model = load_model(options.model)
    segment = segment_settings(options, model.card)
    settings = finetune_settings(options)
    samples = _read_samples(options, model, console)
    console.say(f"{len(samples)} labelled planes; fine-tuning {model.card.name}.")
    result = drive(finetune_steps(model, samples, settings, segment), progress=console.progress)
    _show(result.report, console)
    console.say(result.verdict)
    written: dict[str, Any] = {"outcome": result.outcome, "verdict": result.verdict}
    if result.outcome != "not better":
        name = out.stem
        path = save_model(Model(result.model.net, result.model.card.replace(name=name)), out)
        report = write_report(path.with_suffix(".json"), result.report)
        console.say(f"-> {path}\n-> {report}")
        written |= {"out": path, "report_file": report}
    else:
        console.problem(f"The model was not better than {model.card.name}; {out} was not written.")
    return {**written, "report": result.report}


def finetune_settings(options: argparse.Namespace) -> FinetuneSettings:
    """Build the settings from the options; steps replace the time budget.

    Raises
    ------
    SettingError
        If a value is out of its range.
    """
    values = given(options, FinetuneSettings)
    if "steps" in values:
        values.setdefault("seconds", None)
    return checked(FinetuneSettings, values)


def _read_samples(options: argparse.Namespace, model: Model, console: Console) -> list[Sample]:
    """Read all pairs; a bad one is told and left out."""
    found = pair_files(Path(options.images).expanduser(), Path(options.labels).expanduser())
    for path in found.alone:
        console.note(f"{path}: no partner of this name, left out.")
    samples: list[Sample] = []
    for image, labels in found.pairs:
        try:
            samples += _planes(image, labels, options.axes, model)
        except UnetError as error:
            console.problem(f"{image}: {error} Left out.")
    if not samples:
        raise LabelsError("None of the pairs could be used, so there is nothing to learn from.")
    return samples


def _planes(image: Path, labels: Path, axes: str | None, model: Model) -> Iterator[Sample]:
    """Read each plane of an image with its labels, all of it checked."""
    from napari_unet.arrays.axes import plan_planes
    from napari_unet.runs.samples import Sample

    spatial_dims = model.card.architecture.spatial_dims
    if spatial_dims != 2:
        raise ModelError("Models of volumes cannot be fine-tuned yet. Choose a 2D model.")
    source = read_image(image)
    truth = read_labels(read_image(labels))
    planes = plan_planes(source.array.shape, axes or source.axes, spatial_dims)
    if truth.shape != planes.out_shape:
        raise LabelsError(
            f"{labels.name} has the shape {truth.shape}, {planes.out_shape} was expected for "
            f"{image.name}. Give labels of the same size."
        )
    for index in planes.indices():
        yield Sample(planes.read(source.array, index), truth[planes.out_index(index)], None, None)


def _show(report: dict[str, Any], console: Console) -> None:
    """Write before and after below each other."""
    before, after = report.get("before"), report.get("after")
    if not before or not after:
        console.say("There were too few labels to judge the result on held-out ones.")
        return
    console.say("On held-out parts that the training has not seen:")
    console.table(
        [
            ("", *(name.upper() for name in SHOWN)),
            ("before", *(cell(before.get(name)) for name in SHOWN)),
            ("after", *(cell(after.get(name)) for name in SHOWN)),
        ]
    )


def cell(value: Any) -> str:
    """Say a score with three digits, a count as it is."""
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) and not value.is_integer() else f"{value:g}"
