"""Images to try the plugin on, without a download: generated ones, whose truth is known, and real.

The generated images follow the way a microscope makes them: objects with an uneven outline are
laid out, some of them touching; each has its brightness and texture; the optics blur them and
add haze; photons are counted (Poisson) and the camera adds its offset and read noise. The same
seed gives the same image.

The real images are those that come with scikit-image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_unet.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable

Labels = NDArray[np.int32]
Float = NDArray[np.float64]

PIXEL_SIZE_UM = 0.5
STACK_PIXEL_SIZE_UM = (1.0, 0.5, 0.5)

_SMALLEST_PX = 25
_CAMERA_OFFSET = 110.0
_GREYS_PER_PHOTON = 2.2
_READ_NOISE = 3.0


@dataclass(frozen=True)
class Sample:
    """An image to try, and its true labels where they are known.

    ``pixel_size_um`` has one value per spatial axis (Z first) or is None when unknown.
    """

    name: str
    image: NDArray[np.uint8] | NDArray[np.uint16]
    labels: Labels | None
    axes: str
    pixel_size_um: tuple[float, ...] | None


@dataclass(frozen=True)
class _Nucleus:
    """One laid-out object: where it is, its pixels there, and how deep inside each pixel lies."""

    window: tuple[slice, ...]
    mask: NDArray[np.bool_]
    depth: Float


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
    _check_shape(shape, 2)
    rng = np.random.default_rng(seed)
    labels, objects = _lay_out(rng, shape, one_per_px=1 / 2600, radius_px=13.0, touching=0.45)
    photons = _background(rng, shape) + _fluorescence(rng, shape, objects)
    return _camera(rng, photons), labels


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
    _check_shape(shape, 2)
    rng = np.random.default_rng(seed)
    labels, objects = _lay_out(rng, shape, one_per_px=1 / 1900, radius_px=10.5, touching=0.2)
    absorbed = _fibres(rng, shape)
    absorbed += _blood_cells(rng, shape, labels > 0)
    absorbed += _shadows(rng, shape)
    absorbed += _stained(rng, shape, objects)
    light = 232.0 * np.exp(-_blurred(absorbed, 0.8))
    grey = rng.poisson(light * 6.0) / 6.0 + rng.normal(0, 1.0, shape)
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8), labels


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
    _check_shape(shape, 3)
    rng = np.random.default_rng(seed)
    labels, objects = _lay_out(rng, shape, one_per_px=1 / 18_000, radius_px=11.0, touching=0.3)
    photons = 14.0 + _fluorescence(rng, shape, objects)
    return _camera(rng, photons), labels


def sample(name: str) -> Sample:
    """Return one of the samples by its name.

    Parameters
    ----------
    name : str
        One of :data:`SAMPLES`.

    Returns
    -------
    Sample
        Made anew on each call.

    Raises
    ------
    ImageError
        If there is no sample of that name.
    """
    if name not in SAMPLES:
        raise ImageError(f"There is no sample {name!r}. Choose one of: {', '.join(SAMPLES)}.")
    return SAMPLES[name]()


def _sample_nuclei() -> Sample:
    image, labels = nuclei()
    return Sample("nuclei", image, labels, "YX", (PIXEL_SIZE_UM, PIXEL_SIZE_UM))


def _sample_tissue() -> Sample:
    image, labels = tissue()
    return Sample("tissue", image, labels, "YX", (PIXEL_SIZE_UM, PIXEL_SIZE_UM))


def _sample_stack() -> Sample:
    image, labels = stack()
    return Sample("stack", image, labels, "ZYX", STACK_PIXEL_SIZE_UM)


def _sample_cell() -> Sample:
    from skimage import data

    return Sample("cell", data.cell(), None, "YX", None)


def _sample_coins() -> Sample:
    from skimage import data

    return Sample("coins", data.coins(), None, "YX", None)


def _sample_histology() -> Sample:
    from skimage import data

    return Sample("histology", data.immunohistochemistry(), None, "YXC", None)


SAMPLES: dict[str, Callable[[], Sample]] = {
    "nuclei": _sample_nuclei,
    "tissue": _sample_tissue,
    "stack": _sample_stack,
    "cell": _sample_cell,
    "coins": _sample_coins,
    "histology": _sample_histology,
}


def _check_shape(shape: tuple[int, ...], dims: int) -> None:
    """Raise unless a shape leaves room for a few objects."""
    if len(shape) != dims or min(shape[-2:]) < 32 or min(shape) < 4:
        raise ImageError(
            f"A sample of shape {tuple(shape)} cannot be made. Give {dims} sizes, at least 32 "
            "pixels across and 4 planes deep."
        )


def _lay_out(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    one_per_px: float,
    radius_px: float,
    touching: float,
) -> tuple[Labels, list[_Nucleus]]:
    """Lay out objects, a share of them beside another one; where two meet, the first is on top."""
    labels = np.zeros(shape, np.int32)
    objects: list[_Nucleus] = []
    centres: list[tuple[Float, float]] = []
    for _ in range(round(np.prod(shape) * one_per_px * 2)):
        radius = radius_px * float(np.exp(rng.normal(0, 0.22)))
        centre = rng.uniform(0, 1, len(shape)) * np.asarray(shape)
        if centres and rng.random() < touching:
            centre = _beside(rng, *centres[rng.integers(len(centres))], radius)
        nucleus = _place(rng, labels, centre, radius)
        if nucleus is not None:
            objects.append(nucleus)
            centres.append((centre, radius))
            labels[nucleus.window][nucleus.mask] = len(objects)
        if len(objects) >= np.prod(shape) * one_per_px:
            break
    return labels, objects


def _beside(rng: np.random.Generator, centre: Float, radius: float, own: float) -> Float:
    """Return a place at which an object touches another one."""
    direction = rng.normal(size=len(centre))
    direction[:-2] *= 0.3
    step: Float = direction / np.linalg.norm(direction) * (radius + own) * rng.uniform(0.85, 1.0)
    return centre + step * _squeeze(len(centre))


def _squeeze(dims: int) -> Float:
    """Return the size of an object along each axis, relative to X: planes lie farther apart."""
    return np.array([0.5, 1.0, 1.0] if dims == 3 else [1.0, 1.0])


def _place(
    rng: np.random.Generator, labels: Labels, centre: Float, radius: float
) -> _Nucleus | None:
    """Return an object on the free pixels around a place, or None if little of it is free."""
    from scipy import ndimage

    reach = np.ceil(radius * 1.8 * _squeeze(labels.ndim)).astype(int)
    window = tuple(
        slice(max(0, int(middle) - far), min(size, int(middle) + far + 1))
        for middle, far, size in zip(centre, reach, labels.shape, strict=True)
    )
    if any(part.stop <= part.start for part in window):
        return None
    depth = _depth_inside(rng, window, centre, radius)
    wanted = depth > 0
    free = wanted & (labels[window] == 0)
    if free.sum() < max(_SMALLEST_PX, 0.85 * wanted.sum()):
        return None
    pieces, _ = ndimage.label(free)
    mask = pieces == np.bincount(pieces[free]).argmax()
    return _Nucleus(window, mask, depth) if mask.sum() >= _SMALLEST_PX else None


def _depth_inside(
    rng: np.random.Generator, window: tuple[slice, ...], centre: Float, radius: float
) -> Float:
    """Return 1 at the centre of an uneven ellipse, 0 at its outline, negative outside."""
    grids = np.meshgrid(
        *(np.arange(part.start, part.stop) - at for part, at in zip(window, centre, strict=True)),
        indexing="ij",
    )
    turn, stretch = rng.uniform(0, np.pi), rng.uniform(1.0, 1.55)
    y, x = grids[-2], grids[-1]
    along = (np.cos(turn) * x + np.sin(turn) * y) / np.sqrt(stretch)
    across = (np.cos(turn) * y - np.sin(turn) * x) * np.sqrt(stretch)
    away = np.sqrt(along**2 + across**2 + sum((2 * z) ** 2 for z in grids[:-2]))
    angle = np.arctan2(across, along)
    outline = np.ones_like(away)
    for order in (2, 3, 4, 5):
        swing = rng.normal(0, 0.09 / order)
        outline += swing * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    depth: Float = 1 - away / (radius * outline)
    return depth


def _blurred(values: Float, sigma_px: float | tuple[float, ...]) -> Float:
    """Blur with a Gaussian, the border mirrored."""
    from scipy import ndimage

    blurred: Float = ndimage.gaussian_filter(values, sigma_px, mode="mirror")
    return blurred


def _texture(
    rng: np.random.Generator, shape: tuple[int, ...], sigma_px: float | tuple[float, ...]
) -> Float:
    """Return smooth noise of mean 0 and standard deviation 1."""
    smooth = _blurred(rng.normal(size=shape), sigma_px)
    standard: Float = (smooth - smooth.mean()) / smooth.std()
    return standard


def _background(rng: np.random.Generator, shape: tuple[int, ...]) -> Float:
    """Return the photons that come from everywhere, brighter to one side."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    turn = rng.uniform(0, 2 * np.pi)
    slope = np.cos(turn) * x + np.sin(turn) * y
    photons: Float = 16.0 + 5.0 * slope + 1.5 * _texture(rng, shape, 25)
    return photons


