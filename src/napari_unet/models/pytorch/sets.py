"""Which of the tensors in a checkpoint are the network's weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from napari_unet.errors import ModelError
from napari_unet.models.pickles import Made
from napari_unet.models.pytorch.advice import HOW_TO_SAVE
from napari_unet.models.pytorch.saved import MOST_DEPTH
from napari_unet.models.pytorch.storages import as_tensor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

_WEIGHTS_KEYS = (
    "state_dict model_state_dict model_state model model_dict net net_state_dict network "
    "network_weights module weights params unet generator netG state"
).split()
"""Where checkpoints keep the weights, the likeliest first."""

_AVERAGED = ("ema", "swa", "averaged", "shadow")
_LONGEST_LIST = 100
"""Of what a program saved side by side, as ``(net.state_dict(), optimizer.state_dict())``."""
_MOST_NAMED = 5
_NO_WEIGHTS = ("optim", "scheduler", "scaler", "loss", "discriminator", "netD", "callbacks")


class TensorSet(NamedTuple):
    """Named tensors in a file."""

    sentence: str
    """On the choice, where there was one."""
    tensors: dict[str, torch.Tensor]
    where: str = ""
    """The keys that lead there."""


def state_dicts(path: Path, content: Any) -> list[TensorSet]:
    """Find the sets of named tensors in what was read, the likeliest first."""
    found: list[tuple[tuple[str, ...], dict[str, torch.Tensor]]] = []
    modules: list[str] = []
    _collect(content, (), found, modules, set())
    usable = [(keys, tensors) for keys, tensors in found if not _is_other(keys)]
    if not usable:
        raise ModelError(_why_nothing(path, content, found, modules))
    usable.sort(key=lambda item: _rank(item[0]))
    result = []
    for keys, tensors in usable:
        where = ".".join(keys)
        sentence = ""
        if any(word in where.lower() for word in _AVERAGED) and keys == usable[0][0]:
            sentence = f"The file holds averaged weights only ({where}); they were taken."
        elif len(usable) > 1:
            others = [".".join(other) or "itself" for other, _ in usable if other != keys]
            sentence = which_was_taken(where or "its own", others)
        result.append(TensorSet(sentence, tensors, where))
    return result


def which_was_taken(taken: str, others: Sequence[str]) -> str:
    """Say which of several sets of weights was taken, and name the first of the others."""
    more = len(others) - _MOST_NAMED
    named = ", ".join(others[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
    return f"The file holds several sets of weights; {taken} was taken, not {named}."


def _collect(
    value: Any,
    keys: tuple[str, ...],
    found: list[tuple[tuple[str, ...], dict[str, torch.Tensor]]],
    modules: list[str],
    seen: set[int],
) -> None:
    """Walk through dicts in dicts and lists; note the tensors with names, and whole networks."""
    if id(value) in seen or len(keys) > MOST_DEPTH:
        return
    seen.add(id(value))
    if isinstance(value, Made):
        if isinstance(value.state, dict) and "_modules" in value.state:
            modules.append(value.by)
            return
        value = {**value.items, **(value.state if isinstance(value.state, dict) else {})}
    if isinstance(value, list | tuple) and len(value) <= _LONGEST_LIST:
        value = {str(number): item for number, item in enumerate(value) if not _is_plain(item)}
    if not isinstance(value, dict):
        return
    tensors = {
        key: tensor
        for key, item in value.items()
        if isinstance(key, str) and (tensor := as_tensor(item)) is not None
    }
    if any(tensor.ndim > 2 for tensor in tensors.values()):
        found.append((keys, tensors))
    for key, item in value.items():
        if isinstance(key, str):
            _collect(item, (*keys, key), found, modules, seen)


def _is_plain(item: Any) -> bool:
    """Say whether something in a list is a tensor or a number: it has no name there."""
    return not isinstance(item, dict | list | tuple | Made) or as_tensor(item) is not None


def _is_other(keys: tuple[str, ...]) -> bool:
    """Say whether tensors under these keys belong to something else than the network."""
    return any(key.lower().startswith(word.lower()) for key in keys for word in _NO_WEIGHTS)


def _rank(keys: tuple[str, ...]) -> tuple[int, int, int]:
    """Return what puts the likeliest place of the weights first."""
    where = ".".join(keys).lower()
    averaged = any(word in where for word in _AVERAGED)
    first = keys[0] if keys else ""
    place = _WEIGHTS_KEYS.index(first) if first in _WEIGHTS_KEYS else len(_WEIGHTS_KEYS)
    return averaged, len(keys), place


def _why_nothing(path: Path, content: Any, found: list[Any], modules: list[str]) -> str:
    """Say why there are no weights in a file that could be read."""
    if modules:
        cls = modules[0].rpartition(".")[2]
        return (
            f"{path.name} holds a whole pickled network ({cls}), which only its own program can "
            f"open, and which would run that program's code. Ask the sender to save the weights "
            f"alone: {HOW_TO_SAVE}."
        )
    if found or (isinstance(content, dict) and {"param_groups", "state"} <= content.keys()):
        return (
            f"{path.name} holds the state of an optimiser but not the network's weights. Ask the "
            f"sender for the weights: {HOW_TO_SAVE}."
        )
    return nothing(path)


def nothing(path: Path) -> str:
    """Say that there are no weights in a file."""
    return (
        f"{path.name} holds no weights of a network: there is no tensor of a convolution in it. "
        f"Choose a file that was saved with {HOW_TO_SAVE}."
    )
