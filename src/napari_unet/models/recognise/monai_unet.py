"""MONAI's UNet: strided convolutions, with or without residual units, nested by name.

``model.0`` goes down, ``model.1.submodule`` holds all that lies deeper, ``model.2`` goes up. The
number of pixels that a convolution steps is not in its weights: a residual unit tells one pixel
from more, for its shortcut has a kernel of 1 then; otherwise it is taken to be 2, along axes along
which the kernel has more than one pixel.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from napari_unet.models.assumptions import check_told
from napari_unet.models.found import Found
from napari_unet.models.recognise.monai_layers import (
    ALIKE,
    Unseen,
    assumptions,
    convolve,
    convolve_up,
    look,
    norm_first,
    readings,
)
from napari_unet.models.recognise.strides import NAME, STRIDES, ask_strides, read_strides, written
from napari_unet.models.recognise.wiring import Wiring
from napari_unet.network.graph import IMAGE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_unet.models.recognise.layers import Layers
    from napari_unet.network.graph import ActivationKind, Sizes

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
    return [
        _found(layers, root, first, unseen, assumptions(shown, unseen, "UNet"))
        for unseen in readings(shown, usual, _OTHERS)
    ]


def _found(
    layers: Layers,
    root: str,
    first: str,
    unseen: Unseen,
    assumed: dict[str, str],
    strides: Sequence[Sizes] = (),
) -> Found:
    """Wire the network; a person may have told the steps of its levels."""
    wiring = Wiring(layers, FAMILY, first)
    taken: list[Sizes] = []
    _wire(wiring, root, IMAGE, unseen, list(strides), taken)
    asked = ask_strides(strides, taken)

    def reread(values: Mapping[str, str]) -> Found:
        """Read it with the steps that a person tells."""
        told = check_told(values, [asked])[NAME]
        steps = read_strides(told, wiring.spatial_dims)
        return _found(layers, root, first, unseen, assumed, steps)

    sentence = f"The levels step {written(taken)} pixels."
    return Found(
        architecture=wiring.graph(),
        tensors=wiring.tensors,
        card={"told": {STRIDES: sentence}} if strides else {},
        assumed={
            **assumed,
            **({} if strides else {STRIDES: f"{sentence} They are not in the weights."}),
        },
        title=unseen.title,
        assumptions=(asked,),
        reread=reread,
    )


def _wire(
    wiring: Wiring,
    root: str,
    reads: str,
    unseen: Unseen,
    strides: list[Sizes],
    taken: list[Sizes],
) -> str:
    """Add a level and all below it; note how many pixels each steps, as told or as it seems."""
    is_top = not taken
    stride = strides.pop(0) if strides else _stride(wiring, f"{root}0")
    taken.append(stride)
    down = _down(wiring, f"{root}0", reads, unseen, stride)
    inside = f"{root}1.submodule"
    if wiring.has(f"{inside}.0.conv") or wiring.has(f"{inside}.0.conv.unit0.conv"):
        below = _wire(wiring, f"{inside}.", down, unseen, strides, taken)
    else:
        below = _down(wiring, inside, down, unseen, 1)
    joined = wiring.concatenate(down, below)
    if wiring.has(f"{root}2.conv"):
        return convolve_up(wiring, f"{root}2", joined, unseen, stride=stride, plain=is_top)
    node = convolve_up(wiring, f"{root}2.0", joined, unseen, stride=stride)
    unit = convolve(wiring, f"{root}2.1.conv.unit0", node, unseen, plain=is_top)
    return wiring.join("add", unit, node)


def _stride(wiring: Wiring, name: str) -> Sizes:
    """Tell how many pixels the way down steps."""
    unit, one = f"{name}.conv.unit0.conv", (1,) * wiring.spatial_dims
    is_residual = wiring.has(unit)
    kernel = wiring.kernel(unit if is_residual else f"{name}.conv")
    if is_residual and not wiring.has(f"{name}.residual"):
        return one
    if is_residual and wiring.kernel(f"{name}.residual") != kernel:
        return one
    return tuple(_STEP if size > 1 else 1 for size in kernel)


def _down(wiring: Wiring, name: str, reads: str, unseen: Unseen, stride: int | Sizes) -> str:
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
