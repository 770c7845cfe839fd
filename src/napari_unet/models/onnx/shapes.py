"""What ONNX does with axes: joining, padding, cutting, and bringing them into another order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.models.building.features import CHANNEL, Feature
from napari_unet.models.building.refusals import unsupported
from napari_unet.models.onnx.values import Grouped, Step, Translate, Value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.models.onnx.reader import Reader
    from napari_unet.network.graph import PaddingMode

_PADDING_MODES: dict[str, PaddingMode] = {
    "constant": "zeros",
    "reflect": "reflect",
    "edge": "replicate",
    "wrap": "circular",
}


def _concat(reader: Reader, step: Step) -> Value:
    parts = [value for value in step.inputs if isinstance(value, Feature)]
    if len(parts) != len(step.inputs):
        raise unsupported("joining of a layer with fixed numbers")
    if parts[0].order[int(step.options["axis"])] != CHANNEL:
        raise unsupported("joining along an axis that is not the channels")
    return reader.builder.join("concatenate", parts)


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


def _expand(reader: Reader, step: Step) -> Value:
    """Repeat pixels of a feature of size 1; joins repeat by themselves."""
    x = step.x
    if len(x.order) == 2 + reader.builder.dims and (x.sizes == 1).all():
        return x
    raise unsupported(step.op)


SHAPES: dict[str, Translate] = {
    "Concat": _concat,
    "Pad": _pad,
    "Slice": _slice,
    "Split": _split,
    "Transpose": _transpose,
    **dict.fromkeys("Reshape Flatten Squeeze Unsqueeze".split(), _reshape),
    "Expand": _expand,
}
