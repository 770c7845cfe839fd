"""The network that tensors belong to, recognised from their names and shapes alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unet.errors import ModelError
from napari_unet.models.recognise.layers import Layers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from napari_unet.models.found import Found

Recogniser = Callable[[Layers], "list[Found] | None"] if TYPE_CHECKING else object
"""Gives the readings of its kind of network, the likeliest first; None: it is another kind."""

RECOGNISERS: tuple[Recogniser, ...] = ()
"""The kinds that are known, the ones with the most telling names first."""


def recognise(tensors: Mapping[str, torch.Tensor]) -> list[Found]:
    """Find the network that tensors belong to.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        A state dict, in the order of the file; prefixes of wrappers already taken off.

    Returns
    -------
    list of Found
        The readings that fit, the likeliest first; never empty.

    Raises
    ------
    ModelError
        If no network that is known fits: the sentence says what differs.
    """
    layers = Layers(tensors)
    for recogniser in RECOGNISERS:
        found = recogniser(layers)
        if found:
            return found
    raise ModelError("The tensors are not those of a U-Net that is known.")
