"""Labels that can be looked at while a segmentation is still running.

Each tile the network has done is labelled by itself and shown; where the person looks comes
first. What is shown is provisional: an object that two tiles share gets two numbers. When all
tiles are done the objects are found in the whole, and those labels take the place of the others,
piece by piece::

    tiles     network -> probability file -> labels of the tile -> labels file -> LabelsDone
    at last   probability file ----------> labels of the whole -> labels file -> LabelsDone ...
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.arrays.axes import plan_planes
from napari_unet.runs.labelling import find_labels
from napari_unet.runs.progress import LabelsDone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from napari_unet.arrays.axes import Planes
    from napari_unet.arrays.tiles import Tile
    from napari_unet.models.card import Card
    from napari_unet.settings import InstanceSettings
    from napari_unet.worker.protocol import Array, Region

LARGEST_NUMBER = 65_535
"""Provisional labels fit into 16 bits, which napari shows faster than 32."""
PIECE_PX = 1 << 22
"""Pixels of final labels that are shown at once."""
SURROUNDINGS_PX = 64
"""Seen around a part that is labelled by itself, so that objects at its edge are whole."""


class Watched:
    """An array that remembers which parts of it were written.

    Parameters
    ----------
    array : ndarray, shape (classes, *axes)
        Where the values go.
    """

    def __init__(self, array: Array) -> None:
        self.array = array
        self.shape, self.dtype = array.shape, array.dtype
        self._written: list[Region] = []

    def __setitem__(self, key: tuple[Any, ...], values: Any) -> None:
        """Write values and remember where."""
        self.array[key] = values
        self._written.append(_as_region(key[1:], self.shape[1:]))

    def __getitem__(self, key: Any) -> Any:
        """Read values."""
        return self.array[key]

    def take(self) -> list[Region]:
        """Return the parts (without the classes) written since the last call."""
        written, self._written = self._written, []
        return written


class Preview:
    """Labels in a file, found part by part.

    Parameters
    ----------
    card : Card
        Of the model.
    settings : InstanceSettings
        How objects are found.
    probability : ndarray of float32, shape (classes, *axes)
        Of what is done so far.
    axes : str
        Axes without C, e.g. "ZYX".
    path : Path
        The new file of the labels.
    """

    def __init__(
        self, card: Card, settings: InstanceSettings, probability: Array, axes: str, path: Path
    ) -> None:
        self.card, self._settings, self._probability = card, settings, probability
        self.planes = plan_planes(probability.shape[1:], axes, card.architecture.spatial_dims)
        self.labels: Array = np.lib.format.open_memmap(
            path, mode="w+", dtype=np.int32, shape=self.planes.out_shape
        )
        self._count = 0

    def label(self, region: Region, surroundings_px: int = 0) -> LabelsDone:
        """Label a part by itself.

        Parameters
        ----------
        region : Region
            The part.
        surroundings_px : int
            How far around it is computed already: objects that reach out of the part are seen as
            far as that.

        Returns
        -------
        LabelsDone
            To be told.
        """
        largest = 0
        for index, window in self._planes_in(region):
            sizes = self.planes.spatial_shape
            seen = tuple(
                slice(max(0, part.start - surroundings_px), min(size, part.stop + surroundings_px))
                for part, size in zip(window, sizes, strict=True)
            )
            inner = tuple(
                slice(part.start - around.start, part.stop - around.start)
                for part, around in zip(window, seen, strict=True)
            )
            probability = self._probability[(slice(None), *self.planes.out_index(index, seen))]
            found = find_labels(self.card, probability, self._settings)[inner]
            if self.card.labels != "semantic":
                found = self._numbered_on(found)
            self.labels[self.planes.out_index(index, window)] = found
            largest = max(largest, int(found.max(initial=0)))
        return LabelsDone(region, largest)

    def is_all(self, region: Region) -> bool:
        """Say whether a part is the whole: its final labels follow at once."""
        spans = dict(zip(self.planes.out_axes, region, strict=True))
        sizes = zip(self.planes.spatial, self.planes.spatial_shape, strict=True)
        return self.planes.count == 1 and all(spans[axis] == (0, n) for axis, n in sizes)

    def finish(self, index: tuple[int, ...], labels: Array) -> Iterator[LabelsDone]:
        """Put the final labels of a plane in place, piece by piece.

        Parameters
        ----------
        index : tuple of int
            The plane.
        labels : ndarray of int32, shape (*spatial)
            Its labels.
        """
        for window in _pieces(labels.shape):
            key = self.planes.out_index(index, window)
            self.labels[key] = values = labels[window]
            region = _as_region(key, self.planes.out_shape)
            yield LabelsDone(region, int(values.max(initial=0)))

    def _planes_in(self, region: Region) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
        """Walk the planes of a region, with the window that it is in each."""
        spans = dict(zip(self.planes.out_axes, region, strict=True))
        window = tuple(slice(*spans[axis]) for axis in self.planes.spatial)
        for index in itertools.product(*(range(*spans[axis]) for axis in self.planes.lead)):
            yield index, window

    def _numbered_on(self, labels: Array) -> Array:
        """Give each object a number no neighbouring part has used."""
        most = int(labels.max(initial=0))
        numbered: Array = np.where(labels, (labels + self._count - 1) % LARGEST_NUMBER + 1, 0)
        self._count = (self._count + most) % LARGEST_NUMBER
        return numbered


class Nearest:
    """Picks what is computed next: what the person sees, from the middle outwards.

    Parameters
    ----------
    planes : Planes
        Of the image.
    looked_at : callable
        Returns where the person looks; None if nobody does.
    """

    def __init__(self, planes: Planes, looked_at: Callable[[], Region | None]) -> None:
        self._planes, self._looked_at = planes, looked_at

    def seen(self) -> tuple[slice, ...] | None:
        """Return what is seen of a plane; None if nobody looks."""
        spans = self._spans()
        if spans is None:
            return None
        return tuple(slice(*spans[axis]) for axis in self._planes.spatial)

    def tile(self, remaining: Sequence[Tile]) -> Tile:
        """Pick the next tile of a plane."""
        spans = self._spans()
        if spans is None:
            return remaining[0]
        seen = tuple(spans[axis] for axis in self._planes.spatial)
        return min(remaining, key=lambda tile: _distance(tile.core, seen))

    def plane(self, remaining: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        """Pick the next plane of a stack."""
        spans = self._spans()
        if spans is None:
            return remaining[0]
        seen = tuple(spans[axis] for axis in self._planes.lead)
        return min(
            remaining,
            key=lambda index: _distance([slice(at, at + 1) for at in index], seen),
        )

    def _spans(self) -> dict[str, tuple[int, int]] | None:
        """Return what is seen of each axis."""
        region = self._looked_at()
        axes = self._planes.out_axes
        return None if region is None else dict(zip(axes, region, strict=True))


def _pieces(shape: Sequence[int]) -> Iterator[tuple[slice, ...]]:
    """Cut a plane or volume into parts along its first axis that can be shown at once."""
    step = max(1, PIECE_PX // max(1, math.prod(shape[1:])))
    rest = tuple(slice(0, size) for size in shape[1:])
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0])), *rest


def _as_region(key: Sequence[Any], shape: Sequence[int]) -> Region:
    """Turn an index of numbers and slices into a region."""
    return tuple(
        (int(part.indices(size)[0]), int(part.indices(size)[1]))
        if isinstance(part, slice)
        else (int(part), int(part) + 1)
        for part, size in zip(key, shape, strict=True)
    )


def _distance(core: Sequence[slice], region: Region) -> tuple[float, float]:
    """Say how far a tile is from what is seen: outside of it first, then from its middle."""
    outside = sum(
        max(low - part.stop, part.start - high, 0) ** 2
        for part, (low, high) in zip(core, region, strict=True)
    )
    off_centre = sum(
        ((part.start + part.stop) / 2 - (low + high) / 2) ** 2
        for part, (low, high) in zip(core, region, strict=True)
    )
    return outside, off_centre
