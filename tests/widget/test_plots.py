"""The learning curve: what it paints, and where."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.widget.plots import SCORE_COLOR, LearningCurve, smoothed


@pytest.fixture
def curve(qtbot) -> LearningCurve:
    widget = LearningCurve()
    qtbot.addWidget(widget)
    widget.resize(300, 130)
    return widget


def blue_rows(curve: LearningCurve) -> np.ndarray:
    """Return how many bluish pixels there are in each row of the frame, from 0 to 1."""
    image = curve.grab().toImage()
    wanted = np.array(SCORE_COLOR.getRgb()[:3])
    rows = []
    for y in range(22, image.height() - 22):
        colours = [image.pixelColor(x, y).getRgb()[:3] for x in range(8, image.width() - 8)]
        near = np.abs(np.array(colours) - wanted).max(axis=1) < 90
        rows.append(int(near.sum()))
    return np.array(rows)


def test_the_dashes_stand_where_the_model_before_stands_not_at_the_first_point(curve):
    curve.begin(0.25)
    curve.add(0.1, 0.5, 0.75)
    curve.add(1.0, 0.4, 0.75)
    rows = blue_rows(curve)
    heights = 1 - np.nonzero(rows > 40)[0] / len(rows)
    assert heights.min() == pytest.approx(0.25, abs=0.06)
    assert heights.max() == pytest.approx(0.75, abs=0.06)


def test_it_ends_with_the_score_of_what_came_out(curve):
    curve.add(0.1, 0.5, 0.5)
    curve.add(0.8, 0.4, None)
    curve.end(0.75)
    assert curve.score == [(0.1, 0.5), (0.8, 0.75)]
    rows = blue_rows(curve)
    highest = 1 - np.nonzero(rows)[0].min() / len(rows)
    assert highest == pytest.approx(0.75, abs=0.06)


def test_without_a_score_before_there_are_no_dashes(curve):
    curve.add(0.1, 0.5, None)
    assert not (blue_rows(curve) > 5).any()


def test_the_next_training_begins_with_an_empty_curve(curve):
    curve.begin(0.25)
    curve.add(0.1, 0.5, 0.75)
    curve.clear()
    assert (curve.before, curve.loss, curve.score) == (None, [], [])


def test_the_mean_over_the_last_points_hides_what_single_crops_do():
    points = [(at / 20, at % 2) for at in range(20)]
    assert [value for _, value in smoothed(points)][8:] == [0.5] * 12
