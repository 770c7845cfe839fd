"""The operations of ONNX: what layer each one is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_unet.models.graph_builder import CHANNEL, Feature, GraphBuilder, unsupported
from napari_unet.network.graph import Activation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_unet.models.onnx import Reader
    from napari_unet.network.graph import JoinKind, PaddingMode, Sides

_LINEAR_ABOVE = 15.0  # softplus differs from its input by less than 1e-6
_PADDING_MODES: dict[str, PaddingMode] = {
    "constant": "zeros",
    "reflect": "reflect",
    "edge": "replicate",
    "wrap": "circular",
}

_JOINS: dict[str, JoinKind] = {
    "Add": "add",
    "Sum": "add",
    "Sub": "subtract",
    "Mul": "multiply",
    "Max": "maximum",
}


@dataclass(frozen=True, eq=False)
class Known:
    """Numbers that do not depend on the image's content: one array, or one per probe."""

    arrays: tuple[np.ndarray, ...]

    @property
    def is_constant(self) -> bool:
        """Whether they are the same for every probe."""
        return len(self.arrays) == 1


@dataclass(frozen=True, eq=False)
class Grouped:
    """A feature whose channels were gathered in groups by a Reshape, for a norm of groups."""

    feature: Feature
    groups: int


@dataclass(frozen=True, eq=False)
class Above:
    """Where a feature is larger than a number: it is only known as a part of softplus."""

    feature: Feature
    threshold: float


Value = Feature | Known | Grouped | Above | None


@dataclass(frozen=True, eq=False)
class Step:
    """One operation: its inputs and options."""

    op: str
    inputs: list[Value]
    options: dict[str, Any]
    name: str
    results: int

    @property
    def x(self) -> Feature:
        """The first input, which must be a feature."""
        if not isinstance(self.inputs[0], Feature):
            raise unsupported(f"{self.op} of numbers that are no layer's result")
        return self.inputs[0]

    def given(self, place: int) -> Value:
        """Return an input, None where it is left out."""
        return self.inputs[place] if place < len(self.inputs) else None


def _windows(reader: Reader, step: Step, kernel: Sequence[int]) -> tuple[list[int], Sides]:
    """Return strides and paddings of a convolution or pooling."""
    dims = reader.builder.dims
    stride = list(step.options.get("strides", [1] * dims))
    dilation = list(step.options.get("dilations", [1] * dims))
    pads = list(step.options.get("pads", [0] * 2 * dims))
    automatic = step.options.get("auto_pad", "NOTSET")
    if len(stride) != dims or len(dilation) != dims or len(pads) != 2 * dims:
        raise unsupported(f"{step.op} with {len(stride)} strides on {dims} axes")
    if min(pads) < 0:
        raise unsupported(f"{step.op} with negative padding")
    if automatic == "VALID":
        pads = [0] * 2 * dims
    elif automatic in {"SAME_UPPER", "SAME_LOWER"}:
        pairs = []
        for axis in range(dims):
            reach = (kernel[axis] - 1) * dilation[axis] + 1
            # For sides that are multiples of the stride, as those of tiles are.
            if stride[axis] > 1:
                fits = step.x.sizes[:, axis] % stride[axis] == 0
                reader.builder.kill(~fits, "pads to sizes that do not divide by its strides")
            total = max(reach - stride[axis], 0)
            small, large = total // 2, total - total // 2
            pairs.append((small, large) if automatic == "SAME_UPPER" else (large, small))
        return stride, tuple(pairs)
    return stride, tuple(zip(pads[:dims], pads[dims:], strict=True))


def _convolution(reader: Reader, step: Step) -> Value:
    weight = reader.weights_of(step.given(1))
    stride, sides = _windows(reader, step, weight.shape[2:])
    return reader.builder.convolution(
        step.x,
        weight,
        reader.optional(step.inputs, 2),
        stride=stride,
        dilation=step.options.get("dilations", ()),
        padding=sides,
        groups=int(step.options.get("group", 1)),
        name=step.name,
    )


