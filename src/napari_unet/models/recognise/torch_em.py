"""The UNet2d, UNet3d and AnisotropicUNet of torch-em, much used for models of bioimage.io.

A norm stands before each convolution; the usual one, instance norm, leaves no tensors, but the
convolutions are then the second and fifth layer of a block instead of the first and third.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from napari_unet.models.assumptions import check_told
from napari_unet.models.found import Found
from napari_unet.models.recognise.strides import NAME, STRIDES, ask_strides, read_strides, written
from napari_unet.models.recognise.wiring import Wiring
from napari_unet.network.graph import IMAGE
from napari_unet.settings import Normalization

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_unet.models.recognise.layers import Layers
    from napari_unet.network.graph import Sizes

FAMILY = "a UNet of torch-em"
HALVED = "answer at half the size"
"""Title of the reading as a ResizeUNet, whose answer has every other pixel."""

_MOST_GROUPS = 32
_WITH_NORMS = (1, 4)
_WITHOUT_NORMS = (0, 2)


def recognise_torch_em(layers: Layers) -> list[Found] | None:
    """Recognise a UNet of torch-em.

    Parameters
    ----------
    layers : Layers
        What the file holds.

    Returns
    -------
    list of Found or None
        As it is usually used; then, with the title :data:`HALVED`, in planes, the variant that
        gives every other pixel. None if the names are not those of this library.

    Raises
    ------
    ModelError
        If they are, but tensors are missing, left over or of another shape.
    """
    if not layers.has_keys(r"encoder\.blocks\.0\.block\.[01]\.", r"base\.block\.", r"decoder\."):
        return None
    return [_found(layers, halved=halved) for halved in (False, True)]


def _found(layers: Layers, *, halved: bool, strides: Sequence[Sizes] = ()) -> Found:
    """Wire the network; a person may have told the steps of the levels of a volume."""
    places = _WITH_NORMS if "encoder.blocks.0.block.4" in layers else _WITHOUT_NORMS
    wiring = Wiring(layers, FAMILY, f"encoder.blocks.0.block.{places[0]}")
    taken = _wire(wiring, places, strides, bare=not layers.of_kind("norm"))
    if halved:
        wiring.resize(wiring.nodes[-1].name, mode="nearest", scale=0.5)
    found = Found(
        architecture=wiring.graph(ignored=("out_conv.",)),
        tensors=wiring.tensors,
        card={"normalization": Normalization(kind="mean-std")},
        assumed=_assumed(layers, halved=halved),
        title=HALVED if halved else "answer at full size",
    )
    if wiring.spatial_dims == 2:
        return found
    asked = ask_strides(strides, taken)

    def reread(values: Mapping[str, str]) -> Found:
        """Read it with the steps that a person tells."""
        told = check_told(values, [asked])[NAME]
        return _found(layers, halved=halved, strides=read_strides(told, wiring.spatial_dims))

    sentence = f"The levels step {written(taken)} pixels."
    untold = f"{sentence} They are not in the weights where kernels are alike along all axes."
    return replace(
        found,
        card={**found.card, "told": {STRIDES: sentence}} if strides else found.card,
        assumed=found.assumed if strides else {**found.assumed, STRIDES: untold},
        assumptions=(asked,),
        reread=reread,
    )


def _assumed(layers: Layers, *, halved: bool) -> dict[str, str]:
    """Say what is taken for granted."""
    said = {
        "normalization": "Zero mean and unit variance, customary with this library.",
        "size of the answer": (
            "Every other pixel, as a ResizeUNet gives it; the weights do not tell."
            if halved
            else "That of the image; a ResizeUNet has the same weights and gives half of it."
        ),
    }
    norms = layers.of_kind("norm")
    if "encoder.blocks.0.block.4" in layers and not norms:
        said["kind of norm"] = "Instance norm, the library's default; it has no weights."
    elif any(not norm.has_statistics for norm in norms):
        said["kind of norm"] = "Group norm, the only one of this library with weights alone."
    return said


def _wire(
    wiring: Wiring, places: tuple[int, int], strides: Sequence[Sizes], *, bare: bool
) -> list[Sizes]:
    """Add all layers; give the steps of the levels, as told or as it seems."""
    node, skips, factors = IMAGE, list[str](), list[tuple[int, ...]]()
    while wiring.has(f"encoder.blocks.{len(skips)}.block.{places[0]}"):
        name = f"encoder.blocks.{len(skips)}.block"
        node = _block(wiring, name, node, places, bare=bare)
        kernel = wiring.kernel(f"{name}.{places[0]}")
        # Levels that leave an axis at its size mostly have kernels of 1 along it.
        seeming = tuple(1 if 1 == size < max(kernel) else 2 for size in kernel)
        factors.append(strides[len(skips)] if len(skips) < len(strides) else seeming)
        skips.append(node)
        node = wiring.pooling(node, kernel=factors[-1])
    node = _block(wiring, "base.block", node, places, bare=bare)
    for level, factor in enumerate(reversed(factors)):
        node = wiring.resize(node, mode="linear", scale=tuple(map(float, factor)))
        node = wiring.convolution(f"decoder.samplers.{level}.conv", node)
        node = wiring.concatenate(node, skips.pop())
        node = _block(wiring, f"decoder.blocks.{level}.block", node, places, bare=bare)
    last = f"out_conv.{len(factors) - 1}"  # where each level gives an answer, the uppermost's
    for head in ("out_conv", last):
        if wiring.has(head):
            wiring.convolution(head, node)
            break
    return factors


def _block(wiring: Wiring, name: str, reads: str, places: tuple[int, int], *, bare: bool) -> str:
    """Add two convolutions with a ReLU behind and, maybe, a norm before them."""
    node = reads
    for place in places:
        if places == _WITH_NORMS:
            groups = min(_MOST_GROUPS, wiring.channels(node))
            node = wiring.norm(
                f"{name}.{place - 1}",
                node,
                affine="group",
                groups=groups,
                bare="instance" if bare else "refused",
            )
        node = wiring.activation("relu", wiring.convolution(f"{name}.{place}", node))
    return node
