"""Write a network's probabilities as a calibrated OME-TIFF."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.errors import ImageError
from napari_unet.files.atomic import written_beside

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import NDArray


def write_probability(
    probability: NDArray[np.float32],
    path: str | os.PathLike[str],
    axes: str,
    pixel_size_um: Sequence[float] | None = None,
    names: Sequence[str] | None = None,
) -> Path:
    """Write probabilities so that they can be thresholded elsewhere.

    Parameters
    ----------
    probability : ndarray of float, shape (outputs, *axes), range 0..1
        What the network says; the outputs become channels.
    path : str or path
        Where to write; an existing file is replaced.
    axes : str
        One letter of ``TZYX`` per axis behind the first.
    pixel_size_um : sequence of float, optional
        In micrometres, one per spatial axis, Z first.
    names : sequence of str, optional
        Name of each output.

    Returns
    -------
    pathlib.Path
        The file that was written, float32 in the order of ``axes`` with C first.

    Raises
    ------
    ImageError
        If the axes do not fit the array.
    FileError
        If the file cannot be written.
    """
    import tifffile

    if probability.ndim != len(axes) + 1:
        raise ImageError(
            f"Probabilities of shape {probability.shape} do not fit the axes C{axes}. "
            "Give one letter per axis behind the first."
        )
    about: dict[str, Any] = {"axes": f"C{axes}"}
    spatial = [axis for axis in axes if axis in "ZYX"]
    for axis, size in zip(spatial, pixel_size_um or (), strict=False):
        about |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "µm"}
    if names is not None:
        about["Channel"] = {"Name": list(names)}
    with written_beside(path) as beside:
        tifffile.imwrite(
            beside,
            np.asarray(probability, np.float32),
            ome=True,
            metadata=about,
            photometric="minisblack",
            compression="zlib",
        )
    return Path(path)
