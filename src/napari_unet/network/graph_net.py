"""A network built from a graph: what runs and learns like a U-Net of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from napari_unet.errors import ImageError, TileSizeError
from napari_unet.network.graph import IMAGE
from napari_unet.network.graph_field import DoNotFit, TooSmall, check_graph, sizes_along
from napari_unet.network.graph_layers import make_layer

if TYPE_CHECKING:
    from napari_unet.network.graph import Graph


class GraphNet(nn.Module):
    """A network built from a graph; its state dict has the keys ``<node>.<weight>``.

    Parameters
    ----------
    graph : Graph
        Its layers.

    Attributes
    ----------
    architecture : Graph
        What it was built from.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.channels = check_graph(graph)
        self.architecture = graph
        for node in graph.nodes:
            # Not as attributes: a stranger's layer may be called "train" or "stride".
            self._modules[node.name] = make_layer(node, graph.spatial_dims)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Give the logits of a batch of images.

        Parameters
        ----------
        x : torch.Tensor
            Float, shape (N, channels in, *spatial).

        Returns
        -------
        torch.Tensor
            Shape (N, classes, *spatial).

        Raises
        ------
        ImageError
            If the number of axes or channels is wrong.
        TileSizeError
            If the layers do not fit together at that size.
        """
        self._check(x)
        features = {IMAGE: x}
        for node in self.architecture.nodes:
            features[node.name] = self.layer(node.name)(*(features[name] for name in node.inputs))
        return features[self.architecture.nodes[-1].name]

    def layer(self, name: str) -> nn.Module:
        """Return the layer of a node."""
        layer = self._modules[name]
        if layer is None:
            raise KeyError(name)
        return layer

    def _check(self, x: torch.Tensor) -> None:
        """Refuse what the network cannot take, and say what it could."""
        shape = self.architecture
        if x.ndim != shape.spatial_dims + 2 or x.shape[1] != shape.in_channels:
            raise ImageError(
                f"The network got an array of shape {tuple(x.shape)}; it sees batches of "
                f"{shape.in_channels} channels and {shape.spatial_dims} spatial axes. "
                "Choose the channels and axes that fit."
            )
        try:
            for axis, size in enumerate(x.shape[2:]):
                sizes_along(shape, axis, int(size))
        except (TooSmall, DoNotFit):
            raise TileSizeError(f"Tile {tuple(x.shape[2:])} px does not fit.") from None
