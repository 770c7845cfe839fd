"""Images and their truth on disk, and what they hold.

A data folder has an ``index.csv``; each row is one image, and ``<stack>_images.tif`` and
``<stack>_labels.tif`` hold it on page ``page``. The columns are told in ``training/README.md``.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

INDEX = "index.csv"


@dataclass(frozen=True, eq=False)
class Plane:
    """One image and the truth about it."""

    name: str
    group: str
    """Images of one group are crops of one field."""
    image: NDArray[Any]
    """Raw grey values, shape (C, Y, X)."""
    labels: NDArray[Any]
    """True objects, shape (Y, X); 0 is background."""


def read_planes(folder: Path, modalities: Collection[str], split: str) -> list[Plane]:
    """Read the images of some modalities in one split, stack by stack."""
    with (folder / INDEX).open(newline="") as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if row["modality"] in modalities and row["split"] == split
        ]
    return [
        plane
        for stack in sorted({row["stack"] for row in rows})
        for plane in _pages(folder, stack, [row for row in rows if row["stack"] == stack])
    ]


def count_objects(planes: Sequence[Plane]) -> int:
    """Count the true objects."""
    return sum(len(np.unique(plane.labels[plane.labels > 0])) for plane in planes)


def object_size_px(planes: Sequence[Plane]) -> float:
    """Median diameter of a disc as large as the object, in pixels."""
    areas = np.concatenate([np.bincount(plane.labels.ravel())[1:] for plane in planes])
    return round(float(np.median(2 * np.sqrt(areas[areas > 0] / math.pi))), 1)


def sampling_odds(planes: Sequence[Plane]) -> NDArray[np.float64]:
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


def _pages(folder: Path, stack: str, rows: list[dict[str, str]]) -> Iterator[Plane]:
    """Read the pages of one stack that the rows name."""
    images = tifffile.imread(folder / f"{stack}_images.tif")
    labels = tifffile.imread(folder / f"{stack}_labels.tif")
    for row in rows:
        page = int(row["page"])
        image = images[page]
        channels_first = (
            image[None] if image.ndim == labels[page].ndim else np.moveaxis(image, -1, 0)
        )
        yield Plane(f"{stack}/{page}", row["group"], channels_first, labels[page])
