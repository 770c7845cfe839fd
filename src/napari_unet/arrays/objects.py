"""Single objects in a plane of labels: which one is at a point, and where it would be cut.

An object here is a connected part: a number that stands at two places is two objects. Points and
indices are (y, x); nothing changes the labels it was given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_unet.errors import LabelsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Labels = NDArray[np.integer[Any]]
    Mask = NDArray[np.bool_]
    Point = tuple[int, int]

DIRECTIONS = 90
STEP_PX = 0.25


class Part(NamedTuple):
    """A connected part of an object.

    ``mask`` says which pixels of ``box``, two slices of the plane, belong to it.
    """

    number: int
    box: tuple[slice, slice]
    mask: Mask

    @property
    def pixels(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The indices of its pixels in the plane."""
        ys, xs = np.nonzero(self.mask)
        return ys + self.box[0].start, xs + self.box[1].start


def part_at(labels: Labels, point: Point) -> Part | None:
    """Find the connected part at a point.

    Parameters
    ----------
    labels : ndarray of int, shape (Y, X)
        A plane of instance labels, 0 is background.
    point : tuple of int
        A pixel (y, x) of it.

    Returns
    -------
    Part or None
        None on background. What meets only at a corner is another part.
    """
    from scipy import ndimage

    number = int(labels[point])
    if number == 0:
        return None
    same = labels == number
    rows, columns = (np.flatnonzero(same.any(axis=axis)) for axis in (1, 0))
    corner = int(rows[0]), int(columns[0])
    parts, _ = ndimage.label(same[corner[0] : rows[-1] + 1, corner[1] : columns[-1] + 1])
    own = int(parts[point[0] - corner[0], point[1] - corner[1]])
    inner = ndimage.find_objects(parts)[own - 1]
    y, x = (slice(s.start + at, s.stop + at) for s, at in zip(inner, corner, strict=True))
    return Part(number, (y, x), parts[inner] == own)


def is_touching(one: Part, other: Part) -> bool:
    """Tell whether two parts have neighbouring pixels.

    Parameters
    ----------
    one, other : Part
        Two parts of a plane.

    Returns
    -------
    bool
        True if a side of a pixel is shared.
    """
    from scipy import ndimage

    starts = [min(a.start, b.start) for a, b in zip(one.box, other.box, strict=True)]
    stops = [max(a.stop, b.stop) for a, b in zip(one.box, other.box, strict=True)]
    both = np.zeros(np.subtract(stops, starts), bool)
    for part in (one, other):
        ys, xs = part.pixels
        both[ys - starts[0], xs - starts[1]] = True
    _, count = ndimage.label(both)
    return bool(count == 1)


def cut_off(part: Part, point: Point) -> Part:
    """Cut a part in two where it is narrowest around a point.

    The cut is the shortest straight way through the part that passes the point.

    Parameters
    ----------
    part : Part
        What is to be cut.
    point : tuple of int
        A pixel (y, x) of it, in the plane.

    Returns
    -------
    Part
        The smaller piece, still under the old number; the rest is the other one.

    Raises
    ------
    LabelsError
        If that leaves one piece only, e.g. of a ring.
    """
    from scipy import ndimage

    y, x = point[0] - part.box[0].start, point[1] - part.box[1].start
    direction, back, ahead = _shortest_way(part.mask, (y, x))
    ys, xs = np.indices(part.mask.shape)
    along = (ys - y) * direction[0] + (xs - x) * direction[1]
    across = (ys - y) * direction[1] - (xs - x) * direction[0]
    # A band as wide as this one has no gap that a pixel's side would fit through.
    band = np.abs(across) <= 0.5 * np.abs(direction).sum()
    band &= (along >= -back - 1) & (along <= ahead + 1)
    pieces, count = ndimage.label(part.mask & ~band)
    sides = across >= 0
    near = ndimage.binary_dilation(band) & part.mask & ~band
    lying = np.zeros(count + 1, int)  # by its pixels beside the cut: on which side a piece lies
    np.add.at(lying, pieces[near], np.where(sides[near], 1, -1))
    lying[0] = 0
    one, other = (lying > 0)[pieces], (lying < 0)[pieces]
    if not one.any() or not other.any():
        raise LabelsError(
            f"Object {part.number} would still be one piece. Point at a narrow place that, cut "
            "through, leaves two."
        )
    smaller, lies_ahead = (one, True) if one.sum() <= other.sum() else (other, False)
    smaller = smaller | (band & part.mask & (sides == lies_ahead) & (across != 0))
    return Part(part.number, part.box, smaller)


def _shortest_way(mask: Mask, point: Point) -> tuple[NDArray[np.float64], float, float]:
    """Find the shortest straight way through a mask: its direction, pixels back and ahead."""
    angles = np.arange(DIRECTIONS) * np.pi / DIRECTIONS
    directions = np.stack([np.sin(angles), np.cos(angles)], axis=1)
    steps = np.arange(0, np.hypot(*mask.shape) + 1, STEP_PX)
    padded = np.pad(mask, 1)

    def way_out(sign: int) -> NDArray[np.float64]:
        spots = np.asarray(point) + sign * directions[:, None] * steps[:, None]
        rows, columns = np.rint(spots).astype(int).transpose(2, 0, 1) + 1
        inside = padded[np.clip(rows, 0, mask.shape[0] + 1), np.clip(columns, 0, mask.shape[1] + 1)]
        return np.asarray(steps[np.argmin(inside, axis=1)])

    back, ahead = way_out(-1), way_out(1)
    best = int(np.argmin(back + ahead))
    return directions[best], float(back[best]), float(ahead[best])
