"""A U-Net whose steps are known, and what its tensors leave open."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from napari_unet.models.found import Found
from napari_unet.models.recognise.own import as_own
from napari_unet.models.recognise.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.models.recognise.layers import Layer
    from napari_unet.models.recognise.readings import Reading
    from napari_unet.models.recognise.search import Step
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
        return may_be_active(step) and not any(block.norm for block in self.blocks)

    def open_norms(self) -> list[Layer]:
        """Return the norms that have weights but no statistics."""
        norms = [unit.norm for unit in self.units if unit.norm is not None]
        return [norm for norm in norms if not norm.has_statistics]

    def has_norms(self) -> bool:
        """Say whether any norm has tensors."""
        return any(unit.norm is not None for unit in self.units)

    def looks_normed(self) -> bool:
        """Say whether convolutions lack a bias, as before a norm, which has no tensors then."""
        return all(not unit.conv.has_bias for unit in self.blocks)

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