def _fluorescence(
    rng: np.random.Generator, shape: tuple[int, ...], objects: list[_Nucleus]
) -> Float:
    """Return the photons of the objects after the optics: blur and haze."""
    chromatin = 1 + 0.16 * _texture(rng, shape, 1.2) + 0.10 * _texture(rng, shape, 3)
    nucleoli = np.clip(_texture(rng, shape, 2.2) - 1.5, 0, 1)
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
    sharp = _blurred(photons, 1.2 if flat else (1.3, 1.2, 1.2))
    haze = _blurred(photons, 14.0 if flat else (4.0, 10.0, 10.0))
    return sharp + 0.10 * haze


def _camera(rng: np.random.Generator, photons: Float) -> NDArray[np.uint16]:
    """Count photons and add the camera's offset and read noise."""
    counted = rng.poisson(np.clip(photons, 0, None)) * _GREYS_PER_PHOTON
    grey = counted + _CAMERA_OFFSET + rng.normal(0, _READ_NOISE, photons.shape)
    return np.clip(np.rint(grey), 0, 65_535).astype(np.uint16)


def _fibres(rng: np.random.Generator, shape: tuple[int, ...]) -> Float:
    """Return the absorption of the tissue between the nuclei: cytoplasm, gaps and fibres."""
    from scipy import ndimage

    pad = 24
    padded = tuple(size + 2 * pad for size in shape)
    bent = [
        np.clip(at + 9 * _texture(rng, padded, 18), 0, size - 1)
        for at, size in zip(np.indices(padded), padded, strict=True)
    ]
    strands = ndimage.map_coordinates(_texture(rng, padded, (1.1, 9)), bent, order=1)
    cytoplasm = _texture(rng, shape, 22)
    fibrous = 0.5 + 0.5 * np.tanh(1.5 * cytoplasm)
    inner = strands[pad:-pad, pad:-pad]
    absorbed: Float = 0.14 + fibrous * (0.10 + 0.07 * inner) + 0.02 * _texture(rng, shape, 2)
    return absorbed


