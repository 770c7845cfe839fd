"""The whole loop by hand: real mouse events on a real window, a real image, the real process.

Set NAPARI_UNET_PICTURES to a folder to keep a screenshot of each step there; the pictures of the
documentation are made that way.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile
from qtpy.QtCore import Qt
from qtpy.QtGui import QPainter, QPixmap
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QDialog, QWidget

from tests.hand import Hand

STACK, PAGES, PIXEL_UM = "purple_on_white_256x320", (0, 1, 2, 3), 0.5
UNSEEN = 3
"""The field of view that is never corrected."""
WINDOW = (1366, 768)


@pytest.fixture
def unseen(data_dir) -> tuple[np.ndarray, np.ndarray]:
    """Return fields of stained tissue, which the model has never seen, and their truth."""
    folder = data_dir / "images" / "dsb2018"
    images = [tifffile.imread(folder / f"{STACK}_images.tif", key=page) for page in PAGES]
    truth = [tifffile.imread(folder / f"{STACK}_labels.tif", key=page) for page in PAGES]
    return np.stack(images), np.stack(truth).astype(np.int32)


@pytest.fixture
def hand(make_napari_viewer, qtbot, unseen, monkeypatch):
    """A person in front of a viewer with the image and the dock open."""
    from napari_unet.widget.contributions import open_dock
    from napari_unet.worker.unfinished import discard, find_unfinished

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)  # the real process, at its own speed
    viewer = make_napari_viewer(show=True)
    viewer.window._qt_window.resize(*WINDOW)
    viewer.add_image(
        unseen[0],
        name="tissue",
        scale=(1, PIXEL_UM, PIXEL_UM),
        units=("pixel", "um", "um"),
        axis_labels=("t", "y", "x"),
    )
    dock = open_dock(viewer)
    qtbot.wait(100)
    viewer.reset_view()
    person = Hand(viewer, dock)
    person.wait(lambda: dock.session.model is not None and not dock.session.is_busy, 120)
    yield person
    dock.close_session()
    for unfinished in find_unfinished():  # the next dock would offer to go on with it
        discard(unfinished.folder)


def enlarge(hand: Hand) -> None:
    """Make the image so large that a job is still running when something happens to it."""
    layer = hand.viewer.layers["tissue"]
    layer.data = np.tile(layer.data, (1, 4, 4, 1))
    hand.rest(300)


def keep(hand: Hand, step: str) -> None:
    """Keep a picture of the window and the dialog before it, if pictures are wanted."""
    folder = os.environ.get("NAPARI_UNET_PICTURES")
    if not folder:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    path = Path(folder) / f"{step}.png"
    hand.picture(path)
    picture = QPixmap(str(path))
    painter = QPainter(picture)
    window = hand.viewer.window._qt_window
    for dialog in open_dialogs(hand):
        painter.drawPixmap(dialog.pos() - window.pos(), dialog.grab())
    painter.end()
    picture.save(str(path))


def open_dialogs(hand: Hand) -> list[QDialog]:
    """List the dialogs a person sees."""
    window = hand.viewer.window._qt_window
    return [dialog for dialog in window.findChildren(QDialog) if dialog.isVisible()]


def press(dialog: QDialog, name: str) -> None:
    """Press a button of a dialog."""
    QTest.mouseClick(dialog.findChild(QWidget, name), Qt.MouseButton.LeftButton)


def computing_processes() -> list[psutil.Process]:
    """List the processes this one has started to compute."""
    children = psutil.Process().children(recursive=True)
    return [p for p in children if "napari_unet.worker" in p.cmdline()]


def paint_missing(hand: Hand, labels, truth: np.ndarray) -> int:
    """Paint one nucleus by hand where the truth has one; returns the number it got."""
    sizes = np.bincount(truth.ravel())
    sizes[0] = 0
    ys, xs = np.nonzero(truth == int(np.argmax(sizes)))
    middle = (float(ys.mean()), float(xs.mean()))
    hand.click("new_object")
    labels.brush_size = 7
    number = int(labels.selected_label)
    hand.line(labels, (middle[0] - 4, middle[1] - 4), (middle[0] + 4, middle[1] + 4))
    return number


def mend_the_rest(labels, plane: int, truth: np.ndarray, is_right: np.ndarray) -> None:
    """Put in the truth what many more strokes would: each of it can be undone in napari."""
    ys, xs = np.nonzero(~is_right)
    numbers = np.where(truth > 0, truth + int(labels.data.max()) + 1, 0)
    labels.data_setitem((np.full(ys.shape, plane), ys, xs), numbers[ys, xs])


@pytest.mark.slow
def test_the_whole_loop_by_hand(hand: Hand, unseen, tmp_path) -> None:
    from napari_unet.arrays.metrics import evaluate

    _, truth = unseen
    viewer, dock = hand.viewer, hand.dock
    viewer.dims.set_current_step(0, 0)
    hand.click("invert")
    keep(hand, "1-open")

    hand.click("segment")
    hand.wait_idle()
    labels = dock.session.labels
    assert labels is not None, hand.status
    assert "objects in" in hand.status
    before = evaluate(labels.data[UNSEEN], truth[UNSEEN])["ap50"]
    assert before > 0.3
    keep(hand, "2-segmented")

    number = paint_missing(hand, labels, truth[0])
    assert (labels.data[0] == number).sum() > 20, "the brush painted on the canvas"
    hand.wait(lambda: dock.session.annotation(labels).edits.count > 0, 5)
    painted = labels.data[0] == number
    mend_the_rest(labels, 0, truth[0], painted)
    hand.click("region")
    height, width = truth.shape[-2:]
    hand.line(labels, (4, 4), (height - 5, width - 5))
    annotation = dock.session.annotation(labels)
    assert annotation.regions.count == 1, "a box was drawn on the canvas"
    assert annotation.vouched((0,)).mean() > 0.9
    keep(hand, "3-corrected")
    for plane in range(1, UNSEEN):
        viewer.dims.set_current_step(0, plane)
        mend_the_rest(labels, plane, truth[plane], np.zeros((height, width), bool))
        hand.click("whole_plane")
    assert f"{UNSEEN} regions" in dock.retrain_panel.lessons.value

    dock.retrain_panel.seconds.value = int(os.environ.get("NAPARI_UNET_LOOP_SECONDS", "10"))
    viewer.dims.set_current_step(0, UNSEEN)
    hand.click("retrain")
    hand.wait(lambda: len(dock.retrain_panel.curve.loss) > 0 or not dock.session.is_busy)
    hand.rest(3000)
    keep(hand, "4-retraining")
    hand.wait_idle(600)
    assert dock.retrain_panel.result.value, hand.status
    (dialog,) = open_dialogs(hand)
    press(dialog, "show_difference")
    hand.wait_idle()
    assert "In this plane" in hand.status
    keep(hand, "5-judged")
    dialog.close()
    hand.rest(100)
    is_better = dock.session.model.card.parent is not None
    if os.environ.get("NAPARI_UNET_PICTURES"):
        assert is_better, "the tutorial shows a model that was taken"

    kept = labels.data.copy()
    hand.click("segment")
    hand.wait_idle()
    newest = dock.session.labels
    assert newest is not labels, "edited labels get a newer layer beside them"
    np.testing.assert_array_equal(labels.data, kept)
    assert (newest.data[0][painted] > 0).all(), "what was painted and checked lives on"
    if is_better:
        assert evaluate(newest.data[UNSEEN], truth[UNSEEN])["ap50"] > before - 0.01
    keep(hand, "6-again")

    dock.export_panel.format.value = "OME-TIFF"
    path = tmp_path / "mask.ome.tif"
    dock.export_panel.export_to(path)
    hand.wait(lambda: "Mask written" in hand.status, 20)
    with tifffile.TiffFile(path) as tif:
        np.testing.assert_array_equal(tif.asarray(), newest.data)
        assert f'PhysicalSizeX="{PIXEL_UM}"' in tif.ome_metadata
    keep(hand, "7-exported")
    assert len(viewer.layers) == 4


@pytest.mark.slow
@pytest.mark.parametrize("job", ["segment", "retrain"])
def test_killing_the_process_changes_nothing_and_the_next_click_works(hand: Hand, job: str) -> None:
    from napari_unet.worker.unfinished import find_unfinished

    session = hand.dock.session
    enlarge(hand)
    if job == "retrain":
        hand.click("segment")
        hand.wait_idle()
        hand.click("whole_plane")
    before = {layer.name: np.array(layer.data) for layer in hand.viewer.layers}
    hand.click(job)
    hand.wait(lambda: session.is_busy, 5)
    if job == "retrain":
        hand.wait(lambda: bool(find_unfinished()))
    hand.rest(500)
    os.kill(computing_processes()[0].pid, signal.SIGKILL)
    hand.wait_idle(20)
    assert "untouched" in hand.status or "nothing was changed" in hand.status
    assert hand.find("go_on").isVisibleTo(hand.dock) == (job == "retrain")
    after = {layer.name: np.array(layer.data) for layer in hand.viewer.layers}
    assert before.keys() == after.keys()
    for name, data in before.items():
        np.testing.assert_array_equal(data, after[name])
    hand.click("segment")
    hand.wait_idle()
    assert session.labels is not None
    assert "objects in" in hand.status
    if job == "retrain":
        hand.click("discard_training")
        assert not find_unfinished()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("how", ["the process is killed", "the dock is closed"])
def test_a_training_that_was_broken_off_goes_on_by_one_click(hand: Hand, how: str) -> None:
    from napari_unet.widget.contributions import open_dock
    from napari_unet.worker.unfinished import find_unfinished

    hand.click("segment")
    hand.wait_idle()
    hand.click("whole_plane")
    hand.dock.retrain_panel.seconds.value = 60  # several states are written meanwhile
    hand.click("retrain")
    hand.wait(lambda: any(found.fraction > 0 for found in find_unfinished()), 400)
    if how == "the dock is closed":
        hand.viewer.window.remove_dock_widget(hand.dock)
        hand.wait(lambda: not computing_processes(), 60)
        hand = Hand(hand.viewer, open_dock(hand.viewer))
    else:
        os.kill(computing_processes()[0].pid, signal.SIGKILL)
    hand.wait(lambda: hand.find("go_on").isVisibleTo(hand.dock))
    hand.wait(lambda: hand.dock.session.model is not None, 300)
    hand.wait_idle()
    told: list[str] = []
    hand.dock.session.job_started.connect(
        lambda _, job: job.progressed.connect(lambda event: told.append(event.text))
    )
    hand.click("go_on")
    hand.wait_idle(300)
    assert any("going on after step" in text for text in told)
    assert "in use" in hand.dock.retrain_panel.result.value
    assert hand.dock.retrain_panel.broken_off.offered is None
    hand.dock.close_session()


@pytest.mark.slow
@pytest.mark.parametrize("end", ["close the dock", "delete the layer", "cancel"])
def test_ending_a_job_in_any_way_leaves_no_process_and_no_half_layer(hand: Hand, end: str) -> None:
    dock = hand.dock
    enlarge(hand)
    hand.click("segment")
    hand.wait(lambda: dock.session.is_busy, 5)
    hand.rest(200)
    if end == "close the dock":
        hand.viewer.window.remove_dock_widget(dock)
        hand.wait(lambda: not computing_processes(), 5)
        assert [layer.name for layer in hand.viewer.layers] == ["tissue"]
        return
    if end == "delete the layer":
        hand.viewer.layers.clear()
        hand.wait_idle()
        assert len(hand.viewer.layers) == 0
        return
    hand.click("cancel")
    assert hand.wait_idle(5) < 1.1
    assert [layer.name for layer in hand.viewer.layers] == ["tissue"]
    hand.wait(lambda: len(computing_processes()) == 1, 20)
