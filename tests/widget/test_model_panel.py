"""The section Model: any file, its card, its readings, and what is done with it."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QAction, QDropEvent, QTextDocument, QTextTable
from qtpy.QtWidgets import QInputDialog, QMessageBox

from napari_unet.models import library
from napari_unet.settings import Normalization
from napari_unet.widget import contributions, model_menu, model_panel
from napari_unet.widget.card_dialog import CardDialog
from napari_unet.widget.pictures import foreground_of, grey_plane
from napari_unet.widget.trial_dialog import TrialDialog
from tests.widget.fake_engine import CARD, find, loaded, run_segment, squares

ASSUMED = {
    "source": "net.pth, PyTorch weights",
    "assumed": {"normalization": "The file does not say.", "skip order": "Skip first."},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an empty folder of the person's own models."""
    own = tmp_path / "models"
    own.mkdir()
    monkeypatch.setattr(library, "user_folder", lambda: own)
    return own


def load(dock, path: object = "/weights/net.pth", readings=("one", "two"), **card) -> None:
    """Let the dock load a file and answer as the engine would."""
    dock.load_model_file(str(path))
    values = loaded(str(path), **{**ASSUMED, **card})
    dock.engine.last.answer(**values, readings=list(readings), reading=0, sha256="ab" * 32)


def test_the_new_controls_are_there_and_explain_themselves(dock) -> None:
    for name in ("edit_card", "reading", "try_readings", "more_model", "save_model", "open_model"):
        assert len(find(dock, name).toolTip()) > 10, name
    for name in ("rename_model", "remove_model", "reveal_model", "open_folder", "open_nickname"):
        action = dock.findChild(QAction, name)
        assert action is not None, name
        assert len(action.toolTip()) > 10, name


def test_a_file_from_elsewhere_is_explained_in_a_sentence(dock) -> None:
    load(dock)
    told = find(dock, "status").text()
    assert "net.pth, PyTorch weights: recognised as U-Net 2D" in told
    assert "the scaling of grey values" in told
    assert "2 things were assumed" in dock.model_panel.summary.value
    assert "Skip first." in dock.model_panel.summary.tooltip
    assert dock.model_panel.model.value == "/weights/net.pth"


def test_a_refused_file_leaves_the_model_in_use(dock) -> None:
    before = dock.session.model
    dock.load_model_file("/weights/pointer.pth")
    dock.engine.last.fail("pointer.pth is only a Git LFS pointer.")
    assert dock.session.model is before
    assert "Git LFS pointer" in find(dock, "status").text()


def test_of_models_asked_for_while_another_one_loads_the_last_is_used(dock) -> None:
    told = []
    dock.session.told.connect(told.append)
    for path in ("/weights/first.pth", "/weights/second.pth", "/weights/third.pth"):
        dock.load_model_file(path)
    while dock.engine.running:
        job = dock.engine.running
        job.answer(**loaded(job.parameters["model"], name=Path(job.parameters["model"]).stem))
    assert dock.session.model.path == Path("/weights/third.pth")
    assert not [text for text in told if "still running" in text]


def test_a_model_asked_for_while_one_that_fails_loads_is_used(dock) -> None:
    dock.load_model_file("/weights/broken.pth")
    dock.load_model_file("/weights/good.pth")
    dock.engine.last.fail("broken.pth is damaged.")
    dock.engine.last.answer(**loaded("/weights/good.pth"))
    assert dock.session.model.path == Path("/weights/good.pth")


def test_nothing_is_loaded_after_the_window_was_closed(dock) -> None:
    dock.load_model_file("/weights/first.pth")
    dock.load_model_file("/weights/second.pth")
    dock.engine.status = "closed"
    dock.engine.last.cancel()
    assert dock.engine.last.parameters["model"] == "/weights/first.pth"


