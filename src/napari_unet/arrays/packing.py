r"""A few blobs of a large image, side by side in a small one.

What takes long for each pixel is then done for theirs alone::

    +----------------+
    |  oo        .   |      +-------+
    |     .   oooo   |  ->  |oooo ooo
    |  .       oo    |      | oo   oo
    |      .      ooo|      |oo     |
    |              oo|      +-------+
    +----------------+

A blob keeps its shape, and the order of its pixels row by row.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Labels = NDArray[np.int32]
    Mask = NDArray[np.bool_]
    Box = tuple[slice, ...]


class Packed:
    """Where each of some blobs lies in the image, and where in the small one.

    Parameters
    ----------
    blobs : ndarray of int32, shape (Y, X) or (Z, Y, X)
        Connected pixels 1..n, 0 is background.
    chosen : ndarray of bool, shape (n + 1,)
        Which of them.

    Attributes
    ----------
    mask : ndarray of bool
        The pixels of the blobs in the small image, where no two touch.
    """

    def __init__(self, blobs: Labels, chosen: Mask) -> None:
        from scipy import ndimage

        names = np.flatnonzero(chosen)
        boxes = ndimage.find_objects(blobs) if len(names) else []
        self._boxes: list[Box] = [boxes[name - 1] for name in names]
        self._inside = [blobs[box] == name for name, box in zip(names, self._boxes, strict=True)]
        shape, self._places = _side_by_side([inside.shape for inside in self._inside], blobs.ndim)
        self.mask: Mask = np.zeros(shape, bool)
        for _, place, inside in self._each():
            self.mask[place] = inside

    def take(self, array: NDArray[Any]) -> NDArray[Any]:
        """Copy what an array of the image's shape has at the blobs; 0 beside them."""
        small = np.zeros(self.mask.shape, array.dtype)
        for box, place, inside in self._each():
            np.copyto(small[place], array[box], where=inside)
        return small

    def put(self, small: NDArray[Any], array: NDArray[Any]) -> None:
        """Copy what belongs to the blobs back into an array of the image's shape."""
        for box, place, inside in self._each():
            np.copyto(array[box], small[place], where=inside)

    def _each(self) -> Iterator[tuple[Box, Box, Mask]]:
        """Walk the blobs: box in the image, box in the small one, pixels in it."""
        return zip(self._boxes, self._places, self._inside, strict=True)


def _side_by_side(sizes: Sequence[tuple[int, ...]], ndim: int) -> tuple[tuple[int, ...], list[Box]]:
    """Lay boxes on shelves, the highest first, with a gap between any two; return where."""
    if not sizes:
        return (0,) * ndim, []
    area = sum((size[0] + 1) * (size[-1] + 1) for size in sizes)
    width = max(math.isqrt(area), max(size[-1] for size in sizes) + 1)
    places: list[Box] = [()] * len(sizes)
    top = bottom = left = 0
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index][0]):
        first, *middle, last = sizes[index]
        if left + last > width:
            top, left = bottom, 0
        places[index] = (
            slice(top, top + first),
            *(slice(0, size) for size in middle),
            slice(left, left + last),
        )
        bottom, left = max(bottom, top + first + 1), left + last + 1
    middles = (max(size[axis] for size in sizes) for axis in range(1, ndim - 1))
    return (bottom, *middles, width), places
