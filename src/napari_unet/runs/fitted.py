"""Which tiles fitted into memory, kept from one session to the next.

Where memory ran out with the tiles that were planned, the size that fitted is noted in a small
JSON file, for that network on that processor, so that the next run does not run out of memory
again before it finds it. A note is not for ever: with clearly more free memory, or a week later,
larger tiles are tried anew, and a person can have all notes forgotten. A file that is damaged is
one that notes nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from dataclasses import asdict, dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from platformdirs import user_state_path

from napari_unet.errors import FileError
from napari_unet.files.atomic import written_beside
from napari_unet.network.devices import device_name, free_bytes

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from napari_unet.network.build import Network

WEEK_S = 7 * 24 * 3600.0
MORE_MEMORY = 1.25  # times the free memory of then: larger tiles may fit now
MOST_NOTES = 100  # the oldest are dropped

_of_this_process: dict[str, Fitted] = {}
"""The notes of this process, also where no file can be written."""


@dataclass(frozen=True)
class Fitted:
    """What fitted into memory."""

    tile_px: int
    """Side of the tile in pixels."""
    at_once: int
    """Tiles computed together."""
    free: int | None
    """Bytes that were free when memory ran out; None if nobody could tell."""
    when: float
    """Seconds since 1970."""

    @property
    def day(self) -> str:
        """The day it was noted, ISO 8601."""
        return date.fromtimestamp(self.when).isoformat()


def recall(net: Network, device: torch.device, dtype: torch.dtype) -> Fitted | None:
    """Look up what fitted when memory had run out.

    Parameters
    ----------
    net : UNet or GraphNet
        The network; another one of the same architecture counts as the same.
    device : torch.device
        Where it computes.
    dtype : torch.dtype
        With which numbers.

    Returns
    -------
    Fitted or None
        None if memory did not run out, or that says nothing about today.
    """
    key = _key(net, device, dtype)
    noted = {**_read(), **_of_this_process}.get(key)
    if noted is None or not 0 <= time.time() - noted.when < WEEK_S:
        return None
    free = free_bytes(device)
    if noted.free and free and free > MORE_MEMORY * noted.free:
        return None
    return noted


def remember(
    net: Network, device: torch.device, dtype: torch.dtype, tile_px: int, at_once: int
) -> None:
    """Note what fitted after memory had run out; where nothing can be written, for this process.

    Parameters
    ----------
    net, device, dtype : object
        As for :func:`recall`.
    tile_px : int
        Side of the tile in pixels.
    at_once : int
        Tiles computed together.
    """
    note = Fitted(tile_px, at_once, free_bytes(device), time.time())
    _of_this_process[_key(net, device, dtype)] = note
    notes = sorted({**_read(), **_of_this_process}.items(), key=lambda item: item[1].when)
    text = json.dumps({key: asdict(each) for key, each in notes[-MOST_NOTES:]}, indent=1)
    with contextlib.suppress(FileError), written_beside(_file()) as beside:
        beside.write_text(text, encoding="utf-8")


def forget() -> None:
    """Forget all notes, of every network and processor.

    Raises
    ------
    FileError
        If their file cannot be removed.
    """
    _of_this_process.clear()
    try:
        _file().unlink(missing_ok=True)
    except OSError as error:
        raise FileError(
            f"{_file()} cannot be removed: {error.strerror or error}. Remove it by hand."
        ) from error


def _key(net: Network, device: torch.device, dtype: torch.dtype) -> str:
    """Name a network on a processor, in short."""
    digest = hashlib.sha256(net.architecture.model_dump_json().encode()).hexdigest()[:16]
    return f"{digest}, {str(dtype).removeprefix('torch.')}, {device_name(device)}"


def _read() -> dict[str, Fitted]:
    """Read the notes that can be understood."""
    try:
        noted = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(noted, dict):
        return {}
    return {key: fitted for key, value in noted.items() if (fitted := _understood(value))}


def _understood(value: Any) -> Fitted | None:
    """Return a note, or None if it is none."""
    try:
        fitted = Fitted(**value)
    except TypeError:
        return None
    sizes = fitted.tile_px, fitted.at_once, 1 if fitted.free is None else fitted.free
    are_sizes = all(isinstance(size, int) and size > 0 for size in sizes)
    return fitted if are_sizes and isinstance(fitted.when, int | float) else None


def _file() -> Path:
    """Return where the notes are kept: with what may be lost without harm."""
    return user_state_path("napari-unet-interactive", appauthor=False) / "fitted-tiles.json"
