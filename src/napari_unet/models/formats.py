"""What a file is, told by its content: nothing in it is run, and no ending is believed.

People rename weights, download web pages in their place and drop folders. The first bytes, the
list of files in an archive and a few names in the text say what it really is::

    bytes 8.. "{"            safetensors       first bytes "PK"   zip: by the names in it
    80 02 8a 0a 6c fc ...    torch.save, old   89 "HDF"           HDF5: by the names in it
    protobuf with a graph    ONNX              folder             by the names in it

Only small parts of a file are read, so a file of any size is told at once. Needs no torch.
"""

from __future__ import annotations

import os
import pickletools
import re
import stat
import struct
import tarfile
import warnings
import zipfile
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

from napari_unet.errors import ModelError
from napari_unet.models.damage import UNREADABLE_ZIP

if TYPE_CHECKING:
    from collections.abc import Iterable

Kind = Literal[
    "own",
    "safetensors",
    "pytorch",
    "torchscript",
    "onnx",
    "keras",
    "bioimageio",
    "refused",
    "other",
]
"""Formats that are opened; weights that are refused; and what is no weights at all."""

CARD_KEY = "napari_unet_card"
LONGEST_HEADER = 100_000_000
_READ_AT_START = 4096
_SEARCHED = 1 << 22
_LONGEST_VARINT = 10
_MOST_FIELDS = 10_000
_MANY_ENTRIES = 100_000

_SAVE_AGAIN = "Ask the sender for the state dict (PyTorch), an ONNX file or a .keras file."


@dataclass(frozen=True)
class Format:
    """What a file is.

    Attributes
    ----------
    kind : str
        See :data:`Kind`.
    text : str
        What a person calls it, with its article if it has one: "PyTorch weights".
    advice : str
        Of what is not opened: what to do instead, whole sentences.
    """

    kind: Kind
    text: str
    advice: str = ""

    @property
    def opens(self) -> bool:
        """Whether there is a reader for it."""
        return self.kind not in ("refused", "other")

    @property
    def is_weights(self) -> bool:
        """Whether it holds, or was meant to hold, a network."""
        return self.kind != "other"


OWN = Format("own", "a model of this plugin")
SAFETENSORS = Format("safetensors", "safetensors weights")
PYTORCH = Format("pytorch", "PyTorch weights")
TORCHSCRIPT = Format("torchscript", "a TorchScript network")
ONNX = Format("onnx", "an ONNX network")
KERAS = Format("keras", "a Keras network or its weights")
BIOIMAGEIO = Format("bioimageio", "a bioimage.io model")

LFS_POINTER = Format(
    "refused",
    "only a Git LFS pointer",
    "Fetch the weights themselves with 'git lfs pull' or download the file from its web page.",
)
WEB_PAGE = Format("refused", "a web page, not weights", "The download has failed; repeat it.")
EMPTY = Format("refused", "empty", "It is damaged or incomplete. Copy or download it again.")
MANGLED = Format(
    "refused",
    "a zip archive that was converted as if it were text",
    "Its bytes are lost; copy or download it again, as a binary file.",
)
BROKEN_ZIP = Format(
    "refused",
    "a zip archive whose end is missing or altered",
    "It is damaged or incomplete. Copy or download it again.",
)
TWICE = Format(
    "refused",
    "an archive that holds two files of one name",
    "Programs differ in which of them they take. Ask the sender to save it again.",
)
CUT_OFF = Format(
    "refused",
    "a safetensors file whose header is cut off",
    "It is damaged or incomplete. Copy or download it again.",
)
SAVED_MODEL = Format("refused", "a TensorFlow SavedModel", f"This cannot be opened. {_SAVE_AGAIN}")
TFLITE = Format("refused", "a TensorFlow Lite network", f"This cannot be opened. {_SAVE_AGAIN}")
TF_CHECKPOINT = Format("refused", "a TensorFlow checkpoint", f"It cannot be opened. {_SAVE_AGAIN}")
EXPORTED = Format("refused", "a program of torch.export", f"This cannot be opened. {_SAVE_AGAIN}")
GGUF = Format("refused", "weights of a language model", "Choose the weights of a U-Net.")
KERAS_JSON = Format(
    "refused",
    "the architecture of a Keras network without its weights",
    "Choose the .h5 or .keras file that belongs to it.",
)
OLD_PICKLE = Format(
    "refused",
    "an old pickle that could run code, not weights",
    "It was not opened. Ask the sender for the weights alone: "
    'torch.save(model.state_dict(), "weights.pth").',
)

