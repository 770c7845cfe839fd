"""Layers become units: a convolution, with the norm and the slopes that belong to it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

from napari_unet.models.recognise.squeezing import with_squeezes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari_unet.models.recognise.layers import Layer

_WORDS = re.compile(
    r"conv(olution)?([23]d)?|(batch|group|instance)_?norm([23]d)?|norm([23]d)?|bn|gn"
)
"""What norms and convolutions are called, numbers aside."""


@dataclass(frozen=True, eq=False)
class Unit:
    """A convolution and what belongs to it."""

    place: int
    """Number among the convolutions of the file, from 0."""
    conv: Layer
    norm: Layer | None = None
    norm_first: bool = False
    """Whether the norm stands before the convolution."""
    prelu: Layer | None = None
    squeeze: tuple[Layer, ...] = ()
    """What weighs the channels that it gives, by their means; a third weighs the pixels."""
    gap: bool = False
    """Whether the activation stands between convolution and norm, whichever of them is first."""

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All that belongs to it."""
        beside = [layer for layer in (self.norm, self.prelu) if layer is not None]
        return (self.conv, *beside, *self.squeeze)

    @property
    def name(self) -> str:
        """Name of the convolution."""
        return self.conv.name

    @property
    def kernel(self) -> tuple[int, ...]:
        """Size of the kernel."""
        return self.conv.kernel

    @property
    def wide(self) -> int:
        """Channels in, if it is no transposed convolution."""
        return self.conv.sizes[1]

    @property
    def narrow(self) -> int:
        """Channels out, if it is no transposed convolution."""
        return self.conv.sizes[0]

    @cached_property
    def may_be_plain(self) -> bool:
        """Whether bias and norm have as many channels as a convolution gives."""
        return self._fits(self.conv.sizes[0], self.conv.sizes[1])

    @cached_property
    def may_be_transposed(self) -> bool:
        """Whether bias and norm have as many channels as a transposed convolution gives."""
        return self._fits(self.conv.sizes[1], self.conv.sizes[0]) and max(self.kernel) > 1

    def _fits(self, given: int, read: int) -> bool:
        """Say whether bias and norm fit the channels read and given."""
        if self.conv.bias is not None and len(self.conv.bias) != given:
            return False
        return self.norm is None or self.norm.channels == (read if self.norm_first else given)

    @property
    def is_pointwise(self) -> bool:
        """Whether the kernel is of one pixel."""
        return max(self.kernel) == 1

    @cached_property
    def keeps_size(self) -> bool:
        """Whether padding can keep the size: the kernel is odd along each axis."""
        return all(size % 2 for size in self.kernel)


def make_units(layers: Iterable[Layer]) -> tuple[list[Unit], list[Layer]]:
    """Give each norm and each prelu to its convolution.

    Parameters
    ----------
    layers : iterable of Layer
        Convolutions, norms and prelus, in the order of the file.

    Returns
    -------
    list of Unit
        One for each convolution, in the order of the file, but for those that weigh channels.
    list of Layer
        Norms and prelus that belong to none.
    """
    rest: list[Layer] = []
    units: list[Unit] = []
    groups = [list(group) for _, group in groupby(layers, key=_block)]
    norm_first = {_kind_of_block(group) for group in groups if _must_be_norm_first(group)}
    for group in groups:
        _add_group(group, units, rest, norm_first=_kind_of_block(group) in norm_first)
    return with_squeezes(units), rest


def _kind_of_block(group: Sequence[Layer]) -> tuple[str, int]:
    """Name the modules that are built alike, whatever their numbers."""
    return re.sub(r"\d+", "#", group[0].parent), len(group)


def _must_be_norm_first(group: Sequence[Layer]) -> bool:
    """Say whether the norms of a module fit before its convolutions, and not behind them."""
    convs = [layer for layer in group if layer.kind == "convolution"]
    norms = [layer for layer in group if layer.kind == "norm"]
    if not convs or len(convs) != len(norms):
        return False
    pairs = list(zip(norms, convs, strict=True))
    before = all(norm.channels == conv.sizes[1] for norm, conv in pairs)
    return before and any(
        norm.channels != conv.sizes[0] and _is_plain(conv, defined_first=group[0] in norms)
        for norm, conv in pairs
    )


def _is_plain(conv: Layer, *, defined_first: bool) -> bool:
    """Say whether a convolution behind a norm cannot be a transposed one before it."""
    if any(size % 2 == 0 for size in conv.kernel):
        return False
    return len(conv.bias) == conv.sizes[0] if conv.bias is not None else defined_first


def _block(layer: Layer) -> str:
    """Name what a layer and its norm have in common, whatever each of them is called."""
    return layer.parent


