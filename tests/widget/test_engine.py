import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import QObject

from napari_unet.errors import WorkerError
from napari_unet.settings import SegmentSettings
from napari_unet.widget.engine import Engine
from napari_unet.widget.process import find_python
from napari_unet.worker import protocol

FAKES = Path(__file__).parents[1] / "worker"
WAIT_MS = 20_000


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path, monkeypatch):
    """Exchange folders are made here, so that a test sees its own only."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    path = os.pathsep.join(filter(None, [str(FAKES), os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", path)
    return folder


@pytest.fixture
def engine(qtbot):
    engine = Engine(jobs="fake_jobs")
    engine.notices = []
    engine.notice.connect(engine.notices.append)
    yield engine
    engine.close()


class Diary:
    """Everything a job says, in order."""

    def __init__(self, job):
        self.job = job
        self.entries = []
        job.progressed.connect(lambda event: self.entries.append(("progressed", event)))
        job.done.connect(lambda values: self.entries.append(("done", values)))
        job.failed.connect(lambda *values: self.entries.append(("failed", values)))
        job.cancelled.connect(lambda: self.entries.append(("cancelled", None)))
        job.finished.connect(lambda: self.entries.append(("finished", None)))

    @property
    def names(self):
        return [name for name, _ in self.entries if name != "progressed"]

    @property
    def progress(self):
        return [value for name, value in self.entries if name == "progressed"]

    def outcome(self, qtbot):
        """Wait for the end; return its name and value."""
        qtbot.waitUntil(lambda: "finished" in self.names, timeout=WAIT_MS)
        assert len(self.names) == 2
        return self.entries[-2]

    def until_progress(self, qtbot):
        qtbot.waitUntil(lambda: len(self.progress) > 0, timeout=WAIT_MS)


def run(engine, qtbot, job, **keywords):
    return Diary(engine.submit(job, **keywords)).outcome(qtbot)


def process_id(engine, qtbot):
    return run(engine, qtbot, "whoami")[1]["pid"]


def is_alive(pid):
    """A zombie counts as ended: only its parent's wait is missing."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_the_process_is_warm_before_the_first_job(engine, qtbot):
    said = []
    engine.status_changed.connect(said.append)
    with qtbot.waitSignal(
        engine.status_changed, check_params_cb=lambda status: status == "ready", timeout=WAIT_MS
    ):
        engine.start()
        engine.start()
    assert said == ["starting", "ready"]
    assert engine.device == "a fake device"
    assert run(engine, qtbot, "tiles", total=1) == ("done", {"total": 1})
    assert said == ["starting", "ready", "busy", "ready"]


@pytest.mark.parametrize(
    "array",
    [
        pytest.param(np.arange(12, dtype=np.uint16).reshape(3, 4), id="2D"),
        pytest.param(np.arange(24, dtype=np.float32).reshape(2, 3, 4), id="3D"),
        pytest.param(np.arange(24).reshape(4, 6)[::2, ::-3], id="strided"),
        pytest.param(np.asfortranarray(np.arange(12).reshape(3, 4)), id="Fortran order"),
        pytest.param(np.array([[True, False], [False, True]]), id="bool"),
        pytest.param(np.zeros((0, 5), np.int32), id="no rows"),
        pytest.param(np.zeros((5, 0), np.int32), id="no columns"),
        pytest.param(np.array(7.5), id="a number"),
        pytest.param(np.arange(4, dtype=">i4"), id="big-endian"),
        pytest.param(np.array([[np.nan, np.inf]]), id="not finite"),
    ],
)
def test_arrays_come_back_as_they_went(engine, qtbot, array):
    _, result = run(engine, qtbot, "echo", arrays={"it": array})
    np.testing.assert_array_equal(result["it"], array)
    assert result["it"].dtype == array.dtype
    assert type(result["it"]) is np.ndarray
    result["it"][...] = 0


def test_a_large_and_a_lazy_array_are_written_in_the_background(engine, qtbot):
    dask = pytest.importorskip("dask.array")
    large = np.arange(10_000_000, dtype=np.float64).reshape(1000, 10_000).T
    threads = set()

    def plane(block):
        threads.add(threading.current_thread() is threading.main_thread())
        return block + 1

    lazy = dask.ones((5, 20, 30), chunks=(2, 20, 30)).map_blocks(plane, dtype=float)
    threads.clear()
    started = time.perf_counter()
    diary = Diary(engine.submit("echo", arrays={"large": large, "lazy": lazy}))
    assert time.perf_counter() - started < 0.05
    _, result = diary.outcome(qtbot)
    np.testing.assert_array_equal(result["large"], large)
    np.testing.assert_array_equal(result["lazy"], np.full((5, 20, 30), 2.0))
    assert threads == {False}


