"""``finetune``: a model learns from a folder of images and their labels."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from napari_unet.cli.files import pair_files
from napari_unet.cli.masks import read_labels
from napari_unet.cli.options import finetune_settings, segment_settings
from napari_unet.errors import Cancelled, FileError, LabelsError, ModelError, UnetError
from napari_unet.files.atomic import check_writable
from napari_unet.files.images import read_image

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_unet.cli.output import Console
    from napari_unet.models.model import Model
    from napari_unet.runs.samples import Sample

NOT_TAKEN = {"not better": "-not-better", "cannot judge": "-not-judged"}
"""What stands after the name of a model that the command does not vouch for."""
SHOWN = ("ap50", "f1", "iou", "missed", "spurious", "merged", "split")


def run_finetune(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Fine-tune a model and save it; one that is not better under another name, if not told to."""
    from napari_unet.models.model import Model, save_model
    from napari_unet.models.opening import load_model
    from napari_unet.runs.checkpoint import checkpoint_path
    from napari_unet.runs.finetune import finetune_steps
    from napari_unet.runs.progress import drive
    from napari_unet.runs.report import write_report

    out = options.out
    kept = checkpoint_path(out)
    _check_free(out, kept, options)
    model = load_model(options.model, assume=dict(options.assume or ()))
    segment = segment_settings(options, model.card)
    settings = finetune_settings(options)
    samples = _read_samples(options, model, segment.channels, console)
    console.say(f"{len(samples)} labelled planes; fine-tuning {model.card.name}.")
    job = finetune_steps(model, samples, settings, segment, checkpoint=kept, resume=options.resume)
    with _interrupted_when_ended():
        try:
            result = drive(job, progress=console.progress)
        except KeyboardInterrupt:
            job.close()
            if not kept.exists():
                raise
            raise Cancelled(
                f"Interrupted; what was learned so far is in {kept}. The same command with "
                "--resume goes on from there."
            ) from None
    _show(result.report, console)
    console.say(result.verdict)
    written: dict[str, Any] = {"outcome": result.outcome, "verdict": result.verdict}
    is_worse = result.outcome == "not better"
    is_unknown = result.outcome == "cannot judge" and out.exists()
    is_taken = options.keep_anyway or not (is_worse or is_unknown)
    target = out if is_taken else _free_beside(out, NOT_TAKEN[result.outcome])
    card = result.model.card.replace(name=target.stem)
    path = save_model(Model(result.model.net, card), target)
    report = write_report(path.with_suffix(".json"), result.report)
    written |= {"out" if is_taken else "not_taken": path, "report_file": report}
    if is_taken:
        console.say(f"-> {path}\n-> {report}")
        if is_worse:
            console.note(f"Not better than {model.card.name}, and saved all the same.")
    else:
        why = (
            f"is not better than {model.card.name}, so {out} was not written"
            if is_worse
            else f"could not be judged, so {out}, which is there already, was not replaced"
        )
        console.problem(
            f"The new model {why}. Give more labels. What was learned is in {path}, if you want "
            "to look at it; with --keep-anyway it takes its place in any case."
        )
    return {**written, "report": result.report}


def _check_free(out: Path, checkpoint: Path, options: argparse.Namespace) -> None:
    """Refuse to write over what learns, or what was learned so far."""
    from napari_unet.models.opening import find_weights

    check_writable(out)
    check_writable(out.with_suffix(".json"))
    if out.exists() and out.samefile(find_weights(options.model)[0]):
        raise ModelError(
            f"{out} is the model that is to learn. Give the new one another name with --out, so "
            "that both are there."
        )
    if checkpoint.exists() and not options.resume:
        raise FileError(
            f"A training of {out.name} was broken off; what it learned so far is in {checkpoint}. "
            "Go on with --resume, or remove that file to begin anew."
        )


def _free_beside(out: Path, suffix: str) -> Path:
    """Return a name beside a model that neither a model nor a report has."""
    number = 1
    while True:
        counted = f"-{number}" if number > 1 else ""
        path = out.with_name(f"{out.stem}{suffix}{counted}{out.suffix}")
        if not path.exists() and not path.with_suffix(".json").exists():
            return path
        number += 1


@contextmanager
def _interrupted_when_ended() -> Iterator[None]:
    """Let the signal that asks a program to end (SIGTERM) do what Ctrl+C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _read_samples(
    options: argparse.Namespace,
    model: Model,
    channels: tuple[int, ...] | None,
    console: Console,
) -> list[Sample]:
    """Read all pairs; a bad one is told and left out."""
    from napari_unet.runs.sample_checks import check_sample

    found = pair_files(options.images, options.labels)
    areas: dict[Path, Path] = {}
    alone = found.alone
    if options.checked is not None:
        of_images = pair_files(options.images, options.checked)
        areas = dict(of_images.pairs)
        alone = sorted({*alone, *of_images.alone})
    for path in alone:
        console.note(f"{path}: no partner of this name, left out.")
    samples: list[Sample] = []
    for image, labels in found.pairs:
        if options.checked is not None and image not in areas:
            continue  # told above
        try:
            of_image = list(_planes(image, labels, areas.get(image), options.axes, model))
            for sample in of_image:
                check_sample(sample, model.card, channels)
        except UnetError as error:
            console.left_out(image, error, "Left out.")
        else:
            samples += of_image
    if not samples:
        raise LabelsError("None of the pairs could be used, so there is nothing to learn from.")
    return samples


def _planes(
    image: Path, labels: Path, checked: Path | None, axes: str | None, model: Model
) -> Iterator[Sample]:
    """Read each plane of an image with its labels and what of them is checked (all if no file)."""
    from napari_unet.arrays.axes import name_plane, plan_planes
    from napari_unet.runs.samples import Sample

    spatial_dims = model.card.architecture.spatial_dims
    if spatial_dims != 2:
        raise ModelError("Models of volumes cannot be fine-tuned yet. Choose a 2D model.")
    source = read_image(image)
    planes = plan_planes(source.array.shape, axes or source.axes, spatial_dims)
    truth = _read_labels_of(image, labels, planes.out_shape)
    areas = None if checked is None else _read_labels_of(image, checked, planes.out_shape)
    for index in planes.indices():
        at = planes.out_index(index)
        yield Sample(
            planes.read(source.array, index),
            truth[at],
            labelled=None if areas is None else areas[at] != 0,
            name=name_plane(image.name, planes.lead, index),
        )


def _read_labels_of(image: Path, labels: Path, shape: tuple[int, ...]) -> NDArray[Any]:
    """Read labels that belong to an image."""
    found = read_labels(read_image(labels))
    if found.shape != shape:
        raise LabelsError(
            f"{labels} has the shape {found.shape}, {shape} was expected for "
            f"{image.name}. Give labels of the same size."
        )
    return found


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
