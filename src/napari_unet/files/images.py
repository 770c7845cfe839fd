"""Read an image with the two things a picture viewer drops: its axes and its pixel size.

TIFF (OME, ImageJ or plain), PNG and JPEG, npy and zarr. What is written in the file wins; where
it says nothing, the axes are guessed from the shape and the pixel size is unknown, never
invented: a TIFF of 300 dots per inch is a scan's habit, not a microscope's pixel.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from napari_unet.arrays.axes import check_axes, guess_axes
from napari_unet.errors import FileError, ImageError
from napari_unet.files.paths import as_path, is_there
from napari_unet.files.zarrs import import_zarr

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from PIL.Image import Image
    from tifffile import TiffFile, TiffPageSeries

TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".stk", ".lsm")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")
LARGEST_READ_BYTES = 256 * 2**20
"""A larger TIFF that is not compressed is mapped, and read only where it is used."""
LARGEST_PRINTED_PIXEL_UM = 20.0
"""In a plain TIFF a larger pixel is a resolution for printers (72 to 1200 dots per inch)."""

MICROMETRES = {
    "pm": 1e-6,
    "å": 1e-4,
    "angstrom": 1e-4,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "µm": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "mm": 1e3,
    "millimeter": 1e3,
    "cm": 1e4,
    "centimeter": 1e4,
    "m": 1e6,
    "meter": 1e6,
    "in": 25_400.0,
    "inch": 25_400.0,
}

# What the libraries raise on a file that is cut off or holds something else.
DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    IndexError,
    RuntimeError,  # imagecodecs, where it is installed
    struct.error,
    zlib.error,
    ElementTree.ParseError,
)


@dataclass(frozen=True)
class ImageFile:
    """An image and what its file says about it.

    Attributes
    ----------
    array : ndarray or zarr.Array
        The grey values; an npy file and a large TIFF are mapped, and a zarr array is read only
        where it is used.
    axes : str
        One capital letter of ``TZCYX`` per axis.
    pixel_size_um : tuple of float or None
        In micrometres, one per spatial axis of ``axes``, Z first; None if unknown.
    unit : str
        ``"um"``, or ``"pixel"`` where the size is unknown.
    path : pathlib.Path
        Where it was read from.
    """

    array: Any
    axes: str
    pixel_size_um: tuple[float, ...] | None
    unit: str
    path: Path


def read_image(path: str | os.PathLike[str]) -> ImageFile:
    """Read an image file, or the first image of a file that holds several.

    Parameters
    ----------
    path : str or path
        A ``.tif``, ``.png``, ``.jpg``, ``.bmp``, ``.npy`` file or a ``.zarr`` folder.

    Returns
    -------
    ImageFile
        With axes and pixel size.

    Raises
    ------
    FileError
        If there is no such file, it is damaged, or of a kind we do not read.
    """
    source = as_path(path, "an image")
    if not is_there(source):
        raise FileError(f"There is no file {source}. Check the name and the folder.")
    try:
        return _reader(source)(source)
    except PermissionError as error:
        raise FileError(
            f"{source.name} cannot be read: {error.strerror}. Check that you may read it."
        ) from error
    except (*DAMAGED, ImageError) as error:
        raise FileError(
            f"{source.name} cannot be read: {_one_line(error)}. Is it complete? "
            "If another program opens it, save it there as OME-TIFF."
        ) from error


def to_micrometres(size: float, unit: str) -> float | None:
    """Convert a length to micrometres.

    Parameters
    ----------
    size : float
        The length.
    unit : str
        Its unit as OME, ImageJ or NGFF writes it, e.g. ``"nm"``, ``"micron"``, ``"µm"``.

    Returns
    -------
    float or None
        None if the unit is no length (``"pixel"``) or the size is not a positive number.
    """
    plain = unit.strip().replace("\\u00B5", "µ").replace("μ", "µ").replace("Å", "å")
    factor = MICROMETRES.get(plain) or MICROMETRES.get(plain.lower().replace("metre", "meter"))
    if factor is None or not np.isfinite(size) or size <= 0:
        return None
    return float(size) * factor


def _reader(source: Path) -> Callable[[Path], ImageFile]:
    """Choose the reader by the name's ending."""
    suffix = source.suffix.lower()
    if source.is_dir():
        if suffix == ".zarr" or _looks_like_zarr(source):
            return _read_zarr
        raise FileError(f"{source} is a folder, an image file was expected. Choose a file in it.")
    readers = {**dict.fromkeys(TIFF_SUFFIXES, _read_tiff), ".npy": _read_npy}
    readers |= dict.fromkeys(PICTURE_SUFFIXES, _read_picture)
    if suffix not in readers:
        known = ", ".join(sorted({*readers, ".zarr"}))
        raise FileError(
            f"{source.name} is not of a kind that is read here ({known}). Open it in napari with "
            "its own reader plugin, or save it as OME-TIFF."
        )
    return readers[suffix]


