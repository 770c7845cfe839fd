"""The fluorescence images of the Data Science Bowl 2018, and training crops drawn from them."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
import torch
from torch.nn import functional

from napari_unet.arrays.normalize import measure, normalize
from napari_unet.arrays.targets import make_targets, separation_weights
from napari_unet.network.augment import augment_batch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_unet.settings import Normalization

CROP_PX = 256
ZOOM = (0.5, 2.0)  # nuclei of 10 px and of 80 px, whatever the microscope
ELASTIC_PX = 8.0
ROTATION_DEGREES = 20.0
GREY_VALUES = 0.5
BLURRED, BLUR_SIGMA_PX = 0.3, (0.4, 1.6)  # share of the crops, and how much
NOISY, NOISE = 0.5, 0.08


@dataclass(frozen=True)
class Plane:
    """One image of the data set."""

    name: str
    group: str
    """Images of one group are crops of one field."""
    image: NDArray[Any]
    """Raw grey values, shape (Y, X)."""
    labels: NDArray[Any]
    """True nuclei, shape (Y, X)."""


@dataclass(frozen=True)
class Lesson:
    """What is learnt from one plane, in half precision to have all of them in memory."""

    image: Tensor
    """Normalised from the statistics of the whole plane, as in use, shape (1, Y, X)."""
    targets: Tensor
    """One map per output, shape (K, Y, X)."""
    weights: Tensor
    """Separation weights, shape (1, Y, X)."""


def read_planes(folder: Path, split: str) -> list[Plane]:
    """Read the fluorescence images of one split."""
    with (folder / "index.csv").open(newline="") as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if row["modality"] == "fluorescence" and row["split"] == split
        ]
    return [
        plane
        for stack in sorted({row["stack"] for row in rows})
        for plane in _pages(folder, stack, [row for row in rows if row["stack"] == stack])
    ]


def object_size_px(planes: list[Plane]) -> float:
    """Median diameter of a disc as large as the object, in pixels."""
    areas = [np.bincount(plane.labels.ravel())[1:] for plane in planes]
    found = np.concatenate(areas)
    return float(np.median(2 * np.sqrt(found[found > 0] / math.pi)))


def make_lesson(plane: Plane, outputs: tuple[str, ...], rule: Normalization) -> Lesson:
    """Prepare what is learnt from a plane."""
    image = plane.image[None]
    maps = (
        normalize(image, measure(image, rule)),
        make_targets(plane.labels, outputs),
        separation_weights(plane.labels)[None],
    )
    return Lesson(*(torch.from_numpy(values).half() for values in maps))


def sampling_odds(planes: list[Plane]) -> NDArray[np.float64]:
    """How often each plane is drawn: each group by the square root of its area.

    Many of the images are crops of a few fields; drawn evenly, those would be most of what the
    network sees.
    """
    area: dict[str, int] = {}
    for plane in planes:
        area[plane.group] = area.get(plane.group, 0) + plane.labels.size
    odds = np.array([plane.labels.size / math.sqrt(area[plane.group]) for plane in planes])
    odds /= odds.sum()
    return odds


class Crops:
    """Crops drawn and changed at random, always the same ones for the same seed."""

    def __init__(self, lessons: list[Lesson], odds: NDArray[np.float64], seed: int) -> None:
        self._lessons = lessons
        self._odds = odds
        self._random = np.random.default_rng(seed)
        self._generator = torch.Generator().manual_seed(seed)

    def draw(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draw images, targets and weights, shapes (count, 1 or K, CROP_PX, CROP_PX)."""
        chosen = self._random.choice(len(self._lessons), count, p=self._odds)
        crops = [self._cut(self._lessons[index]) for index in chosen]
        images, targets, weights = (torch.stack(parts) for parts in zip(*crops, strict=True))
        images, targets, weights = augment_batch(
            images,
            targets,
            weights,
            elastic_px=ELASTIC_PX,
            rotation_degrees=ROTATION_DEGREES,
            grey_values=GREY_VALUES,
            generator=self._generator,
        )
        return torch.stack([self._worsened(image) for image in images]), targets, weights

    def _cut(self, lesson: Lesson) -> tuple[Tensor, Tensor, Tensor]:
        """Cut a window of random size and zoom it to the size of a crop."""
        zoom = math.exp(self._random.uniform(math.log(ZOOM[0]), math.log(ZOOM[1])))
        side = round(CROP_PX / zoom)
        lengths = lesson.image.shape[1:]
        spans = [min(side, length) for length in lengths]
        starts = [
            int(self._random.integers(length - span + 1))
            for length, span in zip(lengths, spans, strict=True)
        ]
        at = (slice(None), *(slice(a, a + n) for a, n in zip(starts, spans, strict=True)))
        image, targets, weights = (
            maps[at].float()[None] for maps in (lesson.image, lesson.targets, lesson.weights)
        )
        # an image smaller than the window is mirrored; nothing is learnt from its mirror image
        pad = (0, side - spans[1], 0, side - spans[0])
        mirrors = side < 2 * min(spans)
        image = functional.pad(image, pad, mode="reflect" if mirrors else "replicate")
        targets, weights = functional.pad(targets, pad), functional.pad(weights, pad)
        size = (CROP_PX, CROP_PX)
        return (
            functional.interpolate(image, size, mode="bilinear", antialias=zoom < 1)[0],
            functional.interpolate(targets, size, mode="bilinear")[0],
            functional.interpolate(weights, size, mode="nearest")[0],
        )

    def _worsened(self, image: Tensor) -> Tensor:
        """Blur some crops, as out of focus, and add noise to some."""
        if self._random.random() < BLURRED:
            image = _blur(image, self._random.uniform(*BLUR_SIGMA_PX))
        if self._random.random() < NOISY:
            noise = torch.randn(image.shape, generator=self._generator)
            image = image + noise * self._random.uniform(0, NOISE)
        return image


def _pages(folder: Path, stack: str, rows: list[dict[str, str]]) -> Iterator[Plane]:
    """Read the pages of one stack that the rows name."""
    images = tifffile.imread(folder / f"{stack}_images.tif")
    labels = tifffile.imread(folder / f"{stack}_labels.tif")
    for row in rows:
        page = int(row["page"])
        yield Plane(f"{stack}/{page}", row["group"], images[page], labels[page])


def _blur(image: Tensor, sigma_px: float) -> Tensor:
    """Blur an image (1, Y, X) with a Gaussian."""
    reach = 4
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma_px) ** 2)
    taps = taps / taps.sum()
    image = functional.conv2d(image[None], taps.view(1, 1, -1, 1), padding=(reach, 0))
    return functional.conv2d(image, taps.view(1, 1, 1, -1), padding=(0, reach))[0]
