"""What torch does with axes: joining, padding, cutting, and bringing them into another order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_unet.models.building.features import CHANNEL, Feature
from napari_unet.models.building.refusals import unsupported
from napari_unet.models.torchscript.calls import Call, Operation, listed, plain_number

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_unet.network.graph import PaddingMode

_MODES: dict[str, PaddingMode] = {
    "constant": "zeros",
    "reflect": "reflect",
    "replicate": "replicate",
    "circular": "circular",
}


def _concatenated(call: Call) -> Any:
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


def _pad(call: Call) -> Any:
    """Input, padding from the last axis on, mode, value."""
    kind = call.get(2, "mode", "constant")
    value = call.get(3, "value")
    return _padded(call, listed(call.get(1)), str(kind), value)


def _constant_pad(call: Call) -> Any:
    return _padded(call, listed(call.get(1)), "constant", call.get(2, "value"))


def _kind_of_pad(kind: str) -> Callable[[Call], Any]:
    return lambda call: _padded(call, listed(call.get(1)), kind, None)


def _padded(call: Call, pads: list[Any], kind: str, value: Any) -> Any:
    if kind not in _MODES:
        raise unsupported(f"padding of the kind {kind}")
    if len(pads) % 2 or len(pads) > 2 * call.builder.dims:
        raise unsupported("padding of channels")
    values = [plain_number(p) for p in pads]
    before: list[Any] = [0] * call.builder.dims
    after: list[Any] = [0] * call.builder.dims
    for place in range(len(pads) // 2):
        before[-1 - place], after[-1 - place] = values[2 * place], values[2 * place + 1]
    if value and any(np.any(np.asarray(v) > 0) for v in values):
        raise unsupported(f"padding with the value {value}")
    return call.builder.pad_by(call.x, before, after, _MODES[kind])


_LARGEST_INDEX = 1 << 62


def _slice(call: Call) -> Any:
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
        plain_number(0 if start is None else start),
        plain_number(_LARGEST_INDEX if stop is None else stop),
        call.whole(4, "step", 1),
    )


def _narrow(call: Call) -> Any:
    start = plain_number(call.get(2))
    return call.builder.slice(call.x, call.whole(1), start, start + plain_number(call.get(3)))


def _chunk(call: Call) -> Any:
    x, axis = call.x, call.whole(2, "dim")
    if x.order[axis] != CHANNEL:
        raise unsupported("splitting along an axis that is not the channels")
    each = -(-x.channels // max(call.whole(1), 1))
    return _parts(call, [each])


def _split(call: Call) -> Any:
    x, axis = call.x, call.whole(2, "dim")
    if x.order[axis] != CHANNEL:
        raise unsupported("splitting along an axis that is not the channels")
    return _parts(call, call.ints(1))


def _parts(call: Call, sizes: list[int]) -> list[Feature]:
    """Split channels by sizes, or by one size as often as it fits."""
    x, first, parts = call.x, 0, []
    if len(sizes) == 1 and sizes[0] > 0:
        sizes = [sizes[0]] * (-(-x.channels // sizes[0]))
    for size in sizes:
        parts.append(call.builder.channels(x, first, min(size, x.channels - first)))
        first += size
    return parts


def _permute(call: Call) -> Any:
    x = call.x
    wanted = call.ints(1)
    if sorted(axis % len(x.order) for axis in wanted) != list(range(len(x.order))):
        raise unsupported("a transposition of an unusual kind")
    return x.reordered(tuple(x.order[axis] for axis in wanted))


def _transpose(call: Call) -> Any:
    if isinstance(call.get(0), torch.Tensor):
        return call.get(0).transpose(call.whole(1), call.whole(2))
    order = list(call.x.order)
    one, other = call.whole(1), call.whole(2)
    order[one], order[other] = order[other], order[one]
    return call.x.reordered(tuple(order))


def _reshape(call: Call) -> Any:
    """View and reshape that keep an image, or the channels of a single pixel."""
    shape = [plain_number(v) for v in listed(call.get(1))]
    count = len(call.builder.alive)
    target = np.stack([np.broadcast_to(np.asarray(v, np.int64), (count,)) for v in shape], axis=1)
    return call.builder.reshape(call.x, target)


def _flatten(call: Call) -> Any:
    x = call.x
    first, last = call.whole(1, "start", 0), call.whole(2, "end", -1)
    now = np.stack(x.shape, axis=1)
    first, last = first % now.shape[1], last % now.shape[1]
    middle = now[:, first : last + 1].prod(axis=1, keepdims=True)
    return call.builder.reshape(
        x, np.concatenate([now[:, :first], middle, now[:, last + 1 :]], axis=1)
    )


def _squeeze(call: Call) -> Any:
    x = call.x
    now = np.stack(x.shape, axis=1)
    axes = {axis % now.shape[1] for axis in call.ints(1)} if call.get(1) is not None else None
    kept = [
        axis
        for axis in range(now.shape[1])
        if (now[:, axis] != 1).any() or (axes is not None and axis not in axes)
    ]
    return call.builder.reshape(x, now[:, kept])


def _unsqueeze(call: Call) -> Any:
    if isinstance(call.get(0), torch.Tensor):
        return call.get(0).unsqueeze(call.whole(1))
    x = call.x
    now = np.stack(x.shape, axis=1)
    axis = call.whole(1) % (now.shape[1] + 1)
    return call.builder.reshape(x, np.insert(now, axis, 1, axis=1))


def _expand(call: Call) -> Any:
    """Repeat a single pixel; joins repeat by themselves."""
    x = call.x
    if (x.sizes == 1).all():
        return x
    raise unsupported("expand")


SHAPES: dict[str, Operation] = {
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
    "permute": _permute,
    "transpose": _transpose,
    "reshape": _reshape,
    "view": _reshape,
    "flatten": _flatten,
    "squeeze": _squeeze,
    "unsqueeze": _unsqueeze,
    "expand": _expand,
    "expand_as": _expand,
}
