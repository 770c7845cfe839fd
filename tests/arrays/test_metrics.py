"""Scores against hand-made cases, brute force and scikit-image."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.metrics import adapted_rand_error

from napari_unet.arrays.metrics import IOU_STEPS, evaluate, match_objects, pooled
from napari_unet.errors import LabelsError

SMALL = arrays(np.int32, (6, 7), elements=st.integers(0, 4))


def boxes(*corners: tuple[int, int, int, int], shape: tuple[int, int] = (40, 60)) -> np.ndarray:
    """Boxes y0, y1, x0, x1, numbered from 1."""
    labels = np.zeros(shape, np.int32)
    for number, (y0, y1, x0, x1) in enumerate(corners, start=1):
        labels[y0:y1, x0:x1] = number
    return labels


def brute_force_tp(labels: np.ndarray, truth: np.ndarray, iou: float) -> int:
    """Most objects that can be matched, over every assignment."""
    rows = [labels == value for value in np.unique(labels[labels > 0])]
    columns = [truth == value for value in np.unique(truth[truth > 0])]
    good = np.array(
        [[(a & b).sum() / (a | b).sum() >= iou - 1e-12 for b in columns] for a in rows], bool
    ).reshape(len(rows), len(columns))
    if len(rows) > len(columns):
        good = good.T
    few, many = good.shape
    orders = itertools.permutations(range(many), few)
    return max(sum(good[i, j] for i, j in enumerate(order)) for order in orders)


TRUTH = boxes((2, 12, 2, 12), (2, 12, 14, 24), (2, 12, 24, 34), (20, 36, 2, 22), (20, 30, 40, 50))


def test_labels_equal_to_the_truth_have_the_best_of_every_score():
    scores = evaluate(TRUTH, TRUTH)
    assert {scores[name] for name in ("ap50", "mean_ap", "f1", "iou", "dice")} == {1.0}
    assert scores["tp"] == 5
    assert not any(scores[n] for n in ("are", "fp", "fn", "missed", "spurious", "merged", "split"))


def test_each_kind_of_mistake_is_counted_as_what_a_person_sees():
    labels = boxes(
        (2, 12, 2, 12),  # found
        (2, 12, 14, 34),  # two objects in one label
        (20, 36, 2, 12),  # one object in two labels
        (20, 36, 12, 22),
        (33, 38, 50, 58),  # nothing there; and the last object has no label
    )
    found = match_objects(labels, TRUTH)
    assert (found.merged, found.split, found.missed, found.spurious) == (1, 1, 1, 1)
    # each half of a split or merged object has an IoU of exactly 1/2: one of two is a match
    assert (found.tp, found.fp, found.fn) == (3, 2, 2)
    assert (1, 1) in found.pairs
    strict = match_objects(labels, TRUTH, iou=0.51)
    assert (strict.tp, strict.fp, strict.fn) == (1, 4, 4)
    assert (strict.merged, strict.split, strict.missed, strict.spurious) == (1, 1, 1, 1)


def test_ap_is_that_of_the_data_science_bowl():
    labels = boxes((2, 12, 2, 12), (2, 12, 14, 20), (20, 24, 50, 58))
    scores = evaluate(labels, TRUTH)
    assert (scores["tp"], scores["fp"], scores["fn"]) == (2, 1, 3)
    assert scores["ap50"] == pytest.approx(2 / 6)
    assert scores["f1"] == pytest.approx(4 / 8)
    # the second object has an IoU of 0.6: it counts at 0.5, 0.55 and 0.6
    assert scores["mean_ap"] == pytest.approx((3 * 2 / 6 + 7 * 1 / 7) / 10)
    both, all_labels, all_truth = 100 + 60, 100 + 60 + 32, 3 * 100 + 320 + 100
    assert scores["iou"] == pytest.approx(both / (all_labels + all_truth - both))
    assert scores["dice"] == pytest.approx(2 * both / (all_labels + all_truth))


@pytest.mark.parametrize(
    ("labels", "truth", "ap", "iou"),
    [
        (boxes(), boxes(), 1, 1),
        (TRUTH, boxes(), 0, 0),
        (boxes(), TRUTH, 0, 0),
    ],
    ids=["both empty", "only spurious", "all missed"],
)
def test_empty_images_have_a_score(labels, truth, ap, iou):
    scores = evaluate(labels, truth)
    assert scores["ap50"] == scores["mean_ap"] == scores["f1"] == ap
    assert scores["iou"] == scores["dice"] == iou
    assert scores["missed"] == truth.max()
    assert scores["spurious"] == labels.max()


@settings(max_examples=60, deadline=None)
@given(SMALL, SMALL)
def test_matches_are_as_many_as_brute_force_finds(labels, truth):
    for iou in (0.2, 0.5, 0.75):  # below 0.5 an object can have several partners
        found = match_objects(labels, truth, iou)
        assert found.tp == brute_force_tp(labels, truth, iou)
        assert found.tp + found.fp == len(np.unique(labels[labels > 0]))
        assert found.tp + found.fn == len(np.unique(truth[truth > 0]))
        assert found.missed <= found.fn
        assert found.spurious <= found.fp
        for label, true in found.pairs:
            a, b = labels == label, truth == true
            assert (a & b).sum() / (a | b).sum() >= iou


@settings(max_examples=40, deadline=None)
@given(SMALL, SMALL, st.randoms(use_true_random=False))
def test_scores_do_not_depend_on_the_numbers_of_the_labels(labels, truth, random):
    ids = random.sample(range(1, 60_000), 4)
    renumbered = np.array([0, *ids])[labels]
    assert evaluate(renumbered, truth) == pytest.approx(evaluate(labels, truth))
    assert evaluate(labels, np.array([0, *ids])[truth]) == pytest.approx(evaluate(labels, truth))


@settings(max_examples=40, deadline=None)
@given(SMALL, SMALL)
def test_swapping_labels_and_truth_swaps_the_kinds_of_mistake(labels, truth):
    one, other = match_objects(labels, truth), match_objects(truth, labels)
    assert (one.tp, one.fp, one.missed, one.merged) == (
        other.tp,
        other.fn,
        other.spurious,
        other.split,
    )


@settings(max_examples=60, deadline=None)
@given(SMALL, SMALL)
def test_the_adapted_rand_error_is_that_of_scikit_image(labels, truth):
    with np.errstate(invalid="ignore"):  # without two pixels in one object it divides 0 by 0
        expected = adapted_rand_error(truth, labels)[0]
    assume(np.isfinite(expected))
    assert evaluate(labels, truth)["are"] == pytest.approx(expected)


def test_what_lies_outside_the_labelled_area_has_no_influence():
    labelled = np.zeros(TRUTH.shape, bool)
    labelled[:16, :36] = True
    labels = boxes((2, 12, 2, 12), (2, 12, 14, 34))
    inside = evaluate(labels, TRUTH, labelled)
    # the second label holds two objects; with an IoU of exactly 1/2 it is one's match
    assert [inside[name] for name in ("tp", "fp", "fn", "merged")] == [2, 0, 1, 1]
    noise = np.where(labelled, labels, 1 + np.arange(TRUTH.size).reshape(TRUTH.shape))
    assert evaluate(noise, TRUTH, labelled) == inside
    assert evaluate(labels, np.where(labelled, TRUTH, 0), labelled) == inside
    assert evaluate(noise, TRUTH) != inside  # control


def test_a_label_that_runs_on_beyond_the_area_is_no_match_for_an_object_that_ends_there():
    labelled = np.zeros((40, 60), bool)
    labelled[:, :30] = True
    truth = boxes((5, 15, 15, 25))
    runs_on = boxes((5, 15, 15, 45))
    scores = evaluate(runs_on, truth, labelled)
    assert (scores["tp"], scores["fn"]) == (0, 1), "a third of the label is the object"
    a_little = evaluate(boxes((5, 15, 15, 33)), truth, labelled)
    assert (a_little["tp"], a_little["fn"]) == (1, 0)
    goes_on, more = boxes((5, 15, 15, 32)), boxes((5, 15, 15, 45))
    assert evaluate(more, goes_on, labelled)["tp"] == 1, "nobody knows where that object ends"
    beside = boxes((5, 15, 15, 30))
    assert evaluate(more, beside, labelled)["tp"] == 1, "nor where one that touches the end does"
    at_the_edge = np.zeros((40, 30), int)
    at_the_edge[5:15, 15:30] = 1
    assert evaluate(at_the_edge, at_the_edge, np.ones((40, 30), bool))["tp"] == 1


def test_the_sliver_of_an_object_at_the_edge_of_the_area_counts_neither_way():
    labelled = np.zeros((40, 60), bool)
    labelled[:, :30] = True
    sliver = boxes((5, 15, 28, 40))
    for labels, truth in [(sliver, boxes()), (boxes(), sliver)]:
        scores = evaluate(labels, truth, labelled)
        assert (scores["tp"], scores["fp"], scores["fn"]) == (0, 0, 0)
    assert evaluate(sliver, sliver, labelled)["tp"] == 1
    mostly_inside = boxes((5, 15, 20, 34))
    assert evaluate(mostly_inside, boxes(), labelled)["spurious"] == 1


def test_pooled_counts_every_object_once_not_every_image():
    crowded = evaluate(TRUTH, TRUTH)
    poor = evaluate(boxes((20, 24, 50, 58)), boxes((0, 4, 0, 4)))
    together = pooled([crowded, poor])
    assert together["ap50"] == pytest.approx(5 / 7)
    assert together["f1"] == pytest.approx(10 / 12)
    assert together["tp"] == 5
    assert together["mean_ap"] == pytest.approx(5 / 7)
    assert together["iou"] == pytest.approx(5 / 7)
    assert pooled([crowded]) == pytest.approx(crowded)
    empty = evaluate(boxes(), boxes())
    assert pooled([empty, empty]) == pytest.approx(empty)
    with pytest.raises(LabelsError, match="at least one"):
        pooled([])


def test_volumes_are_judged_too_and_other_shapes_refused():
    volume = np.stack([TRUTH, TRUTH])
    assert evaluate(volume, volume)["tp"] == 5
    with pytest.raises(LabelsError, match=r"\(2, 40, 60\)"):
        match_objects(TRUTH, volume)
    with pytest.raises(LabelsError, match="known in an area"):
        evaluate(TRUTH, TRUTH, np.ones((2, 2), bool))


def test_the_steps_of_the_mean_are_those_of_the_bowl():
    assert IOU_STEPS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


def test_labels_where_there_is_no_object_are_all_wrong_and_two_empty_ones_agree():
    empty, labels = np.zeros((8, 9), int), np.pad(np.ones((3, 3), int), ((2, 3), (2, 4)))
    wrong = evaluate(labels, empty)
    assert {wrong[name] for name in ("ap50", "mean_ap", "f1", "iou", "dice")} == {0}
    assert wrong["are"] == 1
    agreed = evaluate(empty, empty)
    assert {agreed[name] for name in ("ap50", "mean_ap", "f1", "iou", "dice")} == {1}
    assert agreed["are"] == 0
    inside = evaluate(labels, empty, labelled=labels == 0)
    assert inside["are"] == 0, "what lies outside the known area is not judged"
    assert pooled([wrong, evaluate(labels, labels)])["are"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (None, "labels are None"),
        (np.full((3, 3), -1), "hold -1; 0 and above"),
        ([[1], [1, 2]], "cannot be read as an array"),
        (np.ones(3, int), "an ndarray, an array of whole numbers"),
    ],
)
def test_what_are_no_labels_is_told(labels, sentence):
    with pytest.raises(LabelsError, match=sentence):
        evaluate(labels, np.ones((3, 3), int))
