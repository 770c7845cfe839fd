"""Make a U-Net's layers cheaper without changing what they compute.

A network that only computes needs neither dropout nor batch norm: the norm is a scale and an
offset per channel, which the convolution before it can apply itself. Two more things cost a
processor time for nothing, and both are mended here:

A convolution to fewer channels than the processor has lanes leaves lanes idle. Pixels that stand
side by side lie side by side in memory, so a wider kernel that steps by two columns can give the
channels of two pixels at once::

    8 channels    |x0|x1|x2|x3|   a kernel of 3 columns, 8 of 16 lanes busy, a step for each pixel
    together      |x0 x1|x2 x3|   a kernel of 4 columns, 16 of 16 lanes busy, half as many steps

A pooling that looks at one window after the other is slower than one that compares whole rows.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from napari_unet.network.layers import BATCH_NORM, MAX_POOL
from napari_unet.network.receptive_field import TRANSPOSED_CONVOLUTIONS, Span, layer_reads

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_unet.network.unet import UNet

LANES = {"AVX512": 16, "AVX2": 8}
"""Single-precision numbers that a processor multiplies at once."""


def folded_copy(net: UNet, device: torch.device | None = None) -> UNet:
    """Copy a network for inference: batch norm in the convolutions, no dropout.

    Parameters
    ----------
    net : UNet
        Left as it is.
    device : torch.device, optional
        Where to copy it, and then to fold it; where it is if not given.

    Returns
    -------
    UNet
        The copy, in evaluation, without gradients; its state dict is no longer that of a model.
    """
    twin = copy.deepcopy(net).eval().requires_grad_(False)
    if device is not None:
        twin = twin.to(device)
    for parent in list(twin.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Dropout):
                setattr(parent, name, nn.Identity())
            if isinstance(layer, tuple(BATCH_NORM.values())):
                _fold(parent.convolution, layer)
                delattr(parent, name)
    return twin


def speed_up_on_cpu(net: UNet) -> None:
    """Replace, in place, the layers of a folded copy that a CPU computes too slowly.

    Parameters
    ----------
    net : UNet
        A copy that only computes, with its features in the order "channels last".
    """
    lanes = LANES.get(torch.backends.cpu.get_cpu_capability(), 0)
    for parent in list(net.modules()):
        for name, layer in list(parent.named_children()):
            if _leaves_lanes_idle(layer, lanes):
                columns = 2 if layer.out_channels > 1 else lanes // 2
                setattr(parent, name, ColumnsTogether(layer, columns))
            elif isinstance(layer, tuple(MAX_POOL.values())):
                setattr(parent, name, PairwiseMaxPool())


class ColumnsTogether(nn.Module):
    """A 3x3 convolution that gives several columns at once; the result is the same.

    Parameters
    ----------
    convolution : torch.nn.Conv2d or torch.nn.Conv3d
        Of stride 1; it still computes what does not divide by the columns.
    columns : int
        How many neighbouring pixels along X are computed together.
    """

    def __init__(self, convolution: nn.Conv2d | nn.Conv3d, columns: int) -> None:
        super().__init__()
        self.one_by_one, self.columns = convolution, columns
        narrow = convolution.weight.detach()
        width = narrow.shape[-1]
        wide = narrow.new_zeros(columns, *narrow.shape[:-1], width + columns - 1)
        for column in range(columns):
            wide[column, ..., column : column + width] = narrow
        self.weight = nn.Parameter(wide.flatten(0, 1), requires_grad=False)
        bias = convolution.bias
        self.bias = bias if bias is None else nn.Parameter(bias.detach().repeat(columns), False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Turn features (N, C, *spatial) into those that the convolution would give."""
        plain = self.one_by_one
        padding = cast("tuple[int, ...]", plain.padding)
        width = x.shape[-1] + 2 * padding[-1] - (plain.kernel_size[-1] - 1)
        if width % self.columns:
            return cast("torch.Tensor", plain(x))
        stride = (*(1 for _ in padding[1:]), self.columns)
        convolve = nn.functional.conv2d if x.ndim == 4 else nn.functional.conv3d
        together = convolve(x, self.weight, self.bias, stride, padding).movedim(1, -1)
        return together.reshape(*together.shape[:-2], width, plain.out_channels).movedim(-1, 1)

    def reads(self, span: Span) -> Span:
        """Return the span of the input that a span of the output depends on."""
        return layer_reads(self.one_by_one, span)


class PairwiseMaxPool(nn.Module):
    """The largest of each 2x2 pixels: along one axis, then along the next."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Halve the size of features (N, C, *spatial)."""
        for axis in range(2, x.ndim):
            pairs = x.view(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])
            x = torch.maximum(pairs.select(axis + 1, 0), pairs.select(axis + 1, 1))
        return x

    def reads(self, span: Span) -> Span:
        """Return the span of the input that a span of the output depends on."""
        return Span(2 * span.first, 2 * span.last + 1)


def folded_weights(
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    norm: Mapping[str, torch.Tensor | None],
    eps: float,
    is_transposed: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the weights of a convolution that applies the batch norm after it.

    Parameters
    ----------
    weight : Tensor, shape (out, in, *kernel), or (in, out, *kernel) if transposed
        Of the convolution.
    bias : Tensor or None, shape (out,)
        Of the convolution.
    norm : mapping of str to Tensor or None
        What the norm has measured (``running_mean``, ``running_var``) and learned (``weight``,
        ``bias``), shape (out,).
    eps : float
        What the norm adds to the variance.
    is_transposed : bool
        How the weights are laid out.

    Returns
    -------
    tuple of Tensor
        Weight and bias, computed in double precision, of the precision given.
    """
    mean, variance, gain, offset = (
        None if tensor is None else tensor.double()
        for tensor in map(norm.get, ("running_mean", "running_var", "weight", "bias"))
    )
    fused_weight, fused_bias = fuse_conv_bn_weights(
        weight.double(),
        None if bias is None else bias.double(),
        cast("torch.Tensor", mean),
        cast("torch.Tensor", variance),
        eps,
        gain,
        offset,
        is_transposed,
    )
    return fused_weight.to(weight.dtype), fused_bias.to(weight.dtype)


def _fold(convolution: Any, norm: Any) -> None:
    """Let a convolution apply the norm that follows it."""
    is_transposed = isinstance(convolution, TRANSPOSED_CONVOLUTIONS)
    tensors = dict((*norm.named_parameters(), *norm.named_buffers()))
    weight, bias = folded_weights(
        convolution.weight, convolution.bias, tensors, norm.eps, is_transposed
    )
    convolution.weight, convolution.bias = nn.Parameter(weight, False), nn.Parameter(bias, False)


def _leaves_lanes_idle(layer: nn.Module, lanes: int) -> TypeGuard[nn.Conv2d | nn.Conv3d]:
    """Say whether a convolution gives so few channels that two pixels' fit into the lanes."""
    return (
        isinstance(layer, nn.Conv2d | nn.Conv3d)
        and layer.groups == 1
        and layer.kernel_size[-1] == 3
        and 2 * layer.out_channels <= lanes
    )
