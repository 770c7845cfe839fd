"""The layers of ONNX: what each is in a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unet.models.building.features import CHANNEL
from napari_unet.models.building.refusals import unsupported
from napari_unet.models.onnx.values import Grouped, Step, Translate, Value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.models.onnx.reader import Reader
    from napari_unet.network.graph import Sides


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


def _layer_norm(reader: Reader, step: Step) -> Value:
    """Over the channels of each pixel, which stand last."""
    x = step.x
    axis = int(step.options.get("axis", -1)) % len(x.order)
    if axis != len(x.order) - 1 or x.order[axis] != CHANNEL or step.results > 1:
        raise unsupported("a layer norm that is not over the channels of each pixel")
    normed = reader.builder.norm(
        x.reordered(x.plain),
        "layer",
        reader.weights_of(step.given(1)),
        reader.optional(step.inputs, 2),
        eps=float(step.options.get("epsilon", 1e-5)),
        name=step.name,
    )
    return normed.reordered(x.order)


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


LAYERS: dict[str, Translate] = {
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "BatchNormalization": _batch_norm,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    "LayerNormalization": _layer_norm,
    "MaxPool": _pooling,
    "AveragePool": _pooling,
    "GlobalAveragePool": _global_average,
    "ReduceMean": _reduce_mean,
    "Gemm": _matrix,
    "MatMul": _matrix,
}
