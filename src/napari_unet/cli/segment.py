"""``segment``: masks for images, one after the other; a bad file does not stop the rest."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.arrays.axes import plan_planes
from napari_unet.arrays.blocks import cut_blocks, plan_blocks
from napari_unet.cli.files import find_images, stem
from napari_unet.cli.options import segment_settings
from napari_unet.errors import FileError, SettingError, UnetError, UsageError
from napari_unet.files.atomic import check_writable
from napari_unet.files.images import ImageFile, read_image
from napari_unet.files.masks import SUFFIXES, export_labels
from napari_unet.files.probability import write_probability
from napari_unet.files.zarrs import ZARR_FORMATS, ZarrFile

if TYPE_CHECKING:
    import argparse

    from napari_unet.cli.output import Console
    from napari_unet.models.model import Model
    from napari_unet.runs.predict import Segmentation
    from napari_unet.settings import ExportFormat, SegmentSettings

FIRST_SUFFIX = {name: endings[0] for name, endings in SUFFIXES.items()}


def run_segment(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Segment images and write their masks."""
    from napari_unet.models.opening import load_model
    from napari_unet.runs import fitted

    model = load_model(options.model, assume=dict(options.assume or ()))
    settings = segment_settings(options, model.card)
    if options.forget_tiles:
        fitted.forget()
    out = Path(options.out).expanduser()
    check_writable(out / "labels.tif")
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
            console.left_out(path, error)
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
    zarrs = _zarr_files(image, axes, names, model)
    labels, probability = (zarrs.get(kind) for kind in ("labels", "probability"))
    job = segment_steps(
        model,
        image.array,
        axes,
        settings,
        None if labels is None else labels.array,
        keep_probability=options.probability,
        probability_out=None if probability is None else probability.array,
    )
    segmentation = drive(job, progress=console.progress)
    files = _write(segmentation, names, image, model)
    count = _count(segmentation.labels, model.card.architecture.spatial_dims)
    files += [file.finish(are_labels=kind == "labels") for kind, file in zarrs.items()]
    seconds = round(time.monotonic() - started, 2)
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


def _zarr_files(
    image: ImageFile, axes: str, names: dict[str, Path], model: Model
) -> dict[str, ZarrFile]:
    """Create what is written block by block: labels, and probabilities if they are wanted."""
    spatial_dims = model.card.architecture.spatial_dims
    planes = plan_planes(image.array.shape, axes, spatial_dims)
    size = _sizes(image, planes.out_axes)
    files = {}
    for name, path in names.items():
        if name in ZARR_FORMATS:
            files["labels"] = ZarrFile(
                path, planes.out_shape, "int32", planes.out_axes, spatial_dims, size
            )
        elif path.suffix == ".zarr":
            shape = (len(model.card.outputs), *planes.out_shape)
            axes = f"C{planes.out_axes}"
            files["probability"] = ZarrFile(path, shape, "float32", axes, spatial_dims, size)
    return files


def _write(
    segmentation: Segmentation, names: dict[str, Path], image: ImageFile, model: Model
) -> list[Path]:
    """Write labels and, if it has a name, the probability; what is zarr is written already."""
    size = _sizes(image, segmentation.axes)
    files = []
    for format_name, path in names.items():
        if path.suffix == ".zarr":
            continue
        if format_name == "probability":
            outputs = model.card.outputs
            files.append(
                write_probability(segmentation.probability, path, segmentation.axes, size, outputs)
            )
        else:
            chosen: ExportFormat | None = (
                format_name or None  # type: ignore[assignment]  # argparse has checked the name
            )
            files.append(
                export_labels(
                    np.asarray(segmentation.labels),
                    path,
                    chosen,
                    kind=model.card.labels,
                    axes=segmentation.axes,
                    pixel_size_um=size,
                )
            )
    return files


def _names(
    path: Path, out: Path, formats: list[str | None], *, probability: bool
) -> dict[str, Path]:
    """Name the files of an image by format; "" is the one that the program chooses."""
    names: dict[str, Path] = {}
    for chosen in formats:
        ending = ".tif" if chosen is None else {**ZARR_FORMATS, **FIRST_SUFFIX}[chosen]
        names[chosen or ""] = out / f"{stem(path)}_labels{ending}"
    zarr = [ZARR_FORMATS[chosen] for chosen in formats if chosen in ZARR_FORMATS]
    if len(zarr) > 1:
        raise UsageError("The formats zarr and ome-zarr cannot be written together. Choose one.")
    if probability:
        names["probability"] = out / f"{stem(path)}_probability{(*zarr, '.tif')[0]}"
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


def _count(labels: Any, spatial_dims: int) -> int:
    """Count what was found; the network's planes or volumes are numbered from 1 each."""
    lead, spatial = labels.shape[:-spatial_dims], labels.shape[-spatial_dims:]
    blocks = cut_blocks(spatial, plan_blocks(spatial, chunks=getattr(labels, "chunks", None)))
    planes = np.ndindex(*lead)
    return sum(max(int(np.max(labels[(*at, *block)])) for block in blocks) for at in planes)
