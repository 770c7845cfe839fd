"""Real images by domain: what a simulated person may correct, and what nobody ever learns from.

The images lie under ``NAPARI_UNET_TEST_DATA`` (``../shared/data`` beside the checkout, if that is
not set). Pictures of one group are crops of one field, or the same field at another time. **Every
third group, beginning with the first, is kept for the test**; the others are the pool.

===================  =============================================================  ===============
domain               pictures                                                       groups
===================  =============================================================  ===============
purple_on_white      stained tissue, RGB, Data Science Bowl 2018                    as in index.csv
purple_on_purple     likewise, another stain                                        as in index.csv
gowt1                GOWT1 nuclei, three frames of one field, in quarters           the quarters
bacteria             phase contrast, four pictures of one each; the one with small  the pictures
                     bacteria magnified twice, so that one object size fits all
nih3t3               NIH3T3 nuclei, twelve fields                                   the fields
isbi                 membranes, ISBI 2012; the objects are the cells between        sections 20-23,
                                                                                    then 0-19
fluorescence         what ``nuclei`` was trained for, from the val split            as in index.csv
generated            drawn tissue, needs no files                                   the pictures
===================  =============================================================  ===============
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from skimage.measure import label
from skimage.morphology import remove_small_objects

from napari_unet.sample_data import tissue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DATA_VARIABLE = "NAPARI_UNET_TEST_DATA"
DATA_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"
EVERY_THIRD = 3

GOWT1_SIDE = 512
BACTERIA = {"Sample000033": 2, "Sample000252": 1, "Sample000306": 1, "e1t1_crop": 1}  # magnified
LAST_SECTIONS = 4
LEAST_CELL_PX = 50  # of the objects between membranes; smaller ones are gaps in a membrane
GENERATED, GENERATED_SIDE = 6, 256

Labels = NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class Picture:
    """One image and the truth about it."""

    name: str
    group: str
    """Pictures of one group look at the same field."""
    image: NDArray[Any]
    """Shape (C, Y, X): raw grey values."""
    labels: Labels
    """Shape (Y, X): true objects, 0 is background."""


@dataclass(frozen=True, eq=False)
class Domain:
    """Images of one kind."""

    name: str
    pool: tuple[Picture, ...]
    """What may be corrected."""
    test: tuple[Picture, ...]
    """What nobody learns from."""


def read_domain(name: str) -> Domain:
    """Read the pictures of a domain and part them by the rule above."""
    pictures = tuple(READERS[name](_folder(), name))
    groups = list(dict.fromkeys(picture.group for picture in pictures))
    test = set(groups[::EVERY_THIRD])
    return Domain(
        name,
        tuple(picture for picture in pictures if picture.group not in test),
        tuple(picture for picture in pictures if picture.group in test),
    )


def _folder() -> Path:
    """Where the images lie."""
    return Path(os.environ.get(DATA_VARIABLE) or DATA_BESIDE) / "images"


def _data_science_bowl(folder: Path, modality: str) -> Iterator[Picture]:
    """Read a modality; of fluorescence, which ``nuclei`` has learnt from, the val split alone."""
    folder = folder / "dsb2018"
    with (folder / "index.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["modality"] == modality]
    if modality == "fluorescence":
        rows = [row for row in rows if row["split"] == "val"]
    for row in sorted(rows, key=lambda row: (int(row["group"]), row["stack"], int(row["page"]))):
        page, stack = int(row["page"]), row["stack"]
        image = tifffile.imread(folder / f"{stack}_images.tif")[page]
        labels = tifffile.imread(folder / f"{stack}_labels.tif")[page]
        yield Picture(f"{stack}/{page}", row["group"], _channels_first(image), labels)


def _gowt1(folder: Path, _: str) -> Iterator[Picture]:
    """Read three frames in quarters: each quarter is one field at three times."""
    stem = folder / "ctc_excerpt" / "Fluo-N2DH-GOWT1"
    frames = tifffile.imread(f"{stem}_images.tif")
    truth = tifffile.imread(f"{stem}_labels.tif")
    for y in range(0, frames.shape[1], GOWT1_SIDE):
        for x in range(0, frames.shape[2], GOWT1_SIDE):
            at = (slice(y, y + GOWT1_SIDE), slice(x, x + GOWT1_SIDE))
            for time, (frame, labels) in enumerate(zip(frames, truth, strict=True)):
                yield Picture(f"{y},{x}/{time}", f"{y},{x}", frame[at][None], labels[at])


def _bacteria(folder: Path, _: str) -> Iterator[Picture]:
    """Read four pictures with bacteria of about one size."""
    for name, times in BACTERIA.items():
        image, labels = (
            tifffile.imread(folder / "bacteria_phase" / f"{name}_{what}.tif")
            for what in ("image", "labels")
        )
        image, labels = (a.repeat(times, axis=0).repeat(times, axis=1) for a in (image, labels))
        yield Picture(name, name, image[None], labels)


def _nih3t3(folder: Path, _: str) -> Iterator[Picture]:
    """Read the fields out of which the montage was made."""
    folder = folder / "nih3t3_large"
    image = tifffile.imread(folder / "montage_4096x4032_image.tif")
    labels = tifffile.imread(folder / "montage_4096x4032_labels.tif")
    with (folder / "fields.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            y, x = int(row["y0"]), int(row["x0"])
            at = (slice(y, y + int(row["height"])), slice(x, x + int(row["width"])))
            yield Picture(row["source"], row["source"], image[at][None], labels[at])


def _isbi(folder: Path, _: str) -> Iterator[Picture]:
    """Read the sections, the last ones first; neighbouring ones are alike."""
    images = tifffile.imread(folder / "isbi2012_em" / "images.tif")
    membranes = tifffile.imread(folder / "isbi2012_em" / "labels.tif")
    last = len(images) - LAST_SECTIONS
    for section in (*range(last, len(images)), *range(last)):
        cells = label(membranes[section] == 0, connectivity=1)
        cells = remove_small_objects(cells, max_size=LEAST_CELL_PX)
        group = "last" if section >= last else "others"
        yield Picture(f"section {section}", group, images[section][None], cells)


def _generated(_: Path, __: str) -> Iterator[Picture]:
    """Draw tissue."""
    for seed in range(GENERATED):
        image, labels = tissue((GENERATED_SIDE, GENERATED_SIDE), seed)
        yield Picture(f"tissue {seed}", f"{seed}", image[None], labels)


def _channels_first(image: NDArray[Any]) -> NDArray[Any]:
    """Turn (Y, X) or (Y, X, C) into (C, Y, X)."""
    return image[None] if image.ndim == 2 else np.moveaxis(image, -1, 0)


READERS: dict[str, Callable[[Path, str], Iterator[Picture]]] = {
    "purple_on_white": _data_science_bowl,
    "purple_on_purple": _data_science_bowl,
    "gowt1": _gowt1,
    "bacteria": _bacteria,
    "nih3t3": _nih3t3,
    "isbi": _isbi,
    "fluorescence": _data_science_bowl,
    "generated": _generated,
}
DOMAINS = tuple(name for name in READERS if name not in ("fluorescence", "generated"))
