"""Which tiles are computed together: such as are alike, so that one pass serves them all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

from napari_unet.arrays.boxes import enclosing
from napari_unet.arrays.tiles import Kind, Tile, kind_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.runs.tile_computer import Piece

Order = Callable[[list[Tile]], Tile]
"""Picks, of the tiles that remain, the one to compute next."""


class Batches:
    """Puts tiles of planes of one size together.

    Parameters
    ----------
    tiles : sequence of Tile
        Of a plane, as they are planned.
    shape : tuple of int
        Size of the plane or volume.
    """

    def __init__(self, tiles: Sequence[Tile], shape: tuple[int, ...]) -> None:
        self._shape = shape
        alike = defaultdict[Kind, list[tuple[slice, ...]]](list)
        for tile in tiles:
            alike[kind_of(tile, shape)].append(tile.local)
        self._kept = {kind: enclosing(boxes) for kind, boxes in alike.items()}

    def choose(self, remaining: Sequence[Piece], order: Order | None, most: int) -> list[Piece]:
        """Choose the tiles that are computed next.

        Parameters
        ----------
        remaining : sequence of Piece
            At least one tile.
        order : callable, optional
            Asked for each tile; in their order if not given.
        most : int
            How many to choose at most.

        Returns
        -------
        list of Piece
            All of one kind.
        """
        first = _next(remaining, order)
        kind = kind_of(first.tile, self._shape)
        others = (
            piece
            for piece in remaining
            if piece is not first and kind_of(piece.tile, self._shape) == kind
        )
        if order is None or most == 1:
            return [first, *islice(others, most - 1)]
        chosen, alike = [first], list(others)
        while alike and len(chosen) < most:
            chosen.append(_next(alike, order))
            alike.remove(chosen[-1])
        return chosen

    def kept(self, pieces: Sequence[Piece], *, is_alike: bool) -> tuple[slice, ...]:
        """Say what of the network's answer is kept of some tiles.

        Parameters
        ----------
        pieces : sequence of Piece
            Tiles of one kind.
        is_alike : bool
            Keep the same of all tiles of this kind, so that all go through the same steps.

        Returns
        -------
        tuple of slice
            Holds the core of each.
        """
        kind = kind_of(pieces[0].tile, self._shape)
        same = [self._kept[kind]] if is_alike and kind in self._kept else []
        return enclosing([*same, *(piece.tile.local for piece in pieces)])


def _next(remaining: Sequence[Piece], order: Order | None) -> Piece:
    """Ask which tile is next."""
    if order is None:
        return remaining[0]
    tiles = [piece.tile for piece in remaining]
    return remaining[tiles.index(order(tiles))]
