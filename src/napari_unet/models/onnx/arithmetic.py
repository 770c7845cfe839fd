"""Arithmetic of ONNX with layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_unet.models.building.features import CHANNEL, Feature
from napari_unet.models.building.refusals import unsupported
from napari_unet.models.onnx.values import Grouped, Step, Translate, Value

if TYPE_CHECKING:
    from napari_unet.models.onnx.reader import Reader
    from napari_unet.network.graph import JoinKind

_JOINS: dict[str, JoinKind] = {
    "Add": "add",
    "Sum": "add",
    "Sub": "subtract",
    "Mul": "multiply",
    "Max": "maximum",
}


def _arithmetic(reader: Reader, step: Step) -> Value:
    """Add, Sub, Mul, Div, Max, Sum of layers and numbers."""
    builder, op = reader.builder, step.op
    if any(isinstance(value, Grouped) for value in step.inputs):
        raise unsupported(f"{op} in a norm of groups")
    features = [value for value in step.inputs if isinstance(value, Feature)]
    if len(features) == len(step.inputs):
        if op not in _JOINS:
            raise unsupported(f"{op} of two layers")
        return builder.join(_JOINS[op], features)
    if len(step.inputs) != 2 or op in {"Max", "Sum"}:
        raise unsupported(f"{op} with fixed numbers")
    x = features[0]
    number = _number(x, reader.array(step.inputs[1 if step.inputs[0] is x else 0]))
    first = step.inputs[0] is x
    if op == "Add":
        return builder.linear(x, 1.0, number)
    if op == "Mul":
        return builder.linear(x, number)
    if op == "Sub":
        return builder.linear(x, 1.0, -number) if first else builder.linear(x, -1.0, number)
    if op == "Div" and first:
        return builder.linear(x, 1.0 / number)
    raise unsupported(f"{op} by a layer")


def _number(x: Feature, array: np.ndarray) -> float | torch.Tensor:
    """Return numbers that a layer is combined with: one, or one per channel."""
    if array.dtype.kind not in "fiu":
        raise unsupported("arithmetic with what are no numbers")
    if array.size == 1:
        return float(array.reshape(-1)[0])
    place = x.order.index(CHANNEL)
    shape = (1,) * (len(x.order) - array.ndim) + array.shape
    expected = tuple(x.channels if axis == place else 1 for axis in range(len(x.order)))
    if shape != expected:
        raise unsupported("arithmetic with numbers that differ from pixel to pixel")
    return torch.from_numpy(np.array(array, np.float32).reshape(-1))


def _pow(reader: Reader, step: Step) -> Value:
    exponent = reader.array(step.given(1))
    if exponent.size == 1 and float(exponent.reshape(-1)[0]) == 2:
        return reader.builder.join("multiply", [step.x, step.x])
    raise unsupported("Pow")


def _same(reader: Reader, step: Step) -> Value:
    return step.inputs[0]


def _cast(reader: Reader, step: Step) -> Value:
    if step.op == "Cast" and int(step.options["to"]) not in {1, 10, 11, 16}:
        raise unsupported("rounding of a layer's result to whole numbers")
    return step.inputs[0]


ARITHMETIC: dict[str, Translate] = {
    **dict.fromkeys("Add Sub Mul Div Max Sum".split(), _arithmetic),
    "Neg": lambda reader, step: reader.builder.linear(step.x, -1.0),
    "Pow": _pow,
    "Identity": _same,
    "Dropout": _same,
    "Cast": _cast,
    "CastLike": _same,
}
