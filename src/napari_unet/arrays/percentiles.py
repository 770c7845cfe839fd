"""Percentiles of values that come in parts: exact, in little memory.

Values are sorted into bins by their highest 16 bits, in a form in which larger values have larger
bits; then those in the bins that hold a wanted percentile by their next 16 bits, and so on. Values
of 8 and 16 bits are done after one pass; once few values are left in those bins, they are kept
and sorted instead, so that values of 64 bits need not take four passes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

DIGIT_BITS = 16
FEW = 2**20  # values that may be kept and sorted: 8 MiB of 64 bits


class OrderStatistics:
    """Find percentiles of the values that are added; all are added again until it is done.

    Parameters
    ----------
    wanted : sequence of float
        Percentiles, 0..100.
    """

    def __init__(self, wanted: Sequence[float]) -> None:
        self._wanted = tuple(wanted)
        self._dtype: np.dtype[Any] = np.dtype(np.uint8)
        self._shift = 0
        self._ranks: list[int] = []
        self._count = 0
        # By the bits that are known so far: how many values there are of each next digit.
        self._bins: dict[int, NDArray[np.int64]] = {}
        self._kept: dict[int, list[NDArray[Any]]] = {}
        self._found: dict[int, float] = {}
        self._places: dict[int, tuple[int, int]] = {}

    def add(self, values: NDArray[Any]) -> None:
        """Add finite values, flat, all of one real dtype."""
        if not self._wanted or values.size == 0:
            return
        keys = _to_keys(values)
        if not self._bins and not self._kept:
            self._begin(values, keys)
        for known, bins in self._bins.items():
            at = keys if self._is_first else keys[_above(keys, self._shift + self._digit) == known]
            digits = (at >> np.asarray(self._shift, at.dtype)) & at.dtype.type(2**self._digit - 1)
            bins += np.bincount(digits.astype(np.intp), minlength=len(bins))
        for known, kept in self._kept.items():
            kept.append(keys[_above(keys, self._shift + self._digit) == known])

    def is_done(self) -> bool:
        """Say if all is known after a pass; if not, all values are to be added once more."""
        if not self._bins and not self._kept:
            return True
        if self._is_first:
            self._choose_ranks()
        places: dict[int, tuple[int, int]] = {}
        sizes: dict[int, int] = {}
        for rank, (known, within) in self._places.items():
            if known in self._kept:
                values = np.sort(np.concatenate(self._kept[known]))
                self._found[rank] = _to_value(int(values[within]), self._dtype)
                continue
            ends = np.cumsum(self._bins[known])
            digit = int(np.searchsorted(ends, within, side="right"))
            key = (known << self._digit) | digit
            if self._shift == 0:
                self._found[rank] = _to_value(key, self._dtype)
            else:
                places[rank] = key, within - int(ends[digit] - self._bins[known][digit])
                sizes[key] = int(self._bins[known][digit])
        self._prepare(places, sizes)
        return not places

    def percentiles(self) -> list[float]:
        """Return the wanted percentiles, as :func:`numpy.percentile` interpolates; 0 of nothing."""
        if not self._ranks:
            return [0.0 for _ in self._wanted]
        return [self._interpolate(percent) for percent in self._wanted]

    @property
    def _digit(self) -> int:
        """Bits that are sorted by at a time."""
        return min(DIGIT_BITS, 8 * self._dtype.itemsize)

    @property
    def _is_first(self) -> bool:
        """Say if this is the first pass."""
        return self._shift + self._digit == 8 * self._dtype.itemsize

    def _begin(self, values: NDArray[Any], keys: NDArray[Any]) -> None:
        """Prepare for the dtype of the values."""
        self._dtype = _native(values).dtype
        self._shift = 8 * keys.dtype.itemsize - self._digit
        self._bins = {0: np.zeros(2**self._digit, np.int64)}

    def _choose_ranks(self) -> None:
        """Find which values, counted from the smallest, the percentiles lie between."""
        self._count = int(self._bins[0].sum())
        for percent in self._wanted:
            below = math.floor(self._position(percent))
            self._ranks += [below, min(below + 1, self._count - 1)]
        self._places = {rank: (0, rank) for rank in self._ranks}

    def _prepare(self, places: dict[int, tuple[int, int]], sizes: dict[int, int]) -> None:
        """Prepare for the next pass, in the bins that hold a wanted value."""
        self._places = places
        self._shift = max(self._shift - self._digit, 0)
        self._kept = {key: [] for key, size in sizes.items() if size <= FEW}
        self._bins = {
            key: np.zeros(2**self._digit, np.int64) for key in sizes if key not in self._kept
        }

    def _position(self, percent: float) -> float:
        """Return where a percentile lies among the sorted values."""
        return percent / 100 * (self._count - 1)

    def _interpolate(self, percent: float) -> float:
        """Take a value between the two nearest."""
        position = self._position(percent)
        below = math.floor(position)
        low, high = self._found[below], self._found[min(below + 1, self._count - 1)]
        share = position - below
        apart = high - low
        return low + apart * share if share < 0.5 else high - apart * (1 - share)


def _native(values: NDArray[Any]) -> NDArray[Any]:
    """Return values in a dtype of 8 to 64 bits and in this machine's order of bytes."""
    if values.dtype.kind == "f" and values.dtype.itemsize > 8:
        return values.astype(np.float64)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _to_keys(values: NDArray[Any]) -> NDArray[Any]:
    """Turn values into unsigned numbers of the same order."""
    values = np.ascontiguousarray(_native(values))
    bits = values.view(f"u{values.dtype.itemsize}")
    if values.dtype.kind == "u":
        return bits
    sign = bits.dtype.type(1 << (8 * values.dtype.itemsize - 1))
    if values.dtype.kind == "i":
        flipped: NDArray[Any] = bits ^ sign
        return flipped
    return np.where(bits & sign, ~bits, bits | sign)


def _to_value(key: int, dtype: np.dtype[Any]) -> float:
    """Turn an unsigned number back into the value it stands for."""
    bits = 8 * dtype.itemsize
    sign = 1 << (bits - 1)
    if dtype.kind == "i":
        key ^= sign
    elif dtype.kind == "f":
        key = key ^ sign if key & sign else key ^ (2**bits - 1)
    return float(np.array(key, f"u{dtype.itemsize}").view(dtype))


def _above(keys: NDArray[Any], shift: int) -> NDArray[Any]:
    """Return the bits above a position."""
    above: NDArray[Any] = keys >> np.asarray(shift, keys.dtype)
    return above
