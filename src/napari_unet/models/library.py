"""The models a person has: the bundled ones and those in their own folder.

A model is one safetensors file: tensors, and in the metadata of its header the card as JSON.
Everything here reads the header only, so that listing models is fast and needs no torch.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from platformdirs import user_data_path
from safetensors import SafetensorError, safe_open

from napari_unet.errors import FileError, ModelError, SettingError, described, shortened
from napari_unet.files.paths import as_path, is_there
from napari_unet.models.card import Card
from napari_unet.settings import checked

if TYPE_CHECKING:
    from collections.abc import Iterator

SUFFIX = ".safetensors"
CARD_KEY = "napari_unet_card"
FORMAT_KEY = "napari_unet_format"
CHECKSUM_KEY = "napari_unet_sha256"
FORMAT = 1

_BUNDLED = Path(__file__).parent.parent / "resources"
_LONGEST_HEADER = 100_000_000
_LONGEST_NAME = 80
_NOT_IN_FILE_NAMES = re.compile(r'[<>:"/\\|?*\x00-\x1f]+')

# First bytes of files that people take for our weights, and what they are.
_OTHER_FORMATS = (
    (b"\x89HDF\r\n\x1a\n", "Keras weights (HDF5)"),
    (b"PK\x03\x04", "a zip archive, e.g. PyTorch weights or a model package"),
    (b"\x80\x02", "PyTorch weights (pickle)"),
    (b"\x80\x04", "PyTorch weights (pickle)"),
)
_OTHER_SUFFIXES = {
    ".pth": "PyTorch weights",
    ".pt": "PyTorch weights",
    ".ckpt": "a training checkpoint",
    ".onnx": "an ONNX network",
    ".h5": "Keras weights",
    ".hdf5": "Keras weights",
    ".keras": "a Keras model",
    ".zip": "a zip archive",
    ".torchscript": "a TorchScript network",
    ".tflite": "a TensorFlow Lite network",
}


@dataclass(frozen=True)
class Entry:
    """One model in the list.

    ``name`` is what :func:`find_model` takes: the name of the file without its ending, unique
    within the list.
    """

    name: str
    path: Path
    card: Card
    origin: Literal["bundled", "user"]


@dataclass(frozen=True)
class Header:
    """What the header of a weights file says, without its tensors."""

    card: Card
    card_json: str
    checksum: str | None


def user_folder() -> Path:
    """Return the folder of the person's own models; it may not exist yet."""
    return user_data_path("napari-unet-interactive", appauthor=False) / "models"


def list_models() -> list[Entry]:
    """List the models that can be used, the bundled ones first.

    Returns
    -------
    list of Entry
        Damaged files are left out; :func:`list_damaged` tells them.
    """
    return [entry for entry in _entries() if isinstance(entry, Entry)]


def list_damaged() -> list[tuple[Path, str]]:
    """List the files in the models' folders that cannot be used, each with the reason."""
    return [entry for entry in _entries() if not isinstance(entry, Entry)]


def find_model(name_or_path: str | Path) -> Path:
    """Find a model by its name in the list or by its path.

    Parameters
    ----------
    name_or_path : str or Path
        A name, e.g. ``"nuclei"``, or a file. A name of the list wins over a file in the current
        folder; write ``./nuclei`` for the file.

    Returns
    -------
    Path
        An existing file or folder; it has not been opened yet.

    Raises
    ------
    ModelError
        If there is neither such a name nor such a file.
    """
    if not isinstance(name_or_path, str | Path):
        raise ModelError(
            f"The name of a model or the path of its file was expected, {described(name_or_path)} "
            "was given. Give e.g. 'nuclei'."
        )
    wanted = str(name_or_path)
    for name, path, _ in _files():
        if name == wanted:
            return path
    if _is_a_file(wanted):
        return Path(wanted).expanduser()
    known = ", ".join(name for name, _, _ in _files()) or "none"
    raise ModelError(
        f"There is no model and no file {shortened(wanted)!r}. Installed models: {known}. "
        "Give one of these names or the path of a weights file."
    )


def free_name(wanted: str) -> str:
    """Return a name that no model has yet: ``nuclei 2`` after ``nuclei``, then ``nuclei 3``.

    Parameters
    ----------
    wanted : str
        Any text; what cannot stand in a file name is replaced, a number at its end is counted on.

    Returns
    -------
    str
        ``wanted`` itself if it is free.
    """
    name = _NOT_IN_FILE_NAMES.sub(" ", wanted)[:_LONGEST_NAME].strip(" .") or "model"
    taken = {path.stem.casefold() for _, path, _ in _files()}
    if name.casefold() not in taken:
        return name
    stem = re.sub(r" \d{1,6}$", "", name)
    number = 2
    while f"{stem} {number}".casefold() in taken:
        number += 1
    return f"{stem} {number}"


def weights_path(path: str | Path) -> Path:
    """Return where a model is saved: the path with our ending.

    Parameters
    ----------
    path : str or Path
        Ends in ``.safetensors`` or in nothing.

    Returns
    -------
    Path
        Ends in ``.safetensors``.

    Raises
    ------
    FileError
        If it has another ending, or is no name of a file.
    """
    target = as_path(path, "a weights file")
    if target.name in ("", ".."):
        raise FileError(f"{target} is a folder. Give the name of a file in it.")
    if target.suffix == "":
        return target.with_name(target.name + SUFFIX)
    if target.suffix.lower() != SUFFIX:
        raise FileError(
            f"{target.name} ends in {target.suffix}; models are saved as {SUFFIX} files. "
            f"Choose e.g. {target.stem}{SUFFIX}."
        )
    return target


