"""Where the weights of a layer stand in a Keras file: by names, or numbered."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari_unet.models.hdf5 import Hdf5

Weights = Callable[[str, str], list[NDArray[Any]]]
_FOLDERS = ("layers", "_layer_checkpoint_dependencies", "_self_tracked_trackables", "_layers")


def named(held: Hdf5, prefix: str) -> Weights:
    """Find weights in the layout of ``.h5``: groups called like the layers."""

    def weights(name: str, _: str) -> list[NDArray[Any]]:
        """Read the weights of the layer that is called so."""
        # In a network within a network the group is that of the outer layer.
        outer, _, inner = name.partition("\0")
        names = _weight_names(held, f"{prefix}{outer}")
        if inner:
            last = inner.rpartition("\0")[2]
            names = [n for n in names if last in n.split("/")[:-1]]
        return [held.arrays[f"{prefix}{outer}/{n}"] for n in names]

    return weights


def _weight_names(held: Hdf5, group: str) -> list[str]:
    """Return the names of weights in their order; very long lists are kept in parts."""
    attributes = held.attributes.get(group, {})
    names = list(attributes.get("weight_names") or [])
    part = 0
    while f"weight_names{part}" in attributes:
        names += attributes[f"weight_names{part}"]
        part += 1
    return [str(name) for name in names]


def within(weights: Weights, name: str, kind: str) -> Weights:
    """Find the weights of layers in a network that stands in the place of a layer."""
    return lambda inner, inner_kind: weights(f"{name}\0{inner}", f"{kind}\0{inner_kind}")


def numbered(held: Hdf5) -> Weights:
    """Find weights in the layout of ``.keras``: numbered, in groups called like the class.

    The group of a layer tells the layer's name; in older files it does not, and groups are counted
    in the order of the layers.
    """
    children: dict[str, list[str]] = {}
    for path in held.attributes:
        parent, _, last = path.rpartition("/")
        children.setdefault(parent, []).append(last)
    seen: dict[tuple[str, str], dict[str, int]] = {}
    known: dict[tuple[str, str], str] = {}

    def group_of(parent: str, name: str, kind: str) -> str:
        """Return the group of a layer within that of its network."""
        for folder in _FOLDERS:
            base = f"{parent}/{folder}".lstrip("/")
            for child in children.get(base, []):
                told = held.attributes.get(f"{base}/{child}/vars", {}).get("name")
                if told == name:
                    return f"{base}/{child}"
        if (parent, name) not in known:
            snake = _snake(kind)
            counts = seen.setdefault((parent, snake), {})
            counts[name] = len(counts)
            number = counts[name]
            wanted = f"{snake}_{number}" if number else snake
            base = next(
                (b for f in _FOLDERS if (b := f"{parent}/{f}".lstrip("/")) in children), parent
            )
            known[parent, name] = f"{base}/{wanted}"
        return known[parent, name]

    def weights(name: str, kind: str) -> list[NDArray[Any]]:
        """Read the numbered weights of a layer."""
        group = ""
        for part, part_kind in zip(name.split("\0"), kind.split("\0"), strict=True):
            group = group_of(group, part, part_kind)
        found: list[NDArray[Any]] = []
        while f"{group}/vars/{len(found)}" in held.arrays:
            found.append(held.arrays[f"{group}/vars/{len(found)}"])
        return found

    return weights


def _snake(kind: str) -> str:
    """Write a class's name as Keras writes it: ``conv2d_transpose``."""
    name = re.sub(r"\W+", "", kind.rpartition(">")[2])
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