def test_the_reading_in_use_goes_to_every_job(dock) -> None:
    load(dock)
    assert not dock.model_panel.readings.container.native.isHidden()
    dock.model_panel.readings.reading.value = 1
    assert dock.engine.last.parameters["model"] == "/weights/net.pth#2"
    values = loaded("/weights/net.pth", **ASSUMED)
    dock.engine.last.answer(**values, readings=["one", "two"], reading=1)
    assert dock.session.model.reference == "/weights/net.pth#2"
    run_segment(dock, squares((5, 5)))
    assert dock.engine.last.parameters["model"] == "/weights/net.pth#2"


def test_a_model_of_ours_shows_no_readings(dock) -> None:
    load(dock)
    dock.load_model_file("nuclei")
    dock.engine.last.answer(**loaded())
    assert dock.model_panel.readings.container.native.isHidden()


def answer_trials(dock, count: int) -> TrialDialog:
    """Answer a job of trials, one of which could not be run."""
    job = dock.engine.last
    assert job.name == "try_models"
    height, width = job.arrays["image"].shape[-2:]
    result = {"problems": {str(count - 1): "It does not fit."}, "cards": {}}
    for number in range(count - 1):
        result["cards"][str(number)] = {**CARD}
        result[f"probability_{number}"] = np.full((2, height, width), number / count, np.float32)
    job.answer(**result)
    return dock.window().findChild(TrialDialog)


def test_readings_and_scalings_are_tried_on_what_is_in_view_and_picked_by_looking(dock) -> None:
    load(dock)
    find(dock, "try_readings").click()
    job = dock.engine.last
    trials = job.parameters["trials"]
    assert [trial["reading"] for trial in trials] == [0, 0, 0, 1, 1, 1]
    kinds = [t["card"].get("normalization", {}).get("kind") for t in trials[:3]]
    assert kinds == [None, "mean-std", "divide"]
    assert job.arrays["image"].shape == (64, 80)
    dialog = answer_trials(dock, 6)
    assert not find(dialog, "trial_5").isEnabled(), "the one that failed cannot be picked"
    dialog.pick(3)
    find(dialog, "use_trial").click()
    assert dock.engine.last.name == "load"
    assert dock.engine.last.parameters["model"] == "/weights/net.pth#2"
    dock.engine.last.cancel()


def test_a_picked_scaling_changes_the_card(dock) -> None:
    load(dock, readings=("",))
    dock.model_panel.readings.try_all()
    dialog = answer_trials(dock, 3)
    dialog.pick(1)
    find(dialog, "use_trial").click()
    job = dock.engine.last
    assert (job.name, job.parameters["model"]) == ("edit_card", "/weights/net.pth")
    assert job.parameters["card"]["normalization"]["kind"] == "mean-std"
    job.cancel()


def test_without_an_image_trying_says_so(dock, qtbot) -> None:
    load(dock)
    count = len(dock.engine.jobs)
    dock.session.viewer.layers.clear()
    qtbot.waitUntil(lambda: dock.segment_panel.image.value is None)
    dock.model_panel.readings.try_all()
    assert len(dock.engine.jobs) == count
    assert "Open an image first" in find(dock, "status").text()


def open_card(dock) -> CardDialog:
    find(dock, "edit_card").click()
    return dock.window().findChild(CardDialog)


def test_the_card_is_shown_with_all_that_is_known(dock) -> None:
    load(dock, licence="MIT", scores={"AP on x": 0.5})
    dialog = open_card(dock)
    text = dialog.facts.text()
    for known in ("188 px", "1,900,000", "MIT", "0.500", "SHA-256", "Skip first."):
        assert known in text, known
    dialog.reject()


