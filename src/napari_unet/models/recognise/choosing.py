"""The likeliest ways to read a U-Net of nobody known: first one, then what else may be.

Where names are like those of layouts that are copied a lot, their habits are taken over. Of the
published PyTorch layouts with transposed convolutions or with an encoder and a decoder by name,
most put the upsampled features first; those that descend from three much copied ones, which show
by ``inc``/``outc``, by lists called ``downs``/``ups`` and by ``Up_conv``, put the skip first.
"""

from __future__ import annotations

import re
from itertools import product
from typing import TYPE_CHECKING

from napari_unet.models.recognise.answering import open_questions
from napari_unet.models.recognise.modules import looks_residual
from napari_unet.models.recognise.network import may_be_active
from napari_unet.models.recognise.readings import Reading

if TYPE_CHECKING:
    from napari_unet.models.recognise.network import Network
    from napari_unet.models.recognise.readings import Family

MOST_READINGS = 6
Choice = list[tuple[float, str, dict[str, object]]]

_SKIP_FIRST = re.compile(
    r"^(inc|outc|downs|ups|Up_?conv_?\d+|(?:conv|X|x)_?\d_\d)(?:[._]|$)", re.MULTILINE
)
"""Names in the layouts whose skips come first, and in what was made of them."""
_GROUPED = re.compile(r"gn\d*$|group", re.IGNORECASE)


def first_reading(network: Network, family: Family | None) -> Reading:
    """Choose the likeliest reading.

    Parameters
    ----------
    network : Network
        Its steps.
    family : Family or None
        The published network whose names the tensors have.

    Returns
    -------
    Reading
        The family's, completed by what is usual.
    """
    reading = family.reading() if family else Reading()
    changes: dict[str, object] = {}
    kernels = [
        max(step.units[0].kernel) for step in network.ups() if step.units and not step.transposed
    ]
    if "resize" not in reading.known and any(size > 1 for size in kernels):
        changes["resize"] = "nearest"
    if "skip_first" not in reading.known and (2 in kernels or _has_names_of_skip_first(network)):
        changes["skip_first"] = True  # the Keras builds with 2x2 convolutions do so, too
    if any(_GROUPED.search(norm.name) for norm in network.open_norms()):
        changes["norm"] = "group"
    if not network.has_norms() and network.looks_normed():
        changes["bare_norm"] = True
    if any(step.kind == "residual" and step.units[-1].norm_first for step in network.steps):
        changes["residual_end"] = "none"  # norm and activation open the next block
        changes["strided"] = any(
            step.shortcut is not None and not step.shortcut.is_pointwise for step in network.steps
        )  # such shortcuts have to see what they step over
    if network.own_downs:
        changes["strided"] = True
    strides = network.usual_strides()
    if set(strides) != {2}:
        changes["strides"] = strides
    upsamplings = network.open_upsamplings()
    if upsamplings and all(unit.conv.index == 0 for unit in upsamplings):
        changes["resized_last"] = True  # in a sequence, before what has no weights
    if looks_residual(network.bare_blocks):
        changes["bare_shortcuts"] = True
    if _is_paper(network):
        changes["padded"] = False
    return reading.changed(**changes)


def likeliest(network: Network, first: Reading) -> list[tuple[str, Reading]]:
    """Combine what else may be.

    Parameters
    ----------
    network : Network
        Its steps.
    first : Reading
        The likeliest one.

    Returns
    -------
    list of (str, Reading)
        A few words that tell each from the others, the likeliest first.
    """
    combined = []
    for parts in product(*([(0.0, "", {}), *choice] for choice in _choices(network, first))):
        cost = sum(part[0] for part in parts)
        title = ", ".join(part[1] for part in parts if part[1])
        changes = {key: value for part in parts for key, value in part[2].items()}
        combined.append((cost, title or "as it seems", first.changed(**changes)))
    combined.sort(key=lambda item: item[0])
    return [(title, reading) for _, title, reading in combined[:MOST_READINGS]]


