"""Write zarr arrays and OME-Zarr images, with an optional package, asked for only where it is used.

What is written stands in a hidden folder beside its place until it is complete. If a run is
broken off, the folder stays, and the same run goes on with it.
"""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.arrays.blocks import cut_blocks
from napari_unet.errors import FileError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ZARR_FORMATS = {"ome-zarr": ".ome.zarr", "zarr": ".zarr"}
"""How the names of the formats end."""
CHUNK_PX = {2: 512, 3: 64}
"""Side of the chunks that are written here, in pixels."""
LEAST_LEVEL_PX = 1024
"""Labels have smaller copies, to be looked at from afar, down to this side."""
NGFF_VERSION = "0.4"  # of OME-Zarr: what most programs read today


def import_zarr(name: str) -> Any:
    """Import the package, or say how to get it.

    Parameters
    ----------
    name : str
        What cannot be read or written without it.

    Returns
    -------
    module
        ``zarr``, of version 3 or later.

    Raises
    ------
    FileError
        If it is missing or too old.
    """
    try:
        import zarr
    except ImportError as error:
        raise FileError(f"{name} needs one more package. Run: pip install zarr") from error
    if int(zarr.__version__.split(".")[0]) < 3:
        raise FileError(
            f"{name} needs zarr 3 or later, installed is {zarr.__version__}. "
            "Run: pip install --upgrade zarr"
        )
    return zarr


@contextmanager
def writing(array: Any) -> Iterator[None]:
    """Tell in a sentence if the system refuses what is written to an array, e.g. on a full disk.

    Parameters
    ----------
    array : array-like
        Only a zarr array in a folder has such a sentence; errors of others stay what they are.

    Yields
    ------
    None
        For the time of the writing.

    Raises
    ------
    FileError
        If the system refuses.
    """
    try:
        yield
    except OSError as error:
        root = getattr(getattr(array, "store", None), "root", None)
        if root is None:
            raise
        raise _refused(root, error) from error


def choose_chunks(shape: tuple[int, ...], spatial_dims: int) -> tuple[int, ...]:
    """Choose chunks for an array whose last axes are the spatial ones.

    Parameters
    ----------
    shape : tuple of int
        Of the array.
    spatial_dims : {2, 3}
        How many axes are spatial.

    Returns
    -------
    tuple of int
        One plane or volume is not in a chunk with the next.
    """
    sides = (1,) * (len(shape) - spatial_dims) + (CHUNK_PX[spatial_dims],) * spatial_dims
    return tuple(max(1, min(side, size)) for side, size in zip(sides, shape, strict=True))


