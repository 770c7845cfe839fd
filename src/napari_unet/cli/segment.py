"""``segment``: masks for images, one after the other; a bad file does not stop the rest."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_unet.cli.files import find_images, stem
from napari_unet.cli.options import segment_settings
from napari_unet.errors import FileError, SettingError, UnetError
from napari_unet.files.images import ImageFile, read_image
from napari_unet.files.masks import SUFFIXES, export_labels
from napari_unet.files.probability import write_probability

if TYPE_CHECKING:
    import argparse

    import numpy as np
    from numpy.typing import NDArray

    from napari_unet.cli.output import Console
    from napari_unet.models.model import Model
    from napari_unet.runs.predict import Segmentation
    from napari_unet.settings import ExportFormat, SegmentSettings


def run_segment(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Segment images and write their masks."""
    from napari_unet.models.model import load_model

    model = load_model(options.model)
    settings = segment_settings(options, model.card)
    out = Path(options.out).expanduser()
    written: dict[Path, Path] = {}
    results = []
    for path in find_images(options.images):
        try:
            names = _names(path, out, options.format or [None], probability=options.probability)
            _refuse_taken(path, names, written)
            results.append(_segment_one(path, names, model, settings, options, console))
        except UnetError as error:
            if options.debug:
                console.traceback()
            console.problem(f"{path}: {error} Skipped.")
    if not results and not console.problems:
        raise FileError("There are no images in what was given. Name image files or a folder.")
    return {"model": model.card.name, "settings": settings, "images": results}


def _segment_one(
    path: Path,
    names: dict[str, Path],
    model: Model,
    settings: SegmentSettings,
    options: argparse.Namespace,
    console: Console,
) -> dict[str, Any]:
    """Segment an image and write its mask in each format."""
    from napari_unet.runs.predict import segment_steps
    from napari_unet.runs.progress import drive

    started = time.monotonic()
    image = read_image(path)
    axes = options.axes or image.axes
    job = segment_steps(model, image.array, axes, settings, keep_probability=options.probability)
    segmentation = drive(job, progress=console.progress)
    files = _write(segmentation, names, image, model)
    seconds = round(time.monotonic() - started, 2)
    count = _count(segmentation.labels, model.card.architecture.spatial_dims)
    unit = "objects" if model.card.labels == "instance" else "classes"
    size = " x ".join(map(str, image.array.shape))
    said = f"{size} ({axes}), {count} {unit}, {seconds:.1f} s"
    console.say(f"{path}: {said} -> {', '.join(map(str, files))}")
    return {
        "image": path,
        "axes": axes,
        "shape": list(image.array.shape),
        unit: count,
        "seconds": seconds,
        "files": files,
    }


def _write(
    segmentation: Segmentation, names: dict[str, Path], image: ImageFile, model: Model
) -> list[Path]:
    """Write labels and, if it has a name, the probability."""
    size = _sizes(image, segmentation.axes)
    files = []
    for format_name, path in names.items():
        if format_name == "probability":
            outputs = model.card.outputs
            files.append(
                write_probability(segmentation.probability, path, segmentation.axes, size, outputs)
            )
        else:
            chosen: ExportFormat | None = format_name or None  # type: ignore[assignment]
            files.append(
                export_labels(
                    segmentation.labels,
                    path,
                    chosen,
                    kind=model.card.labels,
                    axes=segmentation.axes,
                    pixel_size_um=size,
                )
            )
    return files


def _names(
    path: Path, out: Path, formats: list[ExportFormat | None], *, probability: bool
) -> dict[str, Path]:
    """Name the files of an image by format; "" is the one that the program chooses."""
    names: dict[str, Path] = {}
    for chosen in formats:
        ending = ".tif" if chosen is None else SUFFIXES[chosen][0]
        names[chosen or ""] = out / f"{stem(path)}_labels{ending}"
    if probability:
        names["probability"] = out / f"{stem(path)}_probability.tif"
    return names


def _refuse_taken(path: Path, names: dict[str, Path], written: dict[Path, Path]) -> None:
    """Raise if an image of the same name has been written in this run."""
    for name in names.values():
        if name in written:
            raise FileError(
                f"Its mask {name} would replace that of {written[name]}. "
                "Segment it into another folder."
            )
    if path.resolve() in {name.resolve() for name in names.values()}:
        raise SettingError("Its mask would replace the image itself. Choose another --out.")
    written.update(dict.fromkeys(names.values(), path))


def _sizes(image: ImageFile, axes: str) -> tuple[float, ...] | None:
    """Return the pixel size of the axes that remain, in micrometres."""
    if image.pixel_size_um is None:
        return None
    of_image = [axis for axis in image.axes if axis in "ZYX"]
    known = dict(zip(of_image, image.pixel_size_um, strict=True))
    spatial = [axis for axis in axes if axis in "ZYX"]
    if not all(axis in known for axis in spatial):
        return None
    return tuple(known[axis] for axis in spatial)


def _count(labels: NDArray[np.int32], spatial_dims: int) -> int:
    """Count what was found; the network's planes or volumes are numbered from 1 each."""
    planes = labels.reshape(-1, *labels.shape[-spatial_dims:])
    return int(sum(plane.max(initial=0) for plane in planes))
