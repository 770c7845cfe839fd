"""A U-Net whose steps are known, and what its tensors leave open."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from napari_unet.models.found import Found
from napari_unet.models.recognise.modules import (
    find_bare_blocks,
    find_own_downs,
    find_reused,
    with_shortcuts,
)
from napari_unet.models.recognise.own import as_own
from napari_unet.models.recognise.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.models.recognise.layers import Layer
    from napari_unet.models.recognise.readings import Reading
    from napari_unet.models.recognise.steps import Step
    from napari_unet.models.recognise.units import Unit
    from napari_unet.network.graph import Sizes


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
        self.own_downs = find_own_downs(self.steps)
        """Convolutions of odd kernel that halve the size, as their names tell."""
        self.bare_blocks = find_bare_blocks(self.steps)
        """Convolutions that a shortcut without tensors may lead past."""
        self.before_neighbours = {
            one for one, other in pairwise(self.blocks) if _are_neighbours(one, other)
        }
        """Convolutions that are followed at once by another one in a numbered sequence."""
        self.in_channels = steps[0].units[0].wide
        self.classes = self.head.conv.sizes[1 if self.steps[-1].transposed else 0]
        self.reused = find_reused(self.blocks, self.head)
        """Convolutions without norm or PReLU, and those whose norm or PReLU may serve them."""

    @property
    def units(self) -> list[Unit]:
        """All convolutions, in the order in which they are computed."""
        return [unit for step in self.steps for unit in _all(step)]

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
        return may_be_active(step) and not any(block.norm for block in self.blocks)

    def is_active_down(self, unit: Unit, reading: Reading) -> bool:
        """Say whether an activation follows a convolution that halves the size."""
        if reading.active_down is not None and unit.prelu is None:
            return reading.active_down
        if unit.norm is not None or unit.prelu is not None:
            return True
        return _stands_in_sequence(self.downs(reading))

    def has_bare_stem(self) -> bool:
        """Say whether the first convolution stands alone, without norm, before residual blocks."""
        first, second = self.steps[:2]
        if (first.kind, second.kind) != ("unit", "residual"):
            return False
        return first.units[0].norm is None and first.units[0].prelu is None

    def ends(self) -> set[Unit]:
        """Return the plain convolutions with which levels end."""
        pairs = pairwise(self.steps)
        return {
            one.units[0]
            for one, other in pairs
            if one.kind == "unit" and (other.kind in ("down", "up") or self.head in other.units)
        }

    def may_pool_last(self) -> bool:
        """Say whether a pooling may stand behind the first module of each level, not before it."""
        pairs = pairwise(self.steps)
        return any(
            one.kind == "down" and not one.units and other.kind == "unit" for one, other in pairs
        )

    def downs(self, reading: Reading) -> list[Unit]:
        """Return the convolutions that halve the size and stand for themselves."""
        even = [unit for step in self.steps if step.kind == "down" for unit in step.units]
        return even + (self.own_downs if reading.strided else [])

    def open_downs(self, reading: Reading) -> list[Unit]:
        """Return those of them that an activation may follow or not."""
        return [unit for unit in self.downs(reading) if unit.prelu is None]

    def open_ups(self) -> list[Unit]:
        """Return the convolutions of upsamplings that an activation may follow or not."""
        units = [unit for step in self.ups() for unit in step.units]
        return [unit for unit in units if unit.prelu is None and unit is not self.head]

    def open_upsamplings(self) -> list[Unit]:
        """Return the convolutions that may stand before what doubles the size, or after it."""
        units = [unit for step in self.ups() if not step.transposed for unit in step.units]
        units = [
            u for u in units if not u.is_pointwise or u.norm is not None or u.prelu is not None
        ]
        return [] if _stands_in_sequence(units) and all(u.conv.index for u in units) else units

    def pads(self) -> bool:
        """Say whether any convolution of the levels looks beyond its pixel."""
        return any(not unit.is_pointwise for unit in self.blocks)

    def usual_strides(self) -> tuple[int, ...]:
        """Say how many times smaller levels mostly are, the image's first: halved, or patches.

        A kernel of 4 mostly steps by 2; but if other levels have smaller ones, it cuts the image
        into patches.
        """
        downs = [step for step in self.steps if step.kind == "down"]
        kernels = [
            max(step.units[0].kernel)
            if step.units
            else max(up.units[0].kernel)
            if up.transposed
            else 2
            for step, up in zip(downs, reversed(self.ups()), strict=True)
        ]
        smallest = min(kernels, default=2)
        return tuple(size if size > 3 and size > smallest else 2 for size in kernels)

    def may_step_further(self) -> bool:
        """Say whether a kernel is so large that it may step by more than two pixels."""
        steps = [step for step in self.steps if step.kind in ("down", "up") and step.units]
        steps = [step for step in steps if step.kind == "down" or step.transposed]
        return any(max(step.units[0].kernel) > 3 for step in steps)

    def settled(self, name: str, reading: Reading) -> Any:
        """Return a field of a reading, or how names settle it where the reading does not."""
        held = getattr(reading, name)
        if held is None and name == "active_up":
            return any(self.is_active_up(step, reading) for step in self.ups() if step.units)
        if held is None and name == "active_down":
            return any(self.is_active_down(unit, reading) for unit in self.open_downs(reading))
        return held

    def scales(self, reading: Reading) -> list[Sizes]:
        """Say how many times smaller each level is than the one above it, the image's first."""
        factors = reading.strides * (len(self.ups()) if len(reading.strides) == 1 else 1)
        return [
            self._scale(step, factor)
            for step, factor in zip(reversed(self.ups()), factors, strict=True)
        ]

    def read_steps(self, reading: Reading) -> list[Step]:
        """Return the steps, with the shortcuts that leave no tensors if they are read so."""
        return (
            with_shortcuts(self.steps, self.bare_blocks) if reading.bare_shortcuts else self.steps
        )

    def open_norms(self) -> list[Layer]:
        """Return the norms that have weights but no statistics."""
        norms = [unit.norm for unit in self.units if unit.norm is not None]
        return [norm for norm in norms if not norm.has_statistics]

    def has_norms(self) -> bool:
        """Say whether any norm has tensors."""
        return any(unit.norm is not None for unit in self.units)

    def looks_normed(self) -> bool:
        """Say whether convolutions lack a bias, as before a norm, which has no tensors then."""
        return bool(self.blocks) and all(not unit.conv.has_bias for unit in self.blocks)

    def may_be_unpadded(self) -> bool:
        """Say whether the network could do without padding: nothing but plain blocks."""
        return not self.has("residual") and not self.has("gate")

    def may_lack_skips(self) -> bool:
        """Say whether skips are added without anything that weighs them: then shapes tell none."""
        joins = [step for step in self.steps if step.kind == "join"]
        return all(step.how == "add" for step in joins) and not self.has("gate")

    def has_open_order(self) -> bool:
        """Say whether norm and activation may stand in either order."""
        return any(
            unit.norm is not None
            and not unit.norm_first
            and not unit.gap
            and not _told_by_index(unit)
            for unit in self.blocks
        )

    def _scale(self, step: Step, factor: int) -> Sizes:
        """Say how much larger a step up makes the features, along axes that it looks along."""
        if not step.transposed:
            return (factor,) * self.spatial_dims
        return tuple(1 if size == 1 else factor for size in step.units[0].kernel)

    def draw(self, reading: Reading) -> Found:
        """Draw the network as it is read."""
        own = as_own(self, reading)
        if own is not None:
            return Found(*own)
        drawing = Reader(self, reading).draw()
        graph = drawing.finish(reading.family, self.in_channels, self.classes)
        return Found(graph, drawing.tensors)


