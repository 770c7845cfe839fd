"""The layers and weights that are known of a network, and the sizes for which it runs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_unet.errors import ModelError
from napari_unet.models.building.features import Feature, Ints
from napari_unet.models.building.refusals import unsupported
from napari_unet.network.graph import IMAGE, AnyNode, Sizes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MAX_NODES = 4096
MAX_CHANNELS = 2**16


class Notes:
    """What has been noted of a network so far: its layers, their weights, the sizes of image.

    Parameters
    ----------
    spatial_dims : int
        2 or 3.
    in_channels : int
        Channels of the image.
    sizes : ndarray of int64, shape (probes, spatial axes)
        Sizes of image that are followed.
    """

    def __init__(self, spatial_dims: int, in_channels: int, sizes: Ints) -> None:
        if spatial_dims not in {2, 3}:
            raise ModelError(
                f"The network works on data with {spatial_dims} spatial axes; planes have 2 and "
                "volumes have 3. Use a network for images."
            )
        if in_channels < 1:
            raise ModelError(
                "The file does not tell how many channels the image has. Export the network "
                "with a fixed number of channels."
            )
        self.dims = spatial_dims
        self.in_channels = in_channels
        self.alive = np.ones(len(sizes), bool)
        self.nodes: dict[str, AnyNode] = {}
        self.tensors: dict[str, dict[str, torch.Tensor]] = {}
        self.features: dict[str, Feature] = {}
        self.assumed: dict[str, str] = {}
        self.image = Feature(IMAGE, in_channels, sizes, tuple(range(2 + spatial_dims)))
        self.features[IMAGE] = self.image
        self._errors_of_gelu: dict[str, Feature] = {}
        self._ends: dict[str, str] = {}
        self._half_cropped: dict[str, tuple[Feature, Ints, Ints, ModelError]] = {}
        self._scaled_from: dict[str, tuple[Feature, float, float]] = {}

    def same(self, value: int | Ints) -> int:
        """Return the one value that all living probes have."""
        values = np.broadcast_to(np.asarray(value), self.alive.shape)[self.alive]
        if not len(values) or (values != values[0]).any():
            raise unsupported("a number that depends on the size of the image")
        return int(values[0])

    def kill(self, condition: NDArray[np.bool_], why: str) -> None:
        """Drop the probes for which the original cannot run."""
        self._keep(~condition, why)

    def constant_scale(self, x: Feature, sizes: Ints) -> tuple[float, ...] | None:
        """Find the factors by which all probes grow, if they are the same for all."""
        here, there = x.sizes[self.alive], sizes[self.alive]
        if not (there > 0).all():
            return None
        ratio = there / here
        simple = np.rint(ratio[0] * 16) == ratio[0] * 16
        if (ratio == ratio[0]).all() and simple.all():
            return tuple(float(r) for r in ratio[0])
        return None

    def _add(
        self,
        node: AnyNode,
        channels: int,
        sizes: Ints,
        *,
        order: tuple[int, ...] | None = None,
        **tensors: torch.Tensor | None,
    ) -> Feature:
        """Note a layer and its weights."""
        if len(self.nodes) >= MAX_NODES:
            raise ModelError(
                f"The network has more than {MAX_NODES} layers. Use one for microscopy images."
            )
        if channels > MAX_CHANNELS:
            raise ModelError(
                f"A layer of the network has {channels} channels, more than the {MAX_CHANNELS} "
                "that we support. Use one for microscopy images."
            )
        sizes = np.asarray(sizes, np.int64)
        self._keep(np.all(sizes > 0, axis=1), "leaves no pixels")
        self.nodes[node.name] = node
        kept = {key: _stored(tensor) for key, tensor in tensors.items() if tensor is not None}
        self.tensors[node.name] = kept
        feature = Feature(node.name, channels, sizes, order or tuple(range(2 + self.dims)))
        self.features[node.name] = feature
        return feature

    def _keep(self, condition: NDArray[np.bool_] | np.bool_, what: str) -> None:
        """Drop the probes that do not satisfy a condition; some must be left."""
        self.alive &= condition
        if not self.alive.any():
            raise ModelError(
                f"The network {what}, whatever the size of the image. The file is damaged or "
                "its layers are of a kind that is not known; use a state dict of the weights."
            )

    def _free(self, wanted: str) -> str:
        """Make a name that a layer may have and none has."""
        base = re.sub(r"[^A-Za-z0-9_]+", "_", wanted).strip("_")[:80] or "layer"
        if base[0].isdigit() or base == IMAGE:
            base = f"n{base}"
        name, number = base, 2
        while name in self.features:
            name, number = f"{base}_{number}", number + 1
        return name

    def _each(self, values: Sequence[int], default: int) -> Sizes:
        """Return one positive number per spatial axis."""
        numbers = tuple(int(v) for v in values) or (default,) * self.dims
        if len(numbers) == 1:
            numbers *= self.dims
        if len(numbers) != self.dims or min(numbers) < 1 or max(numbers) > 1 << 16:
            raise ModelError(
                f"A layer has the sizes {numbers}, {self.dims} numbers of at least 1 were "
                "expected. The file is damaged; use an undamaged copy."
            )
        return numbers

    def _per_probe(self, values: Sequence[int | Ints]) -> Ints:
        """Return numbers per spatial axis as an array (probes, spatial axes)."""
        columns = [np.broadcast_to(np.asarray(v, np.int64), self.alive.shape) for v in values]
        if len(columns) != self.dims:
            raise unsupported(f"padding along {len(columns)} axes")
        return np.stack(columns, axis=1)

    def _plain(self, x: Feature) -> Feature:
        """Refuse a feature whose axes are not (N, C, *spatial)."""
        if x.order != x.plain:
            raise ModelError(
                "A layer of the network reads data whose axes are in an order that is not known. "
                "Export the network again, with a current version of its library."
            )
        return x


def _stored(tensor: torch.Tensor) -> torch.Tensor:
    """Copy a weight onto its own memory, real ones as float32 at most."""
    if tensor.is_floating_point():
        tensor = tensor.float()
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
