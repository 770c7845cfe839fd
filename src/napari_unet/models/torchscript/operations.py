"""The operations of TorchScript: what layer each one is, or what number it gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unet.models.torchscript.activations import ACTIVATIONS
from napari_unet.models.torchscript.arithmetic import ARITHMETIC, PLAIN_ARITHMETIC
from napari_unet.models.torchscript.calls import Call, Operation
from napari_unet.models.torchscript.layers import LAYERS
from napari_unet.models.torchscript.lists import LISTS, PLAIN_LISTS
from napari_unet.models.torchscript.shapes import SHAPES

if TYPE_CHECKING:
    from napari_unet.models.torchscript.interpreter import Followed

_OF_TORCH: dict[str, Operation] = {**LAYERS, **ACTIVATIONS, **SHAPES, **ARITHMETIC, **LISTS}
_OTHERS: dict[str, Operation] = {**PLAIN_ARITHMETIC, **PLAIN_LISTS}


def _as_operation(function: Operation) -> Followed:
    """Give a function the form in which operations are called."""
    return lambda at, arguments, named: function(Call(at, arguments, named))


OPERATIONS: dict[str, Followed] = {
    **{f"torch.{name}": _as_operation(function) for name, function in _OF_TORCH.items()},
    **{name: _as_operation(function) for name, function in _OTHERS.items()},
}
"""What is done for each operation, by its name in the text."""
