"""What Keras makes of several layers, and what is for training alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_unet.models.building.features import CHANNEL, Feature
from napari_unet.models.building.refusals import unsupported
from napari_unet.models.keras.layer import Layer, Translate, same
from napari_unet.models.keras.operations import minimum

if TYPE_CHECKING:
    from collections.abc import Callable


def _concatenated(layer: Layer) -> Feature:
    axis = int(layer.settings.get("axis", -1))
    if any(x.order[axis] != CHANNEL for x in layer.inputs):
        raise unsupported("joining along an axis that is not the channels")
    return layer.builder.join("concatenate", layer.inputs, layer.name)


def _joined(how: Any) -> Callable[[Layer], Feature]:
    return lambda layer: layer.builder.join(how, layer.inputs, layer.name)


def _average(layer: Layer) -> Feature:
    total = layer.builder.join("add", layer.inputs, layer.name)
    return layer.builder.linear(total, 1.0 / len(layer.inputs))


def _dropout(layer: Layer) -> Feature:
    share = float(layer.settings.get("rate", 0.0))
    whole = layer.kind.startswith("Spatial")
    return layer.builder.dropout(layer.x, share, whole_channels=whole)


JOINS: dict[str, Translate] = {
    "Concatenate": _concatenated,
    "Add": _joined("add"),
    "Subtract": _joined("subtract"),
    "Multiply": _joined("multiply"),
    "Maximum": _joined("maximum"),
    "Minimum": lambda layer: minimum(layer, layer.inputs),
    "Average": _average,
    **dict.fromkeys(("Dropout", "SpatialDropout2D", "SpatialDropout3D"), _dropout),
    **dict.fromkeys(
        (
            "InputLayer",
            "GaussianNoise",
            "GaussianDropout",
            "AlphaDropout",
            "ActivityRegularization",
            "RandomFlip",
            "RandomRotation",
            "RandomZoom",
            "RandomContrast",
            "RandomBrightness",
            "RandomTranslation",
            "Identity",
        ),
        same,
    ),
}
