"""Why tensors are not those of a U-Net that can be built, in a sentence."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING

from napari_unet.errors import ModelError
from napari_unet.models.recognise.heads import find_heads, find_orphans
from napari_unet.models.recognise.search import Search
from napari_unet.models.recognise.units import make_units

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.models.recognise.layers import Layer, Layers
    from napari_unet.models.recognise.units import Unit

_OTHER_NETWORKS = (
    (r"roi_heads|rpn\.|box_predictor|mask_predictor|anchor|bbox|\.dfl\.", "a network that detects"),
    (r"attn|attention\.(self|output)|qkv|cls_token|pos_embed|relative_position", "a transformer"),
    (r"lora_", "an addition to another network"),
    (r"lstm|gru|rnn", "a recurrent network"),
)
_SMP = r"segmentation_head\."
_LOOKALIKES = (
    ("a VNet", (r"in_tr\.", r"down_tr\d+\.down_conv\.", r"up_tr\d+\.up_conv\.", r"out_tr\.")),
    (
        "an FPN of segmentation_models_pytorch",
        (_SMP, r"decoder\.p5\.", r"decoder\.seg_blocks"),
    ),
    (
        "a DeepLab of segmentation_models_pytorch",
        (_SMP, r"decoder\.(0|aspp)\."),
    ),
    ("a UPerNet of segmentation_models_pytorch", (_SMP, r"decoder\.feature_norms\.")),
    ("a PSPNet of segmentation_models_pytorch", (_SMP, r"decoder\.psp\.")),
    (
        "a Linknet of segmentation_models_pytorch",
        (_SMP, r"decoder\.blocks\.0\.block\.0\.0\.", r"decoder\.blocks\.0\.block\.2\."),
    ),
    ("a MAnet of segmentation_models_pytorch", (_SMP, r"decoder\.center\.top_conv\.")),
    ("a PAN of segmentation_models_pytorch", (_SMP, r"decoder\.fpa\.")),
    (
        "a UNet++ of segmentation_models_pytorch",
        (_SMP, r"decoder\.blocks\.x_0_0\."),
    ),
    ("a SegResNet of MONAI", (r"convInit\.", r"down_layers\.0\.", r"up_samples\.0\.")),
    ("a BasicUNet++ of MONAI", (r"conv_0_0\.", r"upcat_0_1\.")),
    ("an UNETR or SwinUNETR of MONAI", (r"(vit|swinViT)\.", r"(encoder1|decoder5)\.")),
    ("a FlexibleUNet of MONAI", (r"encoder\._conv_stem\.", r"decoder\.blocks\.0\.convs\.")),
    ("a UNet++", (r"(conv|X|x)_?0_0\b", r"(conv|X|x)_?0_1\b", r"(conv|X|x)_?0_2\b")),
    ("a UNet 3+", (r"h1_PT_hd4_conv\.",)),
    ("a U2-Net", (r"stage1\.rebnconvin\.", r"side1\.")),
    (
        "a generator of pix2pix or CycleGAN",
        (r"(model\.)?model\.0\.", r"(model\.)?model\.1\.model\.(1|3)\."),
    ),
    ("an R2U-Net", (r"(R|r)?RCNN1\.RCNN\.",)),
    ("a network of Cellpose", (r"downsample\.down\.", r"upsample\.up\.", r"make_style|output\.")),
)
_MOST_NAMED = 6
_ASK = "Ask for the weights of a U-Net."
WHOLE = (
    "Get the file again, or ask the sender for the whole state dict. If it is whole, this is a "
    "network that is not known here: an ONNX file of it may open."
)
"""What to do about weights that are not complete."""


def why_not(layers: Layers) -> str:
    """Say why tensors were not recognised.

    Parameters
    ----------
    layers : Layers
        All layers of a file, under names without prefixes.

    Returns
    -------
    str
        What is wrong, and what to do.
    """
    names = " ".join(layers.tensors)
    for pattern, kind in _OTHER_NETWORKS:
        if re.search(pattern, names):
            return f"The weights are not of a U-Net: their names are those of {kind}. {_ASK}"
    if not layers.of_kind("convolution"):
        return f"The weights are not of a U-Net: there is no convolution among them. {_ASK}"
    if {layer.weight.ndim for layer in layers.of_kind("convolution")} == {3}:
        return f"The weights are of a network for signals along one axis, not for images. {_ASK}"
    if layers.spatial_dims == 0:
        return (
            "The weights are not of a U-Net that can be built: some convolutions are for planes "
            f"and some for volumes. {_ASK}"
        )
    odd = first_damage(layers)
    if odd:
        return odd
    linear = layers.of_kind("linear")
    if linear:
        return (
            f"The weights are not of a U-Net: {linear[0].name} joins all pixels, as networks do "
            f"that name the whole image. {_ASK}"
        )
    other = layers.of_kind("other")
    if other:
        return (
            f"The weights are of a network with a layer that is not known: tensor {other[0].name} "
            "belongs to no convolution and no norm. Ask for it as ONNX or TorchScript, which say "
            "what is computed."
        )
    return _where_it_ends(layers)


def first_damage(layers: Layers) -> str | None:
    """Say which tensor is missing or of another shape than its layer needs.

    Parameters
    ----------
    layers : Layers
        All layers of a file.

    Returns
    -------
    str or None
        The first such difference, in a sentence; None if all layers are whole.
    """
    for layer in layers:
        if layer.kind == "convolution":
            bias = layer.bias
            if bias is not None and tuple(bias.shape) not in {(n,) for n in layer.sizes}:
                return (
                    f"The weights do not fit together: {layer.name}.bias has the shape "
                    f"{tuple(bias.shape)}, {layer.name}.weight {tuple(layer.weight.shape)}. "
                    f"{WHOLE}"
                )
        odd = _damaged_norm(layer, layers)
        if odd:
            return odd
    return None


def _damaged_norm(layer: Layer, layers: Layers) -> str | None:
    """Say what a norm lacks."""
    roles = layer.tensors.keys()
    vectors = {role: tuple(tensor.shape) for role, tensor in layer.tensors.items()}
    if layer.kind == "norm" and len(set(vectors.values())) > 1:
        shapes = ", ".join(f"{role} {shape}" for role, shape in vectors.items())
        return f"The weights do not fit together: {layer.name} has {shapes}. {WHOLE}"
    if layer.kind not in ("norm", "prelu", "other") or layer.name in roles:
        return None
    likes = Counter(frozenset(norm.tensors) for norm in layers.of_kind("norm"))
    if not likes:
        return None
    usual, count = likes.most_common(1)[0]
    missing = [role for role in ("weight", "bias", "running_mean", "running_var") if role in usual]
    missing = [role for role in missing if role not in roles]
    if missing and count > 1 and (layer.kind != "prelu" or "running_mean" in roles):
        return (
            f"The weights are not complete: {layer.name}.{missing[0]} is missing, though "
            f"{layer.name}.{next(iter(roles))} is there. {WHOLE}"
        )
    return None


def _where_it_ends(layers: Layers) -> str:
    """Say how far the layers fit together."""
    units, rest = make_units(layers)
    if rest:
        return (
            f"The weights do not fit together: {rest[0].name} has {rest[0].weight.numel()} "
            f"channels, which no convolution beside it gives. {WHOLE}"
        )
    grouped = next((unit for before, unit in pairwise(units) if _is_grouped(unit, before)), None)
    if grouped:
        return (
            f"The weights are not of a U-Net that can be built: {grouped.name} with a weight of "
            f"shape {tuple(grouped.conv.weight.shape)} is a depthwise or grouped convolution, and "
            "which channels such a one reads is not told by the tensors. Ask for it as ONNX or "
            "TorchScript, which say what is computed."
        )
    orphans = find_orphans(units)
    if orphans:
        return (
            "The weights are not of a U-Net that can be built: nothing gives the channels that "
            f"{orphans[0].name} reads, with a weight of shape "
            f"{tuple(orphans[0].conv.weight.shape)}. If it should be one, get the file again, or "
            "ask for it as ONNX or TorchScript, which say what is computed."
        )
    search = Search(units)
    search.run()
    used, last, channels = search.furthest
    waiting = [unit for unit in units if not used >> unit.place & 1]
    if not waiting or last < 0:
        return f"The weights are not of a U-Net: nothing halves and doubles the size. {_ASK}"
    return (
        f"The weights are not of a U-Net that can be built: {used.bit_count()} of its "
        f"{len(units)} convolutions fit together, up to {units[last].name}, which gives "
        f"{channels} channels; {waiting[0].name} with a weight of shape "
        f"{tuple(waiting[0].conv.weight.shape)} finds no place. Ask for it as ONNX or "
        "TorchScript, which say what is computed."
    )


def _is_grouped(unit: Unit, before: Unit) -> bool:
    """Say whether a convolution gives all channels that it is given, and reads a part for each."""
    given, read = unit.conv.weight.shape[:2]
    if not unit.keeps_size or unit.is_pointwise or not unit.may_be_plain:
        return False
    is_told = read == 1 or not unit.may_be_transposed
    return is_told and read < given == before.narrow and given % read == 0


def refuse_named(layers: Layers) -> None:
    """Raise if the names are those of a network that looks like a U-Net and is none.

    Parameters
    ----------
    layers : Layers
        All layers of a file.

    Raises
    ------
    ModelError
        If shapes alone would be read as another network than the names tell.
    """
    for kind, patterns in _LOOKALIKES:
        if layers.has_keys(*patterns):
            raise ModelError(
                f"The weights are of {kind}, which is not a U-Net that can be read from tensors. "
                "Ask for it as TorchScript or ONNX, which say what is computed."
            )


def refuse_several_heads(layers: Layers) -> None:
    """Raise if several convolutions give channels that no other can read.

    Parameters
    ----------
    layers : Layers
        All layers of a file.

    Raises
    ------
    ModelError
        If there are tensors that no part of a U-Net uses.
    """
    units, rest = make_units(layers)
    heads = [] if rest else find_heads(units, Search(units).may_gate())
    if len(heads) < 2:
        return
    names = [
        f"{head.name}.{role}"
        for head in heads
        for role in ("weight", "bias")[: 1 + head.conv.has_bias]
    ]
    ends = _listed([head.name for head in heads])
    raise ModelError(
        f"The weights are not of a U-Net that can be built: {ends} each end a network, and a "
        "U-Net has one end. So there are tensors that no part of a U-Net uses, among "
        f"{', '.join(names[:_MOST_NAMED])}. Take those of all ends but one out of the file, or "
        "ask for it as ONNX or TorchScript, which say what is computed."
    )


def refuse_gaps(layers: Layers) -> None:
    """Raise if a numbered list of modules lacks one.

    Where modules of a sequence hold no tensors, numbers are left out as well. But those change
    no channels: what stands behind the gap reads what is given before it. A step of two
    throughout is such a sequence too, unless lists beside it hold every number.

    Parameters
    ----------
    layers : Layers
        All layers of a file.

    Raises
    ------
    ModelError
        If members that are alike stand on both sides of a gap.
    """
    lists = _numbered(layers)
    full = {
        (start.rpartition(".")[0], max(members))
        for start, members in lists.items()
        if sorted(members) == list(range(len(members)))
    }
    for start, members in lists.items():
        places = sorted(members)
        steps = {other - one for one, other in pairwise(places)}
        alike = len({frozenset(_ends(start, at, members[at])) for at in places}) == 1
        is_regular = len(steps) == 1 and (start.rpartition(".")[0], places[-1]) not in full
        if not alike or steps <= {1} or is_regular:
            continue
        for one, other in pairwise(places):
            last, first = _conv_of(members[one], -1), _conv_of(members[other], 0)
            if other - one != 2 or last is None or first is None:
                continue
            if not set(last.sizes) & set(first.sizes):
                name = f"{start}.{one + 1}"
                raise ModelError(
                    f"The weights are not complete: {name} is missing, though {start}.{one} and "
                    f"{start}.{other}, which are alike, are there. {WHOLE}"
                )


def _numbered(layers: Layers) -> dict[str, dict[int, list[Layer]]]:
    """Collect the modules that are numbered, by what stands before the number."""
    lists: dict[str, dict[int, list[Layer]]] = {}
    for layer in layers:
        parts = layer.name.split(".")
        for at, part in enumerate(parts):
            if part.isdecimal() and at:
                start = ".".join(parts[:at])
                lists.setdefault(start, {}).setdefault(int(part), []).append(layer)
    return {start: members for start, members in lists.items() if len(members) > 1}


def _ends(start: str, number: int, members: Sequence[Layer]) -> list[str]:
    """List the tensors of a numbered module, without its name."""
    before = len(f"{start}.{number}")
    return [f"{layer.name[before:]}.{role}" for layer in members for role in layer.tensors]


def _conv_of(members: Sequence[Layer], place: int) -> Layer | None:
    """Return the first or last convolution of a module."""
    convs = [layer for layer in members if layer.kind == "convolution"]
    return convs[place] if convs else None


def _listed(names: Sequence[str]) -> str:
    """Write names one after the other, the last after an and."""
    return f"{', '.join(names[:-1])} and {names[-1]}"
