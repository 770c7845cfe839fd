"""The network of nnU-Net with a residual encoder, its preset since 2024 (ResEnc M, L, XL).

As in its plain network, the transposed convolution up to a level has a kernel as large as the step
down from it, so the weights tell the steps along each axis.

References
----------
.. [1] Isensee et al. (2024), nnU-Net Revisited, doi:10.1007/978-3-031-72114-4_47.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unet.models.found import Found
from napari_unet.models.recognise.wiring import Wiring
from napari_unet.network.graph import IMAGE
from napari_unet.settings import Normalization

if TYPE_CHECKING:
    from napari_unet.models.recognise.layers import Layers
    from napari_unet.network.graph import Sizes

FAMILY = "a residual-encoder U-Net of nnU-Net"
_SLOPE = 0.01  # of LeakyReLU
_BLOCKS, _AROUND, _UP = "blocks", "around", "up"
_CARD = {"activation": "softmax", "normalization": Normalization(kind="mean-std")}


def recognise_nnunet_residual(layers: Layers) -> list[Found] | None:
    """Recognise nnU-Net's U-Net with a residual encoder.

    Parameters
    ----------
    layers : Layers
        What the file holds, without layers that stand in it twice and heads that serve training.

    Returns
    -------
    list of Found or None
        One reading; None if the names are not those of such a network.

    Raises
    ------
    ModelError
        If the names are, but tensors are missing, left over or of another shape.
    """
    if not layers.has_keys(
        r"encoder\.stages\.0\.blocks\.0\.conv1\.conv\.",
        r"decoder\.transpconvs\.0\.",
        r"decoder\.seg_layers\.",
    ):
        return None
    has_stem = "encoder.stem.convs.0.conv" in layers
    first = "encoder.stem.convs.0.conv" if has_stem else "encoder.stages.0.blocks.0.conv1.conv"
    wiring = Wiring(layers, FAMILY, first)
    _wire(wiring, has_stem=has_stem)
    return [Found(architecture=wiring.graph(), tensors=wiring.tensors, card=dict(_CARD))]


def _wire(wiring: Wiring, *, has_stem: bool) -> None:
    """Add all layers."""
    ups: list[str] = []
    while wiring.has(f"decoder.transpconvs.{len(ups)}"):
        ups.append(f"decoder.transpconvs.{len(ups)}")
    steps = [wiring.kernel(name, "transposed convolution") for name in ups]
    node = _chain(wiring, "encoder.stem", IMAGE) if has_stem else IMAGE
    skips: list[str] = []
    for level, step in enumerate([(1,) * wiring.spatial_dims, *reversed(steps)]):
        block = 0
        while block == 0 or wiring.has(f"encoder.stages.{level}.blocks.{block}.conv1.conv"):
            name = f"encoder.stages.{level}.blocks.{block}"
            node = _residual(wiring, name, node, (1,) * len(step) if block else step)
            block += 1
        skips.append(node)
    skips.pop()
    for level, (name, step) in enumerate(zip(ups, steps, strict=True)):
        up = wiring.transposed(name, node, stride=step, bias=_UP)
        joined = wiring.concatenate(up, skips.pop())
        node = _chain(wiring, f"decoder.stages.{level}", joined)
    wiring.convolution(f"decoder.seg_layers.{len(ups) - 1}", node)


def _chain(wiring: Wiring, name: str, reads: str) -> str:
    """Add convolutions one behind the other, each with its norm and activation."""
    node, place = reads, 0
    while place == 0 or wiring.has(f"{name}.convs.{place}.conv"):
        node = _active(wiring, _normed(wiring, f"{name}.convs.{place}", node))
        place += 1
    return node


def _residual(wiring: Wiring, name: str, reads: str, step: Sizes) -> str:
    """Add two convolutions, and what leads around them: a mean if they step."""
    node = _active(wiring, _normed(wiring, f"{name}.conv1", reads, step))
    node = _normed(wiring, f"{name}.conv2", node)
    around, place = reads, 0
    if max(step) > 1:
        around, place = wiring.pooling(around, kernel=step, kind="average"), 1
    if wiring.has(f"{name}.skip.{place}.conv"):
        around = _normed(wiring, f"{name}.skip.{place}", around, bias=_AROUND)
    return _active(wiring, wiring.join("add", node, around))


def _normed(
    wiring: Wiring, name: str, reads: str, step: Sizes | int = 1, bias: str = _BLOCKS
) -> str:
    """Add a convolution and its norm."""
    node = wiring.convolution(f"{name}.conv", reads, stride=step, bias=bias)
    return wiring.norm(f"{name}.norm", node)


def _active(wiring: Wiring, reads: str) -> str:
    """Add nnU-Net's activation."""
    return wiring.activation("leaky_relu", reads, _SLOPE)