def _transposed(reader: Reader, step: Step) -> Value:
    dims, options, x = reader.builder.dims, step.options, step.x
    weight = reader.weights_of(step.given(1))
    if set(options.get("dilations", [1])) != {1}:
        raise unsupported("a transposed convolution with dilation")
    kernel = weight.shape[2:]
    stride = list(options.get("strides", [1] * dims))
    extra = list(options.get("output_padding", [0] * dims))
    pads = list(options.get("pads", [0] * 2 * dims))
    automatic = options.get("auto_pad", "NOTSET")
    wanted = options.get("output_shape")
    crops = []
    for axis in range(dims):
        full = (x.sizes[:, axis] - 1) * stride[axis] + kernel[axis] + extra[axis]
        if wanted:
            total = reader.builder.same(full - list(wanted)[-dims + axis])
        elif automatic in {"SAME_UPPER", "SAME_LOWER"}:
            total = kernel[axis] + extra[axis] - stride[axis]
        else:
            before, after = (0, 0) if automatic == "VALID" else (pads[axis], pads[dims + axis])
            crops.append((before, after - extra[axis]))
            continue
        first = total // 2 if automatic == "SAME_UPPER" else total - total // 2
        crops.append((first, total - first - extra[axis]))
    return reader.builder.transposed_convolution(
        x,
        weight,
        reader.optional(step.inputs, 2),
        stride=stride,
        crop=tuple(crops),
        groups=int(options.get("group", 1)),
        name=step.name,
    )


def _batch_norm(reader: Reader, step: Step) -> Value:
    scale, shift, mean, variance = (reader.weights_of(step.given(i)) for i in range(1, 5))
    return reader.builder.norm(
        step.x,
        "batch",
        scale,
        shift,
        mean=mean,
        variance=variance,
        eps=float(step.options.get("epsilon", 1e-5)),
        name=step.name,
    )


def _instance_norm(reader: Reader, step: Step) -> Value:
    scale, shift = reader.weights_of(step.given(1)), reader.weights_of(step.given(2))
    eps = float(step.options.get("epsilon", 1e-5))
    value = step.inputs[0]
    if isinstance(value, Grouped):
        if scale.shape != (value.groups,) or shift.shape != scale.shape:
            raise unsupported("a norm of groups with unusual weights")
        x = reader.builder.norm(value.feature, "group", eps=eps, groups=value.groups)
        each = value.feature.channels // value.groups
        x = (
            reader.builder.linear(x, scale.repeat_interleave(each), shift.repeat_interleave(each))
            if bool((scale != 1).any() or (shift != 0).any())
            else x
        )
        return Grouped(x, value.groups)
    return reader.builder.norm(step.x, "instance", scale, shift, eps=eps, name=step.name)


def _group_norm(reader: Reader, step: Step) -> Value:
    groups = int(step.options["num_groups"])
    scale, shift = reader.weights_of(step.given(1)), reader.weights_of(step.given(2))
    if scale.numel() == groups != step.x.channels:
        each = step.x.channels // groups
        scale, shift = scale.repeat_interleave(each), shift.repeat_interleave(each)
    return reader.builder.norm(
        step.x,
        "group",
        scale,
        shift,
        eps=float(step.options.get("epsilon", 1e-5)),
        groups=groups,
        name=step.name,
    )


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
    if op == "Elu":
        return builder.activation(step.x, "elu", slope=options.get("alpha", 1.0))
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
    if op == "Softmax":
        axis = int(options.get("axis", -1 if reader.opset >= 13 else 1))
        if reader.opset < 13 and axis != 1 and axis != len(step.x.order) - 1:
            raise unsupported("a softmax over several axes")
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


def _pooling(reader: Reader, step: Step) -> Value:
    kernel = list(step.options["kernel_shape"])
    if len(kernel) != reader.builder.dims or set(step.options.get("dilations", [1])) != {1}:
        raise unsupported(f"{step.op} with dilation")
    if step.results > 1:
        raise unsupported(f"{step.op} that keeps its places")
    stride, sides = _windows(reader, step, kernel)
    return reader.builder.pooling(
        step.x,
        "max" if step.op == "MaxPool" else "average",
        kernel,
        stride=stride,
        padding=sides,
        ceil=bool(step.options.get("ceil_mode", 0)),
        counts_padding=bool(step.options.get("count_include_pad", 0)),
    )


