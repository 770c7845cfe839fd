"""A network built from a graph: what runs and learns like a U-Net of ours."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

from napari_unet.errors import ImageError, ModelError, TileSizeError
from napari_unet.network.graph import IMAGE
from napari_unet.network.graph_field import GraphField, measure_graph
from napari_unet.network.graph_layers import make_layer
from napari_unet.network.graph_rules import (
    DoNotFit,
    TooSmall,
    check_graph,
    rates_along,
    sizes_along,
)
from napari_unet.network.tiled_net import Grid, TiledNet

if TYPE_CHECKING:
    import torch
    from torch import nn

    from napari_unet.network.graph import Graph


MOST_NUMBERS = 2**36  # of all features of the smallest image together


class GraphNet(TiledNet):
    """A network built from a graph; its state dict has the keys ``<node>.<weight>``.

    It has what :class:`napari_unet.network.unet.UNet` tells of itself: ``stride``, ``reach``,
    ``halo``, ``margin``, ``grids``, ``receptive_field``, ``invents_edges``, ``exact`` and
    ``approximate`` are computed when they are first asked for.

    Parameters
    ----------
    graph : Graph
        Its layers.

    Attributes
    ----------
    architecture : Graph
        What it was built from.
    channels : dict of str to int
        Of each node, and of the image.

    Raises
    ------
    ModelError
        If the layers do not fit together, or are absurdly large.
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

    @cached_property
    def field(self) -> GraphField:
        """Its grid and how far it looks."""
        return measure_graph(self.architecture)

    def check_runs(self) -> None:
        """Refuse a network that images cannot be run through.

        Raises
        ------
        ModelError
            If its output does not lie on the pixels of its input, no size of the image fits, or
            the smallest that does takes more memory than any computer has.
        """
        field = self.field
        numbers = field.smallest**self._dims * sum(
            count * self.rates[name] for name, count in self.channels.items()
        )
        if numbers > MOST_NUMBERS:
            raise ModelError(
                f"The features of the smallest image of {field.smallest} px would take "
                f"{4 * numbers / 2**30:.0f} GiB. The description of the network is wrong."
            )

    @property
    def stride(self) -> int:
        """Grid of the poolings in pixels."""
        return self.field.stride

    @property
    def reach(self) -> int:
        """Margin per side, in pixels, beyond which nothing changes a core on the grid."""
        return self.field.reach

    @property
    def halo(self) -> int:
        """The reach rounded up to a multiple of the stride."""
        return self.field.halo

    @property
    def margin(self) -> int:
        """Pixels per side by which the output is smaller than the input."""
        return self.field.margin

    @property
    def receptive_field(self) -> int:
        """Pixels along one axis that one output pixel depends on, at most."""
        return self.field.receptive_field

    @property
    def invents_edges(self) -> bool:
        """Whether it puts something in place of what lies beyond the edges of a tile."""
        return self.field.invents_edges

    @property
    def approximate(self) -> tuple[str, ...]:
        """What keeps tiles from giving what the whole image gives; empty if nothing does."""
        return self.field.approximate

    @property
    def exact(self) -> bool:
        """Whether tiles can give exactly what the whole image gives."""
        return not self.approximate

    @property
    def grid(self) -> Grid:
        """Which sizes it takes along all axes."""
        return Grid(self.field.smallest, self.stride, self.margin, self.halo)

    @property
    def grids(self) -> tuple[Grid, ...]:
        """Which sizes it takes along each axis."""
        return self.field.grids

    @cached_property
    def rates(self) -> dict[str, float]:
        """How many pixels of each node stand for one of the image, all axes together."""
        axes = [rates_along(self.architecture, axis) for axis in range(self._dims)]
        return {name: float(math.prod(rates[name] for rates in axes)) for name in self.channels}

    @cached_property
    def _down(self) -> dict[str, int]:
        """Levels of the nodes on the way down, from 0: those before anything is enlarged."""
        rates, lowest, down = self.rates, {IMAGE: 1.0}, []
        for node in self.architecture.nodes:
            before = min(lowest[name] for name in node.inputs)
            # An average over everything weighs channels; it is no level.
            lowest[node.name] = min(before, rates[node.name] or before)
            if rates[node.name] in (lowest[node.name], 0.0):
                down.append(node.name)
        order = sorted({rates[name] for name in down} - {0.0}, reverse=True)
        return {name: order.index(rates[name]) for name in down if rates[name]}

    @property
    def levels(self) -> int:
        """Levels of the way down: one more than its halvings."""
        return 1 + max(self._down.values(), default=0)

    def level_layers(self, levels: int) -> list[nn.Module]:
        """Return the layers of the uppermost levels of the way down."""
        return [self.layer(name) for name, level in self._down.items() if level < levels]

    @property
    def _dims(self) -> int:
        """Spatial axes."""
        return self.architecture.spatial_dims

    def _check(self, x: torch.Tensor) -> None:
        """Refuse what the network cannot take, and say what it could."""
        shape = self.architecture
        if x.ndim != shape.spatial_dims + 2 or x.shape[1] != shape.in_channels:
            raise ImageError(
                f"The network got an array of shape {tuple(x.shape)}; it sees batches of "
                f"{shape.in_channels} channels and {shape.spatial_dims} spatial axes. "
                "Choose the channels and axes that fit."
            )
        sizes = [int(size) for size in x.shape[2:]]
        try:
            for axis, size in enumerate(sizes):
                sizes_along(shape, axis, size)
        except (TooSmall, DoNotFit) as error:
            raise TileSizeError(
                f"Tile {times(sizes)} px does not fit the layers of the network (layer {error}). "
                f"Choose a multiple of {self.stride} px more than {self.field.smallest}, e.g. "
                f"{times([self.valid_input(size, axis) for axis, size in enumerate(sizes)])}."
            ) from None


def times(sizes: list[int]) -> str:
    """Write sizes as people do."""
    return " x ".join(str(size) for size in sizes)
