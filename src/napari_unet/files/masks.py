"""Write labels as a mask: a file that other programs read, with pixel size and axes.

A mask holds one number per object (instance), one per class (semantic), or 0 and 255 (binary).
The number type is the smallest that all programs read: whole numbers of 16 bits for objects as
long as they fit, then 32 bits, which of our formats only OME-TIFF has.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from napari_unet.arrays.axes import check_axes, guess_axes, labels_axes
from napari_unet.errors import FileError, ImageError, LabelsError, SettingError
from napari_unet.files.atomic import written_beside
from napari_unet.files.images import ImageFile, read_image
from napari_unet.settings import ExportFormat, MaskKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "ome-tiff": (".ome.tif", ".ome.tiff"),
    "imagej-tiff": (".tif", ".tiff"),
    "png": (".png",),
}
"""Endings of each format; the first is the usual one."""

_LARGEST_16_BIT = 65_535


@dataclass(frozen=True)
class _Mask:
    """What is written: numbers, axes, and the pixel size of each spatial axis."""

    array: NDArray[Any]
    axes: str
    sizes_um: Mapping[str, float]


def export_labels(
    labels: NDArray[Any],
    path: str | os.PathLike[str],
    format: ExportFormat | None = None,
    kind: MaskKind = "instance",
    axes: str | None = None,
    pixel_size_um: float | Sequence[float] | None = None,
    image: ImageFile | str | os.PathLike[str] | NDArray[Any] | None = None,
) -> Path:
    """Write labels as a mask file; it is there whole, or not at all.

    Parameters
    ----------
    labels : ndarray of int or bool, shape ([T,] [Z,] Y, X)
        Instance or semantic labels, 0 is background.
    path : str or path
        Where to write; an existing file is replaced.
    format : {"imagej-tiff", "ome-tiff", "png"}, optional
        By default what the name's ending says: ``.ome.tif``, ``.png``, or ``.tif``, which is
        ImageJ's as long as the objects fit into 16 bits.
    kind : {"instance", "semantic", "binary"}
        One number per object, one per class, or 0 and 255.
    axes : str, optional
        One letter of ``TZYX`` per axis of ``labels``; by default those of ``image``, else
        ``"TZYX"`` counted from the end.
    pixel_size_um : float or sequence of float, optional
        In micrometres: one number for Y and X (and Z), or one per spatial axis, Z first. By
        default that of ``image``, else the mask has none.
    image : ImageFile, path or ndarray, optional
        The image the labels belong to. Its shape is compared; a file's axes and pixel size are
        taken over.

    Returns
    -------
    pathlib.Path
        The file that was written.

    Raises
    ------
    LabelsError
        If the labels are no whole numbers, negative, or do not fit the image or the format.
    SettingError
        If the format, the kind or the pixel size make no sense.
    FileError
        If the file cannot be written.
    """
    target = Path(path)
    numbers = _whole_numbers(labels)
    known = read_image(image) if isinstance(image, str | os.PathLike) else image
    names = _mask_axes(numbers, axes, known)
    _check_fits(numbers.shape, names, known)
    chosen = _choose_format(target, format, int(numbers.max(initial=0)), kind)
    array = _of_kind(numbers, kind, chosen)
    writer = {"png": _write_png, "ome-tiff": _write_ome, "imagej-tiff": _write_imagej}[chosen]
    mask = _Mask(array, names, _sizes(names, pixel_size_um, known))
    with written_beside(target) as beside:
        writer(mask, beside)
    return target


# What is written


def _whole_numbers(labels: NDArray[Any]) -> NDArray[Any]:
    """Check that these are labels at all."""
    numbers = np.asarray(labels)
    if numbers.dtype.kind not in "iub":
        raise LabelsError(
            f"Labels of type {numbers.dtype} were given, whole numbers were expected. "
            "Give labels (one number per object), not a probability."
        )
    if numbers.ndim < 2 or numbers.size == 0:
        raise LabelsError(f"Labels of shape {numbers.shape} are no image. Give at least Y and X.")
    if numbers.min() < 0:
        raise LabelsError(f"The labels hold {numbers.min()}; 0 and above were expected.")
    return numbers


def _mask_axes(numbers: NDArray[Any], axes: str | None, image: Any) -> str:
    """Name the axes: as told, as the image's, or T Z Y X counted from the end."""
    if axes is None and isinstance(image, ImageFile):
        without_channel = labels_axes(image.axes)
        axes = without_channel if len(without_channel) == numbers.ndim else None
    if axes is None:
        axes = "TZYX"[-numbers.ndim :] if numbers.ndim <= 4 else guess_axes(numbers.shape)
    try:
        check_axes(axes, numbers.shape)
    except ImageError as error:
        raise LabelsError(str(error)) from error
    if "C" in axes:
        raise LabelsError(
            f"Axes {axes} name a channel, labels have none. Use T, Z, Y and X, e.g. "
            f"{labels_axes(axes)}."
        )
    return axes