def _global_average(reader: Reader, step: Step) -> Value:
    return reader.builder.global_average(step.x)


def _reduce_mean(reader: Reader, step: Step) -> Value:
    x = step.x
    axes = step.options.get("axes")
    if axes is None and step.given(1) is not None:
        axes = reader.ints(step.given(1))
    places = {x.order[axis] for axis in axes or range(len(x.order))}
    if places != set(range(2, 2 + reader.builder.dims)):
        raise unsupported("a mean that is not over all pixels")
    mean = reader.builder.global_average(x)
    if step.options.get("keepdims", 1):
        return mean
    return mean.reordered(tuple(axis for axis in x.order if axis < 2))


def _resize(reader: Reader, step: Step) -> Value:
    """Resize of opset 10 and later, and Upsample of earlier ones."""
    builder, options, x = reader.builder, step.options, step.x
    order = x.order
    if len(order) != 2 + builder.dims:
        raise unsupported("resizing of what is no image")
    legacy = step.op == "Upsample" or reader.opset < 11
    scales = step.given(1 if legacy else 2) or None
    sizes = None if legacy else step.given(3)
    axes = list(options.get("axes", range(len(order))))
    if legacy and scales is None and "scales" in options:
        scales = Known((np.array(options["scales"]),))
    if isinstance(scales, Known) and scales.arrays[0].size == 0:
        scales = None
    wanted = np.stack(x.shape, axis=1)
    factors: NDArray[Any] | None = None
    if scales is not None:
        living = reader.fold(lambda _, a: np.asarray(a, float), [scales], {})[0]
        numbers = _floats_per_probe(reader, living)
        for place, axis in enumerate(axes):
            # In float32, as it is rounded where the file is run.
            exact = wanted[:, axis].astype(np.float32) * numbers[:, place].astype(np.float32)
            wanted[:, axis] = np.floor(exact)
        if (numbers[builder.alive] == numbers[builder.alive][:1]).all():
            factors = np.ones(len(order))
            factors[axes] = numbers[builder.alive][0]
    elif sizes is not None:
        for place, axis in enumerate(axes):
            wanted[:, axis] = reader.per_probe(sizes)[:, place]
    else:
        raise unsupported("resizing to no size")
    spatial = [order.index(2 + axis) for axis in range(builder.dims)]
    others = [place for place in range(len(order)) if place not in spatial]
    if (wanted[builder.alive][:, others] != np.stack(x.shape, 1)[builder.alive][:, others]).any():
        raise unsupported("resizing of channels")
    mode = options.get("mode", "nearest")
    how = options.get("coordinate_transformation_mode", "asymmetric" if legacy else "half_pixel")
    options = {"nearest_mode": "floor", **options} if legacy else options
    target = wanted[:, spatial]
    given = None if factors is None else [float(factors[place]) for place in spatial]
    if given is not None and len(builder.alive) == 1 and any(16 * f % 1 for f in given):
        given = None  # of the one size that was exported: it was made as large as another layer
    plain = x.reordered(x.plain)
    result = _resized(builder, plain, mode, how, options, given, target)
    return result.reordered(order)


def _floats_per_probe(reader: Reader, value: Value) -> np.ndarray:
    """Return a vector of real numbers for each probe."""
    if not isinstance(value, Known):
        raise unsupported("factors that depend on the content of the image")
    arrays = value.arrays * len(reader.builder.alive) if value.is_constant else value.arrays
    return np.stack([np.asarray(a, float).reshape(-1) for a in arrays])