_CHOOSE = "Choose a weights file."
_UNPACK = "Unpack it and open the weights file in it."
_IMAGE = Format("other", "an image, not weights", "Open it with File > Open.")
_HDF5 = Format("other", "an HDF5 file that holds no Keras network", _CHOOSE)
_TEXT = Format("other", "text, not weights", _CHOOSE)
_FOLDER = Format(
    "other", "a folder that holds no model", "Choose a weights file or a bioimage.io folder."
)
_UNKNOWN = Format("other", "not a weights file that is known here", _CHOOSE)
_PACKED = Format("other", "a packed file", _UNPACK)
_PROGRAM = Format("other", "a program, not weights", _CHOOSE)

# First bytes, and what begins with them.
_STARTS: tuple[tuple[bytes, Format], ...] = (
    (b"version https://git-lfs", LFS_POINTER),
    (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", PYTORCH),
    *((b"\x80" + bytes([version]), PYTORCH) for version in (2, 3, 4, 5)),
    (b"GGUF", GGUF),
    (b"II*\0", _IMAGE),
    (b"MM\0*", _IMAGE),
    (b"II+\0", _IMAGE),
    (b"MM\0+", _IMAGE),
    (b"\x89PNG", _IMAGE),
    (b"\xff\xd8\xff", _IMAGE),
    (b"GIF8", _IMAGE),
    (b"ZISRAWFILE", _IMAGE),
    (b"\xda\xce\xbe\n", _IMAGE),
    (b"\x93NUMPY", Format("other", "a NumPy array, not a network", _CHOOSE)),
    (b"MATLAB 5.0", Format("other", "a MATLAB file", _CHOOSE)),
    (b"%PDF", Format("other", "a PDF document", _CHOOSE)),
    (b"\x1f\x8b", _PACKED),
    (b"BZh", _PACKED),
    (b"\xfd7zXZ", _PACKED),
    (b"\x28\xb5\x2f\xfd", _PACKED),
    (b"7z\xbc\xaf", _PACKED),
    (b"Rar!", _PACKED),
    (b"\x7fELF", _PROGRAM),
    (b"MZ", _PROGRAM),
)
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_KERAS_NAMES = (b"layer_names", b"model_config", b"_layer_checkpoint_dependencies", b"keras_")
_KERAS_3_NAMES = (b"\0layers\0", b"\0vars\0")
"""Names in the files of its ``save_weights``; they stand between zeros."""
_OLD_PICKLE = re.compile(rb"\(?[dl]p\d+\n|c[\w.]+\n[\w.]+\n")
_BIOIMAGEIO_YAML = re.compile(rb"\A(?=.*^format_version\s*:)(?=.*^weights\s*:)", re.M | re.S)
_KERAS_CONFIG = re.compile(rb'^\s*\{.*"class_name"\s*:\s*"(Model|Functional|Sequential)"', re.S)
_YAML_NAME = re.compile(r"(.*\.)?(bioimageio|rdf|model)\.ya?ml")


def sniff(path: str | Path) -> Format:
    """Tell what a file or folder is, by its content.

    Parameters
    ----------
    path : str or Path
        The file or folder.

    Returns
    -------
    Format
        Never a guess from the ending alone.

    Raises
    ------
    ModelError
        If there is nothing, or it may not be read.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return _folder(path)
        if not stat.S_ISREG(mode):
            return Format("other", "no file but a device or a pipe", _CHOOSE)
        with path.open("rb") as file:
            return _file(file, os.fstat(file.fileno()).st_size)
    except FileNotFoundError as error:
        raise ModelError(f"There is no weights file {path}. Check the path.") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(
            f"{path} cannot be read ({reason}). Check that you may read it."
        ) from error


def refusal(path: Path, found: Format) -> str:
    """Return the sentence for a file that is not opened.

    Parameters
    ----------
    path : Path
        The file or folder.
    found : Format
        What it is.

    Returns
    -------
    str
        What it is and what to do.
    """
    return f"{path.name} is {found.text}. {found.advice}"


def _file(file: BinaryIO, size: int) -> Format:
    """Tell what a file is."""
    start = file.read(_READ_AT_START)
    if not start:
        return EMPTY
    # The first eight bytes of safetensors are a number, which may look like the start of anything.
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= LONGEST_HEADER:
        return _safetensors(file, int.from_bytes(start[:8], "little"), size)
    for magic, found in _STARTS:
        if start.startswith(magic):
            return found
    if start.startswith(b"PK\x03\x04") or start.startswith(b"PK\x05\x06"):
        return _zip(file)
    if _HDF5_MAGIC in (start[at : at + 8] for at in (0, 512, 1024, 2048)):
        return _hdf5(file, size)
    if start[257:262] == b"ustar":
        return _tar(file)
    if start[4:8] == b"TFL3":
        return TFLITE
    if _is_onnx(file, size):
        return ONNX
    if start[:2] == b"\x08\x01" and b"serve" in start + file.read(_SEARCHED):
        return SAVED_MODEL
    if _OLD_PICKLE.match(start):
        return PYTORCH
    return _text(file)


def _safetensors(file: BinaryIO, header: int, size: int) -> Format:
    """Tell our own files from those of others by the card in the header."""
    if 8 + header > size:
        return CUT_OFF
    file.seek(8)
    return OWN if f'"{CARD_KEY}"'.encode() in file.read(header) else SAFETENSORS


def _zip(file: BinaryIO) -> Format:
    """Tell what a zip archive is by the names in it."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except UNREADABLE_ZIP:
        file.seek(0)
        is_text = file.read(_SEARCHED).count(b"\xef\xbf\xbd") > 8
        return MANGLED if is_text else BROKEN_ZIP
    return _archive(names)


def _archive(names: list[str]) -> Format:
    """Tell what an archive is by the names in it."""
    if len(names) > _MANY_ENTRIES:
        return Format("other", f"an archive of {len(names)} files, not a model", _CHOOSE)
    parts = [name.split("/") for name in names]
    ends = {part[-1] for part in parts}
    tops = {part[-1] for part in parts if len(part) <= 2}
    if any(_YAML_NAME.fullmatch(name) for name in tops):
        return BIOIMAGEIO
    if len(set(names)) < len(names):
        return TWICE
    if "data.pkl" in ends:
        code = any("code" in part[:-1] for part in parts)
        return TORCHSCRIPT if code or "constants.pkl" in ends else PYTORCH
    if "model.weights.h5" in ends or {"config.json", "metadata.json"} <= tops:
        return KERAS
    if "saved_model.pb" in ends:
        return SAVED_MODEL
    if "serialized_exported_program.json" in ends or "model.json" in ends:
        return EXPORTED
    if "[Content_Types].xml" in ends:
        return Format("other", "an office document", _CHOOSE)
    if ends and all(name.endswith(".npy") for name in ends):
        return Format("other", "a file of NumPy arrays, not a network", _CHOOSE)
    return Format("other", "a zip archive that is no model", _UNPACK)


def _tar(file: BinaryIO) -> Format:
    """Tell the first format of torch.save, a tar archive, from others."""
    names: set[str] = set()
    try:
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                names.add(member.name)
                if {"pickle", "storages"} <= names:
                    return PYTORCH
                if len(names) > _MOST_FIELDS:
                    break
    except (tarfile.TarError, OSError, ValueError, EOFError):
        return Format("refused", "a damaged tar archive", "Copy or download it again.")
    return Format("other", "a tar archive", _UNPACK)


def _hdf5(file: BinaryIO, size: int) -> Format:
    """Tell the files of Keras from other HDF5 by the names that Keras writes in them.

    The HDF5 library is not asked: it is not made for files that want to break it.
    """
    file.seek(0)
    text = file.read(_SEARCHED)
    if size > _SEARCHED:
        file.seek(max(_SEARCHED, size - _SEARCHED))
        text += file.read(_SEARCHED)
    is_keras = any(name in text for name in _KERAS_NAMES)
    return KERAS if is_keras or all(name in text for name in _KERAS_3_NAMES) else _HDF5


def _is_onnx(file: BinaryIO, size: int) -> bool:
    """Walk the outermost fields of a protobuf: a version (1) and a graph (7)."""
    file.seek(0)
    fields: set[int] = set()
    for _ in range(_MOST_FIELDS):
        if file.tell() >= size:
            break
        tag = _varint(file)
        if tag is None or tag >> 3 == 0 or tag >> 3 > 64:
            return False
        field, wire = tag >> 3, tag & 7
        if (field == 1 and wire != 0) or (field == 7 and wire != 2):
            return False
        fields.add(field)
        if {1, 7} <= fields:
            return True
        length = 8 if wire == 1 else 4 if wire == 5 else None
        if wire == 0 and _varint(file) is None:
            return False
        if wire == 2:
            length = _varint(file)
            if length is None:
                return False
        if wire not in (0, 1, 2, 5) or (length or 0) > size - file.tell():
            return False
        file.seek(length or 0, os.SEEK_CUR)
    return False


def _varint(file: BinaryIO) -> int | None:
    """Read a number of a protobuf; None if it is none."""
    value = 0
    for place in range(_LONGEST_VARINT):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 127) << (7 * place)
        if byte[0] < 128:
            return value
    return None


