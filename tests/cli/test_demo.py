"""``demo`` says what it found, and does not begin where nothing can be written."""

from __future__ import annotations

import pytest

from napari_unet.errors import UnetError
from napari_unet.runs import demo


def test_a_place_that_cannot_be_written_is_told_before_the_loop_runs(
    run, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(demo, "demo_steps", lambda *_, **__: pytest.fail("it has begun"))
    (tmp_path / "file").touch()
    done = run("demo", "--out", tmp_path / "file", "--steps", "1")
    assert done.status == 1
    assert "cannot be written" in done.err


@pytest.mark.parametrize(
    ("said", "seconds", "steps"),
    [((), None, demo.TRAINING.steps), (("--seconds", "5"), 5, None), (("--steps", "7"), None, 7)],
)
def test_without_a_budget_steps_are_counted_so_that_a_busy_computer_learns_as_much(
    run, tmp_path, monkeypatch, said, seconds, steps
):
    asked = []

    def remember(out, settings, *, seed):
        asked.append((settings.seconds, settings.steps))
        raise UnetError("enough")

    monkeypatch.setattr(demo, "demo_steps", remember)
    run("demo", "--out", tmp_path / "d", *said)
    assert asked == [(seconds, steps)]
    told = " ".join(run("demo", "--help").out.split())
    assert f"Default: {demo.TRAINING.steps} steps" in told


def test_before_and_after_and_the_files_are_told(run, threshold_model, tmp_path, monkeypatch):
    real = demo.demo_steps

    def small(out, settings, *, seed):
        boxes = ((0, 0, 96, 128),)
        return real(
            out, settings, model=str(threshold_model), seed=seed, shape=(96, 224), boxes=boxes
        )

    monkeypatch.setattr(demo, "demo_steps", small)
    done = run("demo", "--out", tmp_path / "d", "--steps", "1", "--json")
    assert done.status == 0, done.err
    assert {"before", "after", "outcome", "files"} <= done.json.keys()
    assert (tmp_path / "d" / "picture.png").stat().st_size > 0
    assert done.json["files"]["report"] == str(tmp_path / "d" / "report.json")
