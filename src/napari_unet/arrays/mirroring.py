"""What a tile sees where it reaches beyond the image.

It is the image again, mirrored at its ends, which are not doubled::

    pixel   3 2 1 | 0 1 2 3 ... n-1 | n-2 n-3 ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_unet.arrays.tiles import Tile


def cut_tile(plane: Any, tile: Tile, margin: int = 0) -> NDArray[Any]:
    """Cut from a plane what the network sees of it in one tile.

    Parameters
    ----------
    plane : array-like, shape (C, *spatial)
        The plane; of one that lies on disk, only the pixels of the tile are read.
    tile : Tile
        Planned for its size.
    margin : int
        The margin the tile was planned with.

    Returns
    -------
    ndarray, shape (C, *outer)
        Mirrored where the tile reaches beyond the plane; a view where it does not.
    """
    places = [
        mirrored(part.start - margin, part.stop - margin, size)
        for part, size in zip(tile.outer, plane.shape[1:], strict=True)
    ]
    box = tuple(slice(int(place.min()), int(place.max()) + 1) for place in places)
    cut: NDArray[Any] = np.asarray(plane[(slice(None), *box)])
    for axis, (place, part) in enumerate(zip(places, box, strict=True), start=1):
        if place[-1] - place[0] != len(place) - 1:
            cut = np.take(cut, place - part.start, axis)
    return cut


def mirrored(start: int, stop: int, size: int) -> NDArray[np.intp]:
    """Find the pixel that stands at each position of an axis mirrored at its ends.

    Parameters
    ----------
    start, stop : int
        Positions that may lie before 0 or beyond the size.
    size : int
        Length of the axis, at least 1.

    Returns
    -------
    ndarray of int, shape (stop - start,)
        Each in 0..size-1. The end pixels are not doubled; an axis of one pixel repeats it.
    """
    period = max(2 * (size - 1), 1)
    position = np.arange(start, stop) % period
    return np.minimum(position, period - position)
