"""Correcting by hand: real mouse and keys on a shown window; the engine computes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtCore import QEvent, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QWidget

from tests.hand import Hand
from tests.widget.fake_engine import find, run_segment, squares


@pytest.fixture
def hand(make_dock, qtbot):
    """A person in front of labels with two squares."""
    dock = make_dock(show=True)
    dock.session.viewer.window._qt_window.resize(1366, 768)
    qtbot.wait(50)
    dock.session.viewer.reset_view()
    person = Hand(dock.session.viewer, dock)
    run_segment(dock, squares((5, 5), (30, 40)))
    person.rest(50)
    return person


def spot_of(hand: Hand) -> QWidget | None:
    """Find the mark on the canvas, if it is seen."""
    found = hand.canvas.native.findChild(QWidget, "uncertain_spot")
    return found if found is not None and found.isVisible() else None


def point_at(hand: Hand, layer, y: float, x: float) -> None:
    """Move the mouse to a pixel of a layer."""
    native, at = hand.canvas.native, hand.spot(layer, y, x)
    for there in (QPointF(at) + QPointF(3, 3), QPointF(at)):
        event = QMouseEvent(
            QEvent.Type.MouseMove,
            there,
            QPointF(native.mapToGlobal(there.toPoint())),
            Qt.MouseButton.NoButton,
            Qt.MouseButton.NoButton,
            Qt.KeyboardModifier.NoModifier,
        )
        QApplication.sendEvent(native, event)
        hand.rest(20)


def press(hand: Hand, key: Qt.Key, *, ctrl: bool = False) -> None:
    """Press a key with Shift, or with Ctrl, on the canvas."""
    held = Qt.KeyboardModifier.ControlModifier if ctrl else Qt.KeyboardModifier.ShiftModifier
    QTest.keyClick(hand.canvas.native, key, held)
    hand.rest(30)


def answer_uncertain(hand: Hand, *position: int) -> None:
    """Let the engine name a doubtful spot."""
    job = hand.dock.engine.last
    assert job.name == "uncertain"
    job.answer(position=list(position))
    hand.rest(30)


def test_next_uncertain_shows_the_spot_and_moves_on_though_it_was_not_marked(hand) -> None:
    layer = hand.dock.session.labels
    big = np.zeros((400, 500), np.int32)
    layer.data = big
    hand.dock.session.annotation(layer).edits.restart()
    hand.click("next_uncertain")
    assert not hand.dock.engine.last.arrays["vouched"].any()
    answer_uncertain(hand, 100, 150)
    np.testing.assert_allclose(np.asarray(hand.camera.center)[-2:], (50, 75))
    ring = spot_of(hand)
    assert ring is not None
    middle = ring.middle.toPoint()
    assert (middle - hand.spot(layer, 100, 150)).manhattanLength() <= 3
    hand.click("next_uncertain")
    looked_at = hand.dock.engine.last.arrays["vouched"]
    assert looked_at[100, 150]
    assert 48 * 48 < looked_at.sum() <= 96 * 96
    assert spot_of(hand) is None, "the next action takes the mark away"
    answer_uncertain(hand, 300, 400)
    assert "2" in hand.status
    assert spot_of(hand) is not None


def test_after_the_last_spot_the_tour_begins_again(hand) -> None:
    hand.click("next_uncertain")
    answer_uncertain(hand, 32, 40)  # the window around it is all of this image but its rim
    annotation = hand.dock.session.annotation(hand.dock.session.labels)
    annotation.visited.append((60, 75))
    hand.click("next_uncertain")
    assert not hand.dock.engine.last.arrays["vouched"].any()
    answer_uncertain(hand, 32, 40)
    assert annotation.visited == [(32, 40)]
    run_segment(hand.dock, squares((30, 40)))
    assert annotation.visited == [], "new labels are new doubt"


def test_the_mark_follows_the_camera_and_its_ring_leaves_with_a_stroke(hand) -> None:
    layer = hand.dock.session.labels
    hand.click("next_uncertain")
    answer_uncertain(hand, 20, 30)
    hand.camera.zoom *= 1.3
    hand.camera.center = (12, 14)
    hand.rest(30)
    middle = spot_of(hand).middle.toPoint()
    assert (middle - hand.spot(layer, 20, 30)).manhattanLength() <= 3
    names = [la.name for la in hand.viewer.layers]
    assert names == ["cells", "cells labels"], "the mark is no layer"
    layer.mode, layer.brush_size = "paint", 5
    hand.line(layer, (20, 30), (24, 34))
    assert (layer.data == layer.selected_label).sum() > 100
    assert not spot_of(hand).is_ringed, "it would be in the way"


def test_the_mark_stays_until_the_region_around_it_is_drawn(hand) -> None:
    layer = hand.dock.session.labels
    hand.click("region")
    hand.click("next_uncertain")
    answer_uncertain(hand, 20, 30)
    hand.click("region")
    hand.rest(300)
    assert spot_of(hand) is not None
    hand.line(layer, (10, 20), (30, 40))
    assert hand.dock.session.annotation(layer).regions.count == 1
    assert spot_of(hand) is None


def test_a_zoom_at_which_one_can_paint_is_kept(hand) -> None:
    layer = hand.dock.session.labels
    layer.data = np.zeros((2000, 2000), np.int32)
    hand.dock.session.annotation(layer).edits.restart()
    for zoom_before, is_kept in ((6.0, True), (0.5, False), (90.0, False)):
        hand.camera.zoom = zoom_before
        hand.click("next_uncertain")
        answer_uncertain(hand, 900, 900)
        assert (hand.camera.zoom == pytest.approx(zoom_before)) == is_kept
        shown_px = min(hand.canvas.size) / (hand.camera.zoom * 0.5)
        assert 96 < shown_px <= 3 * 96


def test_one_key_marks_the_box_around_the_spot_as_checked(hand) -> None:
    layer = hand.dock.session.labels
    layer.data = np.zeros((400, 500), np.int32)
    layer.data[190:210, 90:110] = 1
    annotation = hand.dock.session.annotation(layer)
    annotation.edits.restart()
    press(hand, Qt.Key.Key_K)
    assert "Go to a doubtful spot first" in hand.status
    press(hand, Qt.Key.Key_N)
    hand.dock.engine.last.answer(position=[200, 150], why="a nucleus may be two")
    hand.rest(30)
    assert "a nucleus may be two" in hand.status
    mark = spot_of(hand)
    top_left, bottom_right = hand.spot(layer, 132, 82), hand.spot(layer, 268, 218)
    seen = mark.box.toRect()
    assert (seen.topLeft() - top_left).manhattanLength() <= 8
    assert (seen.bottomRight() - bottom_right).manhattanLength() <= 8
    layer.mode, layer.brush_size = "paint", 5
    hand.line(layer, (200, 150), (204, 154))
    press(hand, Qt.Key.Key_K)
    (area,) = annotation.regions.areas()
    assert area.box == (slice(133, 268), slice(83, 218)), "six of the object's diameters"
    assert spot_of(hand) is None
    press(hand, Qt.Key.Key_N)
    assert hand.dock.engine.last.arrays["vouched"][140, 90], "what is checked is passed by"


def test_the_mark_is_gone_when_the_dock_is(hand) -> None:
    hand.click("next_uncertain")
    answer_uncertain(hand, 20, 30)
    hand.dock.session.viewer.window.remove_dock_widget(hand.dock)
    hand.rest(30)
    assert spot_of(hand) is None
    press(hand, Qt.Key.Key_N)  # and its keys do nothing any more


def test_a_line_drawn_by_hand_does_not_count_and_a_polygon_does(hand) -> None:
    layer = hand.dock.session.labels
    hand.click("region")
    regions = hand.dock.session.annotation(layer).regions
    regions.layer.mode = "add_line"
    hand.line(layer, (10, 10), (50, 60))
    assert len(regions.layer.data) == 1
    assert regions.count == 0
    assert "line" in hand.status
    hand.dock.session.tell("")
    regions.layer.mode = "add_polygon_lasso"
    hand.stroke(layer, [(10, 10), (10, 30), (12, 50), (40, 50), (40, 30), (38, 12), (12, 10)])
    assert len(regions.layer.data) == 2
    assert regions.count == 1
    assert hand.status == "", "nothing is wrong with a polygon"
    regions.layer.mode = "add_rectangle"
    hand.line(layer, (45, 5), (60, 20))
    assert regions.count == 2


@pytest.mark.parametrize("turn", ["rolled", "3D"])
def test_a_view_without_y_and_x_checks_nothing_and_says_why(make_dock, turn) -> None:
    dock = make_dock()
    viewer = dock.session.viewer
    layer = viewer.add_labels(np.zeros((4, 64, 80), np.int32))
    assert dock.session.labels is layer
    before = len(viewer.layers)
    if turn == "rolled":
        viewer.dims.roll()
    else:
        viewer.dims.ndisplay = 3
    for name in ("whole_plane", "region"):
        find(dock, name).click()
        assert ("y and x" if turn == "rolled" else "2D") in find(dock, "status").text()
        assert len(viewer.layers) == before
    viewer.dims.ndisplay, viewer.dims.order = 2, (0, 2, 1)  # transposed: still that plane
    viewer.dims.set_point(0, 2)
    find(dock, "whole_plane").click()
    assert dock.session.annotation(layer).regions.planes() == {(2,)}


def test_the_channel_axis_rolled_into_view_confuses_no_plane(make_dock) -> None:
    dock = make_dock()
    viewer = dock.session.viewer
    layer = dock.session.viewer.add_labels(np.zeros((64, 80), np.int32))
    viewer.add_image(np.zeros((3, 64, 80)), name="channels")
    viewer.layers.selection.active = layer
    viewer.dims.order = (1, 2, 0)
    find(dock, "whole_plane").click()
    assert "y and x" in find(dock, "status").text()
    viewer.dims.order = (0, 1, 2)
    find(dock, "whole_plane").click()
    assert dock.session.annotation(layer).vouched(()).all()
    find(dock, "whole_plane").click()
    assert "already" in find(dock, "status").text()
    assert dock.session.annotation(layer).regions.count == 1


def test_an_object_under_the_mouse_is_deleted_and_comes_back(hand) -> None:
    layer = hand.dock.session.labels
    before = layer.data.copy()
    point_at(hand, layer, 8, 8)
    press(hand, Qt.Key.Key_D)
    assert not layer.data[5:15, 5:15].any()
    np.testing.assert_array_equal(layer.data[20:], before[20:])
    annotation = hand.dock.session.annotation(layer)
    assert annotation.edits.touched.sum() == 100
    hand.wait(lambda: annotation.edits.count == 1, 2)
    press(hand, Qt.Key.Key_Z, ctrl=True)
    np.testing.assert_array_equal(layer.data, before)
    hand.wait(lambda: annotation.edits.count == 0, 2)
    point_at(hand, layer, 60, 5)
    press(hand, Qt.Key.Key_D)
    assert "Point at an object" in hand.status
    np.testing.assert_array_equal(layer.data, before)


def test_two_objects_are_merged_by_pointing_at_each(hand) -> None:
    layer = hand.dock.session.labels
    point_at(hand, layer, 8, 8)
    press(hand, Qt.Key.Key_M)
    assert "again" in hand.status
    point_at(hand, layer, 35, 45)
    press(hand, Qt.Key.Key_M)
    assert layer.data[35, 45] == layer.data[8, 8] == 1
    assert "gap" in hand.status, "they do not touch"
    press(hand, Qt.Key.Key_Z, ctrl=True)
    assert layer.data[35, 45] == 2


def test_an_object_is_cut_where_the_mouse_is(hand) -> None:
    layer = hand.dock.session.labels
    dumbbell = squares((5, 5), (5, 25))
    dumbbell[9:12, 15:25] = 2
    dumbbell[dumbbell > 0] = 1
    layer.data = dumbbell
    point_at(hand, layer, 10, 18)
    press(hand, Qt.Key.Key_C)
    left, right = layer.data[8, 8], layer.data[8, 30]
    assert {int(left), int(right)} == {1, 2}
    np.testing.assert_array_equal(layer.data > 0, dumbbell > 0)
    press(hand, Qt.Key.Key_Z, ctrl=True)
    np.testing.assert_array_equal(layer.data, dumbbell)


def test_objects_are_edited_in_the_plane_that_is_shown_only(make_dock) -> None:
    dock = make_dock()
    viewer = dock.session.viewer
    layer = viewer.add_labels(np.stack([squares((5, 5))] * 3))
    viewer.dims.set_point(0, 1)
    viewer.cursor.position = (1.0, 8.0, 8.0)
    dock.correct_panel._tools.delete()
    assert [plane.any() for plane in layer.data] == [True, False, True]
    viewer.dims.ndisplay = 3
    dock.correct_panel._tools.delete()
    assert "2D" in find(dock, "status").text()
