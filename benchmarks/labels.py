"""How long finding the objects takes on a plane of 4096 x 4096 pixels with 8000 nuclei.

    python benchmarks/labels.py [--quick] [--runs 5] [--json FILE]

The probabilities are generated: discs on a shaken grid, so that some touch, with soft edges and
with the distance a network would give. Beside ours stand the recipe of scikit-image's manual and,
for its slowest step, SciPy's distance transform and the one we use. Which steps take the time is
sampled in a run of its own.
"""

from __future__ import annotations

import concurrent.futures.thread
import math
import statistics
import sys
import threading
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import edt
import numpy as np
from common import (
    Others,
    alternate,
    common_options,
    machine,
    markdown,
    tell,
    write_json,
)
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.segmentation import watershed

from napari_unet.arrays.instances import find_instances
from napari_unet.arrays.targets import make_targets
from napari_unet.settings import InstanceSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

SIDE, QUICK_SIDE, NUCLEI_PER_PX = 4096, 1024, 8100 / 4096**2
RADIUS_PX = (11.0, 22.0)
OUTPUTS = ("foreground", "distance")
EDGE_PX = 1.0  # over which the foreground falls
PACKAGES = ("scikit-image", "scipy", "edt")
SLOWEST, SAMPLE_S = 6, 0.002
WAITING = (threading.__file__, concurrent.futures.thread.__file__)
WITH_DISTANCE, WITHOUT = "labels from foreground and distance", "labels from foreground alone"
RECIPE = "scikit-image's recipe (SciPy distance, peaks, watershed)"
EDT, SCIPY_EDT = "distance transform: edt", "distance transform: SciPy"


def make_nuclei(side: int) -> tuple[NDArray[np.float32], int]:
    """Generate the two probabilities of a network, shape (2, side, side), and count the nuclei."""
    random = np.random.default_rng(0)
    steps = round(side * math.sqrt(NUCLEI_PER_PX))
    pitch = side / steps
    labels = np.zeros((side, side), np.int32)
    inside = np.zeros((side, side), np.float32)
    for number in range(steps**2):
        row, column = divmod(number, steps)
        y, x = (np.array([row, column]) + 0.5 + random.uniform(-0.2, 0.2, 2)) * pitch
        radius = random.uniform(*RADIUS_PX)
        window = tuple(
            slice(max(0, int(at - radius - 4)), min(side, int(at + radius + 5))) for at in (y, x)
        )
        grid_y, grid_x = np.ogrid[window]
        depth = radius - np.hypot(grid_y - y, grid_x - x)
        deeper = depth > inside[window]
        inside[window][deeper] = depth[deeper]
        labels[window][deeper & (depth > 0)] = number + 1
    foreground = 1 / (1 + np.exp((EDGE_PX - inside) / EDGE_PX))
    distance = make_targets(labels, OUTPUTS)[1]
    noise = random.normal(0, 0.02, (2, side, side))
    probability = (np.stack([foreground, distance]) + noise).clip(0, 1)
    return probability.astype(np.float32), len(np.unique(labels)) - 1


def recipe(foreground: NDArray[np.float32]) -> NDArray[np.int32]:
    """Split touching objects as scikit-image's manual does."""
    mask = foreground > 0.5
    depth = ndimage.distance_transform_edt(mask)
    peaks = peak_local_max(depth, min_distance=7, labels=ndimage.label(mask)[0])
    seeds = np.zeros(mask.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return watershed(-depth, seeds, mask=mask)


def variants(probability: NDArray[np.float32]) -> dict[str, Callable[[], Any]]:
    """Name what is timed."""
    foreground = probability[:1]
    mask = foreground[0] > 0.5
    settings = InstanceSettings()
    return {
        WITH_DISTANCE: lambda: find_instances(probability, OUTPUTS, settings),
        WITHOUT: lambda: find_instances(foreground, OUTPUTS[:1], settings),
        RECIPE: lambda: recipe(foreground[0]),
        EDT: lambda: edt.edt(mask, black_border=False),
        SCIPY_EDT: lambda: ndimage.distance_transform_edt(mask),
    }


def slowest_steps(function: Callable[[], Any]) -> list[tuple[str, float]]:
    """List the functions that most of a run is spent in, with the seconds of all threads.

    A sample is taken every few milliseconds; what a thread does while it waits does not count.
    """
    seconds: dict[str, float] = defaultdict(float)
    done = threading.Event()

    def sample() -> None:
        last = time.perf_counter()
        while not done.wait(SAMPLE_S):
            now = time.perf_counter()
            for thread, frame in sys._current_frames().items():
                if thread != threading.get_ident() and frame.f_code.co_filename not in WAITING:
                    seconds[frame.f_code.co_name] += now - last
            last = now

    sampler = threading.Thread(target=sample)
    sampler.start()
    function()
    done.set()
    sampler.join()
    return sorted(seconds.items(), key=lambda item: -item[1])[:SLOWEST]


def main() -> None:
    """Read the options, measure, print the tables."""
    parser = common_options(__doc__)
    parser.add_argument("--runs", type=int, help="timed runs of each variant")
    options = parser.parse_args()
    side, runs = (QUICK_SIDE, 2) if options.quick else (SIDE, 5)
    probability, count = make_nuclei(side)
    timed, others = variants(probability), Others()
    for name, function in timed.items():
        tell(f"  warmed up: {name}")
        function()
    seconds = alternate(timed, options.runs or runs)
    found = {name: int(timed[name]().max()) for name in (WITH_DISTANCE, WITHOUT, RECIPE)}
    where = machine(options.threads, PACKAGES)
    print(f"\n{where}; {side} x {side}, {count} nuclei; {others}\n")
    lines = [
        (name, f"{statistics.median(runs):.3f}", f"{min(runs):.3f}", str(found.get(name, "")))
        for name, runs in seconds.items()
    ]
    print(markdown(("", "s, median", "s, min", "objects"), lines))
    for name in (WITH_DISTANCE, WITHOUT):
        steps = slowest_steps(timed[name])
        print(f"\nWhere the time goes, {name}:\n")
        print(markdown(("function", "s"), [(f"`{step}`", f"{s:.3f}") for step, s in steps]))
    write_json(options.json, side=side, nuclei=count, seconds=seconds, objects=found)


if __name__ == "__main__":
    main()
