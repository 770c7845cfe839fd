"""The demo corrects like a person, writes everything, and judges where nobody helped."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from napari_unet.arrays.metrics import evaluate
from napari_unet.files.images import read_image
from napari_unet.models.card import Card
from napari_unet.models.model import Model, load_model, save_model
from napari_unet.runs.demo import BOXES, SHAPE, correct, demo_steps
from napari_unet.runs.progress import drive
from napari_unet.settings import FinetuneSettings

SMALL_BOXES = ((8, 8, 104, 120), (90, 100, 180, 184))
SMALL_SHAPE = (192, 192)


def test_a_person_corrects_only_what_is_wrong_and_only_in_the_boxes() -> None:
    truth = np.zeros((60, 60), np.int32)
    truth[5:15, 5:15], truth[5:15, 25:35], truth[40:50, 40:50] = 1, 2, 3
    labels = np.zeros_like(truth)
    labels[5:14, 5:15], labels[30:35, 2:8], labels[44:54, 10:20] = 9, 4, 5
    corrected, checked = correct(labels, truth, ((0, 0, 38, 38),))
    assert checked.sum() == 38 * 38
    assert np.array_equal(corrected[~checked], labels[~checked])
    assert np.array_equal(corrected[checked] > 0, truth[checked] > 0)
    assert corrected[6, 6] == 9
    assert corrected[6, 30] > labels.max()
    assert evaluate(np.where(checked, corrected, 0), np.where(checked, truth, 0))["ap50"] == 1


def test_the_boxes_lie_in_the_image_and_leave_most_of_it_to_judge() -> None:
    area = 0
    for y0, x0, y1, x1 in BOXES:
        assert 0 <= y0 < y1 <= SHAPE[0]
        assert 0 <= x0 < x1 <= SHAPE[1]
        area += (y1 - y0) * (x1 - x0)
    assert area < 0.4 * SHAPE[0] * SHAPE[1]


@pytest.fixture
def demo(tmp_path, tiny_unet):
    """Run the demo with a net that knows nothing and learns for three steps."""
    card = Card(name="tiny", architecture=tiny_unet.architecture)
    model = save_model(Model(tiny_unet, card), tmp_path / "tiny.safetensors")
    settings = FinetuneSettings(seconds=None, steps=3, crop_px=32, batch=2)
    steps = demo_steps(
        tmp_path / "out", settings, model=str(model), shape=SMALL_SHAPE, boxes=SMALL_BOXES
    )
    return drive(steps)


def test_everything_is_written_and_can_be_read_back(demo, tmp_path) -> None:
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("image.ome.tif", "before.ome.tif", "corrected.ome.tif", "after.ome.tif"),
        *("truth.ome.tif", "model.safetensors", "report.json", "picture.png"),
    }
    for name in ("image", "before", "corrected", "after", "truth"):
        file = read_image(demo.files[name])
        assert file.array.shape == SMALL_SHAPE
        assert file.pixel_size_um == (0.5, 0.5)
    assert np.array_equal(read_image(demo.files["after"]).array, demo.labels_after)
    with Image.open(demo.files["picture"]) as picture:
        assert picture.width > 4 * SMALL_SHAPE[1]
    assert load_model(demo.files["model"]).card.parent == "tiny"


def test_what_is_judged_lies_outside_the_boxes(demo) -> None:
    truth = read_image(demo.files["truth"]).array
    outside = np.ones(SMALL_SHAPE, bool)
    for y0, x0, y1, x1 in SMALL_BOXES:
        outside[y0:y1, x0:x1] = False
    assert demo.before == evaluate(demo.labels_before, truth, outside)
    assert demo.after == evaluate(demo.labels_after, truth, outside)
    report = json.loads(demo.files["report"].read_text(encoding="utf-8"))
    assert report["demo"]["before"] == demo.before
    assert report["demo"]["after"] == demo.after
    assert report["settings"]["steps"] == 3
    assert report["versions"]["torch"]
