"""What the benchmarks share: networks and images, the allocator, the clock, Markdown tables."""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import platform
import sys
import time
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from napari_unet import Model, load_model
from napari_unet.models.card import Card
from napari_unet.network.unet import PRESETS, UNet
from napari_unet.sample_data import nuclei
from napari_unet.settings import Normalization

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

TILE_PX = 512  # the generated image repeats, its noise does not
LOGITS_STD = 2.0  # of random networks: neither all 0 and 1 nor all 0.5
AS_IT_IS = Normalization(kind="none")

PROC_STAT = Path("/proc/stat")

# glibc's names for what mallopt sets.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


# --------------------------------------------------------------------------- networks and images


def make_model(name: str) -> Model:
    """Return a preset with random weights, or a model of the library; it takes images as they are.

    Random weights are the worst case for seams: all of the receptive field counts. They keep the
    signal's size, and the batch norms have measured an image, so that folding them is no trifle.
    """
    if name not in PRESETS:
        model = load_model(name)
        return Model(model.net, model.card.replace(normalization=AS_IT_IS))
    torch.manual_seed(0)
    net = UNet.from_preset(name)
    shape = net.architecture
    _calibrate(net, torch.from_numpy(make_image(256, shape.in_channels))[None])
    card = Card(
        name=name,
        architecture=shape,
        input_channels=tuple(f"channel {n}" for n in range(shape.in_channels)),
        outputs=tuple(f"class {n}" for n in range(shape.classes)),
        normalization=AS_IT_IS,
    )
    return Model(net, card)


@torch.no_grad()
def _calibrate(net: UNet, image: torch.Tensor) -> None:
    """Draw what batch norms learn, let them measure an image, and scale the logits."""
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.2)
            layer.momentum = None  # what it measures replaces what it knew
    net.train()(image)
    logits = net.eval()(image)
    gain = LOGITS_STD / float(logits.std())
    net.output.weight *= gain
    net.output.bias.copy_(gain * (net.output.bias - logits.mean()))


def make_image(side: int, channels: int = 1) -> NDArray[np.float32]:
    """Generate noisy nuclei, shape (channels, side, side), most values from 0 to 1."""
    random = np.random.default_rng(0)
    repeats = -(-side // TILE_PX)
    image = np.empty((channels, side, side), np.float32)
    for channel, plane in enumerate(image):
        tile = nuclei((TILE_PX, TILE_PX), seed=channel)[0].astype(np.float32)
        low, high = np.percentile(tile, (1, 99.8))
        tile = (tile - low) / (high - low)
        plane[:] = np.tile(tile, (repeats, repeats))[:side, :side]
        plane += random.normal(0, 0.02, plane.shape).astype(np.float32)
    return image


def flops_per_pixel(net: UNet) -> float:
    """Count the floating-point operations per pixel of the whole-image forward."""
    side = 16 * net.stride
    meta = UNet(net.architecture).eval().to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        meta(torch.empty(1, net.architecture.in_channels, side, side, device="meta"))
    return counter.get_total_flops() / side**2


# ------------------------------------------------------------------------------------- allocator


def keep_memory() -> None:
    """Tell glibc to keep all memory it once had, for everyone in this process.

    By default it gives large blocks back after each layer and fetches them anew, and the page
    faults of that, which differ from machine to machine, are most of a naive forward's time.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1), (M_ARENA_MAX, 1)):
            assert libc.mallopt(option, value) == 1, f"mallopt({option}, {value}) was refused"


def give_back_memory() -> None:
    """Tell glibc to give back what nobody uses, so that a baseline holds no hidden reserve."""
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def touch_memory(size: int) -> None:
    """Let the allocator own so many bytes: no one pays for what someone before gave back."""
    torch.zeros(size, dtype=torch.uint8)
    gc.collect()


# ----------------------------------------------------------------------------------------- clock


def alternate(
    variants: dict[str, Callable[[], object]], runs: int, before: Callable[[], None] = gc.collect
) -> dict[str, list[float]]:
    """Time variants in turns, each round beginning with the next one; returns their seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    for turn in range(runs):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            before()
            seconds[name].append(clock(variants[name]))
            tell(f"  {turn + 1}/{runs} {name}: {seconds[name][-1]:.3f} s")
    return seconds


def clock(function: Callable[[], object]) -> float:
    """Call a function and return the seconds it took."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


class Others:
    """How busy other programs keep the processors from here on; not known but on Linux."""

    def __init__(self) -> None:
        self._start, self._seconds = time.perf_counter(), self._busy_seconds()

    def __str__(self) -> str:
        if not PROC_STAT.exists():
            return "other programs not watched"
        return f"other programs kept {self.busy():.1f} processors busy"

    def busy(self) -> float:
        """Return how many processors they kept busy; 0 where nobody can tell."""
        seconds = self._busy_seconds() - self._seconds
        return max(seconds / (time.perf_counter() - self._start), 0.0)

    @staticmethod
    def _busy_seconds() -> float:
        """Sum the seconds that all processors worked, but for this process."""
        if not PROC_STAT.exists():
            return 0.0
        total = PROC_STAT.read_text(encoding="utf-8").split("\n", 1)[0].split()
        user, nice, system, _, _, irq, softirq, steal = (int(ticks) for ticks in total[1:9])
        ticks = user + nice + system + irq + softirq + steal
        return ticks / os.sysconf("SC_CLK_TCK") - time.process_time()


# ---------------------------------------------------------------------------------------- report


def common_options(description: str) -> argparse.ArgumentParser:
    """Begin the options of a script: threads, --quick and --json."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2, help="threads for all sides")
    parser.add_argument("--quick", action="store_true", help="small images, few runs: does it run?")
    parser.add_argument("--json", type=Path, help="write all figures to this file, too")
    return parser


def tell(text: str) -> None:
    """Say how far we are, apart from the tables."""
    print(text, file=sys.stderr, flush=True)


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def machine(threads: int, packages: Sequence[str] = (), device: str = "cpu") -> str:
    """Describe in a line what the figures were measured on."""
    processor = torch.cuda.get_device_name() if device == "cuda" else _processor()
    versions = [f"{name} {found}" for name in ("torch", *packages) if (found := installed(name))]
    parts = [processor, f"{threads} threads", f"Python {platform.python_version()}", *versions]
    return ", ".join([*parts, date.today().isoformat()])


def installed(package: str) -> str | None:
    """Return the version of a package, or None if it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def write_json(path: Path | None, **content: Any) -> None:
    """Write all figures to a file, if one was asked for."""
    if path is not None:
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _processor() -> str:
    """Name the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
