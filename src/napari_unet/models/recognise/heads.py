"""Convolutions that nothing reads, and those that read what nothing gives, need no search."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from napari_unet.models.recognise.units import Unit


def find_heads(units: Sequence[Unit], gates: Collection[Unit] = ()) -> list[Unit]:
    """Find the convolutions of one pixel whose channels no other convolution can read.

    A U-Net has one, or none that can be told so: the convolution that gives the logits.

    Parameters
    ----------
    units : sequence of Unit
        All convolutions of a file.
    gates : collection of Unit
        Those that may belong to attention gates, whose answers are multiplied.

    Returns
    -------
    list of Unit
        In the order of the file.
    """
    maybe = [
        unit
        for unit in units
        if unit.is_pointwise and not (unit.norm or unit.prelu or unit in gates)
    ]
    given = {size for unit in units if unit not in maybe for size in _gives(unit)}
    explained = given | {one + other for one in given for other in given}
    of_image = [unit for unit in units if unit not in maybe and not _reads(unit) & explained]
    read = {size for unit in units if unit not in of_image[:1] for size in _reads(unit)}
    return [unit for unit in maybe if not ({unit.narrow} | {unit.narrow + n for n in given}) & read]


def find_orphans(units: Sequence[Unit]) -> list[Unit]:
    """Find convolutions that read neither the image nor what others give, alone or with a skip.

    Parameters
    ----------
    units : sequence of Unit
        All convolutions of a file.

    Returns
    -------
    list of Unit
        In the order of the file; of a U-Net none. The first that reads what nothing gives, and
        those of its width, are thought to read the image.
    """
    given = {size for unit in units for size in _gives(unit)}
    given |= {one + other for one in given for other in given}
    without = [unit for unit in units if not _reads(unit) & given]
    return [unit for unit in without if unit.wide != without[0].wide]


def _gives(unit: Unit) -> set[int]:
    """Return the channels that a convolution may give."""
    plain, transposed = unit.conv.sizes
    return ({plain} if unit.may_be_plain else set()) | (
        {transposed} if unit.may_be_transposed else set()
    )


def _reads(unit: Unit) -> set[int]:
    """Return the channels that a convolution may read."""
    transposed, plain = unit.conv.sizes
    return ({plain} if unit.may_be_plain else set()) | (
        {transposed} if unit.may_be_transposed else set()
    )
