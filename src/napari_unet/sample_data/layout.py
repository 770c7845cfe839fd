"""Lay out objects with an uneven outline, some of them touching, in two or three dimensions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_unet.errors import ImageError

Labels = NDArray[np.int32]
Float = NDArray[np.float64]

_SMALLEST_PX = 25


@dataclass(frozen=True)
class Nucleus:
    """One laid-out object: where it is, its pixels there, and how deep inside each pixel lies."""

    window: tuple[slice, ...]
    mask: NDArray[np.bool_]
    depth: Float


def check_shape(shape: tuple[int, ...], dims: int) -> None:
    """Raise unless a shape leaves room for a few objects."""
    if len(shape) != dims or min(shape[-2:]) < 32 or min(shape) < 4:
        raise ImageError(
            f"A sample of shape {tuple(shape)} cannot be made. Give {dims} sizes, at least 32 "
            "pixels across and 4 planes deep."
        )


def lay_out(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    one_per_px: float,
    radius_px: float,
    touching: float,
) -> tuple[Labels, list[Nucleus]]:
    """Lay out objects, a share of them beside another one; where two meet, the first is on top."""
    labels = np.zeros(shape, np.int32)
    objects: list[Nucleus] = []
    centres: list[tuple[Float, float]] = []
    for _ in range(round(np.prod(shape) * one_per_px * 2)):
        radius = radius_px * float(np.exp(rng.normal(0, 0.22)))
        centre = rng.uniform(0, 1, len(shape)) * np.asarray(shape)
        if centres and rng.random() < touching:
            centre = _beside(rng, *centres[rng.integers(len(centres))], radius)
        nucleus = place(rng, labels, centre, radius)
        if nucleus is not None:
            objects.append(nucleus)
            centres.append((centre, radius))
            labels[nucleus.window][nucleus.mask] = len(objects)
        if len(objects) >= np.prod(shape) * one_per_px:
            break
    return labels, objects


def place(rng: np.random.Generator, labels: Labels, centre: Float, radius: float) -> Nucleus | None:
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
    return Nucleus(window, mask, depth) if mask.sum() >= _SMALLEST_PX else None


def _beside(rng: np.random.Generator, centre: Float, radius: float, own: float) -> Float:
    """Return a place at which an object touches another one."""
    direction = rng.normal(size=len(centre))
    direction[:-2] *= 0.3
    step: Float = direction / np.linalg.norm(direction) * (radius + own) * rng.uniform(0.85, 1.0)
    return centre + step * _squeeze(len(centre))


def _squeeze(dims: int) -> Float:
    """Return the size of an object along each axis, relative to X: planes lie farther apart."""
    return np.array([0.5, 1.0, 1.0] if dims == 3 else [1.0, 1.0])


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
