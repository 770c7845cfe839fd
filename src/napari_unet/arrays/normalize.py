"""Grey values to the range a network was trained on, from the statistics of the whole plane.

The statistics are measured once on the whole plane and then applied tile by tile, so that a tile
is as bright as its neighbour. A plane that is larger than memory is measured window by window,
see :func:`measure_steps`::

    network input = (grey value - offset) / scale        each channel on its own

What is not a number, or infinite, takes no part in the statistics and becomes the background:
what a grey value of ``offset`` becomes, as a rule 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.arrays.percentiles import OrderStatistics
from napari_unet.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from numpy.typing import NDArray

    from napari_unet.settings import Normalization

LIMIT = 1e6  # of a network input: far outside of any training, and no layer overflows yet
EVERYTHING = (-np.inf, np.inf)


@dataclass(frozen=True, eq=False)
class Statistics:
    """What :func:`measure` found: one offset and one scale per channel, and where 0 goes."""

    offset: NDArray[np.float64]
    """Grey value that becomes 0, shape (C,)."""
    scale: NDArray[np.float64]
    """Grey values per unit of the network's input, above 0, shape (C,)."""
    inverted_zero: float = 1.0
    """What 0 becomes when grey values are inverted: 1 on a scale from 0 to 1."""
    background: float = 0.0
    """What becomes of a value that is not finite."""
    limits: tuple[float, float] = EVERYTHING
    """Grey values beyond these are cut off first."""
    clip: tuple[float, float] = (-LIMIT, LIMIT)
    """What lies beyond these in the end is cut off."""


def check_grey_values(dtype: Any) -> None:
    """Check that the values of an image are real numbers.

    Raises
    ------
    ImageError
        If they are complex, text or objects.
    """
    dtype = np.dtype(dtype)
    if dtype.kind == "c":
        raise ImageError(
            f"The image holds complex numbers ({dtype}), the network needs grey values. Take "
            "e.g. their magnitude: np.abs(image)."
        )
    if dtype.kind not in "biuf":
        raise ImageError(
            f"The image holds values of type {dtype}, the network needs grey values. Convert it "
            "to whole or real numbers, e.g. uint8, uint16 or float32."
        )


