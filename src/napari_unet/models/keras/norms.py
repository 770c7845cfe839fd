"""Norms of Keras, and layers that scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_unet.models.building.features import CHANNEL, Feature
from napari_unet.models.building.refusals import unsupported

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_unet.models.keras.layer import Layer, Translate

_SMALLEST_DEVIATION = 1e-7


def _batch_norm(layer: Layer) -> Feature:
    axis = layer.settings.get("axis", -1)
    axes = axis if isinstance(axis, list) else [axis]
    if [layer.x.order[int(a)] for a in axes] != [CHANNEL]:
        raise unsupported("a batch norm that is not over the channels")
    scale, shift, place = _affine(layer)
    normed = layer.builder.norm(
        layer.image,
        "batch",
        scale,
        shift,
        mean=layer.weight(place),
        variance=layer.weight(place + 1),
        eps=float(layer.settings.get("epsilon", 1e-3)),
        name=layer.name,
    )
    return normed.reordered(layer.order)


def _affine(layer: Layer) -> tuple[torch.Tensor | None, torch.Tensor | None, int]:
    """Return scale and shift of a norm, and how many weights those are."""
    place = 0
    scale = shift = None
    if layer.settings.get("scale", True):
        scale, place = layer.weight(place), place + 1
    if layer.settings.get("center", True):
        shift, place = layer.weight(place), place + 1
    return scale, shift, place


def _layer_norm(layer: Layer) -> Feature:
    """Over the channels of each pixel."""
    given = layer.settings.get("axis", -1)
    axes = given if isinstance(given, list | tuple) else [given]
    if [layer.x.order[int(axis)] for axis in axes] != [CHANNEL]:
        raise unsupported("a layer norm that is not over the channels of each pixel")
    if layer.settings.get("rms_scaling"):
        raise unsupported("a layer norm that measures no mean")
    scale, shift, _ = _affine(layer)
    eps = float(layer.settings.get("epsilon", 1e-3))
    normed = layer.builder.norm(layer.image, "layer", scale, shift, eps=eps, name=layer.name)
    return normed.reordered(layer.order)


def _group_norm(layer: Layer) -> Feature:
    axis = layer.settings.get("axis", -1)
    if axis is None or layer.x.order[int(axis)] != CHANNEL:
        raise unsupported("a norm that is not over the channels")
    channels = layer.x.channels
    groups = int(layer.settings.get("groups", 32))
    is_instance = "Instance" in layer.kind or groups in {-1, channels}
    scale, shift, _ = _affine(layer)
    normed = layer.builder.norm(
        layer.image,
        "instance" if is_instance else "group",
        scale,
        shift,
        eps=float(layer.settings.get("epsilon", 1e-3)),
        groups=1 if is_instance else groups,
        name=layer.name,
    )
    return normed.reordered(layer.order)


def _rescaled(layer: Layer) -> Feature:
    scale, offset = (
        _per_channel(layer, layer.settings.get(key, default))
        for key, default in (("scale", 1.0), ("offset", 0.0))
    )
    return layer.builder.linear(layer.x, scale, offset, layer.name)


def _per_channel(layer: Layer, value: Any) -> float | torch.Tensor:
    """Return one number, or one per channel."""
    array = np.array(value, np.float32).reshape(-1)
    if array.size == 1:
        return float(array[0])
    if array.size != layer.x.channels:
        raise unsupported(f"the layer {layer.kind} with {array.size} numbers")
    return torch.from_numpy(array)


def _normalized(layer: Layer) -> Feature:
    mean, variance = layer.settings.get("mean"), layer.settings.get("variance")
    if mean is None or variance is None:
        mean, variance = layer.weight(0), layer.weight(1)
    deviation = np.maximum(np.sqrt(np.array(variance, np.float32)), _SMALLEST_DEVIATION)
    middle: NDArray[Any] = np.array(mean, np.float32)
    scaled: NDArray[Any] = 1.0 / deviation
    offset: NDArray[Any] = -middle / deviation
    if layer.settings.get("invert"):
        scaled, offset = deviation, middle
    return layer.builder.linear(
        layer.x, _per_channel(layer, scaled), _per_channel(layer, offset), layer.name
    )


NORMS: dict[str, Translate] = {
    **dict.fromkeys(
        (
            "BatchNormalization",
            "BatchNormalizationV1",
            "BatchNormalizationV2",
            "SyncBatchNormalization",
        ),
        _batch_norm,
    ),
    **dict.fromkeys(("GroupNormalization", "InstanceNormalization"), _group_norm),
    "LayerNormalization": _layer_norm,
    "Rescaling": _rescaled,
    "Normalization": _normalized,
}
