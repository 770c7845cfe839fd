"""Why tensors are not those of a U-Net that can be built, in a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_unet.models.recognise.layers import Layers


def why_not(layers: Layers) -> str:
    """Say why tensors were not recognised.

    Parameters
    ----------
    layers : Layers
        All layers of a file, under names without prefixes.

    Returns
    -------
    str
        What is wrong, and what to do.
    """
    return "The tensors are not those of a U-Net that is known."
