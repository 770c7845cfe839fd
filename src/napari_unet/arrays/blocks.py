r"""Find objects block by block, with the result of the whole image at once.

Images may be larger than memory, and two processors are faster than one::

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

import itertools
import math
import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.arrays.splitting import (
    components,
    neighbours,
    split_around_seeds,
    split_at_necks,
    split_by_depth,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from napari_unet.settings import InstanceSettings

    Window = tuple[slice, ...]
    Labels = NDArray[np.int32]
    Mask = NDArray[np.bool_]
    Read = Callable[[Window], tuple[NDArray[Any], NDArray[Any] | None]]
    Span = tuple[tuple[int, int], ...]

BLOCK_PX = 2**20
"""Pixels of a block: a processor's cache holds what is computed of it."""
LARGEST_BLOB_PX = 2**22
"""Of the box around a blob that is cut as a whole."""
CELL_PX = {2: 1024, 3: 96}
"""Side of the windows in which larger ones are cut."""
MARGIN_PX = {2: 128, 3: 32}
"""How far these windows look beyond their cells: about the size of an object."""


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


def find_objects_by_blocks(
    read: Read,
    out: Any,
    settings: InstanceSettings,
    *,
    block: Sequence[int] | None = None,
    threads: int = 1,
) -> Iterator[tuple[int, int]]:
    """Find the objects of a plane or volume piece by piece.

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
        How many blocks are worked on at a time; more than one only where ``out`` is in memory.

    Yields
    ------
    tuple of int
        Pieces of work done, and how many there will be, as far as is known.
    """
    search = _Search(read, out, settings, tuple(out.shape), block or plan_blocks(out.shape))
    yield from search.run(threads)


