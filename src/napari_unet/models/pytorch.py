"""Weights that PyTorch saved, and safetensors of others: tensors by name, and nothing else.

``torch.save`` writes a pickle and, beside it, the numbers of each storage: in a zip since 2020,
one after the other before. The pickle is read as data (:mod:`napari_unet.models.pickles`), never
followed, so a checkpoint that also holds somebody's settings or optimiser opens as well as bare
weights do, and no code in it is run.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from napari_unet.errors import ModelError
from napari_unet.models.card import Card
from napari_unet.models.formats import CARD_KEY
from napari_unet.models.found import Found
from napari_unet.models.library import parse_card
from napari_unet.models.pickles import Made, Name, read_pickle
from napari_unet.models.recognise import recognise
from napari_unet.models.recognise.layers import natural_order

if TYPE_CHECKING:
    from pathlib import Path

_DAMAGE = (
    *(OSError, ValueError, EOFError, MemoryError, OverflowError, RecursionError),
    *(TypeError, LookupError, AttributeError),  # values that are not what they should be
    *(zipfile.BadZipFile, zlib.error, RuntimeError, struct.error, SafetensorError),
)
"""What reading a damaged file ends in."""
HOW_TO_SAVE = 'torch.save(model.state_dict(), "weights.pth")'
_ZIP = b"PK\x03\x04"
_TAR_AT = 257
_TAR = b"ustar"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_MOST_INFLATED = 50  # times the size of the file; weights hardly shrink
_MOST_DEPTH = 6  # dicts in dicts
_LONGEST_SAFETENSORS_HEADER = 100_000_000  # the format's own limit
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
_WEIGHTS_KEYS = (
    "state_dict model_state_dict model_state model model_dict net net_state_dict network "
    "network_weights module weights params unet generator netG state"
).split()
"""Where checkpoints keep the weights, the likeliest first."""
_AVERAGED = ("ema", "swa", "averaged", "shadow")
_NO_WEIGHTS = ("optim", "scheduler", "scaler", "loss", "discriminator", "netD", "callbacks")


def read_state_dict(path: Path) -> list[Found]:
    """Find the network in a file of PyTorch weights or in a safetensors file of others.

    Parameters
    ----------
    path : Path
        ``.pt``, ``.pth``, ``.ckpt``, ``.bin``, ``.safetensors``; the content counts, not the
        suffix.

    Returns
    -------
    list of Found
        The readings that fit, the likeliest first.

    Raises
    ------
    ModelError
        If the file is damaged, no file of weights, a program, or its network is none that is
        known.
    """
    content = _read_content(path)
    if isinstance(content, dict) and isinstance(content.get(CARD_KEY), str):
        return [_as_exported(path, content)]
    first_error: ModelError | None = None
    for found_in, tensors in _sets_of_tensors(path, content):
        try:
            found = recognise(tensors)
        except ModelError as error:
            first_error = first_error or ModelError(f"{path.name} cannot be used. {error}")
            continue
        if found_in:
            for reading in found:
                reading.assumed.setdefault("weights", found_in)
        return found
    raise first_error or ModelError(_nothing(path))


def read_tensors(path: Path) -> list[tuple[str, dict[str, torch.Tensor]]]:
    """Read the sets of named tensors in a file.

    Parameters
    ----------
    path : Path
        As for :func:`read_state_dict`.

    Returns
    -------
    list of (str, dict of str to Tensor)
        The likeliest first: a sentence on the choice where there was one, and the tensors on the
        CPU as they are stored, in the order of the file.

    Raises
    ------
    ModelError
        If the file is damaged, no file of weights, or a program.
    """
    return _sets_of_tensors(path, _read_content(path))


def _read_content(path: Path) -> Any:
    """Read all that is in a file."""
    try:
        with path.open("rb") as file:
            start = file.read(_TAR_AT + len(_TAR))
        if is_safetensors(start):
            return _Safetensors(_read_safetensors(path))
        if start[_TAR_AT:] == _TAR:
            raise ModelError(
                f"{path.name} was written by a PyTorch of before 2018. Load it there and save it "
                f"again with a newer one: {HOW_TO_SAVE}."
            )
        with path.open("rb") as file:
            return _read_saved(file, path.stat().st_size)
    except ModelError as error:
        raise ModelError(f"{path.name} cannot be used. {error}") from error
    except _DAMAGE as error:
        raise ModelError(_damaged(path, error)) from error


def _sets_of_tensors(path: Path, content: Any) -> list[tuple[str, dict[str, torch.Tensor]]]:
    """Find the sets of named tensors in what was read, the likeliest first."""
    if isinstance(content, _Safetensors):
        return [("", content.tensors)]
    return _state_dicts(path, content)


def _as_exported(path: Path, content: dict[str, Any]) -> Found:
    """Read what :func:`napari_unet.models.export.state_dict` wrote: nothing is assumed of it."""
    card = parse_card(path, content[CARD_KEY])
    tensors = content.get("state_dict")
    if not isinstance(tensors, dict) or not all(
        isinstance(key, str) and isinstance(tensor, torch.Tensor) for key, tensor in tensors.items()
    ):
        raise ModelError(
            f"{path.name} holds a card of this plugin but not the weights that belong to it. "
            "Export the model again."
        )
    known = {field: getattr(card, field) for field in Card.model_fields}
    return Found(known.pop("architecture"), tensors, known, known.pop("assumed"))


def is_safetensors(start: bytes) -> bool:
    """Say whether a file that starts so is in the safetensors format."""
    if len(start) < 9:
        return False
    length = int.from_bytes(start[:8], "little")
    return start[8:9] == b"{" and 2 <= length <= _LONGEST_SAFETENSORS_HEADER


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file; its tensors are sorted by name, ``conv2`` before ``conv10``."""
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in sorted(file.keys(), key=natural_order)}


