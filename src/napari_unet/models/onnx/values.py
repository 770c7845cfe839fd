"""What the operations of an ONNX file read and give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_unet.models.building.features import Feature
from napari_unet.models.building.refusals import unsupported

if TYPE_CHECKING:
    import numpy as np

    from napari_unet.models.onnx.reader import Reader


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


Translate = Callable[["Reader", Step], Any]
