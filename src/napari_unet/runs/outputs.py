"""Where results are written: to what was given if it fits, else to memory, or to disk meanwhile."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.errors import DeviceError, ImageError
from napari_unet.files.scratch import ScratchArray

if TYPE_CHECKING:
    from contextlib import ExitStack

IN_MEMORY_BYTES = 256 * 2**20
"""Probabilities of a plane that nobody keeps are held on disk if they are more."""


def output_array(out: Any, shape: tuple[int, ...], dtype: type[np.generic]) -> Any:
    """Return an array to write to: the one that was given if it fits, else a new one.

    Parameters
    ----------
    out : array or None
        What was given.
    shape : tuple of int
        Of the result.
    dtype : type of numpy.generic
        Of the result; what was given may be another of its kind, e.g. float16 or int64.

    Returns
    -------
    array
        Numpy, zarr or what is written like them.

    Raises
    ------
    DeviceError
        If a new one does not fit into memory.
    ImageError
        If what was given cannot hold the result.
    """
    if out is None:
        try:
            return np.empty(shape, dtype)
        except MemoryError as error:
            size = math.prod(shape) * np.dtype(dtype).itemsize / 2**30
            raise DeviceError(
                f"The result takes {size:.1f} GiB, more than this computer has free. Give out=, "
                "e.g. a zarr array, or segment fewer planes."
            ) from error
    if not hasattr(out, "shape") or not hasattr(out, "dtype"):
        raise ImageError(
            f"The result cannot be written to {type(out).__name__}. Give a numpy or zarr array."
        )
    flags = getattr(out, "flags", None)  # numpy's; zarr says it itself
    is_read_only = getattr(out, "read_only", False) or not getattr(flags, "writeable", True)
    kind, least = (np.floating, 2) if np.issubdtype(dtype, np.floating) else (np.integer, 4)
    if is_read_only or not np.issubdtype(out.dtype, kind) or out.dtype.itemsize < least:
        state = "read-only " if is_read_only else ""
        raise ImageError(
            f"The array given as out is {state}{out.dtype}, which cannot hold the result. Make it "
            f"a writable {np.dtype(dtype)}."
        )
    if tuple(out.shape) != shape:
        raise ImageError(
            f"The array given as out has shape {tuple(out.shape)}, the result has {shape}. Make "
            "it of that shape."
        )
    return out


def passing_array(shape: tuple[int, ...], stack: ExitStack) -> Any:
    """Return an array for what nobody keeps: in memory, or on disk if it is large.

    Parameters
    ----------
    shape : tuple of int
        (classes, *spatial) of a plane.
    stack : ExitStack
        Removes it from the disk.

    Returns
    -------
    array of float32
        To be written and read.
    """
    if math.prod(shape) * np.dtype(np.float32).itemsize <= IN_MEMORY_BYTES:
        return np.empty(shape, np.float32)
    return stack.enter_context(ScratchArray(shape, np.float32))
