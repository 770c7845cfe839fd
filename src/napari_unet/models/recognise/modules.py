"""What names tell beside shapes: which module a convolution stands in, and what the module is.

Shapes alone do not tell a convolution that halves the size from one that keeps it, nor that a
shortcut without weights leads past a module. But a convolution in a module of its own between
all levels, or a module that is built like another one with a shortcut, says so by its name.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from napari_unet.models.recognise.steps import Step

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari_unet.models.recognise.units import Unit

_BLOCKS = ("unit", "residual")
_HALVING = re.compile(r"down|pool|strid|reduc|subsamp|shrink|halv|merg|decim|scale")
_RESIDUAL = re.compile(
    r"(^|[._])res(idual|net|_?block|_?unit|blk|\d|[._]|$)|identity", re.IGNORECASE
)


def pattern_of(name: str) -> str:
    """Return a name whatever its numbers.

    Parameters
    ----------
    name : str
        Of a layer or a module.

    Returns
    -------
    str
        With ``#`` for each number.
    """
    return re.sub(r"\d+", "#", name)


def module_of(units: Sequence[Unit]) -> str:
    """Return the name of the innermost module that holds some convolutions.

    Parameters
    ----------
    units : sequence of Unit
        Some convolutions.

    Returns
    -------
    str
        What their names start with in common, whole parts only; empty if nothing.
    """
    shared = []
    for parts in zip(*(unit.name.split(".") for unit in units), strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared)


def rearranged(steps: Sequence[Step]) -> list[Step]:
    """Order steps as names tell where shapes allow either.

    Parameters
    ----------
    steps : sequence of Step
        As they were found from shapes.

    Returns
    -------
    list of Step
        A convolution that stands alone before each halving is what halves; one that stands alone
        before each doubling belongs to it; modules built like those with a shortcut have one too.
    """
    result = _with_ups(_with_downs(list(steps)))
    return with_shortcuts(result, _like_residual(result))


def find_own_downs(steps: Sequence[Step]) -> list[Unit]:
    """Find the convolutions of odd kernel that halve the size, as their names tell.

    Parameters
    ----------
    steps : sequence of Step
        Of a network.

    Returns
    -------
    list of Unit
        The first of each level below the first one, if they stand in modules of their own.
    """
    places = [at for at, step in enumerate(steps) if step.kind == "down"]
    firsts = [steps[at + 1] for at in places]
    if any(
        steps[at].units or first.kind != "unit" for at, first in zip(places, firsts, strict=True)
    ):
        return []
    if any(at + 2 >= len(steps) or steps[at + 2].kind not in _BLOCKS for at in places):
        return []  # the only convolution of a level
    units = [first.units[0] for first in firsts]
    if any(unit.conv.index for unit in units) and not _listed(units):
        return []  # something without weights stands before them in a sequence: a pooling
    return units if units and _halves(units, steps) else []


def named_halving(units: Sequence[Unit]) -> set[Unit]:
    """Find the convolutions that are called after halving the size.

    Parameters
    ----------
    units : sequence of Unit
        All of a file.

    Returns
    -------
    set of Unit
        Those whose names say so where they differ from all others.
    """
    kinds = {pattern_of(unit.name): unit for unit in units}
    named = {name for name, unit in kinds.items() if _HALVING.search(_own_part(unit, units))}
    return {unit for unit in units if pattern_of(unit.name) in named}


def find_bare_blocks(steps: Sequence[Step]) -> list[tuple[Unit, ...]]:
    """Find modules that a shortcut without tensors may lead past.

    Parameters
    ----------
    steps : sequence of Step
        Of a network.

    Returns
    -------
    list of tuple of Unit
        Convolutions of one module that follow each other, the first reading as many channels as
        the last one gives.
    """
    blocks: list[tuple[Unit, ...]] = []
    runs: list[list[Unit]] = [[]]
    for step in steps[:-1]:
        if step.kind != "unit":
            runs.append([])
            continue
        unit = step.units[0]
        if runs[-1] and runs[-1][-1].conv.parent != unit.conv.parent:
            runs.append([])
        runs[-1].append(unit)
    for run in runs:
        for start in (0, 1):
            chain = tuple(run[start:])
            if len(chain) > 1 and chain[0].conv.parent and chain[0].wide == chain[-1].narrow:
                blocks.append(chain)
                break
    return blocks


def looks_residual(blocks: Sequence[tuple[Unit, ...]]) -> bool:
    """Say whether modules are called residual.

    Parameters
    ----------
    blocks : sequence of tuple of Unit
        The convolutions of each.

    Returns
    -------
    bool
        True if all of them are.
    """
    return bool(blocks) and all(_RESIDUAL.search(block[0].conv.parent) for block in blocks)


def find_reused(units: Sequence[Unit], head: Unit) -> dict[Unit, Unit]:
    """Find convolutions that the one norm or PReLU of their module may serve, too.

    Parameters
    ----------
    units : sequence of Unit
        Of the levels.
    head : Unit
        The one that gives the logits.

    Returns
    -------
    dict of Unit to Unit
        Those that have none, each with what it would be.
    """
    prelus = {unit.prelu for unit in (*units, head)} - {None}
    only = prelus.pop() if len(prelus) == 1 else None
    if only is not None and only.channels == 1 and not only.parent:  # that of the whole network
        return {unit: replace(unit, prelu=only) for unit in units if unit.prelu is None}
    modules: dict[str, list[Unit]] = {}
    for unit in units:
        if unit.conv.parent:
            modules.setdefault(unit.conv.parent, []).append(unit)
    reused: dict[Unit, Unit] = {}
    for parent, members in modules.items():
        norms = [unit.norm for unit in members if unit.norm is not None]
        slopes = [unit.prelu for unit in members if unit.prelu is not None]
        for unit in members:
            changed = unit
            if len(norms) == 1 and unit.norm is None and _serves(norms[0], parent):
                if norms[0].channels == unit.narrow:
                    changed = replace(changed, norm=norms[0])
            if len(slopes) == 1 and unit.prelu is None and _serves(slopes[0], parent):
                if slopes[0].channels in (1, unit.narrow):
                    changed = replace(changed, prelu=slopes[0])
            if changed is not unit:
                reused[unit] = changed
    return reused


def with_shortcuts(steps: Sequence[Step], blocks: Sequence[tuple[Unit, ...]]) -> list[Step]:
    """Lead shortcuts without tensors past convolutions.

    Parameters
    ----------
    steps : sequence of Step
        Of a network.
    blocks : sequence of tuple of Unit
        Convolutions that follow each other.

    Returns
    -------
    list of Step
        Each of these blocks as one step.
    """
    starts = {block[0]: block for block in blocks}
    inside = {unit for block in blocks for unit in block[1:]}
    result = []
    for step in steps:
        unit = step.units[0] if step.kind == "unit" else None
        if unit in starts:
            result.append(Step("residual", starts[unit]))
        elif unit is None or unit not in inside:
            result.append(step)
    return result


def _with_downs(steps: list[Step]) -> list[Step]:
    """Move what stands alone before each halving behind it: it is what halves."""
    places = [at for at, step in enumerate(steps) if step.kind == "down"]
    before = [steps[at - 1] for at in places]
    alone = all(
        at > 1 and not steps[at].units and steps[at - 1].kind == "unit"
        and steps[at - 2].kind in _BLOCKS
        for at in places
    )  # fmt: skip
    units = [step.units[0] for step in before if step.units]
    if not places or not alone or not _halves(units, steps):
        return steps
    for at in places:
        steps[at - 1], steps[at] = steps[at], steps[at - 1]
    return steps


def _with_ups(steps: list[Step]) -> list[Step]:
    """Give each doubling the convolution that stands alone before it."""
    places = [at for at, step in enumerate(steps) if step.kind == "up"]
    before = [steps[at - 1] for at in places]
    alone = all(
        not steps[at].units and steps[at - 1].kind == "unit" and steps[at - 2].kind in _BLOCKS
        for at in places
    )
    units = [step.units[0] for step in before if step.units]
    if not places or not alone or not _own_kind(units, steps):
        return steps
    for at in reversed(places):
        steps[at - 1 : at + 1] = [Step("up", steps[at - 1].units)]
    return steps


def _units_of(steps: Sequence[Step]) -> list[Unit]:
    """Return the convolutions of steps."""
    return [unit for step in steps for unit in step.units]


def _own_kind(units: Sequence[Unit], steps: Sequence[Step], *, apart: bool = True) -> bool:
    """Say whether convolutions are called alike, as no others are; perhaps in other modules."""
    names = {pattern_of(unit.name) for unit in units}
    if len(names) != 1:
        return False
    every = _units_of(steps)
    if sum(pattern_of(unit.name) in names for unit in every) != len(units):
        return False
    parents = {unit.conv.parent for unit in units}
    others = {unit.conv.parent for unit in every if unit not in units}
    return not apart or "" in parents or not parents & others


def _halves(units: Sequence[Unit], steps: Sequence[Step]) -> bool:
    """Say whether convolutions, one for each halving, are what halves, as their names tell."""
    if not _own_kind(units, steps, apart=False):
        return False
    if _HALVING.search(_own_part(units[0], _units_of(steps))):
        return True
    if len(units) < 2 or any(unit.is_pointwise for unit in units):
        return False
    is_nested = all(unit.conv.parent for unit in units)
    return (is_nested and _own_kind(units, steps)) or _part_residuals(units, steps)


def _part_residuals(units: Sequence[Unit], steps: Sequence[Step]) -> bool:
    """Say whether each convolution stands between two blocks with a shortcut, in neither."""
    blocks = [step for step in steps if step.kind in _BLOCKS]
    places = [at for at, step in enumerate(blocks) if step.units[0] in units]
    return all(
        0 < at < len(blocks) - 1
        and blocks[at].kind == "unit"
        and blocks[at - 1].kind == blocks[at + 1].kind == "residual"
        for at in places
    )


def _own_part(unit: Unit, units: Iterable[Unit]) -> str:
    """Return the part of a name that no convolution of another kind shares."""
    mine = pattern_of(unit.name)
    parts = re.split(r"[._]", mine)
    shared = 0
    for theirs in {pattern_of(other.name) for other in units} - {mine}:
        common = 0
        for one, two in zip(parts, re.split(r"[._]", theirs), strict=False):
            if one != two:
                break
            common += 1
        shared = max(shared, common)
    return ".".join(parts[shared:]).lower()


def _listed(units: Sequence[Unit]) -> bool:
    """Say whether convolutions stand in one list."""
    return len({unit.conv.parent for unit in units}) == 1


def _serves(layer: object, parent: str) -> bool:
    """Say whether a layer stands beside the convolutions of a module, under no number."""
    return getattr(layer, "parent", None) == parent and getattr(layer, "index", None) is None


def _like_residual(steps: Sequence[Step]) -> list[tuple[Unit, ...]]:
    """Find the modules that are built like those with a shortcut, which has no tensors there."""
    residual = [step.units for step in steps if step.kind == "residual"]
    patterns = {(pattern_of(units[0].conv.parent), len(units)) for units in residual}
    blocks: list[tuple[Unit, ...]] = []
    at = 0
    while at < len(steps) - 1:
        length = next(
            (
                count
                for pattern, count in patterns
                if _is_block(steps[at : at + count], count, pattern, steps[-1])
            ),
            0,
        )
        if length:
            blocks.append(tuple(step.units[0] for step in steps[at : at + length]))
        at += length or 1
    return blocks


def _is_block(block: Sequence[Step], count: int, pattern: str, final: Step) -> bool:
    """Say whether some units stand in one module like that of a residual block."""
    if len(block) < count or any(step.kind != "unit" for step in block) or block[-1] is final:
        return False
    units = [step.units[0] for step in block]
    parents = Counter(unit.conv.parent for unit in units)
    return (
        len(parents) == 1
        and bool(units[0].conv.parent)
        and pattern_of(units[0].conv.parent) == pattern
        and units[0].wide == units[-1].narrow
    )
