import time
from threading import Event

import pytest

from napari_unet.errors import Cancelled
from napari_unet.runs.background import Background
from napari_unet.runs.progress import Note, Progress, drive


def job(function, *args):
    with Background() as background:
        return (yield from background.run(function, *args))


def test_the_result_comes_back_and_the_job_shows_that_it_is_alive(run_to_end):
    progress, result = run_to_end(job(lambda: time.sleep(0.5) or 42))
    assert result == 42
    assert Progress() in progress


def test_a_job_is_asked_often_enough_for_a_slider_that_moves_on(run_to_end):
    progress, _ = run_to_end(job(time.sleep, 0.5))
    assert len(progress) >= 5


def test_an_error_of_the_call_is_the_job_s():
    with pytest.raises(ZeroDivisionError):
        drive(job(lambda: 1 / 0))


def test_a_cancelled_job_does_not_wait_for_the_call():
    release = Event()
    started = time.monotonic()
    with pytest.raises(Cancelled):
        drive(job(release.wait, 20), cancel=lambda: True)
    assert time.monotonic() - started < 1
    release.set()


def test_the_progress_of_a_generator_is_passed_on_and_nothing_else_of_it(run_to_end):
    def steps():
        yield 1
        yield Note("smaller pieces")
        return 42

    def through():
        with Background() as background:
            return (yield from background.go_through(steps()))

    progress, result = run_to_end(through())
    assert result == 42
    assert [event for event in progress if event != Progress()] == [Note("smaller pieces")]
