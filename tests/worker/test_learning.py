"""Retraining in the computing process: versions are kept, broken-off trainings go on."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
import torch

from napari_unet.errors import WorkerError
from napari_unet.models import library
from napari_unet.models.card import Card
from napari_unet.models.model import Model, load_model, save_model
from napari_unet.models.versions import list_versions, set_aside_folder, weights_checksum
from napari_unet.runs.progress import Note, StepDone
from napari_unet.settings import SegmentSettings
from napari_unet.worker import jobs, unfinished
from napari_unet.worker.__main__ import Call

STEPS = 6


@pytest.fixture(autouse=True)
def one_thread():
    """Threads that wait for each other make small networks slow on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def empty_library(tmp_path, monkeypatch):
    """Let the person have no models yet."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.fixture
def model_path(tmp_path, tiny_unet):
    card = Card(name="tiny", architecture=tiny_unet.architecture)
    return save_model(Model(tiny_unet, card), tmp_path / "tiny.safetensors")


@pytest.fixture
def finetune(tmp_path, model_path, wide_blobs):
    """Return a function that begins a training; a stop may be given."""

    def begin(training, stop=None):
        image, labels = wide_blobs.image, wide_blobs.labels
        arrays = {"a": image, "b": labels, "c": np.ones(labels.shape, bool)}
        folder = tmp_path / "call"
        folder.mkdir(exist_ok=True)
        return jobs.finetune(
            Call(arrays, folder, stop or threading.Event().is_set),
            model=str(model_path),
            samples=[{"image": "a", "axes": "YX", "labels": "b", "labelled": "c"}],
            settings={"steps": STEPS, "seconds": None, "batch": 1, "crop_px": 32},
            name="mine",
            regions=2,
            training=str(training),
        )

    return begin


def go_on(tmp_path, training):
    return jobs.go_on(Call({}, tmp_path, threading.Event().is_set), training=str(training))


def failing_after(steps: int):
    """Return what a training asks whether to stop, until the power goes."""
    left = iter(range(steps))

    def ask() -> bool:
        if next(left, None) is None:
            raise RuntimeError("the power went")
        return False

    return ask


def break_off(run_to_end, finetune, training, after_steps: int = 3) -> None:
    """Let a training take some steps, then end as nothing in it expects."""
    with pytest.raises(RuntimeError, match="power"):
        run_to_end(finetune(training, failing_after(after_steps)))


def test_what_comes_out_is_kept_with_its_report_and_its_parent(
    finetune, model_path, run_to_end
) -> None:
    training = unfinished.new_training()
    values = run_to_end(finetune(training))[1]
    is_taken = values["outcome"] == "better"
    folder = library.user_folder() if is_taken else set_aside_folder()
    assert values["model"] == folder / "mine.safetensors"
    card = library.read_card(values["model"])
    (learned,) = card.history
    assert (card.name, learned.parent, learned.regions) == ("mine", "tiny", 2)
    assert learned.parent_weights == weights_checksum(model_path)
    report = json.loads(library.report_path(values["model"]).read_text())
    assert report["model"]["history"] == [learned.model_dump(mode="json")]
    assert report["model"]["name"] == "mine"
    assert [v.name for v in list_versions(values["model"], card)] == ["tiny", "mine"]
    assert not training.exists()


def test_a_second_version_gets_a_name_of_its_own(finetune, run_to_end) -> None:
    for _ in range(2):
        values = run_to_end(finetune(unfinished.new_training()))[1]
    assert values["card"].name == "mine 2"


def test_a_training_that_was_broken_off_goes_on_to_the_same_result(
    finetune, tmp_path, run_to_end
) -> None:
    unbroken = run_to_end(finetune(unfinished.new_training()))[1]
    training = unfinished.new_training()
    break_off(run_to_end, finetune, training)
    (found,) = unfinished.find_unfinished()
    assert found.folder == training
    assert 0 < found.fraction < 1
    assert "tiny on 2 regions on 1 plane" in found.describe()
    steps, resumed = run_to_end(go_on(tmp_path, training))
    notes = [event.text for event in steps if isinstance(event, Note)]
    assert any("going on after step" in note for note in notes), notes
    one, other = (load_model(v["model"]).net.state_dict() for v in (unbroken, resumed))
    for key, tensor in one.items():
        torch.testing.assert_close(other[key], tensor)
    assert resumed["card"].history[-1].parent == "tiny"
    assert unfinished.find_unfinished() == []
    assert not training.exists()


def test_a_stopped_training_is_judged_and_can_go_on(finetune, tmp_path, run_to_end) -> None:
    training = unfinished.new_training()
    asked = iter([False] * 2 + [True] * 100)
    values = run_to_end(finetune(training, lambda: next(asked)))[1]
    assert values["report"]["training"]["steps"] < STEPS
    assert [found.folder for found in unfinished.find_unfinished()] == [training]
    values = run_to_end(go_on(tmp_path, training))[1]
    assert values["report"]["training"]["steps"] == STEPS
    assert not training.exists()


def test_a_cancelled_training_leaves_nothing(finetune) -> None:
    training = unfinished.new_training()
    job = finetune(training)
    while not isinstance(next(job), StepDone):
        pass
    job.close()
    assert not training.exists()
    assert not library.user_folder().exists()
    assert not set_aside_folder().exists()


def test_a_training_goes_on_though_its_model_was_removed(
    finetune, tmp_path, model_path, run_to_end
) -> None:
    training = unfinished.new_training()
    break_off(run_to_end, finetune, training)
    model_path.unlink()
    assert run_to_end(go_on(tmp_path, training))[1]["report"]["training"]["steps"] == STEPS


def test_a_training_of_which_a_part_is_missing_says_so(finetune, tmp_path, run_to_end) -> None:
    training = unfinished.new_training()
    break_off(run_to_end, finetune, training)
    (training / unfinished.REQUEST_FILE).write_text("{}")
    assert unfinished.find_unfinished() == []
    with pytest.raises(WorkerError, match="Discard it"):
        next(go_on(tmp_path, training))


def test_what_two_models_label_otherwise_is_told(tmp_path, model_path, blobs, run_to_end) -> None:
    call = Call({"image": np.stack([blobs.image] * 2)}, tmp_path, threading.Event().is_set)
    settings = SegmentSettings().model_dump(mode="json")
    job = jobs.compare(
        call, old=str(model_path), new=str(model_path), axes="ZYX", settings=settings
    )
    values = run_to_end(job)[1]
    assert values["old"].shape == values["difference"].shape == (2, 96, 128)
    np.testing.assert_array_equal(values["old"], values["new"])
    assert (values["added"], values["gone"], values["changed"]) == (0, 0, 0)