def count_processors() -> int:
    """Return how many processors this program may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass
class _Piece:
    """What a block holds of a blob that touches its border."""

    start: tuple[int, ...]
    """First row, column ... of the box around it."""
    stop: tuple[int, ...]
    pixel: tuple[int, ...]
    """One of its pixels."""

    @property
    def size(self) -> int:
        """Pixels of the box."""
        return math.prod(b - a for a, b in zip(self.start, self.stop, strict=True))


@dataclass
class _Found:
    """Objects that were written so far: under each number their first pixel.

    Of those that are found cell by cell also by name, with the size that is known so far.
    """

    first: list[NDArray[np.int64]] = field(default_factory=lambda: [np.zeros(1, np.int64)])
    count: int = 0
    named: dict[int, int] = field(default_factory=dict)
    growing: dict[int, list[int]] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)

    def add(self, first: NDArray[np.int64]) -> int:
        """Note more objects; return the number before the first of them."""
        with self.lock:
            before = self.count
            self.first.append(first)
            self.count += len(first)
        return before

    def add_part(self, name: int, first: int, size: int) -> int:
        """Note a part of an object that is known by a name; return its number."""
        number = self.named.get(name)
        if number is None:
            number = self.named[name] = self.add(np.array([first], np.int64)) + 1
            self.growing[number] = [first, 0]
        known = self.growing[number]
        known[:] = min(known[0], first), known[1] + size
        return number

    def order(self, min_size: int) -> Labels:
        """Return the final number of each: 1..n in the order of the first pixels; 0 if small."""
        first = np.concatenate(self.first)
        is_kept = np.ones(len(first), bool)
        is_kept[0] = False
        for number, (begin, size) in self.growing.items():
            first[number] = begin
            is_kept[number] = size >= min_size
        kept = np.flatnonzero(is_kept)
        numbers = np.zeros(len(first), np.int32)
        numbers[kept[np.argsort(first[kept])]] = np.arange(1, len(kept) + 1, dtype=np.int32)
        return numbers


class _Search:
    """One search through an image."""

    def __init__(
        self,
        read: Read,
        out: Any,
        settings: InstanceSettings,
        shape: tuple[int, ...],
        block: Sequence[int],
    ) -> None:
        self._read, self._out, self._settings, self._shape = read, out, settings, shape
        self._block = tuple(block)
        self._blocks = cut_blocks(shape, block)
        self._found = _Found()
        self._pieces: list[_Piece] = []
        self._faces: dict[tuple[Span, int, bool], Labels] = {}
        self._lock = Lock()
        # Of blobs that are cut cell by cell, counted from 1: their boxes, the pieces they consist
        # of, and the objects found in them.
        self._giants: list[_Piece] = []
        self._giant_of_piece = np.zeros(1, np.int32)
        self._owners: list[int] = []
        self._found_before = 0

    def run(self, threads: int) -> Iterator[tuple[int, int]]:
        """Do all the work, piece by piece."""
        blocks, threads = len(self._blocks), min(threads, len(self._blocks))
        with _Workers(threads) as workers:
            for done in workers.each(self._within_block, self._blocks):
                yield done, 2 * blocks
            groups, cells = self._groups()
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
        pieces = self._note_pieces(blobs, at)
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

    def _across_blocks(self, blobs_of_group: list[_Piece]) -> None:
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
            parts, seeds = split_around_seeds(components(blob_at > 0), depth)
        count = len(self._giants)
        # What has no seed in sight is the rest of its blob: one object.
        parts = np.where((parts == 0) & (blob_at > 0), len(seeds) - 1 + blob_at, parts)
        names = [0, *(1 + self._positions(seeds[1:], parts.shape, at)), *range(-1, -count - 1, -1)]
        owners = [0, *blob_at.ravel()[seeds[1:]], *range(1, count + 1)]
        if self._settings.fill_holes:
            parts = _fill_own_holes(parts, mask)
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
        return np.where(written < 0, self._giant_of_piece[piece], owner_of_number[number])

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
            labels = split_at_necks(blobs) if depth is None else split_by_depth(blobs, depth)
        if self._settings.fill_holes:
            labels = _fill_own_holes(labels, mask)
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

    def _note_pieces(self, blobs: Labels, at: Window) -> Labels:
        """Note what touches a border to another block, or is very large: number it, or say 0."""
        from scipy import ndimage

        faces = {
            (axis, is_end): np.take(blobs, -1 if is_end else 0, axis=axis)
            for axis, part in enumerate(at)
            for is_end in (False, True)
            if (part.stop < self._shape[axis] if is_end else part.start > 0)
        }
        touches = np.zeros(blobs.max(initial=0) + 1, bool)
        for face in faces.values():
            touches[face] = True
        touches[0] = False
        numbers = np.zeros(len(touches), np.int32)
        may_be_large = blobs.size > LARGEST_BLOB_PX
        names = np.arange(1, len(touches)) if may_be_large else np.flatnonzero(touches)
        if not len(names):
            return numbers
        numbers[names] = np.arange(1, len(names) + 1)
        found = numbers[blobs]
        numbers[:] = 0
        corner = [part.start for part in at]
        pieces = {}
        for number, (name, box) in enumerate(
            zip(names.tolist(), ndimage.find_objects(found), strict=True), start=1
        ):
            sides = [part.stop - part.start for part in box]
            if touches[name] or math.prod(sides) > LARGEST_BLOB_PX:
                inside = np.unravel_index(np.argmax(found[box].ravel() == number), sides)
                start = tuple(base + part.start for base, part in zip(corner, box, strict=True))
                stop = tuple(base + part.stop for base, part in zip(corner, box, strict=True))
                pixel = tuple(int(i) + first for i, first in zip(inside, start, strict=True))
                pieces[name] = _Piece(start, stop, pixel)
        with self._lock:
            numbers[[*pieces]] = np.arange(len(pieces)) + len(self._pieces) + 1
            self._pieces.extend(pieces.values())
            for (axis, is_end), face in faces.items():
                self._faces[_span(at), axis, is_end] = numbers[face]
        return numbers

    def _groups(self) -> tuple[list[list[_Piece]], list[Window]]:
        """Put together the pieces of each blob, and the blobs that are best cut together.

        Very large ones are cut cell by cell instead; return their cells, too.
        """
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        if not self._pieces:
            return [], []
        meets = [np.zeros((2, 0), np.int32)]
        for (span, axis, is_end), face in self._faces.items():
            if is_end:
                (_, stop) = span[axis]
                beyond = (stop, min(stop + self._block[axis], self._shape[axis]))
                other = self._faces.get(((*span[:axis], beyond, *span[axis + 1 :]), axis, False))
                if other is not None:
                    both = (face > 0) & (other > 0)
                    meets.append(np.stack([face[both], other[both]]) - 1)
        one, other = np.concatenate(meets, axis=1)
        size = len(self._pieces)
        links = coo_array((np.ones(len(one), bool), (one, other)), shape=(size, size))
        count, blob_of = connected_components(links, directed=False)
        pieces: list[list[_Piece]] = [[] for _ in range(count)]
        for piece, blob in zip(self._pieces, blob_of.tolist(), strict=True):
            pieces[blob].append(piece)
        blobs = [_join(parts) for parts in pieces]
        is_giant = np.array([blob.size > LARGEST_BLOB_PX for blob in blobs])
        giant_of_blob = np.where(is_giant, np.cumsum(is_giant), 0)
        self._giant_of_piece = np.array([0, *giant_of_blob[blob_of]], np.int32)
        self._giants = [blob for blob, giant in zip(blobs, is_giant, strict=True) if giant]
        cells = self._cells(
            part for parts, giant in zip(pieces, is_giant, strict=True) if giant for part in parts
        )
        self._faces.clear()
        self._pieces.clear()
        others = [blob for blob, giant in zip(blobs, is_giant, strict=True) if not giant]
        return self._cut_together(others), cells

    def _cells(self, pieces: Iterable[_Piece]) -> list[Window]:
        """List the cells that pieces of very large blobs lie in."""
        side = CELL_PX[len(self._shape)]
        touched = {
            cell
            for piece in pieces
            for cell in itertools.product(
                *(
                    range(first // side, (last - 1) // side + 1)
                    for first, last in zip(piece.start, piece.stop, strict=True)
                )
            )
        }
        return [
            tuple(
                slice(at * side, min((at + 1) * side, size))
                for at, size in zip(cell, self._shape, strict=True)
            )
            for cell in sorted(touched)
        ]

    def _cut_together(self, blobs: list[_Piece]) -> list[list[_Piece]]:
        """Group blobs that cross the same border; a large blob has a window of its own."""
        groups: dict[tuple[Any, ...], list[_Piece]] = defaultdict(list)
        for number, blob in enumerate(blobs):
            crossed = tuple(
                (first // step, (last - 1) // step)
                for first, last, step in zip(blob.start, blob.stop, self._block, strict=True)
            )
            is_large = 4 * blob.size > math.prod(self._block)
            groups[(number,) if is_large else crossed].append(blob)
        return list(groups.values())


class _Workers:
    """Some threads, or none."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def __enter__(self) -> _Workers:
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


