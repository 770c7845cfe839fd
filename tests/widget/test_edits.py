"""A correction is what differs from the prediction; painting alone only marks where to look."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Labels

from napari_unet.widget.edits import Edits

pytestmark = pytest.mark.usefixtures("qapp")


def layer_with_two_objects() -> Labels:
    """Make a labels layer with two squares."""
    data = np.zeros((40, 60), np.int32)
    data[5:15, 5:15], data[5:15, 30:40] = 1, 2
    return Labels(data)


def test_a_stroke_is_touched_and_counted_once() -> None:
    layer = layer_with_two_objects()
    edits = Edits(layer)
    layer.brush_size = 5
    layer.paint((30, 30), 3)
    assert edits.any()
    assert edits.count == 1
    np.testing.assert_array_equal(edits.touched, layer.data == 3)
    np.testing.assert_array_equal(edits.changed(()), layer.data == 3)


def test_undo_takes_the_correction_back_and_redo_brings_it_again(qtbot) -> None:
    layer = layer_with_two_objects()
    edits = Edits(layer)
    layer.paint((30, 30), 3)
    qtbot.waitUntil(lambda: edits.count == 1)
    painted = edits.touched.copy()
    layer.undo()
    qtbot.waitUntil(lambda: edits.count == 0)
    assert not edits.changed(()).any()
    assert not edits.touched.any(), "nobody has looked at what was undone"
    assert edits.touched_planes() == set()
    layer.redo()
    qtbot.waitUntil(lambda: edits.count == 1)
    np.testing.assert_array_equal(edits.touched, painted)


def test_of_two_strokes_over_each_other_the_first_stands_when_the_second_is_undone() -> None:
    layer = layer_with_two_objects()
    edits = Edits(layer)
    layer.brush_size = 6
    layer.paint((30, 30), 3)
    first = edits.touched.copy()
    layer.paint((30, 33), 4)
    layer.undo()
    np.testing.assert_array_equal(edits.touched, first)
    layer.undo()
    assert not edits.touched.any()
    layer.redo()
    layer.redo()
    assert edits.touched.sum() > first.sum()
    layer.undo()
    layer.paint((10, 50), 5)
    layer.undo()
    np.testing.assert_array_equal(edits.touched, first)


def test_erasing_by_hand_what_was_painted_stays_looked_at() -> None:
    layer = layer_with_two_objects()
    edits = Edits(layer)
    layer.brush_size = 6
    layer.paint((30, 30), 3)
    layer.paint((30, 30), 0)
    assert not edits.any()
    assert edits.touched.any()


def test_a_whole_object_deleted_and_brought_back_is_not_looked_at() -> None:
    layer = layer_with_two_objects()
    edits = Edits(layer)
    layer.data_setitem(np.nonzero(layer.data == 2), 0)
    assert edits.touched.sum() == 100
    layer.undo()
    assert not edits.touched.any()


def test_strokes_are_undone_in_their_plane_only() -> None:
    layer = Labels(np.zeros((3, 20, 20), np.int32))
    edits = Edits(layer)
    layer.paint((0, 5, 5), 1)
    layer.paint((2, 5, 5), 1)
    layer.undo()
    assert edits.touched_planes() == {(0,)}
    assert not edits.touched[2].any()
    assert edits.touched[0].any()


def test_painting_what_is_there_already_confirms_and_changes_nothing() -> None:
    layer = layer_with_two_objects()
    edits = Edits(layer)
    layer.brush_size = 3
    layer.paint((10, 10), 1)
    assert not edits.any()
    layer.paint((5, 15), 1)
    assert edits.any()


def test_deleting_altering_and_adding_count_one_object_each() -> None:
    layer = layer_with_two_objects()
    edits = Edits(layer)
    layer.fill((10, 10), 0)
    layer.paint((15, 35), 2)
    layer.paint((30, 50), 9)
    assert edits.any()
    assert edits.count == 3


def test_edits_are_counted_in_the_plane_they_were_made_in() -> None:
    layer = Labels(np.zeros((4, 30, 30), np.int32))
    edits = Edits(layer)
    layer.paint((2, 10, 10), 1)
    layer.data_setitem((np.array([3, 3]), np.array([1, 2]), np.array([1, 2])), 5)
    assert edits.touched_planes() == {(2,), (3,)}
    assert edits.any()
    assert edits.count == 2
    assert edits.changed((2,)).sum() > 0
    assert not edits.changed((0,)).any()


def test_other_data_put_into_the_layer_is_all_a_correction() -> None:
    layer = layer_with_two_objects()
    edits = Edits(layer)
    layer.data = np.roll(layer.data, 3)
    assert edits.any()
    assert edits.touched_planes() == set(), "nobody vouched for what a script put there"
    layer.data = np.zeros((10, 10), np.int32)
    assert edits.any()


def test_a_new_start_takes_the_present_labels_as_uncorrected() -> None:
    layer = layer_with_two_objects()
    edits = Edits(layer)
    layer.paint((30, 30), 3)
    edits.restart()
    assert not edits.any()
    assert not edits.touched.any()
    edits.close()
    layer.paint((20, 50), 4)
    assert not edits.touched.any()


def test_strokes_of_an_earlier_time_go_on_and_changes_since_are_found() -> None:
    layer = Labels(np.zeros((4, 30, 30), np.int32))
    first = Edits(layer)
    layer.paint((2, 10, 10), 1)
    first.close()
    layer.paint((3, 20, 20), 2)
    again = Edits(layer, first.base)
    again.resume(first.touched)
    assert again.count == 2
    assert again.touched_planes() == {(2,)}
    assert again.changed((3,)).any()
