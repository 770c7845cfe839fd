"""Units are put together to a U: the order in which they are computed, found from their shapes.

Down the contracting path each unit reads what the one before gives; now and then the features are
halved and kept as a skip. Up the expanding path they are doubled, the skips come back one after
the other, and the unit that reads a join has as many channels in as both sides have together.
That leaves few ways to use each unit once, mostly one. Where there are several, the one wins
that follows the order of the file and the division of the names.
"""

from __future__ import annotations

import heapq
import math
import re
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from napari_unet.models.recognise.divisions import Divisions
from napari_unet.models.recognise.heads import find_orphans
from napari_unet.models.recognise.modules import named_halving
from napari_unet.models.recognise.parts import (
    Block,
    find_blocks,
    find_gates,
    find_halving,
    find_modules,
    find_upsamplings,
)
from napari_unet.models.recognise.steps import Step

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_unet.models.recognise.units import Unit

_MOST_STATES = 40_000
_MOST_MOVES = 200_000  # from all states together
_MORE_STATES = 3_000  # looked at after a way was found, for a better one
_HOPE = 0.3  # what each unit that is still to be used is thought to cost
_MOST_LEVELS = 8
_IMAGE = 0  # of a skip that nothing joins: that of the image itself
_JUMP = (0.6, 1.3, 3.0)  # by how well names divide there
_JUMP_ON = 0.4  # to what follows units that are used already
_BOTTOM = re.compile(r"middle|bottle|bridge|cent(er|re)|bottom", re.IGNORECASE)
_NOT_DEEPEST = 1.5  # for what is called after the bottom of the U to stand on its way up
_TORN = 1.5  # to leave a sequence of convolutions before its end
_ODD_NAME = 0.8  # for up1 that is part of a level when up2 was an upsampling
_OTHER_NAME = 0.4  # for convolutions of one level that are not called alike
_ACROSS = 0.7  # to stay on a level where the names divide
_NO_WIDER = 0.5  # for a level that is no wider than the one above it
_UNEVEN = 0.3  # for each convolution that a level has more or fewer than the one before


class _State(NamedTuple):
    """How far the way through the network is known."""

    used: int
    """One bit per unit."""
    channels: int
    skips: tuple[int, ...]
    """Channels of the skips that are still to come back."""
    up: bool
    here: int
    """Blocks since the last change of size."""
    last: int
    """Place of the unit that was used last."""
    before: int
    """Blocks of the level before."""
    kinds: tuple[int, int] = (0, 0)
    """Which names, numbers aside, were those of a level's units, and which of upsamplings."""
    way_up: str = ""
    """How the size was doubled before."""


