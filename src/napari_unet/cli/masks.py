"""``evaluate`` and ``export``: masks against the truth, and masks into other formats."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_unet.cli.files import pair_files
from napari_unet.errors import LabelsError, UnetError, UsageError
from napari_unet.files.images import ImageFile, read_image
from napari_unet.files.masks import check_mask, check_pixel_size, export_labels

if TYPE_CHECKING:
    import argparse

    from numpy.typing import NDArray

    from napari_unet.cli.output import Console

COLUMNS = ("ap50", "mean_ap", "f1", "iou", "dice", "are", "missed", "spurious", "merged", "split")
_COUNTS = ("tp", "fp", "fn", "missed", "spurious", "merged", "split")


def run_evaluate(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Judge masks against the truth, each image and all together."""
    from napari_unet.arrays.metrics import pooled

    found = pair_files(options.pred, options.truth, both_labels=True)
    for path in found.alone:
        console.note(f"{path}: nothing to compare it with, left out.")
    scores: dict[str, dict[str, float]] = {}
    for labels, truth in found.pairs:
        try:
            scores[str(labels)] = _evaluate_pair(labels, truth, volumes=options.volumes)
        except UnetError as error:
            console.left_out(labels, error)
    if not scores:
        return {"images": {}, "pooled": None}
    together = pooled(scores.values())
    rows = [(Path(name).name, *_cells(values)) for name, values in scores.items()]
    if len(rows) > 1:
        rows.append(("all together", *_cells(together)))
    console.table([("IMAGE", *(name.upper() for name in COLUMNS)), *rows])
    console.say(
        "\nAP50 is TP / (TP + FP + FN) at IoU 0.5; ARE is the adapted Rand error, 0 is best."
    )
    return {"images": scores, "pooled": together}


def run_export(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Write labels in another format."""
    _check_usage(options)
    source = read_image(options.labels)
    labels = read_labels(source)
    image = None if options.image is None else read_image(options.image)
    written = export_labels(
        labels,
        options.out,
        options.format,
        kind=options.kind or "instance",
        axes=_own_axes(source, image),
        pixel_size_um=_own_size(source, image, options.pixel_size_um),
        image=image,
    )
    console.say(f"{source.path} -> {written}")
    return {"labels": source.path, "out": written, "kind": options.kind or "instance"}


def read_labels(source: ImageFile) -> NDArray[Any]:
    """Return the labels of a file as whole numbers.

    Raises
    ------
    LabelsError
        If the file holds grey values with fractions, or colours.
    """
    import numpy as np

    array: NDArray[Any] = np.asarray(source.array)
    if source.axes.endswith("YXC"):
        raise LabelsError(
            f"{source.path.name} is a colour picture, labels were expected: one number per "
            "object, 0 for background. Save the labels, not their picture."
        )
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise LabelsError(
                f"{source.path.name} holds values that are no numbers (NaN or infinite), labels "
                "were expected: one whole number per object, 0 for background."
            )
        whole = np.rint(array)
        if not np.array_equal(whole, array) or np.abs(array).max(initial=0) > 2**31:
            raise LabelsError(
                f"{source.path.name} holds fractions, labels were expected: one whole number per "
                "object, 0 for background. Save the labels, not the image."
            )
        array = whole.astype(np.int64)
    return array


def _check_usage(options: argparse.Namespace) -> None:
    """Refuse what makes no sense before any file is looked at."""
    try:
        check_mask(options.out, options.format)
        check_pixel_size(options.pixel_size_um)
    except UnetError as error:
        raise UsageError(str(error)) from error


def _evaluate_pair(labels: Path, truth: Path, *, volumes: bool) -> dict[str, float]:
    """Judge a mask; a stack plane by plane unless its objects are volumes."""
    from napari_unet.arrays.metrics import evaluate, pooled

    mine, theirs = read_labels(read_image(labels)), read_labels(read_image(truth))
    spatial = 3 if volumes else 2
    if mine.shape != theirs.shape or mine.ndim <= spatial:
        return evaluate(mine, theirs)
    size = mine.shape[-spatial:]
    planes = zip(mine.reshape(-1, *size), theirs.reshape(-1, *size), strict=True)
    return pooled(evaluate(*plane) for plane in planes)


def _cells(scores: dict[str, float]) -> list[str]:
    """Say scores with three digits, counts as they are."""
    return [f"{scores[name]:.0f}" if name in _COUNTS else f"{scores[name]:.3f}" for name in COLUMNS]


def _own_axes(source: ImageFile, image: ImageFile | None) -> str | None:
    """Take the axes of the labels' file where no image tells them; labels have no channels."""
    return None if image is not None or "C" in source.axes else source.axes


def _own_size(
    source: ImageFile, image: ImageFile | None, given_um: float | None
) -> float | tuple[float, ...] | None:
    """Take the given pixel size, else that of the image, else that of the labels' file."""
    if given_um is not None:
        return given_um
    if image is not None or "C" in source.axes:
        return None
    return source.pixel_size_um
