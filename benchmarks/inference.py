"""How fast a large image is segmented, and how exactly: this engine and its peers.

    python benchmarks/inference.py [--quick] [--nets light-bn same-bn] [--sizes 2048 4096]
        [--runs 5] [--threads 2] [--allocator keep] [--device cpu] [--sides engine monai]
        [--figures FILE] [--seconds 140] [--json FILE]

All sides have the same weights, image, threads and allocator, in one process, and are timed in
turns, after one run of each that does not count. The tables give the median and the fastest of the
runs, the median of how many times our own time of the same round a side took (with one thread: of
the processor's time), how far the probabilities are from those of the network that sees the whole
image at once, and the speed as a fraction of what the processor's convolutions reach.

With --figures and --seconds it measures as much as fits, and the next call goes on with the same
file: a machine that is quiet for two minutes at a time will do, see :mod:`slices`.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from common import (
    Others,
    clock,
    common_options,
    flops_per_pixel,
    installed,
    keep_memory,
    machine,
    make_image,
    make_model,
    markdown,
    tell,
    touch_memory,
    write_json,
)
from numpy.typing import NDArray
from peers import PEERS, Peers, import_peers
from slices import Figures, Slice

from napari_unet import SegmentSettings, predict
from napari_unet.errors import DeviceError
from napari_unet.network.devices import choose_dtype

if TYPE_CHECKING:
    from napari_unet.settings import Precision

SIZES = {"light-bn": (2048, 4096), "same-bn": (1024,), "nuclei": (2048,)}
OTHER_SIZES, QUICK_SIZES = (2048,), (512,)
RUNS, QUICK_RUNS = 5, 2
ENGINE, WHOLE, LEVERS = "this engine", "whole image, as it is", "whole image, same levers"
DEFAULT, GAUSSIAN = "MONAI, default (0.25, 256 x 4)", "MONAI, gaussian 0.5"
NNUNET = "nnU-Net, 512, no mirroring"
# What --sides names, beside the engine, which is always there.
SIDES = {
    "half": ENGINE + ",",
    "whole": WHOLE,
    "levers": LEVERS,
    "monai": DEFAULT,
    "gaussian": GAUSSIAN,
    "nnunet": NNUNET,
}
QUIET = 0.1  # processors that other programs keep busy: with more it is no fair comparison
ROIS = ((256, 4), (256, 1), (512, 4), (512, 1), (1024, 1))  # of MONAI: window and batch
HEAP_MAPS = 6  # so many feature maps of the top level are alive in a whole-image forward
# Channels and side of the 3x3 convolutions that show what the processor can do.
CONVOLUTIONS = ((64, 512), (128, 256), (256, 128))
CONVOLUTION_RUNS = 10

Variant = Callable[[], NDArray[np.float32]]
Key = dict[str, Any]
"""What figures belong to: network, side, device, threads, allocator."""


@dataclass(frozen=True)
class Row:
    """What was measured of one variant."""

    name: str
    seconds: list[float]
    cpu_seconds: list[float]
    times_ours: float
    """Median over the rounds, each compared to our own run of the same round."""
    max_error: float
    mean_error: float

    @property
    def median(self) -> float:
        """Seconds of the middle run."""
        return statistics.median(self.seconds)


class Comparison:
    """One network on one image, by all sides.

    Parameters
    ----------
    key : dict
        What the figures belong to.
    figures : Figures
        Those that are known, and where to keep others.
    left : Slice
        The time there is.
    sides : list of str
        Of ``SIDES``, beside the engine.
    """

    def __init__(self, key: Key, figures: Figures, left: Slice, sides: list[str]) -> None:
        self.key, self._figures, self._left = key, figures, left
        self._device = torch.device(key["device"])
        self.model = make_model(key["net"])
        self._image = make_image(key["side"], self.model.card.architecture.in_channels)
        self._peers = {
            autocast: Peers(self.model, self._device, autocast)
            for autocast in ((False, True) if self._device.type == "cuda" else (False,))
        }
        self._chosen = (ENGINE, *(SIDES[side] for side in sides))
        self._is_warm: set[str] = set()
        widths = self.model.net.architecture.widths
        self._heap = HEAP_MAPS * 4 * widths[0] * self._image[0].size

    def measure(self, runs: int) -> None:
        """Measure what is not known yet, as far as the time allows."""
        self._measure_limit()
        self._choose_windows()
        variants = self._variants()
        self._measure_errors(variants)
        turn = len(self._rounds(variants))
        names, last = list(variants), 0.0
        while turn < runs and not self._left.is_over:
            self._warm_up(variants)
            if not self._left.has(last or self._known_seconds(names)):
                break
            others, start = Others(), time.perf_counter()
            seconds, cpu = {}, {}
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                gc.collect()
                if self.key["allocator"] == "keep":
                    touch_memory(self._heap)
                began = time.process_time()
                seconds[name] = clock(variants[name])
                cpu[name] = time.process_time() - began
                tell(f"  {turn + 1}/{runs} {name}: {seconds[name]:.3f} s")
            busy = others.busy()
            self._figures.add(kind="round", **self.key, seconds=seconds, cpu=cpu, others=busy)
            turn, last = turn + 1, time.perf_counter() - start
        self._measure_limit()

    def rows(self) -> list[Row]:
        """Return what is known of all sides, whenever it was measured."""
        rounds = self._figures.find(kind="round", **self.key)
        errors = {each["name"]: each for each in self._figures.find(kind="error", **self.key)}
        by = "cpu" if self.key["threads"] == 1 else "seconds"
        rows = []
        for name in sorted({name for each in rounds for name in each["seconds"]}, key=_rank):
            mine = [each for each in rounds if name in each["seconds"]]
            ratios = [each[by][name] / each[by][ENGINE] for each in mine]
            seconds, cpu = ([each[what][name] for each in mine] for what in ("seconds", "cpu"))
            error = errors.get(name, {"max": math.nan, "mean": math.nan})
            times = statistics.median(ratios)
            rows.append(Row(name, seconds, cpu, times, error["max"], error["mean"]))
        return rows

    def limit(self) -> float:
        """Return the most operations per second that were seen."""
        return max(
            (each["limit"] for each in self._figures.find(kind="limit", **self.key)),
            default=math.nan,
        )

    def busy(self) -> list[float]:
        """Return how many processors other programs kept busy in each round."""
        return [each["others"] for each in self._figures.find(kind="round", **self.key)]

    def _variants(self) -> dict[str, Variant]:
        """Name what is compared; peers that are not installed are left out."""
        tensor = torch.from_numpy(self._image)[None]
        settings = SegmentSettings(device=self._device.type)
        other = settings.replace(precision="float32" if self._device.type == "cuda" else "half")
        engine = partial(predict, self.model, self._image, "CYX")
        variants: dict[str, Variant] = {ENGINE: partial(engine, settings)}
        if _has(other.precision, self._device):
            variants[f"{ENGINE}, {other.precision}"] = partial(engine, other)
        for autocast, peers in self._peers.items():
            suffix = _suffix(autocast)
            variants[WHOLE + suffix] = partial(peers.whole, tensor)
            variants[LEVERS + suffix] = partial(peers.whole_with_levers, tensor)
            if installed("monai"):
                variants[DEFAULT + suffix] = partial(peers.monai, tensor, 256, 4)
                roi, batch = self._best_window(autocast)
                name = f"{GAUSSIAN}, {roi} x {batch}{suffix}"
                variants[name] = self._gaussian(autocast, roi, batch)
        if installed("nnunetv2"):
            variants[NNUNET] = partial(self._peers[False].nnunet, tensor, 512)
        return {name: each for name, each in variants.items() if _side(name) in self._chosen}

    def _gaussian(self, autocast: bool, roi: int, batch: int) -> Variant:
        """Return MONAI's blend with a window and batch."""
        tensor, peers = torch.from_numpy(self._image)[None], self._peers[autocast]
        return partial(peers.monai, tensor, roi, batch, overlap=0.5, mode="gaussian")

    def _choose_windows(self) -> None:
        """Find the window and batch with which MONAI blends fastest, by two runs of each."""
        if GAUSSIAN not in self._chosen or not installed("monai"):
            return
        for autocast in self._peers:
            for roi, batch in ROIS:
                known = {"kind": "window", **self.key, "autocast": autocast, "window": [roi, batch]}
                is_known = self._figures.find(**known)
                if 2 * roi > self.key["side"] or is_known or self._left.is_over:
                    continue
                variant, seconds = self._gaussian(autocast, roi, batch), math.inf
                for _ in range(2):
                    if seconds == math.inf or self._left.has(1.2 * seconds):
                        seconds = min(seconds, clock(variant))
                tell(f"  tried {GAUSSIAN}, {roi} x {batch}{_suffix(autocast)}: {seconds:.3f} s")
                self._figures.add(**known, seconds=seconds)

    def _best_window(self, autocast: bool) -> tuple[int, int]:
        """Return the window and batch that were the fastest."""
        tried = self._figures.find(kind="window", **self.key, autocast=autocast)
        fastest = min(tried, key=lambda each: each["seconds"], default={"window": ROIS[0]})
        roi, batch = fastest["window"]
        return roi, batch

    def _measure_errors(self, variants: dict[str, Variant]) -> None:
        """Compare what each side gives to what the network gives of the whole image."""
        known = {each["name"] for each in self._figures.find(kind="error", **self.key)}
        missing = [name for name in variants if name not in known]
        if not missing or self._left.is_over:
            return
        on_cpu = Peers(self.model, torch.device("cpu"))
        truth = on_cpu.whole(torch.from_numpy(self._image)[None])
        for name in missing:
            if self._left.has(self._known_seconds([name])):
                error = np.abs(variants[name]() - truth)
                most, mean = float(error.max()), float(error.mean())
                self._figures.add(kind="error", **self.key, name=name, max=most, mean=mean)
                self._is_warm.add(name)
                tell(f"  warmed up: {name}, error {most:.1e}")

    def _warm_up(self, variants: dict[str, Variant]) -> None:
        """Run each side once that has not run in this process."""
        for name, variant in variants.items():
            if name not in self._is_warm and self._left.has(self._known_seconds([name])):
                variant()
                self._is_warm.add(name)

    def _measure_limit(self) -> None:
        """Measure what the processor's convolutions reach; it may be busy at another time."""
        if self._left.has(10):
            dtype = torch.float16 if self._device.type == "cuda" else torch.float32
            limit = convolution_limit(self._device, dtype)
            self._figures.add(kind="limit", **self.key, limit=limit)

    def _rounds(self, variants: dict[str, Variant]) -> list[dict[str, Any]]:
        """Return the rounds in which all of these were timed."""
        rounds = self._figures.find(kind="round", **self.key)
        return [each for each in rounds if variants.keys() <= each["seconds"].keys()]

    def _known_seconds(self, names: list[str]) -> float:
        """Estimate what sides take, by earlier rounds."""
        rounds = self._figures.find(kind="round", **self.key)
        known = [[each["seconds"].get(name, 0) for each in rounds] for name in names]
        return sum(max(seconds, default=0) for seconds in known)