def _looks_like_zarr(folder: Path) -> bool:
    """Tell whether a folder is a zarr array or group."""
    return any((folder / name).is_file() for name in ("zarr.json", ".zarray", ".zgroup"))


def _image_file(
    array: Any, axes: str, sizes_um: Mapping[str, float | None], path: Path
) -> ImageFile:
    """Put together an ImageFile; one unknown size makes the pixel size unknown."""
    sizes = [sizes_um.get(axis) for axis in axes if axis in "ZYX"]
    known = tuple(size for size in sizes if size is not None)
    complete = len(known) == len(sizes)
    return ImageFile(
        array=array,
        axes=check_axes(axes, tuple(array.shape)),
        pixel_size_um=known if complete else None,
        unit="um" if complete else "pixel",
        path=path,
    )


# TIFF


def _read_tiff(path: Path) -> ImageFile:
    """Read the first series of a TIFF file."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tif:
            series = tif.series[0]
            array = _tiff_array(series)
            axes = _tiff_axes(series.axes, array.shape)
            if "S" in series.axes and array.shape[axes.index("C")] == 4 and axes[-1] == "C":
                array = array[..., :3]  # the fourth sample of a picture is its transparency
            return _image_file(array, axes, _tiff_sizes(tif, axes), path)
    except tifffile.TiffFileError as error:
        raise FileError(
            f"{path.name} is not a TIFF file, or a damaged one: {_one_line(error)}. "
            "Save it again from the program that made it."
        ) from error


def _tiff_array(series: TiffPageSeries) -> np.ndarray[Any, Any]:
    """Read a series, or map a large one; a compression that needs another package is named."""
    is_in_one_piece = series.dataoffset is not None  # and not compressed
    if is_in_one_piece and series.nbytes > LARGEST_READ_BYTES:
        return np.asanyarray(series.asarray(out="memmap"))
    try:
        return np.asarray(series.asarray())
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        raise FileError(
            f"The TIFF is compressed with {series.keyframe.compression.name}, which needs one "
            "more package. Run: pip install imagecodecs"
        ) from error


def _tiff_axes(letters: str, shape: tuple[int, ...]) -> str:
    """Turn tifffile's letters into ours: S (samples) is a channel, unknown ones are guessed."""
    rgb = letters.endswith("S") and "C" not in letters
    if rgb:
        letters = letters[:-1] + "C"
    elif "C" not in letters:
        letters = letters.replace("S", "C")
    unknown = [letter for letter in letters if letter not in "TZCYX"]
    lead = letters.removesuffix("YXC" if rgb else "YX")
    if unknown and len(unknown) == len(lead):
        return guess_axes(shape, rgb=rgb)
    for letter in unknown:
        free = next((axis for axis in "TZC" if axis not in letters), letter)
        letters = letters.replace(letter, free, 1)
    return letters


def _tiff_sizes(tif: TiffFile, axes: str) -> dict[str, float | None]:
    """Find the pixel size of each spatial axis where the file tells it."""
    if tif.is_ome and tif.ome_metadata:
        return _ome_sizes(tif.ome_metadata)
    if tif.is_imagej:
        return _imagej_sizes(tif)
    sizes = _resolution_sizes(tif, {2: "inch", 3: "cm"})
    believable = {
        axis: size
        for axis, size in sizes.items()
        if size is not None and size <= LARGEST_PRINTED_PIXEL_UM
    }
    return {axis: believable.get(axis) for axis in axes}


def _ome_sizes(xml: str) -> dict[str, float | None]:
    """Read PhysicalSizeX, Y and Z of the first image of an OME description."""
    pixels = next(iter(ElementTree.fromstring(xml).iterfind(".//{*}Pixels")), None)
    given = {} if pixels is None else pixels.attrib
    return {
        axis: to_micrometres(
            float(given[f"PhysicalSize{axis}"]), given.get(f"PhysicalSize{axis}Unit", "µm")
        )
        for axis in "ZYX"
        if f"PhysicalSize{axis}" in given
    }


