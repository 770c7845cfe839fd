"""The folder in which arrays travel between the window and the computing process.

The window makes it and removes it. A lock file in it tells later sessions whether the window
that made it is still there; what a crashed session left behind is removed at the next start.
Arrays are written here without memory maps: on a full disk, writing to a map ends the program.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import QLockFile

from napari_unet.errors import UnetError, WorkerError
from napari_unet.worker.protocol import open_array

PREFIX = "napari-unet-"
SLAB_BYTES = 16 << 20
COPIED_AT_ONCE_BYTES = 32 << 20

_LOCK = "lock"


class Exchange:
    """A temporary folder with one folder per request."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
        self._lock = lock_at(self.path / _LOCK)
        self._lock.tryLock(0)

    def make_room(self, request: int) -> Path:
        """Make the folder of a request."""
        folder = self.path / str(request)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def remove(self) -> None:
        """Remove the folder and all that is in it."""
        self._lock.unlock()
        shutil.rmtree(self.path, ignore_errors=True)


class Token(str):
    """Stands for an array of a result in later requests, so that it need not travel again.

    The file of the array stays as long as the token, the array or a view of it is held.
    """

    __slots__ = ("_array",)

    _array: np.ndarray

    def __new__(cls, path: str, array: np.ndarray) -> Token:
        """Name the file of an array."""
        token = super().__new__(cls, path)
        token._array = array
        return token


def remove_stale() -> None:
    """Remove the folders of sessions that ended without doing so."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if (folder / _LOCK).exists():
            lock = lock_at(folder / _LOCK)
            if lock.tryLock(0):
                lock.unlock()
                shutil.rmtree(folder, ignore_errors=True)


def copy_small(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Copy arrays that are in memory, so that they may be changed; large and lazy ones stay.

    Parameters
    ----------
    arrays : mapping of str to array-like
        What is to be written.

    Returns
    -------
    dict of str to array-like
        Copies of numpy arrays, up to 32 MiB in all, which takes a few milliseconds; read-only
        ones need no copy.
    """
    left = COPIED_AT_ONCE_BYTES
    copies: dict[str, Any] = {}
    for name, array in arrays.items():
        copies[name] = array
        if isinstance(array, np.ndarray) and array.flags.writeable and array.nbytes <= left:
            left -= array.nbytes
            copies[name] = array.copy()
    return copies


def write_array(path: Path, array: Any, is_cancelled: Callable[[], bool]) -> None:
    """Write an array as a .npy file, slab by slab.

    Parameters
    ----------
    path : Path
        The new file.
    array : array-like
        numpy, or anything with shape, dtype and slices, e.g. dask and zarr, which is computed
        here.
    is_cancelled : callable
        Asked before each slab; once true, the rest is left out.

    Raises
    ------
    WorkerError
        If the array holds objects instead of numbers.
    OSError
        If the disk is full.
    """
    dtype = np.dtype(array.dtype)
    if dtype.hasobject:
        raise WorkerError(f"The array holds {dtype}, not numbers. Convert it to numbers first.")
    shape = tuple(int(size) for size in array.shape)
    header = {
        "descr": np.lib.format.dtype_to_descr(dtype),
        "fortran_order": False,
        "shape": shape,
    }
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for slab in _slabs(array, shape, dtype):
            if is_cancelled():
                return
            file.write(np.ascontiguousarray(slab, dtype).reshape(-1).view(np.uint8).data)


def explain_unwritten(problem: Exception) -> tuple[str, bool]:
    """Put what went wrong with writing arrays into one line.

    Parameters
    ----------
    problem : Exception
        What :func:`write_array` raised.

    Returns
    -------
    str
        The line.
    bool
        True if it is a sentence for the person, False for a defect.
    """
    if isinstance(problem, UnetError):
        return str(problem), True
    if isinstance(problem, OSError) and problem.errno == errno.ENOSPC:
        return (
            f"The disk of the temporary folder {tempfile.gettempdir()} is full. "
            "Free some space or set TMPDIR to another folder, then start napari again.",
            True,
        )
    first_line = next(iter(str(problem).splitlines()), "")
    return f"{type(problem).__name__}: {first_line}".removesuffix(": "), False


def open_result(path: str) -> np.ndarray:
    """Open an array of a result; its file goes when the array is no longer used."""
    mapped = open_array(path, is_writable=True)
    weakref.finalize(mapped, _remove_file, path)
    return mapped.view(np.ndarray)


def _slabs(array: Any, shape: tuple[int, ...], dtype: np.dtype) -> Iterator[np.ndarray]:
    """Cut an array along its first axis into parts that are computed one at a time."""
    if 0 in shape:
        return
    if not shape:
        yield np.asarray(array)
        return
    row_bytes = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
    rows = max(1, SLAB_BYTES // row_bytes, _chunk_rows(array))
    for start in range(0, shape[0], rows):
        yield np.asarray(array[start : start + rows])


def _chunk_rows(array: Any) -> int:
    """Return how much of the first axis is stored together: dask and zarr tell."""
    chunks = getattr(array, "chunks", None)
    if not chunks:
        return 1
    first = chunks[0]
    return int(max(first) if isinstance(first, tuple) else first)


def lock_at(path: Path) -> QLockFile:
    """Return a lock that ends with its process only, not with time.

    Parameters
    ----------
    path : Path
        The file of the lock; its folder must be there.

    Returns
    -------
    QLockFile
        Not taken yet.
    """
    lock = QLockFile(str(path))
    lock.setStaleLockTime(0)
    return lock


def _remove_file(path: str) -> None:
    """Remove a file if the system lets us; the folder is removed later."""
    try:
        os.unlink(path)
    except OSError:
        return
