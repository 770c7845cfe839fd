"""The layers of Keras: how each is written as layers of a graph.

Keras keeps kernels as (*kernel, in, out) and its channels are usually last. ``padding="same"``
pads as much as is needed, the odd pixel after; of layers with strides that depends on the size,
and is taken for sizes that are multiples of the stride, as those of tiles are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from napari_unet.models.graph_builder import BATCH, CHANNEL, Feature, GraphBuilder, unsupported

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_unet.network.graph import Sides

_SMALLEST_DEVIATION = 1e-7


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer as a file describes it.

    Attributes
    ----------
    builder : GraphBuilder
        Gets the layers.
    order : tuple of int
        How the axes of images are ordered in the network.
    version : int
        Main version of Keras.
    name, kind : str
        Name and class of the layer.
    settings : dict
        Its configuration.
    inputs : list of Feature
        What it reads.
    weights : list of ndarray
        In the order of Keras.
    """

    builder: GraphBuilder
    order: tuple[int, ...]
    version: int
    name: str
    kind: str
    settings: dict[str, Any]
    inputs: list[Feature]
    weights: list[NDArray[Any]]

    @property
    def x(self) -> Feature:
        """The only input, as it is."""
        if len(self.inputs) != 1:
            raise unsupported(f"the layer {self.kind} with {len(self.inputs)} inputs")
        return self.inputs[0]

    @property
    def image(self) -> Feature:
        """The only input, with axes (N, C, *spatial)."""
        x = self.x
        if x.order != self.order:
            raise unsupported(f"the layer {self.kind} on data whose axes were exchanged")
        return x.reordered(x.plain)

    def back(self, x: Feature) -> Feature:
        """Order axes as the network does, after the layer's own activation."""
        return activated(replace(self, inputs=[x.reordered(self.order)]))

    def each(self, key: str, default: int = 1) -> list[int]:
        """Return a setting per spatial axis."""
        value = self.settings.get(key)
        value = default if value is None else value
        numbers = list(value) if isinstance(value, list | tuple) else [value]
        numbers = [int(n) for n in numbers]
        return numbers * self.builder.dims if len(numbers) == 1 else numbers

    def weight(self, place: int) -> torch.Tensor:
        """Return a weight."""
        if place >= len(self.weights):
            raise ValueError(f"layer {self.name} lacks weights")
        return torch.from_numpy(np.array(self.weights[place], np.float32))

    def kernel(self, place: int = 0) -> torch.Tensor:
        """Return a kernel (*kernel, a, b) as (b, a, *kernel)."""
        kernel = self.weight(place)
        if kernel.ndim != 2 + self.builder.dims:
            raise unsupported(f"the layer {self.kind} on images of {self.builder.dims} axes")
        return kernel.permute(-1, -2, *range(self.builder.dims))

    def bias(self, place: int) -> torch.Tensor | None:
        """Return the bias, if the layer has one."""
        return self.weight(place) if self.settings.get("use_bias", True) else None


