"""Which axis of an image is which, and how to walk through it plane by plane.

Axes are named by a string with one capital letter per axis, in the order of the array: T time,
Z depth, C channel, Y and X. A string ends in ``YX``, or in ``YXC`` for colour images. The network
sees planes (``YX``) or volumes (``ZYX``), with all their channels; every other axis is walked::

    axes        T Z C Y X     a network for planes
    walked      T Z           one plane after the other, read from the array when its turn comes
    read            C Y X     what the network is given
    labels      T Z   Y X     the axes of the result: those of the image without C

Colour (a last axis C) may have a fourth channel: that is transparency, and it is not read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.errors import ImageError, described

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Window = tuple[slice, ...]

AXES = "TZCYX"
MAX_CHANNELS = 4  # an axis of 2..4 before YX is taken for channels where nothing says otherwise
COLOUR_CHANNELS = (3, 4)


@dataclass(frozen=True)
class Planes:
    """An image seen as planes (or volumes) with channels; made by :func:`plan_planes`.

    Nothing is read before :meth:`read`, and then only what is asked for, so that the array may
    be a memory map, a dask or a zarr array.
    """

    axes: str
    """All axes of the image, e.g. ``"TZCYX"``."""
    shape: tuple[int, ...]
    """Length of each of them."""
    spatial: str
    """The axes the network sees at once: ``"YX"`` or ``"ZYX"``."""

    @property
    def lead(self) -> str:
        """Axes that are walked, e.g. ``"TZ"``."""
        return "".join(axis for axis in self.axes if axis not in self.spatial + "C")

    @property
    def lead_shape(self) -> tuple[int, ...]:
        """Lengths of the walked axes."""
        return self._lengths(self.lead)

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Size of a plane (Y, X) or a volume (Z, Y, X), in pixels."""
        return self._lengths(self.spatial)

    @property
    def channels(self) -> int:
        """Number of channels that are read; 1 without a channel axis."""
        if "C" not in self.axes:
            return 1
        length = self._lengths("C")[0]
        is_rgba = self.axes.endswith("C") and length == max(COLOUR_CHANNELS)
        return length - is_rgba

    @property
    def out_axes(self) -> str:
        """Axes of labels of this image."""
        return labels_axes(self.axes)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of labels of this image."""
        return self._lengths(self.out_axes)

    @property
    def count(self) -> int:
        """Number of planes."""
        return math.prod(self.lead_shape)

    def indices(self) -> Iterator[tuple[int, ...]]:
        """Walk the planes in the order of the array; one number per walked axis."""
        return iter(np.ndindex(*self.lead_shape))

    def read(
        self, array: Any, index: tuple[int, ...], window: Window | None = None
    ) -> NDArray[Any]:
        """Read one plane, or a window of it.

        Parameters
        ----------
        array : array-like
            The image: a numpy, dask or zarr array, of this shape.
        index : tuple of int
            The plane, one of :meth:`indices`.
        window : tuple of slice, optional
            Part of the plane, one slice per spatial axis.

        Returns
        -------
        ndarray, shape (C, *spatial)
            As stored: not copied from a numpy array, not converted.
        """
        at: dict[str, Any] = {"C": slice(0, self.channels), **self._at(index, window)}
        plane = np.asarray(array[tuple(at[axis] for axis in self.axes)])
        remaining = [axis for axis in self.axes if axis in self.spatial + "C"]
        return (
            np.moveaxis(plane, remaining.index("C"), 0) if "C" in remaining else plane[np.newaxis]
        )

    def out_index(self, index: tuple[int, ...], window: Window | None = None) -> tuple[Any, ...]:
        """Return where a plane, or a window of it, lies in an array of ``out_shape``."""
        at = self._at(index, window)
        return tuple(at[axis] for axis in self.out_axes)

    def _at(self, index: tuple[int, ...], window: Window | None) -> dict[str, Any]:
        """Give each axis but C its number or its slice."""
        window = window or (slice(None),) * len(self.spatial)
        lead = zip(self.lead, index, strict=True)
        return {**dict(lead), **dict(zip(self.spatial, window, strict=True))}

    def _lengths(self, axes: str) -> tuple[int, ...]:
        """Look up the lengths of some axes."""
        return tuple(self.shape[self.axes.index(axis)] for axis in axes)


def guess_axes(shape: Sequence[int], rgb: bool = False) -> str:
    """Name the axes of an array that comes without names.

    Parameters
    ----------
    shape : sequence of int
        Shape of the array.
    rgb : bool
        The last axis is known to be colour.

    Returns
    -------
    str
        ``YX``; a last axis of 3 or 4 behind a larger Y and X is colour (``YXC``); an axis of
        2 to 4 before YX is C; what remains is Z, or T and Z. So (40, 512, 512) is ``ZYX``,
        (3, 512, 512) ``CYX``, (40, 2, 512, 512) ``ZCYX``, (9, 40, 512, 512) ``TZYX``. A short
        time series or z-stack looks the same as channels: then say the axes.

    Raises
    ------
    ImageError
        If there are fewer than two axes, or more than names for them.
    """
    shape = tuple(shape)
    if rgb or _looks_like_colour(shape):
        return _name_lead(shape[:-3], shape) + "YXC"
    lead = shape[:-2]
    small = [i for i, length in enumerate(lead) if 1 < length <= MAX_CHANNELS]
    if small:
        c = small[-1]
        names = _name_lead(lead[:c] + lead[c + 1 :], shape)
        return names[:c] + "C" + names[c:] + "YX"
    if len(lead) == len("TZC"):
        return "TZCYX"
    return _name_lead(lead, shape) + "YX"


def check_axes(axes: str, shape: Sequence[int]) -> str:
    """Check that axes fit an array.

    Parameters
    ----------
    axes : str
        E.g. ``"ZYX"``; small letters are taken for capitals.
    shape : sequence of int
        Shape of the array.

    Returns
    -------
    str
        The axes in capitals.

    Raises
    ------
    ImageError
        If it is no text, a letter is unknown or doubled, Y and X are not last, the number of
        axes differs, or an axis is empty.
    """
    if not isinstance(axes, str):
        raise ImageError(
            f"The axes of an image were expected, e.g. 'ZYX', {described(axes)} was given. Give "
            "text with one letter per axis."
        )
    axes, shape = axes.upper(), tuple(shape)
    unknown = [axis for axis in axes if axis not in AXES]
    if unknown or len(set(axes)) != len(axes):
        what = f"has the unknown letter {unknown[0]}" if unknown else "names an axis twice"
        raise ImageError(
            f"Axes {axes!r} {what}. Use each of T (time), Z, C (channel), Y and X at most once, "
            "e.g. 'TZCYX'."
        )
    if not axes.endswith(("YX", "YXC")):
        raise ImageError(
            f"Axes {axes!r} do not end in YX (or YXC for colour). Transpose the image so that its "
            "rows and columns come last."
        )
    if len(axes) != len(shape):
        raise ImageError(
            f"Axes {axes!r} name {len(axes)} axes, but the image has {len(shape)}: {shape}. "
            "Name each axis once."
        )
    if any(math.isnan(length) for length in shape):
        raise ImageError(
            "The image does not know its own size, as a dask array does after a selection. Call "
            "its compute_chunk_sizes() first."
        )
    if not all(length >= 1 for length in shape):
        raise ImageError(f"The image is empty: its shape is {shape}. Choose one with pixels.")
    return axes


def labels_axes(axes: str) -> str:
    """Return the axes of labels of an image: its own without C."""
    return axes.replace("C", "")


def plan_planes(shape: Sequence[int], axes: str, spatial_dims: int = 2) -> Planes:
    """Plan how to walk through an image.

    Parameters
    ----------
    shape : sequence of int
        Shape of the image.
    axes : str
        Its axes, e.g. ``"TZCYX"``.
    spatial_dims : {2, 3}
        Whether the network sees planes (YX) or volumes (ZYX).

    Returns
    -------
    Planes
        The plan; nothing is read yet.

    Raises
    ------
    ImageError
        If the axes do not fit the image, or a volume is wanted of an image without Z.
    """
    axes = check_axes(axes, shape)
    spatial = "ZYX"[-spatial_dims:]
    if spatial_dims == 3 and "Z" not in axes:
        raise ImageError(
            f"The network looks at volumes (ZYX), but the axes of the image are {axes}, without "
            "Z. Choose a model for planes or a z-stack; if one of the axes is Z, say so: e.g. "
            "axes='ZYX'."
        )
    return Planes(axes, tuple(int(length) for length in shape), spatial)


def _looks_like_colour(shape: tuple[int, ...]) -> bool:
    """Tell whether the last axis is as short as colours are, and Y and X are not."""
    return (
        len(shape) >= 3
        and shape[-1] in COLOUR_CHANNELS
        and min(shape[-3:-1]) > max(COLOUR_CHANNELS)
    )


def name_plane(name: str, lead: str, index: Sequence[int]) -> str:
    """Say which plane of an image is meant, as the sliders of a viewer count.

    Parameters
    ----------
    name : str
        Of the image.
    lead : str
        Its axes that are walked, e.g. ``"TZ"``.
    index : sequence of int
        One number from 0 for each of them.

    Returns
    -------
    str
        Such as "cells, T 0, Z 3".
    """
    return ", ".join([name, *(f"{axis} {at}" for axis, at in zip(lead, index, strict=True))])


def _name_lead(lead: tuple[int, ...], shape: tuple[int, ...]) -> str:
    """Name the axes that are neither YX nor C."""
    if len(shape) < 2 or len(lead) > len("TZ"):
        raise ImageError(
            f"The axes of an image of shape {shape} cannot be guessed. Say which is which, e.g. "
            "axes='TZCYX'."
        )
    return "TZ"[len("TZ") - len(lead) :]
