"""The bundled model: small, usable as it comes, and as good as its card says."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from napari_unet.arrays.metrics import evaluate, pooled
from napari_unet.models.library import find_model
from napari_unet.models.model import load_model
from napari_unet.models.own_file import read_card
from napari_unet.runs.predict import segment

if TYPE_CHECKING:
    from pathlib import Path

    from napari_unet.models.model import Model

SCORE = "AP50 pooled, DSB2018 val fluorescence"


@pytest.fixture(scope="module")
def nuclei() -> Model:
    return load_model("nuclei")


def round_nuclei(shape: tuple[int, int], count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw bright discs of several sizes and brightnesses, some touching, with noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    labels, image = np.zeros(shape, np.int32), np.full(shape, 20.0)
    while labels.max() < count:
        centre_y, centre_x = random.uniform(0, shape)
        radius = random.uniform(7, 14)
        inside = (y - centre_y) ** 2 + (x - centre_x) ** 2 <= radius**2
        if (labels[inside] > 0).mean() > 0.02:
            continue
        labels[inside & (labels == 0)] = labels.max() + 1
        image[inside] = random.uniform(80, 160)
    return image + random.normal(0, 6, shape), labels


def test_the_file_is_small_and_its_card_complete():
    path = find_model("nuclei")
    assert path.stat().st_size < 5_000_000
    card = read_card(path)
    assert card.scores[SCORE] >= 0.80
    assert card.outputs == ("foreground", "distance")
    assert 10 < card.object_size_px < 40
    assert card.licence == "BSD-3-Clause"
    assert "CC0" in card.training_data
    assert "10.1038/s41592-019-0612-7" in card.training_data
    assert card.created


def test_drawn_nuclei_are_found_whatever_their_grey_values(nuclei):
    image, truth = round_nuclei((160, 208), 30, seed=1)
    scores = evaluate(segment(nuclei, image), truth)
    assert scores["ap50"] > 0.8
    assert scores["dice"] > 0.9
    sixteen_bit = (33_000 + 10 * image).astype(np.uint16)
    assert evaluate(segment(nuclei, sixteen_bit), truth)["ap50"] > 0.8
    shuffled = np.random.default_rng(0).permutation(image.ravel()).reshape(image.shape)
    assert evaluate(segment(nuclei, shuffled), truth)["ap50"] < 0.1  # control


@pytest.mark.parametrize("shape", [(1, 1), (17, 300)])
def test_an_empty_image_has_no_nuclei(nuclei, shape):
    assert segment(nuclei, np.full(shape, 7, np.uint8), "YX").max() == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_score_on_real_images_is_the_one_on_the_card(nuclei, data_dir):
    folder = data_dir / "images" / "dsb2018"
    scores = [evaluate(segment(nuclei, image, "YX"), truth) for image, truth in val_images(folder)]
    assert len(scores) == 45
    found = pooled(scores)["ap50"]
    assert found >= 0.80
    assert found == pytest.approx(nuclei.card.scores[SCORE], abs=0.003)


def val_images(folder: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Read the fluorescence images that the model was not trained on, with the truth."""
    with (folder / "index.csv").open(newline="") as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if (row["split"], row["modality"]) == ("val", "fluorescence")
        ]
    stacks = {
        row["stack"]: [
            tifffile.imread(folder / f"{row['stack']}_{kind}.tif") for kind in ("images", "labels")
        ]
        for row in rows
    }
    return [tuple(pages[int(row["page"])] for pages in stacks[row["stack"]]) for row in rows]
