"""From the description of a network to the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unet.network.graph import Graph
from napari_unet.network.graph_net import GraphNet
from napari_unet.network.unet import UNet

Network = UNet | GraphNet
"""What computes logits: a U-Net of ours, or any other network."""

if TYPE_CHECKING:
    from napari_unet.settings import Architecture


def build_network(architecture: Architecture | Graph) -> Network:
    """Build the network that a card describes, with random weights.

    Parameters
    ----------
    architecture : Architecture or Graph
        A U-Net of ours, or any other's layers.

    Returns
    -------
    UNet or GraphNet
        On torch's current device; on "meta" it takes no memory.

    Raises
    ------
    ModelError
        If the layers do not fit together, or are absurdly large.
    """
    if isinstance(architecture, Graph):
        return GraphNet(architecture)
    return UNet(architecture)
