"""MONAI's UNet: strided convolutions, with or without residual units, nested by name.

``model.0`` goes down, ``model.1.submodule`` holds all that lies deeper, ``model.2`` goes up. The
number of pixels that a convolution steps is not in its weights: a residual unit tells one pixel
from more, for its shortcut has a kernel of 1 then; otherwise it is taken to be 2.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from napari_unet.models.found import Found
from napari_unet.models.recognise.builder import GraphBuilder
from napari_unet.models.recognise.monai_layers import (
    STRIDES,
    Unseen,
    assumptions,
    convolve,
    convolve_up,
    look,
    norm_first,
    readings,
)
from napari_unet.network.graph import IMAGE

if TYPE_CHECKING:
    from napari_unet.models.recognise.layers import Layers

FAMILY = "a UNet of MONAI"
_USUAL = Unseen(activation="relu")
_OTHERS = (("leaky_relu", 0.01), ("elu", 1.0), ("gelu", 0.0))
_STEP = 2


def recognise_monai_unet(layers: Layers) -> list[Found] | None:
    """Recognise MONAI's UNet.

    Parameters
    ----------
    layers : Layers
        What the file holds.

    Returns
    -------
    list of Found or None
        The library's defaults first; None if the names are not those of a UNet.

    Raises
    ------
    ModelError
        If the names are, but tensors are missing, left over or of another shape.
    """
    root = "model." if layers.has_keys(r"model\.1\.submodule\.") else ""
    inside = rf"{root}1\.submodule\.(0\.|conv\.)"
    if not layers.has_keys(rf"{root}0\.conv\.", inside, rf"{root}2\.(0\.)?conv\."):
        return None
    shown = look(layers)
    usual = replace(_USUAL, norm_first=norm_first(layers))
    first = f"{root}0.conv" if f"{root}0.conv" in layers else f"{root}0.conv.unit0.conv"
    found = []
    for unseen in readings(shown, usual, _OTHERS):
        builder = GraphBuilder(layers, FAMILY, first)
        _wire(builder, root, IMAGE, unseen, is_top=True)
        assumed = assumptions(shown, unseen, "UNet")
        assumed[STRIDES] = (
            "Each level halves the size: the steps of a convolution are not in its weights."
        )
        found.append(
            Found(
                architecture=builder.graph(),
                tensors=builder.tensors,
                assumed=assumed,
                title=unseen.title,
            )
        )
    return found


def _wire(builder: GraphBuilder, root: str, reads: str, unseen: Unseen, *, is_top: bool) -> str:
    """Add a level and all below it."""
    stride = _stride(builder, f"{root}0")
    down = _down(builder, f"{root}0", reads, unseen, stride)
    inside = f"{root}1.submodule"
    if builder.has(f"{inside}.0.conv") or builder.has(f"{inside}.0.conv.unit0.conv"):
        below = _wire(builder, f"{inside}.", down, unseen, is_top=False)
    else:
        below = _down(builder, inside, down, unseen, 1)
    joined = builder.concatenate(down, below)
    if builder.has(f"{root}2.conv"):
        return convolve_up(builder, f"{root}2", joined, unseen, stride=stride, plain=is_top)
    node = convolve_up(builder, f"{root}2.0", joined, unseen, stride=stride)
    unit = convolve(builder, f"{root}2.1.conv.unit0", node, unseen, plain=is_top)
    return builder.join("add", unit, node)


def _stride(builder: GraphBuilder, name: str) -> int:
    """Tell how many pixels the way down steps."""
    unit = f"{name}.conv.unit0.conv"
    if not builder.has(unit):
        return _STEP
    if not builder.has(f"{name}.residual"):
        return 1
    kernel = builder.layer(unit, "convolution").kernel
    shortcut = builder.layer(f"{name}.residual", "convolution").kernel
    return _STEP if shortcut == kernel else 1


def _down(builder: GraphBuilder, name: str, reads: str, unseen: Unseen, stride: int) -> str:
    """Add a convolution or a residual unit."""
    if builder.has(f"{name}.conv"):
        return convolve(builder, name, reads, unseen, stride=stride)
    shortcut = reads
    if builder.has(f"{name}.residual"):
        shortcut = builder.convolution(f"{name}.residual", reads, stride=stride)
    node, unit = reads, 0
    while unit == 0 or builder.has(f"{name}.conv.unit{unit}.conv"):
        node = convolve(
            builder, f"{name}.conv.unit{unit}", node, unseen, stride=1 if unit else stride
        )
        unit += 1
    return builder.join("add", node, shortcut)
