"""A dock that is opened again goes on where it was, and holds nothing that was closed."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from qtpy.QtCore import QCoreApplication, QEvent

from napari_unet.widget import remains
from tests.widget.fake_engine import find, run_segment, squares


def close(dock) -> None:
    """Take the dock out of its window, and let Qt delete it."""
    dock.session.viewer.window.remove_dock_widget(dock)
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)


def are_gone(dead: list[weakref.ref]) -> bool:
    """Whether nothing holds objects any more; PyQt lets go of slots in a later turn of the loop."""
    gc.collect()
    return not any(reference() is not None for reference in dead)


def correct(dock):
    """Let a dock have a stroke painted and a region checked; returns it."""
    run_segment(dock, squares((5, 5), (30, 40)))
    layer = dock.session.labels
    layer.brush_size = 6
    layer.paint((50, 10), 3)
    dock.session.annotation(layer).regions.add_box((), 0, 0, 20, 20)
    return dock


@pytest.fixture
def corrected(make_dock):
    """A dock with corrections."""
    return correct(make_dock())


def test_corrections_survive_closing_the_dock(corrected, make_dock) -> None:
    viewer, layer = corrected.session.viewer, corrected.session.labels
    before = corrected.session.annotation(layer)
    vouched, changed, subject = before.vouched(()), before.edits.changed(()), before.subject
    corrected.session.annotation(layer).strokes_count = False
    layer.name = "renamed meanwhile"
    close(corrected)
    again = make_dock(viewer)
    after = again.session.annotation(again.session.labels)
    assert after is not before
    assert after.labels is layer
    assert (after.edits.count, after.regions.count) == (1, 1)
    assert not after.strokes_count
    after.strokes_count = True
    np.testing.assert_array_equal(after.vouched(()), vouched)
    np.testing.assert_array_equal(after.edits.changed(()), changed)
    assert after.subject == subject
    assert "1 object corrected, 1 region" in again.correct_panel.summary.value
    assert find(again, "retrain").isEnabled()
    assert not find(again, "next_uncertain").isEnabled(), "the probability ended with its process"


def test_edited_labels_are_not_overwritten_by_the_next_dock_either(corrected, make_dock) -> None:
    viewer, layer = corrected.session.viewer, corrected.session.labels
    kept = layer.data.copy()
    close(corrected)
    again = make_dock(viewer)
    again.segment_panel.image.value = viewer.layers["cells"]
    run_segment(again, squares((30, 60)))
    assert again.session.labels is not layer
    np.testing.assert_array_equal(layer.data, kept)
    assert (again.session.labels.data[kept == 3] > 0).all()


def test_what_was_painted_without_a_dock_is_a_correction_too(corrected, make_dock) -> None:
    viewer, layer = corrected.session.viewer, corrected.session.labels
    close(corrected)
    layer.paint((10, 60), 9)
    again = make_dock(viewer)
    assert again.session.annotation(layer).edits.count == 2


def test_labels_that_got_another_size_start_afresh(corrected, make_dock) -> None:
    viewer, layer = corrected.session.viewer, corrected.session.labels
    close(corrected)
    layer.data = np.zeros((20, 20), np.int32)
    again = make_dock(viewer)
    assert again.session.annotation(layer).edits.count == 0


def test_closed_layers_and_docks_are_not_kept_alive(make_dock, qtbot) -> None:
    dock = correct(make_dock())
    viewer = dock.session.viewer
    dead = [weakref.ref(dock), weakref.ref(viewer.layers["cells"])]
    labels = dock.session.labels
    close(dock)
    del dock
    viewer.layers.remove("cells")
    qtbot.waitUntil(lambda: are_gone(dead), timeout=20_000)
    assert remains.subject_of(remains.find(labels)) is None
    dead = [weakref.ref(labels), weakref.ref(remains.find(labels))]
    del labels
    viewer.layers.clear()
    qtbot.waitUntil(lambda: are_gone(dead), timeout=20_000)
