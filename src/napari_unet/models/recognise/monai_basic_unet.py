"""MONAI's BasicUNet: pooling down, four ways up, every convolution with norm and activation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unet.models.found import Found
from napari_unet.models.recognise.monai_layers import (
    Unseen,
    assumptions,
    convolve,
    look,
    readings,
)
from napari_unet.models.recognise.wiring import Wiring
from napari_unet.network.graph import IMAGE

if TYPE_CHECKING:
    from napari_unet.models.recognise.layers import Layers
    from napari_unet.network.graph import ActivationKind

FAMILY = "a BasicUNet of MONAI"
_USUAL = Unseen(activation="leaky_relu", slope=0.1)
_OTHERS: tuple[tuple[ActivationKind, float], ...] = (
    ("relu", 0.0),
    ("leaky_relu", 0.01),
    ("elu", 1.0),
    ("gelu", 0.0),
)


def recognise_basic_unet(layers: Layers) -> list[Found] | None:
    """Recognise MONAI's BasicUNet.

    Parameters
    ----------
    layers : Layers
        What the file holds.

    Returns
    -------
    list of Found or None
        LeakyReLU with slope 0.1 and instance norm first, the library's defaults; None if the
        names are not those of a BasicUNet.

    Raises
    ------
    ModelError
        If the names are, but tensors are missing, left over or of another shape.
    """
    if not layers.has_keys(r"conv_0\.conv_0\.conv\.", r"down_1\.convs\.", r"upcat_1\.convs\."):
        return None
    shown = look(layers)
    found = []
    for unseen in readings(shown, _USUAL, _OTHERS):
        wiring = Wiring(layers, FAMILY, "conv_0.conv_0.conv")
        _wire(wiring, unseen)
        found.append(
            Found(
                architecture=wiring.graph(),
                tensors=wiring.tensors,
                assumed=assumptions(shown, unseen, "BasicUNet"),
                title=unseen.title,
            )
        )
    return found


def _wire(wiring: Wiring, unseen: Unseen) -> None:
    """Add all layers."""
    node = _two(wiring, "conv_0", IMAGE, unseen)
    skips, level = [node], 1
    while wiring.has(f"down_{level}.convs.conv_0.conv"):
        node = _two(wiring, f"down_{level}.convs", wiring.pooling(node), unseen)
        skips.append(node)
        level += 1
    skips.pop()
    interpolates = not (
        wiring.has("upcat_1.upsample.deconv")
        or wiring.has("upcat_1.upsample.pixelshuffle.conv_block")
    )
    for up in range(level - 1, 0, -1):
        skip = skips.pop()
        node = _up(wiring, f"upcat_{up}.upsample", node, interpolates=interpolates)
        node = wiring.fit(node, skip, "replicate")
        node = _two(wiring, f"upcat_{up}.convs", wiring.concatenate(skip, node), unseen)
    wiring.convolution("final_conv", node)


def _two(wiring: Wiring, name: str, reads: str, unseen: Unseen) -> str:
    """Add two convolutions."""
    node = convolve(wiring, f"{name}.conv_0", reads, unseen)
    return convolve(wiring, f"{name}.conv_1", node, unseen)


def _up(wiring: Wiring, name: str, reads: str, *, interpolates: bool) -> str:
    """Double the size."""
    if interpolates:
        if wiring.has(f"{name}.preconv"):
            reads = wiring.convolution(f"{name}.preconv", reads)
        return wiring.resize(reads, mode="linear", scale=2.0, align_corners=True)
    if wiring.has(f"{name}.deconv"):
        return wiring.transposed(f"{name}.deconv", reads, stride=2)
    node = wiring.convolution(f"{name}.pixelshuffle.conv_block", reads)
    return wiring.mean_of_corner(wiring.pixel_shuffle(node, 2))
