r"""Find objects block by block, with the result of the whole image at once.

::

    +---------+---------+     1. each block: what lies within it is cut and numbered at once;
    | o   ooo | oo   o  |        what touches its border (#) is only measured
    |   o   ##|###   oo |     2. across borders: pieces that meet are one blob; each blob is cut in
    +----##---+--##-----+        a window that holds all of it
    | oo ## o | o##  o  |     3. each block: numbers become 1..n in the order of the first pixels
    +---------+---------+

That equals the result at once because a blob is cut the same way in any window that holds it, see
:mod:`napari_unet.arrays.splitting`. A blob that fills more than ``LARGEST_BLOB_PX`` pixels with its
box (cells that all touch) is the exception: it is cut in fixed windows that overlap by
``MARGIN_PX``, and an object is known by its seed. So the memory needed is bounded, and still the
result does not depend on the blocks; only an object larger than the margin may be cut in two.
"""

from __future__ import annotations

import math
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.arrays.blocks import Workers, cut_blocks, plan_blocks, write_unit
from napari_unet.arrays.connected import components, fill_own_holes
from napari_unet.arrays.pieces import Found, Joined, Piece, Pieces
from napari_unet.arrays.splitting import split_around_seeds, split_at_necks, split_by_depth

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from napari_unet.settings import InstanceSettings

    Window = tuple[slice, ...]
    Labels = NDArray[np.int32]
    Mask = NDArray[np.bool_]
    Read = Callable[[Window], tuple[NDArray[Any], NDArray[Any] | None]]

MARGIN_PX = {2: 128, 3: 32}
"""How far the windows in which very large blobs are cut look beyond their cells: about the size of
an object."""
LEAST_BLOCK_PX = 2**16
"""Smaller ones would save no more memory."""


def find_objects_by_blocks(
    read: Read,
    out: Any,
    settings: InstanceSettings,
    *,
    block: Sequence[int] | None = None,
    threads: int = 1,
) -> Iterator[tuple[int, int] | str]:
    """Find the objects of a plane or volume piece by piece.

    Where memory runs out it is begun again, with smaller blocks and one at a time.

    Parameters
    ----------
    read : callable
        Takes a window and gives its foreground probability and, if the network has such an
        output, its depth (both 0..1), else None.
    out : array of int32, shape (Y, X) or (Z, Y, X)
        Where the labels are written, and read again: numpy, or e.g. zarr.
    settings : InstanceSettings
        Threshold, smallest object, splitting.
    block : sequence of int, optional
        Size of a block; chosen if not given.
    threads : int
        How many blocks are worked on at a time. More than one only where blocks can be written
        at the same time: in memory, or in zarr if they are whole chunks.

    Yields
    ------
    tuple of int, or str
        Pieces of work done, and how many there will be, as far as is known. A line to be read if
        memory ran out.

    Raises
    ------
    MemoryError
        If it does not suffice for the smallest blocks.
    """
    shape = tuple(out.shape)
    chunks = write_unit(out)
    block = tuple(block or plan_blocks(shape, chunks=chunks))
    while True:
        try:
            yield from _Search(read, out, settings, shape, block).run(threads)
        except MemoryError:
            smaller = _smaller(shape, block, chunks)
            if threads == 1 and smaller == block:
                raise
            threads, block = 1, smaller
        else:
            return
        sides = " x ".join(map(str, block))
        yield f"Memory ran out while objects were being found; going on with {sides} px at a time."


