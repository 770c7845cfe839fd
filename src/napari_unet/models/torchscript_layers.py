"""The operations of TorchScript: what layer each one is, or what number it gives."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from napari_unet.models.graph_builder import CHANNEL, Feature, GraphBuilder, unsupported

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_unet.models.torchscript_code import Interpreter, Operation
    from napari_unet.network.graph import JoinKind, PaddingMode, Sides

_LARGEST_INDEX = 1 << 62
_LONGEST_LIST = 10_000
_JOINS: dict[str, JoinKind] = {
    "add": "add",
    "sub": "subtract",
    "rsub": "subtract",
    "mul": "multiply",
}
_MODES: dict[str, PaddingMode] = {
    "constant": "zeros",
    "reflect": "reflect",
    "replicate": "replicate",
    "circular": "circular",
}


class _Call:
    """A call of an operation: its arguments by place or by name."""

    def __init__(self, at: Interpreter, arguments: list[Any], named: dict[str, Any]) -> None:
        self.at, self.arguments, self.named = at, arguments, named

    @property
    def builder(self) -> GraphBuilder:
        """Gets the layers."""
        return self.at.builder

    @property
    def x(self) -> Feature:
        """The first argument, which must be a feature."""
        if not self.arguments or not isinstance(self.arguments[0], Feature):
            raise unsupported("a layer that reads what is no layer's result")
        return self.arguments[0]

    def get(self, place: int, name: str = "", default: Any = None) -> Any:
        """Return an argument."""
        if place < len(self.arguments):
            return self.arguments[place]
        return self.named.get(name, default)

    def weight(self, place: int, name: str = "") -> torch.Tensor | None:
        """Return an argument that is a weight or None."""
        value = self.get(place, name)
        if value is not None and not isinstance(value, torch.Tensor):
            raise unsupported("weights that are computed")
        return value

    def kernel(self, place: int) -> torch.Tensor:
        """Return an argument that is a weight."""
        value = self.weight(place)
        if value is None:
            raise unsupported("a layer without weights")
        return value

    def ints(self, place: int, name: str = "", default: Sequence[int] = ()) -> list[int]:
        """Return an argument that is a list of whole numbers, or one."""
        value = self.get(place, name, default)
        if isinstance(value, list | tuple):
            return [self.at.whole(v) for v in value]
        return [self.at.whole(value)]

    def whole(self, place: int, name: str = "", default: int = 0) -> int:
        """Return an argument that is a whole number."""
        return self.at.whole(self.get(place, name, default))

    def number(self, place: int, name: str = "", default: float = 0.0) -> float:
        """Return an argument that is a number."""
        value = self.at.number(self.get(place, name, default))
        if isinstance(value, torch.Tensor) and value.numel() == 1:
            value = value.item()
        if not isinstance(value, int | float):
            raise unsupported("a number that depends on the image")
        return float(value)

    def each(self, numbers: list[int]) -> list[int]:
        """Repeat a single number for each spatial axis."""
        return numbers * self.builder.dims if len(numbers) == 1 else numbers

    def name(self, weight: torch.Tensor | None) -> str:
        """Name a layer after its weight."""
        return self.at.paths.get(id(weight), "")


def _convolution(call: _Call) -> Any:
    """conv2d, conv3d: input, weight, bias, stride, padding, dilation, groups."""
    stride, dilation = call.ints(3, "stride", [1]), call.ints(5, "dilation", [1])
    padding = call.get(4, "padding", [0])
    weight = call.kernel(1)
    if isinstance(padding, str):
        if padding == "valid":
            padding = [0]
        else:
            reach = [
                (k - 1) * d for k, d in zip(weight.shape[2:], call.each(dilation), strict=True)
            ]
            sides = tuple((total // 2, total - total // 2) for total in reach)
            return _convolved(call, stride, sides, dilation, call.whole(6, "groups", 1))
    pads = call.each([call.at.whole(v) for v in _listed(padding)])
    return _convolved(
        call, stride, tuple((p, p) for p in pads), dilation, call.whole(6, "groups", 1)
    )


def _convolved(
    call: _Call, stride: list[int], sides: Sides, dilation: list[int], groups: int
) -> Any:
    weight = call.kernel(1)
    return call.builder.convolution(
        call.x,
        weight,
        call.weight(2, "bias"),
        stride=stride,
        dilation=dilation,
        padding=sides,
        groups=groups,
        name=call.name(weight),
    )


def _general_convolution(call: _Call) -> Any:
    """_convolution: ..., stride, padding, dilation, transposed, output_padding, groups."""
    stride, padding, dilation = call.ints(3), call.each(call.ints(4)), call.ints(5)
    groups = call.whole(8)
    if not call.get(6):
        return _convolved(call, stride, tuple((p, p) for p in padding), dilation, groups)
    return _spread(call, stride, padding, call.each(call.ints(7)), groups, dilation)


def _transposed(call: _Call) -> Any:
    """conv_transpose2d: input, weight, bias, stride, padding, output_padding, groups, dilation."""
    return _spread(
        call,
        call.ints(3, "stride", [1]),
        call.each(call.ints(4, "padding", [0])),
        call.each(call.ints(5, "output_padding", [0])),
        call.whole(6, "groups", 1),
        call.ints(7, "dilation", [1]),
    )


def _spread(
    call: _Call,
    stride: list[int],
    padding: list[int],
    extra: list[int],
    groups: int,
    dilation: list[int],
) -> Any:
    if set(dilation) != {1}:
        raise unsupported("a transposed convolution with dilation")
    weight = call.kernel(1)
    return call.builder.transposed_convolution(
        call.x,
        weight,
        call.weight(2, "bias"),
        stride=stride,
        crop=tuple((p, p - e) for p, e in zip(padding, extra, strict=True)),
        groups=groups,
        name=call.name(weight),
    )


def _batch_norm(call: _Call) -> Any:
    """Input, weight, bias, running mean, running var, training, momentum, eps."""
    mean, variance = call.weight(3), call.weight(4)
    if mean is None or variance is None:
        raise unsupported("a batch norm that measures each image")
    return call.builder.norm(
        call.x,
        "batch",
        call.weight(1),
        call.weight(2),
        mean=mean,
        variance=variance,
        eps=call.number(7),
        name=call.name(mean),
    )


def _instance_norm(call: _Call) -> Any:
    """Input, weight, bias, running mean, running var, use input stats, momentum, eps."""
    weight, mean, variance = call.weight(1), call.weight(3), call.weight(4)
    if mean is not None and variance is not None and not call.get(5):
        return call.builder.norm(
            call.x,
            "batch",
            weight,
            call.weight(2),
            mean=mean,
            variance=variance,
            eps=call.number(7),
            name=call.name(mean),
        )
    return call.builder.norm(
        call.x, "instance", weight, call.weight(2), eps=call.number(7), name=call.name(weight)
    )


def _group_norm(call: _Call) -> Any:
    """Input, groups, weight, bias, eps."""
    weight = call.weight(2)
    return call.builder.norm(
        call.x,
        "group",
        weight,
        call.weight(3),
        eps=call.number(4, "eps", 1e-5),
        groups=call.whole(1),
        name=call.name(weight),
    )


def _plain_activation(kind: Any) -> Callable[[_Call], Any]:
    return lambda call: call.builder.activation(call.x, kind)


def _elu(call: _Call) -> Any:
    alpha, scale = call.number(1, "alpha", 1.0), call.number(2, "scale", 1.0)
    if call.number(3, "input_scale", 1.0) != 1.0:
        raise unsupported("an ELU with scaled input")
    result = call.builder.activation(call.x, "elu", slope=alpha)
    return call.builder.linear(result, scale)


def _gelu(call: _Call) -> Any:
    if call.get(1, "approximate", "none") != "none":
        raise unsupported("GELU in its approximate form")
    return call.builder.activation(call.x, "gelu")


def _softplus(call: _Call) -> Any:
    beta = call.number(1, "beta", 1.0)
    if call.number(2, "threshold", 20.0) < 15:
        raise unsupported("a softplus with an unusual threshold")
    inside = call.builder.linear(call.x, beta)
    return call.builder.linear(call.builder.activation(inside, "softplus"), 1 / beta)


def _prelu(call: _Call) -> Any:
    weight = call.kernel(1)
    return call.builder.activation(call.x, "prelu", weight=weight, name=call.name(weight))


def _softmax(call: _Call) -> Any:
    return call.builder.activation(call.x, "softmax", axis=call.whole(1, "dim"))


def _clamp(call: _Call) -> Any:
    limits = []
    for place, name in ((1, "min"), (2, "max")):
        given = call.get(place, name)
        limits.append(None if given is None else call.number(place, name))
    if limits == [0, 6]:
        return call.builder.activation(call.x, "relu6")
    return call.builder.clip(call.x, *limits)


def _hardtanh(call: _Call) -> Any:
    low, high = call.number(1, "min_val", -1.0), call.number(2, "max_val", 1.0)
    if (low, high) == (0, 6):
        return call.builder.activation(call.x, "relu6")
    return call.builder.clip(call.x, low, high)


def _max_pool(call: _Call) -> Any:
    """Input, kernel, stride, padding, dilation, ceil mode."""
    if set(call.ints(4, "dilation", [1])) != {1}:
        raise unsupported("max pooling with dilation")
    pads = call.each(call.ints(3, "padding", [0]))
    return call.builder.pooling(
        call.x,
        "max",
        call.ints(1),
        stride=call.ints(2, "stride"),
        padding=tuple((p, p) for p in pads),
        ceil=bool(call.get(5, "ceil_mode", False)),
    )


def _average_pool(call: _Call) -> Any:
    """Input, kernel, stride, padding, ceil mode, count padding, divisor."""
    if call.get(6) is not None:
        raise unsupported("average pooling with a divisor of its own")
    pads = call.each(call.ints(3, "padding", [0]))
    return call.builder.pooling(
        call.x,
        "average",
        call.ints(1),
        stride=call.ints(2, "stride"),
        padding=tuple((p, p) for p in pads),
        ceil=bool(call.get(4, "ceil_mode", False)),
        counts_padding=bool(call.get(5, "count_include_pad", True)),
    )


def _adaptive_pool(call: _Call) -> Any:
    if set(call.ints(1)) != {1}:
        raise unsupported("adaptive pooling to more than one pixel")
    return call.builder.global_average(call.x)


def _mean(call: _Call) -> Any:
    x = call.x
    if not isinstance(call.get(1), list):
        raise unsupported("a mean that is not over all pixels")
    if {x.order[axis] for axis in call.ints(1)} != set(range(2, 2 + call.builder.dims)):
        raise unsupported("a mean that is not over all pixels")
    mean = call.builder.global_average(x)
    if call.get(2, "keepdim", False):
        return mean
    return mean.reordered(tuple(axis for axis in x.order if axis < 2))


def _upsampling(mode: Any, *, has_corners: bool) -> Callable[[_Call], Any]:
    """Input, size, [align corners], factors: a list, or one after the other."""

    def upsample(call: _Call) -> Any:
        corners = bool(call.get(2, "align_corners", False)) if has_corners else False
        factors = [
            v
            for given in call.arguments[3 if has_corners else 2 :]
            for v in _listed(given)
            if v is not None
        ]
        given = call.named.get("scale_factors")
        factors = factors or (_listed(given) if given is not None else [])
        size = call.get(1)
        if factors and (size is None or len(factors) == call.builder.dims):
            numbers = [call.at.number(f) for f in factors]
            if all(isinstance(n, int | float) for n in numbers):
                return call.builder.resize(
                    call.x, mode, scale=[float(n) for n in numbers], align_corners=corners
                )
        if size is None:
            raise unsupported("resizing to no size")
        return call.builder.resize(call.x, mode, sizes=_columns(call, size), align_corners=corners)

    return upsample


def _columns(call: _Call, size: Any) -> Any:
    """Return sizes per axis as an array (probes, spatial axes)."""
    values = _listed(size)
    if len(values) == 1:
        values = values * call.builder.dims
    if len(values) != call.builder.dims:
        raise ValueError("a size has another number of axes")
    count = len(call.builder.alive)
    return np.stack(
        [np.broadcast_to(np.asarray(_plain(v), np.int64), (count,)) for v in values], axis=1
    )


def _concatenated(call: _Call) -> Any:
    parts = call.get(0)
    if not isinstance(parts, list | tuple) or not parts:
        raise unsupported("joining of what is no list")
    if all(isinstance(part, torch.Tensor) for part in parts):
        return torch.cat(list(parts), call.whole(1, "dim"))
    if not all(isinstance(part, Feature) for part in parts):
        raise unsupported("joining of a layer with fixed numbers")
    if parts[0].order[call.whole(1, "dim")] != CHANNEL:
        raise unsupported("joining along an axis that is not the channels")
    return call.builder.join("concatenate", list(parts))


def _pad(call: _Call) -> Any:
    """Input, padding from the last axis on, mode, value."""
    kind = call.get(2, "mode", "constant")
    value = call.get(3, "value")
    return _padded(call, _listed(call.get(1)), str(kind), value)


def _constant_pad(call: _Call) -> Any:
    return _padded(call, _listed(call.get(1)), "constant", call.get(2, "value"))


def _kind_of_pad(kind: str) -> Callable[[_Call], Any]:
    return lambda call: _padded(call, _listed(call.get(1)), kind, None)


def _padded(call: _Call, pads: list[Any], kind: str, value: Any) -> Any:
    if kind not in _MODES:
        raise unsupported(f"padding of the kind {kind}")
    if len(pads) % 2 or len(pads) > 2 * call.builder.dims:
        raise unsupported("padding of channels")
    values = [_plain(p) for p in pads]
    before: list[Any] = [0] * call.builder.dims
    after: list[Any] = [0] * call.builder.dims
    for place in range(len(pads) // 2):
        before[-1 - place], after[-1 - place] = values[2 * place], values[2 * place + 1]
    if value and any(np.any(np.asarray(v) > 0) for v in values):
        raise unsupported(f"padding with the value {value}")
    return call.builder.pad_by(call.x, before, after, _MODES[kind])


def _slice(call: _Call) -> Any:
    """Input, axis, start, end, step; of a list: start, end, step."""
    given = call.get(0)
    if isinstance(given, list | tuple):
        start, stop, step = (
            None if v is None else call.at.whole(v) for v in (call.get(1), call.get(2), call.get(3))
        )
        return given[start:stop:step]
    start, stop = call.get(2, "start"), call.get(3, "end")
    return call.builder.slice(
        call.x,
        call.whole(1, "dim"),
        _plain(0 if start is None else start),
        _plain(_LARGEST_INDEX if stop is None else stop),
        call.whole(4, "step", 1),
    )


def _narrow(call: _Call) -> Any:
    start = _plain(call.get(2))
    return call.builder.slice(call.x, call.whole(1), start, start + _plain(call.get(3)))


def _chunk(call: _Call) -> Any:
    x, axis = call.x, call.whole(2, "dim")
    if x.order[axis] != CHANNEL:
        raise unsupported("splitting along an axis that is not the channels")
    each = -(-x.channels // max(call.whole(1), 1))
    return _parts(call, [each])


def _split(call: _Call) -> Any:
    x, axis = call.x, call.whole(2, "dim")
    if x.order[axis] != CHANNEL:
        raise unsupported("splitting along an axis that is not the channels")
    return _parts(call, call.ints(1))


def _parts(call: _Call, sizes: list[int]) -> list[Feature]:
    """Split channels by sizes, or by one size as often as it fits."""
    x, first, parts = call.x, 0, []
    if len(sizes) == 1 and sizes[0] > 0:
        sizes = [sizes[0]] * (-(-x.channels // sizes[0]))
    for size in sizes:
        parts.append(call.builder.channels(x, first, min(size, x.channels - first)))
        first += size
    return parts


def _dropout(whole_channels: bool) -> Callable[[_Call], Any]:
    return lambda call: call.builder.dropout(call.x, call.number(1), whole_channels=whole_channels)


def _same(call: _Call) -> Any:
    return call.get(0)


def _cast(call: _Call) -> Any:
    """To another type or device: nothing changes but for whole numbers."""
    for value in call.arguments[1:]:
        if isinstance(value, int) and not isinstance(value, bool) and value in range(5):
            if isinstance(call.get(0), Feature):
                raise unsupported("rounding of a layer's result to whole numbers")
    return call.get(0)


def _permute(call: _Call) -> Any:
    x = call.x
    wanted = call.ints(1)
    if sorted(axis % len(x.order) for axis in wanted) != list(range(len(x.order))):
        raise unsupported("a transposition of an unusual kind")
    return x.reordered(tuple(x.order[axis] for axis in wanted))


def _transpose(call: _Call) -> Any:
    if isinstance(call.get(0), torch.Tensor):
        return call.get(0).transpose(call.whole(1), call.whole(2))
    order = list(call.x.order)
    one, other = call.whole(1), call.whole(2)
    order[one], order[other] = order[other], order[one]
    return call.x.reordered(tuple(order))


def _reshape(call: _Call) -> Any:
    """View and reshape that keep an image, or the channels of a single pixel."""
    shape = [_plain(v) for v in _listed(call.get(1))]
    count = len(call.builder.alive)
    target = np.stack([np.broadcast_to(np.asarray(v, np.int64), (count,)) for v in shape], axis=1)
    return call.builder.reshape(call.x, target)


def _flatten(call: _Call) -> Any:
    x = call.x
    first, last = call.whole(1, "start", 0), call.whole(2, "end", -1)
    now = np.stack(x.shape, axis=1)
    first, last = first % now.shape[1], last % now.shape[1]
    middle = now[:, first : last + 1].prod(axis=1, keepdims=True)
    return call.builder.reshape(
        x, np.concatenate([now[:, :first], middle, now[:, last + 1 :]], axis=1)
    )


def _squeeze(call: _Call) -> Any:
    x = call.x
    now = np.stack(x.shape, axis=1)
    axes = {axis % now.shape[1] for axis in call.ints(1)} if call.get(1) is not None else None
    kept = [
        axis
        for axis in range(now.shape[1])
        if (now[:, axis] != 1).any() or (axes is not None and axis not in axes)
    ]
    return call.builder.reshape(x, now[:, kept])


def _unsqueeze(call: _Call) -> Any:
    if isinstance(call.get(0), torch.Tensor):
        return call.get(0).unsqueeze(call.whole(1))
    x = call.x
    now = np.stack(x.shape, axis=1)
    axis = call.whole(1) % (now.shape[1] + 1)
    return call.builder.reshape(x, np.insert(now, axis, 1, axis=1))


def _dense(call: _Call) -> Any:
    x, weight = call.x, call.kernel(1)
    if x.order[-1] != CHANNEL:
        raise unsupported("a dense layer that does not mix the channels")
    return call.builder.dense(x, weight, call.weight(2, "bias"), call.name(weight))


def _expand(call: _Call) -> Any:
    """Repeat a single pixel; joins repeat by themselves."""
    x = call.x
    if (x.sizes == 1).all():
        return x
    raise unsupported("expand")


def _pixel_shuffle(call: _Call) -> Any:
    if call.builder.dims != 2:
        raise unsupported("pixel_shuffle of volumes")
    return call.builder.pixel_shuffle(call.x, call.whole(1))


def _arg_max(call: _Call) -> Any:
    """Class numbers at the end: the probabilities before them say the same and more."""
    if call.get(1) is None:
        raise unsupported("argmax over everything")
    return call.builder.activation(call.x, "softmax", axis=call.whole(1), name="classes")


def _maximum(call: _Call) -> Any:
    one, other = call.get(0), call.get(1)
    if isinstance(one, Feature) and isinstance(other, Feature):
        return call.builder.join("maximum", [one, other])
    return _extreme(np.maximum)(call)


# ------------------------------------------------------------------------------ arithmetic


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


def _arithmetic(name: str) -> Callable[[_Call], Any]:
    """Add, subtract, multiply or divide layers, numbers or lists."""

    def compute(call: _Call) -> Any:
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
            if len(a) + len(b) > _LONGEST_LIST:
                raise ValueError("a list is too long")
            return a + b
        if isinstance(a, list) and isinstance(b, int) and name == "mul":
            if len(a) * b > _LONGEST_LIST:
                raise ValueError("a list is too long")
            return a * b
        if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
            return _of_weights(name, a, b)
        if alpha != 1:
            b = _plain(b) * alpha
        function: Any = {
            "add": operator.add,
            "sub": operator.sub,
            "rsub": operator.sub,
            "mul": operator.mul,
            "div": operator.truediv,
        }[name]
        result = function(_plain(a), _plain(b))
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


def _plain(value: Any) -> Any:
    """Return a number, or one per probe; a tensor of one number is that number."""
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return value.item()
    if isinstance(value, bool | int | float | np.ndarray):
        return value
    raise unsupported("a number that depends on the content of the image")


def _on_numbers(function: Callable[..., Any]) -> Callable[[_Call], Any]:
    """Return an operation on numbers alone."""

    def compute(call: _Call) -> Any:
        with np.errstate(all="ignore"):
            result = function(*(_plain(value) for value in call.arguments))
        return result.item() if isinstance(result, np.generic) else result

    return compute


def _compared(function: Callable[..., Any]) -> Callable[[_Call], Any]:
    """Return a comparison of numbers, texts or lists."""

    def compute(call: _Call) -> Any:
        a, b = call.get(0), call.get(1)
        if isinstance(a, list) and isinstance(b, list):
            if len(a) != len(b):
                return function is operator.ne
            equal: Any = True
            for one, other in zip(a, b, strict=True):
                equal = np.logical_and(equal, np.equal(_plain(one), _plain(other)))
            result = equal if function is operator.eq else np.logical_not(equal)
            return result.item() if result.ndim == 0 else result
        if isinstance(a, str) or isinstance(b, str) or a is None or b is None:
            return function(a, b)
        return function(_plain(a), _plain(b))

    return compute


def _extreme(function: Callable[..., Any]) -> Callable[[_Call], Any]:
    """Return the smallest or largest of two numbers or of a list."""

    def compute(call: _Call) -> Any:
        values = call.arguments if len(call.arguments) > 1 else _listed(call.get(0))
        result = _plain(values[0])
        for value in values[1:]:
            result = function(result, _plain(value))
        return result.item() if isinstance(result, np.generic) else result

    return compute


def _floored(call: _Call) -> Any:
    a, b = _plain(call.get(0)), _plain(call.get(1))
    return a // b


def _as_int(call: _Call) -> Any:
    value = call.get(0)
    if isinstance(value, Feature):
        raise unsupported("a number that depends on the content of the image")
    value = _plain(value)
    return value.astype(np.int64) if isinstance(value, np.ndarray) else int(value)


def _as_float(call: _Call) -> Any:
    value = call.get(0)
    if isinstance(value, str):
        return float(value)
    value = _plain(value)
    return value.astype(float) if isinstance(value, np.ndarray) else float(value)


def _as_bool(call: _Call) -> Any:
    value = call.get(0)
    value = _plain(value)
    return value.astype(bool) if isinstance(value, np.ndarray) else bool(value)


def _floor_of(function: Callable[..., Any]) -> Callable[[_Call], Any]:
    """Return a rounding: a whole number where it gives one in Python."""

    def compute(call: _Call) -> Any:
        result = function(_plain(call.get(0)))
        if isinstance(result, np.ndarray):
            return result.astype(np.int64)
        return int(result)

    return compute


def _size(call: _Call) -> Any:
    value = call.get(0)
    if isinstance(value, torch.Tensor):
        shape: list[Any] = list(value.shape)
    elif isinstance(value, Feature):
        call.at.asked_sizes = True
        shape = [call.at.number(size) for size in value.shape]
    else:
        raise unsupported("the size of what is no layer's result")
    return shape if len(call.arguments) < 2 else shape[call.whole(1)]


def _dim(call: _Call) -> int:
    value = call.get(0)
    return value.ndim if isinstance(value, torch.Tensor) else len(call.x.order)


def _length(call: _Call) -> int:
    value = call.get(0)
    if isinstance(value, list | tuple | dict | str):
        return len(value)
    if isinstance(value, Feature):
        return int(call.at.whole(value.shape[0]))
    raise unsupported("the length of what is no list")


def _append(call: _Call) -> Any:
    target = call.get(0)
    if not isinstance(target, list) or len(target) > _LONGEST_LIST:
        raise ValueError("a list was expected")
    target.append(call.get(1))
    return target


def _insert(call: _Call) -> Any:
    target = call.get(0)
    if not isinstance(target, list) or len(target) > _LONGEST_LIST:
        raise ValueError("a list was expected")
    target.insert(call.whole(1), call.get(2))
    return target


def _pop(call: _Call) -> Any:
    target = call.get(0)
    if not isinstance(target, list):
        raise ValueError("a list was expected")
    return target.pop(call.whole(1, "", -1))


def _extend(call: _Call) -> None:
    target, more = call.get(0), _listed(call.get(1))
    if not isinstance(target, list) or len(target) + len(more) > _LONGEST_LIST:
        raise ValueError("a list was expected")
    target.extend(more)


def _reverse(call: _Call) -> None:
    target = call.get(0)
    if not isinstance(target, list):
        raise ValueError("a list was expected")
    target.reverse()


def _set_item(call: _Call) -> Any:
    target = call.get(0)
    if not isinstance(target, list):
        raise unsupported("writing into a layer's result")
    target[call.whole(1)] = call.get(2)
    return target


def _get_item(call: _Call) -> Any:
    target = call.get(0)
    if not isinstance(target, list | tuple | dict):
        raise unsupported("an item of what is no list")
    return target[call.get(1)] if isinstance(target, dict) else target[call.whole(1)]


def _range(call: _Call) -> range:
    numbers = [call.at.whole(value) for value in call.arguments]
    result = range(*numbers)
    if len(result) > _LONGEST_LIST:
        raise unsupported("a loop of very many steps")
    return result


def _contains(call: _Call) -> bool:
    holder = call.get(0)
    if not isinstance(holder, list | tuple | dict):
        raise ValueError("a list was expected")
    return any(isinstance(v, type(call.get(1))) and v == call.get(1) for v in holder)


def _listed(value: Any) -> list[Any]:
    """Return a list; a single value is a list of one."""
    return list(value) if isinstance(value, list | tuple) else [value]


def _nothing(call: _Call) -> None:
    """Warnings and checks."""


def _not(call: _Call) -> Any:
    value = _plain(call.get(0))
    return np.logical_not(value) if isinstance(value, np.ndarray) else not value


def _dtype(call: _Call) -> int:
    return 6  # float32


def _power(call: _Call) -> Any:
    if isinstance(call.get(0), Feature):
        if call.number(1) != 2:
            raise unsupported("pow")
        return call.builder.join("multiply", [call.x, call.x])
    base, exponent = _plain(call.get(0)), _plain(call.get(1))
    if np.max(np.abs(exponent)) > 64 or np.max(np.abs(base)) > 1 << 32:
        raise unsupported("pow of very large numbers")
    return base**exponent


def _negative(call: _Call) -> Any:
    if isinstance(call.get(0), Feature):
        return call.builder.linear(call.x, -1.0)
    return -_plain(call.get(0))


_LAYERS: dict[str, Callable[[_Call], Any]] = {
    "conv2d": _convolution,
    "conv3d": _convolution,
    "_convolution_mode": _convolution,
    "_convolution": _general_convolution,
    "convolution": _general_convolution,
    "conv_transpose2d": _transposed,
    "conv_transpose3d": _transposed,
    "batch_norm": _batch_norm,
    "instance_norm": _instance_norm,
    "group_norm": _group_norm,
    **{
        kind: _plain_activation(kind)
        for kind in "relu relu6 selu silu mish hardswish hardsigmoid sigmoid tanh".split()
    },
    "leaky_relu": lambda call: call.builder.activation(
        call.x, "leaky_relu", slope=call.number(1, "negative_slope", 0.01)
    ),
    "elu": _elu,
    "gelu": _gelu,
    "softplus": _softplus,
    "prelu": _prelu,
    "softmax": _softmax,
    "_softmax": _softmax,
    "clamp": _clamp,
    "clip": _clamp,
    "clamp_min": lambda call: call.builder.clip(call.x, call.number(1), None),
    "clamp_max": lambda call: call.builder.clip(call.x, None, call.number(1)),
    "hardtanh": _hardtanh,
    "max_pool2d": _max_pool,
    "max_pool3d": _max_pool,
    "avg_pool2d": _average_pool,
    "avg_pool3d": _average_pool,
    "adaptive_avg_pool2d": _adaptive_pool,
    "adaptive_avg_pool3d": _adaptive_pool,
    "mean": _mean,
    "upsample_nearest2d": _upsampling("nearest", has_corners=False),
    "upsample_nearest3d": _upsampling("nearest", has_corners=False),
    "upsample_bilinear2d": _upsampling("linear", has_corners=True),
    "upsample_trilinear3d": _upsampling("linear", has_corners=True),
    "upsample_bicubic2d": _upsampling("cubic", has_corners=True),
    "cat": _concatenated,
    "concat": _concatenated,
    "concatenate": _concatenated,
    "pad": _pad,
    "constant_pad_nd": _constant_pad,
    "reflection_pad2d": _kind_of_pad("reflect"),
    "reflection_pad3d": _kind_of_pad("reflect"),
    "replication_pad2d": _kind_of_pad("replicate"),
    "replication_pad3d": _kind_of_pad("replicate"),
    "slice": _slice,
    "narrow": _narrow,
    "chunk": _chunk,
    "split": _split,
    "split_with_sizes": _split,
    "tensor_split": _chunk,
    "dropout": _dropout(whole_channels=False),
    "feature_dropout": _dropout(whole_channels=True),
    "alpha_dropout": _same,
    "permute": _permute,
    "transpose": _transpose,
    "reshape": _reshape,
    "view": _reshape,
    "flatten": _flatten,
    "squeeze": _squeeze,
    "unsqueeze": _unsqueeze,
    "linear": _dense,
    "expand": _expand,
    "expand_as": _expand,
    "pixel_shuffle": _pixel_shuffle,
    "argmax": _arg_max,
    "maximum": _maximum,
    **dict.fromkeys("contiguous clone detach alias identity numpy_T".split(), _same),
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
    "size": _size,
    "dim": _dim,
    "len": _length,
    "append": _append,
    "insert": _insert,
    "pop": _pop,
    "extend": _extend,
    "reverse": _reverse,
    "_set_item": _set_item,
    "__getitem__": _get_item,
    "__range_length": lambda call: len(_range(call)),
    "__derive_index": lambda call: call.whole(1) + call.whole(0) * call.whole(2),
    "__contains__": _contains,
    "list": lambda call: _listed(call.get(0)),
    "copy": lambda call: _listed(call.get(0)),
    "keys": lambda call: list(call.get(0)),
    "values": lambda call: list(call.get(0).values()),
    "warn": _nothing,
    "format": lambda call: "",
    "numel": lambda call: math.prod(call.get(0).shape),
    "is_floating_point": lambda call: True,
    "is_complex": lambda call: False,
    "IntImplicit": _as_int,
    "Int": _as_int,
    "Float": _as_float,
    "Bool": _as_bool,
    "ScalarImplicit": _same,
    "Scalar": _same,
    "item": _same,
    "tensor": lambda call: _plain(call.get(0)),
    "scalar_tensor": lambda call: _plain(call.get(0)),
}
_OTHERS: dict[str, Callable[[_Call], Any]] = {
    "int": _as_int,
    "float": _as_float,
    "bool": _as_bool,
    "range": _range,
    "len": _length,
    "str": lambda call: str(call.get(0)) if isinstance(call.get(0), str | int) else "",
    "list": lambda call: _listed(call.get(0)),
    "min": _extreme(np.minimum),
    "max": _extreme(np.maximum),
    "ops.prim.NumToTensor": _same,
    "ops.prim.min": _extreme(np.minimum),
    "ops.prim.max": _extreme(np.maximum),
    "ops.prim.dtype": _dtype,
    "ops.prim.device": lambda call: "cpu",
    "ops.prim.is_cuda": lambda call: False,
    "ops.prim.unchecked_unwrap_optional": _same,
    "ops.prim.data": _same,
    "torch.device": lambda call: "cpu",
    "torch.max": _maximum,
    "torch.min": _extreme(np.minimum),
}


def _as_operation(function: Callable[[_Call], Any]) -> Operation:
    """Give a function the form in which operations are called."""
    return lambda at, arguments, named: function(_Call(at, arguments, named))


OPERATIONS: dict[str, Operation] = {
    **{f"torch.{name}": _as_operation(function) for name, function in _LAYERS.items()},
    **{name: _as_operation(function) for name, function in _OTHERS.items()},
}
"""What is done for each operation, by its name in the text."""
