"""What a network that was recognised lacks beside its likes: it is refused, or told of."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from napari_unet.errors import ModelError
from napari_unet.models.recognise.modules import pattern_of
from napari_unet.models.recognise.refusing import WHOLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari_unet.models.recognise.network import Network
    from napari_unet.models.recognise.readings import Family
    from napari_unet.models.recognise.units import Unit

_FEWEST_LIKES = 3


def refuse_partial(network: Network, family: Family | None) -> None:
    """Raise if tensors are missing that their likes have.

    Parameters
    ----------
    network : Network
        What the tensors were recognised as.
    family : Family or None
        The published network whose names they have; all of its levels are alike.

    Raises
    ------
    ModelError
        If a convolution lacks bias or norm, or a level lacks a convolution, or the last one is
        missing.
    """
    blocks, head = network.blocks, network.head
    _refuse_without_end(network)
    _refuse_without_shortcut(network)
    _refuse_odd(blocks, "bias", family)
    _refuse_odd(blocks, "norm", family)
    _refuse_odd([step.units[0] for step in network.ups() if step.units], "bias", family)
    gates = [unit for step in network.steps if step.kind == "gate" for unit in step.units]
    _refuse_odd(gates, "bias", None)
    _refuse_odd(gates, "norm", None)
    if not head.conv.has_bias and family is not None:
        raise ModelError(f"The weights are not complete: {head.name}.bias is missing. {WHOLE}")
    modules: dict[str, dict[str, set[str]]] = {}
    for unit in (unit for unit in network.units if unit is not network.head):
        parent = unit.conv.parent
        if parent:
            pattern = re.sub(r"\d+", "#", parent)
            modules.setdefault(pattern, {}).setdefault(parent, set()).add(unit.name[len(parent) :])
    shortcuts = {step.shortcut.name for step in network.steps if step.shortcut}
    for likes in modules.values():
        _refuse_headless(likes)
        _refuse_incomplete(likes, shortcuts, all_alike=family is not None)


def oddities(network: Network) -> dict[str, str]:
    """Say what a network that is taken as it is lacks beside its likes.

    Parameters
    ----------
    network : Network
        What the tensors were recognised as.

    Returns
    -------
    dict of str to str
        A topic and a sentence each, for the card.
    """
    told: dict[str, str] = {}
    rest = [unit.conv.has_bias for unit in network.units if unit is not network.head]
    if not network.head.conv.has_bias and all(rest):
        told["bias of the last convolution"] = (
            f"{network.head.name} has no bias, though all others have one. It is taken as it is; "
            "the file may be incomplete."
        )
    modules: dict[str, dict[str, int]] = {}
    for unit in network.blocks:
        counts = modules.setdefault(pattern_of(unit.conv.parent), {})
        counts[unit.conv.parent] = counts.get(unit.conv.parent, 0) + 1
    for counts in modules.values():
        usual = Counter(counts.values()).most_common(1)[0][0]
        last = list(counts)[-1]
        if counts[last] < usual and set(list(counts.values())[:-1]) == {usual}:
            told["convolutions of the last level"] = (
                f"{last} has fewer convolutions than the modules that are called alike. It is "
                "taken as it is; the file may be incomplete."
            )
    if any(unit.squeeze for unit in network.units):
        told["squeeze and excitation"] = (
            "Channels are weighed by their means, with ReLU and sigmoid, behind the convolution "
            "that gives them. The tensors do not tell."
        )
    return told


def _refuse_without_end(network: Network) -> None:
    """Raise if the last convolution is none that gives an answer, but one of a level."""
    head, blocks = network.head, network.blocks
    if network.steps[-1].kind != "unit" or head.is_pointwise:
        return
    if head.conv.parent:
        is_of_level = pattern_of(head.conv.parent) in {pattern_of(u.conv.parent) for u in blocks}
    else:  # all are called alike then, but classes are fewer than features
        is_of_level = pattern_of(head.name) in {pattern_of(unit.name) for unit in blocks}
        is_of_level = is_of_level and head.narrow >= blocks[0].narrow
    if head.norm is not None or head.prelu is not None or is_of_level:
        raise ModelError(
            f"The weights are not complete: what comes last is {head.name}, with a weight of "
            f"shape {tuple(head.conv.weight.shape)}, a convolution of a level and not the one "
            f"that gives the answer. {WHOLE}"
        )


def _refuse_without_shortcut(network: Network) -> None:
    """Raise if a module is built like those with a shortcut, and its widths need one."""
    residual = [step for step in network.steps if step.kind == "residual" and step.shortcut]
    likes = {pattern_of(unit.name) for step in residual for unit in step.units}
    for step in network.steps:
        unit = step.units[0] if step.kind == "unit" else network.head
        if unit is not network.head and unit.conv.parent and pattern_of(unit.name) in likes:
            raise ModelError(
                f"The weights are not complete: {unit.conv.parent} has no shortcut, though modules "
                f"that are called alike have one. {WHOLE}"
            )


def _is_regular(lack: Sequence[Unit], likes: Sequence[Unit]) -> bool:
    """Say whether all that stand at the same place in their modules lack the same."""
    places = {_place(unit) for unit in lack}
    alike = [unit for unit in likes if _place(unit) in places]
    return len(lack) > 1 and len(alike) == len(lack)


def _place(unit: Unit) -> str:
    """Return the place of a unit in its module, as its name tells."""
    numbers = re.findall(r"\d+", unit.name)
    return f"{pattern_of(unit.name)} {numbers[-1] if len(numbers) > 1 else ''}"


def _refuse_odd(units: Sequence[Unit], what: str, family: Family | None) -> None:
    """Raise if a few convolutions lack the bias or the norm that their likes have."""
    groups: dict[str, list[Unit]] = {}
    for unit in units:
        pattern = "" if family else re.sub(r"\d+", "#", unit.name)
        groups.setdefault(pattern, []).append(unit)
    for likes in groups.values():
        having = [unit.conv.has_bias if what == "bias" else unit.norm is not None for unit in likes]
        lack = [unit for unit, has in zip(likes, having, strict=True) if not has]
        may_lack = what == "norm" and not family and lack == list(units[:1])
        if may_lack or _is_regular(lack, likes):
            continue  # the first one may do without a norm, and each first one of a level, too
        if len(likes) >= _FEWEST_LIKES and 0 < len(lack) < len(likes) / 2:
            raise ModelError(
                f"The weights are not complete: {lack[0].name} has no {what}, its "
                f"{having.count(True)} likes have one. {WHOLE}"
            )


def _refuse_incomplete(
    likes: dict[str, set[str]], shortcuts: Iterable[str], *, all_alike: bool
) -> None:
    """Raise if a single module lacks a convolution that all of its likes have."""
    if len(likes) < _FEWEST_LIKES:
        return
    counts = Counter(frozenset(children) for children in likes.values())
    usual, count = counts.most_common(1)[0]
    if count != len(likes) - 1:
        return
    names = list(likes)
    name = next(name for name in names if likes[name] != usual)
    missing = sorted(usual - likes[name])
    optional = {shortcut.removeprefix(other) for shortcut in shortcuts for other in names}
    if not missing or set(missing) <= optional:
        return
    if all_alike or name not in (names[0], names[-1]):
        raise ModelError(
            f"The weights are not complete: {name}{missing[0]} is missing, which {count} modules "
            f"of its kind have. {WHOLE}"
        )


def _refuse_headless(likes: dict[str, set[str]]) -> None:
    """Raise if a sequence lacks the convolution that stands first in those built like it."""
    for name, children in likes.items():
        numbers = {child: int(child[1:]) for child in children if child[1:].isdecimal()}
        for other, usual in likes.items():
            first = min(usual, key=lambda child: int(child[1:]) if child[1:].isdecimal() else 0)
            if len(numbers) == len(children) and children < usual and first not in children:
                raise ModelError(
                    f"The weights are not complete: {name}{first} is missing, though "
                    f"{other}{first} is there. {WHOLE}"
                )
