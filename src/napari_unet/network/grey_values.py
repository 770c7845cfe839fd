"""Scale grey values where they are computed with.

An image of 8 or 16 bits is copied to a GPU as it is, in half or a quarter of the bytes, and scaled
there, to the numbers that :func:`napari_unet.arrays.normalize.normalize` gives, but for rounding.
That function scales what a GPU has no numbers for, and everything for a CPU, where nothing is
copied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_unet.arrays.normalize import EVERYTHING, Statistics, normalize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unet.network.transfers import Transfers

AS_BYTES_OF = {"uint16": np.int16, "bool": np.uint8}
"""What is copied as another type of the same size, as torch can compute little with these."""
SCALED_THERE = ("uint8", "int8", "int16", "uint16", "float16", "float32", "bool")
"""What single precision holds exactly, as :func:`~napari_unet.arrays.normalize.normalize` does."""


def upload_scaled(
    tiles: Sequence[NDArray[Any]],
    statistics: Sequence[Statistics],
    invert: bool,
    transfers: Transfers,
    *,
    is_scaled_there: bool,
) -> torch.Tensor:
    """Bring tiles to where they are computed, scaled for the network.

    Parameters
    ----------
    tiles : sequence of ndarray, shape (C, *spatial)
        Raw grey values, all of one shape and dtype.
    statistics : sequence of Statistics
        Of the plane of each tile.
    invert : bool
        Turn the result round.
    transfers : Transfers
        Copies to the device.
    is_scaled_there : bool
        Scale on the device, if it has numbers for that.

    Returns
    -------
    Tensor of float32, shape (N, C, *spatial)
        Always finite.
    """
    dtype = tiles[0].dtype
    if not is_scaled_there or not dtype.isnative or dtype.name not in SCALED_THERE:
        scaled = [
            normalize(tile, measured, invert)
            for tile, measured in zip(tiles, statistics, strict=True)
        ]
        return transfers.upload(scaled)
    as_bytes_of = AS_BYTES_OF.get(dtype.name)
    raw = transfers.upload([tile.view(as_bytes_of) if as_bytes_of else tile for tile in tiles])
    values = raw.to(torch.int32).bitwise_and_(0xFFFF).float() if dtype == np.uint16 else raw.float()
    for plane, measured in zip(values, statistics, strict=True):
        _scale(plane, measured, invert)
    return values


def _scale(values: torch.Tensor, statistics: Statistics, invert: bool) -> None:
    """Scale a tile (C, *spatial) in place, step by step as it is done for a CPU."""
    if statistics.limits != EVERYTHING:
        values.masked_fill_(values.isinf(), torch.nan).clamp_(*statistics.limits)
    for channel, offset, scale in zip(values, statistics.offset, statistics.scale, strict=True):
        channel.sub_(float(np.float32(offset))).div_(float(np.float32(scale)))
    if invert:
        values.neg_().add_(statistics.inverted_zero)
    values.masked_fill_(~values.isfinite(), statistics.background).clamp_(*statistics.clip)
