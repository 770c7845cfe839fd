"""Where the names of convolutions divide: between levels well, within a block not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unet.models.recognise.modules import module_of, pattern_of
from napari_unet.models.recognise.units import common_starts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.models.recognise.units import Unit


class Divisions:
    """What the names of convolutions have in common with those beside them.

    Parameters
    ----------
    units : sequence of Unit
        In the order of the file.
    modules : sequence of sequence of Unit
        Units that belong together, whatever their names have in common.

    Attributes
    ----------
    kinds : list of int
        A number for each unit, the same for those that are called alike, numbers aside.
    """

    def __init__(self, units: Sequence[Unit], modules: Sequence[Sequence[Unit]] = ()) -> None:
        self._common = common_starts([unit.name for unit in units])
        patterns = [pattern_of(unit.name) for unit in units]
        self.kinds = [patterns.index(pattern) for pattern in patterns]
        inner = {unit.place for module in modules for unit in module}
        inner -= {min(unit.place for unit in module) for module in modules}
        firsts = [unit.place for unit in units if unit.place not in inner]
        names = {min(unit.place for unit in module): module_of(module) for module in modules}
        common = common_starts([names.get(place, units[place].name) for place in firsts])
        measured = [_measure(common, at) for at in range(len(firsts))]
        bonds = dict(zip(firsts, measured, strict=True))
        self._strengths = [_measure(self._common, place) for place in range(len(units))]
        self._bonds = [bonds.get(place, 2) for place in range(len(units))]

    def strength(self, place: int) -> int:
        """Say how well names divide before a unit: 0 well, 1 they do not tell, 2 not at all."""
        return self._strengths[place]

    def bond(self, place: int) -> int:
        """Say the same of what stands before a unit, modules counting as one."""
        return self._bonds[place]

    def torn(self, first: int, final: int) -> float:
        """Say what it costs that names bind units to others more than to each other."""
        inside = min(self._common[first:final])
        outside = [self._common[at] for at in (first - 1, final) if 0 <= at < len(self._common)]
        return 2.0 if inside < max(outside, default=0) else 0.0


def _measure(common: Sequence[int], place: int) -> int:
    """Measure how well names divide before one of them, from what each shares with the next."""
    if not 0 < place <= len(common):
        return 0
    here = common[place - 1]
    beside = [common[at] for at in (place - 2, place) if 0 <= at < len(common)]
    if any(here < other for other in beside):
        return 0
    return 2 if beside and all(here > other for other in beside) else 1
