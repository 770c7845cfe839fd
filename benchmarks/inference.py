"""How fast a large image is segmented, and how exactly: this engine and its peers.

    python benchmarks/inference.py [--quick] [--nets light-bn same-bn] [--sizes 2048 4096]
        [--runs 5] [--threads 2] [--allocator keep] [--device cpu] [--json FILE]

All sides have the same weights, image, threads and allocator, in one process, and are timed in
turns, after one run of each that does not count. The tables give the median and the fastest of the
runs, the ratio of the medians, how far the probabilities are from those of the network that sees
the whole image at once, and the speed as a fraction of what the processor's convolutions reach.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch
from common import (
    Others,
    alternate,
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

from napari_unet import Model, SegmentSettings, predict

SIZES = {"light-bn": (2048, 4096), "same-bn": (1024,), "nuclei": (2048,)}
OTHER_SIZES, QUICK_SIZES = (2048,), (512,)
RUNS, QUICK_RUNS = 5, 2
ENGINE, WHOLE, LEVERS = "this engine", "whole image, as it is", "whole image, same levers"
DEFAULT, GAUSSIAN = "MONAI, default (0.25, 256 x 4)", "MONAI, gaussian 0.5"
NNUNET = "nnU-Net, 512, no mirroring"
ROIS = ((256, 4), (256, 1), (512, 4), (512, 1), (1024, 1))  # of MONAI: window and batch
HEAP_MAPS = 6  # so many feature maps of the top level are alive in a whole-image forward
# Channels and side of the 3x3 convolutions that show what the processor can do.
CONVOLUTIONS = ((64, 512), (128, 256), (256, 128))
CONVOLUTION_RUNS = 10

Variant = Callable[[], NDArray[np.float32]]


@dataclass(frozen=True)
class Row:
    """What was measured of one variant."""

    name: str
    seconds: list[float]
    max_error: float
    mean_error: float

    @property
    def median(self) -> float:
        """Seconds of the middle run."""
        return statistics.median(self.seconds)


def measure(
    model: Model, image: NDArray[np.float32], device: torch.device, runs: int, keep: bool
) -> list[Row]:
    """Time all variants on an image, and compare what they give to the whole image's."""
    heap = HEAP_MAPS * 4 * model.net.architecture.widths[0] * image[0].size if keep else 0
    on_cpu = Peers(model, torch.device("cpu"))
    truth = on_cpu.whole(torch.from_numpy(image)[None])
    variants = choose_variants(model, image, device)
    errors = {}
    for name, variant in variants.items():
        errors[name] = np.abs(variant() - truth)
        tell(f"  warmed up: {name}, error {errors[name].max():.1e}")
    seconds = alternate(variants, runs, partial(touch_memory, heap))
    return [
        Row(name, seconds[name], float(error.max()), float(error.mean()))
        for name, error in errors.items()
    ]


def choose_variants(
    model: Model, image: NDArray[np.float32], device: torch.device
) -> dict[str, Variant]:
    """Name what is to be compared; peers that are not installed are left out."""
    tensor = torch.from_numpy(image)[None]
    settings = SegmentSettings(device=device.type)
    other = settings.replace(precision="float32" if device.type == "cuda" else "half")
    variants: dict[str, Variant] = {
        ENGINE: partial(predict, model, image, "CYX", settings),
        f"{ENGINE}, {other.precision}": partial(predict, model, image, "CYX", other),
    }
    for autocast in (False, True) if device.type == "cuda" else (False,):
        peers = Peers(model, device, autocast)
        suffix = ", autocast" if autocast else ""
        variants[WHOLE + suffix] = partial(peers.whole, tensor)
        variants[LEVERS + suffix] = partial(peers.whole_with_levers, tensor)
        if installed("monai"):
            variants[DEFAULT + suffix] = partial(peers.monai, tensor, 256, 4)
            name, gaussian = best_gaussian(peers, tensor)
            variants[name + suffix] = gaussian
    if installed("nnunetv2"):
        variants[NNUNET] = partial(peers.nnunet, tensor, 512)
    return variants


def best_gaussian(peers: Peers, image: torch.Tensor) -> tuple[str, Variant]:
    """Find the window and batch with which MONAI blends fastest, by two runs of each."""
    seconds: dict[tuple[str, Variant], float] = {}
    for roi, batch in ROIS:
        if 2 * roi <= image.shape[-1]:
            variant = partial(peers.monai, image, roi, batch, overlap=0.5, mode="gaussian")
            name = f"{GAUSSIAN}, {roi} x {batch}"
            seconds[name, variant] = min(clock(variant) for _ in range(2))
            tell(f"  tried {name}: {seconds[name, variant]:.3f} s")
    return min(seconds, key=lambda tried: seconds[tried])


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


def table(rows: list[Row], operations: float, limit: float) -> str:
    """Lay out the rows of one network and size; all speeds count the work of the whole image."""
    ours = next(row for row in rows if row.name == ENGINE).median
    columns = ("", "s, median", "s, min", "times ours", "max error", "mean error", "GFLOP/s")
    lines = [
        (
            row.name,
            f"{row.median:.3f}",
            f"{min(row.seconds):.3f}",
            f"{row.median / ours:.2f}",
            f"{row.max_error:.1e}",
            f"{row.mean_error:.1e}",
            f"{operations / row.median / 1e9:.0f}",
            f"{operations / row.median / limit:.2f}",
        )
        for row in rows
    ]
    return markdown((*columns, "of limit"), lines)


def compare(name: str, side: int, device: torch.device, runs: int, keep: bool) -> dict[str, object]:
    """Measure one network on one size, print its table and return the figures."""
    tell(f"{name}, {side} x {side}")
    model = make_model(name)
    image = make_image(side, model.card.architecture.in_channels)
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    others, limits = Others(), [convolution_limit(device, dtype)]
    rows = measure(model, image, device, runs, keep)
    limits.append(convolution_limit(device, dtype))  # the machine may have been busy
    operations = flops_per_pixel(model.net) * side**2
    weights = sum(weight.numel() for weight in model.net.parameters()) / 1e6
    print(
        f"\n{name} ({weights:.2f} M weights), {side} x {side} pixels, {operations / 1e9:.0f} GFLOP;"
    )
    print(f"limit {max(limits) / 1e9:.0f} GFLOP/s, the best 3x3 convolution ({dtype}); {others}:\n")
    print(table(rows, operations, max(limits)), flush=True)
    figures = [asdict(row) for row in rows]
    return {"net": name, "side": side, "flop": operations, "limits": limits, "rows": figures}


def main() -> None:
    """Read the options, measure, print the tables."""
    parser = common_options(__doc__)
    parser.add_argument("--nets", nargs="+", default=list(SIZES), help="presets or models")
    parser.add_argument("--sizes", nargs="+", type=int, help="sides of the images in pixels")
    parser.add_argument("--runs", type=int, help="timed runs of each variant")
    parser.add_argument("--allocator", choices=("keep", "default"), default="keep")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    import_peers()
    keep = options.allocator == "keep"
    if keep:
        keep_memory()
    device = torch.device(options.device)
    runs = options.runs or (QUICK_RUNS if options.quick else RUNS)
    where = machine(options.threads, PEERS, options.device)
    print(f"\n{where}; allocator: {options.allocator}; {runs} runs")
    tables = []
    for name in options.nets:
        sizes = QUICK_SIZES if options.quick else SIZES.get(name, OTHER_SIZES)
        for side in options.sizes or sizes:
            tables.append(compare(name, side, device, runs, keep))
    write_json(options.json, machine=where, allocator=options.allocator, tables=tables)


if __name__ == "__main__":
    main()
