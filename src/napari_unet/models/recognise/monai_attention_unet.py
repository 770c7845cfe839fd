"""MONAI's AttentionUnet: what comes from below decides which of the skip goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unet.models.found import Found
from napari_unet.models.recognise.monai_layers import Unseen, convolve, convolve_up
from napari_unet.models.recognise.strides import STRIDES
from napari_unet.models.recognise.wiring import Wiring
from napari_unet.network.graph import IMAGE

if TYPE_CHECKING:
    from napari_unet.models.recognise.layers import Layers

FAMILY = "an AttentionUnet of MONAI"
_USUAL = Unseen(activation="relu", bare="refused")
_MERGE = Unseen(slopes=True)
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
    wiring = Wiring(layers, FAMILY, f"{root}0.conv.0.conv")
    node = _two(wiring, f"{root}0", IMAGE, 1)
    node = _level(wiring, f"{root}1", node)
    wiring.convolution(f"{root}2.conv", node)
    assumed = {
        STRIDES: "Each level halves the size: the steps of a convolution are not in its weights."
    }
    return [Found(architecture=wiring.graph(), tensors=wiring.tensors, assumed=assumed)]


def _level(wiring: Wiring, name: str, skip: str) -> str:
    """Add all that lies below a skip, and join it."""
    inside = f"{name}.submodule"
    if wiring.has(f"{inside}.conv.0.conv"):
        below = _two(wiring, inside, skip, _STEP)
    else:
        below = _level(wiring, f"{inside}.1", _two(wiring, f"{inside}.0", skip, _STEP))
    below = convolve_up(wiring, f"{name}.upconv.up", below, _USUAL, stride=_STEP)
    gate = wiring.activation(
        "relu",
        wiring.join(
            "add",
            _project(wiring, f"{name}.attention.W_g", below),
            _project(wiring, f"{name}.attention.W_x", skip),
        ),
    )
    gate = wiring.activation("sigmoid", _project(wiring, f"{name}.attention.psi", gate))
    joined = wiring.concatenate(wiring.join("multiply", skip, gate), below)
    return convolve(wiring, f"{name}.merge", joined, _MERGE)


def _project(wiring: Wiring, name: str, reads: str) -> str:
    """Add a 1 x 1 convolution with a norm."""
    return wiring.norm(f"{name}.1", wiring.convolution(f"{name}.0.conv", reads))


def _two(wiring: Wiring, name: str, reads: str, stride: int) -> str:
    """Add two convolutions, the first of which steps."""
    node = convolve(wiring, f"{name}.conv.0", reads, _USUAL, stride=stride)
    return convolve(wiring, f"{name}.conv.1", node, _USUAL)
