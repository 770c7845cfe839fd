"""How many steps a training takes beside a program that uses every processor.

The same training for the same seconds, each in a process of its own as the dock starts it (nice),
alone and beside a program that computes with as many threads as there are processors: once with
OpenMP's own way to wait, once with ours (``napari_unet.network.threads.wait_with_the_system``).
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

from common import common_options, machine, markdown, write_json

from napari_unet.network.threads import FEW, LOOKS
from napari_unet.worker.__main__ import NICENESS

SECONDS, RUNS = 30.0, 3
TRAIN = f"""
import os, sys
os.nice({NICENESS})
import torch
from napari_unet import FinetuneSettings, Sample, finetune, load_model
from napari_unet.sample_data import nuclei
torch.set_num_threads(int(sys.argv[2]))
image, labels = nuclei((512, 512), seed=0)
settings = FinetuneSettings(seconds=float(sys.argv[1]))
result = finetune(load_model("nuclei"), [Sample(image[None], labels)], settings)
print(result.report["training"]["steps"])
"""
OTHER = """
import sys
import torch
torch.set_num_threads(int(sys.argv[1]))
net = torch.nn.Sequential(*[torch.nn.Conv2d(32, 32, 3, padding=1) for _ in range(8)])
while True:
    net(torch.ones(4, 32, 128, 128)).sum().backward()
"""
WAYS = {"OpenMP's own": {}, "ours": {LOOKS: FEW}}


def count_steps(seconds: float, threads: int, waits: dict[str, str]) -> int:
    """Train in a process of its own; how many steps it took."""
    command = [sys.executable, "-c", TRAIN, str(seconds), str(threads)]
    done = subprocess.run(
        command, env={**os.environ, **waits}, capture_output=True, text=True, check=True
    )
    return int(done.stdout.split()[-1])


def measure(seconds: float, runs: int, threads: int) -> list[tuple[str, ...]]:
    """Count the steps of each way to wait, in turns; medians and all counts."""
    rows = []
    for title in ("alone", "beside another program"):
        counts: dict[str, list[int]] = {name: [] for name in WAYS}
        for _ in range(runs):
            for name, waits in WAYS.items():
                other = None
                if title != "alone":
                    other = subprocess.Popen([sys.executable, "-c", OTHER, str(os.cpu_count())])
                try:
                    counts[name].append(count_steps(seconds, threads, waits))
                finally:
                    if other is not None:
                        other.kill()
                        other.wait()
        for name, each in counts.items():
            rows.append((title, name, f"{statistics.median(each):g}", ", ".join(map(str, each))))
    return rows


def main() -> None:
    """Read the options, measure, print the table."""
    parser = common_options(__doc__)
    parser.add_argument("--seconds", type=float, help="budget of each training")
    parser.add_argument("--runs", type=int, help="trainings of each kind")
    options = parser.parse_args()
    seconds = options.seconds or (5.0 if options.quick else SECONDS)
    runs = options.runs or (1 if options.quick else RUNS)
    rows = measure(seconds, runs, options.threads)
    where = machine(options.threads)
    print(f"\n{where}; steps in {seconds:g} s, {runs} trainings of each kind\n")
    print(markdown(("", "threads wait", "steps, median", "steps"), rows))
    write_json(options.json, machine=where, steps=rows)


if __name__ == "__main__":
    main()