def test_only_what_was_changed_in_the_card_is_saved(dock) -> None:
    load(dock)
    dialog = open_card(dock)
    dialog.name.setText("cells of Ada")
    find(dialog, "card_outputs").setText("distance, foreground")
    dialog.scaling.setCurrentText("divided by a number")
    find(dialog, "card_divisor").setText("4095")
    find(dialog, "card_pixel_size_um").setText("0.5")
    find(dialog, "save_card").click()
    job = dock.engine.last
    assert job.name == "edit_card"
    changes = job.parameters["card"]
    assert set(changes) == {"name", "outputs", "normalization", "pixel_size_um"}
    assert changes["outputs"] == ["distance", "foreground"]
    assert Normalization(**changes["normalization"]).divisor == 4095
    job.answer(**loaded("/models/cells of Ada.safetensors", name="cells of Ada"))
    assert dock.session.model.card.name == "cells of Ada"


def test_names_with_commas_in_them_stay_whole_in_the_card(dock) -> None:
    load(dock, input_channels=("stain, bright on dark",), authors=("Lovelace, Ada", "B"))
    dialog = open_card(dock)
    assert not dialog.problem.text()
    assert find(dialog, "card_authors").text() == "Lovelace, Ada; B"
    assert dialog.changes() == {}
    find(dialog, "card_authors").setText("Lovelace, Ada; B; C")
    assert dialog.changes() == {"authors": ["Lovelace, Ada", "B", "C"]}
    dialog.reject()


def test_what_is_known_is_seen_however_long_its_name_is(dock, qtbot) -> None:
    load(dock, scores={"error at the best threshold, sections 20-23, mean of 8 turns": 0.5})
    dialog = open_card(dock)
    qtbot.waitExposed(dialog)
    shown = QTextDocument()
    shown.setHtml(dialog.facts.text())
    shown.setTextWidth(360)
    assert shown.idealWidth() <= 360
    table = next(part for part in shown.rootFrame().childFrames() if isinstance(part, QTextTable))
    cell = table.cellAt(0, 1).firstCursorPosition().block()
    assert shown.documentLayout().blockBoundingRect(cell).left() < 150
    dialog.reject()


def test_a_card_that_was_not_changed_is_not_saved(dock) -> None:
    load(dock)
    count = len(dock.engine.jobs)
    find(open_card(dock), "save_card").click()
    assert len(dock.engine.jobs) == count


@pytest.mark.parametrize(
    ("field", "text", "sentence"),
    [
        ("card_outputs", "one", "outputs"),
        ("card_input_channels", "", "channels"),
        ("card_pixel_size_um", "small", "no number"),
        ("card_object_size_px", "-3", "object_size_px"),
        ("card_low", "99.9", "percentile"),
        ("card_name", " ", "name"),
    ],
)
def test_what_does_not_make_sense_in_a_card_is_said_at_once(dock, field, text, sentence) -> None:
    load(dock)
    dialog = open_card(dock)
    find(dialog, field).setText(text)
    assert sentence in dialog.problem.text()
    assert not find(dialog, "save_card").isEnabled()
    dialog.reject()


OPEN = [
    {
        "name": "skip_order",
        "topic": "skip order",
        "value": "upsampled-first",
        "choices": {"upsampled-first": "upsampled first", "skip-first": "skip first"},
    },
    {
        "name": "activation",
        "topic": "activation of the layers",
        "value": "relu",
        "choices": {"relu": "ReLU", "leaky_relu": "leaky ReLU"},
        "told_by": "somebody's net",
    },
    {"name": "output", "topic": "activation", "value": "sigmoid", "choices": {"sigmoid": ""}},
]
SLOPE = {
    "name": "slope", "topic": "slope below 0", "value": "0.01", "choices": {"0.01": "", "0.1": ""},
    "form": "number",
}  # fmt: skip


def load_open(dock) -> None:
    """Load a file that leaves two points of its network open."""
    dock.load_model_file("/weights/net.pth")
    values = loaded("/weights/net.pth", **ASSUMED)
    dock.engine.last.answer(**values, readings=["one", "two"], reading=0, assumptions=OPEN)


