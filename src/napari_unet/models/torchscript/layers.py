"""The layers of torch: what each is in a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.models.building.features import CHANNEL
from napari_unet.models.building.refusals import unsupported
from napari_unet.models.torchscript.calls import Call, Operation, listed, plain_number

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_unet.network.graph import Sides


def _convolution(call: Call) -> Any:
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
    pads = call.each([call.at.whole(v) for v in listed(padding)])
    return _convolved(
        call, stride, tuple((p, p) for p in pads), dilation, call.whole(6, "groups", 1)
    )


def _convolved(
    call: Call, stride: list[int], sides: Sides, dilation: list[int], groups: int
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


def _general_convolution(call: Call) -> Any:
    """_convolution: ..., stride, padding, dilation, transposed, output_padding, groups."""
    stride, padding, dilation = call.ints(3), call.each(call.ints(4)), call.ints(5)
    groups = call.whole(8)
    if not call.get(6):
        return _convolved(call, stride, tuple((p, p) for p in padding), dilation, groups)
    return _spread(call, stride, padding, call.each(call.ints(7)), groups, dilation)


def _transposed(call: Call) -> Any:
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
    call: Call,
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


def _batch_norm(call: Call) -> Any:
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


def _instance_norm(call: Call) -> Any:
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


def _group_norm(call: Call) -> Any:
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


def _layer_norm(call: Call) -> Any:
    """Input, shape, weight, bias, eps: over the channels of each pixel, which stand last."""
    x, weight = call.x, call.weight(2, "weight")
    if x.order[-1] != CHANNEL or call.ints(1) != [x.channels]:
        raise unsupported("a layer norm that is not over the channels of each pixel")
    normed = call.builder.norm(
        x.reordered(x.plain),
        "layer",
        weight,
        call.weight(3, "bias"),
        eps=call.number(4, "eps", 1e-5),
        name=call.name(weight),
    )
    return normed.reordered(x.order)


def _max_pool(call: Call) -> Any:
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


def _average_pool(call: Call) -> Any:
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


def _adaptive_pool(call: Call) -> Any:
    if set(call.ints(1)) != {1}:
        raise unsupported("adaptive pooling to more than one pixel")
    return call.builder.global_average(call.x)


def _mean(call: Call) -> Any:
    x = call.x
    if not isinstance(call.get(1), list):
        raise unsupported("a mean that is not over all pixels")
    if {x.order[axis] for axis in call.ints(1)} != set(range(2, 2 + call.builder.dims)):
        raise unsupported("a mean that is not over all pixels")
    mean = call.builder.global_average(x)
    if call.get(2, "keepdim", False):
        return mean
    return mean.reordered(tuple(axis for axis in x.order if axis < 2))


def _upsampling(mode: Any, *, has_corners: bool) -> Callable[[Call], Any]:
    """Input, size, [align corners], factors: a list, or one after the other."""

    def upsample(call: Call) -> Any:
        corners = bool(call.get(2, "align_corners", False)) if has_corners else False
        factors = [
            v
            for given in call.arguments[3 if has_corners else 2 :]
            for v in listed(given)
            if v is not None
        ]
        given = call.named.get("scale_factors")
        factors = factors or (listed(given) if given is not None else [])
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


def _columns(call: Call, size: Any) -> Any:
    """Return sizes per axis as an array (probes, spatial axes)."""
    values = listed(size)
    if len(values) == 1:
        values = values * call.builder.dims
    if len(values) != call.builder.dims:
        raise ValueError("a size has another number of axes")
    count = len(call.builder.alive)
    return np.stack(
        [np.broadcast_to(np.asarray(plain_number(v), np.int64), (count,)) for v in values], axis=1
    )


def _dense(call: Call) -> Any:
    x, weight = call.x, call.kernel(1)
    if x.order[-1] != CHANNEL:
        raise unsupported("a dense layer that does not mix the channels")
    return call.builder.dense(x, weight, call.weight(2, "bias"), call.name(weight))


def _pixel_shuffle(call: Call) -> Any:
    if call.builder.dims != 2:
        raise unsupported("pixel_shuffle of volumes")
    return call.builder.pixel_shuffle(call.x, call.whole(1))


def _dropout(whole_channels: bool) -> Callable[[Call], Any]:
    return lambda call: call.builder.dropout(call.x, call.number(1), whole_channels=whole_channels)


LAYERS: dict[str, Operation] = {
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
    "layer_norm": _layer_norm,
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
    "dropout": _dropout(whole_channels=False),
    "feature_dropout": _dropout(whole_channels=True),
    "linear": _dense,
    "pixel_shuffle": _pixel_shuffle,
}
