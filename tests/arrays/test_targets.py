"""Targets against what one would draw by hand, and the paper's weight map against its equation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_unet.arrays.targets import make_targets, separation_weights
from napari_unet.errors import LabelsError

ROW = np.array([[0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 0]])


def two_squares(gap: int) -> np.ndarray:
    labels = np.zeros((30, 50), np.int32)
    labels[10:20, 8:20] = 1
    labels[10:20, 20 + gap : 32 + gap] = 7
    return labels


def two_boxes() -> np.ndarray:
    labels = np.zeros((12, 14, 20), np.uint16)
    labels[3:9, 3:11, 2:10] = 4
    labels[3:9, 3:11, 10:18] = 2
    return labels


def slow_weights(labels: np.ndarray, w0: float, sigma: float) -> np.ndarray:
    """Equation 2 of the paper, one whole distance map per object."""
    maps = [
        ndimage.distance_transform_edt(labels != value) for value in np.unique(labels[labels > 0])
    ]
    first, second = np.sort(np.stack(maps), axis=0)[:2]
    return 1 + w0 * np.exp(-((first + second) ** 2) / (2 * sigma**2))


def test_the_drawing_in_the_module_is_what_the_code_gives():
    labels = np.repeat(ROW, 41, axis=0)  # tall, so that only left and right count in the middle
    foreground, boundary, distance = make_targets(labels, ("foreground", "boundary", "distance"))
    np.testing.assert_array_equal(foreground[20], [0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0])
    np.testing.assert_array_equal(boundary[20], [0, 1, 1, 0, 0, 0, 1, 1, 0, 1, 1])
    expected = [0, 0, 1 / 3, 2 / 3, 1, 2 / 3, 1 / 3, 1 / 2, 1, 1 / 2, 0]
    np.testing.assert_allclose(distance[20], expected, rtol=1e-6)


@pytest.mark.parametrize("labels", [two_squares(0), two_boxes()], ids=["plane", "volume"])
def test_each_of_two_touching_objects_has_depth_one_inside_and_a_valley_between(labels):
    foreground, distance = make_targets(labels, ("foreground", "distance"))
    assert foreground.dtype == distance.dtype == np.float32
    assert foreground.shape == labels.shape
    assert distance.min() == 0
    assert ndimage.label(foreground)[1] == 1  # control: the foreground alone cannot tell them
    assert ndimage.label(distance > 0.5)[1] == 2
    for value in np.unique(labels[labels > 0]):
        assert distance[labels == value].max() == 1
    assert not distance[labels == 0].any()


def test_small_and_large_objects_have_the_same_greatest_depth():
    labels = np.zeros((80, 80), np.int32)
    labels[2:4, 2:4] = 1
    labels[70, 70] = 2
    labels[10:60, 10:60] = 3
    (distance,) = make_targets(labels, ("distance",))
    assert [distance[labels == value].max() for value in (1, 2, 3)] == [1, 1, 1]


def test_an_object_cut_by_the_image_border_is_deepest_at_the_border():
    labels = np.zeros((21, 21), np.int32)
    labels[5:16, :8] = 1
    (distance,) = make_targets(labels, ("distance",))
    assert distance[10, 0] == 1
    assert distance[10, 7] < 0.3


@pytest.mark.parametrize("value", [0, 5])
def test_an_image_that_is_all_one_thing_has_finite_targets(value):
    labels = np.full((6, 7), value)
    targets = make_targets(labels, ("foreground", "boundary", "distance"))
    np.testing.assert_array_equal(targets[0], targets[2])
    np.testing.assert_array_equal(targets[0], value > 0)
    assert not targets[1].any()


def test_other_names_are_classes_by_their_position():
    labels = np.array([[0, 1, 2], [2, 2, 0]])
    targets = make_targets(labels, ("background", "cytoplasm", "nucleus"))
    np.testing.assert_array_equal(targets.argmax(axis=0), labels)
    np.testing.assert_array_equal(targets.sum(axis=0), 1)


@pytest.mark.parametrize("gap", [0, 1, 3, 9])
def test_separation_weights_are_those_of_the_equation(gap):
    labels = two_squares(gap)
    labels[25:28, 3:6] = 9
    for w0, sigma in [(10.0, 5.0), (4.0, 2.0)]:
        fast = separation_weights(labels, w0, sigma)
        np.testing.assert_allclose(fast, slow_weights(labels, w0, sigma), atol=2e-6 * w0)


def test_separation_weights_are_those_of_the_equation_in_a_volume():
    labels = two_boxes()
    np.testing.assert_allclose(
        separation_weights(labels, sigma_px=2), slow_weights(labels, 10, 2), atol=2e-5
    )


def test_the_narrow_gap_weighs_most_and_a_lone_object_adds_nothing():
    labels = two_squares(2)
    weights = separation_weights(labels)
    assert weights[15, 20:22].min() > 8
    assert weights[15, 20:22].min() > 5 * weights[2, 2]
    np.testing.assert_array_equal(separation_weights((labels == 7).astype(int)), 1)
    np.testing.assert_array_equal(separation_weights(np.zeros((4, 4), int)), 1)


def test_balanced_weights_give_objects_and_background_the_same_sum():
    labels = two_squares(0)
    weights = separation_weights(labels, w0=0, balance=True)
    assert weights[labels > 0].sum() == pytest.approx(weights[labels == 0].sum(), rel=1e-4)
    assert weights.mean() == pytest.approx(1, rel=1e-4)
    np.testing.assert_array_equal(separation_weights(np.ones((3, 3), int), 0, balance=True), 1)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.zeros(5, int), "shape"),
        (np.zeros((4, 4)), "float64"),
        (np.array([[0, -1]]), "-1"),
    ],
    ids=["a line", "not whole numbers", "negative"],
)
def test_what_cannot_be_labels_is_refused(labels, words):
    for function in (separation_weights, lambda given: make_targets(given, ("foreground",))):
        with pytest.raises(LabelsError, match=words):
            function(labels)