def answer_preview(dock, assumptions=OPEN) -> None:
    """Answer what the card asks for, as the engine would."""
    job = dock.engine.last
    height, width = job.arrays["image"].shape[-2:]
    numbers = range(len(job.parameters["trials"]))
    job.answer(
        problems={},
        cards={str(number): CARD for number in numbers},
        assumptions={str(number): assumptions for number in numbers},
        **{f"probability_{n}": np.full((2, height, width), 0.9, np.float32) for n in numbers},
    )


def previews(dock) -> int:
    return sum(job.name == "try_models" for job in dock.engine.jobs)


def test_each_change_of_a_card_is_shown_on_the_image_beside_the_card_as_it_is(dock, qtbot) -> None:
    load_open(dock)
    dialog = open_card(dock)
    qtbot.waitUntil(lambda: previews(dock) == 1)
    assert "card" not in dock.engine.last.parameters["trials"][0], "first the card as it is"
    answer_preview(dock)
    assert [line.text() for line in dialog.preview.lines] == [
        "as it is: 100% labelled", "as set now: 100% labelled",
    ]  # fmt: skip
    dialog.scaling.setCurrentText("mean 0, standard deviation 1")
    qtbot.waitUntil(lambda: previews(dock) == 2)
    (trial,) = dock.engine.last.parameters["trials"]
    assert trial["card"]["normalization"]["kind"] == "mean-std"
    answer_preview(dock)
    dialog.reject()


def test_single_assumptions_are_told_in_the_card_and_saved_with_it(dock, qtbot) -> None:
    load_open(dock)
    dialog = open_card(dock)
    qtbot.waitUntil(lambda: previews(dock) == 1)
    answer_preview(dock)
    order, activation = (find(dialog, f"assume_{name}") for name in ("skip_order", "activation"))
    assert (order.currentText(), activation.currentText()) == ("upsampled first", "ReLU")
    assert dialog.told.text().startswith("* is assumed; the rest is as somebody's net has it.")
    assert dialog.findChild(type(order), "assume_output") is None, "that is a field of the card"
    activation.setCurrentText("leaky ReLU")
    qtbot.waitUntil(lambda: previews(dock) == 2)
    assert dock.engine.last.parameters["trials"][0]["assume"] == {"activation": "leaky_relu"}
    answer_preview(dock, [*OPEN, SLOPE])
    find(dialog, "assume_slope").setEditText("0.3")
    qtbot.waitUntil(lambda: previews(dock) == 3)
    find(dialog, "save_card").click()
    dock.engine.last.cancel()  # the engine gives the picture up
    job = dock.engine.last
    assert job.name == "edit_card"
    assert job.parameters["assume"] == {"activation": "leaky_relu", "slope": "0.3"}
    assert job.parameters["card"] == {}
    job.answer(**loaded("/models/net.safetensors"))
    assert str(dock.session.model.path) == "/models/net.safetensors"


def test_a_reading_that_was_tried_is_adjusted_in_its_card(dock, qtbot) -> None:
    load_open(dock)
    find(dock, "try_readings").click()
    job = dock.engine.last
    height, width = job.arrays["image"].shape[-2:]
    job.answer(
        problems={},
        cards={str(number): CARD for number in range(6)},
        assumptions={str(number): OPEN for number in range(6)},
        **{f"probability_{n}": np.zeros((2, height, width), np.float32) for n in range(6)},
    )
    trial = dock.window().findChild(TrialDialog)
    trial.pick(4)
    find(trial, "adjust_trial").click()
    dialog = dock.window().findChild(CardDialog)
    assert dialog.scaling.currentText() == "mean 0, standard deviation 1"
    find(dialog, "assume_skip_order").setCurrentText("skip first")
    qtbot.waitUntil(lambda: previews(dock) == 2)
    assert dock.engine.last.parameters["model"] == "/weights/net.pth#2"
    find(dialog, "save_card").click()
    dock.engine.last.cancel()
    job = dock.engine.last
    assert (job.name, job.parameters["model"]) == ("edit_card", "/weights/net.pth#2")
    assert job.parameters["assume"] == {"skip_order": "skip-first"}
    assert job.parameters["card"]["normalization"]["kind"] == "mean-std"
    job.cancel()