def measure(channels: NDArray[Any], normalization: Normalization) -> Statistics:
    """Measure what :func:`normalize` needs, on a whole plane.

    Parameters
    ----------
    channels : ndarray, shape (C, *spatial)
        The whole plane (or volume), in raw grey values of any real dtype.
    normalization : Normalization
        The rule of the model's card.

    Returns
    -------
    Statistics
        A constant channel has scale 1. Where the two percentiles fall together although the
        channel is not constant (a few bright pixels on black), the scale is its whole range.

    Raises
    ------
    ImageError
        If the values are not real numbers.
    """
    check_grey_values(channels.dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        pairs = [
            _offset_and_scale(_finite(values, normalization), normalization)
            for values in _measured_alike(channels, normalization)
        ]
    return _statistics(pairs, normalization, len(channels))


def measure_steps(
    channels: Any, normalization: Normalization, windows: Sequence[tuple[slice, ...]]
) -> Generator[None, None, Statistics]:
    """Measure a plane window by window, in bounded memory.

    Parameters
    ----------
    channels : array-like, shape (C, *spatial)
        The whole plane; sliced by the windows, whatever holds it.
    normalization : Normalization
        The rule of the model's card. What needs no statistics reads nothing.
    windows : sequence of tuple of slice
        They cover each pixel once.

    Returns
    -------
    Statistics
        That of :func:`measure`: of one window the very same, of several the same percentiles and
        limits; mean and deviation differ by rounding only (1e-12).

    Yields
    ------
    None
        After each window. Percentiles of 8 and 16 bits take one pass through the windows, of
        more bits two, or seldom more.
    """
    check_grey_values(channels.dtype)
    if normalization.kind in {"none", "divide", "fixed"}:
        nothing = np.zeros((len(channels), 0), channels.dtype)
        return measure(nothing, normalization)
    if len(windows) == 1:
        return measure(np.asarray(channels[(slice(None), *windows[0])]), normalization)
    sums = [_Sums() for _ in range(1 if normalization.joint else len(channels))]
    wanted = (normalization.low, normalization.high) if normalization.kind == "percentile" else ()
    orders = [OrderStatistics(wanted) for _ in sums]
    while True:
        for window in windows:
            values = np.asarray(channels[(slice(None), *window)])
            alike = _measured_alike(values, normalization)
            with np.errstate(over="ignore", invalid="ignore"):  # not across the yield
                for channel, total, order in zip(alike, sums, orders, strict=True):
                    finite = _finite(channel, normalization)
                    total.add(finite, normalization.kind)
                    order.add(finite)
            yield
        are_done = [order.is_done() for order in orders]
        if all(are_done):
            break
    pairs = [
        total.offset_and_scale(normalization.kind, order.percentiles())
        for total, order in zip(sums, orders, strict=True)
    ]
    return _statistics(pairs, normalization, len(channels))


class _Sums:
    """What adds up window by window: limits, mean and deviation of one channel."""

    def __init__(self) -> None:
        self._count, self._mean, self._squares = 0, 0.0, 0.0
        self._darkest, self._brightest = np.inf, -np.inf

    def add(self, values: NDArray[Any], kind: str) -> None:
        """Add the finite values of a window; a second pass adds nothing new."""
        if values.size == 0:
            return
        self._darkest = min(self._darkest, float(values.min()))
        self._brightest = max(self._brightest, float(values.max()))
        if kind == "mean-std":
            mean = float(values.mean(dtype=np.float64))
            squares = float(values.var(dtype=np.float64)) * values.size
            count, apart = self._count + values.size, mean - self._mean
            self._squares += squares + apart * apart * self._count * values.size / count
            self._mean += apart * values.size / count
            self._count = count

    def offset_and_scale(self, kind: str, percentiles: list[float]) -> tuple[float, float]:
        """Return what becomes 0, and what becomes one unit."""
        if self._brightest < self._darkest:
            return 0.0, 1.0
        if kind == "mean-std":
            return self._mean, float(np.sqrt(self._squares / self._count))
        brightness = self._brightest - self._darkest
        if kind == "min-max":
            return self._darkest, brightness
        low, high = percentiles
        return low, (high - low) or brightness


def normalize(
    channels: NDArray[Any], statistics: Statistics, invert: bool = False
) -> NDArray[np.float32]:
    """Scale grey values for the network.

    Parameters
    ----------
    channels : ndarray, shape (C, *spatial)
        Raw grey values: the plane that was measured, or any part of it.
    statistics : Statistics
        Of the whole plane.
    invert : bool
        Turn the result round (1 - x, or -x for mean-std and fixed), for dark objects on a
        bright background.

    Returns
    -------
    ndarray of float32, shape (C, *spatial)
        Always finite: what was not is the background, inverted or not.
    """
    out = np.empty(channels.shape, np.float32)
    working = np.result_type(channels.dtype, np.float32)  # float64 where float32 is too coarse
    parts = zip(channels, statistics.offset, statistics.scale, out, strict=True)
    with np.errstate(over="ignore", invalid="ignore"):
        for channel, offset, scale, target in parts:
            values = channel.astype(working)
            if statistics.limits != EVERYTHING:
                values[np.isinf(values)] = np.nan  # no grey value, and not the largest one either
                np.clip(values, *statistics.limits, out=values)
            scaled = (values - working.type(offset)) / working.type(scale)
            if invert:
                scaled = statistics.inverted_zero - scaled
            scaled[~np.isfinite(scaled)] = statistics.background
            np.clip(scaled, *statistics.clip, out=target, casting="same_kind")
    return out


def _measured_alike(channels: NDArray[Any], rule: Normalization) -> NDArray[Any]:
    """Return what is measured together: each channel on its own, or all as one."""
    return channels.reshape(1, -1) if rule.joint else channels


def _statistics(
    pairs: Sequence[tuple[float, float]], rule: Normalization, count: int
) -> Statistics:
    """Put channels together; a scale that cannot be used becomes 1."""
    offset, scale = np.array(pairs, np.float64).reshape(-1, 2).T
    if rule.kind == "fixed":
        offset, scale = np.array(rule.offsets), np.array(rule.scales)
        if max(len(offset), len(scale)) not in {1, count}:
            raise ImageError(
                f"The model's normalisation is fixed for {max(len(offset), len(scale))} "
                f"channels, {count} are given. Give the channels that the model's card names."
            )
    is_usable = np.isfinite(offset) & np.isfinite(scale) & (scale > 0)
    scale = np.where(is_usable, scale + rule.eps, 1.0) / rule.gain
    offset = np.nan_to_num(offset) - rule.shift * scale
    zero = 0.0 if rule.kind in {"mean-std", "fixed"} else 1.0
    return Statistics(
        np.broadcast_to(offset, count).copy(),
        np.broadcast_to(scale, count).copy(),
        inverted_zero=zero * rule.gain + 2 * rule.shift,
        background=rule.shift,
        limits=_bounds(rule.limits, *EVERYTHING),
        clip=_bounds(rule.clip, -LIMIT, LIMIT),
    )


def _bounds(
    bounds: tuple[float | None, float | None], least: float, most: float
) -> tuple[float, float]:
    """Replace a bound that is not there."""
    low, high = bounds
    return least if low is None else low, most if high is None else high


def _finite(channel: NDArray[Any], rule: Normalization) -> NDArray[Any]:
    """Return the values that count, flat, in a dtype that can be measured."""
    values = channel.reshape(-1)
    if values.dtype.kind == "b":
        values = values.astype(np.uint8)
    if values.dtype.kind == "f":
        values = values.astype(np.result_type(values.dtype, np.float32), copy=False)
        values = values[np.isfinite(values)]
    limits = _bounds(rule.limits, *EVERYTHING)
    if limits != EVERYTHING:
        values = np.clip(values.astype(np.result_type(values.dtype, np.float32)), *limits)
    return values


def _offset_and_scale(values: NDArray[Any], rule: Normalization) -> tuple[float, float]:
    """Measure one channel; a scale that is 0 or not finite is the caller's to mend."""
    if rule.kind == "divide":
        return 0.0, rule.divisor
    if rule.kind in {"none", "fixed"} or values.size == 0:
        return 0.0, 1.0
    if rule.kind == "mean-std":
        return float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    darkest, brightest = float(values.min()), float(values.max())
    if rule.kind == "min-max":
        return darkest, brightest - darkest
    low, high = (float(value) for value in np.percentile(values, (rule.low, rule.high)))
    return low, (high - low) or (brightest - darkest)
