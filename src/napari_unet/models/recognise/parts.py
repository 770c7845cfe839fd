"""The parts that a U may be made of: blocks, gates, and what doubles or halves the size."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from napari_unet.models.recognise.modules import module_of, pattern_of
from napari_unet.models.recognise.steps import Step

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_unet.models.recognise.divisions import Divisions
    from napari_unet.models.recognise.units import Unit

_SHORTCUT = re.compile(r"short|skip|(?<!featu)(?<!comp)res|identity|proj|downsample|match|bypass")
"""Words in the names of shortcuts; features are none."""
_FOREIGN = 2.0
"""For a shortcut past a convolution that stands outside the module of both."""
_LARGEST_UP_KERNEL = 6
_LARGEST_DOWN_KERNEL = 4


@dataclass(frozen=True, eq=False)
class Block:
    """What keeps the size of the features."""

    wide: int
    narrow: int
    mask: int
    """One bit per unit."""
    first: int
    """Place of its first unit in the file."""
    final: int
    step: Step
    cost: float = 0.0


@dataclass(frozen=True, eq=False)
class Module:
    """Convolutions of a module that holds a shortcut beside them, and nothing else."""

    main: tuple[Unit, ...]
    shortcut: Unit | None
    """None if it has no tensors, but those of modules built alike have."""

    @property
    def units(self) -> tuple[Unit, ...]:
        """All convolutions."""
        return (*self.main, *((self.shortcut,) if self.shortcut else ()))


def find_modules(units: Sequence[Unit]) -> list[Module]:
    """Find the modules that lead a shortcut past convolutions, as names tell beside shapes.

    Parameters
    ----------
    units : sequence of Unit
        In the order of the file.

    Returns
    -------
    list of Module
        No two of them share a convolution.
    """
    modules: list[Module] = []
    taken: set[Unit] = set()
    for main, shortcut in _find_residuals(units):
        if _is_whole(main, shortcut, units) and not taken & {*main, shortcut}:
            modules.append(Module(main, shortcut))
            taken |= {*main, shortcut}
    for main in _find_bare(units, modules):
        if not taken & set(main):
            modules.append(Module(main, None))
            taken |= set(main)
    return modules


def find_blocks(
    units: Sequence[Unit], divisions: Divisions, modules: Sequence[Module]
) -> Iterator[Block]:
    """Find what keeps the size: single convolutions, and those with a shortcut.

    Parameters
    ----------
    units : sequence of Unit
        In the order of the file.
    divisions : Divisions
        Where their names divide.
    modules : sequence of Module
        Those that lead a shortcut past convolutions, which are no blocks by themselves then.

    Yields
    ------
    Block
        In no order.
    """
    bound = {unit for module in modules for unit in module.units}
    for unit in units:
        if unit.keeps_size and unit.may_be_plain and unit not in bound:
            step = Step("unit", (unit,))
            yield Block(unit.wide, unit.narrow, 1 << unit.place, unit.place, unit.place, step)
    for main, shortcut in _find_residuals(units):
        if not bound & {*main, shortcut}:
            yield _residual(main, shortcut, _cost(main, shortcut, divisions))
    for module in modules:
        yield _residual(module.main, module.shortcut, 0.0)


def find_gates(units: Sequence[Unit]) -> Iterator[tuple[Unit, Unit, Unit]]:
    """Find triples of 1x1 convolutions: two into the same width, and one from it to one.

    Parameters
    ----------
    units : sequence of Unit
        In the order of the file.

    Yields
    ------
    tuple of Unit
        Those that read the features from below, the skip, and the sum of both.
    """
    for one, other, attention in zip(units, units[1:], units[2:], strict=False):
        pointwise = one.is_pointwise and other.is_pointwise and attention.is_pointwise
        if not pointwise or attention.narrow != 1:
            continue
        if one.narrow == other.narrow == attention.wide and one.wide > 1 and other.wide > 1:
            below, skip = (other, one) if _is_of_skip(one, other) else (one, other)
            yield below, skip, attention
            if one.wide != other.wide:
                yield skip, below, attention


def find_upsamplings(
    units: Sequence[Unit], divisions: Divisions
) -> Iterator[tuple[int, int, int, float, Step]]:
    """Find what may double the size.

    Parameters
    ----------
    units : sequence of Unit
        In the order of the file.
    divisions : Divisions
        Where their names divide.

    Yields
    ------
    tuple
        Channels in, channels out, one bit per unit, how unlikely, and the step.
    """
    for unit in units:
        if max(unit.kernel) > _LARGEST_UP_KERNEL:
            continue
        first, second = unit.conv.sizes
        used, even = 1 << unit.place, not unit.keeps_size
        if unit.may_be_transposed:
            cost = 0.0 if even or first != second else 0.5
            yield first, second, used, cost, Step("up", (unit,), transposed=True)
        if unit.may_be_plain:
            cost = 0.5 if even and first == second else 0.0
            if max(unit.kernel) > 2:
                cost += (0.0, 0.3, 2.0)[divisions.strength(unit.place)]
            yield second, first, used, cost, Step("up", (unit,))


def find_halving(units: Sequence[Unit]) -> list[Unit]:
    """Find the convolutions of even kernel that may halve the size.

    Parameters
    ----------
    units : sequence of Unit
        In the order of the file.

    Returns
    -------
    list of Unit
        In the same order.
    """
    return [
        unit
        for unit in units
        if not unit.keeps_size and unit.may_be_plain and max(unit.kernel) <= _LARGEST_DOWN_KERNEL
    ]


def _residual(main: Sequence[Unit], shortcut: Unit | None, cost: float) -> Block:
    """Return convolutions with a shortcut, which may have no tensors."""
    places = [unit.place for unit in (*main, *((shortcut,) if shortcut else ()))]
    step = Step("residual", tuple(main), shortcut)
    mask = sum(1 << place for place in places)
    return Block(main[0].wide, main[-1].narrow, mask, min(places), max(places), step, cost)


def _cost(main: Sequence[Unit], shortcut: Unit, divisions: Divisions) -> float:
    """Say how unlikely a shortcut is that shares no module with what it leads past alone."""
    places = [main[0].place, main[-1].place, shortcut.place]
    cost = divisions.torn(min(places), max(places))
    if module_of((main[-1], shortcut)) != module_of((*main, shortcut)):
        cost += _FOREIGN  # their module does not hold what the chain begins with
    cost += 0.0 if _is_named_shortcut(shortcut) else 0.6
    return cost + (1.0 if len(main) == 1 else 0.0)


def _find_residuals(units: Sequence[Unit]) -> Iterator[tuple[tuple[Unit, ...], Unit]]:
    """Find chains of convolutions with a shortcut beside them."""
    for shortcut in units:
        if not shortcut.keeps_size:
            continue
        for length in (2, 1, 3):
            for start in (shortcut.place - length, shortcut.place + 1):
                main = units[start : start + length] if start >= 0 else []
                if len(main) == length and _is_shortcut(main, shortcut):
                    yield tuple(main), shortcut


def _is_whole(main: Sequence[Unit], shortcut: Unit, units: Sequence[Unit]) -> bool:
    """Say whether a module holds a chain and its shortcut, and no other convolution."""
    members = (*main, shortcut)
    module = module_of(members)
    if not module or not _is_named_shortcut(shortcut):
        return False
    return all(unit in members for unit in units if unit.name.startswith(f"{module}."))


def _find_bare(units: Sequence[Unit], modules: Sequence[Module]) -> Iterator[tuple[Unit, ...]]:
    """Find the modules that are built like others with a shortcut, and have none with tensors."""
    inside = {unit for module in modules for unit in module.units}
    kinds = set()
    for whole in modules:
        module = module_of(whole.units)
        relative = tuple(unit.name[len(module) :] for unit in whole.main)
        is_named = any(name.strip(".").rpartition(".")[2].isidentifier() for name in relative)
        kinds.add(("" if is_named else pattern_of(module), relative))
    for pattern, relative in kinds:
        for first in units:
            module = first.name.removesuffix(relative[0])
            if first in inside or module == first.name or not module:
                continue
            if pattern and pattern_of(module) != pattern:
                continue
            chain = tuple(unit for unit in units if unit.name.startswith(f"{module}."))
            if tuple(unit.name[len(module) :] for unit in chain) != relative:
                continue
            if _is_chain(chain) and chain[0].wide == chain[-1].narrow:
                yield chain


def _is_chain(units: Sequence[Unit]) -> bool:
    """Say whether each convolution reads as many channels as the one before gives."""
    chained = all(one.narrow == other.wide for one, other in pairwise(units))
    return chained and all(unit.keeps_size and unit.may_be_plain for unit in units)


def _is_shortcut(main: Sequence[Unit], shortcut: Unit) -> bool:
    """Say whether a convolution may lead past others: same channels in and out."""
    if not _is_chain(main):
        return False
    if main[0].wide != shortcut.wide or main[-1].narrow != shortcut.narrow:
        return False
    smaller = max(shortcut.kernel) == 1 and max(max(unit.kernel) for unit in main) > 1
    return smaller or (_is_named_shortcut(shortcut) and len(main) > 1)


def _is_named_shortcut(unit: Unit) -> bool:
    """Say whether a unit is called a shortcut."""
    return _SHORTCUT.search(unit.name.lower()) is not None


def _is_of_skip(one: Unit, other: Unit) -> bool:
    """Say whether the first of a gate's convolutions reads the skip, as the names tell."""
    last = [unit.name.lower().replace("weight", "").split(".") for unit in (one, other)]
    words = [part for part in zip(*last, strict=False) if part[0] != part[1]]
    if not words:
        return False
    mine, others = words[0]
    signs = ("_x", "wx", "x", "skip", "theta", "enc", "from_skip")
    return mine.endswith(signs) and not others.endswith(signs)
