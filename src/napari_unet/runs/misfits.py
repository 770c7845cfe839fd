r"""Checked labels that cannot be right, seen in the labels and the image alone.

What is kept aside to judge a training is only as good as the labels there. If all of them were
moved by half an object, a network that learns the move is better by every score, and worse on every
other image. So two things are looked for in each checked region, without any model:

**Labels that lie beside what they mean.** Where labels are right the image changes at their edges,
and it changes most of all with the labels just where they are::

    image     ____/‾‾‾‾\______/‾‾‾\____
    labels    ____|____|______|___|____     the edges meet
    labels    ________|____|______|___|     moved: they would meet at another place

Measured is how well the gradient of the labels and that of the image agree, for all moves up to
one object's diameter (their cross-correlation, as in the registration of images [1]_). Labels of
another image, turned or mirrored ones are found as well: they agree nowhere in particular.

**Objects and background mixed up.** An object that covers most of a region and encloses several
other pieces is background, or many objects under one number.

References
----------
.. [1] Zitova, Flusser (2003), Image registration methods: a survey,
   doi:10.1016/S0262-8856(03)00137-9.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.runs.samples import LEAST_PIXELS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_unet.runs.samples import Plane

    Mask = NDArray[np.bool_]
    Box = tuple[slice, ...]
    Values = NDArray[np.float64]

LEAST_OBJECTS = 2  # in a region; the edges of a single one may fit anywhere
LEAST_MOVE = 0.2  # of an object's diameter
FITS = 0.85  # of the best agreement: what is reached near where the labels are is as good
NEAR = 0.12  # of an object's diameter: so much nobody draws exactly
NEAR_PX = 2
DIAMETERS_PX = (6, 64)  # between which an object's is looked for
SMOOTHED_PX = 1.0
STRONGEST = 0.98  # quantile of the gradient: a stronger one (dirt) counts no more than this
LARGEST_SHARE = 0.5  # of a region that one object may cover and enclose other pieces
LEAST_PIECES = 2  # that are no accident ...
LEAST_PIECE_PX = 20  # ... of so many pixels
MANY_PIECES = 10  # that nothing of the size of an object encloses, however little it covers


@dataclass(frozen=True)
class Misfit:
    """A checked region whose labels cannot be right."""

    plane: int
    """Number of the plane, from 0."""
    middle: tuple[int, int]
    """Of the region, (Y, X), in pixels of the whole plane."""
    reason: str
    """What is wrong, after "The labels"."""

    def told(self, planes: int) -> str:
        """Say it in a sentence.

        Parameters
        ----------
        planes : int
            Of how many it is one.

        Returns
        -------
        str
            Which region it is, and what is wrong.
        """
        plane = f" of the checked plane {self.plane + 1} of {planes}" if planes > 1 else ""
        y, x = self.middle
        return f"The labels around (y {y}, x {x}){plane} {self.reason}"


def find_misfits(planes: Sequence[Plane], zoom: float = 1.0) -> list[Misfit]:
    """Look for checked regions whose labels cannot be right.

    Parameters
    ----------
    planes : sequence of Plane
        What was vouched for; the truth are objects, not classes.
    zoom : float
        Pixels of the planes for one of the image.

    Returns
    -------
    list of Misfit
        At most one for each region; none where nothing can be told.
    """
    found = []
    for number, plane in enumerate(planes):
        for box, region in _regions(plane):
            reason = _reason(plane, box, region, zoom)
            if reason is not None:
                y, x = (
                    round((origin + (side.start + side.stop) / 2) / zoom)
                    for origin, side in zip(plane.origin, box, strict=True)
                )
                found.append(Misfit(number, (y, x), reason))
    return found


def _regions(plane: Plane) -> Iterator[tuple[Box, Mask]]:
    """Give the box of each connected part of what was vouched for, and the part in it."""
    from scipy import ndimage

    names, _ = ndimage.label(plane.vouched, structure=np.ones((3, 3)))
    for name, box in enumerate(ndimage.find_objects(names), start=1):
        part = names[box] == name
        if part.sum() >= LEAST_PIXELS:
            yield box, part


def _reason(plane: Plane, box: Box, region: Mask, zoom: float) -> str | None:
    """Say what is wrong with the labels of a region, if anything."""
    truth = plane.truth[box]
    numbers, sizes = np.unique(truth[region & (truth > 0)], return_counts=True)
    if not len(numbers):
        return None
    largest = int(numbers[sizes.argmax()])
    reason = _is_background(truth == largest, region, others=len(numbers) - 1)
    if reason is None and len(numbers) >= LEAST_OBJECTS:
        diameter = float(np.clip(2 * np.sqrt(np.median(sizes) / np.pi), *DIAMETERS_PX))
        around = tuple(
            slice(max(0, side.start - int(diameter) - 1), side.stop + int(diameter) + 1)
            for side in box
        )
        inside = np.zeros(plane.truth.shape, bool)
        inside[box] = region
        move = find_move(
            plane.image[(slice(None), *around)], plane.truth[around], inside[around], diameter
        )
        reason = None if move is None else _moved([side / zoom for side in move])
    return reason


def _is_background(largest: Mask, region: Mask, others: int) -> str | None:
    """Say so if the largest object encloses what might be objects."""
    from scipy import ndimage

    share = (largest & region).sum() / region.sum()
    names, _ = ndimage.label(region & ~largest)
    pieces = int(np.count_nonzero(np.bincount(names.ravel())[1:] >= LEAST_PIECE_PX))
    is_ground = share > LARGEST_SHARE and pieces >= LEAST_PIECES
    if others <= pieces // 2 and (is_ground or pieces >= MANY_PIECES):
        return (
            f"have one object that covers {share:.0%} of the region and lies around {pieces} other "
            "pieces: objects and background seem to be mixed up, or many objects are one."
        )
    return None


def find_move(
    image: NDArray[np.float32], truth: NDArray[np.int32], region: Mask, diameter_px: float
) -> tuple[int, int] | None:
    """Find where labels would fit the image clearly better than where they are.

    Parameters
    ----------
    image : ndarray of float32, shape (C, Y, X)
        Scaled grey values.
    truth : ndarray of int32, shape (Y, X)
        Objects; 0 is background.
    region : ndarray of bool, shape (Y, X)
        Where to look.
    diameter_px : float
        Of a usual object, in pixels: no move is larger.

    Returns
    -------
    tuple of int or None
        By how many pixels (Y, X) they should be moved; None where they fit.
    """
    from scipy import ndimage, signal

    reach = int(np.ceil(diameter_px))
    inner = ndimage.binary_erosion(region, iterations=2)
    if not inner.any():
        return None
    edges = [np.where(inner, slope, 0) for slope in _slopes(_filled(truth))]
    agreement = np.zeros((2 * reach + 1, 2 * reach + 1))
    for channel in image:
        slopes = _slopes(channel)
        strength = np.hypot(*slopes)
        most = float(np.quantile(strength[inner], STRONGEST))
        if most <= 0:
            continue
        capped = np.minimum(1, most / np.maximum(strength, most))
        for slope, edge in zip(slopes, edges, strict=True):
            wide = np.pad(slope * capped, reach)
            agreement += signal.correlate(wide, edge, mode="valid", method="fft")
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    length = np.hypot(y, x)
    agreement = np.where(length <= reach, np.abs(agreement), 0)
    best = float(agreement.max())
    if not best:
        return None
    at = np.unravel_index(int(agreement.argmax()), agreement.shape)
    near = float(agreement[length <= max(NEAR_PX, NEAR * diameter_px)].max())
    if length[at] <= LEAST_MOVE * diameter_px or near >= FITS * best:
        return None
    return int(at[0]) - reach, int(at[1]) - reach


def _filled(truth: NDArray[np.int32]) -> Values:
    """Mark the inside of objects, with a gap between two that touch."""
    from scipy import ndimage

    largest = ndimage.maximum_filter(truth, 3)
    smallest = ndimage.minimum_filter(np.where(truth > 0, truth, truth.max(initial=0) + 1), 3)
    inside: Values = ((truth > 0) & (largest == truth) & (smallest == truth)).astype(float)
    return inside


def _slopes(values: NDArray[Any]) -> list[Values]:
    """Smooth values, and take their gradient."""
    from scipy import ndimage

    return list(np.gradient(ndimage.gaussian_filter(values.astype(float), SMOOTHED_PX)))


def _moved(by_px: Sequence[float]) -> str:
    """Say where labels would fit."""
    (up, down), (left, right) = ("up", "down"), ("left", "right")
    parts = [
        f"{abs(round(by))} px {after if by > 0 else before}"
        for by, before, after in zip(by_px, (up, left), (down, right), strict=True)
        if round(by)
    ]
    return (
        "do not lie on the edges in the image; they would fit better moved "
        f"{' and '.join(parts)}: they may be of another image, or not where they belong."
    )