def _stained(rng: np.random.Generator, shape: tuple[int, ...], objects: list[_Nucleus]) -> Float:
    """Return the absorption of the nuclei: dark and dense, or pale with a rim and nucleoli."""
    coarse, fine = _texture(rng, shape, 1.8), _texture(rng, shape, 0.9)
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
    group = _texture(rng, shape, 30) > 0.7
    where = np.argwhere(group & ~taken)
    spots = np.zeros(shape, np.int32)
    spots[taken] = -1
    for centre in rng.permutation(where)[: len(where) // 130]:
        cell = _place(rng, spots, centre.astype(float), rng.uniform(5.5, 7.0))
        if cell is not None:
            spots[cell.window][cell.mask] = 1
            disc = 0.17 + 0.10 * np.clip(1 - np.abs(cell.depth - 0.25) / 0.3, 0, 1)
            absorbed[cell.window][cell.mask] = disc[cell.mask]
    return absorbed


def _shadows(rng: np.random.Generator, shape: tuple[int, ...]) -> Float:
    """Return the absorption of nuclei far out of focus."""
    _, objects = _lay_out(rng, shape, one_per_px=1 / 14_000, radius_px=10.0, touching=0.0)
    absorbed = np.zeros(shape)
    for nucleus in objects:
        absorbed[nucleus.window][nucleus.mask] = rng.uniform(0.25, 0.5)
    return _blurred(absorbed, 5.0)
