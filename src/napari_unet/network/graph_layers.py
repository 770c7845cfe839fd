"""The layers of a graph: each node's arithmetic, with torch.

A layer computes all of its result or a part of it. What differs is only how many pixels are
padded or cut off at the edges of what it is given (its *sides*): in the middle of an image there
is nothing to pad, so a part is computed from as many pixels more, see
:mod:`napari_unet.network.graph_field`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_unet.network import graph as g
from napari_unet.network.graph_rules import sides_to_fit
from napari_unet.network.layers import BATCH_NORM, CONVOLUTION, INSTANCE_NORM, TRANSPOSED

if TYPE_CHECKING:
    from collections.abc import Callable

CONVOLVE: dict[int, Callable[..., Tensor]] = {2: functional.conv2d, 3: functional.conv3d}
SPREAD: dict[int, Callable[..., Tensor]] = {
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}
LARGEST: dict[int, Callable[..., Tensor]] = {2: functional.max_pool2d, 3: functional.max_pool3d}
MEAN: dict[int, Callable[..., Tensor]] = {2: functional.avg_pool2d, 3: functional.avg_pool3d}
LINEAR_MODE = {2: "bilinear", 3: "trilinear"}
POINTWISE: dict[str, Callable[[Tensor, float, bool], Tensor]] = {
    "relu": lambda x, _, inplace: functional.relu(x, inplace),
    "leaky_relu": lambda x, slope, inplace: functional.leaky_relu(x, slope, inplace),
    "elu": lambda x, slope, inplace: functional.elu(x, slope, inplace),
    "celu": lambda x, slope, inplace: functional.celu(x, slope, inplace),
    "selu": lambda x, _, inplace: functional.selu(x, inplace),
    "gelu": lambda x, _, __: functional.gelu(x),
    "silu": lambda x, _, inplace: functional.silu(x, inplace),
    "mish": lambda x, _, inplace: functional.mish(x, inplace),
    "softplus": lambda x, _, __: functional.softplus(x),
    "hardswish": lambda x, _, inplace: functional.hardswish(x, inplace),
    "hardsigmoid": lambda x, _, inplace: functional.hardsigmoid(x, inplace),
    "relu6": lambda x, _, inplace: functional.relu6(x, inplace),
    "sigmoid": lambda x, _, __: torch.sigmoid(x),
    "tanh": lambda x, _, __: torch.tanh(x),
    "softmax": lambda x, _, __: torch.softmax(x, dim=1),
}
"""What a kind of activation does to features, given its slope; perhaps in place."""


class Layer(nn.Module):
    """A node that computes.

    Parameters
    ----------
    node : Node
        Which one, with its options.
    dims : int
        Spatial axes.
    """

    def __init__(self, node: Any, dims: int) -> None:
        super().__init__()
        self.node, self.dims = node, dims

    def forward(self, *inputs: Tensor, sides: g.Sides | None = None) -> Tensor:
        """Compute features (N, C, *spatial) from those of the nodes that this one reads.

        Parameters
        ----------
        *inputs : Tensor
            In the order of the node's inputs.
        sides : tuple of tuple of int, optional
            Instead of the node's own: pixels that are padded, or cut off the result of a layer
            that enlarges, before and after along each axis.

        Returns
        -------
        Tensor
            Shape (N, channels, *spatial).
        """
        raise NotImplementedError  # each kind of layer says how


class ConvolutionLayer(Layer):
    """A convolution."""

    def __init__(self, node: g.Convolution, dims: int) -> None:
        super().__init__(node, dims)
        like = CONVOLUTION[dims](
            node.in_channels,
            node.out_channels,
            node.kernel,  # type: ignore[arg-type]  # as many numbers as axes
            groups=node.groups,
            bias=node.bias,
        )
        self.weight, self.bias = like.weight, like.bias
        self._padding = node.padding or no_sides(dims)

    def forward(self, *inputs: Tensor, sides: g.Sides | None = None) -> Tensor:
        """Pad, then convolve; zeros on both sides alike are left to torch."""
        node, sides, x = self.node, sides or self._padding, inputs[0]
        padding = evenly(sides) if node.padding_mode == "zeros" else None
        if padding is None:
            x, padding = padded(x, sides, node.padding_mode), (0,) * self.dims
        return CONVOLVE[self.dims](
            x, self.weight, self.bias, node.stride or 1, padding, node.dilation or 1, node.groups
        )


class TransposedLayer(Layer):
    """A transposed convolution."""

    def __init__(self, node: g.TransposedConvolution, dims: int) -> None:
        super().__init__(node, dims)
        like = TRANSPOSED[dims](
            node.in_channels,
            node.out_channels,
            node.kernel,  # type: ignore[arg-type]  # as many numbers as axes
            stride=node.stride,  # type: ignore[arg-type]  # likewise
            groups=node.groups,
            bias=node.bias,
        )
        self.weight, self.bias = like.weight, like.bias
        self._crop = node.crop or no_sides(dims)

    def forward(self, *inputs: Tensor, sides: g.Sides | None = None) -> Tensor:
        """Spread every pixel, then cut; what is added shows the bias alone."""
        node, sides, x = self.node, sides or self._crop, inputs[0]
        spread, groups = SPREAD[self.dims], node.groups
        more = [before - after for before, after in sides]
        pairs = zip(sides, more, node.stride, strict=True)
        if all(before >= 0 and 0 <= extra < step for (before, _), extra, step in pairs):
            cut = [before for before, _ in sides]
            return spread(x, self.weight, self.bias, node.stride, cut, more, groups)
        x = spread(x, self.weight, None, node.stride, 0, 0, groups)
        x = padded(x, tuple((-before, -after) for before, after in sides))
        return x if self.bias is None else x + per_channel(self.bias, x)


class NormLayer(Layer):
    """Group and layer norm; batch and instance norm are torch's own."""

    def __init__(self, node: g.Norm, dims: int) -> None:
        super().__init__(node, dims)
        like = nn.GroupNorm(node.groups, node.channels, node.eps, node.affine)
        self.weight, self.bias = like.weight, like.bias

    def forward(self, *inputs: Tensor, sides: g.Sides | None = None) -> Tensor:
        """Measure groups of channels over all pixels, or the channels of each pixel."""
        node, x = self.node, inputs[0]
        if node.kind == "layer":
            last = x.movedim(1, -1)
            normed = functional.layer_norm(last, x.shape[1:2], self.weight, self.bias, node.eps)
            return normed.movedim(-1, 1)
        return functional.group_norm(x, node.groups, self.weight, self.bias, node.eps)


