"""Nuclei as a fluorescence microscope shows them: a plane, and a z-stack."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_unet.sample_data.layout import check_shape, lay_out
from napari_unet.sample_data.optics import blurred, camera, texture

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_unet.sample_data.layout import Float, Labels, Nucleus


def nuclei(shape: tuple[int, int] = (512, 512), seed: int = 0) -> tuple[NDArray[np.uint16], Labels]:
    """Generate stained nuclei as a fluorescence microscope shows them.

    Parameters
    ----------
    shape : tuple of int
        Size (Y, X) in pixels.
    seed : int
        Same seed, same image.

    Returns
    -------
    image : ndarray of uint16, shape (Y, X)
        Bright nuclei of different size and brightness on a dark, slightly uneven background.
    labels : ndarray of int32, shape (Y, X)
        The truth: 0 is background, nuclei are numbered from 1.

    Raises
    ------
    ImageError
        If a side is shorter than 32 pixels.
    """
    check_shape(shape, 2)
    rng = np.random.default_rng(seed)
    labels, objects = lay_out(rng, shape, one_per_px=1 / 2600, radius_px=13.0, touching=0.45)
    photons = _background(rng, shape) + _fluorescence(rng, shape, objects)
    return camera(rng, photons), labels


def stack(
    shape: tuple[int, int, int] = (16, 192, 192), seed: int = 0
) -> tuple[NDArray[np.uint16], Labels]:
    """Generate a small z-stack of fluorescent nuclei, twice as coarse along z.

    Parameters
    ----------
    shape : tuple of int
        Size (Z, Y, X) in voxels.
    seed : int
        Same seed, same image.

    Returns
    -------
    image : ndarray of uint16, shape (Z, Y, X)
        Bright nuclei, blurred more along z than across.
    labels : ndarray of int32, shape (Z, Y, X)
        The truth: 0 is background, nuclei are numbered from 1.

    Raises
    ------
    ImageError
        If Y or X is shorter than 32 pixels or Z shorter than 4.
    """
    check_shape(shape, 3)
    rng = np.random.default_rng(seed)
    labels, objects = lay_out(rng, shape, one_per_px=1 / 18_000, radius_px=11.0, touching=0.3)
    photons = 14.0 + _fluorescence(rng, shape, objects)
    return camera(rng, photons), labels


def _background(rng: np.random.Generator, shape: tuple[int, ...]) -> Float:
    """Return the photons that come from everywhere, brighter to one side."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    turn = rng.uniform(0, 2 * np.pi)
    slope = np.cos(turn) * x + np.sin(turn) * y
    photons: Float = 16.0 + 5.0 * slope + 1.5 * texture(rng, shape, 25)
    return photons


def _fluorescence(
    rng: np.random.Generator, shape: tuple[int, ...], objects: list[Nucleus]
) -> Float:
    """Return the photons of the objects after the optics: blur and haze."""
    chromatin = 1 + 0.16 * texture(rng, shape, 1.2) + 0.10 * texture(rng, shape, 3)
    nucleoli = np.clip(texture(rng, shape, 2.2) - 1.5, 0, 1)
    photons = np.zeros(shape)
    for nucleus in objects:
        brightness = 170.0 * float(np.exp(rng.normal(0, 0.42)))
        if rng.random() < 0.04:
            brightness *= 2.6
        profile = 0.62 + 0.38 * np.sqrt(np.clip(nucleus.depth, 0, 1))
        inside = chromatin[nucleus.window] * (1 - 0.55 * nucleoli[nucleus.window])
        shown = brightness * profile * np.clip(inside, 0.3, None)
        photons[nucleus.window][nucleus.mask] = shown[nucleus.mask]
    flat = len(shape) == 2
    sharp = blurred(photons, 1.2 if flat else (1.3, 1.2, 1.2))
    haze = blurred(photons, 14.0 if flat else (4.0, 10.0, 10.0))
    return sharp + 0.10 * haze
