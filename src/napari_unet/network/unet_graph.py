"""A U-Net of ours as a graph: the same network, said layer by layer.

What only knows graphs, e.g. what writes ONNX files, thereby knows every network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from napari_unet.errors import ModelError
from napari_unet.network import graph as g
from napari_unet.network.graph_net import GraphNet
from napari_unet.network.layers import CONVOLUTION, TRANSPOSED

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from napari_unet.network.blocks import Block, Gate, Stage
    from napari_unet.network.unet import UNet


def as_graph(net: UNet | GraphNet) -> tuple[g.Graph, dict[str, torch.Tensor]]:
    """Say a network layer by layer.

    Parameters
    ----------
    net : UNet or GraphNet
        Any but one with pyramid pooling, whose averages of halves and thirds are no layer of a
        graph.

    Returns
    -------
    graph : Graph
        Computes the same.
    tensors : dict of str to Tensor
        Its state dict: the network's own tensors.

    Raises
    ------
    ModelError
        If it has pyramid pooling.
    """
    if isinstance(net, GraphNet):
        return net.architecture, dict(net.state_dict())
    if net.architecture.pyramid_pooling:
        raise ModelError(
            "The network has pyramid pooling, whose averages depend on the size of the image and "
            "cannot be said layer by layer. Save it as TorchScript or a state dict."
        )
    drawing = _Drawing(net)
    return drawing.graph, drawing.tensors


class _Drawing:
    """The nodes so far; each method adds some and returns the name of the last."""

    def __init__(self, net: UNet) -> None:
        self._dims = net.architecture.spatial_dims
        self._nodes: list[g.AnyNode] = []
        self._padding: g.Sides | None = None
        self.tensors: dict[str, torch.Tensor] = {}
        name, skips = g.IMAGE, []
        for level, block in enumerate(net.blocks):
            if level:
                name = self._add(
                    g.Pooling, name, kind="max", kernel=self._all(2), stride=self._all(2)
                )
            name = self._block(block, name)
            skips.append(name)
        name = skips.pop()
        for stage, crop in zip(net.stages, reversed(net.crops), strict=True):
            name = self._stage(stage, name, skips.pop(), is_cropped=bool(crop))
        self._layer(net.output, name)
        self.graph = g.Graph(
            family="U-Net",
            spatial_dims=self._dims,
            in_channels=net.architecture.in_channels,
            classes=net.architecture.classes,
            nodes=tuple(self._nodes),
        )

    def _block(self, block: Block, name: str) -> str:
        """Draw the convolutions of a level."""
        read, name = name, self._layer(block.units, name)
        if block.shortcut is not None:
            if block.shrinkage:
                read = self._add(g.FitTo, read, name)
            shortcut = self._layer(block.shortcut, read)
            name = self._relu(self._add(g.Join, name, shortcut, how="add"))
        return self._layer(block.dropout, name)

    def _stage(self, stage: Stage, below: str, skip: str, *, is_cropped: bool) -> str:
        """Draw a step up."""
        up = self._layer(stage.upsampling, below)
        if is_cropped:
            skip = self._add(g.FitTo, skip, up)
        if stage.gate is not None:
            skip = self._gate(stage.gate, skip, up)
        joined = (skip, up) if stage.skip_first else (up, skip)
        return self._block(stage.block, self._add(g.Join, *joined, how="concatenate"))

    def _gate(self, gate: Gate, skip: str, up: str) -> str:
        """Draw an attention gate."""
        parts = self._layer(gate.from_skip, skip), self._layer(gate.from_gate, up)
        seen = self._relu(self._add(g.Join, *parts, how="add"))
        attention = self._add(g.Activation, self._layer(gate.attention, seen), kind="sigmoid")
        return self._add(g.Join, skip, attention, how="multiply")

    def _layer(self, layer: nn.Module, name: str) -> str:
        """Draw a layer, or those of a sequence."""
        if isinstance(layer, nn.Sequential):
            for part in layer:
                name = self._layer(part, name)
            return name
        if isinstance(layer, nn.Identity):
            return name
        if isinstance(layer, nn.ReLU):
            return self._relu(name)
        if isinstance(layer, nn.Dropout):
            return self._add(g.Dropout, name, share=layer.p)
        if isinstance(layer, nn.Upsample):
            mode = "nearest" if layer.mode == "nearest" else "linear"
            return self._add(g.Resize, name, mode=mode, scale=(2.0,) * self._dims)
        if isinstance(layer, nn.ZeroPad2d | nn.ZeroPad3d):
            self._padding = self._pairs(layer.padding)  # of the convolution that follows
            return name
        node, options = self._weighted(layer)
        name = self._add(node, name, **options)
        for key, tensor in layer.state_dict().items():
            self.tensors[f"{name}.{key}"] = tensor
        return name

    def _weighted(self, layer: Any) -> tuple[Any, dict[str, Any]]:
        """Return the kind and the options of a layer with weights."""
        if isinstance(layer, nn.GroupNorm):
            kind, channels = {"kind": "group", "groups": layer.num_groups}, layer.num_channels
        elif isinstance(layer, nn.InstanceNorm2d | nn.InstanceNorm3d):
            kind, channels = {"kind": "instance"}, layer.num_features
        elif isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d):
            kind, channels = {"kind": "batch"}, layer.num_features
        else:
            options = {
                "in_channels": layer.in_channels,
                "out_channels": layer.out_channels,
                "kernel": tuple(layer.kernel_size),
                "groups": layer.groups,
                "bias": layer.bias is not None,
            }
            if isinstance(layer, TRANSPOSED[self._dims]):
                return g.TransposedConvolution, {**options, "stride": tuple(layer.stride)}
            if not isinstance(layer, CONVOLUTION[self._dims]):
                raise TypeError(f"No node stands for a layer of type {type(layer).__name__}.")
            sides = tuple((side, side) for side in layer.padding)
            padding, self._padding = self._padding or sides, None
            return g.Convolution, {**options, "padding": padding}
        return g.Norm, {**kind, "channels": channels, "eps": layer.eps}

    def _relu(self, name: str) -> str:
        """Draw a ReLU."""
        return self._add(g.Activation, name, kind="relu")

    def _add(self, node: Any, *reads: str, **options: Any) -> str:
        """Add a node."""
        name = f"{node.model_fields['op'].default}_{len(self._nodes) + 1}"
        self._nodes.append(node(name=name, inputs=reads, **options))
        return name

    def _all(self, size: int) -> tuple[int, ...]:
        """Return the same size for each axis."""
        return (size,) * self._dims

    def _pairs(self, padding: Sequence[int]) -> g.Sides:
        """Bring torch's padding, the last axis first, into our order."""
        pairs = zip(padding[::2], padding[1::2], strict=True)
        return tuple((int(before), int(after)) for before, after in pairs)[::-1]