def _read_saved(file: IO[bytes], size: int) -> Any:
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
        storages: dict[str, _Storage] = {}

        def refer(key: Any) -> Any:
            storage = _declared(key, storages)
            if isinstance(storage, _Storage) and storage.content is None:
                storage.fill(archive.read(f"{folder}data/{storage.key}"))
            return storage

        return read_pickle(io.BytesIO(archive.read(pickles[0])), _make, refer)


def _read_legacy(file: IO[bytes], size: int) -> Any:
    """Read what ``torch.save`` wrote before 2020, or a plain pickle."""
    storages: dict[str, _Storage] = {}
    lazy: list[_Lazy] = []

    def make(path: str, arguments: tuple[Any, ...]) -> Any:
        if path.startswith("torch._utils._rebuild") and storages:
            waiting = _Lazy(path, arguments)
            lazy.append(waiting)
            return waiting
        return _make(path, arguments)

    def refer(key: Any) -> Any:
        return _declared(key, storages)

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


@dataclass(frozen=True, eq=False)
class _Safetensors:
    """What a safetensors file holds: no card of ours."""

    tensors: dict[str, torch.Tensor]


@dataclass(eq=False)
class _Storage:
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
    if isinstance(items, dict) and depth < _MOST_DEPTH and id(items) not in seen:
        seen[id(items)] = items
        for key, item in items.items():
            items[key] = _resolved(item, seen, depth + 1)
    return value


def _declared(key: Any, storages: dict[str, _Storage]) -> Any:
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
    storage = storages.setdefault(root, _Storage(root, dtype, count))
    if storage.count != count or storage.dtype != dtype:
        raise ValueError(f"storage {root} has two sizes")
    return storage


def _make(path: str, arguments: tuple[Any, ...]) -> Any:
    """Make a value of the few kinds that hold weights; NotImplemented for the others."""
    module, _, name = path.rpartition(".")
    if path in ("collections.OrderedDict", "collections.defaultdict", "builtins.dict"):
        pairs = arguments[-1] if arguments else []
        return _as_dict(pairs)
    if name in ("_rebuild_tensor", "_rebuild_tensor_v2") and module == "torch._utils":
        storage, offset, size, stride = arguments[:4]
        return _view(storage, offset, size, stride)
    if path == "torch._utils._rebuild_tensor_v3":
        storage, offset, size, stride, _, _, dtype = arguments[:7]
        return _view(storage, offset, size, stride, dtype)
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
        return _Array(name, arguments)
    return NotImplemented


def _as_dict(pairs: Any) -> dict[Any, Any]:
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


def _view(storage: Any, offset: Any, size: Any, stride: Any, dtype: Any = None) -> Any:
    """Make the tensor that shows a part of a storage."""
    if not isinstance(storage, _Storage) or storage.content is None:
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


