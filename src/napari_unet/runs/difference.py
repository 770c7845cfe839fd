"""How much a result that is approximate differs: by where the tiles lie, or by fewer digits.

A few tiles are computed once more, moved across a border. What then differs is the least that the
result is wrong by. Where half precision was chosen, a small part is computed once more with all
digits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.arrays.boxes import within
from napari_unet.arrays.tiles import moved_tile
from napari_unet.network.devices import is_out_of_memory
from napari_unet.runs.progress import Job, Note
from napari_unet.runs.tile_choice import grid_of
from napari_unet.runs.tile_computer import Piece

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_unet.network.build import Network
    from napari_unet.runs.background import Background
    from napari_unet.runs.tile_computer import TileComputer

# Tiles that are computed once more: the first, one in the middle, the last.
MOST_MEASURED = 3
_MEASURED = {1: "One tile was", 2: "Two tiles were", 3: "Three tiles were"}


class Difference:
    """Measures a few tiles of one plane, and tells what was found.

    Parameters
    ----------
    net : UNet or GraphNet
        The network.
    shape : tuple of int
        Size of the planes or volumes.
    background : Background
        Where the tiles are computed.
    """

    def __init__(self, net: Network, shape: tuple[int, ...], background: Background) -> None:
        self._net, self._shape, self._background = net, shape, background
        self._found: list[tuple[float, float]] = []
        self.is_told = self.is_rounding_told = False

    def measure(
        self, computer: TileComputer, piece: Piece, values: NDArray[Any], left: int, pieces: int
    ) -> Job[None]:
        """Compute a tile once more if it is one of those to measure; tell all at the last.

        Parameters
        ----------
        computer : TileComputer
            Computes it.
        piece : Piece
            A tile that is done.
        values : ndarray, shape (classes, *core)
            Its probabilities.
        left, pieces : int
            How many tiles are left to do, and of how many.

        Yields
        ------
        Note
            How much the probabilities differ.
        """
        if self.is_told or left not in {pieces - 1, pieces // 2, 0}:
            return
        if left == 0 or len(self._found) < MOST_MEASURED - 1:
            try:
                found = yield from self._background.run(
                    measure_difference, computer, self._net, self._shape, piece, values
                )
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self.is_told = True  # what is wanted comes first, with the memory there is
                computer.free()
            else:
                self._found.append(found)
        self.is_told |= left == 0
        if self.is_told and self._found:
            largest = max(most for most, _ in self._found)
            mean = sum(each for _, each in self._found) / len(self._found)
            yield Note(
                f"{_MEASURED[len(self._found)]} computed once more, moved across a border: "
                f"probabilities differ by at least {largest:.2g} in places ({mean:.2g} on "
                "average).",
                is_caveat=True,
            )

    def rounding(self, computer: TileComputer, exact: TileComputer, piece: Piece) -> Job[None]:
        """Compute a small tile with few digits and with all; tell what differs, once.

        Parameters
        ----------
        computer, exact : TileComputer
            Compute it with few digits, and with all.
        piece : Piece
            A small tile.

        Yields
        ------
        Note
            How much the probabilities differ.
        """
        self.is_rounding_told = True
        try:
            most, mean = yield from self._background.run(measure_rounding, computer, exact, piece)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            computer.free()
        else:
            sides = " x ".join(str(part.stop - part.start) for part in piece.tile.core)
            yield Note(
                f"{sides} px were computed with all digits, too: with half precision probabilities "
                f"differ by up to {most:.2g} there ({mean:.2g} on average).",
                is_caveat=True,
            )


def measure_rounding(
    computer: TileComputer, exact: TileComputer, piece: Piece
) -> tuple[float, float]:
    """Compare a piece computed with few digits to the same with all of them.

    Parameters
    ----------
    computer, exact : TileComputer
        Compute it with few digits, and with all.
    piece : Piece
        A small tile.

    Returns
    -------
    tuple of float
        The largest and the mean difference, 0..1.
    """
    difference = np.abs(computer.compute(piece) - exact.compute(piece))
    return float(difference.max()), float(difference.mean())


def measure_difference(
    computer: TileComputer,
    net: Network,
    shape: tuple[int, ...],
    piece: Piece,
    values: NDArray[Any],
) -> tuple[float, float]:
    """Compare a tile to another one that lies across its border.

    Parameters
    ----------
    computer : TileComputer
        Computes the other one.
    net : UNet or GraphNet
        The network.
    shape : tuple of int
        Size of the plane or volume.
    piece : Piece
        The tile.
    values : ndarray, shape (classes, *core)
        Its probabilities.

    Returns
    -------
    tuple of float
        The largest and the mean difference, 0..1.
    """
    halo = [max(grid.halo - net.margin, 0) for grid in net.grids]
    other = moved_tile(piece.tile, shape, halo, *grid_of(net))
    again = computer.compute(Piece(piece.plane, other))
    common = values[(slice(None), *within(other.core, piece.tile.core))]
    difference = np.abs(common - again)
    return float(difference.max()), float(difference.mean())
