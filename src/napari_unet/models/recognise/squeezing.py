"""Squeeze and excitation: pairs of layers that weigh channels by their means.

Each mean is read by a layer that gives fewer numbers, those by one that gives as many as there
are channels again. No U-Net has such a pair of one pixel each on its way; so where one is found,
it belongs to the convolution before it. A third layer may weigh each pixel, by its channels.

References
----------
.. [1] Hu, Shen, Sun (2018), Squeeze-and-Excitation Networks, doi:10.1109/CVPR.2018.00745.
.. [2] Roy, Navab, Wachinger (2018), doi:10.1007/978-3-030-00928-1_48, for the third layer.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from napari_unet.models.recognise.layers import Layers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.models.recognise.layers import Layer
    from napari_unet.models.recognise.units import Unit

_WORDS = re.compile(
    r"(^|[._\d])(c?se|scse|fc|ca|att?n?)([._\d]|$)|squeeze|excit|channel|se_?(block|layer)"
)


def with_linear_as_pointwise(layers: Layers) -> Layers:
    """Write linear layers that weigh channels as convolutions of one pixel, which they are.

    Parameters
    ----------
    layers : Layers
        All layers of a file.

    Returns
    -------
    Layers
        The same ones if no two linear layers that follow each other are such a pair.
    """
    linear = layers.of_kind("linear")
    pairs = list(zip(linear[::2], linear[1::2], strict=False))
    if not linear or len(linear) % 2 or not all(_is_pair(one, other) for one, other in pairs):
        return layers
    ones = (1,) * layers.spatial_dims
    weights = {f"{layer.name}.weight" for layer in linear}
    return Layers(
        {
            key: tensor.reshape(*tensor.shape, *ones) if key in weights else tensor
            for key, tensor in layers.tensors.items()
        }
    )


def with_squeezes(units: Sequence[Unit]) -> list[Unit]:
    """Give each pair of layers that weighs channels to the convolution whose channels these are.

    Parameters
    ----------
    units : sequence of Unit
        All convolutions of a file, in its order.

    Returns
    -------
    list of Unit
        Without those that weigh, and numbered anew.
    """
    groups: list[tuple[Unit, ...]] = []
    for one, other in pairwise(units):
        if _weighs(one, other) and not any(one in group for group in groups):
            spatial = _spatial(units, one, other)
            groups.append((one, other, *((spatial,) if spatial else ())))
    weighing = {unit for group in groups for unit in group}
    owners: dict[Unit, tuple[Layer, ...]] = {}
    taken: set[Unit] = set()
    for group in groups:
        owner = _owner([unit for unit in units if unit not in weighing | owners.keys()], group)
        if owner is not None:
            owners[owner] = tuple(unit.conv for unit in group)
            taken |= set(group)
    left = [unit for unit in units if unit not in taken]
    return [
        replace(unit, place=place, squeeze=owners.get(unit, ())) for place, unit in enumerate(left)
    ]


def _is_pair(one: Layer, other: Layer) -> bool:
    """Say whether one layer gives fewer numbers than it reads, and another as many again."""
    narrow, wide = one.sizes
    return narrow < wide and other.sizes == (wide, narrow)


def _weighs(one: Unit, other: Unit) -> bool:
    """Say whether two convolutions weigh channels."""
    if not (one.is_pointwise and other.is_pointwise and _is_pair(one.conv, other.conv)):
        return False
    if any(unit.norm is not None or unit.prelu is not None for unit in (one, other)):
        return False
    if one.conv.parent and one.conv.parent == other.conv.parent:
        return True
    return all(_WORDS.search(unit.name.lower()) for unit in (one, other))


def _spatial(units: Sequence[Unit], one: Unit, other: Unit) -> Unit | None:
    """Return the convolution beside a pair that weighs pixels by the same channels."""
    module = _shared(one.name, other.name)[:-1] or _shared(one.name, other.name)
    for place in (other.place + 1, one.place - 1):
        unit = units[place] if 0 <= place < len(units) else None
        if unit is None or not unit.is_pointwise or unit.norm is not None:
            continue
        if (
            unit.conv.sizes == (1, one.wide)
            and module
            and unit.name.split(".")[: len(module)] == module
        ):
            return unit
    return None


def _owner(units: Sequence[Unit], group: Sequence[Unit]) -> Unit | None:
    """Find the convolution whose channels are weighed: the one before, or the last of a module."""
    first, channels = min(unit.place for unit in group), group[0].wide
    fitting = [unit for unit in units if unit.narrow == channels and unit.may_be_plain]
    before = [unit for unit in units if unit.place < first]
    if before and before[-1] in fitting:
        return before[-1]
    shared = {unit: len(_shared(unit.name, group[0].name)) for unit in fitting}
    nearest = max(shared.values(), default=0)
    beside = [unit for unit in fitting if nearest and shared[unit] == nearest]
    found = beside or [unit for unit in fitting if unit.place < first]
    return found[-1] if found else None


def _shared(one: str, other: str) -> list[str]:
    """Return the parts of two names that both start with."""
    parts = []
    for mine, theirs in zip(one.split("."), other.split("."), strict=False):
        if mine != theirs:
            break
        parts.append(mine)
    return parts
