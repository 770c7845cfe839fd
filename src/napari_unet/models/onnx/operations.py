"""The operations of ONNX: what layer each one is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unet.models.onnx.activations import ACTIVATIONS
from napari_unet.models.onnx.arithmetic import ARITHMETIC
from napari_unet.models.onnx.layers import LAYERS
from napari_unet.models.onnx.resizing import RESIZING
from napari_unet.models.onnx.shapes import SHAPES

if TYPE_CHECKING:
    from napari_unet.models.onnx.values import Translate

OPERATIONS: dict[str, Translate] = {**LAYERS, **ACTIVATIONS, **RESIZING, **SHAPES, **ARITHMETIC}
"""What is done for each operation, by its name."""
