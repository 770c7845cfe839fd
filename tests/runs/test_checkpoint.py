"""A training that was stopped or killed goes on, to what it would have come to unbroken."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from napari_unet.errors import FileError, SettingError
from napari_unet.models.card import Card
from napari_unet.models.model import Model, load_model, save_model
from napari_unet.network.unet import UNet
from napari_unet.runs import checkpoint as module
from napari_unet.runs import finetune as finetuning
from napari_unet.runs.finetune import finetune, finetune_steps
from napari_unet.runs.learner import Learner
from napari_unet.runs.progress import Note, StepDone
from napari_unet.runs.samples import Sample
from napari_unet.settings import Architecture, FinetuneSettings, SegmentSettings

SETTINGS = FinetuneSettings(seconds=None, steps=12, batch=2, crop_px=32, elastic_px=3, device="cpu")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    net = UNet(Architecture(widths=(4, 8), norm="batch")).eval()
    return Model(net, Card(name="small", architecture=net.architecture))


@pytest.fixture
def sample(wide_blobs) -> Sample:
    changed = np.zeros(wide_blobs.labels.shape, bool)
    changed[:40, :40] = True
    return Sample(wide_blobs.image[np.newaxis], wide_blobs.labels, None, changed)


@pytest.fixture
def unbroken(model, sample):
    result = finetune(model, [sample], SETTINGS)
    assert result.before is not None, "both rounds are there"
    return result


def weights(model: Model) -> dict[str, torch.Tensor]:
    return model.net.state_dict()


def stopped_after(model, sample, path, steps, settings=SETTINGS, **options):
    seen = []

    def watch(progress):
        if isinstance(progress, StepDone):
            seen.append(progress.step)

    return finetune(
        model,
        [sample],
        settings,
        progress=watch,
        stop=lambda: bool(seen) and seen[-1] >= steps,
        checkpoint=path,
        **options,
    )


@pytest.fixture(autouse=True)
def every_step_is_told(monkeypatch):
    monkeypatch.setattr("napari_unet.runs.learner.REPORT_SECONDS", 0)
    monkeypatch.setattr("napari_unet.runs.rounds.FIRST_STEPS", 1)  # so that the last ones count


def test_no_other_file_is_taken_for_a_checkpoint_and_written_over(model, sample, tmp_path):
    notes, weights_file = tmp_path / "notes.txt", tmp_path / "mine.safetensors"
    notes.write_text("mine")
    save_model(model, weights_file)
    for path in (notes, weights_file):
        before = path.read_bytes()
        with pytest.raises(FileError, match="is no checkpoint of a training, and would be lost"):
            finetune(model, [sample], SETTINGS, checkpoint=path)
        assert path.read_bytes() == before
    stopped_after(model, sample, tmp_path / "a.checkpoint", 3)
    anew = stopped_after(model, sample, tmp_path / "a.checkpoint", 2)
    assert anew.report["training"]["steps"] == 2


def test_a_stopped_run_goes_on_to_the_result_of_an_unbroken_one(model, sample, unbroken, tmp_path):
    path = tmp_path / "a.checkpoint"
    for step in (3, 4, 9):
        result = stopped_after(model, sample, path, step, resume=True)
        assert result.report["training"]["stopped"]
        assert result.report["training"]["steps"] == step
    notes = []
    result = finetune(
        model, [sample], SETTINGS, progress=notes.append, checkpoint=path, resume=True
    )
    assert any(isinstance(n, Note) and "going on after step 9" in n.text for n in notes)
    torch.testing.assert_close(weights(result.model), weights(unbroken.model), rtol=0, atol=0)
    assert result.after == unbroken.after
    told = [point["step"] for point in result.report["training"]["curve"]]
    assert told == list(range(1, 13))
    assert not path.exists(), "a training that is over leaves nothing"


def test_what_a_run_learns_does_not_hang_on_whether_it_is_kept(model, sample, unbroken, tmp_path):
    path = tmp_path / "a.checkpoint"
    result = finetune(model, [sample], SETTINGS, checkpoint=path)
    torch.testing.assert_close(weights(result.model), weights(unbroken.model), rtol=0, atol=0)
    assert not path.exists()


@pytest.mark.parametrize("lost", ["_generator", "_random", "_optimizer", "_average"])
def test_each_part_of_the_state_matters(model, sample, unbroken, tmp_path, monkeypatch, lost):
    stopped_after(model, sample, tmp_path / "a", 3)  # in the middle of a round
    real = Learner.restore

    def forgetful(self, *state):
        fresh = getattr(Learner(model, SETTINGS), lost)
        if lost == "_optimizer":
            fresh = self._optimizer.state_dict()
        real(self, *state)
        if lost == "_optimizer":
            self._optimizer.load_state_dict(fresh)
        elif lost == "_average":
            self._average.load_state_dict(fresh.state_dict())
        else:
            setattr(self, lost, fresh)

    monkeypatch.setattr(Learner, "restore", forgetful)
    result = finetune(model, [sample], SETTINGS, checkpoint=tmp_path / "a", resume=True)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(weights(result.model), weights(unbroken.model))


def test_a_closed_run_waits_for_its_step_and_goes_on(model, sample, unbroken, tmp_path):
    path = tmp_path / "a.checkpoint"
    job = finetune_steps(model, [sample], SETTINGS, checkpoint=path)
    while not (isinstance(event := next(job), StepDone) and event.step == 5):
        pass
    job.close()
    result = finetune(model, [sample], SETTINGS, checkpoint=path, resume=True)
    torch.testing.assert_close(weights(result.model), weights(unbroken.model), rtol=0, atol=0)


def test_a_budget_in_time_goes_on_where_it_was(model, sample, tmp_path):
    settings = SETTINGS.replace(steps=None, seconds=3.0)
    stopped_after(model, sample, tmp_path / "a", 4, settings)
    time.sleep(1)  # a break does not count
    reports = []
    finetune(
        model, [sample], settings, progress=reports.append, checkpoint=tmp_path / "a", resume=True
    )
    used = [report.fraction for report in reports if isinstance(report, StepDone)]
    assert used == sorted(used)
    assert used[-1] == 1
    assert used[0] < 0.7, "else the break has counted"


def other_labels(sample):
    labels = sample.labels.copy()
    labels[labels == labels.max()] = 0
    return Sample(sample.image, labels, sample.labelled, sample.changed)


def test_another_training_is_not_gone_on_with(model, sample, tmp_path):
    path = tmp_path / "a.checkpoint"
    stopped_after(model, sample, path, 2)
    content = path.read_bytes()
    resumed = {"checkpoint": path, "resume": True}
    with pytest.raises(FileError, match="with other images or labels\\."):
        finetune(model, [other_labels(sample)], SETTINGS, **resumed)
    with pytest.raises(FileError, match="other settings of the training"):
        finetune(model, [sample], SETTINGS.replace(batch=3), **resumed)
    with pytest.raises(FileError, match="other settings of the segmentation"):
        finetune(model, [sample], SETTINGS, SegmentSettings(invert=True), **resumed)
    with torch.no_grad():
        next(model.net.parameters()).add_(1e-3)
    with pytest.raises(FileError, match="another model"):
        finetune(model, [sample], SETTINGS, **resumed)
    assert path.read_bytes() == content, "and it is still there for the right one"


@pytest.mark.parametrize("content", [b"", b"x" * 200, None])
def test_a_damaged_checkpoint_is_told(model, sample, tmp_path, content):
    path = tmp_path / "a.checkpoint"
    stopped_after(model, sample, path, 2)
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    with pytest.raises(FileError, match="Start the training anew"):
        finetune(model, [sample], SETTINGS, checkpoint=path, resume=True)


def test_without_a_checkpoint_the_training_begins_and_says_so(model, sample, unbroken, tmp_path):
    notes = []
    result = finetune(
        model,
        [sample],
        SETTINGS,
        progress=notes.append,
        checkpoint=tmp_path / "a",
        resume=True,
    )
    assert any(
        isinstance(n, Note) and "to go on with: the training begins" in n.text for n in notes
    )
    torch.testing.assert_close(weights(result.model), weights(unbroken.model), rtol=0, atol=0)


def test_what_the_old_model_gave_is_not_computed_again(model, sample, tmp_path, monkeypatch):
    judged = []
    real = finetuning.look_steps

    def watched(which, *rest):
        judged.append(which is model)
        return real(which, *rest)

    monkeypatch.setattr(finetuning, "look_steps", watched)
    stopped = stopped_after(model, sample, tmp_path / "a", 11)
    assert stopped.before is not None
    assert any(judged)
    judged.clear()
    resumed = finetune(model, [sample], SETTINGS, checkpoint=tmp_path / "a", resume=True)
    assert not any(judged)
    assert resumed.before == stopped.before


@pytest.mark.parametrize("given", ["stop", "cancel", "progress"])
def test_what_cannot_be_asked_is_told(model, sample, given):
    with pytest.raises(SettingError, match=f"{given} is something to call, the number 5 was given"):
        finetune(model, [sample], SETTINGS, **{given: 5})


# The state is written after each step, slowly, so that half of the time it is being written.
KILLED = """
import sys, time, torch
from pathlib import Path
from napari_unet.cli import main
from napari_unet.runs import checkpoint

