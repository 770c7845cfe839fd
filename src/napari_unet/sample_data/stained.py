"""A stained tissue section in transmitted light: dark nuclei among fibres and blood cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_unet.sample_data.layout import check_shape, lay_out, place
from napari_unet.sample_data.optics import blurred, texture

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_unet.sample_data.layout import Float, Labels, Nucleus


def tissue(shape: tuple[int, int] = (512, 512), seed: int = 0) -> tuple[NDArray[np.uint8], Labels]:
    """Generate a stained tissue section in transmitted light, in grey.

    It is unlike fluorescence in more than the sign: the background has fibres, nuclei differ in
    darkness down to pale ones with a dark rim, and blood cells and blurred shadows from another
    depth are there that are no nuclei. A model that was trained on fluorescence errs here.

    Parameters
    ----------
    shape : tuple of int
        Size (Y, X) in pixels.
    seed : int
        Same seed, same image.

    Returns
    -------
    image : ndarray of uint8, shape (Y, X)
        Dark nuclei on a bright, textured background.
    labels : ndarray of int32, shape (Y, X)
        The truth: 0 is background, nuclei are numbered from 1.

    Raises
    ------
    ImageError
        If a side is shorter than 32 pixels.
    """
    check_shape(shape, 2)
    rng = np.random.default_rng(seed)
    labels, objects = lay_out(rng, shape, one_per_px=1 / 1900, radius_px=10.5, touching=0.2)
    absorbed = _fibres(rng, shape)
    absorbed += _blood_cells(rng, shape, labels > 0)
    absorbed += _shadows(rng, shape)
    absorbed += _stained(rng, shape, objects)
    light = 232.0 * np.exp(-blurred(absorbed, 0.8))
    grey = rng.poisson(light * 6.0) / 6.0 + rng.normal(0, 1.0, shape)
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8), labels


def _fibres(rng: np.random.Generator, shape: tuple[int, ...]) -> Float:
    """Return the absorption of the tissue between the nuclei: cytoplasm, gaps and fibres."""
    from scipy import ndimage

    pad = 24
    padded = tuple(size + 2 * pad for size in shape)
    bent = [
        np.clip(at + 9 * texture(rng, padded, 18), 0, size - 1)
        for at, size in zip(np.indices(padded), padded, strict=True)
    ]
    strands = ndimage.map_coordinates(texture(rng, padded, (1.1, 9)), bent, order=1)
    cytoplasm = texture(rng, shape, 22)
    fibrous = 0.5 + 0.5 * np.tanh(1.5 * cytoplasm)
    inner = strands[pad:-pad, pad:-pad]
    absorbed: Float = 0.14 + fibrous * (0.10 + 0.07 * inner) + 0.02 * texture(rng, shape, 2)
    return absorbed


def _stained(rng: np.random.Generator, shape: tuple[int, ...], objects: list[Nucleus]) -> Float:
    """Return the absorption of the nuclei: dark and dense, or pale with a rim and nucleoli."""
    coarse, fine = texture(rng, shape, 1.8), texture(rng, shape, 0.9)
    absorbed = np.zeros(shape)
    for nucleus in objects:
        depth = np.clip(nucleus.depth, 0, 1)
        grain = 0.14 * coarse[nucleus.window] + 0.08 * fine[nucleus.window]
        if rng.random() < 0.3:
            rim = np.exp(-((depth / 0.18) ** 2))
            spots = 0.35 * np.clip(coarse[nucleus.window] - 1.1, 0, 1)
            stain = 0.50 + 0.26 * rim + spots + 0.7 * grain
        else:
            stain = rng.uniform(0.65, 1.1) + grain
        absorbed[nucleus.window][nucleus.mask] = np.clip(stain, 0.05, None)[nucleus.mask]
    return absorbed


def _blood_cells(
    rng: np.random.Generator, shape: tuple[int, ...], taken: NDArray[np.bool_]
) -> Float:
    """Return the absorption of smooth round cells without a nucleus, in groups."""
    absorbed = np.zeros(shape)
    group = texture(rng, shape, 30) > 0.7
    where = np.argwhere(group & ~taken)
    spots = np.zeros(shape, np.int32)
    spots[taken] = -1
    for centre in rng.permutation(where)[: len(where) // 130]:
        cell = place(rng, spots, centre.astype(float), rng.uniform(5.5, 7.0))
        if cell is not None:
            spots[cell.window][cell.mask] = 1
            disc = 0.17 + 0.10 * np.clip(1 - np.abs(cell.depth - 0.25) / 0.3, 0, 1)
            absorbed[cell.window][cell.mask] = disc[cell.mask]
    return absorbed


def _shadows(rng: np.random.Generator, shape: tuple[int, ...]) -> Float:
    """Return the absorption of nuclei far out of focus."""
    _, objects = lay_out(rng, shape, one_per_px=1 / 14_000, radius_px=10.0, touching=0.0)
    absorbed = np.zeros(shape)
    for nucleus in objects:
        absorbed[nucleus.window][nucleus.mask] = rng.uniform(0.25, 0.5)
    return blurred(absorbed, 5.0)
