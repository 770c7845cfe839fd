"""Plain U-Nets of anybody: found from shapes and order, whatever the tensors are called."""

from __future__ import annotations

import re
from itertools import pairwise, product
from typing import TYPE_CHECKING

from napari_unet.models.found import Found
from napari_unet.models.recognise.drawing import Drawing, same
from napari_unet.models.recognise.layers import natural_order
from napari_unet.models.recognise.own import as_own
from napari_unet.models.recognise.readings import Reading, find_family, sentences
from napari_unet.models.recognise.refusing import (
    first_damage,
    refuse_gaps,
    refuse_named,
    refuse_partial,
    refuse_several_heads,
)
from napari_unet.models.recognise.search import Search, Step
from napari_unet.models.recognise.units import Unit, make_units
from napari_unet.network.graph import IMAGE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari_unet.models.recognise.layers import Layer, Layers
    from napari_unet.models.recognise.readings import Family
    from napari_unet.network.graph import Sides, Sizes

MOST_READINGS = 6
_FEWEST_UNITS = 4
_UNKNOWN_KINDS = ("linear", "other")
Choice = list[tuple[float, str, dict[str, object]]]


def recognise_plain(layers: Layers) -> list[Found] | None:
    """Recognise a U-Net from the shapes and the order of its tensors.

    Parameters
    ----------
    layers : Layers
        All layers of a file.

    Returns
    -------
    list of Found or None
        The readings that fit, the likeliest first; None if the tensors are no U-Net's.

    Raises
    ------
    ModelError
        If they are, but some are missing.
    """
    if layers.spatial_dims not in (2, 3) or any(layer.kind in _UNKNOWN_KINDS for layer in layers):
        return None
    if first_damage(layers):
        return None
    refuse_named(layers)
    refuse_gaps(layers)
    refuse_several_heads(layers)
    steps = find_steps(layers)
    if steps is None:
        return None
    network = Network(steps, layers.spatial_dims)
    family = find_family(layers)
    refuse_partial(network, family)
    return _readings(network, family)


def find_steps(layers: Layers) -> list[Step] | None:
    """Put layers together to a U-Net.

    Parameters
    ----------
    layers : Layers
        Convolutions, norms and slopes.

    Returns
    -------
    list of Step or None
        In the order in which they are computed; None if they are no U-Net's.
    """
    by_name = sorted(layers, key=lambda layer: natural_order(layer.name))
    steps = _assemble(layers)
    if steps is None and by_name != list(layers):
        steps = _assemble(by_name)  # a file may be in no order at all
    return steps and _with_bare_shortcuts(steps)


def _assemble(layers: Iterable[Layer]) -> list[Step] | None:
    """Put layers together to a U-Net, in the order in which they are given if that fits."""
    units, rest = make_units(layers)
    return None if rest or len(units) < _FEWEST_UNITS else Search(units).run()


class Network:
    """A U-Net whose steps are known.

    Parameters
    ----------
    steps : sequence of Step
        In the order in which they are computed; the last is the convolution that gives the
        logits.
    spatial_dims : int
        2 for planes, 3 for volumes.
    """

    def __init__(self, steps: Sequence[Step], spatial_dims: int) -> None:
        self.steps = list(steps)
        self.spatial_dims = spatial_dims
        self.head = self.steps[-1].units[-1]
        ups = [step for step in steps if step.kind == "up"]
        self.scales = [self._scale(step) for step in ups]
        """How many times larger each step up makes the features, the deepest first."""
        self.before_neighbours = {
            one for one, other in pairwise(self.blocks) if _are_neighbours(one, other)
        }
        """Convolutions that are followed at once by another one in a numbered sequence."""
        self.in_channels = steps[0].units[0].wide
        self.classes = self.head.narrow

    @property
    def units(self) -> list[Unit]:
        """All convolutions, in the order in which they are computed."""
        return [
            unit
            for step in self.steps
            for unit in (*step.units, *((step.shortcut,) if step.shortcut else ()))
        ]

    @property
    def blocks(self) -> list[Unit]:
        """The convolutions of the levels: neither of upsamplings, gates nor the last one."""
        return [
            unit
            for step in self.steps
            if step.kind in ("unit", "residual")
            for unit in step.units
            if unit is not self.head
        ]

    def has(self, kind: str) -> bool:
        """Say whether there is a step of a kind."""
        return any(step.kind == kind for step in self.steps)

    def ups(self) -> list[Step]:
        """Return the steps up, the deepest first."""
        return [step for step in self.steps if step.kind == "up"]

    def is_active_up(self, step: Step, reading: Reading) -> bool:
        """Say whether an activation follows an upsampling's convolution."""
        unit = step.units[0]
        if reading.active_up is not None:
            return reading.active_up
        if unit.norm is not None or unit.prelu is not None:
            return True
        return _may_be_active(step) and not any(block.norm for block in self.blocks)

    def _scale(self, step: Step) -> Sizes:
        """Say how much larger a step up makes the features."""
        if not step.transposed:
            return (2,) * self.spatial_dims
        return tuple(1 if size == 1 else 2 for size in step.units[0].kernel)

    def draw(self, reading: Reading) -> Found:
        """Draw the network as it is read."""
        own = as_own(self, reading)
        if own is not None:
            return Found(*own)
        drawing = _Reader(self, reading).draw()
        graph = drawing.finish(reading.family, self.in_channels, self.classes)
        return Found(graph, drawing.tensors)


