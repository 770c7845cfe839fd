"""What is said of networks that cannot be built here."""

from __future__ import annotations

from napari_unet.errors import ModelError


def unsupported(what: str) -> ModelError:
    """Say that an operation is not known.

    Parameters
    ----------
    what : str
        Its name, or a few words.

    Returns
    -------
    ModelError
        To be raised.
    """
    return ModelError(
        f"The network uses an operation that is not supported: {what}. Ask for a network of "
        "convolutions, norms, poolings and upsamplings, or for a state dict of its weights."
    )


def does_not_fit(what: str, shape: tuple[int, ...], channels: int) -> ModelError:
    """Say that weights do not fit the channels they are applied to."""
    return ModelError(
        f"The {what} of shape {shape} does not fit the {channels} channels it reads. The file is "
        "damaged or holds only a part of a network; use an undamaged copy."
    )
