"""The parts of a TorchScript file, read as data."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

import torch

from napari_unet.models.building.refusals import unsupported
from napari_unet.models.damage import DAMAGED
from napari_unet.models.formats import CARD_KEY
from napari_unet.models.pickles import Made, Name, read_pickle

if TYPE_CHECKING:
    import zipfile

_STORAGES: dict[str, torch.dtype] = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

_LISTS = {"build_intlist", "build_doublelist", "build_boollist", "build_tensorlist"}
CARD = f"extra/{CARD_KEY}.json"
MOST_CARD = 16 << 20
_MOST_CODE = 4 << 20
_MOST_PICKLE = 64 << 20


class Archive:
    """The parts of a file, by their names without the outermost folder."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        infos = archive.infolist()
        pickles = [info.filename for info in infos if info.filename.endswith("data.pkl")]
        if not pickles:
            raise ValueError("it has no list of weights")
        top = min(pickles, key=len).removesuffix("data.pkl")
        self._infos = {
            info.filename.removeprefix(top): info for info in infos if info.filename.startswith(top)
        }

    def __contains__(self, name: str) -> bool:
        return name in self._infos

    def read(self, name: str, limit: int) -> bytes:
        """Read a part that is no larger than a limit in bytes."""
        info = self._infos[name]
        if info.file_size > limit or (info.compress_size * 1100 + 1024 < info.file_size):
            raise ValueError(f"{name} is too large")
        return self._archive.read(info)

    def code(self) -> dict[str, str]:
        """Return the code by module: ``__torch__.unet``."""
        texts, total = {}, 0
        for name in self._infos:
            if name.startswith("code/") and name.endswith(".py"):
                text = self.read(name, _MOST_CODE).decode()
                total += len(text)
                if total > _MOST_CODE:
                    raise ValueError("its code is too large")
                texts[name.removeprefix("code/").removesuffix(".py").replace("/", ".")] = text
        return texts

    def objects(self, name: str) -> Any:
        """Read a pickle of modules and tensors."""
        folder = name.removesuffix(".pkl")
        storages: dict[str, torch.Tensor] = {}

        def refer(reference: Any) -> Any:
            """Return the storage that a pickle refers to, read once."""
            if not (isinstance(reference, tuple) and len(reference) >= 5):
                raise ValueError("a weight is described in a way that is not known")
            kind, key = reference[1], str(reference[2])
            dtype = _STORAGES.get(kind.path.rpartition(".")[2] if isinstance(kind, Name) else "")
            if dtype is None:
                raise unsupported("weights of an unusual type")
            if key not in storages:
                # A name of its own for each, no path: torch writes numbers.
                data = bytearray(self.read(f"{folder}/{key}", 1 << 40))
                whole = len(data) - len(data) % dtype.itemsize
                storages[key] = (
                    torch.frombuffer(data[:whole], dtype=dtype)
                    if whole
                    else torch.empty(0, dtype=dtype)
                )
            return storages[key]

        return read_pickle(io.BytesIO(self.read(name, _MOST_PICKLE)), _make, refer)


def _make(path: str, arguments: tuple[Any, ...]) -> Any:
    """Make the values that TorchScript pickles."""
    last = path.rpartition(".")[2]
    if path.startswith("torch._utils._rebuild_tensor"):
        return _tensor(*arguments[:4])
    if path == "torch._utils._rebuild_parameter":
        return arguments[0]
    if path.startswith("torch.jit._pickle."):
        if last in _LISTS:
            return list(arguments[0])
        if last == "restore_type_tag":
            return arguments[0]
    return NotImplemented


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> torch.Tensor:
    """Lay a tensor over a storage."""
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, torch.Tensor) or any(not isinstance(n, int) for n in numbers):
        raise ValueError("a weight is described in a way that is not known")
    if min(numbers) < 0 or len(shape) != len(strides) or len(shape) > 16:
        raise ValueError("a weight has a negative size")
    last = offset + sum((s - 1) * t for s, t in zip(shape, strides, strict=True))
    if math.prod(shape) and last >= storage.numel():
        raise ValueError("a weight is larger than the file")
    if math.prod(shape) > storage.numel():
        raise ValueError("a weight repeats itself")
    return torch.as_strided(storage, tuple(shape), tuple(strides), offset)


def traced_shape(archive: Archive) -> list[int] | None:
    """Find the shape of the image that a network was traced with, if the file tells."""
    if "traced_inputs.pkl" not in archive:
        return None

    def make(path: str, arguments: tuple[Any, ...]) -> Any:
        """Keep of a tensor its shape, and of a value with a type the value."""
        if path.startswith("torch._utils._rebuild_tensor"):
            return Made("shape", tuple(arguments[2]))
        return arguments[0] if path.endswith("restore_type_tag") else NotImplemented

    try:
        text = io.BytesIO(archive.read("traced_inputs.pkl", _MOST_PICKLE))
        given = read_pickle(text, make, lambda _: None)
    except DAMAGED:
        return None
    waiting = [given]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Made) and value.by == "shape":
            shape = [size for size in value.arguments if isinstance(size, int) and size > 0]
            return shape if len(shape) in {4, 5} else None
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            waiting.extend(value)
    return None