def _imagej_sizes(tif: TiffFile) -> dict[str, float | None]:
    """Read ImageJ's calibration: unit and spacing in its text, X and Y in the resolution tags."""
    about = tif.imagej_metadata or {}
    unit = str(about.get("unit", "pixel"))
    sizes = _resolution_sizes(tif, dict.fromkeys(range(1, 6), unit))
    depth = float(about.get("spacing", 1.0))  # ImageJ leaves it out where it is one unit
    return sizes | {"Z": to_micrometres(depth, str(about.get("zunit", unit)))}


def _resolution_sizes(tif: TiffFile, units: Mapping[int, str]) -> dict[str, float | None]:
    """Read pixels per unit from the resolution tags of the first page."""
    tags = tif.pages.first.tags
    kind = tags.get("ResolutionUnit")
    unit = units.get(int(kind.value) if kind is not None else 2)
    sizes: dict[str, float | None] = {}
    for axis in "YX":
        tag = tags.get(f"{axis}Resolution")
        if tag is not None and unit is not None and tag.value[0]:
            sizes[axis] = to_micrometres(tag.value[1] / tag.value[0], unit)
    return sizes


# Pictures and arrays


def _read_picture(path: Path) -> ImageFile:
    """Read a PNG, JPEG or BMP; a picture's resolution is for printers, so no pixel size."""
    from PIL import Image

    with Image.open(path) as picture:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            if picture.mode == "RGB" and _png_bits(path) == 16:
                raise FileError(
                    f"{path.name} is a colour PNG of 16 bits, of which only 8 could be read. "
                    "Save it as TIFF."
                )
            array = np.asarray(_plain(picture))
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    return _image_file(array, "YX" if array.ndim == 2 else "YXC", {}, path)


def _plain(picture: Image) -> Image:
    """Turn a palette into colours and drop transparency; grey stays grey."""
    wanted = {"P": "RGB", "PA": "RGB", "RGBA": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}
    wanted |= {"1": "L", "LA": "L", "La": "L", "I;16B": "I;16"}
    return picture.convert(wanted[picture.mode]) if picture.mode in wanted else picture


def _png_bits(path: Path) -> int | None:
    """Read the bits per sample in a PNG's header; None for other files."""
    with path.open("rb") as file:
        head = file.read(25)
    return head[24] if head.startswith(b"\x89PNG") and len(head) == 25 else None


def _read_npy(path: Path) -> ImageFile:
    """Map an npy file; nothing in it is ever run."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return _image_file(array, guess_axes(array.shape), {}, path)


# zarr


def _read_zarr(path: Path) -> ImageFile:
    """Open a zarr array, or the full resolution of an OME-Zarr image."""
    zarr = import_zarr(path.name)
    node = zarr.open(str(path), mode="r")
    if isinstance(node, zarr.Array):
        return _image_file(node, guess_axes(tuple(node.shape)), {}, path)
    attributes = dict(node.attrs)
    scales = attributes.get("ome", attributes).get("multiscales")
    if scales:
        return _read_ngff(node, scales[0], path)
    arrays = list(node.arrays())
    if len(arrays) != 1:
        raise FileError(
            f"{path.name} holds {len(arrays)} arrays and does not say which is the image. "
            "Choose the folder of one array, or an OME-Zarr image."
        )
    return _image_file(arrays[0][1], guess_axes(tuple(arrays[0][1].shape)), {}, path)


def _read_ngff(group: Any, scales: Mapping[str, Any], path: Path) -> ImageFile:
    """Read axes and pixel size of an OME-Zarr image (versions 0.4 and 0.5)."""
    first = scales["datasets"][0]
    array = group[first["path"]]
    named = scales.get("axes") or [*"tczyx"][-array.ndim :]
    axes = [axis if isinstance(axis, Mapping) else {"name": axis} for axis in named]
    factors = _ngff_factors(first, scales, array.ndim)
    sizes = {
        str(axis["name"]).upper(): to_micrometres(factor, str(axis.get("unit", "pixel")))
        for axis, factor in zip(axes, factors, strict=True)
    }
    return _image_file(array, "".join(sizes), sizes, path)


def _ngff_factors(
    dataset: Mapping[str, Any], scales: Mapping[str, Any], ndim: int
) -> Sequence[float]:
    """Multiply the scale of the dataset with that of all resolutions."""
    factors = np.ones(ndim)
    for owner in (dataset, scales):
        for step in owner.get("coordinateTransformations", []):
            if step.get("type") == "scale":
                factors = factors * np.asarray(step["scale"], float)
    return [float(factor) for factor in factors]


def _one_line(error: Exception) -> str:
    """Return the first line of an error's text, without its final stop."""
    text = str(error).strip() or type(error).__name__
    return re.split(r"[\r\n]", text)[0].rstrip(".")
