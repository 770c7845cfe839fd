"""Arithmetic of TorchScript: of layers, of weights, of numbers and sizes."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from napari_unet.models.building.features import CHANNEL, Feature
from napari_unet.models.building.refusals import unsupported
from napari_unet.models.torchscript.calls import LONGEST_LIST, Call, Operation, listed, plain_number

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_unet.network.graph import JoinKind

_JOINS: dict[str, JoinKind] = {
    "add": "add",
    "sub": "subtract",
    "rsub": "subtract",
    "mul": "multiply",
}


def same(call: Call) -> Any:
    """Give what is read."""
    return call.get(0)


def _cast(call: Call) -> Any:
    """To another type or device: nothing changes but for whole numbers."""
    for value in call.arguments[1:]:
        if isinstance(value, int) and not isinstance(value, bool) and value in range(5):
            if isinstance(call.get(0), Feature):
                raise unsupported("rounding of a layer's result to whole numbers")
    return call.get(0)


def _maximum(call: Call) -> Any:
    one, other = call.get(0), call.get(1)
    if isinstance(one, Feature) and isinstance(other, Feature):
        return call.builder.join("maximum", [one, other])
    return extreme(np.maximum)(call)


def _number_for(x: Feature, value: Any) -> float | torch.Tensor:
    """Return numbers that a layer is combined with: one, or one per channel."""
    if isinstance(value, torch.Tensor):
        if value.numel() == 1:
            return float(value.item())
        place = x.order.index(CHANNEL)
        shape = (1,) * (len(x.order) - value.ndim) + tuple(value.shape)
        if shape == tuple(x.channels if a == place else 1 for a in range(len(x.order))):
            return value.reshape(-1).float()
        raise unsupported("arithmetic with numbers that differ from pixel to pixel")
    if isinstance(value, int | float):
        return float(value)
    raise unsupported("arithmetic with numbers that depend on the size of the image")


def _arithmetic(name: str) -> Callable[[Call], Any]:
    """Add, subtract, multiply or divide layers, numbers or lists."""

    def compute(call: Call) -> Any:
        a, b = call.at.number(call.get(0)), call.at.number(call.get(1, "other"))
        if name == "rsub":
            a, b = b, a
        alpha = call.at.number(call.get(2, "alpha", 1)) if name in {"add", "sub", "rsub"} else 1
        how = _JOINS.get(name)
        rounding = call.named.get("rounding_mode")
        builder = call.builder
        if isinstance(a, Feature) or isinstance(b, Feature):
            if rounding is not None or not isinstance(alpha, int | float):
                raise unsupported(f"{name} with rounding")
            if isinstance(a, Feature) and isinstance(b, Feature):
                if how is None:
                    raise unsupported(f"{name} of two layers")
                scaled = builder.linear(b, float(alpha)) if alpha != 1 else b
                return builder.join(how, [a, scaled])
            if isinstance(a, Feature):
                number = _number_for(a, b)
                if name == "mul":
                    return builder.linear(a, number)
                if name == "div":
                    return builder.linear(a, 1.0 / number)
                sign = alpha if how == "add" else -alpha
                return builder.linear(a, 1.0, number * sign)
            number = _number_for(b, a)
            if name == "mul":
                return builder.linear(b, number)
            if name == "div":
                raise unsupported("division by a layer")
            return builder.linear(b, float(alpha if how == "add" else -alpha), number)
        if isinstance(a, list) and isinstance(b, list) and name == "add":
            if len(a) + len(b) > LONGEST_LIST:
                raise ValueError("a list is too long")
            return a + b
        if isinstance(a, list) and isinstance(b, int) and name == "mul":
            if len(a) * b > LONGEST_LIST:
                raise ValueError("a list is too long")
            return a * b
        if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
            return _of_weights(name, a, b)
        if alpha != 1:
            b = plain_number(b) * alpha
        function: Any = {
            "add": operator.add,
            "sub": operator.sub,
            "rsub": operator.sub,
            "mul": operator.mul,
            "div": operator.truediv,
        }[name]
        result = function(plain_number(a), plain_number(b))
        if rounding == "floor":
            result = np.floor(result)
        elif rounding == "trunc":
            result = np.trunc(result)
        return result

    return compute


def _of_weights(name: str, a: Any, b: Any) -> torch.Tensor:
    """Compute with constants of the file."""
    a, b = (
        v if isinstance(v, torch.Tensor | int | float) else torch.from_numpy(np.asarray(v))
        for v in (a, b)
    )
    for one, other in ((a, b), (b, a)):
        if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
            shape = np.broadcast_shapes(tuple(one.shape), tuple(other.shape))
            if math.prod(shape) > max(one.numel(), other.numel()):
                raise unsupported("computing with weights")
    function: Any = {
        "add": torch.add,
        "sub": torch.sub,
        "rsub": torch.sub,
        "mul": torch.mul,
        "div": torch.div,
    }[name]
    if not isinstance(a, torch.Tensor):
        a = torch.as_tensor(a)
    return cast("torch.Tensor", function(a, b))


def _on_numbers(function: Callable[..., Any]) -> Callable[[Call], Any]:
    """Return an operation on numbers alone."""

    def compute(call: Call) -> Any:
        with np.errstate(all="ignore"):
            result = function(*(plain_number(value) for value in call.arguments))
        return result.item() if isinstance(result, np.generic) else result

    return compute


def _compared(function: Callable[..., Any]) -> Callable[[Call], Any]:
    """Return a comparison of numbers, texts or lists."""

    def compute(call: Call) -> Any:
        a, b = call.get(0), call.get(1)
        if isinstance(a, list) and isinstance(b, list):
            if len(a) != len(b):
                return function is operator.ne
            equal: Any = True
            for one, other in zip(a, b, strict=True):
                equal = np.logical_and(equal, np.equal(plain_number(one), plain_number(other)))
            result = equal if function is operator.eq else np.logical_not(equal)
            return result.item() if result.ndim == 0 else result
        if isinstance(a, str) or isinstance(b, str) or a is None or b is None:
            return function(a, b)
        return function(plain_number(a), plain_number(b))

    return compute


def extreme(function: Callable[..., Any]) -> Callable[[Call], Any]:
    """Return the smallest or largest of two numbers or of a list."""

    def compute(call: Call) -> Any:
        """Compare the numbers that were given."""
        values = call.arguments if len(call.arguments) > 1 else listed(call.get(0))
        result = plain_number(values[0])
        for value in values[1:]:
            result = function(result, plain_number(value))
        return result.item() if isinstance(result, np.generic) else result

    return compute


def _floored(call: Call) -> Any:
    a, b = plain_number(call.get(0)), plain_number(call.get(1))
    return a // b


def _as_int(call: Call) -> Any:
    value = call.get(0)
    if isinstance(value, Feature):
        raise unsupported("a number that depends on the content of the image")
    value = plain_number(value)
    return value.astype(np.int64) if isinstance(value, np.ndarray) else int(value)


def _as_float(call: Call) -> Any:
    value = call.get(0)
    if isinstance(value, str):
        return float(value)
    value = plain_number(value)
    return value.astype(float) if isinstance(value, np.ndarray) else float(value)


def _as_bool(call: Call) -> Any:
    value = call.get(0)
    value = plain_number(value)
    return value.astype(bool) if isinstance(value, np.ndarray) else bool(value)


def _floor_of(function: Callable[..., Any]) -> Callable[[Call], Any]:
    """Return a rounding: a whole number where it gives one in Python."""

    def compute(call: Call) -> Any:
        result = function(plain_number(call.get(0)))
        if isinstance(result, np.ndarray):
            return result.astype(np.int64)
        return int(result)

    return compute


def _nothing(call: Call) -> None:
    """Warnings and checks."""


def _not(call: Call) -> Any:
    value = plain_number(call.get(0))
    return np.logical_not(value) if isinstance(value, np.ndarray) else not value


def _dtype(call: Call) -> int:
    return 6  # float32


def _power(call: Call) -> Any:
    if isinstance(call.get(0), Feature):
        if call.number(1) != 2:
            raise unsupported("pow")
        return call.builder.join("multiply", [call.x, call.x])
    base, exponent = plain_number(call.get(0)), plain_number(call.get(1))
    if np.max(np.abs(exponent)) > 64 or np.max(np.abs(base)) > 1 << 32:
        raise unsupported("pow of very large numbers")
    return base**exponent


def _negative(call: Call) -> Any:
    if isinstance(call.get(0), Feature):
        return call.builder.linear(call.x, -1.0)
    return -plain_number(call.get(0))


ARITHMETIC: dict[str, Operation] = {
    "alpha_dropout": same,
    "maximum": _maximum,
    **dict.fromkeys("contiguous clone detach alias identity numpy_T".split(), same),
    **dict.fromkeys("to type_as float half _cast_Float cpu cuda".split(), _cast),
    **{name: _arithmetic(name) for name in "add sub rsub mul div".split()},
    "true_divide": _arithmetic("div"),
    "subtract": _arithmetic("sub"),
    "multiply": _arithmetic("mul"),
    "divide": _arithmetic("div"),
    "__iadd__": _arithmetic("add"),
    "pow": _power,
    "neg": _negative,
    "floordiv": _floored,
    "floor_divide": _floored,
    "remainder": _on_numbers(operator.mod),
    "fmod": _on_numbers(np.fmod),
    "floor": _floor_of(np.floor),
    "ceil": _floor_of(np.ceil),
    "round": _floor_of(np.rint),
    "trunc": _floor_of(np.trunc),
    "abs": _on_numbers(abs),
    "sqrt": _on_numbers(np.sqrt),
    "eq": _compared(operator.eq),
    "ne": _compared(operator.ne),
    "lt": _compared(operator.lt),
    "le": _compared(operator.le),
    "gt": _compared(operator.gt),
    "ge": _compared(operator.ge),
    "__is__": lambda call: call.get(0) is call.get(1),
    "__isnot__": lambda call: call.get(0) is not call.get(1),
    "__not__": _not,
    "logical_not": _not,
    "__and__": _on_numbers(np.logical_and),
    "__or__": _on_numbers(np.logical_or),
    "logical_and": _on_numbers(np.logical_and),
    "logical_or": _on_numbers(np.logical_or),
    "warn": _nothing,
    "format": lambda call: "",
    "is_floating_point": lambda call: True,
    "is_complex": lambda call: False,
    "IntImplicit": _as_int,
    "Int": _as_int,
    "Float": _as_float,
    "Bool": _as_bool,
    "ScalarImplicit": same,
    "Scalar": same,
    "item": same,
    "tensor": lambda call: plain_number(call.get(0)),
    "scalar_tensor": lambda call: plain_number(call.get(0)),
}

PLAIN_ARITHMETIC: dict[str, Operation] = {
    "int": _as_int,
    "float": _as_float,
    "bool": _as_bool,
    "str": lambda call: str(call.get(0)) if isinstance(call.get(0), str | int) else "",
    "min": extreme(np.minimum),
    "max": extreme(np.maximum),
    "ops.prim.NumToTensor": same,
    "ops.prim.min": extreme(np.minimum),
    "ops.prim.max": extreme(np.maximum),
    "ops.prim.dtype": _dtype,
    "ops.prim.device": lambda call: "cpu",
    "ops.prim.is_cuda": lambda call: False,
    "ops.prim.unchecked_unwrap_optional": same,
    "ops.prim.data": same,
    "torch.device": lambda call: "cpu",
    "torch.max": _maximum,
    "torch.min": extreme(np.minimum),
}