class _Reader:
    """Draws a network as a graph, step by step."""

    def __init__(self, network: Network, reading: Reading) -> None:
        self._network, self._reading = network, reading
        self._drawing = Drawing(network.spatial_dims)
        self._stride: Sizes | None = None

    def draw(self) -> Drawing:
        """Draw all steps."""
        x, skip, skips = IMAGE, "", []
        scales_down, scales_up = list(self._network.scales), list(self._network.scales)
        for step in self._network.steps:
            if step.kind == "unit":
                x = self._unit(x, step.units[0])
            elif step.kind == "residual":
                x = self._residual(x, step)
            elif step.kind == "down":
                skips.append(x)
                x = self._down(x, step, scales_down.pop())
            elif step.kind == "up":
                skip = skips.pop()
                x = self._up(x, step, scales_up.pop(0))
                if self._reading.skips:
                    x, skip = self._fitted(x, skip)
            elif step.kind == "gate":
                skip = self._gate(x, skip, step)
            elif step.how == "add":
                if not self._reading.skips:
                    continue
                x = self._drawing.join("add", x, skip)
            else:
                inputs = (skip, x) if self._reading.skip_first else (x, skip)
                x = self._drawing.join("concatenate", *inputs)
        return self._drawing

    def _unit(self, x: str, unit: Unit, *, active: bool = True) -> str:
        """Draw a convolution with its norm and activation."""
        active = active and unit is not self._network.head
        if self._reading.adjacent_linear and unit in self._network.before_neighbours:
            active = False
        if unit.norm is not None and unit.norm_first:
            x = self._norm(x, unit.norm)
            if unit.gap:
                return self._convolution(self._activation(x, unit), unit.conv)
            return self._active(self._convolution(x, unit.conv), unit, active=active)
        x = self._convolution(x, unit.conv)
        if unit.norm is None:
            if self._reading.bare_norm and active:
                x = self._drawing.bare_instance_norm(x, unit.narrow)
            return self._active(x, unit, active=active)
        if unit.gap or (self._reading.order == "activation-norm" and active):
            return self._norm(self._active(x, unit, active=active), unit.norm)
        return self._active(self._norm(x, unit.norm), unit, active=active)

    def _active(self, x: str, unit: Unit, *, active: bool) -> str:
        return self._activation(x, unit) if active else x

    def _activation(self, x: str, unit: Unit | None = None) -> str:
        """Draw the activation of a unit."""
        prelu = unit.prelu if unit else None
        return self._drawing.activation(x, self._reading.activation, self._reading.slope, prelu)

    def _norm(self, x: str, norm: Layer) -> str:
        """Draw a norm."""
        kind = "batch" if norm.has_statistics else self._reading.norm
        groups = dividing(norm.channels, self._reading.groups) if kind == "group" else 1
        return self._drawing.norm(x, norm, kind, groups)

    def _convolution(self, x: str, conv: Layer) -> str:
        """Draw a convolution that keeps the size, or does not pad, or halves the size."""
        padding = same(conv.kernel) if self._reading.padded else None
        stride, self._stride = self._stride, None
        return self._drawing.convolution(x, conv, stride=stride, padding=_none_if_zero(padding))

    def _residual(self, x: str, step: Step) -> str:
        """Draw a block with its shortcut."""
        y, stride = x, self._stride
        *before, last = step.units
        for unit in before:
            y = self._unit(y, unit)
        y = self._unit(y, last, active=False)
        if step.shortcut is not None:
            self._stride = stride
            x = self._unit(x, step.shortcut, active=False)
        joined = self._drawing.join("add", y, x)
        return joined if last.norm_first else self._activation(joined, last)

    def _down(self, x: str, step: Step, scale: Sizes) -> str:
        """Draw what halves the size."""
        if step.units:
            unit = step.units[0]
            self._stride = tuple(min(size, 2) for size in unit.kernel)
            y = self._drawing.convolution(x, unit.conv, stride=self._stride)
            self._stride = None
            if unit.norm is not None:
                y = self._norm(y, unit.norm)
            return self._activation(y, unit) if unit.norm or unit.prelu else y
        if self._reading.strided:
            self._stride = scale
            return x
        return self._drawing.pooling(x, self._reading.pooling, scale)

    def _up(self, x: str, step: Step, scale: Sizes) -> str:
        """Draw what doubles the size."""
        unit = step.units[0] if step.units else None
        if unit is not None and step.transposed:
            x = self._drawing.transposed(x, unit.conv, scale, _crop(unit.kernel, scale))
        else:
            x = self._drawing.resize(
                x, self._reading.resize, scale, align_corners=self._reading.align_corners
            )
        if unit is None:
            return x
        if not step.transposed:
            x = self._drawing.convolution(x, unit.conv, padding=_none_if_zero(same(unit.kernel)))
        if unit.norm is not None:
            x = self._norm(x, unit.norm)
        return self._activation(x, unit) if self._network.is_active_up(step, self._reading) else x

    def _fitted(self, x: str, skip: str) -> tuple[str, str]:
        """Draw what brings both sides of a join to the same size."""
        if not self._reading.padded or self._reading.fit == "skip":
            return x, self._drawing.fit(skip, x)
        if self._reading.fit == "up":
            return self._drawing.fit(x, skip), skip
        return x, skip

    def _gate(self, x: str, skip: str, step: Step) -> str:
        """Draw an attention gate; it gives the damped skip."""
        of_below, of_skip, attention = step.units
        seen = self._drawing.join(
            "add",
            self._unit(x, of_below, active=False),
            self._unit(skip, of_skip, active=False),
        )
        weight = self._unit(self._activation(seen), attention, active=False)
        return self._drawing.join("multiply", skip, self._drawing.activation(weight, "sigmoid"))


