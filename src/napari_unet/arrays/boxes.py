"""Boxes of an image: one slice per axis."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def enclosing(boxes: Iterable[Sequence[slice]]) -> tuple[slice, ...]:
    """Return the smallest box that holds all the boxes given, one slice per axis each."""
    return tuple(
        slice(min(part.start for part in parts), max(part.stop for part in parts))
        for parts in zip(*boxes, strict=True)
    )


def within(box: Sequence[slice], around: Sequence[slice]) -> tuple[slice, ...]:
    """Say where a box lies in another one that holds it."""
    return tuple(
        slice(part.start - whole.start, part.stop - whole.start)
        for part, whole in zip(box, around, strict=True)
    )
