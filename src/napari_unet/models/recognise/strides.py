"""How many pixels the levels of a network step, as a person tells it where weights do not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unet.errors import ModelError
from napari_unet.models.assumptions import YOU, Assumption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.network.graph import Sizes

NAME = "strides"
STRIDES = "strides"
"""Topic of what the levels step, in the card."""


def ask_strides(told: Sequence[Sizes], taken: Sequence[Sizes]) -> Assumption:
    """Ask how many pixels the levels step.

    Parameters
    ----------
    told : sequence of tuple of int
        What a person said, level by level; empty if nothing.
    taken : sequence of tuple of int
        How it is read now.

    Returns
    -------
    Assumption
        The question, answered as it is read.

    Raises
    ------
    ModelError
        If a person told more or fewer levels than there are.
    """
    if told and len(told) != len(taken):
        raise ModelError(
            f"{NAME}={written(told)} is not possible: there are {len(taken)} levels that may "
            f"halve the size. Write e.g. {written(taken)}."
        )
    return Assumption(
        name=NAME,
        topic=STRIDES,
        value=written(taken),
        choices={written(taken): ""},
        form="sizes",
        told_by=YOU if told else "",
    )


def written(strides: Sequence[Sizes]) -> str:
    """Write steps as a person does: one number where all axes are alike.

    Parameters
    ----------
    strides : sequence of tuple of int
        Level by level.

    Returns
    -------
    str
        E.g. ``1x2x2,2``.
    """
    return ",".join(
        "x".join(map(str, step if len(set(step)) > 1 else step[:1])) for step in strides
    )


def read_strides(told: str, dims: int) -> list[Sizes]:
    """Read steps as they are written.

    Parameters
    ----------
    told : str
        E.g. ``1x2x2,2``.
    dims : int
        Axes of the network.

    Returns
    -------
    list of tuple of int
        Level by level, a number for each axis.

    Raises
    ------
    ModelError
        If a level has numbers for more or fewer axes.
    """
    steps = []
    for step in told.split(","):
        sizes = tuple(map(int, step.split("x")))
        if len(sizes) not in (1, dims):
            raise ModelError(
                f"{NAME}: {step} has {len(sizes)} numbers. Give one for all axes, or one for each "
                f"of the {dims}, e.g. {'x'.join(['1', '2', '2'][-dims:])}."
            )
        steps.append(sizes if len(sizes) == dims else sizes * dims)
    return steps
