"""Lists, shapes and loops of TorchScript."""

from __future__ import annotations

import math
from typing import Any

import torch

from napari_unet.models.building.features import Feature
from napari_unet.models.building.refusals import unsupported
from napari_unet.models.torchscript.calls import LONGEST_LIST, Call, Operation, listed


def _size(call: Call) -> Any:
    value = call.get(0)
    if isinstance(value, torch.Tensor):
        shape: list[Any] = list(value.shape)
    elif isinstance(value, Feature):
        call.at.asked_sizes = True
        shape = [call.at.number(size) for size in value.shape]
    else:
        raise unsupported("the size of what is no layer's result")
    return shape if len(call.arguments) < 2 else shape[call.whole(1)]


def _dim(call: Call) -> int:
    value = call.get(0)
    return value.ndim if isinstance(value, torch.Tensor) else len(call.x.order)


def _length(call: Call) -> int:
    value = call.get(0)
    if isinstance(value, list | tuple | dict | str):
        return len(value)
    if isinstance(value, Feature):
        return int(call.at.whole(value.shape[0]))
    raise unsupported("the length of what is no list")


def _append(call: Call) -> Any:
    target = call.get(0)
    if not isinstance(target, list) or len(target) > LONGEST_LIST:
        raise ValueError("a list was expected")
    target.append(call.get(1))
    return target


def _insert(call: Call) -> Any:
    target = call.get(0)
    if not isinstance(target, list) or len(target) > LONGEST_LIST:
        raise ValueError("a list was expected")
    target.insert(call.whole(1), call.get(2))
    return target


def _pop(call: Call) -> Any:
    target = call.get(0)
    if not isinstance(target, list):
        raise ValueError("a list was expected")
    return target.pop(call.whole(1, "", -1))


def _extend(call: Call) -> None:
    target, more = call.get(0), listed(call.get(1))
    if not isinstance(target, list) or len(target) + len(more) > LONGEST_LIST:
        raise ValueError("a list was expected")
    target.extend(more)


def _reverse(call: Call) -> None:
    target = call.get(0)
    if not isinstance(target, list):
        raise ValueError("a list was expected")
    target.reverse()


def _set_item(call: Call) -> Any:
    target = call.get(0)
    if not isinstance(target, list):
        raise unsupported("writing into a layer's result")
    target[call.whole(1)] = call.get(2)
    return target


def _get_item(call: Call) -> Any:
    target = call.get(0)
    if not isinstance(target, list | tuple | dict):
        raise unsupported("an item of what is no list")
    return target[call.get(1)] if isinstance(target, dict) else target[call.whole(1)]


def _range(call: Call) -> range:
    numbers = [call.at.whole(value) for value in call.arguments]
    result = range(*numbers)
    if len(result) > LONGEST_LIST:
        raise unsupported("a loop of very many steps")
    return result


def _contains(call: Call) -> bool:
    holder = call.get(0)
    if not isinstance(holder, list | tuple | dict):
        raise ValueError("a list was expected")
    return any(isinstance(v, type(call.get(1))) and v == call.get(1) for v in holder)


LISTS: dict[str, Operation] = {
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
    "list": lambda call: listed(call.get(0)),
    "copy": lambda call: listed(call.get(0)),
    "keys": lambda call: list(call.get(0)),
    "values": lambda call: list(call.get(0).values()),
    "numel": lambda call: math.prod(call.get(0).shape),
}

PLAIN_LISTS: dict[str, Operation] = {
    "range": _range,
    "len": _length,
    "list": lambda call: listed(call.get(0)),
}
