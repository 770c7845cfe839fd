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
from napari_unet.errors import FileError, ImageError, LabelsError, SettingError, described
from napari_unet.files.atomic import written_beside
from napari_unet.files.images import ImageFile, read_image
from napari_unet.files.paths import as_path
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

SMALLEST_PIXEL_UM, LARGEST_PIXEL_UM = 1e-6, 1e6
"""What lies beyond is a slip of the keyboard, and no TIFF can hold it."""

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
        If the file cannot be written, or the format cannot hold a stack.
    """
    target = as_path(path, "a mask")
    numbers = _whole_numbers(labels)
    known = _known_image(image)
    names = _mask_axes(numbers, axes, known)
    _check_fits(numbers.shape, names, known)
    chosen = _choose_format(target, format, int(numbers.max(initial=0)), kind)
    _check_holds(chosen, names)
    array = _of_kind(numbers, kind, chosen)
    writer = {"png": _write_png, "ome-tiff": _write_ome, "imagej-tiff": _write_imagej}[chosen]
    mask = _Mask(array, names, _sizes(names, pixel_size_um, known))
    with written_beside(target) as beside:
        writer(mask, beside)
    return target


def check_mask(
    path: str | os.PathLike[str], format: ExportFormat | None = None, axes: str = "YX"
) -> None:
    """Check before any work whether a mask can be written under a name in a format.

    Parameters
    ----------
    path : str or path
        Where the mask will belong; nothing is written.
    format : {"imagej-tiff", "ome-tiff", "png"}, optional
        By default what the name's ending says.
    axes : str
        Axes of the labels there will be, those of the image without C.

    Raises
    ------
    SettingError
        If the name tells no format, or another one.
    FileError
        If the format cannot hold a stack, or this is no path.
    """
    _check_holds(_choose_format(as_path(path, "a mask"), format), axes)


def check_pixel_size(pixel_size_um: float | Sequence[float] | None, axes: str = "YX") -> None:
    """Check a pixel size before any work.

    Parameters
    ----------
    pixel_size_um : float or sequence of float, optional
        In micrometres: one number, or one per spatial axis, Z first.
    axes : str
        Axes of the labels.

    Raises
    ------
    SettingError
        If it is no positive number, or as many as there are spatial axes.
    """
    _sizes(axes, pixel_size_um, None)


# What is written


def _whole_numbers(labels: NDArray[Any]) -> NDArray[Any]:
    """Check that these are labels at all."""
    try:
        numbers = np.asarray(labels)
    except ValueError as error:
        raise LabelsError(
            f"The labels cannot be read as an array ({error}). Give an array of whole numbers."
        ) from error
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


def _known_image(image: object) -> ImageFile | None:
    """Read the image the labels belong to; the axes of a bare array are guessed."""
    if image is None or isinstance(image, ImageFile):
        return image
    if isinstance(image, str | os.PathLike):
        return read_image(image)
    array: Any = image if hasattr(image, "shape") else np.asarray(image)
    if array.ndim < 2:
        raise LabelsError(
            f"An image was expected, {described(image)} of shape {array.shape} was given. Give an "
            "array or the path of a file."
        )
    return ImageFile(array, guess_axes(array.shape), None, "pixel", Path())


def _mask_axes(numbers: NDArray[Any], axes: str | None, image: ImageFile | None) -> str:
    """Name the axes: as told, as the image's, or T Z Y X counted from the end."""
    if axes is None and image is not None:
        without_channel = labels_axes(image.axes)
        axes = without_channel if len(without_channel) == numbers.ndim else None
    if axes is None:
        axes = "TZYX"[-numbers.ndim :] if numbers.ndim <= 4 else guess_axes(numbers.shape)
    try:
        axes = check_axes(axes, numbers.shape)
    except ImageError as error:
        raise LabelsError(str(error)) from error
    if "C" in axes:
        raise LabelsError(
            f"Axes {axes} name a channel, labels have none. Use T, Z, Y and X, e.g. "
            f"{labels_axes(axes)}."
        )
    return axes


def _check_fits(shape: tuple[int, ...], axes: str, image: ImageFile | None) -> None:
    """Compare the labels with the image, axis by axis."""
    if image is None:
        return
    whole = tuple(image.array.shape)
    lengths = dict(zip(image.axes, whole, strict=True))
    is_whole = all(axis in axes or lengths[axis] == 1 for axis in labels_axes(image.axes))
    agrees = tuple(lengths.get(axis, 1) for axis in axes) == shape
    if (agrees and is_whole) or whole == shape:  # the latter where the axes were misread
        return
    do = "the image the labels were made on" if is_whole else "labels of all its planes"
    raise LabelsError(
        f"The labels are {_times(shape)}, the image is {_times(whole)} ({image.axes}). Give {do}."
    )


def _choose_format(
    target: Path, wanted: str | None, largest: int = 0, kind: str = "instance"
) -> str:
    """Take the wanted format, else the one the name's ending says."""
    name = target.name.lower()
    if wanted is None:
        fitting = [format for format, ends in SUFFIXES.items() if name.endswith(ends)]
        if not fitting:
            raise SettingError(
                f"The name {target.name!r} does not tell a format. End it in .ome.tif, .tif or "
                ".png."
            )
        too_many = fitting[0] == "imagej-tiff" and largest > _LARGEST_16_BIT and kind != "binary"
        wanted = "ome-tiff" if too_many else fitting[0]
    if wanted not in get_args(ExportFormat):
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


def _check_holds(format: str, axes: str) -> None:
    """Refuse a stack where the format holds one plane."""
    if format == "png" and len(axes) > 2:
        raise FileError(
            f"The labels are a stack ({axes}), a PNG holds one plane and no pixel size. Use "
            "OME-TIFF."
        )


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
    axes: str, pixel_size_um: float | Sequence[float] | None, image: ImageFile | None
) -> Mapping[str, float]:
    """Give each spatial axis its pixel size in micrometres; empty if unknown."""
    spatial = [axis for axis in axes if axis in "ZYX"]
    if pixel_size_um is None:
        if image is None or image.pixel_size_um is None:
            return {}
        of_image = [axis for axis in image.axes if axis in "ZYX"]
        known = dict(zip(of_image, image.pixel_size_um, strict=True))
        return {axis: known[axis] for axis in spatial if axis in known}
    try:
        given = np.asarray(pixel_size_um, float).ravel()
    except (TypeError, ValueError):
        given = np.empty(0)
    if given.size == 1:
        given = np.repeat(given, len(spatial))
    believable = (given >= SMALLEST_PIXEL_UM) & (given <= LARGEST_PIXEL_UM)
    if given.size != len(spatial) or not np.all(believable):
        raise SettingError(
            f"Pixel size {pixel_size_um!r} was given; one positive number, or one for each of "
            f"{', '.join(spatial)}, was expected, in micrometres "
            f"({SMALLEST_PIXEL_UM:g} to {LARGEST_PIXEL_UM:g}). Look up the size of a pixel."
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

    Image.fromarray(np.ascontiguousarray(mask.array)).save(path, format="PNG")


def _times(shape: Sequence[int]) -> str:
    """Say a shape: 512 x 512."""
    return " x ".join(str(length) for length in shape)