def test_a_small_array_may_be_changed_right_after_it_was_given(engine, qtbot):
    labels = np.ones((100, 100), np.int32)
    diary = Diary(engine.submit("echo", arrays={"labels": labels}))
    labels[:] = 2
    assert diary.outcome(qtbot)[1]["labels"].max() == 1


def test_a_lazy_array_that_cannot_be_read_is_told(engine, qtbot):
    class Broken:
        shape, dtype, ndim = (2, 2), np.dtype(float), 2

        def __getitem__(self, item):
            raise KeyError("chunk 0.0 is missing")

    job = engine.submit("echo", arrays={"it": Broken()})
    name, (message, is_expected) = Diary(job).outcome(qtbot)
    assert (name, is_expected) == ("failed", False)
    assert "chunk 0.0 is missing" in message
    assert "__getitem__" in job.traceback
    assert process_id(engine, qtbot) > 0


def test_settings_paths_and_numpy_numbers_can_be_parameters(engine, qtbot):
    _, result = run(
        engine, qtbot, "echo", a=SegmentSettings(tile_px=64), b=Path("x"), c=np.float32(0.5)
    )
    assert result["a"] == SegmentSettings(tile_px=64).model_dump(mode="json")
    assert (result["b"], result["c"]) == ("x", 0.5)


def test_a_parameter_that_cannot_be_sent_leaves_the_engine_free(engine, qtbot):
    with pytest.raises(TypeError, match="cannot be sent"):
        engine.submit("echo", a=object())
    assert run(engine, qtbot, "echo", a=1) == ("done", {"a": 1})


def test_progress_comes_in_order_with_time_left(engine, qtbot):
    diary = Diary(engine.submit("tiles", total=5, pause=0.05))
    diary.outcome(qtbot)
    assert [event.done for event in diary.progress] == [1, 2, 3, 4, 5]
    assert [event.fraction for event in diary.progress] == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert diary.progress[-1].seconds_left == 0
    assert diary.progress[1].seconds_left == pytest.approx(0.15, abs=0.1)


def test_fast_tiles_do_not_flood_the_window(engine, qtbot):
    diary = Diary(engine.submit("tiles", total=5000))
    diary.outcome(qtbot)
    assert diary.progress[-1].done == 5000
    assert len(diary.progress) < 200


def test_stop_ends_a_training_with_its_result(engine, qtbot):
    diary = Diary(engine.submit("train", steps=10_000))
    diary.until_progress(qtbot)
    diary.job.stop()
    name, result = diary.outcome(qtbot)
    assert name == "done"
    assert 0 < result["step"] < 1000
    note, before, step = diary.progress[:3]
    assert (note.kind, note.text) == ("note", "A smaller tile is used.")
    assert (before.kind, before.held_out) == ("before", 0.25)
    assert (step.kind, step.step, step.loss, step.held_out) == ("step", 1, 1.0, 0.5)


def test_one_job_at_a_time(engine, qtbot):
    diary = Diary(engine.submit("tiles", total=3, pause=0.05))
    with pytest.raises(WorkerError, match="'tiles' is still running"):
        engine.submit("whoami")
    assert diary.outcome(qtbot)[0] == "done"


def test_the_slot_of_an_outcome_may_submit_the_next_job(engine, qtbot):
    diaries = []
    first = engine.submit("whoami")
    first.done.connect(lambda _: diaries.append(Diary(engine.submit("whoami"))))
    qtbot.waitUntil(lambda: bool(diaries), timeout=WAIT_MS)
    assert not first.is_running
    assert diaries[0].outcome(qtbot)[0] == "done"


@pytest.mark.parametrize(
    ("job", "parameters", "is_killed"),
    [
        pytest.param("tiles", {"total": 10_000, "pause": 0.05}, False, id="that listens"),
        pytest.param("deaf", {"seconds": 60}, True, id="that is deaf"),
    ],
)
def test_cancel_answers_within_a_second_in_a_job(engine, qtbot, job, parameters, is_killed):
    before = process_id(engine, qtbot)
    diary = Diary(engine.submit(job, **parameters))
    diary.until_progress(qtbot)
    started = time.perf_counter()
    diary.job.cancel()
    diary.job.cancel()
    assert diary.outcome(qtbot) == ("cancelled", None)
    assert time.perf_counter() - started < 1.0
    assert (process_id(engine, qtbot) != before) == is_killed
    qtbot.waitUntil(lambda: is_alive(before) != is_killed, timeout=WAIT_MS)
    assert engine.notices == []


