"""Training crops, drawn at random from what a person vouched for.

Only pixels that were vouched for count; around the held-out part lies a gap that no crop enters::

    +--------------------------------------------+   plane: scaled as a whole
    |   +-------------------+-------+--------+   |
    |   |      [crop]       |       |        |   |   a crop may look beyond the checked area,
    | [crop]   learn        |  gap  |  held  |   |   but what it sees there has weight 0
    |   |           [crop]  |       |  out   |   |
    |   +-------------------+-------+--------+   |
    +--------------------------------------------+

Half of the crops are drawn where the person corrected something. For a network without padding a
crop is seen with its margin around it, mirrored at the edge of the plane, as in use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.arrays.mirroring import mirrored
from napari_unet.arrays.targets import make_targets, separation_weights
from napari_unet.errors import LabelsError
from napari_unet.models.card import FOREGROUND
from napari_unet.runs.samples import Plane, Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unet.models.card import Card

    Mask = NDArray[np.bool_]
    Map = NDArray[np.float32]

__all__ = ["Crops", "Plane", "Sample"]

CORRECTED_SHARE = 0.5  # of the crops, where there are corrections
EVERY = slice(None)


class Crops:
    """Draws training crops at random.

    Parameters
    ----------
    planes : sequence of Plane
        Where to draw from.
    held_out : sequence of ndarray of bool
        Of each plane, the pixels kept aside; no crop comes nearer to them than its own side.
    card : Card
        Of the model: its outputs tell what the targets are.
    crop_px : int
        Side of the part of a crop that counts, in pixels.
    margin_px : int
        What the network sees around it on each side (of unpadded networks), in pixels.
    correction_weight : float
        How much more a corrected pixel counts.

    Raises
    ------
    LabelsError
        If the held-out part leaves no room for a crop.
    """

    def __init__(
        self,
        planes: Sequence[Plane],
        held_out: Sequence[Mask],
        card: Card,
        crop_px: int,
        margin_px: int = 0,
        correction_weight: float = 1.0,
    ) -> None:
        self.crop_px, self.margin_px = crop_px, margin_px
        self._fields = [
            _Field(plane, kept, card, crop_px, margin_px, correction_weight)
            for plane, kept in zip(planes, held_out, strict=True)
        ]
        self._anywhere = _Places([field.usable for field in self._fields])
        self._corrected = _Places([field.usable & field.corrected for field in self._fields])
        if not len(self._anywhere):
            raise LabelsError(
                "The part kept aside for judging leaves no room for training crops. Mark a larger "
                "region, or choose a smaller held_out."
            )

    @property
    def window_px(self) -> int:
        """Side of what the network sees of a crop, in pixels."""
        return self.crop_px + 2 * self.margin_px

    def draw_windows(
        self, count: int, random: np.random.Generator
    ) -> list[tuple[int, tuple[int, int]]]:
        """Choose crops.

        Parameters
        ----------
        count : int
            How many.
        random : numpy.random.Generator
            Source of the random numbers.

        Returns
        -------
        list of (int, (int, int))
            Plane, and the first pixel (Y, X) of the part that counts.
        """
        windows = []
        for _ in range(count):
            prefer = len(self._corrected) and random.random() < CORRECTED_SHARE
            places = self._corrected if prefer else self._anywhere
            plane, y, x = places.pick(random)
            windows.append((plane, self._fields[plane].place_window(y, x, random)))
        return windows

    def draw(
        self, count: int, random: np.random.Generator, part: slice = EVERY
    ) -> tuple[Map, Map, Map]:
        """Draw crops.

        Parameters
        ----------
        count : int
            How many.
        random : numpy.random.Generator
            Source of the random numbers.
        part : slice
            Which of them to return; chance goes on as if it were all.

        Returns
        -------
        images : ndarray of float32, shape (part of count, C, window_px, window_px)
            Scaled grey values.
        targets : ndarray of float32, shape (part of count, K, window_px, window_px)
            What the network should give.
        weights : ndarray of float32, shape (part of count, 1, window_px, window_px)
            How much each pixel counts; 0 in the margin, where nothing is known, and held out.
        """
        windows = self.draw_windows(count, random)[part]
        cut = [self._fields[plane].cut(*start) for plane, start in windows]
        images, targets, weights = (np.stack(parts) for parts in zip(*cut, strict=True))
        return images, targets, weights


class _Places:
    """All pixels that are set in some masks; they can be counted, and one drawn."""

    def __init__(self, masks: Sequence[Mask]) -> None:
        self._widths = [mask.shape[1] for mask in masks]
        self._flat = [np.flatnonzero(mask) for mask in masks]
        self._ends = np.cumsum([len(flat) for flat in self._flat])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def pick(self, random: np.random.Generator) -> tuple[int, int, int]:
        """Draw a pixel: its mask, row and column."""
        number = int(random.integers(len(self)))
        mask = int(np.searchsorted(self._ends, number, side="right"))
        row, column = divmod(int(self._flat[mask][number - self._ends[mask]]), self._widths[mask])
        return mask, row, column


class _Field:
    """One plane, padded for the network's margin, with the places where a crop may lie."""

    def __init__(
        self,
        plane: Plane,
        held_out: Mask,
        card: Card,
        crop_px: int,
        margin_px: int,
        correction_weight: float,
    ) -> None:
        self._crop, self._window = crop_px, crop_px + 2 * margin_px
        size = (max(plane.truth.shape[0], crop_px), max(plane.truth.shape[1], crop_px))
        rows, columns = (
            mirrored(-margin_px, length + margin_px, known)
            for length, known in zip(size, plane.truth.shape, strict=True)
        )
        pad = np.ix_(rows, columns)
        learn = plane.vouched & ~held_out & ~plane.cut
        weights = (1 + (correction_weight - 1) * plane.changed) * learn
        if card.labels == "instance":
            weights = weights * separation_weights(plane.truth)
        names = (FOREGROUND,) if len(card.outputs) == 1 else card.outputs
        targets = make_targets(plane.truth, names)
        self._image = plane.image[:, pad[0], pad[1]]
        self._targets = targets[:, pad[0], pad[1]]
        self._weights = np.pad(_padded_to(weights.astype(np.float32), size), margin_px)
        self._free = _window_sums(np.pad(held_out[pad], crop_px), self._window + 2 * crop_px) == 0
        reached = _window_sums(np.pad(self._free, crop_px - 1), crop_px) > 0
        self.usable: Mask = _padded_to(learn, size) & reached
        self.corrected: Mask = _padded_to(plane.changed, size)

    def place_window(self, y: int, x: int, random: np.random.Generator) -> tuple[int, int]:
        """Choose the first pixel of a crop that contains a usable pixel."""
        top, left = max(0, y - self._crop + 1), max(0, x - self._crop + 1)
        free = np.argwhere(self._free[top : y + 1, left : x + 1])
        start = free[random.integers(len(free))]
        return top + int(start[0]), left + int(start[1])

    def cut(self, y: int, x: int) -> tuple[Map, Map, Map]:
        """Cut image, targets and weights of one crop, margin included."""
        rows, columns = slice(y, y + self._window), slice(x, x + self._window)
        return (
            self._image[:, rows, columns],
            self._targets[:, rows, columns],
            self._weights[np.newaxis, rows, columns],
        )


def _padded_to(array: NDArray[Any], size: tuple[int, ...]) -> NDArray[Any]:
    """Add zeros behind the last row and column until an array (Y, X) has a size."""
    missing = [(0, want - have) for want, have in zip(size, array.shape, strict=True)]
    return np.pad(array, missing) if any(m[1] for m in missing) else array


def _window_sums(mask: Mask, size: int) -> NDArray[np.int32]:
    """Count what is set in every square window, by the window's first pixel."""
    total = np.pad(mask.cumsum(0, dtype=np.int32).cumsum(1, dtype=np.int32), ((1, 0), (1, 0)))
    sums: NDArray[np.int32] = (
        total[size:, size:] - total[:-size, size:] - total[size:, :-size] + total[:-size, :-size]
    )
    return sums
