"""Show a network objects of the size it knows.

A network trained on nuclei of 19 px takes one of 76 px for several. Said how large the objects of
an image are, a plane is scaled before the network so that they have the size the network was
trained on, and its answer is scaled back: the result always has the pixels of the image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from napari_unet.errors import SettingError
from napari_unet.settings import LARGEST_ZOOM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unet.models.card import Card
    from napari_unet.settings import SegmentSettings


def choose_zoom(card: Card, settings: SegmentSettings) -> float:
    """Return the factor by which planes are scaled before the network.

    Parameters
    ----------
    card : Card
        Knows the typical object size of the training images.
    settings : SegmentSettings
        Knows the object size in the image at hand, or that it need not be scaled.

    Returns
    -------
    float
        1.0 if nothing is to be scaled; below 1 the network sees a smaller image.

    Raises
    ------
    SettingError
        If the card does not know its object size, or the two sizes are too far apart.
    """
    if settings.object_size_px is None:
        return 1.0
    if card.object_size_px is None:
        raise SettingError(
            f"The card of {card.name} does not say how large its objects are, so the image cannot "
            "be scaled to it. Leave the object size out."
        )
    zoom = card.object_size_px / settings.object_size_px
    if not 1 / LARGEST_ZOOM <= zoom <= LARGEST_ZOOM:
        raise SettingError(
            f"Objects of {settings.object_size_px:g} px are too far from the "
            f"{card.object_size_px:g} px this model knows. Choose {LARGEST_ZOOM:g} times smaller "
            "or larger at most."
        )
    return zoom


def zoomed_shape(shape: Sequence[int], zoom: float) -> tuple[int, ...]:
    """Return the size (*spatial) of a plane after scaling; no axis becomes empty."""
    return tuple(max(1, round(size * zoom)) for size in shape)


def rescaled(
    part: Sequence[slice], shape: Sequence[int], other: Sequence[int]
) -> tuple[slice, ...]:
    """Return where a part of a plane lies in the same plane of another size.

    Parameters
    ----------
    part : sequence of slice
        One per spatial axis.
    shape : sequence of int
        Size (*spatial) of the plane the part is counted in.
    other : sequence of int
        The other size.

    Returns
    -------
    tuple of slice
        At least one pixel; parts that cover the plane cover the other one, too.
    """
    spans = []
    for span, size, new in zip(part, shape, other, strict=True):
        start, stop = round(span.start * new / size), round(span.stop * new / size)
        start = min(start, new - 1)
        spans.append(slice(start, max(stop, start + 1)))
    return tuple(spans)


def resize(maps: NDArray[Any], shape: Sequence[int]) -> NDArray[np.floating[Any]]:
    """Scale grey values or probabilities to another size, smoothly and without aliasing.

    Parameters
    ----------
    maps : ndarray, shape (C, Y, X) or (C, Z, Y, X)
        Any real dtype up to 64 bits.
    shape : sequence of int
        The new size (*spatial).

    Returns
    -------
    ndarray of float32 or float64, shape (C, *shape)
        Double precision where the dtype of the maps needs it.
    """
    # Grey values with a large offset keep their differences only in double precision.
    precision = np.result_type(maps.dtype, np.float32)
    values = torch.from_numpy(np.ascontiguousarray(maps, dtype=precision))[None]
    if values.ndim == 4:
        values = functional.interpolate(values, tuple(shape), mode="bilinear", antialias=True)
    else:
        is_smaller = np.prod(shape) < np.prod(maps.shape[1:])
        mode = "area" if is_smaller else "trilinear"
        values = functional.interpolate(values, tuple(shape), mode=mode)
    result: NDArray[np.floating[Any]] = values[0].numpy()
    return result


def resize_part(
    maps: NDArray[Any],
    part: Sequence[slice],
    shape: Sequence[int],
    wanted: Sequence[slice],
    other: Sequence[int],
) -> NDArray[np.floating[Any]]:
    """Scale a part of a plane to where it lies in the plane of another size.

    Parameters
    ----------
    maps : ndarray, shape (C, Y, X)
        What the part holds; beyond it, its outermost pixels go on.
    part : sequence of slice
        Where it lies in its plane, one per axis.
    shape : sequence of int
        Size (Y, X) of that plane.
    wanted : sequence of slice
        What is wanted of the plane of the other size.
    other : sequence of int
        The other size (Y, X).

    Returns
    -------
    ndarray of float32 or float64, shape (C, *wanted)
        What :func:`resize` of the whole plane gives there.
    """
    for axis, span in enumerate(part):  # smooth scaling goes axis by axis: so does this
        beside = [(0, 0)] * maps.ndim
        beside[axis + 1] = (span.start, shape[axis] - span.stop)
        size = list(maps.shape[1:])
        size[axis] = other[axis]
        scaled = resize(np.pad(maps, beside, mode="edge"), size)
        maps = scaled[(slice(None), *[slice(None)] * axis, wanted[axis])]
    return maps


def resize_mask(mask: NDArray[np.bool_], shape: Sequence[int]) -> NDArray[np.bool_]:
    """Scale a mask (*spatial) to another size, without losing a thin line.

    A pixel of a smaller mask is set if any is that falls into it; one of a larger mask if the
    nearest one is.
    """
    for axis, (new, old) in enumerate(zip(shape, mask.shape, strict=True)):
        if new < old:
            firsts = np.searchsorted(_into(old, new), np.arange(new))
            mask = np.logical_or.reduceat(mask, firsts, axis=axis)
        else:
            mask = np.take(mask, _nearest(new, old), axis=axis)
    return mask


def nearest_in(part: slice, old: int, wanted: slice, new: int) -> NDArray[np.intp]:
    """Return which pixels of a part are nearest to those wanted of the plane of another size.

    Parameters
    ----------
    part : slice
        Along one axis of a plane.
    old : int
        Size of this plane along the axis, in pixels.
    wanted : slice
        Along the axis of the plane of the other size.
    new : int
        Its size, in pixels.

    Returns
    -------
    ndarray of int, shape (length of ``wanted``,)
        Counted from the first pixel of the part; beyond it, its outermost pixel.
    """
    at = _nearest(new, old)[wanted] - part.start
    inside: NDArray[np.intp] = np.clip(at, 0, part.stop - part.start - 1)
    return inside


def sources(
    known: NDArray[np.bool_],
    part: Sequence[slice],
    shape: Sequence[int],
    wanted: Sequence[slice],
    other: Sequence[int],
) -> tuple[NDArray[np.intp], ...]:
    """Return where labels of a part of a plane are looked up for the plane of another size.

    Parameters
    ----------
    known : ndarray of bool, shape (Y, X)
        Where in the part the labels are known.
    part : sequence of slice
        Where it lies in its plane, one per axis.
    shape : sequence of int
        Size (Y, X) of that plane.
    wanted : sequence of slice
        What is wanted of the plane of the other size.
    other : sequence of int
        The other size (Y, X).

    Returns
    -------
    tuple of ndarray of int, shape (*wanted)
        Rows and columns of the part: of each wanted pixel the nearest one; or, where that is not
        known, the nearest known one that falls into the wanted pixel, if there is any.
    """
    at = np.ix_(*map(nearest_in, part, shape, wanted, other))
    nearest = tuple(index.copy() for index in np.broadcast_arrays(*at))
    is_missing = ~known[at]
    if not is_missing.any():
        return nearest
    axes = list(zip(part, shape, wanted, other, strict=True))
    into = [_into(old, new)[span] - want.start for span, old, want, new in axes]
    within = [(0 <= i) & (i < want.stop - want.start) for i, want in zip(into, wanted, strict=True)]
    into = [np.where(w, i, 0) for i, w in zip(into, within, strict=True)]
    found = np.nonzero(known & np.logical_and.outer(*within) & is_missing[np.ix_(*into)])
    falls_into = tuple(i[pixel] for i, pixel in zip(into, found, strict=True))
    distance = sum((pixel - n[falls_into]) ** 2 for pixel, n in zip(found, nearest, strict=True))
    order = np.argsort(-distance, kind="stable")  # the nearest last: that one stays
    for index, pixel in zip(nearest, found, strict=True):
        index[tuple(i[order] for i in falls_into)] = pixel[order]
    return nearest


def _into(old: int, new: int) -> NDArray[np.intp]:
    """Return into which of ``new`` pixels along an axis each of ``old`` ones falls."""
    return np.minimum(((np.arange(old) + 0.5) * new / old).astype(np.intp), new - 1)


def _nearest(new: int, old: int) -> NDArray[np.intp]:
    """Return which of ``old`` pixels along an axis is nearest to each of ``new`` ones."""
    return _into(new, old)
