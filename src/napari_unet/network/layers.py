"""The smallest parts of a U-Net: layers for planes and volumes, units, upsamplings, weights."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from torch import nn

from napari_unet.network.receptive_field import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS

if TYPE_CHECKING:
    from torch.nn.modules.conv import _ConvNd

    from napari_unet.settings import Architecture

CONVOLUTION: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, type[nn.ConvTranspose2d] | type[nn.ConvTranspose3d]] = {
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}
BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
INSTANCE_NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
ZERO_PAD: dict[int, Any] = {2: nn.ZeroPad2d, 3: nn.ZeroPad3d}
MAX_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
AVERAGE_POOL = {2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
LINEAR_MODE = {2: "bilinear", 3: "trilinear"}
GROUPS = 8


def make_unit(shape: Architecture, wide: int, narrow: int, relu: bool = True) -> nn.Sequential:
    """Build a 3x3 convolution with its norm and ReLU.

    Parameters
    ----------
    shape : Architecture
        Options of the network.
    wide, narrow : int
        Channels in and out.
    relu : bool
        Whether a ReLU ends the unit.

    Returns
    -------
    torch.nn.Sequential
        The named layers.

    Notes
    -----
    A separable convolution filters each channel on its own and then mixes them by a 1x1
    convolution [1]_. The one that sees the image stays a full one: there are hardly any channels
    to filter.

    References
    ----------
    .. [1] Chollet (2017), Xception: Deep Learning with Depthwise Separable Convolutions,
       doi:10.1109/CVPR.2017.195.
    """
    convolution = CONVOLUTION[shape.spatial_dims]
    padding = 1 if shape.padded else 0
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    kernel = 3
    if shape.separable and wide > shape.in_channels:
        layers["depthwise"] = convolution(wide, wide, 3, padding=padding, groups=wide, bias=False)
        kernel, padding = 1, 0
    layers["convolution"] = convolution(wide, narrow, kernel, padding=padding, bias=_bias(shape))
    _add_norm(layers, shape, narrow)
    if relu:
        layers["relu"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)


def make_upsampling(shape: Architecture, wide: int, narrow: int) -> nn.Sequential:
    """Build what doubles the size: a transposed convolution, or resizing and a convolution.

    Parameters
    ----------
    shape : Architecture
        Options of the network.
    wide, narrow : int
        Channels in and out.

    Returns
    -------
    torch.nn.Sequential
        The named layers.

    Notes
    -----
    Keras pads a "same" convolution of even size at the right and the bottom only; so do we.
    """
    dims, active = shape.spatial_dims, shape.relu_after_upsampling
    bias = _bias(shape) if active else True
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if shape.upsampling == "transposed":
        layers["convolution"] = TRANSPOSED[dims](wide, narrow, 2, stride=2, bias=bias)
    else:
        layers["resize"] = (
            nn.Upsample(scale_factor=2, mode="nearest")
            if shape.upsampling == "nearest"
            else nn.Upsample(scale_factor=2, mode=LINEAR_MODE[dims], align_corners=False)
        )
        layers["pad"] = ZERO_PAD[dims]((0, 1) * dims)
        layers["convolution"] = CONVOLUTION[dims](wide, narrow, 2, bias=bias)
    if active:
        _add_norm(layers, shape, narrow)
        layers["relu"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)


def draw_weights(net: nn.Module, linear: set[nn.Module]) -> None:
    """Draw the weights from a normal distribution that keeps the signal's size; zero biases.

    Parameters
    ----------
    net : torch.nn.Module
        Its convolutions are drawn anew, in place.
    linear : set of torch.nn.Module
        The convolutions that no ReLU follows; the others make up for the half it takes away.

    References
    ----------
    .. [1] He et al. (2015), Delving Deep into Rectifiers, doi:10.1109/ICCV.2015.123.
    """
    for layer in net.modules():
        if isinstance(layer, (*CONVOLUTIONS, *TRANSPOSED_CONVOLUTIONS)):
            gain = 1.0 if layer in linear else 2.0
            nn.init.normal_(layer.weight, std=math.sqrt(gain / _fan_in(layer)))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _fan_in(layer: _ConvNd) -> float:
    """Count the input features that one output pixel is a sum of."""
    seen = math.prod(layer.kernel_size) * layer.in_channels / layer.groups
    # An output pixel of a transposed convolution sees a part of the kernel only.
    return seen / math.prod(layer.stride) if layer.transposed else seen


def _bias(shape: Architecture) -> bool:
    """Say whether a convolution before the norm has a bias."""
    return shape.bias or shape.norm == "none"


def _add_norm(layers: OrderedDict[str, nn.Module], shape: Architecture, width: int) -> None:
    """Add the chosen norm, if any."""
    dims, eps = shape.spatial_dims, shape.norm_eps
    if shape.norm == "batch":
        layers["norm"] = BATCH_NORM[dims](width, eps=eps)
    elif shape.norm == "instance":
        layers["norm"] = INSTANCE_NORM[dims](width, eps=eps, affine=True)
    elif shape.norm == "group":
        groups = next(n for n in range(min(GROUPS, width), 0, -1) if width % n == 0)
        layers["norm"] = nn.GroupNorm(groups, width, eps=eps)