def convolution_limit(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the most operations per second that a 3x3 convolution reaches here."""
    return max(_convolution_speed(*shape, device, dtype) for shape in CONVOLUTIONS)


@torch.inference_mode()
def _convolution_speed(channels: int, side: int, device: torch.device, dtype: torch.dtype) -> float:
    """Time one convolution; operations per second of the fastest of some runs."""
    placed = {"device": device, "dtype": dtype}
    batch = 16 if device.type == "cuda" else 1
    layer = torch.nn.Conv2d(channels, channels, 3, padding=1, **placed)
    layer = layer.to(memory_format=torch.channels_last)
    image = torch.rand(batch, channels, side, side, **placed)
    image = image.contiguous(memory_format=torch.channels_last)

    def run() -> None:
        layer(image)
        if device.type == "cuda":
            torch.cuda.synchronize()

    run()
    operations = 2 * 9 * channels**2 * side**2 * batch
    return operations / min(clock(run) for _ in range(CONVOLUTION_RUNS))


def table(rows: list[Row], key: Key, operations: float, limit: float) -> str:
    """Lay out the rows of one network and size; all speeds count the work of the whole image."""
    pixels = key["side"] ** 2
    columns = (
        "", "runs", "s, median", "s, min", "CPU s, median", "times ours", "max error", "mean error",
        "Mpx/s", "GFLOP/s", "of limit",
    )  # fmt: skip
    lines = [
        (
            row.name,
            f"{len(row.seconds)}",
            f"{row.median:.3f}",
            f"{min(row.seconds):.3f}",
            f"{statistics.median(row.cpu_seconds):.3f}",
            f"{row.times_ours:.2f}",
            f"{row.max_error:.1e}",
            f"{row.mean_error:.1e}",
            f"{pixels / row.median / 1e6:.1f}",
            f"{operations / row.median / 1e9:.0f}",
            f"{operations / row.median / limit:.2f}",
        )
        for row in rows
    ]
    return markdown(columns, lines)


def report(comparison: Comparison) -> dict[str, object]:
    """Print the table of one network on one size and return the figures."""
    key, net, rows = comparison.key, comparison.model.net, comparison.rows()
    side, limit, busy = key["side"], comparison.limit(), comparison.busy()
    operations = flops_per_pixel(net) * side**2
    weights = sum(weight.numel() for weight in net.parameters()) / 1e6
    print(
        f"\n{key['net']} ({weights:.2f} M weights), {side} x {side} pixels, "
        f"{operations / 1e9:.0f} GFLOP; {key['threads']} threads; allocator: {key['allocator']};"
    )
    print(f"limit {limit / 1e9:.0f} GFLOP/s, the best 3x3 convolution; ", end="")
    if busy:
        quiet = sum(each <= QUIET for each in busy)
        print(
            f"other programs kept {statistics.median(busy):.1f} processors busy (at most "
            f"{max(busy):.1f}; {quiet} of {len(busy)} rounds were quiet)"
        )
        print(f"\n{table(rows, key, operations, limit)}", flush=True)
    else:
        print("no round yet")
    figures = [asdict(row) for row in rows]
    return {**key, "flop": operations, "limit": limit, "others": busy, "rows": figures}


def main() -> None:
    """Read the options, measure, print the tables."""
    parser = common_options(__doc__)
    parser.add_argument("--nets", nargs="+", default=list(SIZES), help="presets or models")
    parser.add_argument("--sizes", nargs="+", type=int, help="sides of the images in pixels")
    parser.add_argument("--runs", type=int, help="timed runs of each variant")
    parser.add_argument("--allocator", choices=("keep", "default"), default="keep")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--sides", nargs="+", choices=list(SIDES), default=list(SIDES), help="beside this engine"
    )
    parser.add_argument("--figures", type=Path, help="keep all figures here, and go on with them")
    parser.add_argument("--seconds", type=float, help="measure as much as fits")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    import_peers()
    if options.allocator == "keep":
        keep_memory()
    runs = options.runs or (QUICK_RUNS if options.quick else RUNS)
    where = machine(options.threads, PEERS, options.device)
    print(f"\n{where}; allocator: {options.allocator}; {runs} runs")
    figures, left = Figures(options.figures), Slice(options.seconds)
    tables = []
    for name in options.nets:
        sizes = QUICK_SIZES if options.quick else SIZES.get(name, OTHER_SIZES)
        for side in options.sizes or sizes:
            tell(f"{name}, {side} x {side}")
            key = {
                "net": name,
                "side": side,
                "device": options.device,
                "threads": options.threads,
                "allocator": options.allocator,
            }
            comparison = Comparison(key, figures, left, options.sides)
            comparison.measure(runs)
            tables.append(report(comparison))
    if left.is_over:
        print("\nThe time was over before all was measured. Call it again to go on.")
    write_json(options.json, machine=where, allocator=options.allocator, tables=tables)


def _has(precision: Precision, device: torch.device) -> bool:
    """Tell whether a processor computes in a precision."""
    try:
        choose_dtype(precision, device)
    except DeviceError:
        return False
    return True


def _suffix(autocast: bool) -> str:
    """Name what runs in half precision."""
    return ", autocast" if autocast else ""


def _side(name: str) -> str:
    """Say which side a row is of: the one whose name is the most of it."""
    return max((side for side in (ENGINE, *SIDES.values()) if name.startswith(side)), key=len)


def _rank(name: str) -> tuple[int, bool]:
    """Sort the rows as the sides are listed."""
    return (ENGINE, *SIDES.values()).index(_side(name)), "autocast" in name


if __name__ == "__main__":
    main()