def _choices(network: Network, first: Reading) -> list[Choice]:
    """List what else may be, question by question: (how unlikely, in a few words, changes)."""
    unknown = {
        question.name
        for question in open_questions(network, first)
        if not question.fields() & first.known
    }
    choices: list[Choice] = []
    if "skip_order" in unknown:
        title = "upsampled channels first" if first.skip_first else "skip first"
        choices.append([(0.7, title, {"skip_first": not first.skip_first})])
    if "skips" in unknown:
        choices.append([(0.7, "no skips", {"skips": False})])
    if "upsampling" in unknown:
        choices.append(_other_upsamplings(first))
    if "upsampling_order" in unknown:
        title = "upsampling first" if first.resized_last else "convolution before upsampling"
        choices.append([(0.9, title, {"resized_last": not first.resized_last})])
    if "norm" in unknown:
        choices.append(_other_norms(network, first))
    if "bare_norm" in unknown and network.looks_normed():
        title = "without norm" if first.bare_norm else "instance norm"
        choices.append([(1.2, title, {"bare_norm": not first.bare_norm})])
    if "upsampling_activation" in unknown and any(may_be_active(step) for step in network.ups()):
        is_active = any(network.is_active_up(step, first) for step in network.ups() if step.units)
        title = "upsampling without activation" if is_active else "upsampling with activation"
        choices.append([(1.1, title, {"active_up": not is_active})])
    if "padding" in unknown:
        title = "unpadded convolutions" if first.padded else "padded convolutions"
        cost = 0.9 if first.known else 1.75
        choices.append([(cost, title, {"padded": not first.padded})])
    if "order" in unknown and network.has_norms():
        flipped = "norm-activation" if first.order == "activation-norm" else "activation-norm"
        title = flipped.replace("-", " before ")
        choices.append([(1.8, title, {"order": flipped})])
    if "neighbours" in unknown:
        title = "nothing between neighbours"
        choices.append([(1.3, title, {"adjacent_linear": not first.adjacent_linear})])
    if "activation" in unknown:
        choices.append([(2.2, "leaky ReLU", {"activation": "leaky_relu", "slope": 0.01})])
    return choices


def _other_upsamplings(first: Reading) -> Choice:
    """List the other ways to double the size without weights."""
    kinds = (
        ("repeated pixels", "nearest", False),
        ("linear interpolation", "linear", False),
        ("aligned linear interpolation", "linear", True),
    )
    mine = (first.resize, first.resize == "linear" and first.align_corners)
    return [
        (0.8 + 0.2 * aligned, title, {"resize": kind, "align_corners": aligned})
        for title, kind, aligned in kinds
        if (kind, aligned) != mine
    ]


def _other_norms(network: Network, first: Reading) -> Choice:
    """List the other kinds of norm that the weights fit."""
    widths = [norm.channels for norm in network.open_norms()]
    kinds = [("instance", 1)]
    kinds += [
        ("group", n) for n in (8, 32, 16, 4) if n == 8 or all(width % n == 0 for width in widths)
    ]
    mine = (first.norm, first.groups if first.norm == "group" else 1)
    return [
        (
            1.0 + 0.2 * number,
            "instance norm" if kind == "instance" else f"group norm of {groups} groups",
            {"norm": kind, "groups": groups},
        )
        for number, (kind, groups) in enumerate(kinds)
        if (kind, groups) != mine
    ]


def _has_names_of_skip_first(network: Network) -> bool:
    """Say whether names are like those of layouts whose skips come first."""
    names = "\n".join(unit.name for unit in network.units)
    return len(set(_SKIP_FIRST.findall(names))) > 1


def _is_paper(network: Network) -> bool:
    """Say whether it is the network of 2015, which was not padded."""
    widths = [unit.narrow for unit in network.blocks[:10]]
    return (
        network.spatial_dims == 2
        and (network.in_channels, network.classes) == (1, 2)
        and widths == [64, 64, 128, 128, 256, 256, 512, 512, 1024, 1024]
        and all(step.transposed for step in network.ups())
        and not network.has_norms()
    )