class _Search:
    """One search through an image."""

    def __init__(
        self,
        read: Read,
        out: Any,
        settings: InstanceSettings,
        shape: tuple[int, ...],
        block: tuple[int, ...],
    ) -> None:
        self._read, self._out, self._settings, self._shape = read, out, settings, shape
        self._blocks = cut_blocks(shape, block)
        self._pieces, self._found = Pieces(shape, block), Found()
        self._lock = Lock()
        # Of blobs that are cut cell by cell: which of them each object is a part of.
        self._joined = Joined()
        self._owners: list[int] = []
        self._found_before = 0

    def run(self, threads: int) -> Iterator[tuple[int, int]]:
        """Do all the work, piece by piece."""
        blocks, threads = len(self._blocks), min(threads, len(self._blocks))
        with Workers(threads) as workers:
            for done in workers.each(self._within_block, self._blocks):
                yield done, 2 * blocks
            self._joined = self._pieces.join()
            groups, cells = self._joined.groups, self._joined.cells
            done_so_far, total = blocks, 2 * blocks + len(groups) + len(cells)
            for done in workers.each(self._across_blocks, groups):
                yield done_so_far + done, total
            done_so_far += len(groups)
            self._found_before = self._found.count
            for done in workers.each(self._within_cell, cells):
                yield done_so_far + done, total
            done_so_far += len(cells)
            numbers = self._found.order(self._settings.min_size)
            for done in workers.each(lambda at: self._renumber(at, numbers), self._blocks):
                yield done_so_far + done, total

    def _within_block(self, at: Window) -> None:
        """Cut what lies within a block, and note what touches its border."""
        foreground, depth = self._read(at)
        blobs = components(foreground > self._settings.threshold)
        pieces = self._pieces.add(blobs, at)
        mask, waiting = blobs > 0, None
        if pieces.any():
            # What goes on beyond the border, or is too large, waits for its turn.
            waiting = pieces[blobs]
            numbers = np.cumsum(pieces == 0, dtype=np.int32) - 1
            blobs = np.where(pieces > 0, 0, numbers)[blobs]
        labels, first = self._carve(blobs, mask, depth, at)
        before = self._found.add(first)
        labels = np.where(labels > 0, labels + np.int32(before), 0)
        self._out[at] = labels if waiting is None else np.where(waiting > 0, -waiting, labels)

    def _across_blocks(self, blobs_of_group: list[Piece]) -> None:
        """Cut blobs that cross borders, in a window that holds all of them."""
        start = np.min([blob.start for blob in blobs_of_group], axis=0) - 1
        stop = np.max([blob.stop for blob in blobs_of_group], axis=0) + 1
        at = tuple(
            slice(max(int(first), 0), min(int(last), size))
            for first, last, size in zip(start, stop, self._shape, strict=True)
        )
        foreground, depth = self._read(at)
        places = components(foreground > self._settings.threshold)
        mask = places > 0
        corner = [part.start for part in at]
        pixels = np.array([blob.pixel for blob in blobs_of_group]) - corner
        wanted = np.zeros(places.max(initial=0) + 1, np.int32)
        ours = np.sort(places[tuple(pixels.T)])
        wanted[ours] = np.arange(1, len(ours) + 1, dtype=np.int32)
        labels, first = self._carve(wanted[places], mask, depth, at)
        before = self._found.add(first)
        inside = labels > 0
        with self._lock:
            window = np.asarray(self._out[at])
            window[inside] = labels[inside] + np.int32(before)
            self._out[at] = window

    def _within_cell(self, cell: Window) -> None:
        """Cut the parts of very large blobs that lie in a cell, looking a little beyond it."""
        margin = MARGIN_PX[len(cell)]
        at = tuple(
            slice(max(part.start - margin, 0), min(part.stop + margin, size))
            for part, size in zip(cell, self._shape, strict=True)
        )
        foreground, depth = self._read(at)
        mask = foreground > self._settings.threshold
        blob_at = np.where(mask, self._large_blobs(at), 0)
        parts, seeds = np.zeros_like(blob_at), np.zeros(1, np.intp)
        if self._settings.split:
            level = self._settings.split_level
            parts, seeds = split_around_seeds(components(blob_at > 0), depth, level)
        count = len(self._joined.giants)
        # What has no seed in sight is the rest of its blob: one object.
        parts = np.where((parts == 0) & (blob_at > 0), len(seeds) - 1 + blob_at, parts)
        names = [0, *(1 + self._positions(seeds[1:], parts.shape, at)), *range(-1, -count - 1, -1)]
        owners = [0, *blob_at.ravel()[seeds[1:]], *range(1, count + 1)]
        if self._settings.fill_holes:
            parts = fill_own_holes(parts, mask)
        inner = tuple(
            slice(part.start - whole.start, part.stop - whole.start)
            for part, whole in zip(cell, at, strict=True)
        )
        self._write_parts(cell, parts[inner], names, owners)

    def _large_blobs(self, at: Window) -> Labels:
        """Read which of the very large blobs, counted from 1, each pixel belongs to."""
        with self._lock:
            written = np.asarray(self._out[at]).astype(np.int32)
            owner_of_number = np.array([0, *self._owners], np.int32)
        number = np.maximum(written - self._found_before, 0)
        piece = np.maximum(-written, 0)
        return np.where(written < 0, self._joined.giant_of_piece[piece], owner_of_number[number])

    def _write_parts(
        self, cell: Window, parts: Labels, names: Sequence[int], owners: Sequence[int]
    ) -> None:
        """Write the parts of large blobs in a cell under the numbers of their names."""
        present, begins, sizes = np.unique(parts, return_index=True, return_counts=True)
        begins = self._positions(begins, parts.shape, cell)
        numbers = np.zeros(len(names), np.int32)
        inside = parts > 0
        with self._lock:
            for part, begin, size in zip(present, begins.tolist(), sizes.tolist(), strict=True):
                if part:
                    numbers[part] = self._found.add_part(int(names[part]), begin, size)
                    if numbers[part] - self._found_before > len(self._owners):
                        self._owners.append(int(owners[part]))
            window = np.asarray(self._out[cell]).astype(np.int32)
            window[inside] = numbers[parts[inside]]
            self._out[cell] = window

    def _renumber(self, at: Window, numbers: Labels) -> None:
        """Give the objects of a block their final numbers; what waits still is none."""
        labels = np.asarray(self._out[at]).astype(np.int32, copy=False)
        self._out[at] = numbers[np.maximum(labels, 0)]

    def _carve(
        self, blobs: Labels, mask: Mask, depth: NDArray[Any] | None, at: Window
    ) -> tuple[Labels, NDArray[np.int64]]:
        """Turn whole blobs into objects; return them in order, and where each begins."""
        labels = blobs
        if self._settings.split:
            level = self._settings.split_level
            labels = split_at_necks(blobs) if depth is None else split_by_depth(blobs, depth, level)
        if self._settings.fill_holes:
            labels = fill_own_holes(labels, mask)
        flat = labels.ravel()
        pixels = np.flatnonzero(flat)
        sizes = np.bincount(flat[pixels], minlength=1)
        first = np.full(len(sizes), flat.size)
        first[flat[pixels[::-1]]] = pixels[::-1]
        kept = np.flatnonzero(sizes >= max(self._settings.min_size, 1))
        kept = kept[np.argsort(first[kept])]
        numbers = np.zeros(len(sizes), np.int32)
        numbers[kept] = np.arange(1, len(kept) + 1)
        return numbers[labels], self._positions(first[kept], labels.shape, at)

    def _positions(
        self, flat: NDArray[np.intp], shape: tuple[int, ...], at: Window
    ) -> NDArray[np.int64]:
        """Turn positions in a window into positions in the image."""
        local = np.unravel_index(flat, shape)
        places = [index + part.start for index, part in zip(local, at, strict=True)]
        return np.asarray(np.ravel_multi_index(places, self._shape), np.int64)


def _smaller(
    shape: tuple[int, ...], block: tuple[int, ...], chunks: Sequence[int] | None
) -> tuple[int, ...]:
    """Choose blocks of a quarter of the size; the same if they cannot be smaller."""
    block_px = max(math.prod(block) // 4, LEAST_BLOCK_PX)
    smaller = plan_blocks(shape, block_px, chunks)
    return smaller if math.prod(smaller) < math.prod(block) else block
