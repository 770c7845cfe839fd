"""The activations of ONNX, those that exporters write in several operations too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_unet.models.building.features import Feature
from napari_unet.models.building.refusals import unsupported
from napari_unet.models.onnx.values import Above, Step, Translate, Value
from napari_unet.network.graph import Activation

if TYPE_CHECKING:
    from napari_unet.models.onnx.reader import Reader
    from napari_unet.network.graph import ActivationKind

_LINEAR_ABOVE = 15.0  # softplus differs from its input by less than 1e-6
_PLAIN_ACTIVATIONS: dict[str, Any] = {
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Softplus": "softplus",
    "HardSwish": "hardswish",
    "Mish": "mish",
}


def _activation(reader: Reader, step: Step) -> Value:
    builder, op, options = reader.builder, step.op, step.options
    if op in _PLAIN_ACTIVATIONS:
        return builder.activation(step.x, _PLAIN_ACTIVATIONS[op])
    if op == "LeakyRelu":
        return builder.activation(step.x, "leaky_relu", slope=options.get("alpha", 0.01))
    if op in ("Elu", "Celu"):
        kind: ActivationKind = "elu" if op == "Elu" else "celu"
        return builder.activation(step.x, kind, slope=options.get("alpha", 1.0))
    if op == "Selu":
        alpha, gamma = options.get("alpha", 1.67326), options.get("gamma", 1.0507)
        if abs(alpha - 1.67326) > 1e-4 or abs(gamma - 1.0507) > 1e-4:
            return builder.linear(builder.activation(step.x, "elu", slope=alpha), gamma)
        return builder.activation(step.x, "selu")
    if op == "Gelu":
        if options.get("approximate", "none") != "none":
            raise unsupported("Gelu in its approximate form")
        return builder.activation(step.x, "gelu")
    if op == "HardSigmoid":
        moved = builder.linear(step.x, options.get("alpha", 0.2), options.get("beta", 0.5))
        return builder.clip(moved, 0.0, 1.0)
    if op == "PRelu":
        slope = reader.weights_of(step.given(1))
        return builder.activation(step.x, "prelu", weight=slope, name=step.name)
    if op in {"Softmax", "LogSoftmax"}:
        axis = int(options.get("axis", -1 if reader.opset >= 13 else 1))
        if reader.opset < 13 and axis != 1 and axis != len(step.x.order) - 1:
            raise unsupported("a softmax over several axes")
        if op == "LogSoftmax":
            return builder.log_softmax(step.x, axis)
        return builder.activation(step.x, "softmax", axis=axis)
    raise unsupported(op)


def _clip(reader: Reader, step: Step) -> Value:
    limits: list[float | None] = [step.options.get("min"), step.options.get("max")]
    for place in (1, 2):
        if step.given(place) is not None:
            limits[place - 1] = float(reader.array(step.given(place)).reshape(-1)[0])
    low, high = (None if v is None or abs(v) > 1e30 else float(v) for v in limits)
    if low == 0 and high == 6:
        return reader.builder.activation(step.x, "relu6")
    return reader.builder.clip(step.x, low, high)


def _erf(reader: Reader, step: Step) -> Value:
    return reader.builder.error_function(step.x)


def _greater(reader: Reader, step: Step) -> Value:
    threshold = reader.array(step.given(1))
    if threshold.size != 1:
        raise unsupported("Greater")
    return Above(step.x, float(threshold.reshape(-1)[0]))


def _where(reader: Reader, step: Step) -> Value:
    """Softplus as some exporters write it: the value itself where it is large."""
    condition, x, curve = (step.given(place) for place in range(3))
    if isinstance(condition, Above) and isinstance(curve, Feature) and x is condition.feature:
        node = reader.builder.nodes.get(curve.node)
        if isinstance(node, Activation) and node.kind == "softplus":
            if node.inputs == (x.node,) and condition.threshold >= _LINEAR_ABOVE:
                return curve
    raise unsupported("Where")


def _arg_max(reader: Reader, step: Step) -> Value:
    if step.options.get("select_last_index", 0):
        raise unsupported("ArgMax of an unusual kind")
    return reader.builder.class_numbers(step.x, int(step.options.get("axis", 0)))


ACTIVATIONS: dict[str, Translate] = {
    **dict.fromkeys(
        [
            *_PLAIN_ACTIVATIONS,
            *"LeakyRelu Elu Celu Selu Gelu HardSigmoid PRelu Softmax LogSoftmax".split(),
        ],
        _activation,
    ),
    "Clip": _clip,
    "Erf": _erf,
    "Greater": _greater,
    "Where": _where,
    "ArgMax": _arg_max,
}
