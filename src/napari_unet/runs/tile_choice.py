"""How large the tiles are: as large as pays and as memory allows, with the halo a network needs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from napari_unet.network.graph_inference import peak_numbers
from napari_unet.network.graph_net import GraphNet
from napari_unet.network.policy import BUDGET_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.network.build import Network
    from napari_unet.settings import SegmentSettings

# Smaller tiles than this many halos would spend most of the work on what is thrown away.
LEAST_HALOS = {2: 6, 3: 3}
# Larger tiles than this many halos, or pixels, would save little more of it.
MOST_HALOS, MOST_PX = 24, 1024
# Side of the part that is computed twice to see what half precision costs: in a smaller one there
# may be nothing but background.
MEASURED_PX = {2: 256, 3: 64}


Sizes = tuple[int, ...]
"""Pixels along each axis."""


def choose_halo(net: Network, settings: SegmentSettings) -> Sizes:
    """Return the halo along each axis, on the grid: as set, or all that the network needs.

    What an unpadded network gives back is right to the last pixel, unless it resizes on the way
    up: resizing knows nothing beyond the edge of a tile, either. So do networks that pad here and
    not there.
    """
    halos = []
    for grid in net.grids:
        if net.margin:
            wanted = max(grid.halo - net.margin, 0) if net.invents_edges else 0
        else:
            wanted = grid.halo if settings.halo_px is None else settings.halo_px
        halos.append(-(-wanted // grid.stride) * grid.stride)
    return tuple(halos)


def default_tile(
    net: Network,
    shape: tuple[int, ...],
    halo_px: Sizes,
    budget_bytes: int = BUDGET_BYTES["cpu"],
) -> int:
    """Choose a tile so large that hardly any work is thrown away, if memory allows.

    Parameters
    ----------
    net : UNet or GraphNet
        The network.
    shape : tuple of int
        Size of the plane or volume; a short axis leaves more for the others.
    halo_px : tuple of int
        Halo per side in pixels, along each axis.
    budget_bytes : int
        What the features of a tile may take.

    Returns
    -------
    int
        Side of the tile in pixels; large enough that most of the work is not halo.
    """
    step, shrink, lost = net.stride, 2 * net.margin, max(*halo_px, net.margin)
    tile = LEAST_HALOS[len(shape)] * lost + step
    most = min(max(shape) + shrink, max(MOST_HALOS * lost, MOST_PX)) + step
    while tile < most and (
        tile_bytes(net, [min(tile + step, size + shrink) for size in shape]) <= budget_bytes
    ):
        tile += step
    return tile


def smallest_tile(net: Network, halo_px: Sizes) -> int:
    """Return the smallest tile of which anything is left to keep."""
    return _tile_for(net, halo_px, (0,) * len(halo_px))


def worthwhile_tile(net: Network, halo_px: Sizes) -> int:
    """Return the smallest tile of which as much is kept as is lost on one side."""
    return _tile_for(net, halo_px, [max(halo, net.margin) for halo in halo_px])


def measured_tile(net: Network, halo_px: Sizes, largest: int) -> int:
    """Return the tile on which half precision is compared to all digits, none larger than that."""
    return min(max(smallest_tile(net, halo_px), MEASURED_PX[len(halo_px)]), largest)


def grid_of(net: Network) -> tuple[Sizes, int, Sizes]:
    """Return stride, margin and the smallest output of a network, along each axis."""
    strides = tuple(grid.stride for grid in net.grids)
    return strides, net.margin, tuple(grid.smallest - 2 * net.margin for grid in net.grids)


def _tile_for(net: Network, halo_px: Sizes, kept: Sequence[int]) -> int:
    """Return the tile that leaves so many pixels, or one step of the grid, along each axis."""
    axes = enumerate(zip(net.grids, halo_px, kept, strict=True))
    return max(
        net.valid_input(max(grid.stride, core) + 2 * (halo + net.margin), axis)
        for axis, (grid, halo, core) in axes
    )


def tile_bytes(net: Network, sizes: list[int]) -> float:
    """Estimate the bytes that the features of a tile of such sizes take."""
    return math.prod(sizes) * feature_bytes(net)


def feature_bytes(net: Network) -> float:
    """Estimate the bytes per pixel of a tile that the features of all levels take together.

    Those that a strip of rows keeps for a while are left out, see
    :class:`napari_unet.network.inference.InferenceNet`.
    """
    if isinstance(net, GraphNet):
        return 4 * peak_numbers(net)
    skips = [block.widths[-1] for block in net.blocks]
    below = [0, *(stage.block.widths[-1] for stage in net.stages[-2::-1]), 0]
    dims = net.architecture.spatial_dims
    pairs = enumerate(zip(skips, below, strict=True))
    numbers = sum((skip + result) / 2.0 ** (dims * level) for level, (skip, result) in pairs)
    at_once = 0 if net.exact else 3 * skips[0]
    return 4 * (numbers + at_once + net.architecture.in_channels + net.architecture.classes)
