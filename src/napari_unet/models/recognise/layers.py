"""Tensors by name become layers: what can be said before anything is known of the network.

A state dict names tensors ``<layer>.<role>``: ``encoder.0.conv.weight``, ``encoder.0.bn.bias``.
The shape of the weight tells what the layer is; the order of the file is the order in which the
layers were defined, which mostly is that in which they are computed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import torch

LayerKind = Literal["convolution", "norm", "prelu", "linear", "other"]

ROLES = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_ONE_NUMBER = 3  # parts that a name has then
_WAY_DOWN = 4  # one part of a network in so many is on the way down at least
_FEWEST_SPATIAL = 3  # axes of the weight of a convolution along one axis


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer and its tensors."""

    name: str
    """Name without the role: ``encoder.0.conv``."""
    kind: LayerKind
    """Convolutions, transposed or not: the shape alone does not tell."""
    tensors: Mapping[str, torch.Tensor]
    """By role: weight, bias, running_mean, running_var; or by full key where kind is other."""

    @property
    def weight(self) -> torch.Tensor:
        """The weight; a KeyError where there is none."""
        return self.tensors["weight"]

    @property
    def bias(self) -> torch.Tensor | None:
        """The bias, if there is one."""
        return self.tensors.get("bias")

    @property
    def has_bias(self) -> bool:
        """Whether there is a bias."""
        return "bias" in self.tensors

    @property
    def has_statistics(self) -> bool:
        """Whether it is a norm that remembers what it measured: batch norm."""
        return "running_mean" in self.tensors

    @property
    def is_affine(self) -> bool:
        """Whether a norm scales and shifts."""
        return "weight" in self.tensors

    @property
    def channels(self) -> int:
        """Channels of a norm or number of slopes of a prelu."""
        role = "weight" if self.is_affine else "running_mean"
        return self.tensors[role].numel()

    @cached_property
    def sizes(self) -> tuple[int, int]:
        """First two sizes of the weight: (out, in) of a convolution, (in, out) of a transposed."""
        return int(self.weight.shape[0]), int(self.weight.shape[1])

    @cached_property
    def kernel(self) -> tuple[int, ...]:
        """Size of the kernel along each spatial axis."""
        return tuple(int(size) for size in self.weight.shape[2:])

    @property
    def parent(self) -> str:
        """Name of the module that the layer stands in: ``encoder.0`` of ``encoder.0.conv``."""
        return self.name.rpartition(".")[0]

    @property
    def index(self) -> int | None:
        """Place in a sequence of modules, from 0, if its name is a number."""
        last = self.name.rpartition(".")[2]
        return int(last) if last.isdecimal() else None


@dataclass(frozen=True, eq=False)
class Layers:
    """All layers of a file.

    Attributes
    ----------
    tensors : dict of str to Tensor
        The state dict, prefixes of wrappers already taken off.
    """

    tensors: Mapping[str, torch.Tensor]
    _layers: dict[str, Layer] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        grouped: dict[str, dict[str, torch.Tensor]] = {}
        for key, tensor in self.tensors.items():
            name, _, role = key.rpartition(".")
            if role in ROLES and (role != "num_batches_tracked"):
                grouped.setdefault(name, {})[role] = tensor
            elif role not in ROLES:
                grouped.setdefault(key, {})[key] = tensor
        layers = {name: Layer(name, _kind(roles), roles) for name, roles in grouped.items()}
        object.__setattr__(self, "_layers", layers)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self._layers.values())

    def __len__(self) -> int:
        return len(self._layers)

    def __contains__(self, name: str) -> bool:
        return name in self._layers

    def __getitem__(self, name: str) -> Layer:
        return self._layers[name]

    def of_kind(self, kind: LayerKind) -> list[Layer]:
        """Return the layers of one kind, in the order of the file."""
        return [layer for layer in self._layers.values() if layer.kind == kind]

    @cached_property
    def spatial_dims(self) -> int:
        """Spatial axes of the convolutions: 1, 2 or 3; 0 if there are none or they differ."""
        axes = {layer.weight.ndim - 2 for layer in self.of_kind("convolution")}
        return axes.pop() if len(axes) == 1 else 0

    @cached_property
    def are_shuffled(self) -> bool:
        """Whether the layers stand in no order in which modules give theirs.

        A module gives its layers without those of others between, a sequence by its numbers, and
        a norm its weight first. Names with a number are mostly counted up, on the way up perhaps
        down.
        """
        names = [layer.name for layer in self]
        if names in (sorted(names), sorted(names, key=natural_order)):
            return False
        norms = [layer for layer in self.of_kind("norm") if layer.is_affine]
        if any(next(iter(norm.tensors)) != "weight" for norm in norms):
            return True
        return _are_interleaved(names) or _are_miscounted(names)

    def has_keys(self, *patterns: str) -> bool:
        """Say whether each pattern (a regular expression) fits the start of a key."""
        return all(any(re.match(pattern, key) for key in self.tensors) for pattern in patterns)


def _are_interleaved(names: Iterable[str]) -> bool:
    """Say whether layers of a module stand on both sides of another one's."""
    left: set[str] = set()
    inside: list[str] = []
    for name in names:
        parts = name.split(".")[:-1]
        modules = [".".join(parts[: at + 1]) for at in range(len(parts))]
        left.update(module for module in inside if module not in modules)
        if left & set(modules):
            return True
        inside = modules
    return False


def _are_miscounted(names: Sequence[str]) -> bool:
    """Say whether layers that are called alike, but for one number, stand in no order of it."""
    counted: dict[tuple[str, str], list[int]] = {}
    starts: dict[tuple[str, str], int] = {}
    for place, name in enumerate(names):
        parent, _, last = name.rpartition(".")
        parts = re.split(r"(\d+)", last)
        if len(parts) == _ONE_NUMBER:
            kind = (parent, f"{parts[0]}#{parts[2]}")
            counted.setdefault(kind, []).append(int(parts[1]))
            starts.setdefault(kind, place)
    for kind, numbers in counted.items():
        rising = sorted(numbers)
        may_fall = kind[1] != "#" and starts[kind] > len(names) // _WAY_DOWN
        if numbers != rising and not (may_fall and numbers == rising[::-1]):
            return True
    return False


def natural_order(key: str) -> tuple[tuple[int, int, str], ...]:
    """Return what to sort a key by so that ``conv2`` stands before ``conv10``."""
    parts = re.split(r"(\d+)", key)
    return tuple((0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts if p)


def _kind(roles: Mapping[str, torch.Tensor]) -> LayerKind:
    """Say what a layer is from the shapes of its tensors."""
    if "running_mean" in roles or "running_var" in roles:
        return "norm" if {"running_mean", "running_var"} <= roles.keys() else "other"
    weight = roles.get("weight")
    if weight is None:
        return "other"
    if weight.ndim >= _FEWEST_SPATIAL:
        return "convolution"
    if weight.ndim == 1:
        return "norm" if "bias" in roles else "prelu"
    return "linear" if weight.ndim == 2 else "other"
