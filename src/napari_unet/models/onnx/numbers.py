"""Arithmetic on sizes and other small numbers, as ONNX defines it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from napari_unet.models.building.refusals import unsupported

if TYPE_CHECKING:
    from collections.abc import Callable

LARGEST_COMPUTED = 1 << 20
"""Numbers in an array that is computed."""
_LARGEST_INT = 2.0**62


def _integer_or_real_division(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Divide as ONNX does: whole numbers are cut towards zero."""
    if a.dtype.kind in "iu" and b.dtype.kind in "iu":
        exact = np.sign(a) * np.sign(b) * (np.abs(a) // np.maximum(np.abs(b), 1))
        return np.asarray(exact, a.dtype)
    return np.asarray(a / b)


def _reshaped(options: dict[str, Any], a: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Reshape; 0 keeps a size."""
    target = [int(v) for v in shape.reshape(-1)]
    if not options.get("allowzero", 0):
        target = [a.shape[i] if v == 0 else v for i, v in enumerate(target)]
    return a.reshape(target)


def _sliced(options: dict[str, Any], a: np.ndarray, *given: np.ndarray | None) -> np.ndarray:
    """Slice, in both ways of giving its numbers."""
    if given and given[0] is not None and given[1] is not None:
        starts, ends = given[0].tolist(), given[1].tolist()
        axes = given[2].tolist() if len(given) > 2 and given[2] is not None else None
        steps = given[3].tolist() if len(given) > 3 and given[3] is not None else None
    else:
        starts, ends = list(options["starts"]), list(options["ends"])
        axes, steps = options.get("axes"), None
    axes = list(range(len(starts))) if axes is None else list(axes)
    steps = steps or [1] * len(starts)
    parts = [slice(None)] * a.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        beyond = end < -a.shape[axis] and step < 0
        parts[axis] = slice(start, None if beyond else end, step)
    return a[tuple(parts)]


def _axes(options: dict[str, Any], given: tuple[np.ndarray | None, ...]) -> tuple[int, ...] | None:
    """Return axes that are an option in old files and an input in new ones."""
    if given and given[0] is not None:
        return tuple(int(v) for v in given[0].reshape(-1))
    axes = options.get("axes")
    return None if axes is None else tuple(int(v) for v in axes)


def _unsqueezed(options: dict[str, Any], a: np.ndarray, *given: np.ndarray | None) -> np.ndarray:
    return np.expand_dims(a, _axes(options, given) or ())


def _squeezed_array(
    options: dict[str, Any], a: np.ndarray, *given: np.ndarray | None
) -> np.ndarray:
    return np.squeeze(a, axis=_axes(options, given))


def _reduced(function: Callable[..., Any]) -> Callable[..., np.ndarray]:
    """Return the folding of a reduction."""

    def fold(options: dict[str, Any], a: np.ndarray, *given: np.ndarray | None) -> np.ndarray:
        keep = bool(options.get("keepdims", 1))
        return np.asarray(function(a, axis=_axes(options, given), keepdims=keep), a.dtype)

    return fold


def _filled(options: dict[str, Any], shape: np.ndarray) -> np.ndarray:
    """ConstantOfShape."""
    value = options.get("value")
    number = np.zeros(1, np.float32) if value is None else numpy_helper.to_array(value)
    return np.full(_small_shape(shape), number.reshape(-1)[0], number.dtype)


def _small_shape(shape: np.ndarray) -> tuple[int, ...]:
    """Refuse to compute an array that is much larger than sizes are."""
    sizes = tuple(int(v) for v in np.asarray(shape).reshape(-1))
    if math.prod(max(size, 1) for size in sizes) > LARGEST_COMPUTED or min((0, *sizes)) < 0:
        raise unsupported("computing a very large constant")
    return sizes


def _range(_: dict[str, Any], start: np.ndarray, stop: np.ndarray, step: np.ndarray) -> np.ndarray:
    count = abs(float(stop) - float(start)) / max(abs(float(step)), 1e-9)
    _small_shape(np.array([min(count, 1e12)]).astype(np.int64))
    return np.arange(start.item(), stop.item(), step.item()).astype(start.dtype)


def _expanded(_: dict[str, Any], a: np.ndarray, shape: np.ndarray) -> np.ndarray:
    target = np.broadcast_shapes(a.shape, _small_shape(shape))
    _small_shape(np.array(target))
    return np.array(np.broadcast_to(a, target))


def _tiled(_: dict[str, Any], a: np.ndarray, repeats: np.ndarray) -> np.ndarray:
    times = [int(v) for v in repeats.reshape(-1)]
    _small_shape(np.array([s * t for s, t in zip(a.shape, times, strict=True)]))
    return np.tile(a, times)


def _cast_array(options: dict[str, Any], a: np.ndarray) -> np.ndarray:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(int(options["to"]))
    if a.dtype.kind == "f" and dtype.kind in "iu":
        a = np.nan_to_num(a).clip(-_LARGEST_INT, _LARGEST_INT)
    return a.astype(dtype)


def _split_array(options: dict[str, Any], a: np.ndarray, *given: np.ndarray | None) -> list[Any]:
    axis = int(options.get("axis", 0))
    sizes = given[0] if given and given[0] is not None else options.get("split")
    if sizes is None:
        count = int(options.get("num_outputs") or a.shape[axis])
        return list(np.array_split(a, min(count, a.shape[axis]), axis))
    return list(np.split(a, np.cumsum(np.asarray(sizes))[:-1], axis))


def _scattered(
    _: dict[str, Any], a: np.ndarray, places: np.ndarray, values: np.ndarray
) -> np.ndarray:
    """ScatterND."""
    a = a.copy()
    a[tuple(np.moveaxis(places, -1, 0))] = values
    return a


def _batch_flattened(options: dict[str, Any], a: np.ndarray) -> np.ndarray:
    axis = int(options.get("axis", 1))
    return a.reshape(math.prod(a.shape[:axis]), -1)


def _pairwise(function: Callable[..., Any]) -> Callable[..., np.ndarray]:
    """Return the folding of an operation without options."""
    return lambda _, *arrays: function(*arrays)


def _extreme(function: Callable[..., Any]) -> Callable[..., np.ndarray]:
    """Return the folding of Min or Max of any number of arrays."""

    def fold(_: dict[str, Any], first: np.ndarray, *others: np.ndarray) -> np.ndarray:
        for other in others:
            first = function(first, other)
        return first

    return fold


FOLDED: dict[str, Callable[..., Any]] = {
    "Identity": lambda _, a: a,
    "Dropout": lambda _, a, *rest: a,
    "Gather": lambda o, a, at: np.take(a, at, axis=int(o.get("axis", 0))),
    "GatherND": lambda _, a, at: a[tuple(np.moveaxis(at, -1, 0))],
    "Concat": lambda o, *arrays: np.concatenate(arrays, axis=int(o["axis"])),
    "Slice": _sliced,
    "Cast": _cast_array,
    "CastLike": lambda _, a, like: a.astype(like.dtype),
    "Unsqueeze": _unsqueezed,
    "Squeeze": _squeezed_array,
    "Reshape": _reshaped,
    "Flatten": _batch_flattened,
    "Transpose": lambda o, a: np.transpose(a, o.get("perm")),
    "Add": _pairwise(np.add),
    "Sub": _pairwise(np.subtract),
    "Mul": _pairwise(np.multiply),
    "Div": _pairwise(_integer_or_real_division),
    "Mod": lambda o, a, b: np.fmod(a, b) if o.get("fmod", 0) else np.mod(a, b),
    "Pow": lambda _, a, b: np.power(a.astype(float), b).astype(a.dtype),
    "Floor": _pairwise(np.floor),
    "Ceil": _pairwise(np.ceil),
    "Round": _pairwise(np.rint),
    "Neg": _pairwise(np.negative),
    "Abs": _pairwise(np.abs),
    "Sqrt": _pairwise(np.sqrt),
    "Reciprocal": _pairwise(np.reciprocal),
    "Exp": _pairwise(np.exp),
    "Log": _pairwise(np.log),
    "Sign": _pairwise(np.sign),
    "Min": _extreme(np.minimum),
    "Max": _extreme(np.maximum),
    "Equal": _pairwise(np.equal),
    "Greater": _pairwise(np.greater),
    "GreaterOrEqual": _pairwise(np.greater_equal),
    "Less": _pairwise(np.less),
    "LessOrEqual": _pairwise(np.less_equal),
    "Not": _pairwise(np.logical_not),
    "And": _pairwise(np.logical_and),
    "Or": _pairwise(np.logical_or),
    "Where": _pairwise(np.where),
    "Range": _range,
    "ConstantOfShape": _filled,
    "Expand": _expanded,
    "Tile": _tiled,
    "ReduceProd": _reduced(np.prod),
    "ReduceSum": _reduced(np.sum),
    "ReduceMax": _reduced(np.max),
    "ReduceMin": _reduced(np.min),
    "Split": _split_array,
    "ScatterND": _scattered,
}
