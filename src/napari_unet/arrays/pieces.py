"""What blocks hold of blobs that go on beyond them, put together across the borders.

Also which objects were found so far, under which number.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    Window = tuple[slice, ...]
    Labels = NDArray[np.int32]
    Span = tuple[tuple[int, int], ...]

LARGEST_BLOB_PX = 2**22
"""Of the box around a blob that is cut as a whole."""
CELL_PX = {2: 1024, 3: 96}
"""Side of the windows in which larger ones are cut."""


@dataclass
class Piece:
    """What a block holds of a blob, or a blob of several pieces."""

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
class Joined:
    """All pieces, put together to blobs."""

    groups: list[list[Piece]] = field(default_factory=list)
    """Blobs that are best cut together."""
    giants: list[Piece] = field(default_factory=list)
    """Blobs that are too large to be cut as a whole; they are counted from 1."""
    cells: list[Window] = field(default_factory=list)
    """The windows in which those are cut."""
    giant_of_piece: Labels = field(default_factory=lambda: np.zeros(1, np.int32))
    """Under the number of each piece; 0 is none."""


class Pieces:
    """The pieces of all blocks, which may be added by several threads.

    Parameters
    ----------
    shape : tuple of int
        Of the image, (Y, X) or (Z, Y, X).
    block : tuple of int
        Size of the blocks.
    """

    def __init__(self, shape: tuple[int, ...], block: tuple[int, ...]) -> None:
        self._shape, self._block = shape, block
        self._pieces: list[Piece] = []
        self._faces: dict[tuple[Span, int, bool], Labels] = {}
        self._lock = Lock()

    def add(self, blobs: Labels, at: Window) -> Labels:
        """Note what touches a border to another block, or is very large.

        Parameters
        ----------
        blobs : ndarray of int32
            Connected pixels 1..n of a block.
        at : tuple of slice
            Where the block lies.

        Returns
        -------
        ndarray of int32, shape (n + 1,)
            For each blob the number of its piece, from 1; 0 if it lies within the block.
        """
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
                pieces[name] = Piece(start, stop, pixel)
        with self._lock:
            numbers[[*pieces]] = np.arange(len(pieces)) + len(self._pieces) + 1
            self._pieces.extend(pieces.values())
            for (axis, is_end), face in faces.items():
                self._faces[_span(at), axis, is_end] = numbers[face]
        return numbers

    def join(self) -> Joined:
        """Put together the pieces of each blob, and the blobs that are best cut together.

        Returns
        -------
        Joined
            The pieces themselves are forgotten.
        """
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        if not self._pieces:
            return Joined()
        one, other = self._meets()
        size = len(self._pieces)
        links = coo_array((np.ones(len(one), bool), (one, other)), shape=(size, size))
        count, blob_of = connected_components(links, directed=False)
        pieces: list[list[Piece]] = [[] for _ in range(count)]
        for piece, blob in zip(self._pieces, blob_of.tolist(), strict=True):
            pieces[blob].append(piece)
        self._faces.clear()
        self._pieces.clear()
        blobs = [_box(parts) for parts in pieces]
        is_giant = np.array([blob.size > LARGEST_BLOB_PX for blob in blobs])
        giant_of_blob = np.where(is_giant, np.cumsum(is_giant), 0)
        return Joined(
            self._groups(blob for blob, giant in zip(blobs, is_giant, strict=True) if not giant),
            [blob for blob, giant in zip(blobs, is_giant, strict=True) if giant],
            self._cells(
                part
                for parts, giant in zip(pieces, is_giant, strict=True)
                if giant
                for part in parts
            ),
            np.array([0, *giant_of_blob[blob_of]], np.int32),
        )

    def _meets(self) -> Labels:
        """List which pieces, counted from 0, are neighbours across a border; shape (2, n)."""
        meets = [np.zeros((2, 0), np.int32)]
        for (span, axis, is_end), face in self._faces.items():
            if is_end:
                (_, stop) = span[axis]
                beyond = (stop, min(stop + self._block[axis], self._shape[axis]))
                other = self._faces.get(((*span[:axis], beyond, *span[axis + 1 :]), axis, False))
                if other is not None:
                    both = (face > 0) & (other > 0)
                    meets.append(np.stack([face[both], other[both]]) - 1)
        return np.concatenate(meets, axis=1)

    def _groups(self, blobs: Iterable[Piece]) -> list[list[Piece]]:
        """Group blobs that cross the same border; a large blob has a window of its own."""
        groups: dict[tuple[Any, ...], list[Piece]] = defaultdict(list)
        for number, blob in enumerate(blobs):
            crossed = tuple(
                (first // step, (last - 1) // step)
                for first, last, step in zip(blob.start, blob.stop, self._block, strict=True)
            )
            is_large = 4 * blob.size > math.prod(self._block)
            groups[(number,) if is_large else crossed].append(blob)
        return list(groups.values())

    def _cells(self, pieces: Iterable[Piece]) -> list[Window]:
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


@dataclass
class Found:
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


def _box(pieces: Sequence[Piece]) -> Piece:
    """Return the box around all pieces of a blob."""
    return Piece(
        tuple(map(min, zip(*(piece.start for piece in pieces), strict=True))),
        tuple(map(max, zip(*(piece.stop for piece in pieces), strict=True))),
        pieces[0].pixel,
    )


def _span(window: Window) -> Span:
    """Return a window as plain numbers."""
    return tuple((part.start, part.stop) for part in window)
