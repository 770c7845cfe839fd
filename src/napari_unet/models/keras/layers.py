"""The layers of Keras that are known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unet.models.keras.activations import ACTIVATIONS
from napari_unet.models.keras.convolutions import CONVOLUTIONS
from napari_unet.models.keras.joins import JOINS
from napari_unet.models.keras.norms import NORMS
from napari_unet.models.keras.sizes import SIZES

if TYPE_CHECKING:
    from napari_unet.models.keras.layer import Translate

LAYERS: dict[str, Translate] = {**CONVOLUTIONS, **SIZES, **NORMS, **JOINS, **ACTIVATIONS}
"""What is done for each class of layers."""
