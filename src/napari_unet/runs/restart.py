"""Go on where a run stopped: which tiles are done stands beside the output.

A run that writes to a zarr array notes in the attributes of that array what it runs (the model,
the settings, and what it saw of the image) and each tile that is written. The same run on the same
array leaves those out; any other run begins anew, and says so. A run that ended well leaves
nothing there.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.runs.progress import Job, Note

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_unet.arrays.normalize import Statistics
    from napari_unet.models.model import Model
    from napari_unet.settings import SegmentSettings

    Core = tuple[slice, ...]

KEY = "napari_unet_unfinished"
SAMPLES, SAMPLE_PX = 4, 32  # per axis: enough to tell two images apart that are equally bright


class Unfinished:
    """What is done of a run, in the attributes of its output; of other arrays nothing is kept.

    Parameters
    ----------
    out : array
        Where the probabilities are written.
    run : str
        What is run, see :func:`identify`.
    """

    def __init__(self, out: Any, run: str) -> None:
        self._attributes = out.attrs if self.is_kept_in(out) else None
        self._run = run
        self._done: dict[str, dict[str, Any]] = {}
        self._before: dict[str, dict[str, Any]] = {}

    @staticmethod
    def is_kept_in(out: Any) -> bool:
        """Say if an array can keep what is done: a zarr array can."""
        return hasattr(out, "store") and hasattr(out, "attrs")

    @property
    def is_kept(self) -> bool:
        """Say if it is kept anywhere."""
        return self._attributes is not None

    def notes(self) -> Iterator[Note]:
        """Look what an earlier run left, and say what becomes of it."""
        if self._attributes is None:
            return
        found = self._attributes.get(KEY)
        if found is None:
            return
        if found.get("run") != self._run:
            yield Note(
                "The output holds a part of another run (another model, image or other settings): "
                "it is computed anew."
            )
            return
        self._before = found["planes"]
        count = sum(len(plane["tiles"]) for plane in self._before.values())
        yield Note(f"Going on where an earlier run stopped: {count} tiles are done.")

    def skip(self, index: tuple[int, ...], content: str, cores: Sequence[Core]) -> Job[set[int]]:
        """Find which tiles of a plane are done.

        Parameters
        ----------
        index : tuple of int
            The plane.
        content : str
            What was seen of it, see :func:`describe_plane`.
        cores : sequence of tuple of slice
            Of all its tiles.

        Returns
        -------
        set of int
            Of the cores, counted from 0.

        Yields
        ------
        Note
            If the plane is another one than before, so that nothing of it is done.
        """
        plain = [_plain(core) for core in cores]
        before = self._before.pop(str(list(index)), {"content": content, "tiles": []})
        if before["content"] != content:
            yield Note("The image is not what it was in the earlier run: it is computed anew.")
            before["tiles"] = []
        skip = {number for number, core in enumerate(plain) if core in before["tiles"]}
        tiles = [plain[number] for number in sorted(skip)]
        self._done[str(list(index))] = {"content": content, "tiles": tiles}
        return skip

    def add(self, index: tuple[int, ...], core: Core) -> None:
        """Note that a core has been written."""
        if self._attributes is not None:
            self._done[str(list(index))]["tiles"].append(_plain(core))
            planes = {**self._before, **self._done}
            self._attributes[KEY] = {"run": self._run, "planes": planes}

    def finish(self) -> None:
        """Leave nothing in the attributes of what is complete."""
        if self._attributes is not None and KEY in self._attributes:
            del self._attributes[KEY]


def identify(model: Model, image: Any, axes: str, settings: SegmentSettings) -> str:
    """Return what a run computes, in short: equal only where the result is equal.

    Parameters
    ----------
    model : Model
        Its card and weights count.
    image : array-like
        Its shape and dtype count; what is in it is looked at plane by plane.
    axes : str
        Axes of the image.
    settings : SegmentSettings
        All but the device and how objects are found.

    Returns
    -------
    str
        A checksum (SHA-256).
    """
    digest = hashlib.sha256(model.card.model_dump_json().encode())
    for name, tensor in sorted(model.net.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    chosen = settings.model_dump(mode="json", exclude={"device", "instances"})
    about = [list(image.shape), str(np.dtype(image.dtype)), axes, chosen]
    digest.update(json.dumps(about, sort_keys=True).encode())
    return digest.hexdigest()


def describe_plane(channels: Any, statistics: Statistics) -> str:
    """Return what tells a plane from another one of the same size.

    Parameters
    ----------
    channels : array-like, shape (C, *spatial)
        The plane; small windows of it are read.
    statistics : Statistics
        Of the whole plane.

    Returns
    -------
    str
        The statistics, and a checksum of the windows.
    """
    checksum = 0
    starts = [
        np.unique(np.linspace(0, max(size - SAMPLE_PX, 0), SAMPLES).astype(int)).tolist()
        for size in channels.shape[1:]
    ]
    for corner in np.stack(np.meshgrid(*starts, indexing="ij"), axis=-1).reshape(-1, len(starts)):
        window = tuple(slice(int(first), int(first) + SAMPLE_PX) for first in corner)
        pixels = np.ascontiguousarray(channels[(slice(None), *window)])
        checksum = zlib.crc32(pixels.tobytes(), checksum)
    return f"{statistics.offset.tolist()} {statistics.scale.tolist()} {checksum:08x}"


def _plain(core: Core) -> list[list[int]]:
    """Return a core as JSON knows it."""
    return [[int(part.start), int(part.stop)] for part in core]