def listed(dock) -> list[str]:
    """Return the list of models as a person sees it."""
    box = find(dock, "model")
    return [box.itemText(place) for place in range(box.count())]


def test_models_that_fit_the_image_come_first_and_others_say_why_not(dock, folder) -> None:
    from safetensors.numpy import save_file

    from napari_unet.models.card import Card
    from napari_unet.models.formats import CARD_KEY
    from napari_unet.settings import Architecture

    for name, shape in {"a 3D one": {"spatial_dims": 3}, "b plain": {}}.items():
        card = Card(name=name, architecture=Architecture(widths=(3, 4), **shape))
        path = folder / f"{name}.safetensors"
        save_file({"a": np.ones(1)}, path, {CARD_KEY: card.model_dump_json()})
    (folder / "c.pth").write_bytes(pickle.dumps({}))
    dock.model_panel.refresh()
    shown = listed(dock)
    assert shown.index("b plain") < shown.index("a 3D one (needs a z axis)")
    assert shown.index("c.pth") < shown.index("a 3D one (needs a z axis)")
    load(
        dock,
        "/weights/of three.pth",
        architecture={**CARD["architecture"], "in_channels": 3},
        input_channels=("r", "g", "b"),
    )
    load(dock, "/weights/of one.pth")
    shown = listed(dock)
    assert shown.index("of one.pth") < shown.index("a 3D one (needs a z axis)")
    misfits = ["a 3D one (needs a z axis)", "of three.pth (needs 3 channels, the image has 1)"]
    assert shown[-2:] == misfits, "new ones are not put behind those that do not fit"
    stack = dock.session.viewer.add_image(np.zeros((4, 64, 80)), name="stack")
    stack.axis_labels = ("z", "y", "x")
    dock.segment_panel.image.reset_choices()
    dock.segment_panel.image.value = stack
    dock.segment_panel.axes.value = "ZYX"
    assert "a 3D one" in listed(dock)


def test_a_package_for_bioimage_io_needs_authors_licence_and_purpose(dock) -> None:
    load(dock, segments="unknown", licence="MIT")
    count = len(dock.engine.jobs)
    dock.model_panel.save_to("x.zip", "bioimageio")
    assert len(dock.engine.jobs) == count
    assert "Authors, Segments" in find(dock, "status").text()


def test_a_model_is_saved_in_the_format_that_was_chosen(dock, monkeypatch, tmp_path) -> None:
    load(dock, authors=["Ada"], licence="MIT")
    for chosen, (format, ending) in model_panel.SAVE_FORMATS.items():
        monkeypatch.setattr(
            model_panel.QFileDialog,
            "getSaveFileName",
            lambda *_, chosen=chosen: (str(tmp_path / "out.safetensors"), chosen),
        )
        find(dock, "save_model").click()
        job = dock.engine.last
        assert (job.name, job.parameters["format"]) == ("save_model", format)
        assert job.parameters["destination"] == str(tmp_path / f"out{ending}")
        job.answer(path=job.parameters["destination"])


def test_renaming_and_removing_need_a_file_of_ones_own(dock, folder, monkeypatch) -> None:
    menu = dock.model_panel.menu
    menu.follow()
    assert not menu.rename.isEnabled()
    mine = folder / "mine.pth"
    mine.write_bytes(pickle.dumps({}))
    load(dock, mine)
    menu.follow()
    assert menu.rename.isEnabled()
    monkeypatch.setattr(QInputDialog, "getText", lambda *_, **__: ("ours", True))
    menu.rename.trigger()
    assert dock.engine.last.parameters["model"] == str(folder / "ours.pth")
    dock.engine.last.answer(**loaded(str(folder / "ours.pth"), **ASSUMED))
    monkeypatch.setattr(QMessageBox, "question", lambda *_: QMessageBox.StandardButton.No)
    menu.remove.trigger()
    assert (folder / "ours.pth").exists()
    monkeypatch.setattr(QMessageBox, "question", lambda *_: QMessageBox.StandardButton.Yes)
    monkeypatch.setattr(model_menu, "_moved_to_trash", lambda _: False)
    menu.remove.trigger()
    assert not (folder / "ours.pth").exists()