def test_cancel_answers_at_once_before_the_process_is_ready(engine, qtbot, monkeypatch):
    monkeypatch.setenv("FAKE_START", "slow")
    diary = Diary(engine.submit("whoami"))
    diary.job.cancel()
    assert diary.names == ["cancelled", "finished"]
    assert run(engine, qtbot, "tiles", total=1)[0] == "done"


def test_cancel_answers_at_once_while_arrays_are_written(engine, qtbot, own_temporary_folder):
    go_on = threading.Event()

    class Slow:
        shape, dtype, ndim = (1000, 10), np.dtype(float), 2
        chunks = ((500, 500), (10,))
        read = 0

        def __getitem__(self, item):
            self.read += 1
            go_on.wait(10)
            return np.zeros((10, 10))

    slow = Slow()
    diary = Diary(engine.submit("echo", arrays={"it": slow}))
    qtbot.waitUntil(lambda: slow.read == 1, timeout=WAIT_MS)
    diary.job.cancel()
    assert diary.names == ["cancelled", "finished"]
    assert run(engine, qtbot, "tiles", total=1)[0] == "done"
    go_on.set()
    qtbot.waitUntil(lambda: not list(own_temporary_folder.rglob("*.npy")), timeout=WAIT_MS)
    assert slow.read <= 2


def test_late_events_of_an_earlier_job_are_dropped(engine, qtbot):
    process_id(engine, qtbot)
    diary = Diary(engine.submit("tiles", total=20, pause=0.02))
    earlier = diary.job.number - 1
    diary.until_progress(qtbot)
    process = engine._belongings.process
    for event in (
        protocol.Progress(earlier, "tile", done=99, total=100),
        protocol.Done(earlier, {"old": True}),
        protocol.Failed(earlier, "old", is_expected=True),
        protocol.Cancelled(earlier),
    ):
        process.said.emit(event)
    assert diary.outcome(qtbot) == ("done", {"total": 20})
    assert 99 not in [event.done for event in diary.progress]


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_a_killed_process_is_told_and_started_again(engine, qtbot):
    pid = process_id(engine, qtbot)
    diary = Diary(engine.submit("tiles", total=10_000, pause=0.05))
    diary.until_progress(qtbot)
    os.kill(pid, signal.SIGKILL)
    name, (message, is_expected) = diary.outcome(qtbot)
    assert (name, is_expected) == ("failed", True)
    assert "signal 9" in message
    assert "'tiles'" in message
    assert engine.status == "restarting"
    assert len(engine.notices) == 1
    assert "signal 9" in engine.notices[0]
    assert "your labels are untouched" in engine.notices[0]
    assert process_id(engine, qtbot) != pid


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_a_crash_names_its_signal_and_keeps_the_queue(engine, qtbot):
    name, (message, _) = run(engine, qtbot, "die", how="SIGSEGV")
    assert name == "failed"
    assert f"signal {signal.SIGSEGV.value}" in message
    assert run(engine, qtbot, "tiles", total=1)[0] == "done"


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_a_process_that_dies_idle_is_started_again_for_the_waiting_job(engine, qtbot):
    pid = process_id(engine, qtbot)
    os.kill(pid, signal.SIGKILL)
    qtbot.waitUntil(lambda: len(engine.notices) == 1, timeout=WAIT_MS)
    assert process_id(engine, qtbot) != pid


def test_a_process_that_cannot_start_is_given_up_with_the_reason(engine, qtbot, monkeypatch):
    monkeypatch.setenv("FAKE_START", "dies")
    name, (message, is_expected) = run(engine, qtbot, "whoami")
    assert (name, is_expected) == ("failed", True)
    assert "cannot be started" in message
    assert "No module named 'engine_room'" in message
    assert engine.notices[-1] == message
    assert len(engine.notices) == 3
    assert engine.status == "closed"
    monkeypatch.delenv("FAKE_START")
    assert run(engine, qtbot, "tiles", total=1)[0] == "done"


def test_a_missing_python_is_told(engine, qtbot, monkeypatch):
    monkeypatch.setattr("napari_unet.widget.process.find_python", lambda: "/nowhere/python")
    name, (message, _) = run(engine, qtbot, "whoami")
    assert name == "failed"
    assert "could not be started" in message


