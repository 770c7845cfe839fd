"""Labels appear while a run computes, and are gone again if it does not end well."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.widget.view import camera_of, shown_region
from tests.widget.fake_engine import find, run_segment, segmented, squares

LEFT, RIGHT = ((0, 64), (0, 40)), ((0, 64), (40, 80))


def test_labels_appear_part_by_part_in_a_layer_that_stays(dock, tmp_path) -> None:
    viewer, truth = dock.session.viewer, squares((5, 5), (30, 60))
    dock.segment_panel.run()
    assert "cells labels" not in viewer.layers
    dock.engine.last.show(truth, LEFT, tmp_path / "labels.npy")
    layer = viewer.layers["cells labels"]
    np.testing.assert_array_equal(layer.data[:, :40], truth[:, :40])
    assert not layer.data[:, 40:].any()
    assert not layer.editable, "nobody paints into what is still being written"
    assert dock.session.labels is None, "unfinished labels cannot be exported"
    dock.engine.last.show(truth, RIGHT, tmp_path / "labels.npy")
    dock.engine.last.answer(**segmented(truth))
    assert viewer.layers["cells labels"] is layer
    assert layer.editable
    assert dock.session.labels is layer
    np.testing.assert_array_equal(layer.data, truth)
    assert dock.session.annotation(layer).is_unedited


def test_cancel_takes_a_half_made_layer_away(dock, tmp_path) -> None:
    dock.segment_panel.run()
    dock.engine.last.show(squares((5, 5)), LEFT, tmp_path / "labels.npy")
    dock.engine.last.cancel()
    assert [layer.name for layer in dock.session.viewer.layers] == ["cells"]
    assert dock.session.live is None


@pytest.mark.parametrize("how", ["cancel", "fail"])
def test_a_run_that_does_not_end_well_leaves_the_older_labels(dock, tmp_path, how) -> None:
    before = squares((5, 5), (30, 60))
    run_segment(dock, before)
    layer = dock.session.labels
    dock.segment_panel.run()
    dock.engine.last.show(squares((20, 20)), LEFT, tmp_path / "labels.npy")
    assert layer.data[25, 25] == 1
    dock.engine.last.cancel() if how == "cancel" else dock.engine.last.fail("No memory.")
    np.testing.assert_array_equal(layer.data, before)
    assert layer.editable
    assert dock.session.annotation(layer).is_unedited


def test_a_part_leaves_checked_regions_alone(dock, tmp_path) -> None:
    run_segment(dock, squares((5, 5)))
    layer = dock.session.labels
    dock.session.annotation(layer).regions.add_box((), 0, 0, 20, 20)
    dock.segment_panel.run()
    dock.engine.last.show(squares((30, 10), (2, 2)), LEFT, tmp_path / "labels.npy")
    np.testing.assert_array_equal(layer.data[:20, :20], squares((5, 5))[:20, :20])
    assert layer.data[35, 15] == 1


def test_a_layer_with_corrections_is_not_written_to(dock, tmp_path, qtbot) -> None:
    run_segment(dock, squares((5, 5)))
    edited = dock.session.labels
    qtbot.waitUntil(lambda: edited.visible)
    edited.paint((50, 50), 4)
    kept = edited.data.copy()
    dock.segment_panel.run()
    dock.engine.last.show(squares((30, 10)), LEFT, tmp_path / "labels.npy")
    np.testing.assert_array_equal(edited.data, kept)
    dock.engine.last.cancel()
    assert edited.visible
    assert [layer.name for layer in dock.session.viewer.layers] == ["cells", "cells labels"]


def test_deleting_the_layer_ends_the_run_that_writes_into_it(dock, tmp_path) -> None:
    dock.segment_panel.run()
    job = dock.engine.last
    job.show(squares((5, 5)), LEFT, tmp_path / "labels.npy")
    dock.session.viewer.layers.remove("cells labels")
    assert not dock.session.is_busy
    assert [layer.name for layer in dock.session.viewer.layers] == ["cells"]


def test_more_objects_than_16_bits_can_count_get_32(dock) -> None:
    labels = np.arange(64 * 80, dtype=np.int32).reshape(64, 80) * 20
    run_segment(dock, labels)
    np.testing.assert_array_equal(dock.session.labels.data, labels)
    assert dock.session.annotation(dock.session.labels).is_unedited


def test_the_run_is_told_where_the_person_looks(dock, qtbot) -> None:
    viewer = dock.session.viewer
    dock.segment_panel.run()
    job = dock.engine.last
    assert len(job.parameters["view"]) == 2
    camera_of(viewer).zoom = 4
    qtbot.waitUntil(lambda: len(job.looks) == 1)
    job.answer(**segmented(squares((5, 5))))
    camera_of(viewer).zoom = 2
    qtbot.wait(150)
    assert len(job.looks) == 1


def test_what_is_seen_of_a_stack_is_its_plane(make_napari_viewer) -> None:
    viewer = make_napari_viewer()
    stack = viewer.add_image(np.zeros((4, 3, 50, 60), np.uint8))
    viewer.dims.set_current_step(0, 2)
    region = shown_region(viewer, stack, "ZCYX")
    assert region[0] == (2, 3)
    assert len(region) == 3
    viewer.dims.ndisplay = 3
    assert shown_region(viewer, stack, "ZCYX") == ((0, 4), (0, 50), (0, 60))


def test_moving_the_slider_again_replaces_a_search_under_way(dock, qtbot) -> None:
    run_segment(dock, squares((5, 5)))
    dock.segment_panel.threshold.value = 0.7
    qtbot.waitUntil(lambda: dock.engine.last.name == "label")
    first = dock.engine.last
    dock.segment_panel.threshold.value = 0.8
    qtbot.waitUntil(lambda: dock.engine.last is not first)
    assert dock.engine.last.parameters["settings"]["threshold"] == 0.8
    assert "Cancelled" not in find(dock, "status").text()


def test_the_threshold_shows_its_labels_and_they_stay(dock, qtbot, tmp_path) -> None:
    run_segment(dock, squares((5, 5), (30, 60)))
    layer, fewer = dock.session.labels, squares((5, 5))
    dock.segment_panel.threshold.value = 0.7
    qtbot.waitUntil(lambda: dock.engine.last.name == "label")
    job = dock.engine.last
    assert not layer.editable, "no stroke gets lost between the old labels and the new ones"
    job.show(fewer, ((0, 64), (0, 80)), tmp_path / "labels.npy")
    job.answer(labels=fewer)
    np.testing.assert_array_equal(layer.data, fewer)
    assert layer.editable
    assert find(dock, "status").text().startswith("1 objects")


def test_closing_the_image_ends_its_run(dock, tmp_path) -> None:
    dock.segment_panel.run()
    dock.engine.last.show(squares((5, 5)), LEFT, tmp_path / "labels.npy")
    dock.session.viewer.layers.remove("cells")
    assert not dock.session.is_busy
    assert len(dock.session.viewer.layers) == 0


def test_a_stroke_that_was_undone_is_no_correction(dock) -> None:
    run_segment(dock, squares((5, 5)))
    layer = dock.session.labels
    layer.paint((50, 50), 4)
    assert not dock.session.annotation(layer).is_unedited
    layer.undo()
    assert dock.session.annotation(layer).is_unedited


def test_corrections_come_along_from_the_labels_at_hand(dock) -> None:
    run_segment(dock, squares((5, 5)))
    first = dock.session.labels
    first.paint((50, 50), 4)
    run_segment(dock, squares((5, 5)))
    second = dock.session.labels
    assert second is not first
    dock.session.use_labels(first)
    dock.session.annotation(first).regions.add_box((), 40, 40, 60, 60)
    run_segment(dock, squares((5, 5)))
    newest = dock.session.annotation(dock.session.labels)
    assert newest.labels not in (first, second)
    assert newest.regions.count == 1
    assert newest.labels.data[50, 50]


def test_while_labels_are_being_made_nobody_is_told_to_make_some(dock, tmp_path, qtbot) -> None:
    dock.segment_panel.run()
    dock.engine.last.show(squares((5, 5)), LEFT, tmp_path / "labels.npy")
    qtbot.waitUntil(lambda: not dock.correct_panel.problem.value)
    dock.engine.last.cancel()
    qtbot.waitUntil(lambda: "Press Segment" in dock.correct_panel.problem.value)
