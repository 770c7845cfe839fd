"""Blocks of an image: how large they are, where they lie, and threads that work on them.

Images may be larger than memory, and two processors are faster than one.
"""

from __future__ import annotations

import itertools
import math
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    Window = tuple[slice, ...]

BLOCK_PX = 2**20
"""Pixels of a block: a processor's cache holds what is computed of it."""


def plan_blocks(
    shape: Sequence[int], block_px: int = BLOCK_PX, chunks: Sequence[int] | None = None
) -> tuple[int, ...]:
    """Choose the size of blocks, as near to cubes as the image allows.

    Parameters
    ----------
    shape : sequence of int
        Size of the image (Y, X) or (Z, Y, X).
    block_px : int
        Pixels of a block at most, unless one chunk has more.
    chunks : sequence of int, optional
        Blocks are made of whole chunks of this size, so that no chunk is written by two.

    Returns
    -------
    tuple of int
        Size of a block; the last one along an axis may be smaller.
    """
    unit = tuple(chunks or (1,) * len(shape))
    block = list(shape)
    while math.prod(block) > block_px:
        longest = max(range(len(block)), key=lambda axis: block[axis] / unit[axis])
        half = -(-(block[longest] // 2 or 1) // unit[longest]) * unit[longest]
        if half >= block[longest]:
            break
        block[longest] = half
    return tuple(block)


def write_unit(array: Any) -> tuple[int, ...] | None:
    """Return what can be written without touching what stands around it.

    Parameters
    ----------
    array : array-like
        Numpy, zarr or what is written like them.

    Returns
    -------
    tuple of int or None
        The size of its shards or chunks; None if each pixel is apart, or it is not said.
    """
    unit = getattr(array, "shards", None) or getattr(array, "chunks", None)
    is_regular = unit is not None and all(isinstance(side, int) for side in unit)
    return tuple(unit) if unit is not None and is_regular else None


def cut_blocks(shape: Sequence[int], block: Sequence[int]) -> list[Window]:
    """Cut an image into blocks, row by row.

    Parameters
    ----------
    shape : sequence of int
        Size of the image.
    block : sequence of int
        Size of a block.

    Returns
    -------
    list of tuple of slice
        They cover each pixel once.
    """
    axes = [
        [slice(start, min(start + step, size)) for start in range(0, size, step)]
        for size, step in zip(shape, block, strict=True)
    ]
    return list(itertools.product(*axes))


def count_processors() -> int:
    """Return how many processors this program may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Workers:
    """Some threads, or none."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def __enter__(self) -> Workers:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Start nothing more."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def each(self, work: Callable[[Any], None], items: Iterable[Any]) -> Iterator[int]:
        """Work on all items; count those that are done."""
        done = map(work, items) if self._pool is None else self._pool.map(work, items)
        for count, _ in enumerate(done, start=1):
            yield count