def _read_nested(content: Any) -> Any:
    """Read a storage that was pickled by itself: a plain pickle keeps tensors so."""
    if not isinstance(content, bytes):
        raise ValueError("a storage has no bytes")
    return _read_saved(io.BytesIO(content), len(content))


class _Array:
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


def _state_dicts(path: Path, content: Any) -> list[tuple[str, dict[str, torch.Tensor]]]:
    """Find the sets of named tensors in what was read, the likeliest first."""
    found: list[tuple[tuple[str, ...], dict[str, torch.Tensor]]] = []
    modules: list[str] = []
    _collect(content, (), found, modules, set())
    usable = [(keys, tensors) for keys, tensors in found if not _is_other(keys)]
    if not usable:
        raise ModelError(_why_nothing(path, content, found, modules))
    usable.sort(key=lambda item: _rank(item[0]))
    result = []
    for keys, tensors in usable:
        where = ".".join(keys)
        sentence = ""
        if any(word in where.lower() for word in _AVERAGED):
            sentence = f"The file holds averaged weights only ({where}); they were taken."
        elif len(usable) > 1:
            others = ", ".join(".".join(other) or "itself" for other, _ in usable if other != keys)
            sentence = (
                f"The file holds several sets of weights; {where or 'its own'} was taken, "
                f"not {others}."
            )
        result.append((sentence, tensors))
    return result


def _collect(
    value: Any,
    keys: tuple[str, ...],
    found: list[tuple[tuple[str, ...], dict[str, torch.Tensor]]],
    modules: list[str],
    seen: set[int],
) -> None:
    """Walk through dicts in dicts; note the tensors with names, and whole networks."""
    if id(value) in seen or len(keys) > _MOST_DEPTH:
        return
    seen.add(id(value))
    if isinstance(value, Made):
        if isinstance(value.state, dict) and "_modules" in value.state:
            modules.append(value.by)
            return
        value = {**value.items, **(value.state if isinstance(value.state, dict) else {})}
    if not isinstance(value, dict):
        return
    tensors = {
        key: tensor
        for key, item in value.items()
        if isinstance(key, str) and (tensor := _as_tensor(item)) is not None
    }
    if any(tensor.ndim > 2 for tensor in tensors.values()):
        found.append((keys, tensors))
    for key, item in value.items():
        if isinstance(key, str):
            _collect(item, (*keys, key), found, modules, seen)


def _as_tensor(value: Any) -> torch.Tensor | None:
    """Return the tensor that a value is, or is kept in."""
    if isinstance(value, _Array):
        return value.tensor
    return value if isinstance(value, torch.Tensor) else None


def _is_other(keys: tuple[str, ...]) -> bool:
    """Say whether tensors under these keys belong to something else than the network."""
    return any(key.lower().startswith(word.lower()) for key in keys for word in _NO_WEIGHTS)


def _rank(keys: tuple[str, ...]) -> tuple[int, int, int]:
    """Return what puts the likeliest place of the weights first."""
    where = ".".join(keys).lower()
    averaged = any(word in where for word in _AVERAGED)
    first = keys[0] if keys else ""
    place = _WEIGHTS_KEYS.index(first) if first in _WEIGHTS_KEYS else len(_WEIGHTS_KEYS)
    return averaged, len(keys), place


def _why_nothing(path: Path, content: Any, found: list[Any], modules: list[str]) -> str:
    """Say why there are no weights in a file that could be read."""
    if modules:
        cls = modules[0].rpartition(".")[2]
        return (
            f"{path.name} holds a whole pickled network ({cls}), which only its own program can "
            f"open, and which would run that program's code. Ask the sender to save the weights "
            f"alone: {HOW_TO_SAVE}."
        )
    if found or (isinstance(content, dict) and {"param_groups", "state"} <= content.keys()):
        return (
            f"{path.name} holds the state of an optimiser but not the network's weights. Ask the "
            f"sender for the weights: {HOW_TO_SAVE}."
        )
    return _nothing(path)


def _nothing(path: Path) -> str:
    return (
        f"{path.name} holds no weights of a network: there is no tensor of a convolution in it. "
        f"Choose a file that was saved with {HOW_TO_SAVE}."
    )


def _damaged(path: Path, error: object) -> str:
    detail = str(error).strip().rstrip(".").split("\n")[0][:200] or type(error).__name__
    return (
        f"{path.name} is damaged or no file of PyTorch weights: {detail}. Get it again from "
        "where it came from."
    )
