"""Probabilities that outlive the job that computed them, under a token.

Another threshold and the search for doubtful spots need neither the network nor the array again:
they name the file. What is in it is noted beside it, so that it can be used by the next process,
too, should this one be killed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_unet.errors import WorkerError
from napari_unet.models.card import FOREGROUND, Card
from napari_unet.settings import InstanceSettings, checked
from napari_unet.worker.protocol import Array, open_array

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_unet.settings import SegmentSettings


ROWS_AT_ONCE = 1024


class Kept(NamedTuple):
    """Probabilities of an earlier segmentation."""

    card: Card
    axes: str
    probability: Array


class Recent:
    """The run whose probabilities were computed last: the same is not computed twice."""

    def __init__(self) -> None:
        self._run = self._pixels = ""
        self._path: Path | None = None
        self.caveats: list[str] = []

    @staticmethod
    def describe(model: str, image: Array, axes: str, settings: SegmentSettings) -> str:
        """Return what is the same for two runs only if they do the same to their images.

        Parameters
        ----------
        model : str
            What tells the model, e.g. its file and when that was written.
        image : ndarray
            Its pixels are not looked at.
        axes : str
            Their axes.
        settings : SegmentSettings
            How objects are found in the probabilities makes no difference.

        Returns
        -------
        str
            For the other methods.
        """
        other = settings.replace(instances=InstanceSettings()).model_dump_json()
        return "\n".join((model, axes, str(image.shape), str(image.dtype), other))

    def keep(self, run: str, image: Array, path: Path, caveats: list[str]) -> None:
        """Remember where the probabilities of a run are, and what is to be told with them."""
        self._run, self._pixels, self._path = run, checksum(image), path
        self.caveats = caveats

    def forget(self) -> None:
        """Let the next run be computed, whatever it is."""
        self._path = None

    def open_again(self, run: str, image: Array, path: Path) -> Array | None:
        """Give the probabilities of the same run another name.

        Parameters
        ----------
        run : str
            What is to be computed, as :meth:`describe` tells it.
        image : ndarray
            Its image; the pixels are looked at only if all else is the same.
        path : Path
            The new name.

        Returns
        -------
        ndarray of float32 or None
            None if this was not the last run, or its file has gone.
        """
        if self._path is None or run != self._run or checksum(image) != self._pixels:
            return None
        try:
            os.link(self._path, path)
        except OSError:  # gone with the labels it belonged to, or a disk without links
            return None
        self._path = path
        return open_array(path)


def checksum(image: Array) -> str:
    """Return what is the same only for equal pixels.

    Parameters
    ----------
    image : ndarray
        In memory or mapped; a few rows are looked at at a time.

    Returns
    -------
    str
        A checksum.
    """
    seen = hashlib.blake2b()
    for part in image if image.ndim > 2 else image[None]:
        for start in range(0, len(part), ROWS_AT_ONCE):
            seen.update(np.ascontiguousarray(part[start : start + ROWS_AT_ONCE]).data)
    return seen.hexdigest()


def new_probability(path: Path, shape: tuple[int, ...]) -> Array:
    """Make a file for probabilities, mapped into memory.

    Its space on the disk is taken now: on a disk that fills up later, writing to the map would
    end the process.

    Parameters
    ----------
    path : Path
        The new .npy file; its name is the token.
    shape : tuple of int
        (classes, *axes without C).

    Returns
    -------
    ndarray of float32
        To be written to.

    Raises
    ------
    OSError
        If the disk is full.
    """
    array: Any = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file, _other_than_full():
            os.posix_fallocate(file.fileno(), 0, array.offset + array.nbytes)
    return array  # type: ignore[no-any-return]  # numpy tells no type of a memory map


def describe_probability(token: Path, card: Card, axes: str) -> None:
    """Note beside probabilities what they are.

    Parameters
    ----------
    token : Path
        Their file.
    card : Card
        Of the model that gave them.
    axes : str
        Their axes without the classes, e.g. "ZYX".
    """
    token.with_suffix(".json").write_text(
        json.dumps({"card": card.model_dump(mode="json"), "axes": axes}), encoding="utf-8"
    )


def open_probability(token: str) -> Kept:
    """Open probabilities that were kept.

    Parameters
    ----------
    token : str
        Their file.

    Returns
    -------
    Kept
        With a read-only map of the file.

    Raises
    ------
    WorkerError
        If the file has gone.
    """
    try:
        described = json.loads(Path(token).with_suffix(".json").read_text(encoding="utf-8"))
        return Kept(checked(Card, described["card"]), described["axes"], open_array(token))
    except FileNotFoundError as error:
        raise WorkerError(
            "The probabilities of this segmentation are no longer there. Press Segment again."
        ) from error


def foreground(kept: Kept) -> Array:
    """Return the probability that a pixel belongs to anything.

    Parameters
    ----------
    kept : Kept
        Probabilities of one kind of model or another.

    Returns
    -------
    ndarray of float32, shape (*axes), range 0..1
        A map of the file where the model has such an output.
    """
    outputs = kept.card.outputs
    if FOREGROUND not in outputs and kept.card.labels == "semantic":
        anything: Array = 1 - kept.probability[0]
        return anything
    plane: Array = kept.probability[outputs.index(FOREGROUND) if FOREGROUND in outputs else 0]
    return plane


@contextmanager
def _other_than_full() -> Iterator[None]:
    """Ignore that a file system cannot take space ahead, unless it is full."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
