"""The picture shows what the numbers say."""

from __future__ import annotations

import numpy as np

from napari_unet.runs.picture import (
    FOUND,
    MISSED,
    WRONG,
    draw_boxes,
    draw_corrected,
    draw_judged,
    grey_picture,
    lay_out,
)


def outlined(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Tell where the full colour stands: on outlines."""
    return np.all(picture == colour, axis=-1)


def test_found_wrong_and_missed_objects_have_their_colours() -> None:
    truth = np.zeros((60, 90), np.int32)
    truth[5:20, 5:20] = 1
    truth[5:20, 40:55] = 2
    labels = np.zeros_like(truth)
    labels[6:20, 5:20] = 7
    labels[40:55, 60:75] = 8
    picture = draw_judged(np.random.default_rng(0).random(truth.shape), labels, truth)
    found, wrong, missed = (outlined(picture, colour) for colour in (FOUND, WRONG, MISSED))
    assert found.any()
    assert not found[labels != 7].any()
    assert wrong.any()
    assert not wrong[labels != 8].any()
    assert missed.any()
    assert not missed[truth != 2].any()


def test_the_image_stays_visible_under_the_labels() -> None:
    image = np.tile(np.arange(64.0), (64, 1))
    labels = np.ones((64, 64), np.int32)
    inside = draw_judged(image, labels, labels)[10:50, 10:50].sum(-1).astype(int)
    assert np.all(np.diff(inside, axis=1) >= 0)
    assert inside[:, -1].min() > inside[:, 0].max() + 100


def test_corrections_are_shown_inside_the_boxes_only() -> None:
    image = np.random.default_rng(0).random((64, 64))
    labels = np.zeros((64, 64), np.int32)
    labels[10:20, 10:20], labels[40:50, 40:50] = 1, 2
    picture = draw_corrected(image, labels, [(5, 5, 30, 30)])
    is_coloured = np.ptp(picture.astype(int), axis=-1) > 0
    assert is_coloured[10:20, 10:20].all()
    assert not is_coloured[30:].any()


def test_a_constant_image_and_boxes_at_the_border_can_be_drawn() -> None:
    picture = draw_boxes(grey_picture(np.full((40, 50), 7)), [(0, 0, 40, 50)])
    assert picture.shape == (40, 50, 3)
    assert np.all(picture[0, :] == 255)


def test_panels_stand_side_by_side_unscaled() -> None:
    colours = (200, 30, 60), (10, 120, 200)
    panels = [np.full((40, 50, 3), colour, np.uint8) for colour in colours]
    sheet = lay_out([(panel, "Title", "line") for panel in panels])
    for colour in colours:
        ys, xs = np.nonzero(outlined(sheet, colour))
        assert (len(ys), np.ptp(ys), np.ptp(xs)) == (40 * 50, 39, 49)
