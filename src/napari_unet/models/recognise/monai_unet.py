"""MONAI's UNet: strided convolutions, with or without residual units, nested by name.

``model.0`` goes down, ``model.1.submodule`` holds all that lies deeper, ``model.2`` goes up. The
number of pixels that a convolution steps is not in its weights: a residual unit tells one pixel
from more, for its shortcut has a kernel of 1 then; otherwise it is taken to be 2.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from napari_unet.models.found import Found
from napari_unet.models.recognise.monai_layers import (
    ALIKE,
    STRIDES,
    Unseen,
    assumptions,
    convolve,
    convolve_up,
    look,
    norm_first,
    readings,
)
from napari_unet.models.recognise.wiring import Wiring
from napari_unet.network.graph import IMAGE

if TYPE_CHECKING:
    from napari_unet.models.recognise.layers import Layers
    from napari_unet.network.graph import ActivationKind

FAMILY = "a UNet of MONAI"
_USUAL = Unseen(activation="relu")
_OTHERS: tuple[tuple[ActivationKind, float], ...] = (
    ("leaky_relu", 0.01),
    ("elu", 1.0),
    ("gelu", 0.0),
)
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
        wiring = Wiring(layers, FAMILY, first)
        _wire(wiring, root, IMAGE, unseen, is_top=True)
        assumed = assumptions(shown, unseen, "UNet")
        assumed[STRIDES] = (
            "Each level halves the size: the steps of a convolution are not in its weights."
        )
        found.append(
            Found(
                architecture=wiring.graph(),
                tensors=wiring.tensors,
                assumed=assumed,
                title=unseen.title,
            )
        )
    return found


def _wire(wiring: Wiring, root: str, reads: str, unseen: Unseen, *, is_top: bool) -> str:
    """Add a level and all below it."""
    stride = _stride(wiring, f"{root}0")
    down = _down(wiring, f"{root}0", reads, unseen, stride)
    inside = f"{root}1.submodule"
    if wiring.has(f"{inside}.0.conv") or wiring.has(f"{inside}.0.conv.unit0.conv"):
        below = _wire(wiring, f"{inside}.", down, unseen, is_top=False)
    else:
        below = _down(wiring, inside, down, unseen, 1)
    joined = wiring.concatenate(down, below)
    if wiring.has(f"{root}2.conv"):
        return convolve_up(wiring, f"{root}2", joined, unseen, stride=stride, plain=is_top)
    node = convolve_up(wiring, f"{root}2.0", joined, unseen, stride=stride)
    unit = convolve(wiring, f"{root}2.1.conv.unit0", node, unseen, plain=is_top)
    return wiring.join("add", unit, node)


def _stride(wiring: Wiring, name: str) -> int:
    """Tell how many pixels the way down steps."""
    unit = f"{name}.conv.unit0.conv"
    if not wiring.has(unit):
        return _STEP
    if not wiring.has(f"{name}.residual"):
        return 1
    return _STEP if wiring.kernel(f"{name}.residual") == wiring.kernel(unit) else 1


def _down(wiring: Wiring, name: str, reads: str, unseen: Unseen, stride: int) -> str:
    """Add a convolution or a residual unit."""
    if wiring.has(f"{name}.conv"):
        return convolve(wiring, name, reads, unseen, stride=stride)
    shortcut = reads
    if wiring.has(f"{name}.residual"):
        shortcut = wiring.convolution(f"{name}.residual", reads, stride=stride, bias=ALIKE)
    node, unit = reads, 0
    while unit == 0 or wiring.has(f"{name}.conv.unit{unit}.conv"):
        node = convolve(
            wiring, f"{name}.conv.unit{unit}", node, unseen, stride=1 if unit else stride
        )
        unit += 1
    return wiring.join("add", node, shortcut)
