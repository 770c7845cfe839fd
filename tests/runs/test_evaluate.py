"""A model is judged as it is used, and only where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_unet.arrays import metrics
from napari_unet.errors import LabelsError
from napari_unet.models.card import Card
from napari_unet.models.model import Model
from napari_unet.network.unet import UNet
from napari_unet.runs.crops import Sample
from napari_unet.runs.evaluate import Scores, evaluate, judge_steps
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


def test_places_add_up_to_the_scores_of_the_whole(model, blobs):
    scores = evaluate(model, [Sample(blobs.image[np.newaxis], blobs.labels)] * 2)
    assert scores.tp + scores.fp > 0, "else there is nothing to count"
    assert scores.objects.right.sum() == scores.tp
    assert scores.objects.whole.sum() == scores.tp + scores.fp + scores.fn
    assert scores.objects.score == pytest.approx(scores.ap50)
    assert scores.pixels.score == pytest.approx(scores.iou)
    assert np.count_nonzero(scores.objects.whole) > 5
    assert "objects" not in scores.as_dict()
