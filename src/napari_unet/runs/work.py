"""What is left to do of some planes, and what it counts for.

Tiles become more and smaller when memory runs out. A person who watches a bar does not see that:
what was left then counts for as much as before, however many pieces it is now::

    |=== done ===|=== done ===|  left: 1  |  left: 1  |        4 in all
    |=== done ===|=== done ===|   :   :   |   :   :   |        still 4, of 8 smaller ones
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from napari_unet.runs.progress import TileDone

if TYPE_CHECKING:
    from napari_unet.network.transfers import Assembly
    from napari_unet.runs.tile_computer import Piece, Plane, Started


@dataclass
class Work:
    """Some planes whose tiles are being computed."""

    remaining: list[Piece]
    """Not begun."""
    planes: int
    """How many planes."""
    count: int
    """How many tiles a plane counts for."""
    started: list[Started] = field(default_factory=list)
    """Begun, the first of them first."""
    results: dict[Plane, Assembly] = field(default_factory=dict)
    """What is put together on the device; empty where tiles are written one by one."""
    pieces: int = field(default=0, init=False)
    """How many were left when they were last cut."""
    _counts_for: int = field(default=0, init=False)
    """What those counted for together."""

    @property
    def total(self) -> int:
        """What all planes count for."""
        return self.planes * self.count

    @property
    def left(self) -> int:
        """How many pieces are not done."""
        return len(self.remaining) + sum(len(batch.pieces) for batch in self.started)

    def share_out(self, counts_for: int) -> None:
        """Let the pieces that are left count for so much together."""
        self._counts_for, self.pieces = counts_for, self.left

    def counts_for(self, left: int) -> int:
        """Return what so many pieces count for: nothing only if there are none."""
        return -(-self._counts_for * left // max(self.pieces, 1))

    def done(self, left: int) -> TileDone:
        """Tell how much is done when so many pieces are left."""
        return TileDone(self.total - self.counts_for(left), self.total)

    def take_back(self) -> None:
        """Count what was begun as not begun."""
        begun = [piece for batch in self.started for piece in batch.pieces]
        self.started.clear()
        self.remaining = [*begun, *self.remaining]