def _none_if_zero(sides: Sides | None) -> Sides | None:
    return None if sides is None or not any(map(any, sides)) else sides


def _crop(kernel: Sizes, scale: Sizes) -> Sides | None:
    """Return what is cut off a transposed convolution so that it gives whole multiples."""
    extra = [size - factor for size, factor in zip(kernel, scale, strict=True)]
    return _none_if_zero(tuple(((more + 1) // 2, more // 2) for more in extra))


def _with_bare_shortcuts(steps: list[Step]) -> list[Step]:
    """Make blocks residual whose shortcut has no weights, if their likes have one."""
    patterns = {
        (_pattern(step.units[0]), len(step.units)) for step in steps if step.kind == "residual"
    }
    result: list[Step] = []
    at = 0
    while at < len(steps):
        length = next(
            (count for pattern, count in patterns if _is_block(steps, at, count, pattern)), 0
        )
        if length:
            units = tuple(step.units[0] for step in steps[at : at + length])
            result.append(Step("residual", units))
        else:
            result.append(steps[at])
        at += length or 1
    return result


def _pattern(unit: Unit) -> str:
    """Return the name of a unit's module, whatever its numbers."""
    return re.sub(r"\d+", "#", unit.conv.parent)


def _is_block(steps: Sequence[Step], at: int, count: int, pattern: str) -> bool:
    """Say whether some units stand in one module like that of a residual block."""
    block = steps[at : at + count]
    if len(block) < count or any(step.kind != "unit" for step in block):
        return False
    units = [step.units[0] for step in block]
    same_module = len({unit.conv.parent for unit in units}) == 1 and bool(units[0].conv.parent)
    return (
        same_module
        and _pattern(units[0]) == pattern
        and units[0].wide == units[-1].narrow
        and block[-1] is not steps[-1]
    )


def _readings(network: Network, family: Family | None) -> list[Found]:
    """Draw the likeliest readings."""
    first = _first_reading(network, family)
    facts = _facts(network)
    found = []
    for title, reading in _likeliest(first, _choices(network, first, facts)):
        drawn = network.draw(reading)
        card = dict(family.card) if family else {}
        assumed = sentences(reading, facts)
        if "activation" not in card:
            card["activation"] = "sigmoid" if network.classes == 1 else "softmax"
            assumed["activation"] = (
                f"{card['activation'].capitalize()} turns the answer into probabilities. The "
                "tensors do not tell."
            )
        found.append(Found(drawn.architecture, drawn.tensors, card, assumed, title))
    return found


def _likeliest(first: Reading, choices: Sequence[Choice]) -> list[tuple[str, Reading]]:
    """Combine choices; return titles and readings, the likeliest first."""
    combined = []
    for parts in product(*([(0.0, "", {}), *choice] for choice in choices)):
        cost = sum(part[0] for part in parts)
        title = ", ".join(part[1] for part in parts if part[1])
        changes = {key: value for part in parts for key, value in part[2].items()}
        combined.append((cost, title or "as it seems", first.changed(**changes)))
    combined.sort(key=lambda item: item[0])
    return [(title, reading) for _, title, reading in combined[:MOST_READINGS]]


def _facts(network: Network) -> list[str]:
    """List what matters for a network and is not told by its tensors."""
    facts = []
    if any(step.kind == "join" and step.how == "concatenate" for step in network.steps):
        facts.append("skip_first")
    if _may_lack_skips(network):
        facts.append("skips")
    if any(not step.transposed for step in network.ups()):
        facts.append("resize")
    norms = [unit for unit in network.blocks if unit.norm is not None]
    if any(not unit.norm_first and not unit.gap and not _told_by_index(unit) for unit in norms):
        facts.append("order")
    if any(unit.norm is not None and not unit.norm.has_statistics for unit in norms):
        facts.append("norm")
    if not norms and _looks_normed(network):
        facts.append("bare_norm")
    if any(_may_be_active(step) for step in network.ups()):
        facts.append("active_up")
    if network.before_neighbours:
        facts.append("adjacent_linear")
    return [*facts, "padded", "activation", "pooling"]


def _may_lack_skips(network: Network) -> bool:
    """Say whether the skips are added without anything that weighs them: then shapes tell none."""
    joins = [step for step in network.steps if step.kind == "join"]
    return all(step.how == "add" for step in joins) and not network.has("gate")


def _are_neighbours(one: Unit, other: Unit) -> bool:
    """Say whether nothing can stand between two convolutions if they stand in a sequence."""
    last = one.norm if one.norm is not None and not one.norm_first else one.conv
    first = other.norm if other.norm is not None and other.norm_first else other.conv
    if last.index is None or first.index is None or last.parent != first.parent:
        return False
    return first.index - last.index == 1


def _may_be_active(step: Step) -> bool:
    """Say whether an activation may follow an upsampling's convolution or not."""
    if not step.units or step.transposed or step.units[0].is_pointwise:
        return False
    return step.units[0].norm is None and step.units[0].prelu is None


def _told_by_index(unit: Unit) -> bool:
    """Say whether the numbers of the names tell that norm follows convolution at once."""
    if unit.norm is None or unit.norm.index is None or unit.conv.index is None:
        return False
    return unit.norm.parent == unit.conv.parent and unit.norm.index == unit.conv.index + 1


def _looks_normed(network: Network) -> bool:
    """Say whether convolutions lack a bias, as before a norm, which has no tensors then."""
    return all(not unit.conv.has_bias for unit in network.blocks)


def _first_reading(network: Network, family: Family | None) -> Reading:
    """Choose the likeliest reading."""
    reading = family.reading() if family else Reading()
    changes: dict[str, object] = {}
    ups = [step for step in network.ups() if not step.transposed]
    if "resize" not in reading.known and any(
        step.units and max(step.units[0].kernel) > 1 for step in ups
    ):
        changes["resize"] = "nearest"
    if "skip_first" not in reading.known and any(
        step.units and max(step.units[0].kernel) == 2 for step in ups
    ):
        changes["skip_first"] = True  # so do the Keras builds with 2x2 convolutions
    norms = [unit.norm for unit in network.blocks if unit.norm and not unit.norm.has_statistics]
    if norms:
        names = " ".join(norm.name.lower() for norm in norms)
        if re.search(r"gn|group", names):
            changes["norm"] = "group"
    if not any(unit.norm for unit in network.blocks) and _looks_normed(network):
        changes["bare_norm"] = True
    if _is_paper(network):
        changes["padded"] = False
    return reading.changed(**changes)


def dividing(channels: int, wish: int) -> int:
    """Return the largest number of groups, not above the one wished for, that divides channels."""
    return next(count for count in range(min(wish, channels), 0, -1) if channels % count == 0)


def _is_paper(network: Network) -> bool:
    """Say whether it is the network of 2015, which was not padded."""
    widths = [unit.narrow for unit in network.blocks[:10]]
    return (
        network.spatial_dims == 2
        and (network.in_channels, network.classes) == (1, 2)
        and widths == [64, 64, 128, 128, 256, 256, 512, 512, 1024, 1024]
        and all(step.transposed for step in network.ups())
        and not any(unit.norm for unit in network.units)
    )


def _choices(network: Network, first: Reading, facts: Sequence[str]) -> list[Choice]:
    """List what else may be, question by question: (how unlikely, in a few words, changes)."""
    unknown = [fact for fact in facts if fact not in first.known]
    choices: list[Choice] = []
    if "skip_first" in unknown:
        title = "upsampled channels first" if first.skip_first else "skip first"
        choices.append([(0.7, title, {"skip_first": not first.skip_first})])
    if "skips" in unknown:
        choices.append([(0.7, "no skips", {"skips": False})])
    if "resize" in unknown:
        kinds = (("nearest", False), ("linear", False), ("linear", True))
        mine = (first.resize, first.resize == "linear" and first.align_corners)
        words = ("repeated pixels", "linear interpolation", "aligned linear interpolation")
        choices.append(
            [
                (0.8 + 0.2 * aligned, title, {"resize": kind, "align_corners": aligned})
                for title, (kind, aligned) in zip(words, kinds, strict=True)
                if (kind, aligned) != mine
            ]
        )
    if "norm" in unknown:
        choices.append(_other_norms(network, first))
    if "bare_norm" in unknown:
        title = "without norm" if first.bare_norm else "instance norm"
        choices.append([(1.2, title, {"bare_norm": not first.bare_norm})])
    if "active_up" in unknown:
        is_active = any(network.is_active_up(step, first) for step in network.ups() if step.units)
        title = "upsampling without activation" if is_active else "upsampling with activation"
        choices.append([(1.1, title, {"active_up": not is_active})])
    if "padded" in unknown and _may_be_unpadded(network):
        title = "unpadded convolutions" if first.padded else "padded convolutions"
        cost = 0.9 if first.known else 1.75
        choices.append([(cost, title, {"padded": not first.padded})])
    if "order" in unknown:
        flipped = "norm-activation" if first.order == "activation-norm" else "activation-norm"
        title = flipped.replace("-", " before ")
        choices.append([(1.8, title, {"order": flipped})])
    if "adjacent_linear" in unknown:
        title = "nothing between neighbours"
        choices.append([(1.3, title, {"adjacent_linear": not first.adjacent_linear})])
    choices.append([(2.2, "leaky ReLU", {"activation": "leaky_relu", "slope": 0.01})])
    return choices


def _may_be_unpadded(network: Network) -> bool:
    """Say whether the network could do without padding: nothing but plain blocks."""
    return not network.has("residual") and not network.has("gate")


def _other_norms(network: Network, first: Reading) -> Choice:
    """List the other kinds of norm that the weights fit."""
    widths = [
        unit.norm.channels for unit in network.units if unit.norm and not unit.norm.has_statistics
    ]
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