def fill_holes(labels: Labels) -> Labels:
    """Give background that lies inside a single object to that object.

    Parameters
    ----------
    labels : ndarray of int32, shape (Y, X) or (Z, Y, X)
        Labels, 0 is background.

    Returns
    -------
    ndarray of int32, same shape
        A gap between several objects stays, and so does what reaches the border of the image.
    """
    gaps = components(labels == 0)
    count = int(gaps.max(initial=0)) + 1
    least = np.full(count, np.iinfo(np.int32).max, np.int32)
    most = np.zeros(count, np.int32)
    for behind, ahead in neighbours(labels.ndim):
        for gap_side, object_side in ((ahead, behind), (behind, ahead)):
            meets = (gaps[gap_side] > 0) & (labels[object_side] > 0)
            gap, neighbour = gaps[gap_side][meets], labels[object_side][meets]
            np.minimum.at(least, gap, neighbour)
            np.maximum.at(most, gap, neighbour)
    for axis in range(labels.ndim):
        ends = np.unique(np.take(gaps, [0, -1], axis=axis))
        most[ends], least[ends] = 0, -1  # open to the border
    owner = np.where(least == most, most, 0)
    owner[0] = 0
    return np.where(gaps > 0, owner[gaps], labels)


def _fill_own_holes(labels: Labels, mask: Mask) -> Labels:
    """Fill holes inside objects; foreground without a label is another object."""
    foreign = np.int32(labels.max(initial=0) + 1)
    filled = fill_holes(np.where(mask & (labels == 0), foreign, labels))
    return np.where(filled == foreign, 0, filled)


def _join(pieces: list[_Piece]) -> _Piece:
    """Return the box around all pieces of a blob."""
    return _Piece(
        tuple(map(min, zip(*(piece.start for piece in pieces), strict=True))),
        tuple(map(max, zip(*(piece.stop for piece in pieces), strict=True))),
        pieces[0].pixel,
    )


def _span(window: Window) -> Span:
    """Return a window as plain numbers."""
    return tuple((part.start, part.stop) for part in window)
