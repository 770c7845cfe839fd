"""How large the tiles are: as large as pays and as memory allows, with the halo a network needs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from napari_unet.network.graph_inference import peak_numbers
from napari_unet.network.graph_net import GraphNet
from napari_unet.network.policy import BUDGET_BYTES

if TYPE_CHECKING:
    from napari_unet.network.build import Network
    from napari_unet.settings import SegmentSettings

# Smaller tiles than this many halos would spend most of the work on what is thrown away.
LEAST_HALOS = {2: 6, 3: 3}
# Larger tiles than this many halos, or pixels, would save little more of it.
MOST_HALOS, MOST_PX = 24, 1024


def choose_halo(net: Network, settings: SegmentSettings) -> int:
    """Return the halo in pixels, on the grid: as set, or all that the network needs.

    What an unpadded network gives back is right to the last pixel, unless it resizes on the way
    up: resizing knows nothing beyond the edge of a tile, either. So do networks that pad here and
    not there.
    """
    if net.margin:
        wanted = net.halo - net.margin if net.invents_edges else 0
    else:
        wanted = net.halo if settings.halo_px is None else settings.halo_px
    return -(-wanted // net.stride) * net.stride


def default_tile(
    net: Network,
    shape: tuple[int, ...],
    halo_px: int,
    budget_bytes: int = BUDGET_BYTES["cpu"],
) -> int:
    """Choose a tile so large that hardly any work is thrown away, if memory allows.

    Parameters
    ----------
    net : UNet or GraphNet
        The network.
    shape : tuple of int
        Size of the plane or volume; a short axis leaves more for the others.
    halo_px : int
        Halo per side in pixels.
    budget_bytes : int
        What the features of a tile may take.

    Returns
    -------
    int
        Side of the tile in pixels; large enough that most of the work is not halo.
    """
    step, shrink, lost = net.stride, 2 * net.margin, max(halo_px, net.margin)
    tile = LEAST_HALOS[len(shape)] * lost + step
    most = min(max(shape) + shrink, max(MOST_HALOS * lost, MOST_PX)) + step
    while tile < most and (
        tile_bytes(net, [min(tile + step, size + shrink) for size in shape]) <= budget_bytes
    ):
        tile += step
    return tile


def smallest_tile(net: Network, halo_px: int) -> int:
    """Return the smallest tile of which anything is left to keep."""
    return net.valid_input(net.stride + 2 * (halo_px + net.margin))


def worthwhile_tile(net: Network, halo_px: int) -> int:
    """Return the smallest tile of which as much is kept as is lost on one side."""
    lost = max(halo_px, net.margin)
    return net.valid_input(max(net.stride, lost) + 2 * (halo_px + net.margin))


def grid_of(net: Network) -> tuple[int, int, int]:
    """Return stride, margin and the smallest output of a network."""
    return net.stride, net.margin, net.valid_input(1) - 2 * net.margin


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