@pytest.mark.parametrize(
    ("kind", "message", "is_expected", "told"),
    [
        ("ImageError", "The image has no Y axis.", True, "The image has no Y axis."),
        ("RuntimeError", "shapes differ\nand more", False, "RuntimeError: shapes differ"),
        ("RuntimeError", "explain me", True, "Explained."),
        ("StopIteration", "", False, "RuntimeError: generator raised StopIteration"),
        ("MemoryError", "", True, "The memory of this computer does not suffice"),
        ("SystemExit", "1", False, "SystemExit: 1"),
        ("GeneratorExit", "", False, "GeneratorExit"),
    ],
)
def test_every_error_in_a_job_reaches_the_person(engine, qtbot, kind, message, is_expected, told):
    job = engine.submit("fail", kind=kind, message=message)
    name, values = Diary(job).outcome(qtbot)
    assert name == "failed"
    assert values[1] is is_expected
    assert values[0].startswith(told)
    assert "\n" not in values[0]
    assert ("fake_jobs.py" in job.traceback) is not is_expected
    assert run(engine, qtbot, "tiles", total=1)[0] == "done"
    assert engine.notices == []


def test_a_process_that_an_error_has_spoilt_is_replaced(engine, qtbot):
    pid = process_id(engine, qtbot)
    name, (message, _) = run(engine, qtbot, "fail", kind="RuntimeError", message="spoilt")
    assert (name, message) == ("failed", "RuntimeError: spoilt")
    assert process_id(engine, qtbot) != pid


def test_an_unknown_job_and_an_unknown_parameter_are_told(engine, qtbot):
    assert "There is no job 'dance'" in run(engine, qtbot, "dance")[1][0]
    assert "steps" in run(engine, qtbot, "tiles", steps=3)[1][0]


def test_what_libraries_print_is_no_event(engine, qtbot):
    assert run(engine, qtbot, "chatter") == ("done", {"forged": False})


def test_a_token_stands_for_an_array_and_survives_a_restart(engine, qtbot):
    _, result = run(engine, qtbot, "kept")
    token = result["token"]
    del result
    name, _ = run(engine, qtbot, "die", how="SIGKILL")
    assert name == "failed"
    assert run(engine, qtbot, "kept", token=token) == ("done", {"sum": 6.0})


def test_the_file_of_an_array_goes_when_nobody_holds_it(engine, qtbot, own_temporary_folder):
    diary = Diary(engine.submit("kept"))
    view = diary.outcome(qtbot)[1]["probability"][0]
    diary.entries.clear()
    gc.collect()
    assert list(own_temporary_folder.rglob("*.npy"))
    del view
    gc.collect()
    assert not list(own_temporary_folder.rglob("*.npy"))


@pytest.mark.parametrize("moment", ["starting", "idle", "busy", "deaf"])
def test_close_leaves_no_process_and_no_folder(engine, qtbot, own_temporary_folder, moment):
    pids = []
    if moment == "starting":
        engine.start()
        qtbot.waitUntil(lambda: engine._belongings.process.processId() > 0, timeout=WAIT_MS)
        pids.append(engine._belongings.process.processId())
    else:
        pids.append(process_id(engine, qtbot))
    diary = None
    if moment in ("busy", "deaf"):
        job = {
            "busy": ("tiles", {"total": 10_000, "pause": 0.05}),
            "deaf": ("deaf", {"seconds": 60}),
        }
        diary = Diary(engine.submit(job[moment][0], **job[moment][1]))
        diary.until_progress(qtbot)
    assert is_alive(pids[0])
    started = time.perf_counter()
    engine.close()
    engine.close()
    assert time.perf_counter() - started < 1.0
    assert not is_alive(pids[0])
    assert list(own_temporary_folder.iterdir()) == []
    assert engine.status == "closed"
    if diary is not None:
        assert diary.names == ["cancelled", "finished"]
    with pytest.raises(WorkerError, match="has ended"):
        engine.submit("whoami")


def test_the_engine_ends_with_its_parent(qtbot, own_temporary_folder):
    parent = QObject()
    engine = Engine(parent, jobs="fake_jobs")
    pid = process_id(engine, qtbot)
    diary = Diary(engine.submit("deaf", seconds=60))
    diary.until_progress(qtbot)
    parent.deleteLater()
    qtbot.waitUntil(lambda: not is_alive(pid), timeout=WAIT_MS)
    qtbot.waitUntil(lambda: not list(own_temporary_folder.iterdir()), timeout=WAIT_MS)


SCRIPT = """
    import os, signal, sys, time
    from qtpy.QtCore import QCoreApplication, QTimer
    from napari_unet.widget.engine import Engine

    app = QCoreApplication([])
    engine = Engine(jobs="fake_jobs")
    def on_done(result):
        job = engine.submit("deaf", seconds=60)
        job.progressed.connect(lambda _: leave(result["pid"]))
    def leave(pid):
        print(pid, "torch" in sys.modules, "napari" in sys.modules, flush=True)
        {leave}
    engine.submit("whoami").done.connect(on_done)
    QTimer.singleShot(20_000, lambda: os._exit(3))
    app.exec()
    {after}
"""


