"""What one labelling finds otherwise than another."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.arrays.differences import (
    ADDED,
    CHANGED,
    GONE,
    compare_classes,
    compare_objects,
)
from napari_unet.errors import LabelsError


def labels_with(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    labels = np.zeros((40, 60), np.int32)
    for number, (y0, x0, y1, x1) in enumerate(boxes, start=1):
        labels[y0:y1, x0:x1] = number
    return labels


def test_equal_labels_under_other_numbers_do_not_differ() -> None:
    labels = labels_with((2, 2, 10, 10), (20, 20, 30, 30))
    found = compare_objects(labels, np.where(labels > 0, 7 - labels, 0))
    assert not found.classes.any()
    assert (found.added, found.gone, found.changed) == (0, 0, 0)


def test_objects_that_came_and_went_are_told_apart() -> None:
    old = labels_with((2, 2, 10, 10), (20, 20, 30, 30))
    new = labels_with((2, 2, 10, 10), (20, 40, 30, 50))
    found = compare_objects(old, new)
    assert (found.added, found.gone, found.changed) == (1, 1, 0)
    assert (found.classes[new == 2] == ADDED).all()
    assert (found.classes[old == 2] == GONE).all()
    assert not found.classes[old == 1].any()


@pytest.mark.parametrize("is_merged", [True, False])
def test_objects_merged_or_split_are_one_change(is_merged: bool) -> None:
    one = labels_with((5, 5, 15, 35))
    three = labels_with((5, 5, 15, 15), (5, 15, 15, 25), (5, 25, 15, 35))
    found = compare_objects(*((three, one) if is_merged else (one, three)))
    assert (found.added, found.gone, found.changed) == (0, 0, 1)
    assert (found.classes[one > 0] == CHANGED).all()


def test_a_slightly_other_outline_is_no_difference() -> None:
    found = compare_objects(labels_with((5, 5, 25, 25)), labels_with((5, 5, 25, 27)))
    assert not found.classes.any()


def test_classes_are_compared_pixel_by_pixel() -> None:
    old, new = np.zeros((6, 6), np.int32), np.zeros((6, 6), np.int32)
    old[0, :4], new[0, 1:5] = 1, 2
    found = compare_classes(old, new)
    assert found.classes[0].tolist() == [GONE, CHANGED, CHANGED, CHANGED, ADDED, 0]
    assert (found.added, found.gone, found.changed) == (1, 1, 1)


@pytest.mark.parametrize("compare", [compare_objects, compare_classes])
def test_labels_of_two_images_are_not_compared(compare) -> None:
    with pytest.raises(LabelsError, match="shape"):
        compare(np.zeros((4, 4), int), np.zeros((4, 5), int))


def test_nothing_in_either_is_no_difference() -> None:
    empty = np.zeros((8, 8), np.int32)
    assert compare_objects(empty, empty).added == 0
