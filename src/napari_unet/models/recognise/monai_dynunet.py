"""MONAI's DynUNet, the network of nnU-Net: strided convolutions whose steps the weights tell.

The transposed convolution of a level has a kernel as large as the step down to it. Every layer
stands in the file twice, also under ``skip_layers``, where the levels are nested.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from napari_unet.models.found import Found
from napari_unet.models.recognise.layers import Layers
from napari_unet.models.recognise.monai_layers import (
    ALIKE,
    Unseen,
    activate,
    assumptions,
    look,
    normalise,
    readings,
)
from napari_unet.models.recognise.strides import STRIDES
from napari_unet.models.recognise.wiring import MisfitError, Wiring
from napari_unet.network.graph import IMAGE

if TYPE_CHECKING:
    from napari_unet.network.graph import ActivationKind, Sides, Sizes

FAMILY = "a DynUNet of MONAI"
_USUAL = Unseen(activation="leaky_relu", slope=0.01)
_OTHERS: tuple[tuple[ActivationKind, float], ...] = (("relu", 0.0), ("elu", 1.0), ("gelu", 0.0))
_UP = "up"
_NESTED = "skip_layers."
_DEEPER = "next_layer."
_TRAINING = ("deep_supervision_heads.",)


def recognise_dynunet(layers: Layers) -> list[Found] | None:
    """Recognise MONAI's DynUNet.

    Parameters
    ----------
    layers : Layers
        What the file holds.

    Returns
    -------
    list of Found or None
        LeakyReLU with slope 0.01 and instance norm first, the library's defaults; None if the
        names are not those of a DynUNet. Heads that serve deep supervision are left out.

    Raises
    ------
    ModelError
        If the names are, but tensors are missing, left over or of another shape.
    """
    if not layers.has_keys(r"input_block\.conv1\.", r"output_block\.", r"bottleneck\."):
        return None
    layers = _named_once(layers)
    shown = look(layers)
    found = []
    for unseen in readings(shown, _USUAL, _OTHERS):
        wiring = Wiring(layers, FAMILY, "input_block.conv1.conv")
        _wire(wiring, unseen)
        assumed = assumptions(shown, unseen, "DynUNet")
        assumed[STRIDES] = (
            "The first block keeps the size, as nnU-Net has it; the other steps are in the file."
        )
        found.append(
            Found(
                architecture=wiring.graph(ignored=_TRAINING),
                tensors=wiring.tensors,
                assumed=assumed,
                title=unseen.title,
            )
        )
    return found


def _named_once(layers: Layers) -> Layers:
    """Give each layer its name outside ``skip_layers``; some files hold but the nested one."""
    nested = [key for key in layers.tensors if key.startswith(_NESTED)]
    depth = max((key.count(_DEEPER) for key in nested), default=0)
    tensors = {key: tensor for key, tensor in layers.tensors.items() if key not in set(nested)}
    for key in nested:
        name = _outer_name(key.removeprefix(_NESTED), depth)
        tensor = layers.tensors[key]
        if name and not torch.equal(tensors.setdefault(name, tensor), tensor):
            raise MisfitError(
                f"The tensors have the names of {FAMILY}, but {name} and {key}, which are one and "
                "the same, differ. The file is damaged: get it once more."
            )
    return Layers(tensors)


def _outer_name(key: str, depth: int) -> str:
    """Translate a nested name; empty for what serves training alone."""
    level = key.count(_DEEPER)
    rest = key.replace(_DEEPER, "")
    part, _, inner = rest.partition(".")
    if part == "downsample":
        return f"downsamples.{level - 1}.{inner}" if level else f"input_block.{inner}"
    if part == "upsample":
        return f"upsamples.{depth - 1 - level}.{inner}"
    return "" if part == "super_head" else f"bottleneck.{rest}"


def _wire(wiring: Wiring, unseen: Unseen) -> None:
    """Add all layers."""
    steps: list[Sizes] = []
    while wiring.has(f"upsamples.{len(steps)}.transp_conv.conv"):
        name = f"upsamples.{len(steps)}.transp_conv.conv"
        steps.append(wiring.kernel(name, "transposed convolution"))
    if not steps:
        raise wiring.misfit("upsamples.0.transp_conv.conv.weight is missing")
    downs = [f"downsamples.{level}" for level in range(len(steps) - 1)]
    residual = any(wiring.has(f"{name}.conv3.conv") for name in ("input_block", *downs))
    residual = residual or wiring.has("bottleneck.conv3.conv")
    node = _block(
        wiring, "input_block", IMAGE, unseen, (1,) * wiring.spatial_dims, residual=residual
    )
    skips = [node]
    for name, step in zip((*downs, "bottleneck"), reversed(steps), strict=True):
        node = _block(wiring, name, node, unseen, step, residual=residual)
        skips.append(node)
    skips.pop()
    for level, step in enumerate(steps):
        name = f"upsamples.{level}"
        up = wiring.transposed(f"{name}.transp_conv.conv", node, stride=step, bias=_UP)
        joined = wiring.concatenate(up, skips.pop())
        node = _block(
            wiring, f"{name}.conv_block", joined, unseen, (1,) * len(step), residual=False
        )
    wiring.convolution("output_block.conv.conv", node)


def _block(
    wiring: Wiring, name: str, reads: str, unseen: Unseen, stride: Sizes, *, residual: bool
) -> str:
    """Add two convolutions, and what leads around them if it is a residual block."""
    node = _convolve(wiring, name, 1, reads, unseen, stride)
    node = activate(wiring, f"{name}.lrelu", node, unseen)
    node = _convolve(wiring, name, 2, node, unseen, (1,) * len(stride))
    if residual:
        around = reads
        if wiring.has(f"{name}.conv3.conv"):
            around = _convolve(wiring, name, 3, reads, unseen, stride)
        node = wiring.join("add", node, around)
    return activate(wiring, f"{name}.lrelu", node, unseen)


def _convolve(
    wiring: Wiring, name: str, number: int, reads: str, unseen: Unseen, stride: Sizes
) -> str:
    """Add a convolution, padded as DynUNet does, and its norm."""
    conv = f"{name}.conv{number}.conv"
    kernel = wiring.kernel(conv)
    margins = [max(0, (size - step + 1) // 2) for size, step in zip(kernel, stride, strict=True)]
    padding: Sides = tuple((margin, margin) for margin in margins)
    node = wiring.convolution(conv, reads, stride=stride, padding=padding, bias=ALIKE)
    return normalise(wiring, f"{name}.norm{number}", node, unseen)
