"""Reads HDF5 in a process of its own, which may break without breaking anything else.

The HDF5 library is fast and old, and a damaged or hostile file can end the program that uses it.
So a child reads the file from its standard input and answers with plain numbers and texts; what
is not stored in the file itself (links to other files, virtual data), and what would be much
larger unpacked than the file is, is refused before memory is asked for it.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.errors import ModelError
from napari_unet.models.damage import lacks_memory, too_large

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PATIENCE_S = 120
_MOST_OBJECTS = 50_000
_DEEPEST = 40
_LARGEST_GROWTH = 32
_ALWAYS_ALLOWED = 16 << 20
_KILLED = 9
_CODE = "from napari_unet.models.hdf5 import answer; answer()"


@dataclass(frozen=True, eq=False)
class Hdf5:
    """What is in an HDF5 file.

    Attributes
    ----------
    arrays : dict of str to ndarray
        Numbers by their path, float32 or int64.
    attributes : dict of str to dict
        Texts, numbers and lists of them, by the path of what they belong to; ``""`` is the file.
    """

    arrays: dict[str, NDArray[Any]]
    attributes: dict[str, dict[str, Any]]


def read_hdf5(content: bytes, name: str) -> Hdf5:
    """Read all of an HDF5 file.

    Parameters
    ----------
    content : bytes
        The file.
    name : str
        What it is called in messages.

    Returns
    -------
    Hdf5
        Its numbers and attributes.

    Raises
    ------
    ModelError
        If it is damaged, refers to other files, or is a bomb.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _CODE],
            input=content,
            capture_output=True,
            timeout=_PATIENCE_S,
            check=False,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # of Windows
        )
    except subprocess.TimeoutExpired as error:
        raise ModelError(_damaged(name, "reading it takes too long")) from error
    except OSError as error:
        raise ModelError(_damaged(name, error)) from error
    head, _, numbers = done.stdout.partition(b"\n")
    if done.returncode == -_KILLED:  # as Linux ends a process when memory runs out
        raise ModelError(too_large(name))
    if done.returncode or not head:
        raise ModelError(_damaged(name, "the HDF5 library broke off"))
    told = json.loads(head)
    if told.get("lacks_memory"):
        raise ModelError(too_large(name))
    if "refused" in told:
        raise ModelError(_damaged(name, told["refused"]))
    arrays, at = {}, 0
    for path, kind, shape in told["arrays"]:
        dtype = np.dtype(np.float32 if kind == "f" else np.int64)
        count = int(np.prod(shape, dtype=np.int64))
        arrays[path] = np.frombuffer(numbers, dtype, count, at).reshape(shape).copy()
        at += count * dtype.itemsize
    return Hdf5(arrays, told["attributes"])


def answer() -> None:
    """Read a file from standard input and write what is in it; run in the child."""
    import h5py

    content = sys.stdin.buffer.read()
    arrays: list[tuple[str, NDArray[Any]]] = []
    attributes: dict[str, dict[str, Any]] = {}
    try:
        with h5py.File(h5py.h5f.open_file_image(content)) as file:
            datasets = _listed(file, attributes)
            _refuse_bombs(datasets, len(content))
            for path, dataset in datasets:
                kind = np.float32 if dataset.dtype.kind == "f" else np.int64
                arrays.append((path, np.ascontiguousarray(dataset[()], dtype=kind)))
        head: dict[str, Any] = {
            "arrays": [(path, a.dtype.kind, a.shape) for path, a in arrays],
            "attributes": attributes,
        }
    except (MemoryError, OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        arrays, head = [], {"refused": str(error), "lacks_memory": lacks_memory(error)}
    sys.stdout.buffer.write(json.dumps(head).encode() + b"\n")
    for _, array in arrays:
        sys.stdout.buffer.write(array.tobytes())
    sys.stdout.buffer.flush()


def _listed(file: Any, attributes: dict[str, dict[str, Any]]) -> list[tuple[str, Any]]:
    """List the datasets of numbers, and note the attributes on the way."""
    import h5py

    datasets: list[tuple[str, Any]] = []
    waiting: list[tuple[str, Any, int]] = [("", file, 0)]
    count = 0
    while waiting:
        path, holder, depth = waiting.pop()
        count += 1
        if count > _MOST_OBJECTS or depth > _DEEPEST:
            raise ValueError("it has too many parts")
        attributes[path] = {key: _plain(value) for key, value in holder.attrs.items()}
        if isinstance(holder, h5py.Dataset):
            if holder.dtype.kind in "fiu" and holder.dtype.itemsize <= 8:
                datasets.append((path, holder))
            continue
        for name in holder:
            if not isinstance(holder.get(name, getlink=True), h5py.HardLink):
                raise ValueError("it refers to other places or files")
            waiting.append((f"{path}/{name}".lstrip("/"), holder[name], depth + 1))
    return datasets[::-1]


def _refuse_bombs(datasets: list[tuple[str, Any]], size: int) -> None:
    """Raise if numbers are not in the file, or far more than the file can hold."""
    total = 0
    for path, dataset in datasets:
        if dataset.external or dataset.is_virtual:
            raise ValueError("it refers to other files")
        # A chunk is unpacked whole, also where the dataset is but a corner of it.
        total += max(math.prod(shape) for shape in (dataset.shape or (), dataset.chunks or ())) * 8
        if total > _ALWAYS_ALLOWED + size * _LARGEST_GROWTH:
            raise ValueError(f"unpacked it would be far larger than it is ({path})")


def _plain(value: Any) -> Any:
    """Turn an attribute into what JSON can hold."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, np.ndarray):
        return [_plain(part) for part in value.reshape(-1).tolist()]
    if isinstance(value, np.generic):
        return _plain(value.item())
    return value if isinstance(value, str | int | float | bool | None) else None


def _damaged(name: str, reason: object) -> str:
    """Say that a file is damaged, and how."""
    return (
        f"{name} is no HDF5 file that can be read, or is damaged ({reason}). Copy or download it "
        "again."
    )