def may_be_active(step: Step) -> bool:
    """Say whether an activation may follow an upsampling's convolution or not.

    Parameters
    ----------
    step : Step
        A step up.

    Returns
    -------
    bool
        False where a norm or slopes tell, and where it makes no sense.
    """
    if not step.units or step.transposed or step.units[0].is_pointwise:
        return False
    return step.units[0].norm is None and step.units[0].prelu is None


def _all(step: Step) -> tuple[Unit, ...]:
    """Return the convolutions of a step."""
    return (*step.units, *((step.shortcut,) if step.shortcut else ()))


def _stands_in_sequence(units: Sequence[Unit]) -> bool:
    """Say whether each of some convolutions has a place in a sequence of its own."""
    numbered = bool(units) and all(unit.conv.index is not None for unit in units)
    return numbered and len({unit.conv.parent for unit in units}) == len(units)


def _are_neighbours(one: Unit, other: Unit) -> bool:
    """Say whether nothing can stand between two convolutions if they stand in a sequence."""
    last = one.norm if one.norm is not None and not one.norm_first else one.conv
    first = other.norm if other.norm is not None and other.norm_first else other.conv
    if last.index is None or first.index is None or last.parent != first.parent:
        return False
    return first.index - last.index == 1


def _told_by_index(unit: Unit) -> bool:
    """Say whether the numbers of the names tell that norm follows convolution at once."""
    if unit.norm is None or unit.norm.index is None or unit.conv.index is None:
        return False
    return unit.norm.parent == unit.conv.parent and unit.norm.index == unit.conv.index + 1