@pytest.mark.skipif(sys.platform == "win32", reason="looks into /proc")
@pytest.mark.parametrize(
    ("leave", "after", "is_tidy"),
    [
        pytest.param("app.quit()", "", True, id="quit"),
        pytest.param("sys.exit(0)", "", True, id="exit in a slot"),
        pytest.param("os.kill(os.getpid(), signal.SIGKILL)", "", False, id="killed"),
    ],
)
def test_no_process_stays_behind_a_window_that_is_gone(
    qtbot, own_temporary_folder, leave, after, is_tidy
):
    script = textwrap.dedent(SCRIPT).format(leave=leave, after=after)
    ended = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "TMPDIR": str(own_temporary_folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.stdout, ended.stderr
    pid, *imported = ended.stdout.split()
    assert imported == ["False", "False"]
    qtbot.waitUntil(lambda: not is_alive(int(pid)), timeout=3000)
    left = list(own_temporary_folder.iterdir())
    assert (left == []) is is_tidy
    if not is_tidy:
        engine = Engine(jobs="fake_jobs")
        engine.start()
        qtbot.waitUntil(lambda: not left[0].exists(), timeout=WAIT_MS)
        engine.close()


def test_the_folder_of_a_living_session_is_left_alone(qtbot, own_temporary_folder):
    first, second = Engine(jobs="fake_jobs"), Engine(jobs="fake_jobs")
    assert run(first, qtbot, "tiles", total=1)[0] == "done"
    folder = next(own_temporary_folder.iterdir())
    assert run(second, qtbot, "tiles", total=1)[0] == "done"
    second.close()
    assert list(own_temporary_folder.iterdir()) == [folder]
    first.close()


@pytest.mark.parametrize(
    ("executable", "base", "expected"),
    [
        ("/opt/python3.12", None, "/opt/python3.12"),
        ("/Applications/napari", "/opt/bin/python3", "/opt/bin/python3"),
    ],
)
def test_a_launcher_is_not_taken_for_python(monkeypatch, executable, base, expected):
    monkeypatch.setattr(sys, "executable", executable)
    monkeypatch.setattr(sys, "_base_executable", base, raising=False)
    assert find_python() == expected


def test_the_window_ticks_on_while_a_large_array_travels(engine, qtbot):
    process_id(engine, qtbot)
    large = np.zeros((4, 2048, 2048), np.float32)
    diary = Diary(engine.submit("echo", arrays={"large": large}))
    longest = 0.0
    last = time.perf_counter()
    while "finished" not in diary.names:
        qtbot.wait(5)
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
    assert diary.names[0] == "done"
    assert longest < 0.1


@pytest.mark.slow
def test_the_real_jobs_segment_relabel_and_cancel(qtbot, tmp_path, tiny_unet, blobs, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    from napari_unet.models.card import Card
    from napari_unet.models.model import Model, save_model

    card = Card(name="tiny", architecture=tiny_unet.architecture)
    path = str(save_model(Model(tiny_unet, card), tmp_path / "tiny.safetensors"))
    engine = Engine()
    assert run(engine, qtbot, "load", model=path)[1]["stride"] == 4
    how = {"model": path, "axes": "YX", "settings": SegmentSettings(tile_px=64)}
    _, result = run(engine, qtbot, "segment", arrays={"image": blobs.image}, **how)
    assert result["labels"].shape == result["probability"].shape[1:] == blobs.image.shape
    settings = SegmentSettings().instances
    _, again = run(engine, qtbot, "label", token=result["token"], settings=settings)
    np.testing.assert_array_equal(again["labels"], result["labels"])

    diary = Diary(engine.submit("segment", arrays={"image": np.ones((4000, 4000))}, **how))
    diary.until_progress(qtbot)
    started = time.perf_counter()
    diary.job.cancel()
    assert diary.outcome(qtbot)[0] == "cancelled"
    assert time.perf_counter() - started < 1.0
    name, (message, is_expected) = run(engine, qtbot, "load", model="nothing")
    assert (name, is_expected) == ("failed", True)
    assert "nothing" in message
    engine.close()


def test_messages_are_single_lines_of_json():
    event = protocol.Failed(3, "two\nlines \u2028 and a mark", is_expected=True)
    line = protocol.encode(event)
    assert line.count(b"\n") == 1
    assert json.loads(line)["id"] == 3
