"""Weights that PyTorch saved, and safetensors of others: tensors by name, and nothing else.

``torch.save`` writes a pickle and, beside it, the numbers of each storage: in a zip since 2020,
one after the other before. The pickle is read as data (:mod:`napari_unet.models.pickles`), never
followed, so a checkpoint that also holds somebody's settings or optimiser opens as well as bare
weights do, and no code in it is run.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from napari_unet.errors import ModelError
from napari_unet.models.assumptions import OUR_CARD
from napari_unet.models.card import Card
from napari_unet.models.damage import what_failed
from napari_unet.models.formats import CARD_KEY
from napari_unet.models.found import Found
from napari_unet.models.original_names import under_own_names, with_original_names
from napari_unet.models.own_file import parse_card
from napari_unet.models.pytorch.advice import HOW_TO_SAVE
from napari_unet.models.pytorch.saved import read_saved
from napari_unet.models.pytorch.sets import TensorSet, nothing, state_dicts
from napari_unet.models.pytorch.several import with_other_sets
from napari_unet.models.recognise import recognise
from napari_unet.models.recognise.layers import natural_order
from napari_unet.models.recognise.names import check_names

if TYPE_CHECKING:
    from pathlib import Path

_DAMAGE = (
    *(OSError, ValueError, EOFError, OverflowError, RecursionError),
    *(TypeError, LookupError, AttributeError),  # values that are not what they should be
    *(zipfile.BadZipFile, zlib.error, RuntimeError, struct.error, SafetensorError),
)
"""What reading a damaged file ends in."""

_TAR_AT = 257
_TAR = b"ustar"
_LONGEST_SAFETENSORS_HEADER = 100_000_000  # the format's own limit


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
    sets = _sets_of_tensors(path, content)
    for found_in, tensors, where in sets:
        try:
            found = [with_original_names(one, tensors) for one in recognise(tensors)]
        except ModelError as error:
            first_error = first_error or ModelError(f"{path.name} cannot be used. {error}")
            continue
        if found_in:
            for reading in found:
                reading.assumed.setdefault("weights", found_in)
        others = [(other.where, other.tensors) for other in sets if other.where != where]
        return with_other_sets(found, where, tensors, others)
    raise first_error or ModelError(nothing(path))


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
    return [(one.sentence, one.tensors) for one in _sets_of_tensors(path, _read_content(path))]


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
            return read_saved(file, path.stat().st_size)
    except ModelError as error:
        raise ModelError(f"{path.name} cannot be used. {error}") from error
    except (MemoryError, *_DAMAGE) as error:
        raise ModelError(what_failed(path.name, error, _damaged(path, error))) from error


def _sets_of_tensors(path: Path, content: Any) -> list[TensorSet]:
    """Find the sets of named tensors in what was read, the likeliest first."""
    if isinstance(content, _Safetensors):
        return [TensorSet("", content.tensors)]
    return state_dicts(path, content)


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
    own = under_own_names(tensors, card.original_names)
    return Found(
        architecture=known.pop("architecture"),
        tensors=own,
        card=known,
        assumed=known.pop("assumed"),
        tellers=dict.fromkeys(Card.model_fields, OUR_CARD),
    )


def is_safetensors(start: bytes) -> bool:
    """Say whether a file that starts so is in the safetensors format."""
    if len(start) < 9:
        return False
    length = int.from_bytes(start[:8], "little")
    return start[8:9] == b"{" and 2 <= length <= _LONGEST_SAFETENSORS_HEADER


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file; its tensors are sorted by name, ``conv2`` before ``conv10``."""
    with safe_open(path, framework="pt") as file:
        check_names(file.keys())
        return {key: file.get_tensor(key) for key in sorted(file.keys(), key=natural_order)}


@dataclass(frozen=True, eq=False)
class _Safetensors:
    """What a safetensors file holds: no card of ours."""

    tensors: dict[str, torch.Tensor]


def _damaged(path: Path, error: object) -> str:
    detail = str(error).strip().rstrip(".").split("\n")[0][:200] or type(error).__name__
    return (
        f"{path.name} is damaged or no file of PyTorch weights: {detail}. Get it again from "
        "where it came from."
    )
