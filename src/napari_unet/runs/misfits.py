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
one object's diameter, of 64 px at most (their cross-correlation, as in the registration of images
[1]_). Told is only what fits one place and no other: labels that are wider or narrower than what
has edges (whole cells around bright nuclei, say) and objects that differ in texture agree with many
places about as well as with their own. So labels of another image are not found, either; a network
that learns those finds nothing in what is kept aside.

**Objects and background changed round.** An object that covers most of a region and encloses
several pieces, each apart from the region's edge, is the background of those.

References
----------
.. [1] Zitova, Flusser (2003), Image registration methods: a survey,
   doi:10.1016/S0262-8856(03)00137-9.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.runs.samples import LEAST_PIXELS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_unet.runs.samples import Plane

    Mask = NDArray[np.bool_]
    Box = tuple[slice, ...]
    Map = NDArray[np.float32]

LEAST_OBJECTS = 3  # in a region; the edges of one or two may fit anywhere
LEAST_MOVE = 0.2  # of an object's diameter
FITS = 0.85  # of the best agreement: what is reached near where the labels are is as good
NEAR = 0.12  # of an object's diameter: so much nobody draws exactly
NEAR_PX = 2
ELSEWHERE = 0.7  # of the best agreement: what is reached apart from it shows that it is no peak ...
APART = 0.3  # ... at least so many diameters away
DIAMETERS_PX = (6, 64)  # between which an object's is looked for
LARGEST_PX = 1024  # side of the part of a region that is looked at: more tells no more
SMOOTHED_PX = 1.0
STRONGEST = 0.98  # quantile of the gradient: a stronger one (dirt) counts no more than this
LARGEST_SHARE = 0.5  # of a region that one object may cover and enclose other pieces
LEAST_PIECES = 3  # that are no accident ...
LEAST_PIECE_PX = 20  # ... of so many pixels


@dataclass(frozen=True)
class Misfit:
    """A checked region whose labels cannot be right."""

    plane: int
    """Number of the plane, from 0."""
    name: str
    """What the person knows the plane by; empty if that is not known."""
    middle: tuple[int, int]
    """Of the region, (Y, X), in pixels of the image."""
    box: tuple[tuple[int, int], tuple[int, int]]
    """Where the region begins and ends along Y and X, in pixels of the plane."""
    reason: str
    """What is wrong, after "The labels"."""

    @property
    def told(self) -> str:
        """Which region it is, and what is wrong, in a sentence."""
        y, x = self.middle
        where = f" in {self.name}" if self.name else ""
        return f"The labels around (y {y}, x {x}){where} {self.reason}"

    def is_in(self, masks: Sequence[Mask]) -> bool:
        """Tell whether any of the region lies in a mask.

        Parameters
        ----------
        masks : sequence of ndarray of bool, shape (Y, X)
            One for each plane.

        Returns
        -------
        bool
            True if so.
        """
        return bool(masks[self.plane][tuple(slice(*side) for side in self.box)].any())


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
        for box, part, seen in _regions(plane):
            reason = _reason(plane, part, seen, zoom)
            if reason is not None:
                y, x = (
                    round((origin + (side.start + side.stop) / 2) / zoom)
                    for origin, side in zip(plane.origin, box, strict=True)
                )
                rows, columns = ((side.start, side.stop) for side in box)
                found.append(Misfit(number, plane.name, (y, x), (rows, columns), reason))
    return found


def _regions(plane: Plane) -> Iterator[tuple[Box, Box, Mask]]:
    """Give the box of each connected part of what was vouched for, its middle, and what is seen."""
    from scipy import ndimage

    names, _ = ndimage.label(plane.vouched, structure=np.ones((3, 3)))
    for name, box in enumerate(ndimage.find_objects(names), start=1):
        part = tuple(_middle(side) for side in box)
        seen = names[part] == name
        if seen.sum() >= LEAST_PIXELS:
            yield box, part, seen


