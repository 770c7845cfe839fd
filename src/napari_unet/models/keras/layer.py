"""A layer of Keras as a file describes it.

Keras keeps kernels as (*kernel, in, out) and its channels are usually last. ``padding="same"``
pads as much as is needed, the odd pixel after; of layers with strides that depends on the size,
and is taken for sizes that are multiples of the stride, as those of tiles are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_unet.models.building.features import Feature
from napari_unet.models.building.refusals import unsupported

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_unet.models.building.builder import GraphBuilder
    from napari_unet.network.graph import Sides


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer as a file describes it.

    Attributes
    ----------
    builder : GraphBuilder
        Gets the layers.
    order : tuple of int
        How the axes of images are ordered in the network.
    version : int
        Main version of Keras.
    name, kind : str
        Name and class of the layer.
    settings : dict
        Its configuration.
    inputs : list of Feature
        What it reads.
    weights : list of ndarray
        In the order of Keras.
    """

    builder: GraphBuilder
    order: tuple[int, ...]
    version: int
    name: str
    kind: str
    settings: dict[str, Any]
    inputs: list[Feature]
    weights: list[NDArray[Any]]

    @property
    def x(self) -> Feature:
        """The only input, as it is."""
        if len(self.inputs) != 1:
            raise unsupported(f"the layer {self.kind} with {len(self.inputs)} inputs")
        return self.inputs[0]

    @property
    def image(self) -> Feature:
        """The only input, with axes (N, C, *spatial)."""
        x = self.x
        if x.order != self.order:
            raise unsupported(f"the layer {self.kind} on data whose axes were exchanged")
        return x.reordered(x.plain)

    def each(self, key: str, default: int = 1) -> list[int]:
        """Return a setting per spatial axis."""
        value = self.settings.get(key)
        value = default if value is None else value
        numbers = list(value) if isinstance(value, list | tuple) else [value]
        numbers = [int(n) for n in numbers]
        return numbers * self.builder.dims if len(numbers) == 1 else numbers

    def weight(self, place: int) -> torch.Tensor:
        """Return a weight."""
        if place >= len(self.weights):
            raise ValueError(f"layer {self.name} lacks weights")
        return torch.from_numpy(np.array(self.weights[place], np.float32))

    def kernel(self, place: int = 0) -> torch.Tensor:
        """Return a kernel (*kernel, a, b) as (b, a, *kernel)."""
        kernel = self.weight(place)
        if kernel.ndim != 2 + self.builder.dims:
            raise unsupported(f"the layer {self.kind} on images of {self.builder.dims} axes")
        return kernel.permute(-1, -2, *range(self.builder.dims))

    def bias(self, place: int) -> torch.Tensor | None:
        """Return the bias, if the layer has one."""
        return self.weight(place) if self.settings.get("use_bias", True) else None


def sides_of(layer: Layer, kernel: list[int], stride: list[int], dilation: list[int]) -> Sides:
    """Return what is padded."""
    padding = layer.settings.get("padding", "valid")
    if padding == "valid":
        return ((0, 0),) * layer.builder.dims
    if padding != "same":
        raise unsupported(f"padding of the kind {padding}")
    sides = []
    for axis, (size, step, spread) in enumerate(zip(kernel, stride, dilation, strict=True)):
        total = max((size - 1) * spread + 1 - step, 0)
        sides.append((total // 2, total - total // 2))
        if step > 1:
            rest = layer.image.sizes[:, axis] % step
            layer.builder.kill(rest != 0, "pads to sizes that do not divide by its strides")
    return tuple(sides)


def same(layer: Layer) -> Feature:
    """Give what is read."""
    return layer.x


Translate = Callable[[Layer], Feature]
