"""MONAI's AttentionUnet: what comes from below decides which of the skip goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unet.models.found import Found
from napari_unet.models.recognise.builder import GraphBuilder
from napari_unet.models.recognise.monai_layers import STRIDES, Unseen, convolve, convolve_up
from napari_unet.network.graph import IMAGE

if TYPE_CHECKING:
    from napari_unet.models.recognise.layers import Layers

FAMILY = "an AttentionUnet of MONAI"
_USUAL = Unseen(activation="relu")
_STEP = 2


def recognise_attention_unet(layers: Layers) -> list[Found] | None:
    """Recognise MONAI's AttentionUnet.

    Parameters
    ----------
    layers : Layers
        What the file holds.

    Returns
    -------
    list of Found or None
        One; None if the names are not those of an AttentionUnet.

    Raises
    ------
    ModelError
        If the names are, but tensors are missing, left over or of another shape.
    """
    root = "model." if layers.has_keys(r"model\.1\.attention\.") else ""
    if not layers.has_keys(rf"{root}0\.conv\.0\.", rf"{root}1\.attention\.W_g\."):
        return None
    builder = GraphBuilder(layers, FAMILY, f"{root}0.conv.0.conv")
    node = _two(builder, f"{root}0", IMAGE, 1)
    node = _level(builder, f"{root}1", node)
    builder.convolution(f"{root}2.conv", node)
    assumed = {
        STRIDES: "Each level halves the size: the steps of a convolution are not in its weights."
    }
    return [Found(architecture=builder.graph(), tensors=builder.tensors, assumed=assumed)]


def _level(builder: GraphBuilder, name: str, skip: str) -> str:
    """Add all that lies below a skip, and join it."""
    inside = f"{name}.submodule"
    if builder.has(f"{inside}.conv.0.conv"):
        below = _two(builder, inside, skip, _STEP)
    else:
        below = _level(builder, f"{inside}.1", _two(builder, f"{inside}.0", skip, _STEP))
    below = convolve_up(builder, f"{name}.upconv.up", below, _USUAL, stride=_STEP)
    gate = builder.activation(
        "relu",
        builder.join(
            "add",
            _project(builder, f"{name}.attention.W_g", below),
            _project(builder, f"{name}.attention.W_x", skip),
        ),
    )
    gate = builder.activation("sigmoid", _project(builder, f"{name}.attention.psi", gate))
    joined = builder.concatenate(builder.join("multiply", skip, gate), below)
    return convolve(builder, f"{name}.merge", joined, _USUAL)


def _project(builder: GraphBuilder, name: str, reads: str) -> str:
    """Add a 1 x 1 convolution with a norm."""
    return builder.norm(f"{name}.1", builder.convolution(f"{name}.0.conv", reads))


def _two(builder: GraphBuilder, name: str, reads: str, stride: int) -> str:
    """Add two convolutions, the first of which steps."""
    node = convolve(builder, f"{name}.conv.0", reads, _USUAL, stride=stride)
    return convolve(builder, f"{name}.conv.1", node, _USUAL)
