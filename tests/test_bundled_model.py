"""The bundled models: small, usable as they come, and as good as their cards say."""

from __future__ import annotations

import csv
import importlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from napari_unet.arrays.metrics import evaluate, pooled
from napari_unet.models.library import find_model, is_bundled, list_models
from napari_unet.models.model import load_model
from napari_unet.runs.predict import predict, segment
from napari_unet.sample_data import tissue
from tests.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from napari_unet.models.card import Card
    from napari_unet.models.model import Model

LARGEST_BYTES = 10_000_000
NAMES = ("nuclei", "cells", "em-membranes", "nuclei-histology")
NUCLEI_SCORE = "AP50 pooled, DSB2018 val fluorescence"
RAND_SCORE = "adapted Rand error at the best threshold, ISBI 2012 sections 20-23"
CELL_SCORE = "AP50 of the cells, pooled, ISBI 2012 sections 20-23"
TISSUE_SCORE = "AP50 pooled, DSB2018 val stained tissue"
PIXEL_SCORE = "pixel error at the best threshold, ISBI 2012 sections 20-23"


@pytest.fixture(scope="module")
def nuclei() -> Model:
    return load_model("nuclei")


@pytest.fixture(scope="module")
def cells() -> Model:
    return load_model("cells")


@pytest.fixture(scope="module")
def membranes() -> Model:
    return load_model("em-membranes")


@pytest.fixture(scope="module")
def cards() -> dict[str, Card]:
    return {entry.name: entry.card for entry in list_models() if is_bundled(entry.path)}


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


