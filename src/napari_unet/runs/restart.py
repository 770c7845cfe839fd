"""Go on where a run stopped: which tiles are done stands beside the output.

A run that writes to a zarr array notes in the attributes of that array what it runs (the model,
the settings, and a checksum of the image) and where tiles are written. The same run on the same
array leaves out the tiles that lie there, be they of the same size or not (memory may have run out
in between); any other run begins anew, and says so. A run that ended well leaves
nothing there.
"""

from __future__ import annotations

import hashlib
import json
import time
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.runs.progress import Job, Note

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from numpy.typing import NDArray

    from napari_unet.models.model import Model
    from napari_unet.settings import SegmentSettings

    Core = tuple[slice, ...]

KEY = "napari_unet_unfinished"
SECONDS_BETWEEN = 1.0
"""What a crash costs at most, beside the tile it breaks; to write takes time, too."""


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
        self._is_saved, self._saved_at = True, -SECONDS_BETWEEN

    @staticmethod
    def is_kept_in(out: Any) -> bool:
        """Say if an array can keep what is done: a zarr array can."""
        return hasattr(out, "store") and hasattr(out, "attrs")

    @property
    def is_kept(self) -> bool:
        """Say if it is kept anywhere."""
        return self._attributes is not None

    def notes(self, cores: Sequence[Core]) -> Iterator[Note]:
        """Look what an earlier run left, and say what becomes of it.

        Parameters
        ----------
        cores : sequence of tuple of slice
            Of all tiles of a plane, as they are planned now.

        Yields
        ------
        Note
            How many of them are done, or that none is because it was another run.
        """
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
        count = sum(len(_covered(cores, plane["tiles"])) for plane in self._before.values())
        yield Note(f"An earlier run stopped here: {count} tiles are done already.")

    def skip(self, index: tuple[int, ...], content: str, cores: Sequence[Core]) -> Job[set[int]]:
        """Find which tiles of a plane are done.

        Parameters
        ----------
        index : tuple of int
            The plane.
        content : str
            Stands for its pixels, see :class:`Fingerprint`.
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
        before = self._before.pop(str(list(index)), {"content": content, "tiles": []})
        if before["content"] != content:
            yield Note("The image is not what it was in the earlier run: it is computed anew.")
            before = {"content": content, "tiles": []}
        self._done[str(list(index))] = before
        return _covered(cores, before["tiles"])

    def add(self, index: tuple[int, ...], core: Core) -> None:
        """Note that a core has been written; it is saved soon, see :meth:`save`."""
        if self._attributes is not None:
            self._done[str(list(index))]["tiles"].append(_plain(core))
            self._is_saved = False
            if time.monotonic() - self._saved_at >= SECONDS_BETWEEN:
                self.save()

    def save(self) -> None:
        """Write down what is done, if that has not happened."""
        if self._attributes is not None and not self._is_saved:
            planes = {**self._before, **self._done}
            self._attributes[KEY] = {"run": self._run, "planes": planes}
            self._is_saved, self._saved_at = True, time.monotonic()

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


class Fingerprint:
    """A plane that notes a checksum of each window that is read of it as a whole.

    So the pass that measures the grey values also tells this plane from any other, and nothing is
    read twice.

    Parameters
    ----------
    channels : array-like, shape (C, *spatial)
        The plane.
    windows : sequence of tuple of slice
        They cover each pixel once.
    """

    def __init__(self, channels: Any, windows: Sequence[Core]) -> None:
        self._channels, self.shape, self.dtype = channels, channels.shape, channels.dtype
        self._checksums: dict[str, int | None] = {str(_plain(window)): None for window in windows}
        self._windows = windows

    def __len__(self) -> int:
        return len(self._channels)

    def __getitem__(self, at: tuple[Any, ...]) -> NDArray[Any]:
        """Read ``[all channels, *window]``."""
        pixels: NDArray[Any] = self._channels[at]
        place = str(_plain(at[1:]))
        if self._checksums.get(place, 0) is None:
            self._checksums[place] = zlib.crc32(np.ascontiguousarray(pixels).tobytes())
        return pixels

    def finish_steps(self) -> Generator[None, None, str]:
        """Read what has not been read, and return what stands for all pixels.

        Returns
        -------
        str
            Another one for each other plane, but for one in four thousand million.

        Yields
        ------
        None
            After each window.
        """
        for window in self._windows:
            if self._checksums[str(_plain(window))] is None:
                self[(slice(None), *window)]
                yield
        text = json.dumps(self._checksums, sort_keys=True)
        return f"{zlib.crc32(text.encode()):08x}"


def _covered(cores: Sequence[Core], tiles: Sequence[Any]) -> set[int]:
    """Find which cores lie in the union of what is done, whatever tiles did it."""
    if not tiles:
        return set()
    wanted, done = (np.asarray(boxes) for boxes in ([_plain(core) for core in cores], tiles))
    axes = range(wanted.shape[1])
    edges = [np.unique([*wanted[:, axis].flat, *done[:, axis].flat]) for axis in axes]
    is_done = np.zeros([len(each) for each in edges], bool)  # one element from edge to edge

    def place(box: NDArray[Any]) -> Core:
        return tuple(slice(*np.searchsorted(edges[axis], box[axis])) for axis in axes)

    for box in done:
        is_done[place(box)] = True
    return {number for number, box in enumerate(wanted) if is_done[place(box)].all()}


def _plain(core: Sequence[slice]) -> list[list[int]]:
    """Return a core as JSON knows it."""
    return [[int(part.start), int(part.stop)] for part in core]
