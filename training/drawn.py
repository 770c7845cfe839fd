"""Drawn pictures of many kinds of objects, with their truth: cells, blobs, rods, in any contrast.

A network that has seen one kind of image knows that kind. What makes something an object whatever
the microscope, a closed outline around pixels of one kind, is learned from pictures in which all
else is at random: shape, size and crowding, whether objects are brighter or darker than what lies
between, filled or rimmed, even or mottled, sharp or not, and what else lies about that is no
object. Nothing is taken from an image, so no domain of ``benchmarks/`` is among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from planes import Plane
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.measure import label
from skimage.morphology import remove_small_objects

from napari_unet.sample_data.layout import lay_out
from napari_unet.sample_data.optics import blurred, texture

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.random import Generator
    from numpy.typing import NDArray

    Float = NDArray[np.float64]
    Labels = NDArray[np.int32]

SIDE_PX = 320
LEAST_PX = 25


@dataclass(frozen=True, eq=False)
class Scene:
    """Where the objects are, and how bright each pixel is before the optics."""

    labels: Labels
    light: Float


def draw_planes(count: int, seed: int = 0) -> list[Plane]:
    """Draw pictures of all kinds in turn; the same seed draws the same ones."""
    planes = []
    for index in range(count):
        name, draw = KINDS[index % len(KINDS)]
        rng = np.random.default_rng([seed, index])
        scene = draw(rng, (SIDE_PX, SIDE_PX))
        image = _photographed(rng, scene.light).astype(np.float32)
        planes.append(Plane(f"{name} {index}", f"drawn {index}", image[None], scene.labels))
    return planes


def _tissue(rng: Generator, shape: tuple[int, int]) -> Scene:
    """Cells side by side, parted by membranes only, with organelles inside."""
    labels = _cells(rng, shape, rng.uniform(14, 40))
    width = rng.uniform(1.0, 5.0)
    edges = (ndimage.grey_dilation(labels, 3) != ndimage.grey_erosion(labels, 3)) | (labels == 0)
    away = ndimage.distance_transform_edt(~edges)
    varying = width / 2 * np.exp(0.25 * texture(rng, shape, 8))
    membrane = 1 / (1 + np.exp(2.5 * (away - varying)))
    inside = _own_values(rng, labels, rng.uniform(0.02, 0.25))
    inside += rng.uniform(0, 0.12) * texture(rng, shape, rng.uniform(0.7, 4))
    if rng.random() < 0.6:
        inside += _organelles(rng, shape, labels)
    faint = np.exp(0.35 * texture(rng, shape, 25)) if rng.random() < 0.5 else 1.0
    light = inside * (1 - membrane) + membrane * rng.uniform(0.7, 1.6) * faint
    labels = np.where(away > varying, labels, 0)
    return Scene(_pieces(labels), light)


def _blobs(rng: Generator, shape: tuple[int, int]) -> Scene:
    """Objects of uneven outline on a background, alone or touching."""
    radius = float(np.exp(rng.uniform(np.log(6), np.log(20))))
    labels, _ = lay_out(
        rng,
        shape,
        one_per_px=rng.uniform(0.05, 0.75) / (np.pi * radius**2),
        radius_px=radius,
        touching=rng.uniform(0, 0.8),
    )
    return Scene(labels, _lit(rng, labels, radius) + _clutter(rng, shape, labels, radius))


def _rods(rng: Generator, shape: tuple[int, int]) -> Scene:
    """Straight or bent rods, as bacteria are, alone or side by side."""
    labels = np.zeros(shape, np.int32)
    width = rng.uniform(5, 12)
    length = width * rng.uniform(2, 5)
    gap = rng.uniform(-0.5, 1.5)
    field = rng.uniform(0, 2 * np.pi) + rng.uniform(0, 2) * texture(rng, shape, 30)
    wanted = rng.uniform(0.1, 0.7) * np.prod(shape) / (width * length)
    grid = np.indices(shape).astype(float)
    number = 0
    for _ in range(int(3 * wanted)):
        centre = rng.uniform(0, 1, 2) * np.asarray(shape)
        at = tuple(centre.astype(int))
        rod = _rod(rng, grid, centre, field[at], length * np.exp(rng.normal(0, 0.25)), width, gap)
        if rod is None:
            continue
        window, near, mask = rod
        if (labels[window][near] > 0).any() or mask.sum() < LEAST_PX:
            continue
        number += 1
        labels[window][mask] = number
        if number >= wanted:
            break
    return Scene(labels, _lit(rng, labels, width / 2) + _clutter(rng, shape, labels, width / 2))


KINDS: tuple[tuple[str, Callable[[Generator, tuple[int, int]], Scene]], ...] = (
    ("tissue", _tissue),
    ("blobs", _blobs),
    ("tissue", _tissue),
    ("blobs", _blobs),
    ("rods", _rods),
)


def _cells(rng: Generator, shape: tuple[int, int], size_px: float) -> Labels:
    """Part the plane among points, bent at random; some cells are background in some pictures."""
    pad = int(2 * size_px)
    count = int((shape[0] + 2 * pad) * (shape[1] + 2 * pad) / size_px**2)
    stretch = np.array([1.0, rng.uniform(1.0, 2.2)])
    extent = (np.array(shape) + 2 * pad) / stretch
    points = rng.uniform(0, 1, (count, 2)) * extent
    for _ in range(int(rng.integers(3))):  # moved apart, so that cells become more alike in size
        points += 0.35 * (points - points[cKDTree(points).query(points, 2)[1][:, 1]])
    bent = [
        axis + pad + size_px * rng.uniform(0.1, 0.35) * texture(rng, shape, size_px / 3)
        for axis in np.indices(shape)
    ]
    turn = rng.uniform(0, np.pi)
    middle = [np.mean(axis) for axis in bent]
    y, x = (axis - at for axis, at in zip(bent, middle, strict=True))
    turned = np.stack(
        [np.cos(turn) * y - np.sin(turn) * x, np.sin(turn) * y + np.cos(turn) * x], axis=-1
    )
    _, nearest = cKDTree(points).query(turned / stretch + extent / 2)
    labels = nearest.astype(np.int32) + 1
    if rng.random() < 0.3:
        empty = rng.random(count + 1) < rng.uniform(0, 0.4)
        labels[empty[labels]] = 0
    return labels


def _rod(
    rng: Generator,
    grid: NDArray[np.float64],
    centre: Float,
    turn: float,
    length: float,
    width: float,
    gap: float,
) -> tuple[tuple[slice, slice], NDArray[np.bool_], NDArray[np.bool_]] | None:
    """Return window, pixels within a gap of a rod, and pixels of the rod."""
    reach = int(length / 2 + width + 3)
    window = tuple(
        slice(max(0, int(at) - reach), min(size, int(at) + reach + 1))
        for at, size in zip(centre, grid.shape[1:], strict=True)
    )
    turn += rng.normal(0, 0.15)
    y, x = (grid[axis][window] - centre[axis] for axis in (0, 1))
    along = np.cos(turn) * y + np.sin(turn) * x
    across = np.cos(turn) * x - np.sin(turn) * y - rng.normal(0, 0.4) / length * along**2
    over = np.clip(np.abs(along) - (length - width) / 2, 0, None)
    away = np.hypot(over, across) - width / 2
    return window, away < gap, away < 0


def _lit(rng: Generator, labels: Labels, radius: float) -> Float:
    """Light up objects: filled, domed, rimmed or with a halo, each as bright as chance has it."""
    shape = labels.shape
    depth = ndimage.distance_transform_edt(labels > 0)
    profile = np.ones(shape)
    kind = rng.random()
    if kind < 0.4:
        profile = 0.5 + 0.5 * np.sqrt(np.clip(depth / (0.8 * radius), 0, 1))
    elif kind < 0.65:
        rim = rng.uniform(0.08, 0.25) * radius + 0.8
        profile = rng.uniform(0.25, 0.7) + rng.uniform(0.3, 0.8) * np.exp(-((depth / rim) ** 2))
    mottled = 1 + rng.uniform(0, 0.3) * texture(rng, shape, rng.uniform(0.8, 3.5))
    darker = rng.uniform(0, 0.6)
    spotted = 1 - darker * np.clip(texture(rng, shape, rng.uniform(1.5, 3)) - 1.3, 0, 1)
    brightness = np.exp(_own_values(rng, labels, rng.uniform(0.05, 0.6)))
    light = np.where(labels > 0, brightness * profile * mottled * spotted, 0.0)
    if rng.random() < 0.35:  # as in phase contrast
        light -= rng.uniform(0.3, 0.9) * blurred((labels > 0).astype(float), rng.uniform(2, 5))
    return light * rng.uniform(0.35, 1.2)


def _clutter(rng: Generator, shape: tuple[int, int], labels: Labels, radius: float) -> Float:
    """Everything that is no object: clouds, fibres, specks, and objects far out of focus."""
    light = rng.uniform(0, 0.2) * texture(rng, shape, rng.uniform(12, 40))
    light += rng.uniform(0, 0.1) * texture(rng, shape, rng.uniform(1, 4))
    if rng.random() < 0.4:
        light += rng.uniform(0, 0.15) * texture(rng, shape, (rng.uniform(1, 2), rng.uniform(5, 12)))
    if rng.random() < 0.4:
        specks = np.zeros(shape)
        for y, x in rng.integers(0, SIDE_PX, (int(rng.integers(40)), 2)):
            specks[y, x] = rng.uniform(-1, 1)
        light += 6 * rng.uniform(0.3, 1) * blurred(specks, rng.uniform(0.8, 1.6))
    if rng.random() < 0.4:
        ghosts, _ = lay_out(rng, shape, 0.12 / (np.pi * radius**2), radius, 0.0)
        shown = rng.uniform(0.1, 0.6)
        light += shown * blurred((ghosts > 0) * 1.0, rng.uniform(0.35, 0.7) * radius)
    if rng.random() < 0.25:  # the cell around the nucleus
        body = ndimage.distance_transform_edt(labels == 0)
        shown, reach = rng.uniform(0.05, 0.3), radius * rng.uniform(0.4, 1.5)
        light += shown / (1 + np.exp((body - reach) / 1.5))
    return light


def _organelles(rng: Generator, shape: tuple[int, int], labels: Labels) -> Float:
    """Round things in cells, dark, bright or rimmed, that are no cells themselves."""
    radius = rng.uniform(2, 6)
    things, _ = lay_out(rng, shape, rng.uniform(0.02, 0.2) / (np.pi * radius**2), radius, 0.3)
    depth = ndimage.distance_transform_edt(things > 0)
    filled = np.where(things > 0, rng.uniform(-0.4, 0.7) + 0.15 * texture(rng, shape, 1.2), 0)
    rimmed = np.where(things > 0, np.exp(-((depth - 1) ** 2) / 1.5), 0)
    light: Float = filled + rng.uniform(0, 0.8) * rimmed
    return light


def _own_values(rng: Generator, labels: Labels, spread: float) -> Float:
    """Give each object a value of its own, of mean 0."""
    values = rng.normal(0, spread, int(labels.max()) + 1)
    picked: Float = values[labels]
    return picked


def _pieces(labels: Labels) -> Labels:
    """Give each connected piece a number of its own and leave out the smallest."""
    pieces = label(labels, connectivity=1)
    large: Labels = remove_small_objects(pieces, max_size=LEAST_PX - 1)
    return large


def _photographed(rng: Generator, light: Float) -> Float:
    """Turn contrast round or not, light unevenly, blur and add noise; grey values about 0 to 1."""
    if rng.random() < 0.5:
        light = -light
    light = blurred(light, rng.uniform(0.3, 1.6))
    if rng.random() < 0.5:
        y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in light.shape), indexing="ij")
        turn, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.4)
        light = light + slope * (np.cos(turn) * y + np.sin(turn) * x)
    if rng.random() < 0.3:
        light = light * (1 + 0.5 * np.clip(texture(rng, light.shape, 60), -1.5, 1.5))
    low, high = np.percentile(light, (1, 99))
    light = (light - low) / max(high - low, 1e-6)
    return light + rng.normal(0, 1, light.shape) * np.exp(rng.uniform(np.log(0.01), np.log(0.15)))