def _resized(
    builder: GraphBuilder,
    x: Feature,
    mode: str,
    how: str,
    options: dict[str, Any],
    factors: list[float] | None,
    sizes: np.ndarray,
) -> Feature:
    """Resize by a rule of ONNX for which there is one of ours."""
    if factors is None:
        factors_known = builder.constant_scale(x, sizes)
        whole = factors_known is not None and all(f == int(f) for f in factors_known)
        factors = list(factors_known) if factors_known is not None and whole else None
    whole = factors is not None and all(f == int(f) for f in factors)
    if mode == "nearest":
        rule = options.get("nearest_mode", "round_prefer_floor")
        if how == "asymmetric" and rule == "floor":
            return builder.resize(x, "nearest", scale=factors, sizes=None if factors else sizes)
        if factors is None or not whole or not _repeats(how, rule, [int(f) for f in factors]):
            raise unsupported(f"nearest resizing of the kind {how}, {rule}")
        return builder.resize(x, "nearest", scale=factors)
    if mode not in {"linear", "cubic"}:
        raise unsupported(f"resizing of the kind {mode}")
    if mode == "cubic":
        if abs(options.get("cubic_coeff_a", -0.75) + 0.75) > 1e-6 or builder.dims != 2:
            raise unsupported("cubic resizing of an unusual kind")
    if how == "asymmetric" and mode == "linear" and factors is not None and whole:
        return builder.resize_from_corner(x, [int(f) for f in factors])
    if how not in {"half_pixel", "pytorch_half_pixel", "align_corners"}:
        raise unsupported(f"{mode} resizing of the kind {how}")
    return builder.resize(
        x,
        "linear" if mode == "linear" else "cubic",
        scale=factors,
        sizes=None if factors else sizes,
        align_corners=how == "align_corners",
    )


