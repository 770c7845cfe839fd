"""Functions that stand among the layers of a Keras network: ``2 * x``, ``relu(x)``, ``a + b``.

Keras 3 writes each as a class of its own, Keras 2 as a ``TFOpLambda`` with the function's name in
the settings. Neither holds code: there is a name, and what it is applied to.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from napari_unet.models.building.features import BATCH, CHANNEL, Feature
from napari_unet.models.building.refusals import unsupported
from napari_unet.models.keras.activations import FUNCTIONS
from napari_unet.models.keras.config import arguments

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_unet.models.keras.layer import Layer
    from napari_unet.network.graph import JoinKind

    Argument = Feature | float

_OF_KERAS_2 = "TFOpLambda"
_MODULES = ("keras.src.ops", "keras.ops")
_JOINS: dict[str, JoinKind] = {
    "add": "add",
    "subtract": "subtract",
    "multiply": "multiply",
    "maximum": "maximum",
}
_SAME = {
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "divide",
    "true_divide": "divide",
    "concat": "concatenate",
    "reduce_mean": "mean",
    "neg": "negative",
    "pow": "power",
}
"""Names of TensorFlow's functions, of Python's operators, and ours for both."""


def is_operation(layer: dict[str, Any], node: Any = None) -> bool:
    """Say whether an entry among the layers is a function.

    Parameters
    ----------
    layer : dict
        Its configuration.
    node : object
        What it is applied to. A number among it tells a function, too: in HDF5 files of Keras 3
        nothing else tells ``2 * x`` from a layer that multiplies what it reads.

    Returns
    -------
    bool
        False for layers.
    """
    module = str(layer.get("module") or "")
    has_numbers = any(isinstance(argument, float) for argument in arguments(node))
    return layer["class_name"] == _OF_KERAS_2 or module.startswith(_MODULES) or has_numbers


def operate(layer: Layer, given: Sequence[Argument]) -> Feature:
    """Apply a function.

    Parameters
    ----------
    layer : Layer
        Its settings.
    given : sequence of Feature or float
        What it is applied to, in order.

    Returns
    -------
    Feature
        In the order of axes of what it reads.
    """
    name = _name(layer)
    features = [each for each in given if isinstance(each, Feature)]
    if name in _ARITHMETIC and len(given) == 2:
        return _combined(layer, name, given[0], given[1])
    if name == "concatenate" and len(features) == len(given):
        axis = int(layer.settings.get("axis", -1))
        if any(x.order[axis] != CHANNEL for x in features):
            raise unsupported("joining along an axis that is not the channels")
        return layer.builder.join("concatenate", features, layer.name)
    if len(features) == 1 and name in _OF_ONE:
        return _OF_ONE[name](layer)
    if len(features) == len(given) == 1 and name in FUNCTIONS:
        return FUNCTIONS[name](layer)
    if name == "power" and len(features) == 1 and list(given[1:]) == [2]:
        return layer.builder.join("multiply", features * 2, layer.name)
    raise unsupported(f"the function {name}")


def _name(layer: Layer) -> str:
    """Return the name of a function, as TensorFlow and Keras 3 both spell it."""
    name = str(layer.settings.get("function") or layer.kind).rpartition(".")[2]
    name = re.sub("([a-z0-9])([A-Z])", r"\1_\2", name).lower()
    return _SAME.get(name, name)


def _combined(layer: Layer, name: str, one: Argument, other: Argument) -> Feature:
    """Compute with two features, or with a feature and a number."""
    builder = layer.builder
    if isinstance(one, Feature) and isinstance(other, Feature):
        if name == "minimum":
            return minimum(layer, [one, other])
        if name not in _JOINS:
            raise unsupported(f"the function {name} of two layers")
        return builder.join(_JOINS[name], [one, other], layer.name)
    if isinstance(one, Feature) and not isinstance(other, Feature):
        return _with_number(layer, name, one, other)
    if isinstance(other, Feature) and not isinstance(one, Feature):
        if name == "subtract":
            return builder.linear(other, -1.0, one, layer.name)
        if name != "divide":
            return _with_number(layer, name, other, one)
    raise unsupported(f"the function {name} of a number and a layer")


def _with_number(layer: Layer, name: str, x: Feature, number: float) -> Feature:
    """Compute with a feature and then a number."""
    builder = layer.builder
    if name in {"maximum", "minimum"}:
        return builder.clip(x, *((number, None) if name == "maximum" else (None, number)))
    if name == "divide" and not number:
        raise ValueError("it divides by 0")
    factors = {"multiply": number, "divide": 1 / number if number else 0.0}
    offsets = {"add": number, "subtract": -number}
    return builder.linear(x, factors.get(name, 1.0), offsets.get(name, 0.0), layer.name)


def minimum(layer: Layer, features: Sequence[Feature]) -> Feature:
    """Give the smallest of several features: the largest of their opposites, turned round."""
    turned = [layer.builder.linear(x, -1.0) for x in features]
    return layer.builder.linear(layer.builder.join("maximum", turned), -1.0, 0.0, layer.name)


def _mean(layer: Layer) -> Feature:
    """Average over all pixels."""
    given = layer.settings.get("axis")
    axes = [
        int(a) for a in (given if isinstance(given, list | tuple) else [given]) if a is not None
    ]
    order = layer.x.order
    if {order[axis] for axis in axes} != set(range(2, 2 + layer.builder.dims)):
        raise unsupported("a mean that is not over all pixels")
    mean = layer.builder.global_average(layer.image, layer.name)
    kept = bool(layer.settings.get("keepdims"))
    return mean.reordered(layer.order if kept else (BATCH, CHANNEL))


def _negative(layer: Layer) -> Feature:
    return layer.builder.linear(layer.x, -1.0, 0.0, layer.name)


def _square(layer: Layer) -> Feature:
    return layer.builder.join("multiply", [layer.x, layer.x], layer.name)


_ARITHMETIC = {*_JOINS, "minimum", "divide"}
_OF_ONE: dict[str, Callable[[Layer], Feature]] = {
    "mean": _mean,
    "negative": _negative,
    "square": _square,
    "identity": lambda layer: layer.x,
}
