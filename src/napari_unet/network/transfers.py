"""Copy tiles to a GPU and results back while it computes something else.

An NVIDIA GPU copies from and to memory that the system promises not to move ("pinned"), in queues
("streams") of their own beside the one that computes::

    up        |tile 2|tile 3|tile 4|
    compute          |  tile 2  |  tile 3  |  tile 4  |
    down                        |result 2|  |result 3|

Elsewhere the same calls copy at once, or not at all on a CPU.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Box = tuple[slice, ...]

STRIP_BYTES = 32 * 2**20  # of a result that is copied back in strips of rows


@dataclass(frozen=True)
class Arriving:
    """Values on their way to the computer's memory."""

    values: torch.Tensor
    ready: torch.cuda.Event | None = None
    """After which they are right; at once if None."""

    def wait(self) -> NDArray[Any]:
        """Return the values once they are there."""
        if self.ready is not None:
            self.ready.synchronize()
        arrived: NDArray[Any] = self.values.cpu().numpy()
        return arrived


class Transfers:
    """Copies to a device and back.

    Parameters
    ----------
    device : torch.device
        Where is computed.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._is_cuda = device, device.type == "cuda"
        if self._is_cuda:
            self._up, self._down = new_stream(), new_stream()

    def upload(self, tiles: Sequence[NDArray[Any]]) -> torch.Tensor:
        """Copy tiles of one shape and dtype to the device, one after the other in one tensor.

        Parameters
        ----------
        tiles : sequence of ndarray, shape (C, *spatial)
            Of a dtype that torch knows, too.

        Returns
        -------
        Tensor, shape (N, C, *spatial)
            A CPU may share the memory of a single tile.
        """
        if not self._is_cuda:
            together = tiles[0][np.newaxis] if len(tiles) == 1 else np.stack(tiles)
            return torch.from_numpy(np.require(together, requirements=["C", "W"])).to(self._device)
        dtype = torch.from_numpy(np.empty(0, tiles[0].dtype)).dtype
        host = torch.empty((len(tiles), *tiles[0].shape), dtype=dtype, pin_memory=True)
        for place, tile in zip(host.numpy(), tiles, strict=True):
            np.copyto(place, tile)
        with torch.cuda.stream(self._up):
            there = host.to(self._device, non_blocking=True)
        computing = torch.cuda.current_stream(self._device)
        computing.wait_stream(self._up)
        there.record_stream(computing)
        return there

    def download(self, values: torch.Tensor) -> Arriving:
        """Begin to copy values back.

        Parameters
        ----------
        values : Tensor
            On the device, perhaps still being computed.

        Returns
        -------
        Arriving
            To wait for.
        """
        if values.device.type != "cuda":
            return Arriving(values)
        self._down.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._down):
            host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            host.copy_(values, non_blocking=True)
            ready = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch tells no types
            ready.record(self._down)
        values.record_stream(self._down)  # its memory is not used again before it is copied
        return Arriving(host, ready)


class Assembly:
    """The result of a plane, put together on the device and copied back once.

    Parameters
    ----------
    classes : int
        Values per pixel.
    shape : tuple of int
        Size of the plane or volume.
    device : torch.device
        Where it is put together.
    """

    def __init__(self, classes: int, shape: tuple[int, ...], device: torch.device) -> None:
        self._values = torch.empty((classes, *shape), device=device)
        self._shape = shape
        self._done: list[Box] = []

    def put(self, core: Box, values: torch.Tensor) -> None:
        """Take over the values (classes, *core) of a tile, which may still be computed."""
        self._values[(slice(None), *core)] = values

    def add(self, core: Box) -> None:
        """Count a tile as done: its values are right."""
        self._done.append(core)

    def take(self, transfers: Transfers) -> Iterator[tuple[Box, NDArray[Any]]]:
        """Copy back all there is: strips of rows of a complete plane, else what is done of it.

        Parameters
        ----------
        transfers : Transfers
            Of the same device.

        Yields
        ------
        box : tuple of slice
            A part of the plane.
        values : ndarray, shape (classes, *box)
            Its values; meanwhile the next part is being copied.
        """
        arriving: deque[tuple[Box, Arriving]] = deque()
        for box in self._boxes():
            arriving.append((box, transfers.download(self._values[(slice(None), *box)])))
            if len(arriving) > 1:
                first, values = arriving.popleft()
                yield first, values.wait()
        for box, values in arriving:
            yield box, values.wait()

    def _boxes(self) -> list[Box]:
        """Return what is copied back at a time."""
        if sum(_count(core) for core in self._done) < math.prod(self._shape):
            return self._done
        row_bytes = self._values[:, :1].numel() * self._values.itemsize
        step = max(STRIP_BYTES // max(row_bytes, 1), 1)
        others = tuple(slice(0, size) for size in self._shape[1:])
        rows = range(0, self._shape[0], step)
        return [(slice(row, min(row + step, self._shape[0])), *others) for row in rows]


def new_stream() -> torch.cuda.Stream:
    """Open another queue of the GPU that is in use."""
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch tells no types


def _count(box: Sequence[slice]) -> int:
    """Count the pixels of a box."""
    return math.prod(part.stop - part.start for part in box)
