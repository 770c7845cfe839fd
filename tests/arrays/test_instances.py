"""Objects from probabilities: what touches is split, what is small is not lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from napari_unet.arrays.instances import find_classes, find_instances
from napari_unet.arrays.metrics import evaluate
from napari_unet.arrays.targets import make_targets
from napari_unet.errors import ModelError
from napari_unet.settings import InstanceSettings

OUTPUTS = [("foreground", "distance"), ("foreground", "boundary"), ("foreground",)]
KEEP_ALL = InstanceSettings(min_size=0)


def discs(*centres_and_radii: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Discs or balls; a later one takes what an earlier one leaves."""
    labels = np.zeros(shape, np.int32)
    grid = np.indices(shape)
    for number, (*centre, radius) in enumerate(centres_and_radii, start=1):
        offset = grid - np.reshape(centre, (-1,) + (1,) * len(shape))
        labels[((offset**2).sum(axis=0) <= radius**2) & (labels == 0)] = number
    return labels


PAIR = discs((20, 18, 11), (20, 38, 11), shape=(40, 60))
TRIO_3D = discs((10, 12, 12, 7), (10, 12, 25, 7), (12, 30, 12, 6), shape=(22, 40, 40))


@pytest.mark.parametrize("outputs", OUTPUTS, ids=" ".join)
@pytest.mark.parametrize("truth", [PAIR, TRIO_3D], ids=["plane", "volume"])
def test_touching_objects_are_split_where_they_touch(outputs, truth):
    probability = make_targets(truth, outputs)
    found = find_instances(probability, outputs)
    assert found.dtype == np.int32
    assert sorted(np.unique(found)) == list(range(truth.max() + 1))
    assert evaluate(found, truth)["mean_ap"] > 0.85
    np.testing.assert_array_equal(found > 0, truth > 0)
    whole = find_instances(probability, outputs, InstanceSettings(split=False))
    assert whole.max() < truth.max()  # control: only splitting tells them apart
    np.testing.assert_array_equal(whole > 0, truth > 0)


@pytest.mark.parametrize("outputs", OUTPUTS, ids=" ".join)
def test_objects_of_any_size_are_found_side_by_side(outputs):
    truth = discs((4, 4, 1), (5, 14, 3), (30, 30, 20), (58, 60, 6), shape=(70, 70))
    found = find_instances(make_targets(truth, outputs), outputs, KEEP_ALL)
    assert evaluate(found, truth)["tp"] == 4
    assert found.max() == 4


@pytest.mark.parametrize("outputs", OUTPUTS, ids=" ".join)
def test_one_irregular_object_stays_one(outputs):
    rough = discs((20, 20, 14), shape=(40, 40))
    rough[20, 5:8] = rough[6:9, 21] = rough[33:36, 18] = 1  # a ragged edge
    assert find_instances(make_targets(rough, outputs), outputs).max() == 1


def test_an_object_the_network_gave_no_middle_is_not_lost():
    foreground = discs((10, 10, 6), (10, 40, 6), shape=(20, 50)).astype(np.float32)
    distance = np.where(np.arange(50) > 25, foreground / 2, 0.2 * foreground)
    found = find_instances(np.stack([foreground, distance]), ("foreground", "distance"))
    assert found.max() == 2


@pytest.mark.parametrize(("dent", "objects"), [(0.6, 1), (0.7, 2)])
def test_a_second_seed_cuts_an_object_only_if_it_is_marked(dent, objects):
    foreground, distance = make_targets(discs((15, 15, 12), shape=(30, 30)), OUTPUTS[0])
    distance[13:18, 4:7] = dent  # at the edge, where the depth is little
    assert find_instances(np.stack([foreground, distance]), OUTPUTS[0]).max() == objects


def test_objects_smaller_than_the_limit_are_dropped_and_the_rest_numbered_anew():
    truth = discs((5, 5, 1), (8, 20, 4), (8, 35, 2), (25, 25, 6), shape=(40, 45))
    probability = make_targets(truth, ("foreground",))
    sizes = np.bincount(truth.ravel())[1:]
    for limit in (0, 5, 6, 14, 50, 10_000):
        found = find_instances(probability, ("foreground",), InstanceSettings(min_size=limit))
        kept = np.sort(np.bincount(found.ravel())[1:])
        np.testing.assert_array_equal(kept, np.sort(sizes[sizes >= limit]))


@settings(max_examples=40, deadline=None)
@given(
    arrays(np.float32, (2, 12, 15), elements=st.floats(0, 1, width=32)),
    st.sampled_from([0.1, 0.3, 0.5, 0.8]),
)
def test_labels_cover_exactly_the_pixels_above_the_threshold(probability, threshold):
    chosen = InstanceSettings(threshold=threshold, min_size=0)
    for outputs in OUTPUTS:
        found = find_instances(probability[: len(outputs)], outputs, chosen)
        np.testing.assert_array_equal(found > 0, probability[0] > threshold)
        ids = np.unique(found[found > 0])
        np.testing.assert_array_equal(ids, np.arange(1, len(ids) + 1))
        for value in ids:
            assert ndimage.label(found == value)[1] == 1


@pytest.mark.parametrize("outputs", OUTPUTS, ids=" ".join)
@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (1, 1, 1), (5, 1, 9)])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_tiny_empty_and_full_images_work(outputs, shape, value):
    probability = np.full((len(outputs), *shape), value, np.float32)
    found = find_instances(probability, outputs, KEEP_ALL)
    assert found.shape == shape
    assert found.max() == value


def test_without_a_foreground_output_all_but_the_background_is_foreground():
    labels = PAIR > 0
    softmax = np.stack([1 - 0.8 * labels, 0.3 * labels, 0.5 * labels])
    found = find_instances(softmax, ("background", "a", "b"), InstanceSettings(split=False))
    np.testing.assert_array_equal(found > 0, labels)
    alone = find_instances(labels[None].astype(float), ("membrane",), InstanceSettings(split=False))
    np.testing.assert_array_equal(alone, found)


def test_maps_that_are_not_those_of_the_card_are_refused():
    with pytest.raises(ModelError, match="gave 1 maps, its card names 2"):
        find_instances(np.zeros((1, 4, 4)), ("foreground", "distance"))


def test_classes_are_the_most_probable_and_a_single_map_is_class_one():
    probability = np.array([[[0.6, 0.2, 0.1]], [[0.3, 0.5, 0.2]], [[0.1, 0.3, 0.7]]])
    np.testing.assert_array_equal(find_classes(probability, "softmax"), [[0, 1, 2]])
    np.testing.assert_array_equal(find_classes(probability[:1], "sigmoid"), [[1, 0, 0]])
    with pytest.raises(ModelError, match="two classes"):
        find_classes(probability[:1], "softmax")


def test_holes_are_filled_only_if_asked_for():
    probability = np.zeros((1, 20, 20), np.float32)
    probability[0, 3:15, 3:15] = 1
    probability[0, 7:9, 7:9] = 0
    kept, filled = (
        find_instances(probability, ("foreground",), InstanceSettings(fill_holes=fill))
        for fill in (False, True)
    )
    assert not kept[7:9, 7:9].any()
    assert filled[7:9, 7:9].all()