class ZarrFile:
    """A zarr array or OME-Zarr image that is at its place once it is complete.

    Parameters
    ----------
    path : Path
        Where it belongs.
    shape : tuple of int
        Its shape.
    dtype : str
        Of its values.
    axes : str
        One letter of ``TCZYX`` per axis.
    spatial_dims : {2, 3}
        How many of the last axes the network sees at once.
    pixel_size_um : sequence of float, optional
        In micrometres, one per spatial axis, Z first.

    Attributes
    ----------
    array : zarr.Array
        To be written; what an earlier run left in it is still there.

    Raises
    ------
    FileError
        If the package is missing, or it cannot be written.
    """

    def __init__(
        self,
        path: Path,
        shape: tuple[int, ...],
        dtype: str,
        axes: str,
        spatial_dims: int,
        pixel_size_um: Sequence[float] | None = None,
    ) -> None:
        self._zarr = import_zarr(path.name)
        self._path, self._axes, self._pixel_size_um = path, axes, pixel_size_um
        self._is_ome = path.name.endswith(ZARR_FORMATS["ome-zarr"])
        self._part = path.with_name(f".{path.name}.part")
        self._chunks = choose_chunks(shape, spatial_dims)
        place = self._part / "0" if self._is_ome else self._part
        self.array = _opened(self._zarr, place, shape, dtype)
        if self.array is None:
            shutil.rmtree(self._part, ignore_errors=True)
            self.array = self._create(place, shape, dtype)

    def finish(self, *, are_labels: bool) -> Path:
        """Describe it, and put it in its place; what stood there is replaced.

        Parameters
        ----------
        are_labels : bool
            OME-Zarr labels have smaller copies of themselves.

        Returns
        -------
        Path
            Where it is.

        Raises
        ------
        FileError
            If the system refuses.
        """
        try:
            if self._is_ome:
                levels = self._shrink() if are_labels else 1
                group = self._zarr.open_group(self._part, mode="a", zarr_format=2)
                group.attrs.update(self._metadata(levels, are_labels=are_labels))
            if self._path.is_dir():
                shutil.rmtree(self._path)
            os.replace(self._part, self._path)
        except OSError as error:
            raise _refused(self._path, error) from error
        return self._path

    def _create(self, place: Path, shape: tuple[int, ...], dtype: str) -> Any:
        """Create an array of zeros."""
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            chunks = tuple(
                min(chunk, size) for chunk, size in zip(self._chunks, shape, strict=True)
            )
            version: dict[str, Any] = {"zarr_format": 3}
            if self._is_ome:
                separator = {"name": "v2", "separator": "/"}
                version = {"zarr_format": 2, "chunk_key_encoding": separator}
            return self._zarr.create_array(
                place, shape=shape, chunks=chunks, dtype=dtype, fill_value=0, **version
            )
        except OSError as error:
            raise _refused(self._path, error) from error

    def _shrink(self) -> int:
        """Write smaller copies in which every second row and column is left out; count levels."""
        level, large = 1, self.array
        while max(large.shape[-2:]) > LEAST_LEVEL_PX:
            shape = (*large.shape[:-2], *(-(-size // 2) for size in large.shape[-2:]))
            place = self._part / str(level)
            shutil.rmtree(place, ignore_errors=True)
            small = self._create(place, shape, str(large.dtype))
            for window in cut_blocks(shape, small.chunks):
                *lead, rows, columns = window
                twice = [slice(2 * part.start, 2 * part.stop, 2) for part in (rows, columns)]
                small[window] = large[(*lead, *twice)]
            level, large = level + 1, small
        return level

    def _metadata(self, levels: int, *, are_labels: bool) -> dict[str, Any]:
        """Describe axes and pixel size as OME-Zarr does."""
        spatial = [axis for axis in self._axes if axis in "ZYX"]
        sizes = dict(zip(spatial, self._pixel_size_um or (), strict=False))
        kinds = {"T": "time", "C": "channel"}
        unit = {"unit": "micrometer"} if sizes else {}
        axes = [
            {
                "name": axis.lower(),
                "type": kinds.get(axis, "space"),
                **(unit if axis in sizes else {}),
            }
            for axis in self._axes
        ]
        datasets = []
        for level in range(levels):
            scale = [
                float(sizes.get(axis, 1.0)) * (2**level if axis in "YX" else 1)
                for axis in self._axes
            ]
            steps = [{"type": "scale", "scale": scale}]
            datasets.append({"path": str(level), "coordinateTransformations": steps})
        name = self._path.name.removesuffix(ZARR_FORMATS["ome-zarr"])
        scales = {"version": NGFF_VERSION, "name": name, "axes": axes, "datasets": datasets}
        labels = {"image-label": {"version": NGFF_VERSION}} if are_labels else {}
        return {"multiscales": [scales], **labels}


class Companion:
    """A zarr array on disk beside another one, for what is needed until that one is complete.

    It stays if the run is broken off, so that the next one goes on with it.

    Parameters
    ----------
    array : zarr.Array
        The array it belongs to.
    shape : tuple of int
        Its shape; of another shape or damaged, it is made anew.
    spatial_dims : {2, 3}
        How many of its last axes are spatial.

    Raises
    ------
    FileError
        If it cannot be written.
    """

    def __init__(self, array: Any, shape: tuple[int, ...], spatial_dims: int) -> None:
        zarr = import_zarr("This array")
        of = Path(array.store.root, array.path)
        self._folder = of.with_name(f".{of.name}.probability")
        self.array = _opened(zarr, self._folder, shape, "float32")
        if self.array is None:
            self.remove()
            chunks = choose_chunks(shape, spatial_dims)
            try:
                self.array = zarr.create_array(
                    self._folder, shape=shape, chunks=chunks, dtype="float32", fill_value=0
                )
            except OSError as error:
                raise _refused(self._folder, error) from error

    @staticmethod
    def is_possible_beside(array: Any) -> bool:
        """Say if an array is a zarr array in a folder of this computer."""
        return hasattr(getattr(array, "store", None), "root") and hasattr(array, "path")

    def remove(self) -> None:
        """Remove it from the disk."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _opened(zarr: Any, folder: Path, shape: tuple[int, ...], dtype: str) -> Any:
    """Open an array that an earlier run left; None if it does not fit or is damaged."""
    if not folder.is_dir():
        return None
    try:
        array = zarr.open_array(folder, mode="r+")
    except (OSError, ValueError, KeyError):
        return None
    return array if array.shape == shape and array.dtype == np.dtype(dtype) else None


def _refused(path: Path, error: OSError) -> FileError:
    """Say that the system refuses a folder."""
    reason = error.strerror or str(error)
    return FileError(f"{path} cannot be written: {reason}. Choose another folder, or make room.")