def _text(file: BinaryIO) -> Format:
    """Tell what a text is; what is no text is not known."""
    file.seek(0)
    text = file.read(1 << 20)
    if b"\0" in text[:_READ_AT_START]:
        return _UNKNOWN
    head = text.lstrip()[:200].lower()
    if head.startswith(b"\xef\xbb\xbf"):
        head = head[3:].lstrip()
    if re.match(rb"<!doctype html|<html|<head|<body|<!--", head):
        return WEB_PAGE
    if head.startswith(b"<"):
        return Format("other", "an XML file, not weights", _CHOOSE)
    if head.startswith(b"model_checkpoint_path"):
        return TF_CHECKPOINT
    if _KERAS_CONFIG.match(text):
        return KERAS_JSON
    if _BIOIMAGEIO_YAML.search(text):
        return BIOIMAGEIO
    if _names_code(text):
        return OLD_PICKLE
    try:
        text[:_READ_AT_START].decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < min(len(text), _READ_AT_START) - 4:
            return _UNKNOWN
    return _TEXT


def _names_code(text: bytes) -> bool:
    """Say whether a text is a pickle of the first kind that names what it calls or refers to."""
    names = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes in texts
            for opcode, _, _ in islice(pickletools.genops(text), _MOST_FIELDS):
                names |= opcode.name in ("GLOBAL", "INST", "PERSID")
                if opcode.name == "STOP":
                    return names
    except (ValueError, LookupError, EOFError, struct.error, OverflowError, MemoryError):
        pass
    return False


def _folder(path: Path) -> Format:
    """Tell what a folder is by the names in it."""
    names = set(_first_names(path))
    if any(_YAML_NAME.fullmatch(name) and _is_bioimageio(path / name) for name in names):
        return BIOIMAGEIO
    if "saved_model.pb" in names:
        return SAVED_MODEL
    if {"checkpoint", "plans.json"} & names and any(n.startswith("fold_") for n in names):
        return Format(
            "refused", "a folder of nnU-Net", "Open the checkpoint_final.pth in one of its folds."
        )
    if "data.pkl" in names and "data" in names:
        return Format(
            "refused",
            "the unpacked inside of a PyTorch file",
            "Open the .pt or .pth file itself, without unpacking it.",
        )
    return _FOLDER


def _is_bioimageio(path: Path) -> bool:
    """Say whether a text describes a model of bioimage.io."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return _text(file) is BIOIMAGEIO


def _first_names(path: Path) -> Iterable[str]:
    """List names in a folder, of a very large one only some."""
    with os.scandir(path) as entries:
        for count, entry in enumerate(entries):
            if count > _MOST_FIELDS:
                return
            yield entry.name
