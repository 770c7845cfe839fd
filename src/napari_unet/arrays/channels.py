"""Which channel of an image goes into which input of the network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.errors import ImageError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def pick_channels(
    plane: NDArray[Any], channels: tuple[int, ...] | None, wanted: int
) -> NDArray[Any]:
    """Give each input of the network its channel.

    Parameters
    ----------
    plane : ndarray, shape (C, *spatial)
        A plane with all its channels.
    channels : tuple of int or None
        Channel for each input, counted from 0; a channel may be used twice. None: all in their
        order; a network of one input sees their mean.
    wanted : int
        Number of inputs of the network.

    Returns
    -------
    ndarray, shape (wanted, *spatial)
        Of the dtype of the plane, or float if it is a mean.

    Raises
    ------
    ImageError
        If the channels are not there, or not as many as the network has inputs.
    """
    count = len(plane)
    check_channels(count, channels, wanted)
    if channels is not None:
        in_order = tuple(range(count)) == channels
        return plane if in_order else plane[list(channels)]
    return plane if count == wanted else _mean(plane)


def check_channels(count: int, channels: tuple[int, ...] | None, wanted: int) -> None:
    """Check that an image of ``count`` channels can feed ``wanted`` inputs of a network.

    Raises
    ------
    ImageError
        See :func:`pick_channels`.
    """
    have = f"{count} channel" + "s" * (count != 1)
    need = f"{wanted} input" + "s" * (wanted != 1)
    if channels is None:
        if count != wanted and wanted != 1:
            example = ", ".join(map(str, [*range(count), *[count - 1] * wanted][:wanted]))
            raise ImageError(
                f"The image has {have}, the network {need}. Say which channel each input sees, "
                f"counted from 0, e.g. {example}."
            )
        return
    if len(channels) != wanted:
        raise ImageError(
            f"{len(channels)} channels are chosen {channels}, the network has {need}. Choose one "
            "channel for each input."
        )
    missing = [channel for channel in channels if not 0 <= channel < count]
    if missing:
        raise ImageError(
            f"Channel {missing[0]} is not there: the image has {have}, counted from 0. Choose "
            f"from 0..{count - 1}."
        )


def _mean(plane: NDArray[Any]) -> NDArray[Any]:
    """Average the channels with enough digits for their dtype."""
    with np.errstate(over="ignore", invalid="ignore"):
        mean: NDArray[Any] = plane.mean(
            axis=0, keepdims=True, dtype=np.result_type(plane.dtype, np.float32)
        )
    return mean
