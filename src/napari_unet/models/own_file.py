"""A model of ours as a file: one safetensors file, and what its header says.

The tensors of the network, and in the metadata of the header the card as JSON and a checksum.
Everything here reads headers only and needs no torch.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from napari_unet.errors import FileError, ModelError, SettingError
from napari_unet.files.paths import as_path
from napari_unet.models.card import Card
from napari_unet.models.formats import CARD_KEY, refusal, sniff
from napari_unet.settings import checked

SUFFIX = ".safetensors"
FORMAT_KEY = "napari_unet_format"
CHECKSUM_KEY = "napari_unet_sha256"
FORMAT = 1
_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Header:
    """What the header of a weights file says, without its tensors."""

    card: Card
    card_json: str
    checksum: str | None


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
            f"{path.name} holds weights but no card, so it is no model of this plugin. Open it "
            "with load_model."
        )
    card_json = metadata[CARD_KEY]
    return Header(parse_card(path, card_json), card_json, metadata.get(CHECKSUM_KEY))


def parse_card(path: Path, text: str) -> Card:
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


def refuse_foreign(path: Path) -> None:
    """Raise the sentence that fits, unless ``path`` is a safetensors file.

    Raises
    ------
    ModelError
        If it is missing or another format.
    """
    found = sniff(path)
    if found.kind in ("own", "safetensors"):
        return
    if not found.opens:
        raise ModelError(refusal(path, found))
    raise ModelError(
        f"{path.name} is {found.text}, not a model of this plugin. Open it with load_model."
    )


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
    if target.suffix == "" and target.is_dir():
        raise FileError(f"{target} is a folder. Give the name of a file in it.")
    if target.suffix == "":
        return target.with_name(target.name + SUFFIX)
    if target.suffix.lower() != SUFFIX:
        raise FileError(
            f"{target.name} ends in {target.suffix}; models are saved as {SUFFIX} files. "
            f"Choose e.g. {target.stem}{SUFFIX}."
        )
    return target


def checksum(path: Path) -> str:
    """Digest a file.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    str
        SHA-256, in hexadecimal digits.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_AT_ONCE):
            digest.update(chunk)
    return digest.hexdigest()


def damaged(path: Path, reason: object) -> str:
    """Return the sentence for a file that is incomplete or was altered."""
    return f"{path.name} is damaged or incomplete ({reason}). Copy or download it again."


def _check_format(path: Path, text: str) -> None:
    """Refuse a file written by a newer version."""
    if not text.isdecimal():
        raise ModelError(damaged(path, f"format {text!r}"))
    if int(text) > FORMAT:
        raise ModelError(
            f"{path.name} was saved by a newer version of this plugin (format {text}, known up "
            f"to {FORMAT}). Update with: pip install --upgrade napari-unet-interactive"
        )
