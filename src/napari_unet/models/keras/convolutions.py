"""Convolutions of Keras, and dense layers that mix channels."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from napari_unet.models.building.features import CHANNEL, Feature
from napari_unet.models.building.refusals import unsupported
from napari_unet.models.keras.activations import activated, with_activation
from napari_unet.models.keras.layer import Layer, Translate, sides_of

if TYPE_CHECKING:
    import torch


def _convolution(layer: Layer) -> Feature:
    kernel = layer.kernel()
    stride, dilation = layer.each("strides"), layer.each("dilation_rate")
    sides = sides_of(layer, list(kernel.shape[2:]), stride, dilation)
    return with_activation(
        layer,
        layer.builder.convolution(
            layer.image,
            kernel,
            layer.bias(1),
            stride=stride,
            dilation=dilation,
            padding=sides,
            groups=int(layer.settings.get("groups") or 1),
            name=layer.name,
        ),
    )


def _depthwise(layer: Layer) -> Feature:
    return with_activation(layer, _by_channel(layer, layer.bias(1), layer.name))


def _by_channel(layer: Layer, bias: torch.Tensor | None, name: str) -> Feature:
    """Convolve each channel on its own; kernel (*kernel, in, times)."""
    dims = layer.builder.dims
    kernel = layer.kernel().transpose(0, 1)
    kernel = kernel.reshape(-1, 1, *kernel.shape[2:])
    stride, dilation = layer.each("strides"), layer.each("dilation_rate")
    return layer.builder.convolution(
        layer.image,
        kernel,
        bias,
        stride=stride,
        dilation=dilation,
        padding=sides_of(layer, list(kernel.shape[-dims:]), stride, dilation),
        groups=layer.image.channels,
        name=name,
    )


def _separable(layer: Layer) -> Feature:
    spread = _by_channel(layer, None, f"{layer.name}_depthwise")
    mixed = layer.builder.convolution(spread, layer.kernel(1), layer.bias(2), name=layer.name)
    return with_activation(layer, mixed)


def _transposed(layer: Layer) -> Feature:
    """Spread pixels; the size is that whose convolution would have given the input."""
    if set(layer.each("dilation_rate")) != {1}:
        raise unsupported("a transposed convolution with dilation")
    kernel = layer.kernel()
    padding = layer.settings.get("padding", "valid")
    extra = layer.settings.get("output_padding")
    extras = None if extra is None else layer.each("output_padding")
    sides = []
    for axis, (size, step) in enumerate(zip(kernel.shape[2:], layer.each("strides"), strict=True)):
        if extras is not None:
            less = 2 * (size // 2) if padding == "same" else 0
            total = less - extras[axis]
            first = max(total, 0) // 2
        elif padding == "same":
            total = size - step
            first = max(total, 0) // 2
        else:
            total, first = min(size - step, 0), 0
        sides.append((first, total - first))
    return with_activation(
        layer,
        layer.builder.transposed_convolution(
            layer.image,
            kernel,
            layer.bias(1),
            stride=layer.each("strides"),
            crop=tuple(sides),
            name=layer.name,
        ),
    )


def _dense(layer: Layer) -> Feature:
    if layer.x.order[-1] != CHANNEL:
        raise unsupported("a dense layer that does not mix the channels")
    weight = layer.weight(0).T.contiguous()
    mixed = layer.builder.dense(layer.x, weight, layer.bias(1), layer.name)
    return activated(replace(layer, inputs=[mixed]))


CONVOLUTIONS: dict[str, Translate] = {
    **dict.fromkeys(("Conv2D", "Conv3D"), _convolution),
    "DepthwiseConv2D": _depthwise,
    "SeparableConv2D": _separable,
    **dict.fromkeys(
        ("Conv2DTranspose", "Conv3DTranspose", "Deconvolution2D", "Deconvolution3D"), _transposed
    ),
    "Dense": _dense,
}