class Search:
    """The search for the U in which each unit is used once.

    Parameters
    ----------
    units : sequence of Unit
        In the order of the file.

    Attributes
    ----------
    furthest : tuple of int
        Of the way that used most units: one bit for each of them, the place of the last one, and
        the channels that it gives.
    """

    def __init__(self, units: Sequence[Unit]) -> None:
        self._units = list(units)
        self.furthest = (0, -1, 0)
        self._all = (1 << len(self._units)) - 1
        modules = find_modules(self._units)
        self._divisions = Divisions(self._units, [module.units for module in modules])
        self._kinds = self._divisions.kinds
        self._gates = list(find_gates(self._units))
        self._halving = find_halving(self._units)
        self._named_halving = named_halving(self._units)
        named = {unit.place for unit in self._units if _BOTTOM.search(unit.name)}
        self._bottom = named if 3 * len(named) < len(self._units) else set()
        self._growing: dict[int, list[tuple[int, int, float, Step]]] = {}
        for channels, narrow, used, cost, step in find_upsamplings(self._units, self._divisions):
            self._growing.setdefault(channels, []).append((narrow, used, cost, step))
        self._reading: dict[int, list[Block]] = {}
        for block in find_blocks(self._units, self._divisions, modules):
            self._reading.setdefault(block.wide, []).append(block)

    def may_gate(self) -> set[Unit]:
        """Return the units that may belong to attention gates."""
        return {unit for gate in self._gates for unit in gate}

    def run(self) -> list[Step] | None:
        """Return the steps of the likeliest way, or None if there is none."""
        if not self._may_come_back() or find_orphans(self._units):
            return None
        number = count()
        queue: list[tuple[float, int, float, _State]] = []
        came: dict[_State, tuple[_State | None, tuple[Step, ...]]] = {}
        best: dict[_State, float] = {}
        found, bound, left, moves = None, math.inf, _MOST_STATES, _MOST_MOVES

        def reach(
            cost: float, state: _State, before: _State | None, steps: tuple[Step, ...]
        ) -> None:
            """Note a way to a state if it is the best one so far."""
            if cost < min(best.get(state, math.inf), bound):
                best[state], came[state] = cost, (before, steps)
                hope = _HOPE * (len(self._units) - state.used.bit_count())
                heapq.heappush(queue, (cost + hope, next(number), cost, state))

        for cost, state, steps in self._starts():
            reach(cost, state, None, steps)
        while queue and left and moves > 0:
            _, _, cost, state = heapq.heappop(queue)
            if cost > best[state] or cost >= bound:
                continue
            left -= 1
            if state.used.bit_count() > self.furthest[0].bit_count():
                self.furthest = (state.used, state.last, state.channels)
            if self._is_whole(state) and _may_end(came[state][1][-1]):
                found, bound, left = self._way(state, came), cost, min(left, _MORE_STATES)
                continue
            for extra, following, steps in self._moves(state):
                reach(cost + extra, following, state, steps)
                moves -= 1
        return found

    def _is_whole(self, state: _State) -> bool:
        """Say whether each unit is used and each skip came back."""
        return state.used == self._all and state.up and not state.skips

    def _may_come_back(self) -> bool:
        """Say whether anything can double the size and join a skip, before ways are tried."""
        if any(self._may_add(step) for ups in self._growing.values() for *_, step in ups):
            return True
        plain = [unit for unit in self._units if unit.may_be_plain]
        read = {size for unit in self._units for size in unit.conv.sizes}
        sums = {one + other for one in read for other in read}
        narrowing = [unit for unit in plain if unit.narrow < unit.wide]
        narrowing = [unit for unit in narrowing if unit.narrow in self._kept(unit)]
        transposed = any(
            step.transposed and step.units[0].conv.sizes[0] > step.units[0].conv.sizes[1]
            for ups in self._growing.values()
            for *_, step in ups
        )
        return (bool(narrowing) or transposed) and any(unit.wide in sums for unit in plain)

    def _kept(self, unit: Unit) -> set[int]:
        """Return the widths that other units may read, alone or beside a skip."""
        sizes = {size for other in self._units if other is not unit for size in other.conv.sizes}
        return sizes | {size - other for size in sizes for other in sizes}

    @staticmethod
    def _may_add(step: Step) -> bool:
        """Say whether features of the same level may be added after an upsampling.

        A convolution of odd kernel that keeps the width is one of any chain: then names tell.
        """
        if not step.transposed:
            return False
        unit = step.units[0]
        named = re.search(r"up|trans|deconv", unit.name.lower()) is not None
        return not unit.keeps_size or unit.conv.sizes[0] > unit.conv.sizes[1] or named

    @staticmethod
    def _way(
        state: _State, came: dict[_State, tuple[_State | None, tuple[Step, ...]]]
    ) -> list[Step]:
        parts = []
        at: _State | None = state
        while at is not None:
            at, steps = came[at]
            parts.append(steps)
        return [step for steps in reversed(parts) for step in steps]

    def _starts(self) -> Iterator[tuple[float, _State, tuple[Step, ...]]]:
        """Give each block that may be the first one."""
        for block in (block for blocks in self._reading.values() for block in blocks):
            extra = 0.0 if block.first == 0 else _JUMP[0] + 0.1 * math.log2(block.wide)
            kinds, _ = self._called((0, 0), block.first, upsampling=False)
            state = _State(block.mask, block.narrow, (), False, 1, block.final, 0, kinds)
            yield block.cost + extra, state, (block.step,)
        for unit in self._halving:
            extra = 1.0 if unit.place == 0 else 1.0 + _JUMP[1]
            state = _State(1 << unit.place, unit.narrow, (_IMAGE,), False, 0, unit.place, 0)
            yield extra, state, (Step("down", (unit,)),)

    def _moves(self, state: _State) -> Iterator[tuple[float, _State, tuple[Step, ...]]]:
        """Give each step that may follow."""
        may_go_down = not state.up and state.here and len(state.skips) < _MOST_LEVELS
        for block in self._blocks(state.channels, state.used):
            used = state.used | block.mask
            strength = self._divisions.strength(block.first)
            cost = block.cost + self._jump(state.last, block.first, state.used)
            kinds, odd = self._called(state.kinds, block.first, upsampling=False)
            if used != self._all:  # the last convolution stands apart
                cost += odd
            if state.up and block.first in self._bottom:
                cost += _NOT_DEEPEST
            if block.first != state.last + 1 and self._goes_on(state.last, state.used):
                cost += _TORN
            along = cost
            if used != self._all and state.here:
                along += self._strangeness(state, block)
            if not state.up and block.narrow > block.wide and state.here:
                along += 0.5
            if state.up and not state.here:
                along += self._divisions.bond(block.first)
            following = _State(
                used,
                block.narrow,
                state.skips,
                state.up,
                state.here + 1,
                block.final,
                state.before,
                kinds,
                state.way_up,
            )
            yield along, following, (block.step,)
            if may_go_down:
                down = cost + strength + self._uneven(state)
                if block.narrow <= block.wide:  # levels are mostly wider, the deeper
                    down += (0.5 if block.narrow == block.wide else 1.5) if strength else _NO_WIDER
                skips = (*state.skips, state.channels)
                following = _State(
                    used, block.narrow, skips, False, 1, block.final, state.here, kinds
                )
                yield down, following, (Step("down"), block.step)
        if not state.up and len(state.skips) < _MOST_LEVELS:
            yield from self._strided(state)
        if state.skips:
            yield from self._ups(state)

    def _strangeness(self, state: _State, block: Block) -> float:
        """Say what it costs to stay on a level with a block that is called otherwise."""
        if self._kinds[block.first] == self._kinds[state.last]:
            return _ACROSS if self._divisions.bond(block.first) == 0 else 0.0
        is_first = state.here == 1 and not state.up
        if is_first and state.skips and self._units[state.last] in self._named_halving:
            return 0.0  # behind what made the level smaller
        cost = _ACROSS if self._divisions.bond(block.first) == 0 else 0.0
        is_stem = is_first and not state.skips and self._kinds.count(self._kinds[state.last]) == 1
        return cost if is_stem else cost + _OTHER_NAME

    def _strided(self, state: _State) -> Iterator[tuple[float, _State, tuple[Step, ...]]]:
        """Give the convolutions of even kernel that may halve the size."""
        for unit in self._halving:
            if state.used >> unit.place & 1 or unit.wide != state.channels:
                continue
            cost = 1.0 + self._jump(state.last, unit.place, state.used) + self._uneven(state)
            cost += 2.0 if "up" in unit.name.lower() else 0.0
            yield (
                cost,
                _State(
                    state.used | 1 << unit.place,
                    unit.narrow,
                    (*state.skips, state.channels),
                    False,
                    0,
                    unit.place,
                    state.here,
                    state.kinds,
                ),
                (Step("down", (unit,)),),
            )

    def _ups(self, state: _State) -> Iterator[tuple[float, _State, tuple[Step, ...]]]:
        """Give the ways to double the size and to join the skip."""
        for cost, narrow, used, last, step in self._upsamplings(state):
            skip, kinds, odd = state.skips[-1], state.kinds, 0.0
            way_up = _way_up(step)
            if state.way_up not in ("", way_up) and skip != _IMAGE:
                continue  # all levels double the size alike
            if not state.here and not (step.transposed and not step.units[0].keeps_size):
                continue
            if step.units:
                kinds, odd = self._called(kinds, last, upsampling=True)
            if skip == _IMAGE:
                following = _State(
                    state.used | used, narrow, state.skips[:-1], True, 0, last, state.here, kinds,
                    way_up,
                )  # fmt: skip
                yield cost + odd, following, (step,)
                continue
            gates: list[tuple[float, int, int, tuple[Step, ...]]] = [(0.0, 0, last, ())]
            gates += self._gated(state.used | used, last, narrow, skip)
            for gate_cost, gate_used, gate_last, gate in gates:
                mask = state.used | used | gate_used
                may_add = skip == narrow and self._may_add(step)
                for join, channels, join_cost in (
                    (Step("join", how="concatenate"), narrow + skip, 0.0),
                    (Step("join", how="add"), skip if may_add else 0, 2.0),
                ):
                    if not self._is_read(channels, mask):
                        continue
                    following = _State(
                        mask,
                        channels,
                        state.skips[:-1],
                        True,
                        0,
                        gate_last,
                        state.here,
                        kinds,
                        way_up,
                    )
                    yield (
                        cost + odd + gate_cost + join_cost,
                        following,
                        (step, *gate, join),
                    )

    def _upsamplings(self, state: _State) -> Iterator[tuple[float, int, int, int, Step]]:
        """Give the ways to double the size: (cost, channels, used, last, step)."""
        uneven = self._uneven(state)
        yield uneven, state.channels, 0, state.last, Step("up")
        for narrow, used, extra, step in self._growing.get(state.channels, ()):
            if not state.used & used:
                place = step.units[0].place
                cost = extra + uneven + self._jump(state.last, place, state.used)
                yield cost, narrow, used, place, step

    def _gated(
        self, used: int, last: int, below: int, skip: int
    ) -> list[tuple[float, int, int, tuple[Step, ...]]]:
        """Give the gates that fit between features from below and a skip."""
        fitting: list[tuple[float, int, int, tuple[Step, ...]]] = []
        for of_below, of_skip, attention in self._gates:
            mask = sum(1 << unit.place for unit in (of_below, of_skip, attention))
            if used & mask or of_below.wide != below or of_skip.wide != skip:
                continue
            first = min(of_below.place, of_skip.place)
            step = Step("gate", (of_below, of_skip, attention))
            cost = self._jump(last, first, used) - 0.5
            fitting.append((max(cost, 0.0), mask, attention.place, (step,)))
        return fitting

    def _blocks(self, channels: int, used: int) -> Iterator[Block]:
        """Give the blocks that read features of a width and are not used yet."""
        return (block for block in self._reading.get(channels, ()) if not used & block.mask)

    def _is_read(self, channels: int, used: int) -> bool:
        """Say whether anything that is left reads features of a width."""
        if next(self._blocks(channels, used), None) is not None:
            return True
        ups = self._growing.get(channels, ())
        return any(step.transposed and not mask & used for _, mask, _, step in ups)

    def _called(
        self, kinds: tuple[int, int], place: int, *, upsampling: bool
    ) -> tuple[tuple[int, int], float]:
        """Note a unit's name, and say what it costs if its likes did something else."""
        bit = 1 << self._kinds[place]
        mine, others = kinds[upsampling], kinds[not upsampling]
        cost = _ODD_NAME if others & bit and not mine & bit else 0.0
        noted = (kinds[0], mine | bit) if upsampling else (mine | bit, kinds[1])
        return noted, cost

    def _jump(self, last: int | None, place: int, used: int) -> float:
        """Say what it costs not to follow the order of the file."""
        if last is None or place == last + 1:
            return 0.0
        if place and used >> (place - 1) & 1:
            return _JUMP_ON
        return _JUMP[self._divisions.bond(place)]

    def _goes_on(self, last: int, used: int) -> bool:
        """Say whether a sequence goes on behind a unit with one that is not used yet."""
        if last + 1 >= len(self._units) or used >> (last + 1) & 1:
            return False
        one, other = self._units[last].conv, self._units[last + 1].conv
        if one.index is None or other.index is None or one.parent != other.parent:
            return False
        return other.index - one.index > 1  # with something in between: no list of modules

    @staticmethod
    def _uneven(state: _State) -> float:
        """Say what it costs that a level has more or fewer blocks than the one before."""
        return _UNEVEN * abs(state.here - state.before) if state.before else 0.0


def _may_end(step: Step) -> bool:
    """Say whether a step may give the logits."""
    return step.kind == "unit" or (step.kind == "up" and step.transposed)


def _way_up(step: Step) -> str:
    """Say how a step doubles the size."""
    if not step.units:
        return "resized"
    return f"{'transposed' if step.transposed else 'convolved'} {max(step.units[0].kernel)}"
