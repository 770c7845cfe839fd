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
from dataclasses import dataclass
from itertools import count, pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple

from napari_unet.models.recognise.heads import find_orphans
from napari_unet.models.recognise.units import Unit, common_starts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MOST_STATES = 40_000
_MOST_MOVES = 200_000  # from all states together
_MORE_STATES = 3_000  # looked at after a way was found, for a better one
_HOPE = 0.3  # what each unit that is still to be used is thought to cost
_MOST_LEVELS = 8
_LARGEST_UP_KERNEL = 6
_LARGEST_DOWN_KERNEL = 4
_JUMP = (0.6, 1.3, 3.0)  # by how well names divide there
_JUMP_ON = 0.4  # to what follows units that are used already
_ODD_NAME = 0.8  # for up1 that is part of a level when up2 was an upsampling
_OTHER_NAME = 0.4  # for convolutions of one level that are not called alike
_ACROSS = 0.7  # to stay on a level where the names divide
_UNEVEN = 0.3  # for each convolution that a level has more or fewer than the one before


@dataclass(frozen=True, eq=False)
class Step:
    """Something that is done with the features."""

    kind: Literal["unit", "residual", "down", "up", "gate", "join"]
    units: tuple[Unit, ...] = ()
    """What computes: of residual the main path; of up at most one; of gate three: of the features
    from below, of the skip, and of their sum."""
    shortcut: Unit | None = None
    transposed: bool = False
    how: Literal["concatenate", "add"] = "concatenate"


@dataclass(frozen=True, eq=False)
class _Block:
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
        self._common = common_starts([unit.name for unit in self._units])
        patterns = [re.sub(r"\d+", "#", unit.name) for unit in self._units]
        self._kinds = [patterns.index(pattern) for pattern in patterns]
        self._gates = list(self._find_gates())
        self._strengths = [self._measure(place) for place in range(len(self._units) + 1)]
        self._halving = [
            unit
            for unit in self._units
            if not unit.keeps_size
            and unit.may_be_plain
            and max(unit.kernel) <= _LARGEST_DOWN_KERNEL
        ]
        self._growing: dict[int, list[tuple[int, int, float, Step]]] = {}
        for channels, narrow, used, cost, step in self._find_upsamplings():
            self._growing.setdefault(channels, []).append((narrow, used, cost, step))
        self._reading: dict[int, list[_Block]] = {}
        for block in self._find_blocks():
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
            if self._is_whole(state) and came[state][1][-1].kind == "unit":
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

    def _moves(self, state: _State) -> Iterator[tuple[float, _State, tuple[Step, ...]]]:
        """Give each step that may follow."""
        may_go_down = not state.up and state.here and len(state.skips) < _MOST_LEVELS
        for block in self._blocks(state.channels, state.used):
            used = state.used | block.mask
            strength = self._strength(block.first)
            cost = block.cost + self._jump(state.last, block.first, state.used)
            kinds, odd = self._called(state.kinds, block.first, upsampling=False)
            if used != self._all:  # the last convolution stands apart
                cost += odd
            along = cost
            if used != self._all and state.here:
                along += _ACROSS if strength == 0 else 0.0
                along += _OTHER_NAME if self._kinds[block.first] != self._kinds[state.last] else 0.0
            if not state.up and block.narrow > block.wide and state.here:
                along += 0.5
            if state.up and not state.here:
                along += strength
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
                    down += (0.5 if block.narrow == block.wide else 1.5) if strength else 0.1
                skips = (*state.skips, state.channels)
                following = _State(
                    used, block.narrow, skips, False, 1, block.final, state.here, kinds
                )
                yield down, following, (Step("down"), block.step)
        if may_go_down:
            yield from self._strided(state)
        if state.skips and state.here:
            yield from self._ups(state)

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
            if state.way_up not in ("", way_up):
                continue  # all levels double the size alike
            if step.units:
                kinds, odd = self._called(kinds, last, upsampling=True)
            gates: list[tuple[float, int, int, tuple[Step, ...]]] = [(0.0, 0, last, ())]
            gates += self._gated(state.used | used, last, narrow, skip)
            for gate_cost, gate_used, gate_last, gate in gates:
                mask = state.used | used | gate_used
                may_add = skip == narrow and self._may_add(step)
                for join, channels, join_cost in (
                    (Step("join", how="concatenate"), narrow + skip, 0.0),
                    (Step("join", how="add"), skip if may_add else 0, 2.0),
                ):
                    if next(self._blocks(channels, mask), None) is None:
                        continue  # nothing could read it
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

    def _find_upsamplings(self) -> Iterator[tuple[int, int, int, float, Step]]:
        """Find what may double the size: (channels in, out, used, cost, step)."""
        for unit in self._units:
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
                    cost += (0.0, 0.3, 2.0)[self._strength(unit.place)]
                yield second, first, used, cost, Step("up", (unit,))

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

    def _find_blocks(self) -> Iterator[_Block]:
        """Find what keeps the size: single convolutions, and those with a shortcut."""
        for unit in self._units:
            if unit.keeps_size and unit.may_be_plain:
                step = Step("unit", (unit,))
                yield _Block(unit.wide, unit.narrow, 1 << unit.place, unit.place, unit.place, step)
        for main, shortcut in self._find_residuals():
            first = min(main[0].place, shortcut.place)
            final = max(main[-1].place, shortcut.place)
            mask = sum(1 << unit.place for unit in (*main, shortcut))
            step = Step("residual", main, shortcut)
            cost = self._torn(first, final) + (0.0 if _is_named_shortcut(shortcut) else 0.6)
            cost += 1.0 if len(main) == 1 else 0.0
            yield _Block(main[0].wide, main[-1].narrow, mask, first, final, step, cost)

    def _blocks(self, channels: int, used: int) -> Iterator[_Block]:
        """Give the blocks that read features of a width and are not used yet."""
        return (block for block in self._reading.get(channels, ()) if not used & block.mask)

    def _called(
        self, kinds: tuple[int, int], place: int, *, upsampling: bool
    ) -> tuple[tuple[int, int], float]:
        """Note a unit's name, and say what it costs if its likes did something else."""
        bit = 1 << self._kinds[place]
        mine, others = kinds[upsampling], kinds[not upsampling]
        cost = _ODD_NAME if others & bit and not mine & bit else 0.0
        noted = (kinds[0], mine | bit) if upsampling else (mine | bit, kinds[1])
        return noted, cost

    def _torn(self, first: int, final: int) -> float:
        """Say what it costs that names bind units to others more than to each other."""
        inside = min(self._common[first:final])
        outside = [self._common[at] for at in (first - 1, final) if 0 <= at < len(self._common)]
        return 2.0 if inside < max(outside, default=0) else 0.0

    def _jump(self, last: int | None, place: int, used: int) -> float:
        """Say what it costs not to follow the order of the file."""
        if last is None or place == last + 1:
            return 0.0
        if place and used >> (place - 1) & 1:
            return _JUMP_ON
        return _JUMP[self._strength(place)]

    def _strength(self, place: int) -> int:
        """Say how well names divide before a unit, as measured once."""
        return self._strengths[place]

    def _measure(self, place: int) -> int:
        """Say how well names divide before a unit: 0 well, 1 they do not tell, 2 not at all."""
        if not 0 < place < len(self._units):
            return 0
        here = self._common[place - 1]
        beside = [self._common[at] for at in (place - 2, place) if 0 <= at < len(self._common)]
        if any(here < other for other in beside):
            return 0
        return 2 if beside and all(here > other for other in beside) else 1

    @staticmethod
    def _uneven(state: _State) -> float:
        """Say what it costs that a level has more or fewer blocks than the one before."""
        return _UNEVEN * abs(state.here - state.before) if state.before else 0.0

    def _find_gates(self) -> Iterator[tuple[Unit, Unit, Unit]]:
        """Find triples of 1x1 convolutions: two into the same width, and one from it to one."""
        for one, other, attention in zip(
            self._units, self._units[1:], self._units[2:], strict=False
        ):
            pointwise = one.is_pointwise and other.is_pointwise and attention.is_pointwise
            if not pointwise or attention.narrow != 1:
                continue
            if one.narrow == other.narrow == attention.wide and one.wide > 1 and other.wide > 1:
                yield (
                    (other, one, attention) if _is_of_skip(one, other) else (one, other, attention)
                )
                if one.wide != other.wide:
                    yield (
                        (one, other, attention)
                        if _is_of_skip(one, other)
                        else (other, one, attention)
                    )

    def _find_residuals(self) -> Iterator[tuple[tuple[Unit, ...], Unit]]:
        """Find chains of convolutions with a shortcut beside them."""
        for shortcut in self._units:
            if not shortcut.keeps_size:
                continue
            for length in (2, 1, 3):
                for start in (shortcut.place - length, shortcut.place + 1):
                    main = self._units[start : start + length] if start >= 0 else []
                    if len(main) == length and _is_shortcut(main, shortcut):
                        yield tuple(main), shortcut


