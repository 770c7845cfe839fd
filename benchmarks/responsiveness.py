"""How long the window stands still while the engine imports, segments and trains.

    python benchmarks/responsiveness.py [--side 2048] [--seconds 20]
    python benchmarks/responsiveness.py --view [--side 10000] [--model FILE]

A 10 ms timer runs in a live napari window with the dock open on a generated image of side x side
pixels. Each phase lists the time between two ticks, in milliseconds: what a person feels is the
largest. With --view it is zoomed to about 1500 x 1000 pixels instead, and what is told is how long
after the click on Segment the first of them have labels, and all; and how long after a change of
the threshold. Without a screen run it under Xvfb:
``xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/responsiveness.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from functools import partial

import numpy as np

TICK_MS = 10
VIEW_PX = 1500 * 1000
LARGEST_WHOLE = 5000  # side of images that are labelled to the end


class Ticks:
    """Records the time between the ticks of a timer, phase by phase."""

    def __init__(self) -> None:
        from qtpy.QtCore import Qt, QTimer

        self.phases: dict[str, list[float]] = {}
        self._current: list[float] = []
        self._last = time.perf_counter()
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(TICK_MS)
        self._timer.timeout.connect(self._tick)
        self._timer.start()

    def phase(self, name: str) -> None:
        """Begin a phase."""
        self._current = self.phases.setdefault(name, [])
        self._last = time.perf_counter()

    def _tick(self) -> None:
        now = time.perf_counter()
        self._current.append(1000 * (now - self._last))
        self._last = now


def measure(side: int, seconds: float) -> dict[str, dict[str, float]]:
    """Walk the loop in a live viewer; returns median, 99th percentile and worst of each phase."""
    import napari
    from qtpy.QtTest import QTest

    from napari_unet.sample_data import nuclei
    from napari_unet.widget.contributions import open_dock

    tile, _ = nuclei((512, 512), seed=0)
    image = np.tile(tile, (-(-side // 512),) * 2)[:side, :side]
    viewer = napari.Viewer()
    viewer.add_image(image, name="nuclei")
    viewer.window._qt_window.resize(1366, 768)
    QTest.qWait(2000)
    ticks = Ticks()
    ticks.phase("idle")
    QTest.qWait(3000)

    ticks.phase("open the dock")
    dock = open_dock(viewer)
    ticks.phase("import torch and load the model")
    session = dock.session
    wait(lambda: session.model is not None and not session.is_busy)

    ticks.phase("segment")
    dock.segment_panel.segment.native.click()
    wait(lambda: not session.is_busy)
    QTest.qWait(500)

    dock.segment_panel.tile_px.value = 640  # the same run is not computed twice
    ticks.phase("segment again")
    dock.segment_panel.segment.native.click()
    wait(lambda: not session.is_busy)

    ticks.phase("check a region")
    session.annotation(session.labels).regions.add_box((), 0, 0, 512, 1024)
    QTest.qWait(500)
    dock.retrain_panel.seconds.value = int(seconds)
    ticks.phase("train")
    dock.retrain_panel.retrain.native.click()
    wait(lambda: not session.is_busy)
    dock.segment_panel.tile_px.value = 656
    ticks.phase("cancel a segmentation")
    dock.segment_panel.segment.native.click()
    QTest.qWait(700)
    start = time.perf_counter()
    dock.foot.cancel.click()
    wait(lambda: not session.is_busy)
    cancelled_after = time.perf_counter() - start
    no_torch = "torch" not in sys.modules
    phases = {name: summary(times) for name, times in ticks.phases.items() if times}
    viewer.close()
    return {
        "phases": phases,
        "cancel answered after s": round(cancelled_after, 3),
        "window imports no torch": no_torch,
    }


def measure_view(side: int, model: str) -> dict[str, float]:
    """Measure how soon what is in view has labels: seconds after a click, or a change."""
    import napari

    from napari_unet.sample_data import nuclei
    from napari_unet.widget.contributions import open_dock
    from napari_unet.widget.view import camera_of, shown_region

    tile, _ = nuclei((1000, 1000), seed=0)
    image = np.tile(tile, (-(-side // 1000),) * 2)[:side, :side]
    viewer = napari.Viewer()
    layer = viewer.add_image(image, name="nuclei")
    viewer.window._qt_window.resize(1600, 1000)
    dock = open_dock(viewer)
    session = dock.session
    wait(lambda: session.model is not None and not session.is_busy)
    if model:
        dock.model_panel.load(model)
        pause(0.3)
        wait(lambda: not session.is_busy)
    camera = camera_of(viewer)
    camera.center = (0, side * 0.35, side * 0.45)
    for _ in range(5):
        pause(0.2)
        rows, columns = (high - low for low, high in shown_region(viewer, layer, "YX"))
        camera.zoom *= (rows * columns / VIEW_PX) ** 0.5
    pause(1)
    view = shown_region(viewer, layer, "YX")
    print(f"in view: {view}", flush=True)

    def seconds_until_labelled(start) -> tuple[float, float]:
        """Start something; return after how long the first of the view was labelled, and all."""
        labelled = np.zeros((side, side), bool)
        # What the worker was told of the view may be a pixel less than what is seen now.
        inner = tuple(slice(low + 2, high - 2) for low, high in view)
        times = []
        began = time.perf_counter()

        def on_progress(event) -> None:
            if event.kind == "labels":
                labelled[tuple(slice(*span) for span in event.region)] = True
                if labelled[inner].any():
                    times.append((time.perf_counter() - began, labelled[inner].all()))

        start()
        wait(lambda: session.job is not None)
        session.job.progressed.connect(on_progress)
        wait(lambda: any(is_all for _, is_all in times) or session.job is None)
        return times[0][0], next(seconds for seconds, is_all in times if is_all)

    first, everything = seconds_until_labelled(dock.segment_panel.segment.native.click)
    found = {"first labels in view": first, "all of the view": everything}
    if side <= LARGEST_WHOLE:
        wait(lambda: not session.is_busy)
        changes = []
        for threshold in (0.4, 0.6, 0.45, 0.55):
            change = partial(setattr, dock.segment_panel.threshold, "value", threshold)
            changes.append(seconds_until_labelled(change)[1])
            wait(lambda: not session.is_busy)
        found["all of the view, after another threshold"] = float(np.median(changes))
    else:
        dock.foot.cancel.click()
        wait(lambda: not session.is_busy)
    viewer.close()
    return {name: round(seconds, 2) for name, seconds in found.items()}


def pause(seconds: float) -> None:
    """Keep the window alive for a while."""
    from qtpy.QtTest import QTest

    QTest.qWait(round(1000 * seconds))


def wait(until) -> None:
    """Keep the window alive until something holds."""
    from qtpy.QtTest import QTest

    while not until():
        QTest.qWait(TICK_MS)


def summary(times: list[float]) -> dict[str, float]:
    """Boil the ticks of a phase down."""
    return {
        "median ms": round(float(np.median(times)), 1),
        "p99 ms": round(float(np.percentile(times, 99)), 1),
        "worst ms": round(max(times), 1),
        "ticks": len(times),
    }


def main() -> None:
    """Read the options, measure, print a table and the JSON of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, help="side of the image in pixels")
    parser.add_argument("--view", action="store_true", help="how soon what is in view has labels")
    parser.add_argument("--model", default="", help="with --view: weights instead of the nuclei's")
    parser.add_argument("--seconds", type=float, default=20, help="training budget")
    options = parser.parse_args()
    if options.view:
        seconds = measure_view(options.side or 10_000, options.model)
        for name, value in seconds.items():
            print(f"{name:45}{value:8} s")
        return
    side = options.side or 2048
    result = measure(side, options.seconds)
    print(f"{'phase':34}{'median':>8}{'p99':>8}{'worst':>8}  ms between ticks of 10 ms")
    for name, row in result["phases"].items():
        print(f"{name:34}{row['median ms']:8}{row['p99 ms']:8}{row['worst ms']:8}")
    print(f"cancel answered after {result['cancel answered after s']} s")
    print(json.dumps({"side": side, "cpus": os.cpu_count(), **result}))


if __name__ == "__main__":
    main()
