"""What a model gives for a part of a plane, beside what is true there, at the size of the image.

A network may see the image smaller or larger than it is (:mod:`napari_unet.runs.zoom`). Labels are
found at the size of the image, so that is where they are judged: small labels, outlines and gaps
come out otherwise in a smaller image, and not for each model alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_unet.runs.zoom import nearest_in, rescaled, resize_part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unet.runs.samples import Original, Plane

    Mask = NDArray[np.bool_]
    Map = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Part:
    """What a model gives for a part of a plane, and what is true there."""

    probability: NDArray[np.floating]
    """Shape (K, Y, X), 0..1."""
    truth: NDArray[np.int32]
    """Shape (Y, X): objects or classes."""
    mask: Mask
    """Shape (Y, X): where to judge."""


def truth_in(plane: Plane, area: Sequence[slice], mask: Mask) -> tuple[NDArray[np.int32], Mask]:
    """Return what is true in an area of a plane, at the size of the image.

    Parameters
    ----------
    plane : Plane
        As the network sees it.
    area : sequence of slice
        Rows and columns of it.
    mask : ndarray of bool, shape (Y, X) of the plane
        Where to judge.

    Returns
    -------
    truth : ndarray of int32, shape (Y, X)
        Objects or classes.
    mask : ndarray of bool, shape (Y, X)
        Where to judge.
    """
    original = plane.original
    rows, columns = area
    if original is None:
        return plane.truth[rows, columns], mask[rows, columns]
    wanted = _in_image(plane, original, area)
    at = tuple(
        slice(span.start - first, span.stop - first)
        for span, first in zip(wanted, original.origin, strict=True)
    )
    whole = _in_whole(plane, [slice(0, side) for side in mask.shape])
    near = np.ix_(*map(nearest_in, whole, original.seen_shape, wanted, original.shape))
    return original.truth[at], original.vouched[at] & mask[near]


def at_image_size(plane: Plane, area: Sequence[slice], probability: Map) -> Map:
    """Bring what a network gives for an area of a plane to the size of the image.

    Parameters
    ----------
    plane : Plane
        As the network sees it.
    area : sequence of slice
        Rows and columns of it.
    probability : ndarray of float, shape (K, *area)
        What it gives there.

    Returns
    -------
    ndarray of float, shape (K, Y, X)
        Of the shape that :func:`truth_in` has for this area.
    """
    original = plane.original
    if original is None:
        return probability
    seen = _in_whole(plane, area)
    wanted = _in_image(plane, original, area)
    return resize_part(probability, seen, original.seen_shape, wanted, original.shape)


def _in_whole(plane: Plane, area: Sequence[slice]) -> list[slice]:
    """Where an area of a plane lies in the whole image as the network sees it."""
    return [
        slice(span.start + first, span.stop + first)
        for span, first in zip(area, plane.origin, strict=True)
    ]


def _in_image(plane: Plane, original: Original, area: Sequence[slice]) -> tuple[slice, ...]:
    """Where an area of a plane lies in the image."""
    return rescaled(_in_whole(plane, area), original.seen_shape, original.shape)
