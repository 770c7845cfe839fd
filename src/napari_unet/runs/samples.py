"""What somebody vouched for, and how it looks to a network.

A sample is a whole plane, so that grey values are scaled as in use and objects are known also
where they leave the checked area. From it comes a plane: scaled, its objects completed, cut to
the checked area and its surroundings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.arrays.channels import pick_channels
from napari_unet.arrays.corrections import join_outside
from napari_unet.arrays.normalize import measure, normalize
from napari_unet.runs.zoom import (
    choose_zoom,
    rescaled,
    resize,
    resize_mask,
    sources,
    zoomed_shape,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_unet.models.card import Card
    from napari_unet.settings import SegmentSettings

    Mask = NDArray[np.bool_]
    Map = NDArray[np.float32]

LEAST_PIXELS = 400  # vouched for in all, e.g. 20 x 20; a few strokes with a brush are more


@dataclass(frozen=True, eq=False)
class Sample:
    """One plane with labels, and what of them somebody vouched for."""

    image: NDArray[Any]
    """Shape (C, Y, X): raw grey values of the whole plane."""
    labels: NDArray[np.integer[Any]]
    """Shape (Y, X): the truth where it is vouched for, elsewhere e.g. what the model said."""
    labelled: Mask | None = None
    """Shape (Y, X): where the labels are vouched for; what is 0 there is background. None: all."""
    changed: Mask | None = None
    """Shape (Y, X): where the person changed something. None: nowhere in particular."""
    name: str = ""
    """What the person knows the plane by, e.g. "cells.tif, Z 3"; for what is said about it."""


@dataclass(frozen=True, eq=False)
class Original:
    """The same part of the image at its own size: what labels are held against."""

    truth: NDArray[np.int32]
    """Shape (Y, X): as in the plane, under the same numbers."""
    vouched: Mask
    """Shape (Y, X): where the truth is known."""
    changed: Mask
    """Shape (Y, X): where the person corrected something."""
    origin: tuple[int, int]
    """Its first pixel (Y, X) in the image."""
    shape: tuple[int, ...]
    """Size (Y, X) of the whole image."""
    seen_shape: tuple[int, ...]
    """Size (Y, X) of the whole image as the network sees it."""


@dataclass(frozen=True, eq=False)
class Plane:
    """A sample as the network sees it, cut to what was vouched for and its surroundings.

    Its first pixel lies on the grid of the network's stride, counted from the sample's.
    """

    image: Map
    """Shape (C, Y, X): scaled grey values."""
    truth: NDArray[np.int32]
    """Shape (Y, X): objects, each under its own number, or classes."""
    vouched: Mask
    """Shape (Y, X): where the truth is known."""
    changed: Mask
    """Shape (Y, X): where the person corrected something."""
    cut: Mask
    """Shape (Y, X): vouched objects of unknown extent; they are no example to learn from."""
    origin: tuple[int, int] = (0, 0)
    """Its first pixel (Y, X) in the whole plane, at the size the network sees."""
    name: str = ""
    """As the sample's."""
    original: Original | None = None
    """At the size of the image; None where the network sees it at that size."""


def prepare_plane(
    sample: Sample, card: Card, segment: SegmentSettings, reach_px: int, stride: int = 1
) -> Plane | None:
    """Scale a sample as in use, complete its objects, and cut out what matters.

    Parameters
    ----------
    sample : Sample
        One plane.
    card : Card
        Of the model: normalisation, channels, kind of labels.
    segment : SegmentSettings
        Channels and invert, as they are used on this image.
    reach_px : int
        How far around what was vouched for pixels may be needed.
    stride : int
        Grid of the network.

    Returns
    -------
    Plane or None
        None if nothing of the sample is vouched for.

    Raises
    ------
    ImageError
        If the channels do not fit the network.
    """
    whole = np.shape(sample.labels)
    shape = zoomed_shape(whole, choose_zoom(card, segment))
    vouched = resize_mask(vouched_in(sample), shape)
    if not vouched.any():
        return None
    area = grown_box(vouched, reach_px, stride)
    channels = pick_channels(
        np.asarray(sample.image), segment.channels, card.architecture.in_channels
    )
    statistics = measure(channels, card.normalization)
    if shape != whole:
        channels = resize(channels, shape)
    image = normalize(channels[(slice(None), *area)], statistics, segment.invert)
    there = rescaled(area, shape, whole)
    truth, known, changed, cut = _known(sample, card, there)
    original = Original(truth, known, changed, (there[0].start, there[1].start), whole, shape)
    near = sources(known, there, whole, area, shape)
    return Plane(
        np.ascontiguousarray(image),
        truth=truth[near],
        vouched=known[near],
        changed=changed[near],
        cut=cut[near],
        origin=(area[0].start, area[1].start),
        name=sample.name,
        original=None if shape == whole else original,
    )


def _known(
    sample: Sample, card: Card, at: tuple[slice, ...]
) -> tuple[NDArray[np.int32], Mask, Mask, Mask]:
    """Return truth, what is vouched for, changed and cut in a part of a sample; see Plane."""
    labels, vouched = np.asarray(sample.labels)[at], vouched_in(sample)[at]
    changed = np.zeros(labels.shape, bool)
    if sample.changed is not None:
        changed = _as_mask(np.asarray(sample.changed)[at]) & vouched
    if card.labels == "semantic":
        return labels.astype(np.int32), vouched, changed, np.zeros(labels.shape, bool)
    truth, cut = join_outside(labels, vouched)
    # What has no pixel in the checked area is nobody's word, not even as a neighbour.
    truth = np.where(np.isin(truth, np.unique(truth[vouched])), truth, 0)
    return truth, vouched, changed, cut


def grown_box(mask: Mask, by_px: int, stride: int = 1) -> tuple[slice, slice]:
    """Return the box around all that is set, grown on all sides, within the array.

    Parameters
    ----------
    mask : ndarray of bool, shape (Y, X)
        At least one pixel is set.
    by_px : int
        How much to grow.
    stride : int
        The box starts at a multiple of it, and ends at one or at the end of the array.

    Returns
    -------
    tuple of slice
        Rows and columns.
    """
    box = []
    for axis in range(2):
        at = np.flatnonzero(mask.any(axis=1 - axis))
        start = max(0, int(at[0]) - by_px) // stride * stride
        stop = -(-(int(at[-1]) + 1 + by_px) // stride) * stride
        box.append(slice(start, min(stop, mask.shape[axis])))
    return box[0], box[1]


def vouched_in(sample: Sample) -> Mask:
    """Return where the labels of a sample are vouched for, shape (Y, X)."""
    if sample.labelled is None:
        return np.ones(np.shape(sample.labels), bool)
    return _as_mask(sample.labelled)


def _as_mask(values: object) -> Mask:
    """Turn what is not 0 into True."""
    return np.asarray(values).astype(bool)