def _sides(layer: Layer, kernel: list[int], stride: list[int], dilation: list[int]) -> Sides:
    """Return what is padded."""
    padding = layer.settings.get("padding", "valid")
    if padding == "valid":
        return ((0, 0),) * layer.builder.dims
    if padding != "same":
        raise unsupported(f"padding of the kind {padding}")
    sides = []
    for axis, (size, step, spread) in enumerate(zip(kernel, stride, dilation, strict=True)):
        total = max((size - 1) * spread + 1 - step, 0)
        sides.append((total // 2, total - total // 2))
        if step > 1:
            rest = layer.image.sizes[:, axis] % step
            layer.builder.kill(rest != 0, "pads to sizes that do not divide by its strides")
    return tuple(sides)


def _convolution(layer: Layer) -> Feature:
    kernel = layer.kernel()
    stride, dilation = layer.each("strides"), layer.each("dilation_rate")
    sides = _sides(layer, list(kernel.shape[2:]), stride, dilation)
    return layer.back(
        layer.builder.convolution(
            layer.image,
            kernel,
            layer.bias(1),
            stride=stride,
            dilation=dilation,
            padding=sides,
            groups=int(layer.settings.get("groups") or 1),
            name=layer.name,
        )
    )


def _depthwise(layer: Layer) -> Feature:
    return layer.back(_by_channel(layer, layer.bias(1), layer.name))


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
        padding=_sides(layer, list(kernel.shape[-dims:]), stride, dilation),
        groups=layer.image.channels,
        name=name,
    )


def _separable(layer: Layer) -> Feature:
    spread = _by_channel(layer, None, f"{layer.name}_depthwise")
    mixed = layer.builder.convolution(spread, layer.kernel(1), layer.bias(2), name=layer.name)
    return layer.back(mixed)


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
    return layer.back(
        layer.builder.transposed_convolution(
            layer.image,
            kernel,
            layer.bias(1),
            stride=layer.each("strides"),
            crop=tuple(sides),
            name=layer.name,
        )
    )


def _pooling(kind: Literal["max", "average"]) -> Callable[[Layer], Feature]:
    def pool(layer: Layer) -> Feature:
        window = layer.each("pool_size", 2)
        stride = layer.each("strides", 0) if layer.settings.get("strides") else window
        sides = _sides(layer, window, stride, [1] * layer.builder.dims)
        pooled = layer.builder.pooling(
            layer.image,
            kind,
            window,
            stride=stride,
            padding=sides,
            counts_padding=False,
            name=layer.name,
        )
        return pooled.reordered(layer.order)

    return pool


def _global_average(layer: Layer) -> Feature:
    mean = layer.builder.global_average(layer.image, layer.name)
    kept = bool(layer.settings.get("keepdims"))
    return mean.reordered(layer.order if kept else (BATCH, CHANNEL))


def _upsampling(layer: Layer) -> Feature:
    mode = layer.settings.get("interpolation", "nearest")
    factors = layer.each("size", 2)
    if mode not in {"nearest", "bilinear"}:
        raise unsupported(f"upsampling of the kind {mode}")
    resized = layer.builder.resize(
        layer.image,
        "nearest" if mode == "nearest" else "linear",
        scale=[float(f) for f in factors],
        name=layer.name,
    )
    return resized.reordered(layer.order)


def _batch_norm(layer: Layer) -> Feature:
    axis = layer.settings.get("axis", -1)
    axes = axis if isinstance(axis, list) else [axis]
    if [layer.x.order[int(a)] for a in axes] != [CHANNEL]:
        raise unsupported("a batch norm that is not over the channels")
    scale, shift, place = _affine(layer)
    normed = layer.builder.norm(
        layer.image,
        "batch",
        scale,
        shift,
        mean=layer.weight(place),
        variance=layer.weight(place + 1),
        eps=float(layer.settings.get("epsilon", 1e-3)),
        name=layer.name,
    )
    return normed.reordered(layer.order)


def _affine(layer: Layer) -> tuple[torch.Tensor | None, torch.Tensor | None, int]:
    """Return scale and shift of a norm, and how many weights those are."""
    place = 0
    scale = shift = None
    if layer.settings.get("scale", True):
        scale, place = layer.weight(place), place + 1
    if layer.settings.get("center", True):
        shift, place = layer.weight(place), place + 1
    return scale, shift, place


def _group_norm(layer: Layer) -> Feature:
    axis = layer.settings.get("axis", -1)
    if axis is None or layer.x.order[int(axis)] != CHANNEL:
        raise unsupported("a norm that is not over the channels")
    channels = layer.x.channels
    groups = int(layer.settings.get("groups", 32))
    is_instance = "Instance" in layer.kind or groups in {-1, channels}
    scale, shift, _ = _affine(layer)
    normed = layer.builder.norm(
        layer.image,
        "instance" if is_instance else "group",
        scale,
        shift,
        eps=float(layer.settings.get("epsilon", 1e-3)),
        groups=1 if is_instance else groups,
        name=layer.name,
    )
    return normed.reordered(layer.order)


def _concatenated(layer: Layer) -> Feature:
    axis = int(layer.settings.get("axis", -1))
    if any(x.order[axis] != CHANNEL for x in layer.inputs):
        raise unsupported("joining along an axis that is not the channels")
    return layer.builder.join("concatenate", layer.inputs, layer.name)


def _joined(how: Any) -> Callable[[Layer], Feature]:
    return lambda layer: layer.builder.join(how, layer.inputs, layer.name)


def _average(layer: Layer) -> Feature:
    total = layer.builder.join("add", layer.inputs, layer.name)
    return layer.builder.linear(total, 1.0 / len(layer.inputs))


def _dropout(layer: Layer) -> Feature:
    share = float(layer.settings.get("rate", 0.0))
    whole = layer.kind.startswith("Spatial")
    return layer.builder.dropout(layer.x, share, whole_channels=whole)


def _same(layer: Layer) -> Feature:
    return layer.x


def _padded(sign: int, key: str) -> Callable[[Layer], Feature]:
    def pad(layer: Layer) -> Feature:
        given = layer.settings.get(key, 1)
        dims = layer.builder.dims
        pairs = [given] * dims if isinstance(given, int) else list(given)
        sides = [pair if isinstance(pair, list | tuple) else [pair, pair] for pair in pairs]
        if len(sides) != dims:
            raise unsupported(f"the layer {layer.kind}")
        padded = layer.builder.pad_by(
            layer.image,
            [sign * int(side[0]) for side in sides],
            [sign * int(side[1]) for side in sides],
            name=layer.name,
        )
        return padded.reordered(layer.order)

    return pad


def _rescaled(layer: Layer) -> Feature:
    scale, offset = (
        _per_channel(layer, layer.settings.get(key, default))
        for key, default in (("scale", 1.0), ("offset", 0.0))
    )
    return layer.builder.linear(layer.x, scale, offset, layer.name)


def _per_channel(layer: Layer, value: Any) -> float | torch.Tensor:
    """Return one number, or one per channel."""
    array = np.array(value, np.float32).reshape(-1)
    if array.size == 1:
        return float(array[0])
    if array.size != layer.x.channels:
        raise unsupported(f"the layer {layer.kind} with {array.size} numbers")
    return torch.from_numpy(array)


def _normalized(layer: Layer) -> Feature:
    mean, variance = layer.settings.get("mean"), layer.settings.get("variance")
    if mean is None or variance is None:
        mean, variance = layer.weight(0), layer.weight(1)
    deviation = np.maximum(np.sqrt(np.array(variance, np.float32)), _SMALLEST_DEVIATION)
    middle: NDArray[Any] = np.array(mean, np.float32)
    scaled: NDArray[Any] = 1.0 / deviation
    offset: NDArray[Any] = -middle / deviation
    if layer.settings.get("invert"):
        scaled, offset = deviation, middle
    return layer.builder.linear(
        layer.x, _per_channel(layer, scaled), _per_channel(layer, offset), layer.name
    )


def _dense(layer: Layer) -> Feature:
    if layer.x.order[-1] != CHANNEL:
        raise unsupported("a dense layer that does not mix the channels")
    weight = layer.weight(0).T.contiguous()
    mixed = layer.builder.dense(layer.x, weight, layer.bias(1), layer.name)
    return activated(replace(layer, inputs=[mixed]))


def _reshaped(layer: Layer) -> Feature:
    shape = [1, *(int(size) for size in layer.settings["target_shape"])]
    target = np.tile(np.array(shape, np.int64), (len(layer.builder.alive), 1))
    return layer.builder.reshape(layer.x, target)


def _permuted(layer: Layer) -> Feature:
    order = layer.x.order
    return layer.x.reordered((order[0], *(order[int(axis)] for axis in layer.settings["dims"])))


# --------------------------------------------------------------------------------- activations


def activated(layer: Layer) -> Feature:
    """Apply what a layer's ``activation`` says to its input.

    Parameters
    ----------
    layer : Layer
        With one input.

    Returns
    -------
    Feature
        In the order of axes of the input.
    """
    given = layer.settings.get("activation")
    options: dict[str, Any] = {}
    if isinstance(given, dict):
        inner = given.get("config")
        name = str(given.get("class_name", ""))
        if isinstance(inner, str):
            name = inner
        elif name in _OF_LAYERS and isinstance(inner, dict):
            return _OF_LAYERS[name](replace(layer, settings=inner, kind=name))
        elif isinstance(inner, dict):
            options = inner
    else:
        name = str(given or "linear")
    function = _FUNCTIONS.get(name.rpartition(">")[2])
    if function is None:
        raise unsupported(f"the activation {name}")
    return function(replace(layer, settings=options))


def _kind(kind: Any, **options: Any) -> Callable[[Layer], Feature]:
    return lambda layer: layer.builder.activation(layer.x, kind, **options)


def _softmax(layer: Layer) -> Feature:
    axis = layer.settings.get("axis", -1)
    if not isinstance(axis, int):
        raise unsupported("a softmax over several axes")
    return layer.builder.activation(layer.x, "softmax", axis=axis)


def _hard_sigmoid(layer: Layer) -> Feature:
    if layer.version >= 3:
        return layer.builder.activation(layer.x, "hardsigmoid")
    return layer.builder.clip(layer.builder.linear(layer.x, 0.2, 0.5), 0.0, 1.0)


def _gelu(layer: Layer) -> Feature:
    if layer.settings.get("approximate"):
        raise unsupported("GELU in its approximate form")
    return layer.builder.activation(layer.x, "gelu")


def _relu(layer: Layer) -> Feature:
    settings = layer.settings
    slope = float(settings.get("negative_slope") or settings.get("alpha") or 0.0)
    highest = settings.get("max_value")
    if float(settings.get("threshold") or 0.0):
        raise unsupported("a ReLU with a threshold")
    if slope:
        if highest is not None:
            raise unsupported("a ReLU with a slope and a limit")
        return layer.builder.activation(layer.x, "leaky_relu", slope=slope)
    if highest is None:
        return layer.builder.activation(layer.x, "relu")
    if float(highest) == 6.0:
        return layer.builder.activation(layer.x, "relu6")
    return layer.builder.clip(layer.x, 0.0, float(highest))


def _leaky_relu(layer: Layer) -> Feature:
    slope = layer.settings.get("negative_slope", layer.settings.get("alpha", 0.3))
    if isinstance(slope, dict):  # an array as Keras 2 wrote it
        slope = slope.get("value", 0.3)
    return layer.builder.activation(layer.x, "leaky_relu", slope=float(slope))


def _elu(layer: Layer) -> Feature:
    alpha = layer.settings.get("alpha", 1.0)
    return layer.builder.activation(layer.x, "elu", slope=float(1.0 if alpha is None else alpha))


def _prelu(layer: Layer) -> Feature:
    slope = layer.weight(0)
    place = layer.x.order.index(CHANNEL) - 1
    if any(size != 1 for axis, size in enumerate(slope.shape) if axis != place):
        raise unsupported("a PReLU whose slopes differ from pixel to pixel")
    return layer.builder.activation(layer.x, "prelu", weight=slope, name=layer.name)


_FUNCTIONS: dict[str, Callable[[Layer], Feature]] = {
    "linear": _same,
    "relu": _relu,
    "relu6": _kind("relu6"),
    "elu": _elu,
    "selu": _kind("selu"),
    "leaky_relu": _kind("leaky_relu", slope=0.2),
    "sigmoid": _kind("sigmoid"),
    "hard_sigmoid": _hard_sigmoid,
    "tanh": _kind("tanh"),
    "softmax": _softmax,
    "softplus": _kind("softplus"),
    "swish": _kind("silu"),
    "silu": _kind("silu"),
    "hard_swish": _kind("hardswish"),
    "hard_silu": _kind("hardswish"),
    "gelu": _gelu,
    "mish": _kind("mish"),
}
_OF_LAYERS: dict[str, Callable[[Layer], Feature]] = {
    "ReLU": _relu,
    "LeakyReLU": _leaky_relu,
    "ELU": _elu,
    "Softmax": _softmax,
}

LAYERS: dict[str, Callable[[Layer], Feature]] = {
    **dict.fromkeys(("Conv2D", "Conv3D"), _convolution),
    "DepthwiseConv2D": _depthwise,
    "SeparableConv2D": _separable,
    **dict.fromkeys(
        ("Conv2DTranspose", "Conv3DTranspose", "Deconvolution2D", "Deconvolution3D"), _transposed
    ),
    **dict.fromkeys(("MaxPooling2D", "MaxPooling3D", "MaxPool2D", "MaxPool3D"), _pooling("max")),
    **dict.fromkeys(
        ("AveragePooling2D", "AveragePooling3D", "AvgPool2D", "AvgPool3D"), _pooling("average")
    ),
    **dict.fromkeys(("GlobalAveragePooling2D", "GlobalAveragePooling3D"), _global_average),
    **dict.fromkeys(("UpSampling2D", "UpSampling3D"), _upsampling),
    **dict.fromkeys(
        (
            "BatchNormalization",
            "BatchNormalizationV1",
            "BatchNormalizationV2",
            "SyncBatchNormalization",
        ),
        _batch_norm,
    ),
    **dict.fromkeys(("GroupNormalization", "InstanceNormalization"), _group_norm),
    "Concatenate": _concatenated,
    "Add": _joined("add"),
    "Subtract": _joined("subtract"),
    "Multiply": _joined("multiply"),
    "Maximum": _joined("maximum"),
    "Average": _average,
    "Activation": activated,
    "PReLU": _prelu,
    **_OF_LAYERS,
    **dict.fromkeys(("Dropout", "SpatialDropout2D", "SpatialDropout3D"), _dropout),
    **dict.fromkeys(
        (
            "InputLayer",
            "GaussianNoise",
            "GaussianDropout",
            "AlphaDropout",
            "ActivityRegularization",
            "RandomFlip",
            "RandomRotation",
            "RandomZoom",
            "RandomContrast",
            "RandomBrightness",
            "RandomTranslation",
            "Identity",
        ),
        _same,
    ),
    **dict.fromkeys(("ZeroPadding2D", "ZeroPadding3D"), _padded(1, "padding")),
    **dict.fromkeys(("Cropping2D", "Cropping3D"), _padded(-1, "cropping")),
    "Rescaling": _rescaled,
    "Normalization": _normalized,
    "Dense": _dense,
    "Reshape": _reshaped,
    "Permute": _permuted,
}
"""What is done for each class of layers."""
