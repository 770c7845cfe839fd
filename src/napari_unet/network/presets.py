"""The five published U-Nets, as architectures.

Each preset is the network as it was published, down to its channels in and classes out, so that
its number of trainable parameters is the published one. The names of the weights are ours and
the same for all of them.

=================  ======================================================  ======================
preset             from                                                    trainable parameters
=================  ======================================================  ======================
ronneberger2015    the paper [1]_, unpadded, 572 px in give 388 px out     31,030,658 (1 in, 2 out)
same-bn            the widely taught Keras build, padded, batch norm       31,043,521 (3 in, 1 out)
light-bn           the widely copied PyTorch build, 8..128 channels        487,449 (1 in, 1 out)
upconv-dropout     the Keras build of the ISBI membrane tutorials          31,032,834 (3 in, 2 out)
three-level        the tf.keras sketch 32-64-128                           167,937 (1 in, 1 out)
=================  ======================================================  ======================

References
----------
.. [1] Ronneberger, Fischer, Brox (2015), U-Net: Convolutional Networks for Biomedical Image
   Segmentation, doi:10.1007/978-3-319-24574-4_28.
"""

from __future__ import annotations

from typing import get_args

from napari_unet.errors import SettingError
from napari_unet.settings import Architecture, PresetName

PRESETS: dict[str, Architecture] = {
    # Dropout stands "at the end of the contracting path": on its two deepest levels, as in the
    # network definition the authors released. No ReLU follows the up-convolution in the paper.
    "ronneberger2015": Architecture(
        preset="ronneberger2015", in_channels=1, classes=2, padded=False, dropout=0.5
    ),
    # Keras' batch norm adds 1e-3 to the variance, and its convolutions keep their bias.
    "same-bn": Architecture(
        preset="same-bn", in_channels=3, classes=1, norm="batch", norm_eps=1e-3
    ),
    "light-bn": Architecture(
        preset="light-bn",
        widths=(8, 16, 32, 64, 128),
        norm="batch",
        relu_after_upsampling=True,
        output_kernel=3,
    ),
    "upconv-dropout": Architecture(
        preset="upconv-dropout",
        in_channels=3,
        classes=2,
        upsampling="nearest",
        relu_after_upsampling=True,
        skip_first=True,
        output_kernel=3,
        dropout=0.5,
    ),
    # The sketch names the widths on the way up as 64/32 and 16/8: we read the first of each pair
    # as the 2x2 transposed convolution and the second as the 3x3 convolution after the skip.
    "three-level": Architecture(
        preset="three-level",
        widths=(32, 64, 128),
        decoder_widths=((64, 32), (16, 8)),
        convolutions=1,
    ),
}


def find_preset(name: str) -> Architecture:
    """Look up the architecture of a published U-Net.

    Parameters
    ----------
    name : str
        One of ``ronneberger2015``, ``same-bn``, ``light-bn``, ``upconv-dropout``,
        ``three-level``.

    Returns
    -------
    Architecture
        The network as published.

    Raises
    ------
    SettingError
        If there is no preset of that name.
    """
    if name not in PRESETS:
        known = ", ".join(get_args(PresetName))
        raise SettingError(f"There is no preset {name!r}. Choose one of {known}.")
    return PRESETS[name]
