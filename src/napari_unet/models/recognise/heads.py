"""Networks with several outputs are told by convolutions whose answer nothing reads."""

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
