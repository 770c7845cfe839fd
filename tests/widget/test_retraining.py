"""The dock's learning part: dialogs beside the dock, versions, broken-off trainings, lessons."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from qtpy.QtWidgets import QDialog

from napari_unet.models import library
from napari_unet.models.card import Card, Learned
from napari_unet.models.versions import set_aside_folder, weights_checksum
from napari_unet.settings import Architecture
from napari_unet.widget.comparison import DIFFERENCE, NEW, OFF, OLD
from napari_unet.widget.exchange import lock_at
from napari_unet.worker import unfinished
from tests.widget.fake_engine import CARD, find, loaded, run_segment, squares

SHAPE = (64, 80)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Let the person have no models yet."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def dialog_of(dock) -> QDialog:
    (dialog,) = (d for d in dock.window().findChildren(QDialog) if d.isVisible())
    return dialog


def check(dock, *box: int) -> None:
    annotation = dock.session.annotation(dock.session.labels)
    annotation.regions.add_box((), *(box or (0, 0, 32, 32)))


def result(outcome: str = "better", path: str = "/models/nuclei 2.safetensors", **more) -> dict:
    """Return what the worker answers to "finetune"."""
    scores = {"ap50": 0.5, "iou": 0.8, "missed": 1, "spurious": 0, "merged": 0, "split": 0}
    learned = {
        "parent": "nuclei",
        "created": "2026-11-21T10:00:00+00:00",
        "planes": 1,
        "objects": 2,
        "vouched_px": 9,
        "changed_px": 1,
        "outcome": outcome,
    }
    return {
        "model": path,
        "card": {**CARD, "name": "nuclei 2", "parent": "nuclei", "history": [learned]},
        "outcome": outcome,
        "verdict": "So it is.",
        "before": scores,
        "after": {**scores, "ap50": 0.7},
        "report": {},
        **more,
    }


# What is learned from


def test_all_images_of_the_session_are_learned_from_together(dock) -> None:
    viewer = dock.session.viewer
    run_segment(dock, squares((5, 5)))
    check(dock)
    viewer.add_image(np.ones(SHAPE, np.uint16), name="more cells")
    dock.segment_panel.image.value = viewer.layers["more cells"]
    run_segment(dock, squares((30, 40)))
    check(dock, 20, 20, 60, 60)
    assert "2 regions on 2 planes of 2 images" in dock.retrain_panel.lessons.value
    dock.retrain_panel.run()
    job = dock.engine.last
    assert job.parameters["regions"] == 2
    images = [job.arrays[sample["image"]] for sample in job.parameters["samples"]]
    assert [int(image.max()) for image in images] == [1, 0], "the image at hand comes first"
    names = [sample["name"] for sample in job.parameters["samples"]]
    assert names == ["more cells", "cells"]


def test_an_image_labelled_twice_is_learned_from_once(dock) -> None:
    run_segment(dock, squares((5, 5), (30, 40)))
    dock.session.labels.brush_size = 5
    dock.session.labels.paint((50, 10), 3)
    run_segment(dock, squares((5, 5)))
    assert len(dock.session.annotations()) == 2
    dock.retrain_panel.run()
    assert len(dock.engine.last.parameters["samples"]) == 1


def test_images_that_are_bright_and_dark_are_not_mixed_and_the_person_is_told(dock) -> None:
    viewer = dock.session.viewer
    run_segment(dock, squares((5, 5)))
    check(dock)
    viewer.add_image(np.ones(SHAPE, np.uint16), name="stained")
    dock.segment_panel.image.value = viewer.layers["stained"]
    dock.segment_panel.invert.value = True
    run_segment(dock, squares((30, 40)))
    check(dock)
    assert "Not from cells" in dock.retrain_panel.lessons.value
    dock.retrain_panel.run()
    job = dock.engine.last
    assert len(job.parameters["samples"]) == 1
    assert job.parameters["segment"]["invert"]


def test_a_stroke_that_was_undone_teaches_nothing(dock, qtbot) -> None:
    run_segment(dock, squares((5, 5)))
    labels = dock.session.labels
    labels.paint((50, 10), 3)
    qtbot.waitUntil(lambda: find(dock, "retrain").isEnabled())
    assert "painted strokes on 1 plane" in dock.retrain_panel.lessons.value
    labels.undo()
    qtbot.waitUntil(lambda: not find(dock, "retrain").isEnabled())


# Before and after


@pytest.fixture
def judged(dock, qtbot):
    """A dock after a retraining, with the dialog open."""
    run_segment(dock, squares((5, 5), (30, 40)))
    check(dock)
    dock.retrain_panel.run()
    dock.engine.last.answer(**result())
    qtbot.wait(20)
    return dock


def answer_comparison(dock) -> None:
    job = dock.engine.last
    assert job.name == "compare"
    assert job.parameters["old"] == "/models/nuclei.safetensors"
    assert job.parameters["new"] == "/models/nuclei 2.safetensors"
    old, new = squares((5, 5)), squares((5, 5), (30, 40))
    difference = np.where(new == 2, 1, 0).astype(np.uint8)
    job.answer(old=old, new=new, difference=difference, added=1, gone=0, changed=0)


def test_what_differs_is_laid_over_the_image_and_taken_off_again(judged) -> None:
    viewer, labels = judged.session.viewer, judged.session.labels
    dialog = dialog_of(judged)
    before = list(viewer.layers)
    find(dialog, f"show_{DIFFERENCE}").click()
    answer_comparison(judged)
    (layer,) = (layer for layer in viewer.layers if layer not in before)
    np.testing.assert_array_equal(layer.scale, labels.scale)
    assert layer.data.max() == 1
    assert "1 added" in find(dialog, "difference_legend").text()
    assert not layer.editable
    assert not labels.visible, "under the colours nobody could read them"
    assert judged.session.labels is labels
    assert layer not in judged.correct_panel.labels.choices
    find(dialog, f"show_{OLD}").click()
    assert layer.data.max() == 1
    find(dialog, f"show_{NEW}").click()
    assert layer.data.max() == 2
    assert not find(dialog, "difference_legend").isVisible()
    find(dialog, f"show_{OFF}").click()
    assert list(viewer.layers) == before
    assert labels.visible


def test_the_comparison_goes_with_its_dialog_or_by_hand(judged) -> None:
    viewer = judged.session.viewer
    dialog = dialog_of(judged)
    before = list(viewer.layers)
    find(dialog, f"show_{DIFFERENCE}").click()
    answer_comparison(judged)
    viewer.layers.remove(viewer.layers[-1])
    assert find(dialog, f"show_{OFF}").isChecked()
    find(dialog, f"show_{NEW}").click()
    answer_comparison(judged)
    assert len(viewer.layers) == len(before) + 1
    dialog.close()
    assert list(viewer.layers) == before


def test_labels_that_a_new_segmentation_has_replaced_stay_hidden(judged, qtbot) -> None:
    older, dialog = judged.session.labels, dialog_of(judged)
    older.paint((2, 2), 9)
    find(dialog, f"show_{DIFFERENCE}").click()
    answer_comparison(judged)
    run_segment(judged, squares((5, 5)))
    newer = judged.session.labels
    assert newer is not older
    dialog.close()
    qtbot.waitUntil(lambda: newer.visible)
    assert not older.visible


def test_only_the_plane_in_view_is_compared_in_a_stack(make_dock, make_napari_viewer) -> None:
    viewer = make_napari_viewer()
    viewer.add_image(np.arange(3)[:, None, None] * np.ones((3, *SHAPE)), name="stack")
    dock = make_dock(viewer)
    run_segment(dock, np.stack([squares((5, 5))] * 3))
    annotation = dock.session.annotation(dock.session.labels)
    annotation.regions.add_box((1,), 0, 0, 32, 32)
    dock.retrain_panel.run()
    dock.engine.last.answer(**result())
    viewer.dims.set_current_step(0, 2)
    find(dialog_of(dock), f"show_{DIFFERENCE}").click()
    assert dock.engine.last.arrays["image"].shape == SHAPE
    assert dock.engine.last.arrays["image"].max() == 2
    answer_comparison(dock)
    layer = viewer.layers[-1]
    assert layer.data.shape == (3, *SHAPE)
    assert layer.data[2].any()
    assert not layer.data[:2].any()
    legend = find(dialog_of(dock), "difference_legend")
    viewer.dims.set_current_step(0, 0)
    assert "not compared yet" in legend.text(), "no colour is no proof here"
    viewer.dims.set_current_step(0, 2)
    assert "1 added" in legend.text()
    viewer.dims.set_current_step(0, 0)
    find(dialog_of(dock), f"show_{DIFFERENCE}").click()
    assert dock.engine.last.arrays["image"].max() == 0
    answer_comparison(dock)
    assert viewer.layers[-1].data[0].any()
    assert not viewer.layers[-1].data[1:].any()


def test_too_few_labels_show_no_numbers(dock, qtbot) -> None:
    run_segment(dock, squares((5, 5)))
    check(dock)
    dock.retrain_panel.run()
    dock.engine.last.answer(**result("cannot judge", before=None, after=None))
    texts = [label.text() for label in dialog_of(dock).findChildren(type(find(dock, "status")))]
    assert any("cannot be judged" in text for text in texts)
    assert not any("AP at IoU" in text for text in texts)


# Versions


@pytest.fixture
def family(tmp_path, tiny_unet):
    """Save a model and two versions of it, the second set aside; returns their paths."""
    from napari_unet.models.model import Model, save_model
    from napari_unet.models.own_file import read_card

    def save(path, history):
        card = Card(
            name=path.stem, architecture=Architecture(widths=(4, 8, 16)), history=tuple(history)
        )
        return save_model(Model(tiny_unet, card), path)

    base = save(library.user_folder() / "mine.safetensors", ())
    paths = [base]
    for number, (folder, outcome) in enumerate(
        [(library.user_folder(), "better"), (set_aside_folder(), "not better")], start=2
    ):
        learned = Learned(
            parent="mine",
            parent_weights=weights_checksum(base),
            created=f"2026-11-2{number}T10:00:00+00:00",
            regions=number,
            planes=1,
            objects=5,
            vouched_px=9,
            changed_px=1,
            outcome=outcome,
            before={"ap50": 0.4},
            after={"ap50": 0.6},
        )
        paths.append(save(folder / f"mine {number}.safetensors", [learned]))
    assert read_card(base).history == ()
    return paths


def use(dock, path) -> None:
    from napari_unet.models.own_file import read_card

    dock.load_model_file(path)
    card = read_card(path).model_dump(mode="json")
    dock.engine.last.answer(**{**loaded(str(path)), "card": card})


def test_every_version_is_listed_and_one_click_brings_it_back(dock, family) -> None:
    base, _, aside = family
    use(dock, base)
    dialog = dock.retrain_panel.show_versions()
    top = dialog.tree.topLevelItem(0)
    assert top.text(0) == "mine (in use)"
    lines = [[top.child(row).text(column) for column in range(6)] for row in range(2)]
    assert lines[0][0] == "mine 2"
    assert lines[0][2:] == ["2 regions on 1 plane, 5 objects", "better", "0.40", "0.60"]
    assert lines[1][3] == "not better, set aside"
    assert not find(dialog, "use_version").isEnabled(), "it is in use"
    dialog.choose("mine 3")
    find(dialog, "use_version").click()
    back = library.user_folder() / "mine 3.safetensors"
    assert dock.engine.last.parameters["model"] == str(back)
    assert back.exists()
    assert not aside.exists()


def test_the_model_before_is_found_in_a_later_session_too(dock, family) -> None:
    base, second, _ = family
    use(dock, second)
    assert find(dock, "rollback").isEnabled()
    find(dock, "rollback").click()
    assert dock.engine.last.parameters["model"] == str(base)


def test_a_model_before_that_was_removed_is_told(dock, family) -> None:
    base, second, _ = family
    use(dock, second)
    base.unlink()
    find(dock, "rollback").click()
    assert "was removed" in find(dock, "status").text()
    dialog = dock.retrain_panel.show_versions()
    assert "file removed" in dialog.tree.topLevelItem(0).text(0)


def test_a_version_set_aside_can_be_deleted_and_another_compared(dock, family) -> None:
    base, second, aside = family
    run_segment(dock, squares((5, 5)))
    use(dock, second)
    dialog = dock.retrain_panel.show_versions()
    dialog.choose("mine 3")
    find(dialog, "remove_version").click()
    assert not aside.exists()
    dialog.choose("mine")
    assert not find(dialog, "remove_version").isEnabled()
    find(dialog, "compare_version").click()
    job = dock.engine.last
    assert job.name == "compare"
    assert (job.parameters["old"], job.parameters["new"]) == (str(base), str(second))


def test_a_version_taken_against_the_advice_can_still_be_compared(dock, family, qtbot) -> None:
    base, _, aside = family
    use(dock, base)
    run_segment(dock, squares((5, 5)))
    check(dock)
    dock.retrain_panel.run()
    dock.engine.last.answer(**result("not better", str(aside)))
    find(dialog_of(dock), "outcome_switch").click()
    back = library.user_folder() / aside.name
    assert dock.engine.last.parameters["model"] == str(back)
    dock.engine.last.answer(**loaded(str(back), name="mine 3"))
    find(dock, "before_and_after").click()
    find(dialog_of(dock), f"show_{DIFFERENCE}").click()
    job = dock.engine.last
    assert (job.parameters["old"], job.parameters["new"]) == (str(base), str(back))


def test_the_dialog_goes_back_to_the_model_it_tells_of(judged) -> None:
    find(dialog_of(judged), "outcome_switch").click()
    assert judged.engine.last.parameters["model"] == "/models/nuclei.safetensors"


# Trainings that were broken off


@pytest.fixture
def broken_off(tmp_path):
    """Leave a training behind, as a process that was killed does."""
    from safetensors.numpy import save_file

    folder = unfinished.new_training()
    lesson = unfinished.Lesson("nuclei", "", "nuclei", 2, [{"image": "a"}], {}, None)
    unfinished.write_lesson(folder, lesson, {"a": np.zeros((4, 4))})
    state = {"curve": [{"fraction": 0.5}]}
    save_file(
        {"x": np.zeros(1)}, folder / unfinished.STATE_FILE, metadata={"state": json.dumps(state)}
    )
    assert asdict(lesson)["regions"] == 2
    return folder


def test_a_training_left_behind_is_offered_and_goes_on(broken_off, dock) -> None:
    text = dock.retrain_panel.broken_off.text.value
    assert "nuclei on 2 regions on 1 plane" in text
    assert "50%" in text
    find(dock, "go_on").click()
    job = dock.engine.last
    assert (job.name, job.parameters["training"]) == ("go_on", str(broken_off))
    assert find(dock, "stop").isEnabled()
    unfinished.discard(broken_off)  # as the worker does at the end
    job.answer(**result())
    assert dock.retrain_panel.broken_off.offered is None
    assert dock.session.model.card.name == "nuclei 2"


def test_what_cannot_go_on_is_cleared_away(broken_off, make_dock) -> None:
    (broken_off / unfinished.STATE_FILE).write_bytes(b"cut off")
    dock = make_dock()
    assert dock.retrain_panel.broken_off.offered is None
    assert not broken_off.exists()


def test_a_training_left_behind_can_be_discarded(broken_off, dock) -> None:
    find(dock, "discard_training").click()
    assert not broken_off.exists()
    assert not find(dock, "go_on").isVisible()


def test_a_training_another_window_is_at_is_not_offered(broken_off, dock) -> None:
    lock = lock_at(unfinished.lock_path(broken_off))
    assert lock.tryLock(0)
    dock.retrain_panel.broken_off.refresh()
    assert dock.retrain_panel.broken_off.offered is None
    lock.unlock()
    dock.retrain_panel.broken_off.refresh()
    assert dock.retrain_panel.broken_off.offered is not None


def test_a_cancelled_training_is_not_offered(dock) -> None:
    run_segment(dock, squares((5, 5)))
    check(dock)
    dock.retrain_panel.run()
    job = dock.engine.last
    assert job.parameters["training"]
    job.cancel()
    assert list(unfinished.unfinished_folder().iterdir()) == []
    assert dock.retrain_panel.broken_off.offered is None