def test_a_file_elsewhere_is_only_forgotten(dock, folder, tmp_path) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(pickle.dumps({}))
    library.remember_model(path)
    load(dock, path)
    dock.model_panel.menu.remove.trigger()
    assert library.recent_models() == []
    assert path.exists()


def dropped(path: Path) -> tuple[QDropEvent, QMimeData]:
    """Make the event of a file dropped with the mouse; its data must be kept."""
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path))])
    left, none = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    return QDropEvent(QPointF(5, 5), Qt.DropAction.CopyAction, data, left, none), data


def test_any_file_dropped_on_the_dock_is_loaded(dock, tmp_path) -> None:
    event, _data = dropped(tmp_path / "net.ckpt")
    dock.dropEvent(event)
    assert dock.engine.last.parameters["model"] == str(tmp_path / "net.ckpt")


def test_a_model_dropped_on_the_image_goes_to_the_dock_all_else_its_way(dock, tmp_path, qtbot):
    package = tmp_path / "package"
    package.mkdir()
    (package / "rdf.yaml").write_text("format_version: 0.4.9\nweights: {}\n")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    qtbot.waitUntil(lambda: len(dock.drops._watched) > 0)
    places = dock.drops._watched
    count = len(dock.engine.jobs)
    event, _data = dropped(pictures)
    assert not dock.drops.eventFilter(places[0], event)
    assert len(dock.engine.jobs) == count
    event, _data = dropped(package)
    assert dock.drops.eventFilter(places[0], event)
    assert dock.engine.last.parameters["model"] == str(package)


DROPPED = {
    "net.pth": (pickle.dumps({}), True),
    "net.zip": (b"PK\x05\x06" + bytes(18), False),
    "settings.yaml": (b"channels: [x]\n", False),
    "rdf.yaml": (b"format_version: 0.4.9\nweights: {}\n", True),
    "image.h5": (b"\x89HDF\r\n\x1a\n" + bytes(200), False),
    "keras.h5": (b"\x89HDF\r\n\x1a\n" + bytes(200) + b"layer_names", True),
    "pointer.pth": (b"version https://git-lfs.github.com/spec/v1\n", True),
    "page.onnx": (b"<!doctype html>", True),
    "empty.h5": (b"", False),
    "noise.pt": (bytes(range(256)), True),
}


@pytest.mark.parametrize("name", DROPPED)
def test_what_is_dropped_on_the_viewer_is_taken_only_if_it_is_weights(name, tmp_path) -> None:
    content, is_ours = DROPPED[name]
    (tmp_path / name).write_bytes(content)
    assert (contributions.get_model_reader(str(tmp_path / name)) is not None) == is_ours


def test_the_foreground_is_found_whatever_the_outputs_are_called() -> None:
    from napari_unet.models.card import Card

    probability = np.stack([np.full((2, 2), 0.9), np.full((2, 2), 0.2)]).astype(np.float32)
    for outputs, value in ((("a", "foreground"), 0.2), (("background", "cell"), 0.1)):
        card = Card(name="x", architecture={"classes": 2, "widths": [2, 3]}, outputs=outputs)
        np.testing.assert_allclose(foreground_of(card, probability), value, atol=1e-6)
        deep = probability[:, None].repeat(3, axis=1)
        assert foreground_of(card, deep).shape == (2, 2)
    assert grey_plane(np.zeros((3, 4, 5)), "CYX", (0,)).shape == (4, 5)
    assert grey_plane(np.zeros((6, 4, 5)), "ZYX", None).shape == (4, 5)