def _add_group(
    group: Sequence[Layer], units: list[Unit], rest: list[Layer], *, norm_first: bool
) -> None:
    """Add the units of the layers of one module; its likes may tell that norms come first."""
    convs = [layer for layer in group if layer.kind == "convolution"]
    norms = [layer for layer in group if layer.kind == "norm"]
    start = len(units)
    units.extend(Unit(start + i, conv) for i, conv in enumerate(convs))
    defined_first = bool(convs) and group[0].kind == "norm" and group[-1].kind == "convolution"
    defined_first = defined_first and not _pairs_after(convs, norms)
    if len(norms) == len(convs) and (norm_first or defined_first):
        if all(norm.channels == conv.sizes[1] for norm, conv in zip(norms, convs, strict=True)):
            for i, norm in enumerate(norms):
                gap = not _is_next(norm, convs[i])
                units[start + i] = replace(units[start + i], norm=norm, norm_first=True, gap=gap)
            norms = []
    owners = _owners_by_name(convs, norms)
    for norm, place in owners.items():
        gap = _has_gap(convs[place], norm)
        units[start + place] = replace(units[start + place], norm=norm, gap=gap)
    norms = [norm for norm in norms if norm not in owners]
    if norms and len(norms) == len(convs) and _pairs_after(convs, norms):
        for i, (conv, norm) in enumerate(zip(convs, norms, strict=True)):
            units[start + i] = replace(units[start + i], norm=norm, gap=_has_gap(conv, norm))
        norms = []
    before: Layer | None = None
    for layer in group:
        if layer.kind == "norm" and layer in norms:
            owner = _owner(layer, before, units, start)
            if owner is None:
                rest.append(layer)
            else:
                gap = _has_gap(units[owner].conv, layer)
                units[owner] = replace(units[owner], norm=layer, gap=gap)
        elif layer.kind == "prelu":
            if len(units) and units[-1].prelu is None and before is not None:
                place = _last_conv(before, units)
                units[place] = replace(units[place], prelu=layer)
            else:
                rest.append(layer)
        before = layer


def _owners_by_name(convs: Sequence[Layer], norms: Sequence[Layer]) -> dict[Layer, int]:
    """Find the convolution of each norm by its name: ``bn2`` is that of ``conv2``.

    In a file sorted by name the norms of a module stand before or after all of its convolutions.
    """
    places: dict[str, list[int]] = {}
    for place, conv in enumerate(convs):
        places.setdefault(_WORDS.sub("", conv.name.lower()), []).append(place)
    owners: dict[Layer, int] = {}
    for norm in norms:
        found = places.get(_WORDS.sub("", norm.name.lower()), [])
        if len(found) != 1 or norm.channels not in _gives(convs[found[0]]):
            return {}
        owners[norm] = found[0]
    return owners if len(set(owners.values())) == len(owners) else {}


def _pairs_after(convs: Sequence[Layer], norms: Sequence[Layer]) -> bool:
    """Say whether each norm, in order, has the channels that a convolution gives."""
    if len(convs) != len(norms):
        return False
    pairs = list(zip(convs, norms, strict=True))
    if not all(norm.channels in _gives(conv) for conv, norm in pairs):
        return False
    # A norm before each convolution fits as well if all widths are equal: then names tell.
    before = all(norm.channels == conv.sizes[1] for conv, norm in pairs)
    named_first = all(
        norm.index is not None and conv.index is not None and norm.index < conv.index
        for conv, norm in pairs
    )
    return not (before and named_first)


def _gives(conv: Layer) -> set[int]:
    """Channels that a convolution may give: of an even kernel it may be a transposed one."""
    return set(conv.sizes)


def _owner(norm: Layer, before: Layer | None, units: list[Unit], start: int) -> int | None:
    """Find the convolution that a norm follows."""
    if before is not None:
        place = _last_conv(before, units)
        if place >= 0 and units[place].norm is None:
            if norm.channels in _gives(units[place].conv):
                return place
    for unit in units[start:]:
        if unit.norm is None and norm.channels in _gives(unit.conv):
            return unit.place
    # The norm stands in a module of its own, right after the convolution's.
    if len(units) == start and units and units[-1].norm is None:
        if norm.channels in _gives(units[-1].conv):
            return units[-1].place
    return None


def _last_conv(layer: Layer, units: list[Unit]) -> int:
    """Find the convolution that a layer is or belongs to."""
    for unit in reversed(units):
        if layer in (unit.conv, unit.norm, unit.prelu):
            return unit.place
    return len(units) - 1


def _has_gap(conv: Layer, norm: Layer) -> bool:
    """Say whether an activation stands between convolution and norm, as their numbers tell."""
    if conv.index is None or norm.index is None or conv.parent != norm.parent:
        return False
    return norm.index - conv.index == 2


def _is_next(one: Layer, other: Layer) -> bool:
    """Say whether numbers tell that nothing stands between two layers."""
    if one.index is None or other.index is None or one.parent != other.parent:
        return False
    return other.index - one.index == 1


def common_starts(names: Sequence[str]) -> list[int]:
    """Count the characters that each name starts with in common with the next one.

    Parameters
    ----------
    names : sequence of str
        Of layers, in order.

    Returns
    -------
    list of int
        One fewer than the names. Numbers count as a whole, so that 9 and 10 are no further apart
        than 8 and 9; but ``e11``, ``e12``, ``e21`` are levels and their layers.
    """
    short = {text for name in names for text, number in _numbers(name) if len(number) == 1}
    parts = [_parts(name, short) for name in names]
    return [_common(one, other) for one, other in pairwise(parts)]


def _numbers(name: str) -> list[tuple[str, str]]:
    """List the numbers in a name, each with the text before it."""
    return [(name[: match.start()], match[0]) for match in re.finditer(r"\d+", name)]


def _parts(name: str, short: set[str]) -> list[str]:
    """Divide a name into characters and numbers; a number of levels and layers into digits."""
    parts: list[str] = []
    end = 0
    for text, number in _numbers(name):
        parts += name[end : len(text)]
        end = len(text) + len(number)
        parts += number if len(number) == 2 and text and text not in short else [number]
    return [*parts, *name[end:]]


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """Count the characters of the parts that both start with."""
    count = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            break
        count += len(mine)
    return count
