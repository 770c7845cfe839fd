"""What is done with the features of a U-Net, one step after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from napari_unet.models.recognise.units import Unit


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
