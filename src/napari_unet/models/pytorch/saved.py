"""Files of ``torch.save``: a zip since 2020, one pickle after the other before."""

from __future__ import annotations

import io
import struct
import zipfile
from dataclasses import dataclass, field
from typing import IO, Any

from napari_unet.errors import ModelError
from napari_unet.models.pickles import Made, read_pickle
from napari_unet.models.pytorch.advice import HOW_TO_SAVE
from napari_unet.models.pytorch.storages import Array, Storage, as_dict, declared, view

_ZIP = b"PK\x03\x04"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_MOST_INFLATED = 50  # times the size of the file; weights hardly shrink
MOST_DEPTH = 6  # dicts in dicts


def _make(path: str, arguments: tuple[Any, ...]) -> Any:
    """Make a value of the few kinds that hold weights; NotImplemented for the others."""
    module, _, name = path.rpartition(".")
    if path in ("collections.OrderedDict", "collections.defaultdict", "builtins.dict"):
        pairs = arguments[-1] if arguments else []
        return as_dict(pairs)
    if name in ("_rebuild_tensor", "_rebuild_tensor_v2") and module == "torch._utils":
        storage, offset, size, stride = arguments[:4]
        return view(storage, offset, size, stride)
    if path == "torch._utils._rebuild_tensor_v3":
        storage, offset, size, stride, _, _, dtype = arguments[:7]
        return view(storage, offset, size, stride, dtype)
    if path == "torch._utils._rebuild_sparse_tensor":
        raise ModelError(
            "Sparse weights cannot be read; save them dense: each tensor's to_dense(), then "
            f"{HOW_TO_SAVE}."
        )
    if name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
        return arguments[0]
    if path == "torch._tensor._rebuild_from_type_v2":
        return _make(arguments[0].path, arguments[2])
    if path == "torch.storage._load_from_bytes":
        return _read_nested(arguments[0])
    if path == "_codecs.encode" and arguments and isinstance(arguments[0], str):
        return arguments[0].encode("latin-1")  # an old pickle's way to hold bytes
    if path == "torch.Size":
        return tuple(arguments[0]) if arguments else ()
    if name in ("_reconstruct", "scalar", "_frombuffer") and module.startswith("numpy"):
        return Array(name, arguments)
    return NotImplemented


def read_saved(file: IO[bytes], size: int) -> Any:
    """Read what ``torch.save`` or ``pickle.dump`` wrote."""
    start = file.read(len(_ZIP))
    file.seek(0)
    return _read_zip(file, size) if start == _ZIP else _read_legacy(file, size)


def _read_zip(file: IO[bytes], size: int) -> Any:
    """Read the zip that ``torch.save`` writes: a pickle, and a file per storage."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > _MOST_INFLATED * size:
            raise ModelError(
                "It says that it holds far more than fits into its size, which weights never do. "
                "It was not unpacked."
            )
        names = {entry.filename for entry in entries}
        pickles = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ModelError(
                "It is a zip, but not one of PyTorch: there is no data.pkl in it. Choose the "
                "file of weights itself."
            )
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}constants.pkl" in names and any(
            name.startswith(f"{folder}code/") for name in names
        ):
            raise ModelError("It holds a TorchScript program, not a state dict.")
        if f"{folder}byteorder" in names and archive.read(f"{folder}byteorder") != b"little":
            raise ModelError(f"It was saved on a machine of another byte order: {HOW_TO_SAVE}.")
        storages: dict[str, Storage] = {}

        def refer(key: Any) -> Any:
            storage = declared(key, storages)
            if isinstance(storage, Storage) and storage.content is None:
                storage.fill(archive.read(f"{folder}data/{storage.key}"))
            return storage

        return read_pickle(io.BytesIO(archive.read(pickles[0])), _make, refer)


def _read_legacy(file: IO[bytes], size: int) -> Any:
    """Read what ``torch.save`` wrote before 2020, or a plain pickle."""
    storages: dict[str, Storage] = {}
    lazy: list[_Lazy] = []

    def make(path: str, arguments: tuple[Any, ...]) -> Any:
        if path.startswith("torch._utils._rebuild") and storages:
            waiting = _Lazy(path, arguments)
            lazy.append(waiting)
            return waiting
        return _make(path, arguments)

    def refer(key: Any) -> Any:
        return declared(key, storages)

    first = read_pickle(file, make, refer)
    if first != _LEGACY_MAGIC:
        return first
    read_pickle(file, make, refer)  # version of the protocol
    system = read_pickle(file, make, refer)
    if not isinstance(system, dict) or not system.get("little_endian", True):
        raise ModelError(f"It was saved on a machine of another byte order: {HOW_TO_SAVE}.")
    content = read_pickle(file, make, refer)
    for key in read_pickle(file, make, refer):
        storage = storages[str(key)]
        (count,) = struct.unpack("<q", file.read(8))
        if count != storage.count or count * storage.dtype.itemsize > size:
            raise ValueError(f"storage {key} has another size than it says")
        storage.fill(file.read(count * storage.dtype.itemsize))
    return _resolved(content, {}, 0)


@dataclass(eq=False)
class _Lazy:
    """A tensor whose numbers come later in the file."""

    path: str
    arguments: tuple[Any, ...]
    value: Any = None
    state: Any = field(default=None, repr=False)

    def set_state(self, state: Any) -> None:
        """Take note of what else is known of it; tensors need none of it."""
        self.state = state

    def resolve(self) -> Any:
        """Make the tensor, once."""
        if self.value is None:
            arguments = tuple(
                argument.resolve() if isinstance(argument, _Lazy) else argument
                for argument in self.arguments
            )
            self.value = _make(self.path, arguments)
        return self.value


def _resolved(value: Any, seen: dict[int, Any], depth: int) -> Any:
    """Put tensors in the place of what waited for their numbers, in dicts only."""
    if isinstance(value, _Lazy):
        made = value.resolve()
        return Made(value.path, value.arguments) if made is NotImplemented else made
    items = value.items if isinstance(value, Made) else value
    if isinstance(items, dict) and depth < MOST_DEPTH and id(items) not in seen:
        seen[id(items)] = items
        for key, item in items.items():
            items[key] = _resolved(item, seen, depth + 1)
    return value


def _read_nested(content: Any) -> Any:
    """Read a storage that was pickled by itself: a plain pickle keeps tensors so."""
    if not isinstance(content, bytes):
        raise ValueError("a storage has no bytes")
    return read_saved(io.BytesIO(content), len(content))
