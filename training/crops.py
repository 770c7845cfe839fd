"""Training crops: cut at random, changed at random, the same ones for the same seed and step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from napari_unet.arrays.normalize import measure, normalize
from napari_unet.arrays.targets import make_targets
from napari_unet.network.augment import augment_batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from planes import Plane
    from torch import Generator, Tensor

    from napari_unet.models.card import Card

    Batch = tuple[Tensor, Tensor, Tensor]

BLUR_REACH_PX = 4


@dataclass(frozen=True)
class CropSettings:
    """How large crops are, and how they are changed at random."""

    crop_px: int = 256
    zoom: tuple[float, float] = (1.0, 1.0)
    """Smallest and largest magnification."""
    rotation_degrees: float = 20.0
    """Largest free turn to either side, besides quarter turns and mirroring."""
    elastic_px: float = 8.0
    """Standard deviation of the displacements of the paper's 3 x 3 grid."""
    grey_values: float = 0.5
    """Strength of the change of contrast, brightness and gamma, 0..1."""
    inverted: float = 0.0
    """Share of the crops that are turned from bright on dark to dark on bright."""
    blurred: float = 0.3
    """Share of the crops that are blurred."""
    blur_sigma_px: tuple[float, float] = (0.4, 1.6)
    noisy: float = 0.5
    """Share of the crops that get noise."""
    noise: float = 0.08
    """Largest standard deviation of the noise, in normalised grey values."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """What is learnt from one plane, in half precision to have all of them in memory."""

    image: Tensor
    """Normalised from the statistics of the whole plane, as in use, shape (C, Y, X)."""
    targets: Tensor
    """One map per output, shape (K, Y, X)."""
    weights: Tensor
    """How much each pixel counts, shape (1, Y, X)."""


def make_lesson(plane: Plane, card: Card, weights: NDArray[Any]) -> Lesson:
    """Prepare what a network with such a card learns from a plane."""
    maps = (
        normalize(plane.image, measure(plane.image, card.normalization)),
        make_targets(plane.labels, card.outputs),
        weights[None],
    )
    return Lesson(*(torch.from_numpy(np.asarray(values)).half() for values in maps))


class Crops:
    """Crops of some lessons, drawn by odds.

    The random numbers of a step follow from the seed and the step alone, so that a training that
    was broken off goes on with the crops it would have had.
    """

    def __init__(
        self,
        lessons: Sequence[Lesson],
        settings: CropSettings,
        odds: NDArray[np.float64] | None = None,
        *,
        seed: int = 0,
    ) -> None:
        self.settings = settings
        self._lessons = lessons
        self._odds = odds
        self._seed = seed

    def draw(self, count: int, step: int) -> Batch:
        """Draw images, targets and weights, shapes (count, C or K or 1, crop_px, crop_px)."""
        random = np.random.default_rng([self._seed, step])
        generator = torch.Generator().manual_seed(int(random.integers(2**62)))
        chosen = random.choice(len(self._lessons), count, p=self._odds)
        crops = [self._cut(self._lessons[index], random) for index in chosen]
        images, targets, weights = (torch.stack(parts) for parts in zip(*crops, strict=True))
        images, targets, weights = augment_batch(
            images,
            targets,
            weights,
            elastic_px=self.settings.elastic_px,
            rotation_degrees=self.settings.rotation_degrees,
            grey_values=self.settings.grey_values,
            generator=generator,
        )
        worsened = [self._worsened(image, random, generator) for image in images]
        return torch.stack(worsened), targets, weights

    def _cut(self, lesson: Lesson, random: np.random.Generator) -> Batch:
        """Cut a window of random size and zoom it to the size of a crop."""
        smallest, largest = self.settings.zoom
        zoom = math.exp(random.uniform(math.log(smallest), math.log(largest)))
        side = round(self.settings.crop_px / zoom)
        lengths = lesson.image.shape[1:]
        spans = [min(side, length) for length in lengths]
        starts = [
            int(random.integers(length - span + 1))
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
        size = (self.settings.crop_px, self.settings.crop_px)
        return (
            functional.interpolate(image, size, mode="bilinear", antialias=zoom < 1)[0],
            functional.interpolate(targets, size, mode="bilinear")[0],
            functional.interpolate(weights, size, mode="nearest")[0],
        )

    def _worsened(self, image: Tensor, random: np.random.Generator, generator: Generator) -> Tensor:
        """Invert some crops, blur some, as out of focus, and add noise to some."""
        settings = self.settings
        if random.random() < settings.inverted:
            image = 1 - image
        if random.random() < settings.blurred:
            image = _blur(image, random.uniform(*settings.blur_sigma_px))
        if random.random() < settings.noisy:
            noise = torch.randn(image.shape, generator=generator)
            image = image + noise * random.uniform(0, settings.noise)
        return image


def _blur(image: Tensor, sigma_px: float) -> Tensor:
    """Blur an image (C, Y, X) with a Gaussian."""
    reach = BLUR_REACH_PX
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma_px) ** 2)
    taps = taps / taps.sum()
    image = functional.conv2d(image[:, None], taps.view(1, 1, -1, 1), padding=(reach, 0))
    return functional.conv2d(image, taps.view(1, 1, 1, -1), padding=(0, reach))[:, 0]