def _repeats(how: str, rule: str, factors: list[int]) -> bool:
    """Whether a rule for the nearest pixel repeats each pixel as often as the factor says."""
    for factor in factors:
        place = np.arange(8 * factor, dtype=float)
        if how in {"half_pixel", "pytorch_half_pixel", "half_pixel_symmetric"}:
            source = (place + 0.5) / factor - 0.5
        elif how == "asymmetric":
            source = place / factor
        elif how == "tf_half_pixel_for_nn":
            source = (place + 0.5) / factor
        else:
            return False
        nearest = {
            "round_prefer_floor": np.ceil(source - 0.5),
            "round_prefer_ceil": np.floor(source + 0.5),
            "floor": np.floor(source),
            "ceil": np.ceil(source),
        }.get(rule)
        if nearest is None or (np.clip(nearest, 0, 7) != place // factor).any():
            return False
    return True


def _concat(reader: Reader, step: Step) -> Value:
    parts = [value for value in step.inputs if isinstance(value, Feature)]
    if len(parts) != len(step.inputs):
        raise unsupported("joining of a layer with fixed numbers")
    if parts[0].order[int(step.options["axis"])] != CHANNEL:
        raise unsupported("joining along an axis that is not the channels")
    return reader.builder.join("concatenate", parts)


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


def _pad(reader: Reader, step: Step) -> Value:
    builder, x = reader.builder, step.x
    mode = _PADDING_MODES.get(step.options.get("mode", "constant"))
    if mode is None:
        raise unsupported(f"padding of the kind {step.options.get('mode')}")
    value: Any = step.options.get("value", 0.0)
    if step.given(2) is not None and reader.array(step.given(2)).size:
        value = reader.array(step.given(2)).reshape(-1)[0]
    given = step.options.get("pads", step.options.get("paddings"))
    pads = (
        np.tile(np.array(given, np.int64), (len(builder.alive), 1))
        if given is not None
        else reader.per_probe(step.given(1))
    )
    axes = list(range(len(x.order)))
    if step.given(3) is not None:
        axes = [axis % len(x.order) for axis in reader.ints(step.given(3))]
    if pads.shape[1] != 2 * len(axes):
        raise unsupported("padding of an unusual kind")
    before: list[Any] = [0] * builder.dims
    after: list[Any] = [0] * builder.dims
    for place, axis in enumerate(axes):
        first, last = pads[:, place], pads[:, len(axes) + place]
        if x.order[axis] >= 2:
            before[x.order[axis] - 2], after[x.order[axis] - 2] = first, last
        elif (first[builder.alive] | last[builder.alive]).any():
            raise unsupported("padding of channels")
    if float(value) != 0 and (np.any(pads[builder.alive] > 0)) and mode == "zeros":
        raise unsupported(f"padding with the value {float(value):g}")
    return builder.pad_by(x.reordered(x.plain), before, after, mode).reordered(x.order)


def _slice(reader: Reader, step: Step) -> Value:
    builder, options = reader.builder, step.options
    x = step.x
    if "starts" in options:
        count = len(builder.alive)
        starts = np.tile(np.array(options["starts"], np.int64), (count, 1))
        ends = np.tile(np.array(options["ends"], np.int64), (count, 1))
        axes = list(options.get("axes", range(starts.shape[1])))
        steps = [1] * len(axes)
    else:
        starts, ends = reader.per_probe(step.given(1)), reader.per_probe(step.given(2))
        given = step.given(3)
        axes = list(range(starts.shape[1])) if given is None else reader.ints(given)
        steps = [1] * len(axes) if step.given(4) is None else reader.ints(step.given(4))
    for place, axis in enumerate(axes):
        x = builder.slice(x, axis, starts[:, place], ends[:, place], steps[place])
    return x


def _split(reader: Reader, step: Step) -> list[Value]:
    x = step.x
    if x.order[int(step.options.get("axis", 0))] != CHANNEL:
        raise unsupported("splitting along an axis that is not the channels")
    sizes = step.options.get("split")
    if sizes is None and step.given(1) is not None:
        sizes = reader.ints(step.given(1))
    if sizes is None:
        each = -(-x.channels // step.results)
        sizes = [each] * (step.results - 1) + [x.channels - each * (step.results - 1)]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return [
        reader.builder.channels(x, int(start), int(count))
        for start, count in zip(starts, sizes, strict=False)
    ]


def _same(reader: Reader, step: Step) -> Value:
    return step.inputs[0]


def _cast(reader: Reader, step: Step) -> Value:
    if step.op == "Cast" and int(step.options["to"]) not in {1, 10, 11, 16}:
        raise unsupported("rounding of a layer's result to whole numbers")
    return step.inputs[0]


def _transpose(reader: Reader, step: Step) -> Value:
    x = step.x
    wanted = list(step.options.get("perm", range(len(x.order))[::-1]))
    if sorted(wanted) != list(range(len(x.order))):
        raise unsupported("a transposition of an unusual kind")
    return x.reordered(tuple(x.order[axis] for axis in wanted))


def _reshape(reader: Reader, step: Step) -> Value:
    """Reshape, Flatten, Squeeze, Unsqueeze that leave an image or channels in place."""
    builder, value = reader.builder, step.inputs[0]
    feature = value.feature if isinstance(value, Grouped) else step.x
    now = np.stack(feature.shape, axis=1)
    if step.op == "Reshape":
        target = reader.per_probe(step.given(1))
        if not isinstance(value, Grouped) and not step.options.get("allowzero", 0):
            for place in range(min(target.shape[1], now.shape[1])):
                target[:, place] = np.where(target[:, place] == 0, now[:, place], target[:, place])
    elif step.op == "Flatten":
        axis = int(step.options.get("axis", 1)) % len(feature.order)
        target = np.stack([now[:, :axis].prod(axis=1), now[:, axis:].prod(axis=1)], axis=1)
    else:
        axes = step.options.get("axes")
        if axes is None and step.given(1) is not None:
            axes = reader.ints(step.given(1))
        target = _squeezed(step.op, now, axes)
    total = now.prod(axis=1)
    known = np.where(target < 0, 1, target).prod(axis=1)
    target = np.where(target < 0, (total // np.maximum(known, 1))[:, None], target)
    alive = builder.alive
    if (target.prod(axis=1) != total)[alive].any():
        raise unsupported("a reshape of an unusual kind")
    if isinstance(value, Grouped):
        if target.shape == now.shape and (target == now)[alive].all():
            return feature
        groups = target[:, 1] if target.shape[1] > 1 else np.array([0])
        if (groups == value.groups)[alive].all() and feature.order == feature.plain:
            return value
        raise unsupported("a reshape in a norm of groups")
    plain = feature.order == feature.plain and target.shape[1] >= 3
    if (
        plain
        and (target[:, 0] == 1)[alive].all()
        and (target.shape != now.shape or (target != now)[alive].any())
    ):
        groups = target[:, 1][alive]
        if (groups == groups[0]).all() and 0 < groups[0] and feature.channels % groups[0] == 0:
            if (feature.sizes != 1)[alive].any():
                return Grouped(feature, int(groups[0]))
    return builder.reshape(feature, target)


def _squeezed(op: str, now: np.ndarray, axes: Sequence[int] | None) -> np.ndarray:
    """Give the shape without, or with more, axes of size 1."""
    count = now.shape[1]
    if op == "Squeeze":
        if axes is None:
            axes = [axis for axis in range(count) if (now[:, axis] == 1).all()]
        dropped = {axis % count for axis in axes}
        return now[:, [axis for axis in range(count) if axis not in dropped]]
    total = count + len(axes or ())
    added = {axis % total for axis in axes or ()}
    columns = iter(now.T)
    ones = np.ones(len(now), np.int64)
    return np.stack([ones if a in added else next(columns) for a in range(total)], axis=1)


def _depth_to_space(reader: Reader, step: Step) -> Value:
    if reader.builder.dims != 2:
        raise unsupported("DepthToSpace of volumes")
    return reader.builder.pixel_shuffle(
        step.x,
        int(step.options["blocksize"]),
        depth_first=step.options.get("mode", "DCR") == "DCR",
    )


def _matrix(reader: Reader, step: Step) -> Value:
    """Gemm and MatMul with weights that mix the channels."""
    weight = reader.weights_of(step.given(1))
    x = step.x
    if weight.ndim != 2 or x.order[-1] != CHANNEL:
        raise unsupported(f"{step.op} that does not mix the channels")
    bias = None
    if step.op == "Gemm":
        if step.options.get("transA", 0):
            raise unsupported("Gemm of a transposed layer")
        if not step.options.get("transB", 0):
            weight = weight.T
        weight = weight * float(step.options.get("alpha", 1.0))
        bias = reader.optional(step.inputs, 2)
        if bias is not None:
            bias = bias.reshape(-1).expand(weight.shape[0]) * float(step.options.get("beta", 1.0))
    else:
        weight = weight.T
    return reader.builder.dense(x, weight.contiguous(), bias, step.name)


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
    """Class numbers at the end: the probabilities before them say the same and more."""
    if step.options.get("select_last_index", 0):
        raise unsupported("ArgMax of an unusual kind")
    return reader.builder.activation(
        step.x, "softmax", axis=int(step.options.get("axis", 0)), name="classes"
    )


def _expand(reader: Reader, step: Step) -> Value:
    """Repeat pixels of a feature of size 1; joins repeat by themselves."""
    x = step.x
    if len(x.order) == 2 + reader.builder.dims and (x.sizes == 1).all():
        return x
    raise unsupported(step.op)


TRANSLATED: dict[str, Callable[[Reader, Step], Any]] = {
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    **dict.fromkeys(
        [*_PLAIN_ACTIVATIONS, *"LeakyRelu Elu Selu Gelu HardSigmoid PRelu Softmax".split()],
        _activation,
    ),
    "Clip": _clip,
    "MaxPool": _pooling,
    "AveragePool": _pooling,
    "GlobalAveragePool": _global_average,
    "ReduceMean": _reduce_mean,
    "Resize": _resize,
    "Upsample": _resize,
    "Concat": _concat,
    **dict.fromkeys("Add Sub Mul Div Max Sum".split(), _arithmetic),
    "Neg": lambda reader, step: reader.builder.linear(step.x, -1.0),
    "Pow": _pow,
    "Pad": _pad,
    "Slice": _slice,
    "Split": _split,
    "Identity": _same,
    "Dropout": _same,
    "Cast": _cast,
    "CastLike": _same,
    "Transpose": _transpose,
    **dict.fromkeys("Reshape Flatten Squeeze Unsqueeze".split(), _reshape),
    "DepthToSpace": _depth_to_space,
    "Gemm": _matrix,
    "MatMul": _matrix,
    "Erf": _erf,
    "Greater": _greater,
    "Where": _where,
    "ArgMax": _arg_max,
    "Expand": _expand,
}
