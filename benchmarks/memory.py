"""How much memory segmenting a large image takes: this engine and its peers.

    python benchmarks/memory.py [--quick] [--largest 16384] [--threads 2] [--figures FILE]
        [--seconds 140] [--json FILE]

Each case is a process of its own, with the allocator as everyone has it. Its baseline is the
resident memory once everything is imported, the model is made and the image is open (in main
memory, or as a zarr array on the disk); the figure is how far the resident memory rises above it
until the probabilities are there, the result included. Linux only. With --figures and --seconds it
measures as much as fits, and the next call goes on, see :mod:`slices`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import zarr
from common import (
    clock,
    common_options,
    give_back_memory,
    installed,
    machine,
    make_image,
    make_model,
    markdown,
    tell,
    write_json,
)
from peers import PEERS, Peers, import_peers
from slices import Figures, Slice

from napari_unet import Model, SegmentSettings, predict
from napari_unet.settings import Normalization

if TYPE_CHECKING:
    from collections.abc import Callable

NET = "light-bn"
SIDE, QUICK_SIDE = 4096, 1024
CHUNK_PX = 512
MIB = 2**20
SECONDS_PER_MPX = 0.5  # what a case takes at most, roughly, where the machine is quiet
ZARR = "this engine, zarr to zarr"
# What is run in main memory, by name.
IN_MEMORY = {
    "this engine, in memory": "engine",
    "this engine, in memory, tiles of 672": "engine-672",
    "whole image, as it is": "whole",
    "whole image, same levers": "levers",
    "MONAI, default (0.25, 256 x 4)": "monai",
    "nnU-Net, 512, no mirroring": "nnunet",
}
NEEDS = {"monai": "monai", "nnunet": "nnunetv2"}


def run_case(case: str, side: int, folder: Path | None) -> dict[str, float]:
    """Measure one case in this process."""
    model = make_model(NET)
    import_peers()
    work = prepare_zarr(model, folder) if folder else prepare_array(model, case, side)
    give_back_memory()
    reset_peak()
    baseline = status("VmRSS")
    seconds = clock(work)
    return {"MiB": (status("VmHWM") - baseline) / MIB, "seconds": seconds}


def prepare_array(model: Model, case: str, side: int) -> Callable[[], Any]:
    """Return what segments an image in main memory."""
    image = make_image(side)
    tensor = torch.from_numpy(image)[None]
    peers = Peers(model, torch.device("cpu"))
    settings = SegmentSettings(device="cpu", tile_px=672 if case == "engine-672" else None)
    cases: dict[str, Callable[[], Any]] = {
        "engine": lambda: predict(model, image, "CYX", settings),
        "engine-672": lambda: predict(model, image, "CYX", settings),
        "whole": lambda: peers.whole(tensor),
        "levers": lambda: peers.whole_with_levers(tensor),
        "monai": lambda: peers.monai(tensor, 256, 4),
        "nnunet": lambda: peers.nnunet(tensor, 512),
    }
    return cases[case]


def prepare_zarr(model: Model, folder: Path) -> Callable[[], Any]:
    """Return what segments a zarr array into another."""
    model = Model(model.net, model.card.replace(normalization=Normalization()))
    image = zarr.open_array(folder / "image.zarr", mode="r")
    out = zarr.open_array(folder / "out.zarr", mode="r+")
    return lambda: predict(model, image, "YX", SegmentSettings(device="cpu"), out=out)


def write_arrays(side: int, folder: Path) -> None:
    """Write an image of 16 bits, and an empty result, both in chunks."""
    shape, chunks = (side, side), (CHUNK_PX, CHUNK_PX)
    image = zarr.create_array(folder / "image.zarr", shape=shape, chunks=chunks, dtype="uint16")
    zarr.create_array(folder / "out.zarr", shape=(1, *shape), chunks=(1, *chunks), dtype="float32")
    strip = (1000 * (make_image(2 * CHUNK_PX)[0, :CHUNK_PX] + 1)).clip(0).astype(np.uint16)
    strip = np.tile(strip, (1, side // strip.shape[1]))
    for top in range(0, side, CHUNK_PX):
        image[top : top + CHUNK_PX] = np.roll(strip, 7 * top, axis=1)


def status(key: str) -> int:
    """Read a number of bytes from what Linux tells about this process."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def reset_peak() -> None:
    """Let the peak (VmHWM) begin anew."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def in_child(case: str, side: int, threads: int, folder: Path | None = None) -> dict[str, float]:
    """Measure one case in a process of its own; with a folder, from zarr to zarr."""
    tell(f"{case}, {side} x {side}")
    options = ["--case", case, "--side", str(side)]
    options += ["--folder", str(folder)] if folder else []
    done = subprocess.run(
        [sys.executable, __file__, *options, "--threads", str(threads)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    measured = json.loads(done.stdout.splitlines()[-1])
    tell(f"  {measured['MiB']:.0f} MiB, {measured['seconds']:.1f} s")
    return measured


def measure(side: int, largest: int, threads: int, figures: Figures, left: Slice) -> None:
    """Measure all cases, the peers in main memory and ourselves at growing sizes."""
    for name, case in IN_MEMORY.items():
        if case not in NEEDS or installed(NEEDS[case]):
            measure_once(name, case, side, threads, figures, left)
    while side <= largest:
        measure_once(ZARR, "zarr", side, threads, figures, left)
        side *= 2


def measure_once(
    name: str, case: str, side: int, threads: int, figures: Figures, left: Slice
) -> None:
    """Measure a case that is not known yet, if there is time."""
    key = {"name": name, "side": side, "threads": threads}
    if figures.find(**key) or not left.has(SECONDS_PER_MPX * side**2 / 1e6):
        return
    if case != "zarr":
        figures.add(**key, **in_child(case, side, threads))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_arrays(side, Path(folder))
        figures.add(**key, **in_child(case, side, threads, Path(folder)))


def main() -> None:
    """Read the options, measure, print the table."""
    parser = common_options(__doc__)
    parser.add_argument("--largest", type=int, default=16384, help="largest side with zarr")
    parser.add_argument("--figures", type=Path, help="keep all figures here, and go on with them")
    parser.add_argument("--seconds", type=float, help="measure as much as fits")
    # What this script tells its children.
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--side", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.case:
        print(json.dumps(run_case(options.case, options.side, options.folder)))
        return
    side, largest = (QUICK_SIDE, 2 * QUICK_SIDE) if options.quick else (SIDE, options.largest)
    figures, left = Figures(options.figures), Slice(options.seconds)
    measure(side, largest, options.threads, figures, left)
    rows = figures.find(threads=options.threads)
    print(f"\n{machine(options.threads, ('zarr', *PEERS))}; {NET}\n")
    lines = [
        (row["name"], f"{row['side']}", f"{row['MiB']:.0f}", f"{row['seconds']:.1f}")
        for row in rows
    ]
    print(markdown(("", "side, pixels", "MiB over baseline", "s"), lines))
    if left.is_over:
        print("\nThe time was over before all was measured. Call it again to go on.")
    write_json(options.json, threads=options.threads, net=NET, rows=rows)


if __name__ == "__main__":
    main()
