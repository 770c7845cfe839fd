"""How long the window stands still while the engine imports, segments and trains.

    python benchmarks/responsiveness.py [--side 2048] [--seconds 20]

A 10 ms timer runs in a live napari window with the dock open on a generated image of side x side
pixels. Each phase lists the time between two ticks, in milliseconds: what a person feels is the
largest. Without a screen run it under Xvfb:
``xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/responsiveness.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

import numpy as np

TICK_MS = 10


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
    parser.add_argument("--side", type=int, default=2048, help="side of the image in pixels")
    parser.add_argument("--seconds", type=float, default=20, help="training budget")
    options = parser.parse_args()
    result = measure(options.side, options.seconds)
    print(f"{'phase':34}{'median':>8}{'p99':>8}{'worst':>8}  ms between ticks of 10 ms")
    for name, row in result["phases"].items():
        print(f"{name:34}{row['median ms']:8}{row['p99 ms']:8}{row['worst ms']:8}")
    print(f"cancel answered after {result['cancel answered after s']} s")
    print(json.dumps({"side": options.side, "cpus": os.cpu_count(), **result}))


if __name__ == "__main__":
    main()
