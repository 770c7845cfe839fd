"""A graph is drawn node by node, and each node's tensors are put beside it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch

from napari_unet.network.graph import (
    IMAGE,
    Activation,
    Convolution,
    FitTo,
    GlobalAverage,
    Graph,
    Join,
    Norm,
    Pooling,
    Resize,
    TransposedConvolution,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.models.recognise.layers import Layer
    from napari_unet.network.graph import AnyNode, Sides, Sizes


class Drawing:
    """A graph that is being drawn; each method adds a node and returns its name.

    Parameters
    ----------
    spatial_dims : int
        2 for planes, 3 for volumes.

    Attributes
    ----------
    tensors : dict of str to Tensor
        The state dict of the network so far.
    """

    def __init__(self, spatial_dims: int) -> None:
        self._dims = spatial_dims
        self._nodes: list[AnyNode] = []
        self._taken = {IMAGE}
        self.tensors: dict[str, torch.Tensor] = {}

    def convolution(
        self,
        x: str,
        layer: Layer,
        *,
        stride: Sizes | None = None,
        padding: Sides | None = None,
        padding_mode: str = "zeros",
        dilation: int = 1,
    ) -> str:
        """Add a convolution."""
        narrow, wide = layer.sizes
        name = self._name(layer.name)
        node = Convolution(
            name=name,
            inputs=(x,),
            in_channels=wide,
            out_channels=narrow,
            kernel=layer.kernel,
            stride=stride,
            dilation=None if dilation == 1 else (dilation,) * self._dims,
            padding=padding,
            padding_mode=padding_mode,
            bias=layer.has_bias,
        )
        return self._add(node, layer)

    def transposed(self, x: str, layer: Layer, stride: Sizes, crop: Sides | None = None) -> str:
        """Add a transposed convolution."""
        wide, narrow = layer.sizes
        node = TransposedConvolution(
            name=self._name(layer.name),
            inputs=(x,),
            in_channels=wide,
            out_channels=narrow,
            kernel=layer.kernel,
            stride=stride,
            crop=crop,
            bias=layer.has_bias,
        )
        return self._add(node, layer)

    def norm(self, x: str, layer: Layer, kind: str, groups: int = 1, eps: float = 1e-5) -> str:
        """Add a norm that has tensors."""
        node = Norm(
            name=self._name(layer.name),
            inputs=(x,),
            kind=kind,
            channels=layer.channels,
            affine=layer.is_affine,
            groups=groups,
            eps=eps,
        )
        name = self._add(node, layer)
        if layer.has_statistics:
            self.tensors[f"{name}.num_batches_tracked"] = torch.tensor(0)
        return name

    def bare_instance_norm(self, x: str, channels: int, eps: float = 1e-5) -> str:
        """Add an instance norm without tensors."""
        return self._add(
            Norm(
                name=self._name("norm"),
                inputs=(x,),
                kind="instance",
                channels=channels,
                affine=False,
                eps=eps,
            )
        )

    def activation(
        self, x: str, kind: str, slope: float | None = None, prelu: Layer | None = None
    ) -> str:
        """Add an activation; with a prelu's slopes, that."""
        options: dict[str, Any] = {} if slope is None else {"slope": slope}
        if prelu is not None:
            kind, options = "prelu", {"channels": prelu.channels}
        name = self._name(prelu.name if prelu else kind)
        node = Activation(name=name, inputs=(x,), kind=kind, **options)
        return self._add(node, prelu)

    def pooling(self, x: str, kind: str, sizes: Sizes) -> str:
        """Add a pooling."""
        node = Pooling(
            name=self._name("pool"),
            inputs=(x,),
            kind=kind,
            kernel=sizes,
            stride=sizes,
        )
        return self._add(node)

    def global_average(self, x: str) -> str:
        """Add the mean over the whole image."""
        return self._add(GlobalAverage(name=self._name("average"), inputs=(x,)))

    def resize(self, x: str, mode: str, scale: Sizes, *, align_corners: bool = False) -> str:
        """Add an enlargement by whole factors."""
        node = Resize(
            name=self._name("resize"),
            inputs=(x,),
            mode=mode,
            scale=tuple(float(factor) for factor in scale),
            align_corners=align_corners,
        )
        return self._add(node)

    def join(self, how: str, *inputs: str) -> str:
        """Add a join of several nodes."""
        node = Join(name=self._name(how), inputs=inputs, how=how)
        return self._add(node)

    def fit(self, x: str, like: str) -> str:
        """Add a crop or padding of one node to the size of another, about the centre."""
        return self._add(FitTo(name=self._name("fit"), inputs=(x, like)))

    def finish(self, family: str, in_channels: int, classes: int) -> Graph:
        """Return the graph."""
        return Graph(
            family=family,
            spatial_dims=self._dims,
            in_channels=in_channels,
            classes=classes,
            nodes=tuple(self._nodes),
        )

    def _add(self, node: AnyNode, layer: Layer | None = None) -> str:
        """Add a node and the tensors of its layer."""
        self._nodes.append(node)
        if layer is not None:
            for role, tensor in layer.tensors.items():
                self.tensors[f"{node.name}.{role}"] = tensor
        return node.name

    def _name(self, wish: str) -> str:
        """Return a name that is free, as near to the one in the file as can be."""
        base = re.sub(r"\W", "_", wish, flags=re.ASCII) or "layer"
        if not re.match(r"[A-Za-z_]", base):
            base = f"layer_{base}"
        name, number = base, 2
        while name in self._taken:
            name, number = f"{base}_{number}", number + 1
        self._taken.add(name)
        return name


def same(kernel: Sequence[int], dilation: int = 1) -> Sides:
    """Return the padding that keeps the size; an even kernel looks one pixel further at the end."""
    reach = [dilation * (size - 1) for size in kernel]
    return tuple((pixels // 2, pixels - pixels // 2) for pixels in reach)
