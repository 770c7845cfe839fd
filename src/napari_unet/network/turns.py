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

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def _mirrored(span: slice, size: int) -> slice:
    """Say where a slice of an axis lies once the axis is mirrored."""
    return slice(size - span.stop, size - span.start)
