"""The activations of Keras: layers of their own, or a word in the settings of another."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_unet.models.building.features import CHANNEL, Feature
from napari_unet.models.building.refusals import unsupported
from napari_unet.models.keras.layer import Layer, Translate, same

if TYPE_CHECKING:
    from collections.abc import Callable


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
    function = FUNCTIONS.get(name.rpartition(">")[2])
    if function is None:
        raise unsupported(f"the activation {name}")
    return function(replace(layer, settings=options))


def with_activation(layer: Layer, x: Feature) -> Feature:
    """Apply a layer's own activation to what it computed, axes ordered as in the network."""
    return activated(replace(layer, inputs=[x.reordered(layer.order)]))


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


def _leaky_function(layer: Layer) -> Feature:
    """Apply the function: its slope is another one than the layer's where none is told."""
    slope = layer.settings.get("negative_slope", 0.2)
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


FUNCTIONS: dict[str, Callable[[Layer], Feature]] = {
    "linear": same,
    "relu": _relu,
    "relu6": _kind("relu6"),
    "elu": _elu,
    "selu": _kind("selu"),
    "leaky_relu": _leaky_function,
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

ACTIVATIONS: dict[str, Translate] = {
    "Activation": activated,
    "PReLU": _prelu,
    **_OF_LAYERS,
}
