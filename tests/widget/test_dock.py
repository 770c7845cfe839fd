"""The dock's panels together, over an engine that computes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from qtpy.QtWidgets import QDialog, QLabel

from tests.widget.fake_engine import find, loaded, run_segment, segmented, squares

OBJECT_NAMES = """model open_model image segment cancel progress status threshold min_size labels
next_uncertain region retrain stop rollback save_model export_format export""".split()


def test_every_promised_control_is_there_and_explains_itself(dock) -> None:
    for name in OBJECT_NAMES:
        control = find(dock, name)
        if name not in {"status", "progress"}:
            assert len(control.toolTip()) > 10, f"{name} has no tooltip"


def test_segment_sends_the_image_and_puts_the_labels_exactly_on_it(dock) -> None:
    viewer = dock.session.viewer
    dock.segment_panel.run()
    job = dock.engine.last
    assert job.name == "segment"
    assert job.arrays["image"] is viewer.layers["cells"].data
    assert job.parameters["axes"] == "YX"
    truth = squares((5, 5), (30, 40))
    job.answer(**segmented(truth))
    layer = viewer.layers["cells labels"]
    np.testing.assert_array_equal(layer.data, truth)
    np.testing.assert_array_equal(layer.scale, (0.5, 0.5))
    assert layer.units == viewer.layers["cells"].units
    assert find(dock, "status").text().startswith("2 objects")


def test_a_second_run_reuses_the_layer_as_long_as_nobody_touched_it(dock) -> None:
    run_segment(dock, squares((5, 5)))
    run_segment(dock, squares((30, 40)))
    layers = dock.session.viewer.layers
    assert [la.name for la in layers] == ["cells", "cells labels"]
    np.testing.assert_array_equal(layers["cells labels"].data, squares((30, 40)))


def test_labels_a_person_edited_are_never_overwritten(dock) -> None:
    run_segment(dock, squares((5, 5), (30, 40)))
    viewer = dock.session.viewer
    edited = viewer.layers["cells labels"]
    edited.brush_size = 6
    edited.paint((50, 10), 3)
    kept = edited.data.copy()
    run_segment(dock, squares((5, 5), (30, 60)))
    np.testing.assert_array_equal(edited.data, kept)
    newest = dock.session.labels
    assert newest is not edited
    assert not edited.visible
    assert (newest.data[kept == 3] > 0).all(), "the painted object lives on in the new labels"
    assert newest.data[35, 65] > 0, "the new run's object is there"


def test_checked_regions_keep_their_labels_in_a_newer_run(dock) -> None:
    run_segment(dock, squares((5, 5), (30, 40)))
    edited = dock.session.labels
    annotation = dock.session.annotation(edited)
    annotation.regions.add_box((), 0, 0, 20, 20)
    edited.fill((8, 8), 0)
    run_segment(dock, squares((5, 5), (30, 40)))
    newest = dock.session.annotation(dock.session.labels)
    assert newest.labels is not edited
    assert not newest.labels.data[:20, :20].any(), "what was deleted in a checked box stays so"
    assert newest.regions.count == 1
    assert newest.edits.any(), "and still counts as a correction of the new labels"


def test_moving_the_threshold_labels_again_without_the_network(dock, qtbot) -> None:
    run_segment(dock, squares((5, 5)))
    dock.segment_panel.threshold.value = 0.7
    qtbot.waitUntil(lambda: dock.engine.last.name == "label", timeout=2000)
    job = dock.engine.last
    assert job.parameters["token"] == "t1"
    assert job.parameters["settings"]["threshold"] == 0.7
    job.answer(labels=squares((30, 30)))
    np.testing.assert_array_equal(dock.session.labels.data, squares((30, 30)))


def test_smaller_tiles_that_fitted_once_can_be_forgotten(dock) -> None:
    dock.segment_panel.forget_tiles.native.click()
    job = dock.engine.last
    assert job.name == "forget_tiles"
    assert not dock.segment_panel.forget_tiles.enabled
    job.answer()
    assert "larger tiles again" in find(dock, "status").text()
    assert dock.segment_panel.forget_tiles.enabled


def test_moving_the_threshold_does_not_touch_corrections(dock, qtbot) -> None:
    run_segment(dock, squares((5, 5)))
    dock.session.labels.paint((50, 50), 5)
    count = len(dock.engine.jobs)
    dock.segment_panel.threshold.value = 0.7
    qtbot.wait(500)
    assert len(dock.engine.jobs) == count
    assert "corrections" in find(dock, "status").text()


def test_wrong_fields_say_so_before_the_button_is_pressed(dock, qtbot) -> None:
    assert find(dock, "segment").isEnabled()
    dock.segment_panel.tile_px.value = 64
    assert "at least" in dock.segment_panel.tile_problem.value
    assert not find(dock, "segment").isEnabled()
    dock.segment_panel.tile_px.value = 0
    dock.session.viewer.layers.clear()
    qtbot.waitUntil(lambda: "Open an image" in dock.segment_panel.image_problem.value)
    assert not find(dock, "segment").isEnabled()
    assert "Segment" in dock.correct_panel.problem.value
    assert not find(dock, "retrain").isEnabled()
    assert not find(dock, "export").isEnabled()


def test_retrain_sends_what_was_vouched_for_and_nothing_else(dock) -> None:
    run_segment(dock, squares((5, 5), (30, 40)))
    assert not find(dock, "retrain").isEnabled()
    annotation = dock.session.annotation(dock.session.labels)
    annotation.regions.add_box((), 0, 0, 32, 32)
    assert find(dock, "retrain").isEnabled()
    annotation.labels.fill((8, 8), 0)
    dock.retrain_panel.run()
    job = dock.engine.last
    assert job.name == "finetune"
    (sample,) = job.parameters["samples"]
    assert job.arrays[sample["labelled"]].sum() == 32 * 32
    assert job.arrays[sample["changed"]].sum() == 100
    assert not job.arrays[sample["labels"]][:20, :20].any()
    assert sample["axes"] == "YX"
    assert find(dock, "stop").isEnabled()


def scores(ap50: float) -> dict[str, float]:
    return {"ap50": ap50, "iou": 0.8, "missed": 1, "spurious": 0, "merged": 0, "split": 0}


def learned(**more) -> dict:
    """Return one step of a history, as a card tells it."""
    step = {
        "parent": "nuclei",
        "created": "2026-11-21T10:00:00+00:00",
        "regions": 1,
        "planes": 1,
        "objects": 2,
        "vouched_px": 1024,
        "changed_px": 0,
        "outcome": "better",
    }
    return {**step, **more}


def finish_training(dock, qtbot, outcome: str) -> None:
    """Answer a running "finetune"."""
    dock.engine.last.answer(
        model="/models/nuclei 2.safetensors",
        card={
            **loaded()["card"],
            "name": "nuclei 2",
            "parent": "nuclei",
            "history": [learned(outcome=outcome)],
        },
        outcome=outcome,
        verdict=f"The verdict is: {outcome}.",
        before=scores(0.5),
        after=scores(0.7),
        report={},
    )
    qtbot.wait(20)


def dialogs_of(dock) -> list[QDialog]:
    return [found for found in dock.window().findChildren(QDialog) if found.isVisible()]


def dialog_of(dock) -> QDialog:
    """Find the dialog that stands open beside the dock."""
    (dialog,) = dialogs_of(dock)
    return dialog


def texts_of(widget) -> list[str]:
    return [label.text() for label in widget.findChildren(QLabel)]


@pytest.fixture
def trained(dock):
    """A dock with a retraining under way."""
    run_segment(dock, squares((5, 5), (30, 40)))
    dock.session.annotation(dock.session.labels).regions.add_box((), 0, 0, 32, 32)
    dock.retrain_panel.run()
    return dock


def test_a_better_model_is_taken_and_the_old_one_is_a_click_away(trained, qtbot) -> None:
    finish_training(trained, qtbot, "better")
    assert trained.session.model.card.name == "nuclei 2"
    assert any("0.70" in text for text in texts_of(dialog_of(trained)))
    assert find(trained, "rollback").isEnabled()
    old = Path("/models/nuclei.safetensors")
    trained.retrain_panel._use(old)
    assert trained.engine.last.parameters["model"] == str(old)
    trained.engine.last.answer(**loaded())
    assert trained.session.model.card.name == "nuclei"
    assert not find(trained, "rollback").isEnabled()
    assert trained.retrain_panel.result.value == "Better: nuclei is in use again."
    assert "Better: nuclei is in use again." in dialog_of(trained).headline.text()
    assert dialog_of(trained).switch.text() == "Use nuclei 2"
    dialog_of(trained).switch.click()
    assert trained.engine.last.parameters["model"] == "/models/nuclei 2.safetensors"


def test_a_model_that_is_not_better_is_not_taken_unless_asked_for(trained, qtbot) -> None:
    finish_training(trained, qtbot, "not better")
    assert trained.session.model.card.name == "nuclei"
    assert "Not better: nuclei stays in use" in trained.retrain_panel.result.value
    assert "nuclei stays in use" in find(trained, "status").text()
    dialog_of(trained).switch.click()
    assert trained.engine.last.name == "load"
    trained.engine.last.answer(**loaded("/models/nuclei 2.safetensors", name="nuclei 2"))
    assert trained.session.model.card.name == "nuclei 2"
    assert trained.retrain_panel.result.value == "Not better: nuclei 2 is in use all the same."
    assert not trained.retrain_panel.use_candidate.native.isVisibleTo(trained.window())
    find(trained, "before_and_after").click()
    assert "nuclei 2 is in use all the same" in dialog_of(trained).headline.text()
    assert dialog_of(trained).switch.text() == "Back to nuclei"


@pytest.mark.parametrize("outcome", ["better", "not better"])
def test_the_verdict_is_said_once_and_where_the_person_looks(trained, qtbot, outcome) -> None:
    finish_training(trained, qtbot, outcome)
    verdict = f"The verdict is: {outcome}."
    assert texts_of(trained.window()).count(verdict) == 1
    assert "in use" in find(trained, "status").text()
    dialog_of(trained).close()
    assert dialogs_of(trained) == []
    find(trained, "before_and_after").click()
    assert verdict in texts_of(dialog_of(trained))


def test_deleting_the_regions_disables_retrain_at_once(dock) -> None:
    run_segment(dock, squares((5, 5)))
    annotation = dock.session.annotation(dock.session.labels)
    annotation.regions.add_box((), 0, 0, 32, 32)
    assert find(dock, "retrain").isEnabled()
    dock.session.viewer.layers.remove(annotation.regions.layer)
    assert not find(dock, "retrain").isEnabled()
    assert "0 regions" in dock.correct_panel.summary.value


def test_a_line_drawn_as_region_enables_nothing_and_is_explained(dock) -> None:
    run_segment(dock, squares((5, 5)))
    layer = dock.session.annotation(dock.session.labels).regions.draw()
    layer.add_lines(np.array([[2.0, 2.0], [30.0, 30.0]]))
    assert not find(dock, "retrain").isEnabled()
    assert "line" in find(dock, "status").text()


def test_export_names_the_labels_as_they_are_called_now(dock, qtbot) -> None:
    run_segment(dock, squares((5, 5)))
    dock.session.labels.name = "renamed"
    qtbot.waitUntil(lambda: dock.export_panel.what.value.startswith("renamed"), timeout=500)


def test_stop_asks_the_job_to_end_early(trained) -> None:
    find(trained, "stop").click()
    assert trained.engine.last.stopped


def test_cancel_is_there_only_while_something_runs(dock) -> None:
    assert not find(dock, "cancel").isVisibleTo(dock)
    dock.segment_panel.run()
    assert find(dock, "cancel").isVisibleTo(dock)
    find(dock, "cancel").click()
    assert "Cancelled" in find(dock, "status").text()
    assert not find(dock, "cancel").isVisibleTo(dock)
    assert [la.name for la in dock.session.viewer.layers] == ["cells"], "no half layer is left"


def test_a_failed_job_tells_its_sentence_and_the_next_click_works(dock) -> None:
    dock.segment_panel.run()
    dock.engine.last.fail("The computing process ended unexpectedly (signal 9).")
    assert "signal 9" in find(dock, "status").text()
    assert find(dock, "segment").isEnabled()
    run_segment(dock, squares((5, 5)))
    assert dock.session.labels is not None


def test_closing_the_image_while_it_is_labelled_makes_no_layer(dock) -> None:
    dock.segment_panel.run()
    job = dock.engine.last
    dock.session.viewer.layers.clear()
    job.answer(**segmented(squares((5, 5))))
    assert len(dock.session.viewer.layers) == 0


def test_only_the_plane_shown_is_labelled_in_a_stack_in_step_with_the_slider(dock, qtbot) -> None:
    viewer = dock.session.viewer
    stack = viewer.add_image(np.zeros((5, 64, 80), np.uint8), name="stack")
    panel = dock.segment_panel
    qtbot.waitUntil(lambda: stack in panel.image.choices)
    panel.image.value = stack
    panel.planes.value = panel.planes.choices[1]
    viewer.dims.set_point(0, 3)
    panel.run()
    job = dock.engine.last
    assert (job.arrays["image"].shape, job.parameters["axes"]) == ((64, 80), "YX")
    job.answer(**segmented(squares((5, 5))))
    layer = viewer.layers["stack labels"]
    assert layer.data.shape == (5, 64, 80)
    np.testing.assert_array_equal(layer.data[3], squares((5, 5)))
    assert not layer.data[:3].any()
    viewer.dims.set_point(0, 1)
    run_segment(dock, squares((30, 30)))
    np.testing.assert_array_equal(layer.data[3], squares((5, 5)))
    np.testing.assert_array_equal(layer.data[1], squares((30, 30)))


def test_no_plane_is_labelled_that_the_viewer_does_not_show(dock, qtbot) -> None:
    panel, viewer = dock.segment_panel, dock.session.viewer
    stack = viewer.add_image(np.zeros((5, 64, 80), np.uint8), name="stack")
    qtbot.waitUntil(lambda: panel.image.value is stack)
    panel.planes.value = panel.planes.choices[1]
    viewer.dims.roll()
    jobs = len(dock.engine.jobs)
    panel.run()
    assert len(dock.engine.jobs) == jobs
    assert "y and x" in find(dock, "status").text()
    panel.planes.value = panel.planes.choices[0]
    panel.run()
    assert len(dock.engine.jobs) == jobs + 1, "all planes do not depend on the view"


def test_taking_the_dock_out_of_the_window_ends_the_engine(dock) -> None:
    dock.session.viewer.window.remove_dock_widget(dock)
    assert dock.engine.is_closed


def test_export_writes_the_labels_with_their_pixel_size(dock, qtbot, tmp_path) -> None:
    import tifffile

    run_segment(dock, squares((5, 5), (30, 40)))
    path = tmp_path / "mask.ome.tif"
    dock.export_panel.export_to(path)

    def is_written() -> None:
        assert "Mask written" in find(dock, "status").text()

    qtbot.waitUntil(is_written, timeout=30_000)
    with tifffile.TiffFile(path) as tif:
        np.testing.assert_array_equal(tif.asarray(), squares((5, 5), (30, 40)))
        assert 'PhysicalSizeX="0.5"' in tif.ome_metadata


def test_the_tab_key_walks_the_sections_in_the_order_of_the_loop(dock) -> None:
    order = ["model", "open_model", "image", "segment", "threshold", "labels", "region", "retrain"]
    chain, at = [], find(dock, "model")
    for _ in range(3000):  # through the whole window and back
        chain.append(at.objectName())
        at = at.nextInFocusChain()
    walked = [name for name in chain[: chain.index("model", 1)] if name in order]
    assert list(dict.fromkeys(walked)) == order


def test_the_dock_remembers_budget_format_and_model(dock) -> None:
    from napari_unet.widget.preferences import Preferences

    dock.retrain_panel.seconds.value = 33
    dock.export_panel.format.value = "PNG"
    dock.close_session()
    kept = Preferences()
    assert kept.get("retrain.seconds", 0) == 33
    assert kept.get("dock.export_format", "") == "PNG"
    assert kept.get("dock.model", "") == "/models/nuclei.safetensors"


def test_long_names_do_not_push_controls_out_of_the_dock(dock, qtbot) -> None:
    from qtpy.QtWidgets import QScrollArea

    names = ["a nuclear stain, bright on a dark background", "another very long channel name"]
    card = {**loaded()["card"], "input_channels": names, "segments": "Something long. " * 9}
    card["architecture"] = {**card["architecture"], "in_channels": 2}
    dock.session.viewer.add_image(np.zeros((64, 80)), name="a layer with a very long name " * 3)
    dock.load_model_file("other")
    dock.engine.last.answer(**{**loaded("/models/" + "long name " * 9), "card": card})
    run_segment(dock, squares((5, 5)))
    inner = dock.findChild(QScrollArea).widget()
    qtbot.waitUntil(lambda: inner.minimumSizeHint().width() <= 330)


def test_the_channel_a_person_picked_stays_when_layers_come_and_go(dock, qtbot) -> None:
    panel, viewer = dock.segment_panel, dock.session.viewer
    rgb = viewer.add_image(np.zeros((64, 80, 3), np.uint8), rgb=True, name="rgb")
    qtbot.waitUntil(lambda: panel.image.value is rgb)
    assert panel.subject().sources[0].text.startswith("grey")
    row = find(dock, "channel_0")
    row.setCurrentText("green")
    assert panel.subject().sources[0].index == 1
    viewer.add_labels(np.zeros((64, 80), np.int32))
    viewer.add_image(np.zeros((64, 80)), name="other")
    qtbot.waitUntil(lambda: row.findText("other") > 0)
    panel.image.value = rgb
    run_segment(dock, squares((5, 5)))
    assert (
        dock.engine.last.parameters["settings"]["channels"] is None
    )  # another image starts afresh
    row.setCurrentText("green")
    viewer.layers.remove("other")
    qtbot.waitUntil(lambda: row.findText("other") < 0)
    run_segment(dock, squares((5, 5)))
    assert dock.engine.last.parameters["settings"]["channels"] == [1]


def test_the_axes_a_person_chose_stay_with_the_image(dock, qtbot) -> None:
    panel, viewer = dock.segment_panel, dock.session.viewer
    stack = viewer.add_image(np.zeros((5, 64, 80)), name="stack")
    qtbot.waitUntil(lambda: panel.image.value is stack)
    assert panel.axes.value == "ZYX"
    panel.axes.value = "CYX"
    other = viewer.add_image(np.zeros((6, 64, 80)), name="other")
    qtbot.waitUntil(lambda: panel.image.value is other)
    assert panel.axes.value == "ZYX", "the choice was about another image"
    viewer.layers.selection.active = stack
    assert panel.axes.value == "CYX"
    assert panel.subject().axes == "CYX"
    assert len(panel.subject().sources) == 1


def test_with_regions_but_no_edits_the_threshold_still_works_around_them(dock, qtbot) -> None:
    run_segment(dock, squares((5, 5), (30, 40)))
    layer = dock.session.labels
    dock.session.annotation(layer).regions.add_box((), 0, 0, 20, 20)
    dock.segment_panel.threshold.value = 0.7
    qtbot.waitUntil(lambda: dock.engine.last.name == "label", timeout=2000)
    dock.engine.last.answer(labels=squares((30, 60)))
    assert dock.session.labels is layer
    assert (layer.data[5:15, 5:15] > 0).all(), "what was checked stays"
    assert layer.data[35, 65] > 0, "the new object is there"
    assert not layer.data[30:40, 42:50].any(), "the old one outside has gone"


def test_labels_that_a_script_changed_are_not_overwritten_either(dock) -> None:
    run_segment(dock, squares((5, 5)))
    layer = dock.session.labels
    layer.data = squares((5, 5), (30, 40)) * 3
    kept = layer.data.copy()
    run_segment(dock, squares((5, 5)))
    assert dock.session.labels is not layer
    np.testing.assert_array_equal(layer.data, kept)


def test_layers_may_be_renamed_at_any_time(trained) -> None:
    trained.engine.last.cancel()
    trained.session.viewer.layers["cells"].name = "renamed"
    trained.retrain_panel.run()
    assert trained.engine.last.name == "finetune"
    assert trained.engine.running is not None


def test_the_dock_follows_the_labels_the_person_selects(dock) -> None:
    run_segment(dock, squares((5, 5)))
    viewer, first = dock.session.viewer, dock.session.labels
    second = viewer.add_labels(np.zeros((64, 80), np.int32), name="second")
    assert dock.session.labels is second
    viewer.layers.selection.active = first
    assert dock.session.labels is first
    viewer.layers.selection.active = second
    viewer.layers.selection.active = viewer.layers["cells"]
    assert dock.session.labels is first, "those of the image that was selected"


def test_two_models_of_one_name_are_both_in_the_list(dock) -> None:
    dock.load_model_file("copy")
    dock.engine.last.answer(**loaded("/elsewhere/nuclei.safetensors"))
    dock.load_model_file("other copy")
    dock.engine.last.answer(**loaded("/again/nuclei copy.safetensors"))
    paths = list(dock.model_panel.model.choices)
    assert {"/elsewhere/nuclei.safetensors", "/again/nuclei copy.safetensors"} <= set(paths)
    assert dock.model_panel.model.value == "/again/nuclei copy.safetensors"


def test_a_retrained_model_keeps_the_thresholds_the_person_set(dock) -> None:
    panel = dock.segment_panel
    panel.threshold.value, panel.min_size.value = 0.3, 300
    dock.load_model_file("child")
    dock.engine.last.answer(**loaded("/models/child.safetensors", name="child", parent="nuclei"))
    assert (panel.threshold.value, panel.min_size.value) == (0.3, 300)
    dock.load_model_file("other")
    dock.engine.last.answer(**loaded("/models/other.safetensors", name="other"))
    assert panel.threshold.value == 0.5


def test_how_readily_objects_are_split_comes_from_the_card_and_is_there_only_if_they_are(dock):
    panel = dock.segment_panel
    dock.load_model_file("other")
    card = {"instances": {"split_level": 0.4}}
    dock.engine.last.answer(**loaded("/models/other.safetensors", name="other", **card))
    assert panel.split_level.value == 0.4
    panel.split_level.value = 0.35
    assert panel.instance_settings().split_level == 0.35
    assert panel.split_level.enabled
    panel.split.value = False
    assert not panel.split_level.enabled
    panel.split.value = True
    assert panel.split_level.enabled


def test_the_smallest_object_follows_the_object_size_unless_the_person_set_it(dock) -> None:
    panel = dock.segment_panel
    dock.load_model_file("sized")
    dock.engine.last.answer(**loaded("/models/s.safetensors", name="sized", object_size_px=20))
    usual = panel.min_size.value
    panel.object_size.value = 40
    assert panel.min_size.value == 4 * usual
    dock.load_model_file("child")
    child = {"instances": {"min_size": 50, "threshold": 0.6}, "object_size_px": 20}
    answer = loaded("/models/child.safetensors", name="child", parent="sized", **child)
    dock.engine.last.answer(**answer)
    assert (panel.min_size.value, panel.threshold.value) == (200, 0.6)
    panel.object_size.value = 0
    assert panel.min_size.value == 50
    panel.min_size.value = 51
    panel.object_size.value = 40
    assert panel.min_size.value == 51


def test_an_image_of_too_many_axes_is_refused_beside_it(dock, qtbot) -> None:
    dock.session.viewer.add_image(np.zeros((2, 2, 2, 2, 40, 40), np.uint8), name="many")
    qtbot.waitUntil(lambda: "6 axes" in dock.segment_panel.image_problem.value)
    assert not find(dock, "segment").isEnabled()


def test_choosing_an_image_chooses_its_labels(dock, qtbot) -> None:
    run_segment(dock, squares((5, 5)))
    first = dock.session.labels
    viewer = dock.session.viewer
    other = viewer.add_image(np.ones((64, 80), np.uint16), name="other")
    qtbot.waitUntil(lambda: dock.segment_panel.image.value is other)
    run_segment(dock, squares((30, 30)))
    assert dock.session.labels is not first
    dock.segment_panel.image.value = viewer.layers["cells"]
    assert dock.session.labels is first
