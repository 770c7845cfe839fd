"""Read the channels of a plane window by window, wherever the image lies.

A zarr or dask array is stored in chunks, and to read one pixel its whole chunk is decoded (or
computed). Windows overlap and cut chunks apart, so chunks that were used last are kept: each is
decoded about once while the tiles of a plane are cut. Arrays in memory and memory maps have no
chunks and are read where they are.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.arrays.channels import pick_channels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unet.arrays.axes import Planes

    Window = tuple[slice, ...]

KEPT_BYTES = 32 * 2**20
"""What is kept of a plane at most, unless a single chunk has more."""
LEAST_CELL_PX = {2: 256, 3: 64}
"""Small chunks are read together up to this side: each call of a library takes its time."""


class PlaneReader:
    """The channels a network sees of one plane, as an array (C, *spatial) that is read by slices.

    Parameters
    ----------
    image : array-like
        The whole image: numpy, memory map, dask or zarr.
    planes : Planes
        How it is walked.
    index : tuple of int
        The plane.
    channels : tuple of int or None
        See :func:`napari_unet.arrays.channels.pick_channels`.
    wanted : int
        Number of inputs of the network.
    """

    def __init__(
        self,
        image: Any,
        planes: Planes,
        index: tuple[int, ...],
        channels: tuple[int, ...] | None,
        wanted: int,
    ) -> None:
        self._image, self._planes, self._index = image, planes, index
        self._channels, self._wanted = channels, wanted
        self.shape = (wanted, *planes.spatial_shape)
        is_mean = channels is None and planes.channels != wanted
        self.dtype = np.result_type(image.dtype, np.float32) if is_mean else np.dtype(image.dtype)
        self._edges = _cells(image, planes)
        self._kept: OrderedDict[tuple[int, ...], NDArray[Any]] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return self._wanted

    def __getitem__(self, at: tuple[Any, ...]) -> NDArray[Any]:
        """Read ``[channels, *window]``, all by slices without a step."""
        channels, *window = at
        spans = [part.indices(size) for part, size in zip(window, self.shape[1:], strict=True)]
        slices = tuple(slice(start, stop) for start, stop, _ in spans)
        everything = self._read(slices) if self._edges is None else self._from_cells(slices)
        wanted: NDArray[Any] = everything[channels]
        return wanted

    @property
    def cell(self) -> tuple[int, ...] | None:
        """Size of what is read at a time (*spatial), if the image is stored in chunks."""
        if self._edges is None:
            return None
        return tuple(int(np.diff(edges).max()) for edges in self._edges)

    def _read(self, window: Window) -> NDArray[Any]:
        """Read a window from the image itself."""
        plane = self._planes.read(self._image, self._index, window)
        return pick_channels(plane, self._channels, self._wanted)

    def _from_cells(self, window: Window) -> NDArray[Any]:
        """Put a window together from the cells it touches."""
        lengths = [part.stop - part.start for part in window]
        out = np.empty((self._wanted, *lengths), self.dtype)
        touched = [
            range(
                int(np.searchsorted(edges, part.start, side="right")) - 1,
                int(np.searchsorted(edges, part.stop, side="left")),
            )
            for edges, part in zip(self._edges or (), window, strict=True)
        ]
        with self._lock:
            for cell in itertools.product(*touched):
                box = self._box(cell)
                both = [
                    slice(max(part.start, whole.start), min(part.stop, whole.stop))
                    for part, whole in zip(window, box, strict=True)
                ]
                source = _moved(both, [whole.start for whole in box])
                target = _moved(both, [part.start for part in window])
                out[(slice(None), *target)] = self._cell(cell, box)[(slice(None), *source)]
        return out

    def _box(self, cell: tuple[int, ...]) -> Window:
        """Return where a cell lies in the plane."""
        pairs = zip(self._edges or (), cell, strict=True)
        return tuple(slice(int(edges[i]), int(edges[i + 1])) for edges, i in pairs)

    def _cell(self, cell: tuple[int, ...], box: Window) -> NDArray[Any]:
        """Return the pixels of a cell, and forget those that were not used for longest."""
        pixels = self._kept.pop(cell, None)
        if pixels is None:
            pixels = self._read(box)
        self._kept[cell] = pixels
        total = sum(kept.nbytes for kept in self._kept.values())
        while total > KEPT_BYTES and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            total -= oldest.nbytes
        return pixels


def plane_of(array: Any, planes: Planes, index: tuple[int, ...]) -> Any:
    """Return one plane of a stack, to be written or read by slices.

    Parameters
    ----------
    array : array-like
        Of shape ``planes.out_shape``, or (maps, *planes.out_shape).
    planes : Planes
        How the stack is walked.
    index : tuple of int
        The plane.

    Returns
    -------
    ndarray or PlaneView
        A view of an array in memory (or a memory map); of others nothing is read yet.
    """
    if isinstance(array, np.ndarray):
        lead = array.ndim - len(planes.out_shape)
        return array[(*[slice(None)] * lead, *planes.out_index(index))]
    return PlaneView(array, planes, index)


class PlaneView:
    """One plane of a stack that is written and read by slices, e.g. of a zarr array.

    Parameters
    ----------
    array : array-like
        Of shape ``planes.out_shape``, or (maps, *planes.out_shape).
    planes : Planes
        How the stack is walked.
    index : tuple of int
        The plane.
    """

    def __init__(self, array: Any, planes: Planes, index: tuple[int, ...]) -> None:
        self._array, self._planes, self._index = array, planes, index
        self._lead = len(array.shape) - len(planes.out_shape)
        self.shape = (*array.shape[: self._lead], *planes.spatial_shape)
        self.dtype = array.dtype
        self.chunks, self.shards = (
            None if sides is None else (*sides[: self._lead], *sides[-len(planes.spatial) :])
            for sides in (getattr(array, name, None) for name in ("chunks", "shards"))
        )

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, at: Any) -> NDArray[Any]:
        return np.asarray(self._array[self._place(at)])

    def __setitem__(self, at: Any, values: Any) -> None:
        self._array[self._place(at)] = values

    def _place(self, at: Any) -> tuple[Any, ...]:
        """Find where something of the plane lies in the stack."""
        at = at if isinstance(at, tuple) else (at,)
        return (*at[: self._lead], *self._planes.out_index(self._index, at[self._lead :] or None))


def _cells(image: Any, planes: Planes) -> list[NDArray[np.intp]] | None:
    """Return where cells begin and end on each spatial axis: whole chunks, not too small."""
    chunks = getattr(image, "chunks", None)
    if not chunks or len(chunks) != len(planes.axes):
        return None
    least = LEAST_CELL_PX[len(planes.spatial)]
    return [
        _edges(chunks[planes.axes.index(axis)], size, least)
        for axis, size in zip(planes.spatial, planes.spatial_shape, strict=True)
    ]


def _edges(chunks: int | Sequence[int], size: int, least: int) -> NDArray[np.intp]:
    """Return the edges of cells along one axis; zarr gives one length, dask the length of each."""
    if isinstance(chunks, int | np.integer):
        step = int(chunks) * max(1, math.ceil(least / int(chunks)))
        return np.array([*range(0, size, step), size], np.intp)
    edges = [0]
    for end in np.cumsum(chunks).tolist():
        if end - edges[-1] >= least or end == size:
            edges.append(end)
    return np.array(edges, np.intp)


def _moved(window: Sequence[slice], origin: Sequence[int]) -> Window:
    """Count a window from another origin."""
    return tuple(
        slice(part.start - first, part.stop - first)
        for part, first in zip(window, origin, strict=True)
    )