def slowly(path, content):
    with path.open("wb") as file:
        for start in range(0, len(content), 4096):
            file.write(content[start : start + 4096])
            file.flush()
            time.sleep(0.001)

Path.write_bytes = slowly
torch.set_num_threads(1)
checkpoint.SECONDS_BETWEEN, checkpoint.LARGEST_SHARE = 0, 1e9
sys.exit(main(sys.argv[1:]))
"""
KILLS = 6


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_killed_at_random_moments_ends_as_if_unbroken(model, blobs, tmp_path):
    for folder, array in (("images", blobs.image), ("labels", blobs.labels)):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "a.npy", array)
    start = save_model(model, tmp_path / "small.safetensors")
    inputs = ["--images", tmp_path / "images", "--labels", tmp_path / "labels", "--model", start]
    method = ["--steps", 60, "--crop-px", 32, "--batch", 2, "--device", "cpu", "--keep-anyway"]
    chance = random.Random(7)

    def begin(name, *more):
        words = ["finetune", *inputs, *method, "--out", tmp_path / name, *more]
        command = [sys.executable, "-c", KILLED, *map(str, words)]
        with (tmp_path / "told.txt").open("ab") as told:
            return subprocess.Popen(command, stdout=told, stderr=subprocess.STDOUT)

    assert begin("whole").wait() == 0
    kept = tmp_path / "broken.checkpoint"
    killed = in_writing = 0
    process = begin("broken")
    while killed < KILLS and process.poll() is None:
        seen = (
            set()
        )  # states written by this process, as far as we see them; the first as it begins
        before = kept.stat().st_mtime_ns if kept.exists() else 0
        wanted = chance.randint(2, 7)
        while process.poll() is None and len(seen) < wanted:
            seen |= {kept.stat().st_mtime_ns} - {before} if kept.exists() else set()
            time.sleep(0.002)
        if killed % 2:  # while a state is being written
            while process.poll() is None and not list(tmp_path.glob(".*.part")):
                time.sleep(0.001)
        else:
            time.sleep(chance.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        if process.wait() == 0:
            break
        killed += 1
        in_writing += bool(list(tmp_path.glob(".*.part")))  # the next process clears it away
        process = begin("broken", "--resume")
    assert process.wait() == 0
    assert killed >= 4, "else nothing was tested"
    assert in_writing >= 1, "else no half of a file was left"
    assert "going on after step" in (tmp_path / "told.txt").read_text()
    whole, broken = (load_model(tmp_path / f"{name}.safetensors") for name in ("whole", "broken"))
    torch.testing.assert_close(weights(broken), weights(whole), rtol=0, atol=0)
    assert not [path for path in tmp_path.iterdir() if "checkpoint" in path.name]


def test_the_state_is_written_now_and_then_and_never_in_half(model, sample, tmp_path, monkeypatch):
    written = []
    real = module.Checkpoint.save

    def counting(self, *state):
        real(self, *state)
        written.append(sorted(path.name for path in tmp_path.iterdir()))

    monkeypatch.setattr(module.Checkpoint, "save", counting)
    monkeypatch.setattr(module, "SECONDS_BETWEEN", 0)
    monkeypatch.setattr(module, "LARGEST_SHARE", 1e9)
    finetune(model, [sample], SETTINGS, checkpoint=tmp_path / "a")
    assert len(written) == SETTINGS.steps
    assert all(names == ["a"] for names in written)
    written.clear()
    monkeypatch.setattr(module, "SECONDS_BETWEEN", 1e9)
    finetune(model, [sample], SETTINGS, checkpoint=tmp_path / "a")
    assert len(written) == 1