def drawn_cells(side: int, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw grey cells with dark membranes between them, and noise."""
    random = np.random.default_rng(seed)
    centres = random.uniform(0, side, (count, 2))
    y, x = np.mgrid[:side, :side]
    distance = np.sqrt((y - centres[:, :1, None]) ** 2 + (x - centres[:, 1:, None]) ** 2)
    nearest, second = np.sort(distance, axis=0)[:2]
    labels = np.where(second - nearest > 8, distance.argmin(axis=0) + 1, 0)
    image = np.where(labels > 0, 170.0, 70.0)
    return ndimage.gaussian_filter(image, 1.5) + random.normal(0, 8, image.shape), labels


def test_nuclei_is_first_and_the_others_follow(cards):
    assert next(iter(cards)) == "nuclei"
    assert set(cards) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_file_is_small_and_its_card_complete(cards, name):
    card = cards[name]
    assert find_model(name).stat().st_size < LARGEST_BYTES
    assert card.name == name
    assert card.licence == "BSD-3-Clause"
    assert card.authors
    assert any("10.1007/978-3-319-24574-4_28" in text for text in card.cite)
    assert card.scores
    assert card.created
    assert card.object_size_px is not None
    assert len(card.segments) > 50
    assert len(card.training_data) > 100
    assert len(card.input_channels) == card.architecture.in_channels


def test_the_cards_say_what_was_reached(cards):
    assert cards["nuclei"].scores[NUCLEI_SCORE] >= 0.86
    assert cards["nuclei-histology"].scores[TISSUE_SCORE] > 0.45  # nuclei, inverted: 0.44
    assert cards["em-membranes"].scores[RAND_SCORE] <= 0.04
    assert cards["em-membranes"].scores[PIXEL_SCORE] <= 0.06


def test_the_cards_say_what_the_models_learnt_from(cards):
    assert cards["nuclei"].outputs == ("foreground", "distance")
    assert "CC0" in cards["nuclei"].training_data
    assert "10.1038/s41592-019-0612-7" in cards["nuclei"].training_data
    assert cards["cells"].parent == "nuclei"
    assert "drawn pictures" in cards["cells"].training_data
    assert cards["em-membranes"].outputs == ("membrane", "foreground")
    assert "Sections 0-19" in cards["em-membranes"].training_data


def test_drawn_nuclei_are_found_whatever_their_grey_values(nuclei):
    image, truth = round_nuclei((160, 208), 30, seed=1)
    scores = evaluate(segment(nuclei, image), truth)
    assert scores["ap50"] > 0.8
    assert scores["dice"] > 0.9
    sixteen_bit = (33_000 + 10 * image).astype(np.uint16)
    assert evaluate(segment(nuclei, sixteen_bit), truth)["ap50"] > 0.8
    shuffled = np.random.default_rng(0).permutation(image.ravel()).reshape(image.shape)
    assert evaluate(segment(nuclei, shuffled), truth)["ap50"] < 0.1  # control


@pytest.mark.parametrize("is_dark", [False, True])
def test_cells_sees_objects_brighter_and_darker_than_what_lies_between(cells, is_dark):
    image, truth = round_nuclei((160, 208), 30, seed=1)
    shown = image.max() - image if is_dark else image
    assert evaluate(segment(cells, shown), truth)["ap50"] > 0.7


@pytest.mark.parametrize("is_dark", [False, True])
def test_cells_parts_cells_at_dark_and_at_bright_membranes(cells, is_dark):
    image, truth = drawn_cells(256, 60, seed=0)
    shown = image.max() - image if is_dark else image
    assert evaluate(segment(cells, shown, "YX"), truth)["ap50"] > 0.5


def test_the_model_for_tissue_sees_nuclei_in_colour():
    grey, truth = tissue((256, 256), seed=3)
    stain = 1 - grey / 255.0
    colours = np.stack([1 - 0.9 * stain, 1 - stain, 1 - 0.5 * stain], axis=-1)  # purple
    labels = segment(load_model("nuclei-histology"), (255 * colours).astype(np.uint8), "YXC")
    assert evaluate(labels, truth)["ap50"] > 0.3


def test_drawn_cells_are_parted_by_their_membranes(membranes):
    image, truth = drawn_cells(256, 30, seed=0)
    labels = segment(membranes, image, "YX")
    assert evaluate(labels, truth)["ap50"] > 0.7
    membrane, cell = predict(membranes, image, "YX")
    assert membrane[truth == 0].mean() > 0.5 > 0.2 > membrane[truth > 0].mean()
    assert np.allclose(membrane + cell, 1, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (17, 300)])
def test_an_empty_image_has_no_nuclei(nuclei, shape):
    assert segment(nuclei, np.full(shape, 7, np.uint8), "YX").max() == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("name", "modality", "axes", "count", "score"),
    [
        ("nuclei", "fluorescence", "YX", 45, NUCLEI_SCORE),
        ("cells", "fluorescence", "YX", 45, NUCLEI_SCORE),
        ("nuclei-histology", "purple_on_purple", "YXC", 4, TISSUE_SCORE),
    ],
)
def test_the_score_on_real_images_is_the_one_on_the_card(
    name, modality, axes, count, score, data_dir
):
    model, pairs = load_model(name), val_images(data_dir / "images" / "dsb2018", modality)
    scores = [evaluate(segment(model, image, axes), truth) for image, truth in pairs]
    assert len(scores) == count
    assert pooled(scores)["ap50"] == pytest.approx(model.card.scores[score], abs=0.003)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_errors_on_real_sections_are_those_on_the_card(membranes, data_dir, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "training"))
    challenge = importlib.import_module("challenge")
    folder = data_dir / "images" / "isbi2012_em"
    images = tifffile.imread(folder / "images.tif")[20:24]
    truths = [ndimage.label(page == 0)[0] for page in tifffile.imread(folder / "labels.tif")[20:24]]
    cells = [predict(membranes, image, "YX")[1] for image in images]
    labels = [segment(membranes, image, "YX") for image in images]
    found = pooled(evaluate(*pair) for pair in zip(labels, truths, strict=True))["ap50"]
    assert found == pytest.approx(membranes.card.scores[CELL_SCORE], abs=0.003)
    rand = challenge.rand_error(cells, truths, challenge.THRESHOLDS)
    assert rand == pytest.approx(membranes.card.scores[RAND_SCORE], abs=0.002)
    pixel = challenge.pixel_error(cells, truths, challenge.THRESHOLDS)
    assert pixel == pytest.approx(membranes.card.scores[PIXEL_SCORE], abs=0.002)


def val_images(folder: Path, modality: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Read the images of a kind that no model was trained on, with the truth."""
    with (folder / "index.csv").open(newline="") as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if (row["split"], row["modality"]) == ("val", modality)
        ]
    stacks = {
        row["stack"]: [
            tifffile.imread(folder / f"{row['stack']}_{kind}.tif") for kind in ("images", "labels")
        ]
        for row in rows
    }
    return [tuple(pages[int(row["page"])] for pages in stacks[row["stack"]]) for row in rows]
