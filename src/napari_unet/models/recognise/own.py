"""A network that is one of ours is built as such: its engine is the faster one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from napari_unet.errors import SettingError
from napari_unet.models.recognise.readings import Reading
from napari_unet.network.layers import GROUPS
from napari_unet.network.presets import PRESETS
from napari_unet.network.unet import UNet
from napari_unet.settings import Architecture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.models.recognise.network import Network
    from napari_unet.models.recognise.steps import Step
    from napari_unet.models.recognise.units import Unit

_NO_OPTIONS = (
    "activation",
    "pooling",
    "pooled_last",
    "strided",
    "active_end",
    "bare_norm",
    "padding_mode",
    "input_added",
)
"""What our U-Net has no option for: fields of a reading that have to be as they mostly are."""


def as_own(
    network: Network, reading: Reading
) -> tuple[Architecture, dict[str, torch.Tensor]] | None:
    """Say which U-Net of ours a network is, if it is one.

    Parameters
    ----------
    network : Network
        Its steps.
    reading : Reading
        What the tensors do not tell.

    Returns
    -------
    tuple of Architecture and dict of str to Tensor, or None
        The U-Net and its state dict; None if ours have no option for it.
    """
    levels = _levels(network.steps)
    if levels is None or not _is_simple(network, reading):
        return None
    down, ups, up = levels
    try:
        shape = _architecture(network, reading, down, ups, up)
    except SettingError:
        return None
    if shape is None:
        return None
    tensors = _tensors(network, down, ups, up)
    with torch.device("meta"):
        expected = UNet(shape).state_dict()
    if {key: t.shape for key, t in expected.items()} != {
        key: t.shape for key, t in tensors.items()
    }:
        return None
    return _named(shape), {key: tensors[key] for key in expected}


Level = list["Unit"]


def _levels(
    steps: Sequence[Step],
) -> tuple[list[Level], list[Step], list[Level]] | None:
    """Divide the steps into levels down, upsamplings and levels up, or None if there is more."""
    down: list[Level] = [[]]
    ups: list[Step] = []
    up: list[Level] = []
    for step in steps[:-1]:
        if step.kind == "unit":
            (up or down)[-1].append(step.units[0])
        elif step.kind == "down" and not step.units:
            down.append([])
        elif step.kind == "up" and step.units:
            ups.append(step)
            up.append([])
        elif step.kind != "join" or step.how != "concatenate":
            return None
    return down, ups, up


def _is_simple(network: Network, reading: Reading) -> bool:
    """Say whether all details are among the options of our U-Net."""
    head, dims = network.head, network.spatial_dims
    return (
        all(unit.kernel == (3,) * dims for unit in network.blocks)
        and all(
            not (unit.prelu or unit.norm_first or unit.gap or unit.squeeze)
            for unit in network.units
        )
        and all(step.units[0].kernel == (2,) * dims for step in network.ups() if step.units)
        and head.kernel in ((1,) * dims, (3,) * dims)
        and head.conv.has_bias
        and head.norm is None
        and not (reading.adjacent_linear and network.before_neighbours)
        and not (reading.reused and network.reused)
        and not (reading.bare_shortcuts and network.bare_blocks)
        and not (reading.resized_last and network.open_upsamplings())
        and set(reading.strides) == {2}
        and set(reading.dilations) == {1}
        and all(getattr(reading, name) == getattr(Reading, name) for name in _NO_OPTIONS)
        and (reading.order == "norm-activation" or not any(u.norm for u in network.units))
        and not (reading.resize == "linear" and reading.align_corners)
        and (reading.fit != "up")
    )


def _architecture(
    network: Network, reading: Reading, down: list[Level], ups: list[Step], up: list[Level]
) -> Architecture | None:
    """Describe the network by the options of ours, or return None."""
    counts = {len(level) for level in (*down, *up)}
    norms = {_norm_kind(unit, reading) for unit in network.blocks}
    kinds = {step.transposed for step in ups}
    biases = {unit.conv.has_bias for unit in network.blocks}
    if any(len(found) != 1 for found in (counts, norms, kinds, biases)) or 0 in counts:
        return None
    if any(unit.narrow != level[-1].narrow for level in down for unit in level):
        return None
    norm, transposed = norms.pop(), kinds.pop()
    active = _is_active(network, reading, ups, norm)
    if active is None or (norm == "group" and reading.groups != GROUPS):
        return None
    widths = tuple(level[-1].narrow for level in down)
    stages = tuple(
        (step.units[0].conv.sizes[1 if transposed else 0], *(unit.narrow for unit in level))
        for step, level in zip(ups, up, strict=True)
    )
    count = counts.pop()
    usual = tuple((width,) * (1 + count) for width in reversed(widths[:-1]))
    options: dict[str, Any] = {}
    if not transposed:
        options["upsampling"] = reading.resize
    return Architecture(
        spatial_dims=network.spatial_dims,
        in_channels=network.in_channels,
        classes=network.classes,
        widths=widths,
        decoder_widths=None if stages == usual else stages,
        convolutions=count,
        padded=reading.padded,
        bias=biases.pop() or norm == "none",
        norm=norm,
        norm_eps=reading.eps,
        relu_after_upsampling=active,
        skip_first=reading.skip_first,
        output_kernel=max(network.head.kernel),
        **options,
    )


def _norm_kind(unit: Unit, reading: Reading) -> str:
    if unit.norm is None:
        return "none"
    return "batch" if unit.norm.has_statistics else reading.norm


def _is_active(network: Network, reading: Reading, ups: list[Step], norm: str) -> bool | None:
    """Say whether norm and ReLU follow the upsamplings; None if only one of them does."""
    normed = {step.units[0].norm is not None for step in ups}
    if normed == {True}:
        return True if reading.active_up is not False and norm != "none" else None
    if normed != {False}:
        return None
    active = network.is_active_up(ups[0], reading)
    return None if active and norm != "none" else active


def _tensors(
    network: Network, down: list[Level], ups: list[Step], up: list[Level]
) -> dict[str, torch.Tensor]:
    """Name the tensors as our U-Net does."""
    tensors: dict[str, torch.Tensor] = {}
    for number, level in enumerate(down):
        for place, unit in enumerate(level):
            _add(tensors, f"down.{number}.units.{place}", unit)
    for number, (step, level) in enumerate(zip(ups, up, strict=True)):
        _add(tensors, f"up.{number}.upsampling", step.units[0])
        for place, unit in enumerate(level):
            _add(tensors, f"up.{number}.block.units.{place}", unit)
    for role, tensor in network.head.conv.tensors.items():
        tensors[f"output.{role}"] = tensor
    return tensors


def _add(tensors: dict[str, torch.Tensor], name: str, unit: Unit) -> None:
    """Add the tensors of a unit."""
    for role, tensor in unit.conv.tensors.items():
        tensors[f"{name}.convolution.{role}"] = tensor
    if unit.norm is not None:
        for role, tensor in unit.norm.tensors.items():
            tensors[f"{name}.norm.{role}"] = tensor
        if unit.norm.has_statistics:
            tensors[f"{name}.norm.num_batches_tracked"] = torch.tensor(0)


def _named(shape: Architecture) -> Architecture:
    """Name the preset that a shape is, whatever its channels, eps and dropout."""
    for name, preset in PRESETS.items():
        same = preset.replace(
            in_channels=shape.in_channels,
            classes=shape.classes,
            spatial_dims=shape.spatial_dims,
            norm_eps=shape.norm_eps,
            dropout=shape.dropout,
            preset=None,
        )
        if same == shape:
            return shape.replace(preset=name)
    return shape
