"""An engine that computes nothing: a test says what each job answers."""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QWidget

from napari_unet.errors import WorkerError
from napari_unet.worker.protocol import Progress

CARD: dict[str, Any] = {
    "name": "nuclei",
    "segments": "fluorescent nuclei",
    "architecture": {"classes": 2, "widths": [4, 8]},
    "outputs": ["foreground", "distance"],
}


class FakeJob(QObject):
    """A job whose end the test decides."""

    progressed = Signal(object)
    done = Signal(object)
    failed = Signal(str, bool)
    cancelled = Signal()
    finished = Signal()

    def __init__(self, engine: FakeEngine, name: str, arrays: dict, parameters: dict) -> None:
        super().__init__()
        self.engine, self.name, self.arrays, self.parameters = engine, name, arrays, parameters
        self.stopped, self.is_running = False, True
        self.looks: list[Any] = []

    def answer(self, **result: Any) -> None:
        self._end(self.done, result)

    def fail(self, message: str, is_users: bool = True) -> None:
        self._end(self.failed, message, is_users)

    def cancel(self) -> None:
        self._end(self.cancelled)

    def stop(self) -> None:
        self.stopped = True

    def look(self, region: Any) -> None:
        self.looks.append(region)

    def show(self, labels: np.ndarray, region: Any, path: Any) -> None:
        """Tell that a part of the labels can be looked at, as the worker does."""
        np.save(path, labels.astype(np.int32))
        largest = int(labels[tuple(slice(*span) for span in region)].max(initial=0))
        self.progressed.emit(
            Progress(1, "labels", region=region, labels=str(path), largest=largest)
        )

    def _end(self, signal: Any, *values: Any) -> None:
        self.engine.running, self.is_running = None, False
        signal.emit(*values)
        self.finished.emit()


class FakeEngine(QObject):
    """Takes one job at a time and keeps them all to look at."""

    status_changed = Signal(str)
    notice = Signal(str)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.device, self.status = "CPU, 2 cores", "ready"
        self.jobs: list[FakeJob] = []
        self.running: FakeJob | None = None
        self.is_closed = False

    def start(self) -> None:
        self.status_changed.emit("ready")

    def close(self) -> None:
        self.is_closed = True

    def submit(self, job: str, *, arrays: Any = None, **parameters: Any) -> FakeJob:
        if self.running is not None:
            raise WorkerError("A job is still running. Wait for its end or cancel it.")
        self.running = FakeJob(self, job, dict(arrays or {}), parameters)
        self.jobs.append(self.running)
        return self.running

    @property
    def last(self) -> FakeJob:
        return self.jobs[-1]


def loaded(path: str = "/models/nuclei.safetensors", **card: Any) -> dict[str, Any]:
    """Return what the worker answers to "load"."""
    return {
        "card": {**CARD, **card},
        "path": path,
        "stride": 16,
        "halo": 96,
        "exact": True,
        "receptive_field": 188,
        "parameters": 1_900_000,
        "device": "CPU, 2 cores",
    }


def segmented(labels: np.ndarray, **more: Any) -> dict[str, Any]:
    """Return what the worker answers to "segment"."""
    return {"labels": labels.astype(np.int32), "token": "t1", "seconds": 0.5, "notes": [], **more}


def squares(*corners: tuple[int, int], shape: tuple[int, int] = (64, 80)) -> np.ndarray:
    """Draw 10 px squares, numbered from 1."""
    labels = np.zeros(shape, np.int32)
    for number, (y, x) in enumerate(corners, start=1):
        labels[y : y + 10, x : x + 10] = number
    return labels


def find(dock, name: str) -> QWidget:
    """Find a control as a script would."""
    found = dock.findChild(QWidget, name)
    assert found is not None, f"no control is named {name}"
    return found


def run_segment(dock, labels: np.ndarray, **more) -> None:
    """Press Segment and answer."""
    dock.segment_panel.run()
    dock.engine.last.answer(**segmented(labels, **more))
