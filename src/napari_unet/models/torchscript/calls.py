"""A call of an operation: what it is given, as numbers, weights or features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_unet.models.building.features import Feature
from napari_unet.models.building.refusals import unsupported

if TYPE_CHECKING:
    from napari_unet.models.building.builder import GraphBuilder
    from napari_unet.models.torchscript.interpreter import Interpreter

LONGEST_LIST = 10_000


class Call:
    """A call of an operation: its arguments by place or by name."""

    def __init__(self, at: Interpreter, arguments: list[Any], named: dict[str, Any]) -> None:
        self.at, self.arguments, self.named = at, arguments, named

    @property
    def builder(self) -> GraphBuilder:
        """Gets the layers."""
        return self.at.builder

    @property
    def x(self) -> Feature:
        """The first argument, which must be a feature."""
        if not self.arguments or not isinstance(self.arguments[0], Feature):
            raise unsupported("a layer that reads what is no layer's result")
        return self.arguments[0]

    def get(self, place: int, name: str = "", default: Any = None) -> Any:
        """Return an argument."""
        if place < len(self.arguments):
            return self.arguments[place]
        return self.named.get(name, default)

    def weight(self, place: int, name: str = "") -> torch.Tensor | None:
        """Return an argument that is a weight or None."""
        value = self.get(place, name)
        if value is not None and not isinstance(value, torch.Tensor):
            raise unsupported("weights that are computed")
        return value

    def kernel(self, place: int) -> torch.Tensor:
        """Return an argument that is a weight."""
        value = self.weight(place)
        if value is None:
            raise unsupported("a layer without weights")
        return value

    def ints(self, place: int, name: str = "", default: Sequence[int] = ()) -> list[int]:
        """Return an argument that is a list of whole numbers, or one."""
        value = self.get(place, name, default)
        if isinstance(value, list | tuple):
            return [self.at.whole(v) for v in value]
        return [self.at.whole(value)]

    def whole(self, place: int, name: str = "", default: int = 0) -> int:
        """Return an argument that is a whole number."""
        return self.at.whole(self.get(place, name, default))

    def number(self, place: int, name: str = "", default: float = 0.0) -> float:
        """Return an argument that is a number."""
        value = self.at.number(self.get(place, name, default))
        if isinstance(value, torch.Tensor) and value.numel() == 1:
            value = value.item()
        if not isinstance(value, int | float):
            raise unsupported("a number that depends on the image")
        return float(value)

    def each(self, numbers: list[int]) -> list[int]:
        """Repeat a single number for each spatial axis."""
        return numbers * self.builder.dims if len(numbers) == 1 else numbers

    def name(self, weight: torch.Tensor | None) -> str:
        """Name a layer after its weight."""
        return self.at.paths.get(id(weight), "")


def listed(value: Any) -> list[Any]:
    """Return a list; a single value is a list of one."""
    return list(value) if isinstance(value, list | tuple) else [value]


def plain_number(value: Any) -> Any:
    """Return a number, or one per probe; a tensor of one number is that number."""
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return value.item()
    if isinstance(value, bool | int | float | np.ndarray):
        return value
    raise unsupported("a number that depends on the content of the image")


Operation = Callable[[Call], Any]