class ActivationLayer(Layer):
    """A function of each value."""

    def __init__(self, node: g.Activation, dims: int) -> None:
        super().__init__(node, dims)
        self.is_in_place = False
        if node.kind == "prelu":
            self.weight = nn.Parameter(torch.full((node.channels,), 0.25))

    def forward(self, *inputs: Tensor, sides: g.Sides | None = None) -> Tensor:
        """Apply it."""
        if self.node.kind == "prelu":
            return functional.prelu(inputs[0], self.weight)
        return POINTWISE[self.node.kind](inputs[0], self.node.slope, self.is_in_place)


class PoolingLayer(Layer):
    """Largest value or mean of each window."""

    def forward(self, *inputs: Tensor, sides: g.Sides | None = None) -> Tensor:
        """Pad, then pool; padding never is the largest value."""
        node, x = self.node, inputs[0]
        sides = sides or node.padding or no_sides(self.dims)
        kernel, stride = node.kernel, node.stride
        even = evenly(sides)
        # torch pads by half a window at most, and no volume smaller than a window.
        fits = even is not None and all(
            2 * pad <= size <= pixels
            for pad, size, pixels in zip(even, kernel, x.shape[2:], strict=True)
        )
        if node.kind == "max":
            if fits:
                return LARGEST[self.dims](x, kernel, stride, even)
            return LARGEST[self.dims](padded(x, sides, value=-math.inf), kernel, stride)
        pool = MEAN[self.dims]
        if fits:
            return pool(x, kernel, stride, even, count_include_pad=node.counts_padding)
        mean = pool(padded(x, sides), kernel, stride)
        if node.counts_padding:
            return mean
        return mean / pool(padded(torch.ones_like(x[:1, :1]), sides), kernel, stride)