def _middle(side: slice) -> slice:
    """Return the middle of a side that is too long to look at all of it."""
    spare = max(0, side.stop - side.start - LARGEST_PX)
    return slice(side.start + spare // 2, side.stop - spare + spare // 2)


def _reason(plane: Plane, part: Box, seen: Mask, zoom: float) -> str | None:
    """Say what is wrong with the labels of a part of a region, if anything."""
    truth = plane.truth[part]
    numbers, sizes = np.unique(truth[seen & (truth > 0)], return_counts=True)
    if not len(numbers):
        return None
    largest = int(numbers[sizes.argmax()])
    reason = _is_background(truth == largest, seen, others=len(numbers) - 1)
    if reason is None and len(numbers) >= LEAST_OBJECTS:
        diameter = float(np.clip(2 * np.sqrt(np.median(sizes) / np.pi), *DIAMETERS_PX))
        margin = int(np.ceil(diameter))
        around = tuple(
            slice(max(0, side.start - margin), min(length, side.stop + margin))
            for side, length in zip(part, plane.truth.shape, strict=True)
        )
        widths = [(p.start - a.start, a.stop - p.stop) for p, a in zip(part, around, strict=True)]
        image = plane.image[(slice(None), *around)]
        move = find_move(image, plane.truth[around], np.pad(seen, widths), diameter)
        reason = None if move is None else _moved([side / zoom for side in move])
    return reason


def _is_background(largest: Mask, seen: Mask, others: int) -> str | None:
    """Say so if the largest object encloses what might be objects."""
    from scipy import ndimage

    share = (largest & seen).sum() / seen.sum()
    if share <= LARGEST_SHARE:
        return None
    names, _ = ndimage.label(seen & ~largest)
    sizes = np.bincount(names.ravel())
    at_edge = np.unique(names[seen & ~ndimage.binary_erosion(seen)])
    sizes[[0, *at_edge]] = 0
    pieces = int(np.count_nonzero(sizes >= LEAST_PIECE_PX))
    if pieces < LEAST_PIECES or others > pieces // 2:
        return None
    return (
        f"have one object that covers {share:.0%} of the region and encloses {pieces} pieces, as "
        "if objects and background were changed round. Give the background the number 0."
    )


def find_move(
    image: NDArray[np.float32], truth: NDArray[np.int32], region: Mask, diameter_px: float
) -> tuple[int, int] | None:
    """Find the one place where labels would fit the image clearly better than anywhere else.

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
        By how many pixels (Y, X) they should be moved; None where they fit, or several places
        would do.
    """
    from scipy import ndimage, signal

    reach = int(np.ceil(diameter_px))
    inner = ndimage.binary_erosion(region, iterations=2)
    if not inner.any():
        return None
    edges = [np.where(inner, slope, 0) for slope in _slopes(_filled(truth))]
    agreement = np.zeros((2 * reach + 1, 2 * reach + 1))  # whichever side is the brighter one
    for channel in image:
        slopes = _slopes(channel)
        strength = np.hypot(*slopes)
        most = float(np.quantile(strength[inner], STRONGEST))
        if most <= 0:
            continue
        capped = np.minimum(1, most / np.maximum(strength, most))
        agreement += np.abs(
            sum(
                signal.correlate(np.pad(slope * capped, reach), edge, mode="valid", method="fft")
                for slope, edge in zip(slopes, edges, strict=True)
            )
        )
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    length = np.hypot(y, x)
    agreement = np.where(length <= reach, agreement, 0)
    best = float(agreement.max())
    if not best:
        return None
    at = np.unravel_index(int(agreement.argmax()), agreement.shape)
    near = float(agreement[length <= max(NEAR_PX, NEAR * diameter_px)].max())
    if length[at] <= LEAST_MOVE * diameter_px or near >= FITS * best:
        return None
    apart = np.hypot(y - y[at], x - x[at]) > APART * diameter_px
    if agreement[apart].max(initial=0.0) >= ELSEWHERE * best:
        return None
    return int(at[0]) - reach, int(at[1]) - reach


def _filled(truth: NDArray[np.int32]) -> Map:
    """Mark the inside of objects, with a gap between two that touch."""
    from scipy import ndimage

    largest = ndimage.maximum_filter(truth, 3)
    smallest = ndimage.minimum_filter(np.where(truth > 0, truth, truth.max(initial=0) + 1), 3)
    inside: Map = ((truth > 0) & (largest == truth) & (smallest == truth)).astype(np.float32)
    return inside


def _slopes(values: Map) -> list[Map]:
    """Smooth values, and take their gradient."""
    from scipy import ndimage

    return list(np.gradient(ndimage.gaussian_filter(values, SMOOTHED_PX)))


def _moved(by_px: Sequence[float]) -> str:
    """Say where labels would fit."""
    (up, down), (left, right) = ("up", "down"), ("left", "right")
    parts = [
        f"{abs(round(by))} px {after if by > 0 else before}"
        for by, before, after in zip(by_px, (up, left), (down, right), strict=True)
        if round(by)
    ]
    return (
        f"do not lie on the edges in the image; they would fit better moved {' and '.join(parts)}."
    )