def _check_fits(shape: tuple[int, ...], axes: str, image: Any) -> None:
    """Compare the plane of the labels with that of the image."""
    if image is None:
        return
    array, image_axes = (image.array, image.axes) if isinstance(image, ImageFile) else (image, None)
    if image_axes is None:
        fits = tuple(array.shape[: len(shape)]) == shape or tuple(array.shape[-2:]) == shape[-2:]
        found = tuple(array.shape)
    else:
        lengths = dict(zip(image_axes, array.shape, strict=True))
        found = tuple(lengths.get(axis, 1) for axis in axes)
        fits = found == shape
    if not fits:
        raise LabelsError(
            f"The labels are {_times(shape)}, the image is {_times(found)}. "
            "Give the image the labels were made on."
        )


def _choose_format(target: Path, wanted: str | None, largest: int, kind: str) -> str:
    """Take the wanted format, else the one the name's ending says."""
    name = target.name.lower()
    if wanted is None:
        fitting = [format for format, ends in SUFFIXES.items() if name.endswith(ends)]
        if not fitting:
            raise SettingError(
                f"The name {target.name} does not tell a format. End it in .ome.tif, .tif or .png."
            )
        too_many = fitting[0] == "imagej-tiff" and largest > _LARGEST_16_BIT and kind != "binary"
        wanted = "ome-tiff" if too_many else fitting[0]
    if wanted not in SUFFIXES:
        raise SettingError(
            f"Format {wanted!r} is not known. Choose {', '.join(get_args(ExportFormat))}."
        )
    tiff_names = (".tif", ".tiff")
    if not name.endswith(SUFFIXES["png"] if wanted == "png" else tiff_names):
        raise SettingError(
            f"The name {target.name} does not fit the format {wanted}. "
            f"End it in {SUFFIXES[wanted][0]}."
        )
    return wanted


def _of_kind(numbers: NDArray[Any], kind: str, format: str) -> NDArray[Any]:
    """Turn labels into the numbers of a mask, in the smallest type that fits."""
    if kind not in get_args(MaskKind):
        raise SettingError(f"Kind {kind!r} is not known. Choose {', '.join(get_args(MaskKind))}.")
    if kind == "binary":
        return np.where(numbers > 0, 255, 0).astype(np.uint8)
    largest = int(numbers.max(initial=0))
    if largest > _LARGEST_16_BIT:
        if format != "ome-tiff":
            raise LabelsError(
                f"The labels go up to {largest}, {format} holds {_LARGEST_16_BIT}. "
                "Use ome-tiff, or renumber the labels."
            )
        if largest > np.iinfo(np.uint32).max:
            raise LabelsError(f"The labels go up to {largest}, more than 32 bits. Renumber them.")
        return numbers.astype(np.uint32)
    fits_byte = largest <= 255 and (kind == "semantic" or format == "png")
    return numbers.astype(np.uint8 if fits_byte else np.uint16)


def _sizes(
    axes: str, pixel_size_um: float | Sequence[float] | None, image: Any
) -> Mapping[str, float]:
    """Give each spatial axis its pixel size in micrometres; empty if unknown."""
    spatial = [axis for axis in axes if axis in "ZYX"]
    if pixel_size_um is None:
        if not isinstance(image, ImageFile) or image.pixel_size_um is None:
            return {}
        of_image = [axis for axis in image.axes if axis in "ZYX"]
        known = dict(zip(of_image, image.pixel_size_um, strict=True))
        return {axis: known[axis] for axis in spatial if axis in known}
    given = np.atleast_1d(np.asarray(pixel_size_um, float))
    if given.size == 1:
        given = np.repeat(given, len(spatial))
    if given.size != len(spatial) or not np.all(np.isfinite(given) & (given > 0)):
        raise SettingError(
            f"Pixel size {pixel_size_um} was given; one positive number, or one for each of "
            f"{', '.join(spatial)}, was expected, in micrometres."
        )
    return dict(zip(spatial, given.tolist(), strict=True))


# How it is written


def _write_ome(mask: _Mask, path: Path) -> None:
    """Write an OME-TIFF, compressed without loss."""
    import tifffile

    about: dict[str, Any] = {"axes": mask.axes}
    for axis, size in mask.sizes_um.items():
        about |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "µm"}
    tifffile.imwrite(
        path, mask.array, ome=True, metadata=about, photometric="minisblack", compression="zlib"
    )


def _write_imagej(mask: _Mask, path: Path) -> None:
    """Write a TIFF that ImageJ opens as a calibrated stack."""
    import tifffile

    sizes = mask.sizes_um
    about: dict[str, Any] = {"axes": mask.axes}
    if sizes:
        about["unit"] = "um"
    if "Z" in sizes:
        about["spacing"] = sizes["Z"]
    tifffile.imwrite(
        path,
        mask.array,
        imagej=True,
        metadata=about,
        resolution=(1 / sizes["X"], 1 / sizes["Y"]) if sizes else None,
        photometric="minisblack",
        compression="zlib",
    )


def _write_png(mask: _Mask, path: Path) -> None:
    """Write a grey PNG of 8 or 16 bits."""
    from PIL import Image

    if mask.array.ndim != 2:
        raise FileError(
            f"The labels are a stack ({mask.axes}, {_times(mask.array.shape)}), a PNG holds one "
            "plane and no pixel size. Use OME-TIFF."
        )
    Image.fromarray(np.ascontiguousarray(mask.array)).save(path, format="PNG")


def _times(shape: Sequence[int]) -> str:
    """Say a shape: 512 x 512."""
    return " x ".join(str(length) for length in shape)