class GlobalAverageLayer(Layer):
    """The mean over all pixels."""

    def forward(self, *inputs: Tensor, sides: g.Sides | None = None) -> Tensor:
        """Leave one pixel."""
        return inputs[0].mean(dim=tuple(range(2, 2 + self.dims)), keepdim=True)


class ResizeLayer(Layer):
    """Another size."""

    def forward(self, *inputs: Tensor, sides: g.Sides | None = None) -> Tensor:
        """Interpolate, by factors or to the size of the second input; then cut."""
        node, x, *others = self.node, *inputs
        mode = {"linear": LINEAR_MODE[self.dims], "cubic": "bicubic"}.get(node.mode, node.mode)
        corners = None if mode == "nearest" else node.align_corners
        size = others[0].shape[2:] if others else None
        scale = None if others else node.scale
        x = functional.interpolate(x, size, scale, mode, corners)
        return padded(x, tuple((-before, -after) for before, after in sides or ()))


class PixelShuffleLayer(Layer):
    """Channels become pixels."""

    def forward(self, *inputs: Tensor, sides: g.Sides | None = None) -> Tensor:
        """Give each pixel's channels to a block of pixels; then cut."""
        x, factor, dims = inputs[0], self.node.factor, self.dims
        batch, channels, *sizes = x.shape
        x = x.reshape(batch, channels // factor**dims, *(factor,) * dims, *sizes)
        # (N, C, f, f, Y, X) becomes (N, C, Y, f, X, f)
        order = [place for axis in range(dims) for place in (2 + dims + axis, 2 + axis)]
        x = x.permute(0, 1, *order).reshape(batch, -1, *(factor * size for size in sizes))
        return padded(x, tuple((-before, -after) for before, after in sides or ()))


class PadLayer(Layer):
    """More pixels at the edges, or fewer."""

    def forward(self, *inputs: Tensor, sides: g.Sides | None = None) -> Tensor:
        """Pad."""
        return padded(inputs[0], sides or self.node.sides, self.node.mode)


class FitToLayer(Layer):
    """The first input at the size of the second."""

    def forward(self, *inputs: Tensor, sides: g.Sides | None = None) -> Tensor:
        """Crop or pad by what the sizes differ."""
        x = inputs[0]
        if sides is None:
            pairs = zip(x.shape[2:], inputs[1].shape[2:], strict=True)
            sides = tuple(sides_to_fit(self.node, *pair) for pair in pairs)
        return padded(x, sides, self.node.mode)


class JoinLayer(Layer):
    """Several inputs become one."""

    def forward(self, *inputs: Tensor, sides: g.Sides | None = None) -> Tensor:
        """Put channels side by side, or compute pixel by pixel."""
        how, (x, *others) = self.node.how, inputs
        if how == "concatenate":
            if any(part.shape[2:] != x.shape[2:] for part in others):
                sizes = [max(all_) for all_ in zip(*(p.shape[2:] for p in inputs), strict=True)]
                inputs = tuple(part.expand(*part.shape[:2], *sizes) for part in inputs)
            return torch.cat(inputs, dim=1)
        for other in others:
            if how == "add":
                x = x + other
            elif how == "subtract":
                x = x - other
            elif how == "multiply":
                x = x * other
            else:
                x = torch.maximum(x, other)
        return x


class LinearLayer(Layer):
    """Scale and shift."""

    def __init__(self, node: g.Linear, dims: int) -> None:
        super().__init__(node, dims)
        if node.channels:
            self.weight = nn.Parameter(torch.ones(node.channels))
            self.bias = nn.Parameter(torch.zeros(node.channels))

    def forward(self, *inputs: Tensor, sides: g.Sides | None = None) -> Tensor:
        """Scale and shift by numbers, then each channel by its own."""
        node, x = self.node, inputs[0]
        if (node.factor, node.offset) != (1.0, 0.0):
            x = node.factor * x + node.offset
        if node.channels:
            x = x * per_channel(self.weight, x) + per_channel(self.bias, x)
        return x


class ChannelsLayer(Layer):
    """Some of the channels."""

    def forward(self, *inputs: Tensor, sides: g.Sides | None = None) -> Tensor:
        """Cut them out."""
        return inputs[0].narrow(1, self.node.first, self.node.count)


class DropoutLayer(Layer):
    """Drops features while training."""

    def forward(self, *inputs: Tensor, sides: g.Sides | None = None) -> Tensor:
        """Drop single values or whole channels."""
        node, x = self.node, inputs[0]
        if not self.training:
            return x
        if node.whole_channels:
            drop = functional.dropout2d if self.dims == 2 else functional.dropout3d
            return drop(x, node.share)
        return functional.dropout(x, node.share)


LAYERS: dict[str, type[Layer]] = {
    "convolution": ConvolutionLayer,
    "transposed_convolution": TransposedLayer,
    "norm": NormLayer,
    "activation": ActivationLayer,
    "pooling": PoolingLayer,
    "global_average": GlobalAverageLayer,
    "resize": ResizeLayer,
    "pixel_shuffle": PixelShuffleLayer,
    "pad": PadLayer,
    "fit_to": FitToLayer,
    "join": JoinLayer,
    "linear": LinearLayer,
    "channels": ChannelsLayer,
    "dropout": DropoutLayer,
}


def make_layer(node: g.AnyNode, dims: int) -> nn.Module:
    """Build the layer of a node, with random weights.

    Parameters
    ----------
    node : Node
        With options that fit together, see :func:`napari_unet.network.graph_rules.check_graph`.
    dims : int
        Spatial axes, 2 or 3.

    Returns
    -------
    torch.nn.Module
        Called with the features of the node's inputs.
    """
    if isinstance(node, g.Norm) and node.kind == "batch":
        return BATCH_NORM[dims](node.channels, eps=node.eps, affine=node.affine)
    if isinstance(node, g.Norm) and node.kind == "instance":
        return INSTANCE_NORM[dims](node.channels, eps=node.eps, affine=node.affine)
    return LAYERS[node.op](node, dims)


def padded(x: Tensor, sides: g.Sides, mode: str = "zeros", value: float = 0.0) -> Tensor:
    """Add pixels at the edges of features (N, C, *spatial); cut where negative."""
    added = [max(side, 0) for pair in reversed(sides) for side in pair]
    if any(added) and mode == "zeros":
        x = functional.pad(x, added, value=value)
    elif any(added):
        x = functional.pad(x, added, mode=mode)
    for axis, (before, after) in enumerate(sides, start=2):
        if before < 0 or after < 0:
            first = max(-before, 0)
            x = x.narrow(axis, first, x.shape[axis] - first - max(-after, 0))
    return x


def evenly(sides: g.Sides) -> tuple[int, ...] | None:
    """Return the pixels that are added on both sides of each axis, if they are the same."""
    if all(before == after >= 0 for before, after in sides):
        return tuple(before for before, _ in sides)
    return None


def no_sides(dims: int) -> g.Sides:
    """Return sides of nothing."""
    return ((0, 0),) * dims


def per_channel(weights: Tensor, x: Tensor) -> Tensor:
    """Shape weights (C,) for features (N, C, *spatial)."""
    return weights.view(1, -1, *(1,) * (x.ndim - 2))
