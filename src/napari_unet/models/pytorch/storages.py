"""The tensors in what torch saved: parts of storages, made without torch's own functions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from napari_unet.errors import ModelError
from napari_unet.models.pickles import Made, Name
from napari_unet.models.pytorch.advice import HOW_TO_SAVE

_DTYPES = {
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Float": torch.float32,
    "Double": torch.float64,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
}

_QUANTISED = ("QInt", "QUInt")


@dataclass(eq=False)
class Storage:
    """Numbers in a row, of which tensors show parts."""

    key: str
    dtype: torch.dtype
    count: int
    content: torch.Tensor | None = None

    def fill(self, raw: bytes) -> None:
        """Take over the bytes."""
        if len(raw) != self.count * self.dtype.itemsize:
            raise ValueError(f"storage {self.key} is not as long as it says")
        self.content = (
            torch.frombuffer(bytearray(raw), dtype=self.dtype)
            if raw
            else torch.empty(0, dtype=self.dtype)
        )


def declared(key: Any, storages: dict[str, Storage]) -> Any:
    """Find the storage that a pickle refers to: ('storage', type, key, device, count, ...)."""
    if not isinstance(key, tuple) or not key:
        raise ValueError("it refers to what is no storage")
    if key[0] == "module":  # the source code of a whole network, of before 2020
        return key[1] if isinstance(key[1], Name) else Name("torch.nn.Module")
    if key[0] != "storage" or len(key) < 5 or not isinstance(key[1], Name):
        raise ValueError("it refers to what is no storage")
    root, count, kind = str(key[2]), key[4], key[1].path.rpartition(".")[2]
    dtype = torch.uint8 if kind == "UntypedStorage" else _DTYPES.get(kind.removesuffix("Storage"))
    if dtype is None and kind.startswith(_QUANTISED):
        raise ModelError(f"Quantised weights cannot be read; export float weights: {HOW_TO_SAVE}.")
    if dtype is None:
        raise ModelError(
            f"Its numbers are of a kind that cannot be computed with here ({kind}). "
            "Ask for the weights in float32."
        )
    if not isinstance(count, int) or count < 0:
        raise ValueError("a storage has no size")
    storage = storages.setdefault(root, Storage(root, dtype, count))
    if storage.count != count or storage.dtype != dtype:
        raise ValueError(f"storage {root} has two sizes")
    return storage


def as_dict(pairs: Any) -> dict[Any, Any]:
    """Make a dict of what a pickle makes one from."""
    if isinstance(pairs, dict):
        return pairs
    if not isinstance(pairs, list | tuple):
        return {}
    return {
        pair[0]: pair[1]
        for pair in pairs
        if isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str)
    }


def view(storage: Any, offset: Any, size: Any, stride: Any, dtype: Any = None) -> Any:
    """Make the tensor that shows a part of a storage."""
    if not isinstance(storage, Storage) or storage.content is None:
        raise ValueError("a tensor has no numbers")
    if not all(isinstance(n, int) and n >= 0 for n in (offset, *size, *stride)):
        raise ValueError("a tensor has an impossible shape")
    content = storage.content
    if isinstance(dtype, Name):
        wanted = getattr(torch, dtype.path.rpartition(".")[2], None)
        if not isinstance(wanted, torch.dtype) or content.numel() % wanted.itemsize:
            raise ValueError("a tensor is of an unknown kind")
        content = content.view(wanted)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) and (last >= content.numel() or math.prod(size) > content.numel()):
        raise ValueError("a tensor reaches beyond its numbers")
    return content.as_strided(tuple(size), tuple(stride), offset)


class Array:
    """A numpy array or number that a pickle holds; a tensor, if it is one of real numbers.

    Parameters
    ----------
    how : str
        Function that would have made it.
    arguments : tuple
        What it would have been given.
    """

    def __init__(self, how: str, arguments: tuple[Any, ...]) -> None:
        self.tensor: torch.Tensor | None = None
        if how == "_frombuffer" and len(arguments) == 4:
            raw, dtype, shape, order = arguments
            self._fill(shape, dtype, order == "F", raw)

    def set_state(self, state: Any) -> None:
        """Take over version, shape, kind, order and bytes."""
        if isinstance(state, tuple) and len(state) == 5:
            _, shape, dtype, columns_first, raw = state
            self._fill(shape, dtype, bool(columns_first), raw)

    def _fill(self, shape: Any, dtype: Any, columns_first: bool, raw: Any) -> None:
        """Make the tensor if the kind is one of numbers."""
        kinds = {"f2": torch.float16, "f4": torch.float32, "f8": torch.float64, "i8": torch.int64}
        code = dtype.arguments[0] if isinstance(dtype, Made) and dtype.arguments else None
        if (
            code not in kinds
            or not isinstance(raw, bytes | bytearray)
            or not isinstance(shape, tuple)
        ):
            return
        if not raw or len(raw) != math.prod(shape) * kinds[code].itemsize:
            return
        values = torch.frombuffer(bytearray(raw), dtype=kinds[code])
        if columns_first:
            self.tensor = values.reshape(shape[::-1]).permute(*range(len(shape))[::-1])
        else:
            self.tensor = values.reshape(shape)


def as_tensor(value: Any) -> torch.Tensor | None:
    """Return the tensor that a value is, or is kept in."""
    if isinstance(value, Array):
        return value.tensor
    return value if isinstance(value, torch.Tensor) else None
