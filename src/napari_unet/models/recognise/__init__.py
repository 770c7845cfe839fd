"""The network that tensors belong to, recognised from their names and shapes alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unet.errors import ModelError
from napari_unet.models.recognise.layers import Layers
from napari_unet.models.recognise.libraries import LIBRARIES
from napari_unet.models.recognise.names import cleaned, versions
from napari_unet.models.recognise.plain import recognise_plain
from napari_unet.models.recognise.refusing import refuse_named, why_not
from napari_unet.models.recognise.telling import tellable
from napari_unet.models.recognise.wiring import MisfitError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from napari_unet.models.found import Found

    Recogniser = Callable[[Layers], list[Found] | None]

RECOGNISERS: tuple[Recogniser, ...] = LIBRARIES
"""Each gives the readings of its kind of network, the likeliest first, or None if the tensors
have other names."""


def recognise(tensors: Mapping[str, torch.Tensor]) -> list[Found]:
    """Find the network that tensors belong to.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        A state dict, in the order of the file.

    Returns
    -------
    list of Found
        The readings that fit, the likeliest first; never empty. Their tensors are float32.

    Raises
    ------
    ModelError
        If no network that is known fits: the sentence says what differs.
    """
    candidates = [Layers(named) for named in versions(cleaned(tensors))]
    for layers in candidates:
        refuse_named(layers)
    differences: list[ModelError] = []
    for recogniser in RECOGNISERS:
        for layers in candidates:
            try:
                found = recogniser(layers)
            except ModelError as error:
                differences.append(error)
                continue
            if found:
                return [tellable(one) for one in found]
    for difference in differences:
        # Such a file is incomplete or damaged; another reading of it would be wrong.
        if isinstance(difference, MisfitError):
            raise difference
    found = recognise_plain(candidates[-1])
    if found:
        return found
    raise differences[0] if differences else ModelError(why_not(candidates[-1]))
