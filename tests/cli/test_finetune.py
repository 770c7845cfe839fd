"""``finetune`` learns from a folder, and never writes a model that has become worse."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from napari_unet.models.opening import load_model
from napari_unet.models.own_file import read_card
from napari_unet.runs import finetune, learner


@pytest.fixture
def folders(tmp_path: Path, blobs) -> tuple[Path, Path]:
    """Write a stack and a plane, with labels of the same names."""
    images, labels = tmp_path / "images", tmp_path / "labels"
    for folder in (images, labels):
        folder.mkdir()
    np.save(images / "plane_image.npy", blobs.image)
    np.save(labels / "plane_mask.npy", blobs.labels)
    tifffile.imwrite(
        images / "stack.ome.tif", np.stack([blobs.image] * 2), metadata={"axes": "TYX"}
    )
    tifffile.imwrite(
        labels / "stack.ome.tif", np.stack([blobs.labels] * 2), metadata={"axes": "TYX"}
    )
    return images, labels


@pytest.fixture
def command(folders, threshold_model, tmp_path) -> tuple[object, ...]:
    """Return a short run."""
    images, labels = folders
    inputs = ("--images", images, "--labels", labels, "--model", threshold_model)
    method = ("--steps", 2, "--crop-px", 32, "--batch", 1, "--min-size", 5)
    return ("finetune", *inputs, *method, "--out", tmp_path / "mine")


def judged(monkeypatch: pytest.MonkeyPatch, outcome: str) -> None:
    """Make every run end with this outcome, whatever it has learned."""
    real = finetune.finetune_steps

    def steps(*arguments, **options):
        result = yield from real(*arguments, **options)
        return replace(result, outcome=outcome, verdict=f"The outcome is: {outcome}.")

    monkeypatch.setattr(finetune, "finetune_steps", steps)


@pytest.mark.parametrize("outcome", ["better", "cannot judge"])
def test_a_model_that_is_not_worse_is_saved_with_its_report(
    run, command, tmp_path, monkeypatch, outcome
) -> None:
    judged(monkeypatch, outcome)
    done = run(*command, "--json")
    assert (done.status, done.json["outcome"]) == (0, outcome)
    card = read_card(tmp_path / "mine.safetensors")
    assert (card.name, card.parent) == ("mine", "threshold")
    assert (tmp_path / "mine.json").exists()
    assert done.json["report"]["settings"]["steps"] == 2
    assert done.json["report"]["settings"]["seconds"] is None
    assert done.json["report"]["segment"]["instances"]["min_size"] == 5
    names = [sample["name"] for sample in done.json["report"]["samples"]]
    assert names == ["plane_image.npy", "stack.ome.tif, T 0", "stack.ome.tif, T 1"]


def test_a_model_that_is_not_better_is_not_written_unless_told_to(
    run, command, tmp_path, monkeypatch
) -> None:
    judged(monkeypatch, "not better")
    done = run(*command)
    assert done.status == 1
    assert "mine.safetensors was not written" in done.err
    assert "--keep-anyway" in done.err
    assert not list(tmp_path.glob("mine.*"))
    assert read_card(tmp_path / "mine-not-better.safetensors").name == "mine-not-better"
    assert "mine-not-better.safetensors, if you want to look at it" in done.err
    (tmp_path / "mine-not-better-2.json").touch()
    report = run(*command, "--json").json
    assert Path(report["not_taken"]).stem == "mine-not-better-3", "nothing is written over"
    assert "out" not in report
    kept = run(*command, "--keep-anyway")
    assert kept.status == 0
    assert "Not better than threshold, and saved all the same." in kept.err
    assert read_card(tmp_path / "mine.safetensors").parent == "threshold"


def test_nothing_that_is_there_is_lost(run, command, tmp_path, monkeypatch) -> None:
    mine = tmp_path / "mine.safetensors"
    judged(monkeypatch, "cannot judge")
    assert run(*command).status == 0
    first = mine.read_bytes()
    done = run(*command)
    assert done.status == 1
    assert "mine.safetensors, which is there already, was not replaced" in done.err
    assert mine.read_bytes() == first
    assert (tmp_path / "mine-not-judged.safetensors").exists()
    model = command.index("--model") + 1
    done = run(*command[:model], mine, *command[model + 1 :])
    assert "mine.safetensors is the model that is to learn" in done.err
    assert mine.read_bytes() == first
    folder = tmp_path / "folder"
    folder.mkdir()
    assert f"{folder} is a folder" in run(*command[:-1], folder).err
    assert run(*command, "--keep-anyway").status == 0
    assert mine.read_bytes() != first


def test_a_run_is_replayed_from_its_report(run, command, tmp_path, monkeypatch) -> None:
    judged(monkeypatch, "better")
    first = run(*command, "--zoom", "1.5", "--invert", "--json").json
    where = command.index("--steps")
    inputs, out = command[:where], command[-2:]
    again = run(*inputs, "--settings", tmp_path / "mine.json", "--seed", "3", *out, "--json").json
    assert again["report"]["settings"] == {**first["report"]["settings"], "seed": 3}
    assert again["report"]["segment"] == first["report"]["segment"]


def test_before_and_after_are_shown(run, command) -> None:
    done = run(*command)
    assert "3 labelled planes" in done.out
    assert "before" in done.out or "too few labels" in done.out


def test_labels_of_another_size_are_told_and_left_out(run, command, folders) -> None:
    np.save(folders[1] / "plane_mask.npy", np.ones((5, 5), np.int32))
    done = run(*command, "--json")
    assert done.status == 1
    assert "(5, 5)" in done.json["errors"][0]
    assert len(done.json["report"]["samples"]) == 2


def test_a_blank_image_is_told_and_left_out(run, command, folders) -> None:
    np.save(folders[0] / "plane_image.npy", np.zeros((4, 4)))
    np.save(folders[1] / "plane_mask.npy", np.eye(4, dtype=np.uint8))
    done = run(*command, "--json")
    assert done.status == 1
    assert "plane_image.npy has the grey value 0 everywhere" in done.json["errors"][0]
    assert len(done.json["report"]["samples"]) == 2


def test_images_may_be_labelled_in_part(run, command, folders, tmp_path, blobs) -> None:
    checked = tmp_path / "checked"
    checked.mkdir()
    mask = np.zeros(blobs.labels.shape, np.uint8)
    mask[:40] = 255
    np.save(checked / "plane.npy", mask)
    done = run(*command, "--checked", checked, "--keep-anyway", "--json")
    (sample,) = done.json["report"]["samples"]
    assert (sample["name"], sample["vouched_px"]) == ("plane_image.npy", 40 * mask.shape[1])
    assert "stack.ome.tif: no partner of this name, left out" in done.err
    np.save(checked / "plane.npy", mask[1:])
    done = run(*command, "--checked", checked)
    assert f"{checked / 'plane.npy'} has the shape {mask[1:].shape}" in done.err
    assert "nothing to learn from" in done.err
    assert run(*command, "--checked", tmp_path / "nowhere").status == 1


def test_what_cannot_work_is_told_before_any_training(run, command, tmp_path) -> None:
    assert "safetensors" in run(*command[:-1], tmp_path / "mine.pth").err
    done = run(*command, "--learning-rate", "7")
    assert (done.status, "--learning-rate" in done.err) == (2, True)
    (tmp_path / "file").touch()
    done = run(*command[:-1], tmp_path / "file" / "mine")
    assert (done.status, "cannot be written" in done.err) == (1, True)


def test_an_interrupted_run_says_how_to_go_on_and_goes_on(
    run, command, tmp_path, monkeypatch
) -> None:
    real = learner.Learner.step

    def interrupted(self, *arguments) -> None:
        real(self, *arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(learner.Learner, "step", interrupted)
        done = run(*command)
    assert done.status == 1
    assert "The same command with --resume goes on from there" in done.err
    assert [path.name for path in tmp_path.glob("mine*")] == ["mine.checkpoint"]
    before = (tmp_path / "mine.checkpoint").read_bytes()
    lost = run(*command)
    assert "Go on with --resume, or remove that file" in lost.err
    assert (tmp_path / "mine.checkpoint").read_bytes() == before
    refused = run(*command, "--resume", "--seed", "3")
    assert "other settings of the training" in refused.err
    resumed = run(*command, "--resume", "--keep-anyway", "--json")
    assert resumed.json["report"]["training"]["steps"] == 2
    assert "going on after step 1" in resumed.err
    assert not (tmp_path / "mine.checkpoint").exists()


def test_to_end_the_program_is_to_interrupt_it(run, command, tmp_path, monkeypatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    real = learner.Learner.step

    def ended(self, *arguments) -> None:
        real(self, *arguments)
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0.01)

    monkeypatch.setattr(learner.Learner, "step", ended)
    assert "--resume goes on from there" in run(*command, "--steps", "50").err
    assert (tmp_path / "mine.checkpoint").exists()
    assert signal.getsignal(signal.SIGTERM) == before


# The state is written after each step, so that one sees when steps are taken.
COMMAND_LINE = """
import signal, sys
from napari_unet.cli import main
from napari_unet.runs import checkpoint
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell makes it ignored
checkpoint.SECONDS_BETWEEN, checkpoint.LARGEST_SHARE = 0, 1e9
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends Ctrl+C to a group of processes")
def test_two_processes_are_interrupted_resumed_and_learn_what_one_does(
    run, command, tmp_path
) -> None:
    method = ("--optimizer", "sgd", "--steps", 150, "--batch", 3, "--device", "cpu")
    out = command.index("--out")
    words = [str(word) for word in (*command[:out], *method, "--keep-anyway", "--devices", 2)]
    assert run(*words[:-2], "--out", tmp_path / "one").status == 0

    two = [*words, "--out", str(tmp_path / "two")]
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND_LINE, *two], stderr=subprocess.PIPE, start_new_session=True
    )
    kept = tmp_path / "two.checkpoint"
    written = set()
    while process.poll() is None and len(written) < 3:
        written |= {kept.stat().st_mtime_ns} if kept.exists() else set()
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGINT)
    _, told = process.communicate()
    assert process.returncode == 1
    assert b"The same command with --resume goes on from there" in told.splitlines()[-1]
    assert sorted(path.name for path in tmp_path.glob("two*")) == ["two.checkpoint"]

    resumed = run(*two, "--resume", "--json")
    assert resumed.status == 0
    assert "going on after step" in resumed.err
    one, both = (
        torch.cat([weight.flatten() for weight in load_model(path).net.state_dict().values()])
        for path in (tmp_path / "one.safetensors", tmp_path / "two.safetensors")
    )
    start = load_model(command[command.index("--model") + 1]).net.state_dict().values()
    moved = (one - torch.cat([weight.flatten() for weight in start])).abs().max()
    assert moved > 1e-3
    assert (one - both).abs().max() < 0.01 * moved


def test_devices_that_are_not_there_are_told(run, command) -> None:
    done = run(*command, "--devices", 2)
    assert (done.status, "cannot share a batch of 1 crops" in done.err) == (1, True)
    help_text = run("finetune", "--help").out
    assert "float16 with scaled gradients" in " ".join(help_text.split())
