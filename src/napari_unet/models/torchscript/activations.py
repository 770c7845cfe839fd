"""The activations of torch, and what ends a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_unet.models.building.refusals import unsupported

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_unet.models.torchscript.calls import Call, Operation


def _plain_activation(kind: Any) -> Callable[[Call], Any]:
    return lambda call: call.builder.activation(call.x, kind)


def _elu(call: Call) -> Any:
    alpha, scale = call.number(1, "alpha", 1.0), call.number(2, "scale", 1.0)
    if call.number(3, "input_scale", 1.0) != 1.0:
        raise unsupported("an ELU with scaled input")
    result = call.builder.activation(call.x, "elu", slope=alpha)
    return call.builder.linear(result, scale)


def _celu(call: Call) -> Any:
    return call.builder.activation(call.x, "celu", slope=call.number(1, "alpha", 1.0))


def _gelu(call: Call) -> Any:
    if call.get(1, "approximate", "none") != "none":
        raise unsupported("GELU in its approximate form")
    return call.builder.activation(call.x, "gelu")


def _softplus(call: Call) -> Any:
    beta = call.number(1, "beta", 1.0)
    if call.number(2, "threshold", 20.0) < 15:
        raise unsupported("a softplus with an unusual threshold")
    inside = call.builder.linear(call.x, beta)
    return call.builder.linear(call.builder.activation(inside, "softplus"), 1 / beta)


def _prelu(call: Call) -> Any:
    weight = call.kernel(1)
    return call.builder.activation(call.x, "prelu", weight=weight, name=call.name(weight))


def _softmax(call: Call) -> Any:
    return call.builder.activation(call.x, "softmax", axis=call.whole(1, "dim"))


def _clamp(call: Call) -> Any:
    limits = []
    for place, name in ((1, "min"), (2, "max")):
        given = call.get(place, name)
        limits.append(None if given is None else call.number(place, name))
    if limits == [0, 6]:
        return call.builder.activation(call.x, "relu6")
    return call.builder.clip(call.x, *limits)


def _hardtanh(call: Call) -> Any:
    low, high = call.number(1, "min_val", -1.0), call.number(2, "max_val", 1.0)
    if (low, high) == (0, 6):
        return call.builder.activation(call.x, "relu6")
    return call.builder.clip(call.x, low, high)


def _log_softmax(call: Call) -> Any:
    return call.builder.log_softmax(call.x, call.whole(1, "dim"))


def _arg_max(call: Call) -> Any:
    if call.get(1) is None:
        raise unsupported("argmax over everything")
    return call.builder.class_numbers(call.x, call.whole(1))


ACTIVATIONS: dict[str, Operation] = {
    **{
        kind: _plain_activation(kind)
        for kind in "relu relu6 selu silu mish hardswish hardsigmoid sigmoid tanh".split()
    },
    "leaky_relu": lambda call: call.builder.activation(
        call.x, "leaky_relu", slope=call.number(1, "negative_slope", 0.01)
    ),
    "elu": _elu,
    "celu": _celu,
    "gelu": _gelu,
    "softplus": _softplus,
    "prelu": _prelu,
    "softmax": _softmax,
    "_softmax": _softmax,
    "log_softmax": _log_softmax,
    "_log_softmax": _log_softmax,
    "clamp": _clamp,
    "clip": _clamp,
    "clamp_min": lambda call: call.builder.clip(call.x, call.number(1), None),
    "clamp_max": lambda call: call.builder.clip(call.x, None, call.number(1)),
    "hardtanh": _hardtanh,
    "argmax": _arg_max,
}
