"""What happens to an image between the objects and the file: texture, blur, the camera's noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_unet.sample_data.layout import Float

_CAMERA_OFFSET = 110.0
_GREYS_PER_PHOTON = 2.2
_READ_NOISE = 3.0


def blurred(values: Float, sigma_px: float | tuple[float, ...]) -> Float:
    """Blur with a Gaussian, the border mirrored."""
    from scipy import ndimage

    blurred: Float = ndimage.gaussian_filter(values, sigma_px, mode="mirror")
    return blurred


def texture(
    rng: np.random.Generator, shape: tuple[int, ...], sigma_px: float | tuple[float, ...]
) -> Float:
    """Return smooth noise of mean 0 and standard deviation 1."""
    smooth = blurred(rng.normal(size=shape), sigma_px)
    standard: Float = (smooth - smooth.mean()) / smooth.std()
    return standard


def camera(rng: np.random.Generator, photons: Float) -> NDArray[np.uint16]:
    """Count photons and add the camera's offset and read noise."""
    counted = rng.poisson(np.clip(photons, 0, None)) * _GREYS_PER_PHOTON
    grey = counted + _CAMERA_OFFSET + rng.normal(0, _READ_NOISE, photons.shape)
    return np.clip(np.rint(grey), 0, 65_535).astype(np.uint16)
