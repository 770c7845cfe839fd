"""A network that is a list of layers, made to compute, and to compute only what is kept.

As in :mod:`napari_unet.network.inference`, of a tile only the core is kept. Going back from the
core, node by node, tells which box of its result each of them has to give; going forward, each is
computed from the boxes that its inputs gave, with padding only where a box ends at the tile's own
edge. What lies outside is not looked at, so the result is exactly that of the whole tile. Features
that no later node reads are given up at once.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from napari_unet.network import graph as g
from napari_unet.network.folding import PairwiseMaxPool
from napari_unet.network.graph import IMAGE
from napari_unet.network.graph_folding import count_readers, folded_graph_net
from napari_unet.network.graph_layers import ActivationLayer, PoolingLayer, no_sides
from napari_unet.network.graph_rules import Window, node_window, sizes_along
from napari_unet.network.parts import (
    Box,
    Part,
    channels_last,
    end_when,
    move_channels_last,
    with_all_digits,
)
from napari_unet.network.receptive_field import Span

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from napari_unet.network.graph import AnyNode
    from napari_unet.network.graph_net import GraphNet

Plan = dict[str, tuple[Span, Window]]
"""Of each node that is needed: pixels along an axis, and how they are computed."""

SIDED = (
    g.Convolution,
    g.TransposedConvolution,
    g.Pooling,
    g.Resize,
    g.PixelShuffle,
    g.Pad,
    g.FitTo,
)
"""Nodes that pad or cut at the edges of what they are given."""
FRESH = (g.Convolution, g.TransposedConvolution, g.Norm)
"""Nodes whose result lies in memory of its own."""


class GraphInferenceNet:
    """A network's private copy on a device, made to compute.

    Parameters
    ----------
    net : GraphNet
        Left as it is, and where it is.
    device : torch.device
        Where to compute.
    dtype : torch.dtype, optional
        Precision of weights and features; that of the network if not given.
    """

    def __init__(
        self, net: GraphNet, device: torch.device, dtype: torch.dtype | None = None
    ) -> None:
        self.device, self.dtype = device, dtype or next(net.parameters()).dtype
        self._net = folded_graph_net(net)
        move_channels_last(self._net, device, self.dtype)
        self._is_exact, self._output_size = net.exact, net.output_size
        self._readers = count_readers(self._net.architecture)
        self._prepare_layers()
        self._planned = lru_cache(maxsize=64)(self._plan)

    def end_when(self, is_left: Callable[[], bool]) -> None:
        """End before the next layer once nobody waits for the answer.

        Parameters
        ----------
        is_left : callable
            Asked before each layer.
        """
        end_when(self._net, is_left)

    def __call__(self, x: Tensor, kept: Sequence[slice] | None = None) -> Tensor:
        """Compute logits.

        Parameters
        ----------
        x : Tensor of float, shape (N, C, *spatial)
            Of a size that the network can take.
        kept : sequence of slice, optional
            The part of the output that is wanted, one slice per spatial axis; all of it if not
            given.

        Returns
        -------
        Tensor of float32 or float64, shape (N, classes, *kept)
            On the device.
        """
        x = channels_last(x.to(self.device, self.dtype))
        sizes = [int(size) for size in x.shape[2:]]
        with torch.inference_mode():
            # What measures all of a tile would measure something else in a part of it.
            if kept and self._is_exact and all(map(self._output_size, sizes, range(len(sizes)))):
                plans = [
                    self._planned(axis, size, part.start, part.stop)
                    for axis, (size, part) in enumerate(zip(sizes, kept, strict=True))
                ]
                logits = self._compute_parts(x, plans)
            else:
                logits = self._compute_all(x)
                logits = logits if kept is None else logits[(slice(None), slice(None), *kept)]
        return with_all_digits(logits)

    def _compute_all(self, x: Tensor) -> Tensor:
        """Compute every node as a whole."""
        features, left = {IMAGE: x}, self._readers.copy()
        for node in self._net.architecture.nodes:
            inputs = [features[name] for name in node.inputs]
            features[node.name] = self._net.layer(node.name)(*inputs)
            del inputs
            _drop_read(features, node, left)
        return features[node.name]

    def _compute_parts(self, x: Tensor, plans: Sequence[Plan]) -> Tensor:
        """Compute of every node what is planned, axis by axis."""
        features = {IMAGE: Part(x, (0,) * len(plans))}
        left = self._readers.copy()
        for node in self._net.architecture.nodes:
            if node.name not in plans[0]:
                continue  # only its size is of interest
            spans, windows = zip(*(plan[node.name] for plan in plans), strict=True)
            inputs = [
                features[name].cut(box)
                for name, box in zip(node.inputs, _boxes(windows), strict=True)
                if box is not None
            ]
            sides = {"sides": tuple(window.sides for window in windows)}
            layer = self._net.layer(node.name)
            values = layer(*inputs, **(sides if isinstance(node, SIDED) else {}))
            features[node.name] = Part(values, tuple(span.first for span in spans))
            del inputs, values
            _drop_read(features, node, left)
        return features[node.name].values

    def _plan(self, axis: int, size: int, start: int, stop: int) -> Plan:
        """Plan what of each node is computed along an axis, going back from what is kept."""
        nodes = self._net.architecture.nodes
        sizes = sizes_along(self._net.architecture, axis, size)
        needed = {nodes[-1].name: Span(start, stop - 1)}
        plan: Plan = {}
        for node in reversed(nodes):
            if node.name not in needed:
                continue
            span = needed[node.name]
            window = node_window(node, axis, span, sizes)
            plan[node.name] = span, window
            for name, read in zip(node.inputs, window.reads, strict=True):
                if read is not None:
                    needed[name] = needed[name].joined(read) if name in needed else read
        return plan

    def _prepare_layers(self) -> None:
        """Let activations overwrite what nobody else reads, and pool by rows on a CPU."""
        before = {node.name: node for node in self._net.architecture.nodes}
        for node in before.values():
            layer = self._net.layer(node.name)
            if isinstance(layer, ActivationLayer):
                source = before.get(node.inputs[0])
                layer.is_in_place = isinstance(source, FRESH) and self._readers[node.inputs[0]] == 1
            elif isinstance(layer, PoolingLayer) and self.device.type == "cpu":
                self._net._modules[node.name] = PoolingByRows(layer)


class PoolingByRows(nn.Module):
    """A pooling that compares whole rows where it can, which is faster on a CPU.

    Parameters
    ----------
    layer : PoolingLayer
        Still pools what does not divide by two.
    """

    def __init__(self, layer: PoolingLayer) -> None:
        super().__init__()
        node, pair = layer.node, (2,) * layer.dims
        self.otherwise, self.by_rows = layer, PairwiseMaxPool()
        self._is_pairwise = node.kind == "max" and node.kernel == node.stride == pair
        self._sides = node.padding or no_sides(layer.dims)

    def forward(self, x: Tensor, sides: g.Sides | None = None) -> Tensor:
        """Pool features (N, C, *spatial)."""
        is_padded = any(any(pair) for pair in sides or self._sides)
        if self._is_pairwise and not is_padded and not any(size % 2 for size in x.shape[2:]):
            return cast("Tensor", self.by_rows(x))
        return cast("Tensor", self.otherwise(x, sides=sides))


def peak_numbers(net: GraphNet) -> float:
    """Count the numbers that are kept at the same time at most, per pixel of a tile.

    Parameters
    ----------
    net : GraphNet
        The network.

    Returns
    -------
    float
        Numbers; those of padded copies and the like are left out.
    """
    graph, left = net.architecture, count_readers(net.architecture)
    numbers = {name: count * net.rates[name] for name, count in net.channels.items()}
    live, peak = {IMAGE: numbers[IMAGE]}, 0.0
    for node in graph.nodes:
        changes_nothing = isinstance(node, g.Norm | g.Activation | g.Dropout | g.Channels)
        is_in_place = changes_nothing and left[node.inputs[0]] == 1
        live[node.name] = numbers[node.name]
        peak = max(peak, sum(live.values()) - is_in_place * numbers[node.inputs[0]])
        _drop_read(live, node, left)
    return peak


def _drop_read(features: dict[str, Any], node: AnyNode, left: Counter[str]) -> None:
    """Give up what this node was the last to read."""
    for name in node.inputs:
        left[name] -= 1
        if not left[name]:
            features.pop(name, None)


def _boxes(windows: Sequence[Window]) -> list[Box | None]:
    """Join what a node reads along each axis, input by input."""
    boxes: list[Box | None] = []
    for reads in zip(*(window.reads for window in windows), strict=True):
        box = tuple(read for read in reads if read is not None)
        boxes.append(box if len(box) == len(reads) else None)
    return boxes
