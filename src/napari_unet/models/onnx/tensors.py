"""The arrays in an ONNX file, or in a file beside it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from napari_unet.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path


def read_tensor(tensor: Any, path: Path) -> np.ndarray:
    """Read an array of the file, or of a file beside it."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return _external(tensor, path)
    array: np.ndarray = numpy_helper.to_array(tensor)
    return array if array.dtype != object else array.astype(str)


def _external(tensor: Any, path: Path) -> np.ndarray:
    """Read an array from a file in the same folder."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    folder = path.resolve().parent
    place = (folder / entries.get("location", "")).resolve()
    if not place.is_relative_to(folder) or place == folder:
        raise ModelError(
            f"{path.name} asks for weights outside of its folder "
            f"({entries.get('location', '')}), which is not done. Ask for one file that "
            "holds everything."
        )
    if not place.is_file():
        raise ModelError(
            f"The weights of {path.name} lie in another file, {place.name}, which is "
            "missing. Put it into the same folder."
        )
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    shape = tuple(int(size) for size in tensor.dims)
    count = math.prod(shape)
    offset = int(entries.get("offset") or 0)
    if min((0, *shape)) < 0 or offset < 0:
        raise ModelError(damaged(path, "a tensor has a negative size"))
    if offset + count * dtype.itemsize > place.stat().st_size:
        raise ModelError(
            f"{place.name}, which holds weights of {path.name}, is too short. Copy or "
            "download it again."
        )
    return np.fromfile(place, dtype.newbyteorder("<"), count, offset=offset).reshape(shape)


def damaged(path: Path, reason: object) -> str:
    """Say that a file is damaged, and how."""
    return (
        f"{path.name} is no ONNX network that can be read, or is damaged ({reason}). Copy or "
        "download it again, or export it again."
    )