def _way_up(step: Step) -> str:
    """Say how a step doubles the size."""
    if not step.units:
        return "resized"
    return f"{'transposed' if step.transposed else 'convolved'} {max(step.units[0].kernel)}"


def _is_of_skip(one: Unit, other: Unit) -> bool:
    """Say whether the first of a gate's convolutions reads the skip, as the names tell."""
    last = [unit.name.lower().replace("weight", "").split(".") for unit in (one, other)]
    words = [part for part in zip(*last, strict=False) if part[0] != part[1]]
    if not words:
        return False
    mine, others = words[0]
    signs = ("_x", "wx", "x", "skip", "theta", "enc", "from_skip")
    return mine.endswith(signs) and not others.endswith(signs)


def _is_shortcut(main: Sequence[Unit], shortcut: Unit) -> bool:
    """Say whether a convolution may lead past others: same channels in and out."""
    chained = all(one.narrow == other.wide for one, other in pairwise(main))
    if not chained or not all(unit.keeps_size for unit in main):
        return False
    if main[0].wide != shortcut.wide or main[-1].narrow != shortcut.narrow:
        return False
    smaller = max(shortcut.kernel) == 1 and max(max(unit.kernel) for unit in main) > 1
    return smaller or (_is_named_shortcut(shortcut) and len(main) > 1)


def _is_named_shortcut(unit: Unit) -> bool:
    """Say whether a unit is called a shortcut."""
    return any(word in unit.name.lower() for word in ("short", "skip", "res", "identity", "proj"))
