"""A new model is taken only if it is better by more than luck, and the verdict says why."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from napari_unet.runs.evaluate import Scores
from napari_unet.runs.places import Tally
from napari_unet.runs.verdict import OldAtBest, compare
from napari_unet.settings import InstanceSettings


def scores(found, of, wrong=0, iou=0.7, places=25, **others) -> Scores:
    """Scores of a model whose objects and pixels lie evenly in the first or last places."""
    right, whole = np.zeros((places, 1)), np.zeros((places, 1))
    for number in range(of):
        whole[number % places] += 1
        right[number % places] += number < found
    for number in range(wrong):
        whole[-1 - number % places] += 1
    pixels = np.full((places, 1), 1000.0)
    total = found + (of - found) + wrong
    return Scores(
        iou=iou,
        dice=2 * iou / (1 + iou),
        ap50=found / total,
        mean_ap=others.get("mean_ap", 0.5),
        tp=found,
        fn=of - found,
        missed=of - found - others.get("merged", 0),
        fp=wrong,
        spurious=wrong,
        objects=Tally(right, whole),
        pixels=Tally(iou * pixels, pixels),
    )


def classes(iou, places=25) -> Scores:
    pixels = np.full((places, 2), 1000.0)
    return Scores(iou=iou, dice=iou, pixels=Tally(iou * pixels, pixels))


OLD = scores(33, 50, 5)


@pytest.mark.parametrize(
    ("before", "after", "outcome", "sentence"),
    [
        pytest.param(OLD, scores(43, 50, 2), "better", "43 of 50 objects found instead of 33, 7 "
                     "missed instead of 17, 2 spurious labels instead of 5. Chance alone would do "
                     "that once in", id="objects"),
        pytest.param(OLD, scores(34, 50, 4), "not better", "Not surely better", id="luck"),
        pytest.param(OLD, scores(34, 50, 4, iou=0.75), "better", "outlines that fit better",
                     id="perhaps one object more, and outlines"),
        pytest.param(OLD, scores(34, 50, 6, iou=0.75), "not better", "Not surely better",
                     id="one object and one wrong label more, and outlines"),
        pytest.param(scores(33, 50, 9), scores(32, 50, 5, iou=0.9), "not better", "Not surely",
                     id="an object fewer and fewer wrong labels, and outlines"),
        pytest.param(scores(33, 50, 5, places=9), scores(33, 50, 5, iou=0.75, places=9),
                     "not better", "0.75 instead", id="outlines of objects in a few places"),
        pytest.param(scores(3, 50, 5), scores(5, 50, 5, iou=0.9), "not better", "Not surely",
                     id="a few more where hardly an object is found, and outlines"),
        pytest.param(OLD, scores(34, 50, 5), "not better", "every second time", id="one object"),
        pytest.param(OLD, scores(30, 50, 2), "not better", "30 of 50 objects found", id="fewer"),
        pytest.param(OLD, scores(33, 50, 9, iou=0.9), "not better", "9 spurious", id="wrong"),
        pytest.param(OLD, OLD, "not better", "Not better on held-out labels", id="the same"),
        pytest.param(OLD, scores(45, 50, 2, iou=0.6), "not better", "but pixel IoU 0.60 instead "
                     "of 0.70", id="bad outlines"),
        pytest.param(OLD, scores(33, 50, 5, iou=0.75), "better", "outlines that fit better",
                     id="outlines"),
        pytest.param(scores(3, 50, 5), scores(3, 50, 5, iou=0.9), "not better", "0.90",
                     id="pixels agree where hardly an object is found"),
        pytest.param(OLD, scores(33, 50, 5, iou=0.705), "not better", "0.70", id="hardly better"),
        pytest.param(OLD, scores(33, 50, 5, iou=0.75, mean_ap=0.4), "not better", "0.75",
                     id="better in pixels and worse in outlines"),
        pytest.param(scores(0, 6, places=3), scores(6, 6, places=3), "cannot judge",
                     "mark one more region", id="too few places"),
        pytest.param(scores(0, 6, places=6), scores(6, 6, places=6), "better", "once in 64",
                     id="just enough places"),
        pytest.param(OLD, None, "cannot judge", "mark one more region", id="nothing held out"),
        pytest.param(classes(0.5), classes(0.6), "better", "IoU 0.60 instead", id="classes"),
        pytest.param(classes(0.5), classes(0.505), "not better", "IoU 0.5", id="hardly"),
        pytest.param(classes(0.5), classes(0.4), "not better", "IoU 0.40", id="worse classes"),
        pytest.param(classes(0.5, 3), classes(0.9, 3), "cannot judge", "mark one", id="few"),
    ],
)  # fmt: skip
def test_only_a_better_model_is_taken(before, after, outcome, sentence):
    verdict = compare(before, after)
    assert verdict.outcome == outcome
    assert sentence in verdict.text
    assert ("stays in use" in verdict.text) == (outcome != "better")
    assert ("region" in verdict.text) == (outcome != "better"), "what to do next"


def test_every_object_is_told_once_as_found_missed_or_in_a_merged_or_split_label():
    text = compare(scores(30, 50, 3, merged=20), scores(44, 50, 1, merged=4)).text
    assert "AP 0.86 instead of 0.57, 44 of 50" in text, "why more or fewer objects may be better"
    assert "44 of 50 objects found instead of 30, 2 missed instead of 0, " in text
    assert "4 merged or split instead of 20, 1 spurious label instead of 3" in text
    text = compare(scores(30, 50), scores(50, 50)).text
    assert "50 of 50 objects found instead of 30, 0 missed instead of 20. " in text
    assert "merged" not in text
    assert "spurious" not in text


def test_one_region_does_not_judge_whether_many_labels_are_one_object():
    """A model that learned from neighbours drawn as one was taken by their region alone."""
    parts, after = replace(scores(6, 20, 40), spurious=5), scores(18, 20, 2)
    assert compare(parts, after).outcome == "better"
    verdict = compare(parts, after, is_one_region=True)
    assert verdict.outcome == "cannot judge"
    assert "20 checked objects take the place of 41 labels of the old model" in verdict.text
    assert "set Object size" in verdict.text
    assert "check one more region" in verdict.text
    fewer = replace(parts, spurious=7)
    assert compare(fewer, after, is_one_region=True).outcome == "better"
    assert compare(classes(0.5), classes(0.6), is_one_region=True).outcome == "better"
    worse = scores(5, 20, 40)
    assert compare(parts, worse, is_one_region=True).outcome == "not better"


def test_a_gain_in_what_was_fitted_alone_is_told_as_that():
    """The numbers shown were all better, and the text said that they were not."""
    before, after = scores(10, 12, 1), scores(11, 12)
    fitted = replace(after, objects=before.objects)  # place by place nothing is gained
    verdict = compare(before, fitted)
    assert verdict.outcome == "not better"
    assert "Not surely better on held-out labels: AP 0.92 instead of 0.77" in verdict.text
    assert "was fitted on these labels" in verdict.text


def test_outlines_that_fit_better_in_half_of_the_places_only_are_luck():
    mixed = scores(33, 50, 5, iou=0.72)
    random = np.random.default_rng(0)
    mixed.pixels.right[:, 0] += random.permutation(np.repeat([130.0, -110.0], [13, 12]))
    assert mixed.pixels.score > OLD.iou + 0.01
    assert compare(OLD, mixed).outcome == "not better"


def test_the_numbers_of_the_verdict_can_be_reported():
    evidence = json.loads(json.dumps(compare(OLD, scores(43, 50, 2)).evidence))
    assert evidence.keys() == {"ap50", "iou"}
    found = evidence["ap50"]
    assert found["gain"] == pytest.approx(43 / 52 - 33 / 55)
    assert found["interval"][0] < found["gain"] < found["interval"][1]
    assert 0 < found["chance"] <= 1 / 30
    assert found["places"] == 25


def test_what_the_old_model_can_do_at_another_threshold_needs_no_new_one():
    new = scores(43, 50, 2)
    at_best = OldAtBest(scores(44, 50, 2), InstanceSettings(threshold=0.6, min_size=70))
    verdict = compare(OLD, new, old_at_best=at_best)
    assert verdict.outcome == "not better"
    assert "43 of 50 objects found instead of 44" in verdict.text
    assert "threshold 0.6, splits at 0.5 and drops labels below 70 px" in verdict.text
    assert "The old model stays in use. Set these under Segment" in verdict.text
    assert verdict.evidence == compare(OLD, new).evidence
    as_good = OldAtBest(new, InstanceSettings(threshold=0.6, min_size=70))
    assert compare(OLD, new, old_at_best=as_good) == compare(OLD, new)
    worse = scores(20, 50, 5)
    assert compare(OLD, worse, old_at_best=at_best) == compare(OLD, worse)


def test_no_gain_counts_where_the_labels_cannot_be_right():
    new = scores(43, 50, 2)
    verdict = compare(OLD, new, ["The labels around (y 5, x 6) are moved."])
    assert verdict.outcome == "cannot judge"
    assert "43 of 50 objects found" in verdict.text
    assert "labels cannot be trusted. The labels around (y 5, x 6) are moved." in verdict.text
    assert (
        "are moved. Look at these labels again, then retrain. The old model stays" in verdict.text
    )
    assert verdict.evidence == compare(OLD, new).evidence
    several = compare(OLD, new, ["One.", "Two.", "Three.", "Four."]).text
    assert "One. Two. (2 more regions.) Look at" in several
    verdict = compare(new, OLD, ["So it is."])
    assert verdict.outcome == "not better"
    assert verdict.text.endswith("But: So it is. Look at these labels again, then retrain.")
    assert compare(None, None).outcome == "cannot judge"
