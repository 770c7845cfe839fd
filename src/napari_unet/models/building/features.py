"""What a layer gives, followed for many sizes of the image at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

Ints = NDArray[np.int64]
BATCH, CHANNEL = 0, 1
_PROBES = 64
_SMALLEST_PROBE_PX = 512


@dataclass(frozen=True, eq=False)
class Feature:
    """What a layer gives: its name, channels, sizes for all probes, and how its axes are ordered.

    Attributes
    ----------
    node : str
        The layer, or ``image``.
    channels : int
        Number of channels.
    sizes : ndarray of int64, shape (probes, spatial axes)
        Pixels along each axis.
    order : tuple of int
        Which axis of (N, C, *spatial) stands at each place: (0, 2, 3, 1) is channels last. Where
        spatial axes are of size 1 they may be missing.
    """

    node: str
    channels: int
    sizes: Ints
    order: tuple[int, ...]

    @property
    def shape(self) -> list[Ints]:
        """Size along each axis in the feature's own order, for all probes."""
        ones = np.ones(len(self.sizes), np.int64)
        of_axis = [ones, ones * self.channels, *self.sizes.T]
        return [of_axis[axis] for axis in self.order]

    @property
    def plain(self) -> tuple[int, ...]:
        """The order (N, C, *spatial)."""
        return tuple(range(2 + self.sizes.shape[1]))

    def reordered(self, order: tuple[int, ...]) -> Feature:
        """Return the same feature with its axes in another order."""
        return Feature(self.node, self.channels, self.sizes, order)


def probe_sizes(spatial_dims: int, declared: Sequence[int | None] | None = None) -> Ints:
    """Choose the sizes of image that are followed through a network.

    Parameters
    ----------
    spatial_dims : int
        2 or 3.
    declared : sequence of int or None, optional
        Size along each axis in pixels where the file fixes it, None where it is free.

    Returns
    -------
    ndarray of int64, shape (probes, spatial axes)
        One probe if all axes are fixed.
    """
    declared = list(declared or [None] * spatial_dims)
    if all(size is not None for size in declared):
        return np.array([declared], np.int64)
    steps = np.arange(_PROBES)
    columns = [
        np.full(_PROBES, size) if size is not None else _SMALLEST_PROBE_PX * (axis + 1) + steps
        for axis, size in enumerate(declared)
    ]
    return np.stack(columns, axis=1).astype(np.int64)
