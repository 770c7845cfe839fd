"""A model is judged as it is used, only where the truth is known, and taken only if better."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_unet.arrays import metrics
from napari_unet.errors import LabelsError
from napari_unet.models.card import Card
from napari_unet.models.model import Model
from napari_unet.network.unet import UNet
from napari_unet.runs.crops import Sample
from napari_unet.runs.evaluate import Scores, compare, evaluate, judge_steps
from napari_unet.runs.predict import segment
from napari_unet.runs.samples import prepare_plane
from napari_unet.settings import Architecture, InstanceSettings, SegmentSettings

INSTANCES = InstanceSettings(min_size=4)


@pytest.fixture
def model(tiny_unet) -> Model:
    """A network with random weights: its labels are arbitrary, and that is enough to compare."""
    card = Card(name="tiny", architecture=tiny_unet.architecture, instances=INSTANCES)
    return Model(tiny_unet, card)


@pytest.fixture
def classes_model() -> Model:
    torch.manual_seed(1)
    net = UNet(Architecture(widths=(4, 8), classes=3))
    card = Card(
        name="classes",
        architecture=net.architecture,
        outputs=("background", "cell", "wall"),
        activation="softmax",
        labels="semantic",
    )
    return Model(net.eval(), card)


def test_judging_a_part_gives_what_the_whole_image_gives_there(model, blobs, run_to_end):
    settings = SegmentSettings(instances=INSTANCES)
    mask = np.zeros(blobs.labels.shape, bool)
    mask[40:90, 60:120] = True
    labels = segment(model, blobs.image, "YX", settings)
    assert len(np.unique(labels[mask])) > 2, "else there is nothing to compare"
    sample = Sample(blobs.image[np.newaxis], blobs.labels, mask)
    plane = prepare_plane(sample, model.card, settings, model.net.halo, model.net.stride)
    _, scores = run_to_end(judge_steps(model, [plane], [plane.vouched], settings))
    whole = metrics.evaluate(labels, blobs.labels, mask)
    assert {k: scores.as_dict()[k] for k in ("iou", "tp", "fp", "fn")} == {
        k: pytest.approx(whole[k]) for k in ("iou", "tp", "fp", "fn")
    }
    inverted = settings.replace(invert=True)
    plane = prepare_plane(sample, model.card, inverted, model.net.halo, model.net.stride)
    _, other = run_to_end(judge_steps(model, [plane], [plane.vouched], inverted))
    assert other.iou != scores.iou, "else the settings were not honoured"


def test_labels_outside_of_what_is_vouched_for_do_not_count(model, blobs):
    mask = np.zeros(blobs.labels.shape, bool)
    mask[:, :64] = True
    outside_wrong = np.where(mask, blobs.labels, 0)
    before = evaluate(model, [Sample(blobs.image[np.newaxis], blobs.labels, mask)])
    after = evaluate(model, [Sample(blobs.image[np.newaxis], outside_wrong, mask)])
    assert after.iou == before.iou
    inside_wrong = blobs.labels.copy()
    inside_wrong[30:60, 10:50] = 0
    changed = evaluate(model, [Sample(blobs.image[np.newaxis], inside_wrong, mask)])
    assert changed.iou != before.iou


def test_classes_are_scored_by_their_mean_overlap(classes_model, blobs):
    truth = segment(classes_model, blobs.image, "YX")
    assert len(np.unique(truth)) == 3, "else there is nothing to score"
    perfect = evaluate(classes_model, [Sample(blobs.image[np.newaxis], truth)])
    assert perfect == Scores(iou=1.0, dice=1.0)
    assert set(perfect.as_dict()) == {"iou", "dice"}
    wrong = np.where(truth == 2, 1, truth)
    assert evaluate(classes_model, [Sample(blobs.image[np.newaxis], wrong)]).iou < 0.6


def test_without_labels_there_is_no_score(model):
    with pytest.raises(LabelsError, match="Nothing"):
        evaluate(model, [])


BEFORE = Scores(iou=0.7, dice=0.8, ap50=0.6)


@pytest.mark.parametrize(
    ("before", "after", "outcome"),
    [
        pytest.param(BEFORE, replace(BEFORE, ap50=0.7), "better", id="more objects"),
        pytest.param(BEFORE, replace(BEFORE, iou=0.75), "better", id="better outlines"),
        pytest.param(BEFORE, BEFORE, "not better", id="the same"),
        pytest.param(
            Scores(0.5, 0.6, ap50=0.0, spurious=2),
            Scores(0.7, 0.8, ap50=0.0, spurious=6),
            "not better",
            id="nothing found and more spurious labels",
        ),
        pytest.param(BEFORE, replace(BEFORE, iou=0.705), "not better", id="noise"),
        pytest.param(BEFORE, replace(BEFORE, ap50=0.59, iou=0.9), "not better", id="less objects"),
        pytest.param(BEFORE, replace(BEFORE, ap50=0.65, iou=0.6), "not better", id="bad outlines"),
        pytest.param(BEFORE, None, "cannot judge", id="nothing held out"),
        pytest.param(Scores(0.5, 0.6), Scores(0.6, 0.7), "better", id="better classes"),
        pytest.param(Scores(0.5, 0.6), Scores(0.5, 0.6), "not better", id="the same classes"),
    ],
)
def test_only_a_better_model_is_taken(before, after, outcome):
    told, verdict = compare(before, after)
    assert told == outcome
    assert verdict.endswith(".")
    if outcome != "better":
        assert "stays in use" in verdict
