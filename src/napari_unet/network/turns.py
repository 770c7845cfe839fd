"""The eight ways a tile can be turned and mirrored, and back.

A network that knows no up and down may still see an object a little differently when it lies on
its side. Shown all eight and averaged, its answer no longer depends on that. In a volume only
the planes are turned: its Z axis often has another pixel size. Turning moves pixels and changes
none, so a tile turned is exactly the tile of the turned image: its starts stay on the grid of
the poolings, because the sizes of image and tile both divide by it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from napari_unet.arrays.boxes import enclosing, within

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_unet.network.recording import Compute

PLANE = (-2, -1)


@dataclass(frozen=True)
class Turn:
    """Quarter turns of each plane, and then perhaps a mirror along X."""

    quarters: int
    mirrored: bool

    def there(self, x: torch.Tensor) -> torch.Tensor:
        """Turn an array (..., Y, X)."""
        x = torch.rot90(x, self.quarters, PLANE)
        return x.flip(-1) if self.mirrored else x

    def back(self, x: torch.Tensor) -> torch.Tensor:
        """Undo :meth:`there`."""
        x = x.flip(-1) if self.mirrored else x
        return torch.rot90(x, -self.quarters, PLANE)

    def box(self, box: Sequence[slice], sizes: Sequence[int]) -> tuple[slice, ...]:
        """Say where a box of an array of the given sizes lies once the array is turned."""
        *others, rows, columns = box
        height, width = sizes[-2:]
        for _ in range(self.quarters):
            rows, columns = _mirrored(columns, width), rows
            height, width = width, height
        return (*others, rows, _mirrored(columns, width) if self.mirrored else columns)


TURNS = tuple(Turn(*way) for way in itertools.product(range(4), (False, True)))


def average_over_turns(
    compute: Compute,
    seen: torch.Tensor,
    kept: Sequence[slice],
    sizes: Sequence[int],
    at_once: int = 1,
) -> torch.Tensor:
    """Show tiles to a network in all eight ways, and average what it answers.

    Parameters
    ----------
    compute : callable
        Takes tiles (N, C, *spatial) and what is kept of the answer; gives (N, classes, *kept).
    seen : Tensor, shape (N, C, *spatial)
        The tiles, upright.
    kept : sequence of slice
        What is kept of the answer, one slice per spatial axis.
    sizes : sequence of int
        Size of the whole answer, one per spatial axis.
    at_once : int
        Tiles that are computed together at most, turned ones counted singly.

    Returns
    -------
    Tensor, shape (N, classes, *kept)
        The exact average, upright.
    """
    total = torch.zeros((), device=seen.device)
    for turns in _turned_alike(seen.shape[2:], max(at_once // len(seen), 1)):
        boxes = [turn.box(kept, sizes) for turn in turns]
        around = enclosing(boxes)
        together = torch.cat([turn.there(seen) for turn in turns])
        answers = torch.split(compute(together, around), len(seen))
        for turn, box, answer in zip(turns, boxes, answers, strict=True):
            total = total + turn.back(answer[(slice(None), slice(None), *within(box, around))])
    return total / len(TURNS)


def _turned_alike(sizes: Sequence[int], most: int) -> Iterator[tuple[Turn, ...]]:
    """Put turns together after which a tile of such sizes has one shape, so many at most."""
    is_square = sizes[-1] == sizes[-2]
    turns = sorted(TURNS, key=lambda turn: 0 if is_square else turn.quarters % 2)
    for _, alike in itertools.groupby(turns, lambda turn: is_square or turn.quarters % 2):
        together = tuple(alike)
        yield from (together[first : first + most] for first in range(0, len(together), most))


def _mirrored(span: slice, size: int) -> slice:
    """Say where a slice of an axis lies once the axis is mirrored."""
    return slice(size - span.stop, size - span.start)