def read_card(path: str | Path) -> Card:
    """Read the card of a weights file without its tensors.

    Parameters
    ----------
    path : str or Path
        A safetensors file with a card.

    Returns
    -------
    Card
        Checked.

    Raises
    ------
    ModelError
        If the file is missing, damaged, of another format, without a card, or newer than this
        version of the plugin.
    """
    return read_header(Path(path)).card


def read_header(path: Path) -> Header:
    """Read and check the header of a weights file; see :func:`read_card` for what is refused."""
    refuse_foreign(path)
    try:
        with safe_open(path, framework="numpy") as file:
            metadata: dict[str, str] = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(damaged(path, error)) from error
    _check_format(path, metadata.get(FORMAT_KEY, str(FORMAT)))
    if CARD_KEY not in metadata:
        raise ModelError(
            f"{path.name} holds weights but no card, so it is not known which network they "
            "belong to. Such files cannot be opened yet; choose one that this plugin has saved."
        )
    card_json = metadata[CARD_KEY]
    return Header(_parse_card(path, card_json), card_json, metadata.get(CHECKSUM_KEY))


def refuse_foreign(path: Path) -> None:
    """Raise the sentence that fits, unless ``path`` looks like a safetensors file.

    Raises
    ------
    ModelError
        If it is missing, a folder, empty, a Git LFS pointer, a web page or another format.
    """
    start, size = _first_bytes(path)
    # The first eight bytes of ours are a number, which may look like the start of anything.
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= _LONGEST_HEADER:
        return
    if start.startswith(b"version https://git-lfs"):
        raise ModelError(
            f"{path.name} is only a Git LFS pointer ({size} bytes), not the weights themselves. "
            "Fetch them with 'git lfs pull' or download the file from its web page."
        )
    if start.lstrip()[:1] == b"<":
        raise ModelError(
            f"{path.name} is a web page, not weights. The download has failed; repeat it."
        )
    format_found = _recognised(path, start)
    if format_found is not None:
        raise ModelError(
            f"{path.name} looks like {format_found}; this cannot be opened yet. "
            f"Choose a {SUFFIX} file saved by this plugin."
        )
    if len(start) <= 8:
        raise ModelError(damaged(path, f"only {size} bytes"))
    raise ModelError(
        f"{path.name} is not a weights file that is known here. "
        f"Choose a {SUFFIX} file saved by this plugin."
    )


def damaged(path: Path, reason: object) -> str:
    """Return the sentence for a file that is incomplete or was altered."""
    return f"{path.name} is damaged or incomplete ({reason}). Copy or download it again."


def _is_a_file(name: str) -> bool:
    """Say if a text is the path of a file or folder; what cannot be a path is none."""
    try:
        return bool(name) and is_there(as_path(name))
    except FileError:
        return False


def _files() -> Iterator[tuple[str, Path, Literal["bundled", "user"]]]:
    """Yield name, path and origin of each file in the two folders, unread."""
    seen: set[str] = set()
    folders: tuple[tuple[Path, Literal["bundled", "user"]], ...] = (
        (_BUNDLED, "bundled"),
        (user_folder(), "user"),
    )
    for folder, origin in folders:
        for path in _weights_in(folder):
            if not path.name.startswith("."):
                name = path.stem if path.stem not in seen else f"{path.stem} (yours)"
                seen.add(name)
                yield name, path, origin


def _weights_in(folder: Path) -> list[Path]:
    """List the weights files in a folder; none where it is missing or may not be read."""
    try:
        return sorted(folder.glob(f"*{SUFFIX}"))
    except OSError:
        return []


def _entries() -> Iterator[Entry | tuple[Path, str]]:
    """Yield each model, or the path and the reason why it is none."""
    for name, path, origin in _files():
        try:
            card = read_card(path)
        except ModelError as error:
            yield path, str(error)
        else:
            yield Entry(name, path, card, origin)


def _first_bytes(path: Path) -> tuple[bytes, int]:
    """Return the first 64 bytes of a file and its size."""
    if path.is_dir():
        raise ModelError(
            f"{path} is a folder; model folders cannot be opened yet. Choose a {SUFFIX} file."
        )
    try:
        with path.open("rb") as file:
            return file.read(64), path.stat().st_size
    except FileNotFoundError as error:
        raise ModelError(f"There is no weights file {path}. Check the path.") from error
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror}). Check that you may read it."
        ) from error


def _recognised(path: Path, start: bytes) -> str | None:
    """Name the other format a file has, by its ending or else by its first bytes."""
    by_start = next((name for magic, name in _OTHER_FORMATS if start.startswith(magic)), None)
    return _OTHER_SUFFIXES.get(path.suffix.lower(), by_start)


def _check_format(path: Path, text: str) -> None:
    """Refuse a file written by a newer version."""
    if not text.isdecimal():
        raise ModelError(damaged(path, f"format {text!r}"))
    if int(text) > FORMAT:
        raise ModelError(
            f"{path.name} was saved by a newer version of this plugin (format {text}, known up "
            f"to {FORMAT}). Update with: pip install --upgrade napari-unet-interactive"
        )


def _parse_card(path: Path, text: str) -> Card:
    """Check the card of a file."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(damaged(path, "its card is not JSON")) from error
    if not isinstance(values, dict):
        raise ModelError(damaged(path, "its card is not a JSON object"))
    try:
        return checked(Card, values)
    except SettingError as error:
        raise ModelError(
            f"The card of {path.name} does not fit this version of the plugin: {error} "
            "If a newer version saved it, update the plugin; else save the model again."
        ) from error
