"""The training loop of all bundled models: a budget in steps, resumed where it was broken off.

What a run is stands in its :class:`Recipe`. Every minute its whole state goes into one file beside
the result; the same command goes on from there and ends with the same weights as a run that was
never broken off. Another number of steps may be given then; the schedule follows it from there.
The weights that are kept are the running average at the end: none is chosen among checkpoints, so
that the images which judge stay unseen.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_unet.files.atomic import written_beside
from napari_unet.models.model import Model
from napari_unet.network.build import build_network
from napari_unet.network.losses import masked_loss
from napari_unet.runs.learner import is_fast_in_half
from napari_unet.runs.schedule import learning_rate

if TYPE_CHECKING:
    from crops import Crops

    from napari_unet.models.card import Card
    from napari_unet.network.unet import UNet
    from napari_unet.settings import Loss

Check = Callable[[Model], str]

LARGEST_GRADIENT = 1.0
TOLD_STEPS = 20  # steps between two lines about the loss
SAVED_SECONDS = 60.0  # between two states on disk
MOMENTUM = 0.99  # of the paper


@dataclass(frozen=True)
class Recipe:
    """How a network learns."""

    learning_rate: float = 2.5e-3
    """The largest, after the warm-up."""
    weight_decay: float = 2e-2
    batch: int = 8
    loss: Loss = "both"
    """Or ``cross-entropy`` or ``dice`` alone."""
    average_steps: int = 400
    """Memory of the running average of the weights."""
    optimizer: str = "adamw"
    """Or ``sgd``, with the momentum of the paper."""


class Stopped(Exception):
    """The training was asked to end; its state is on disk."""


class Trainer:
    """A network that learns, and all that is needed to go on with it later."""

    def __init__(
        self,
        card: Card,
        crops: Crops,
        recipe: Recipe,
        *,
        steps: int,
        seed: int = 0,
        start: UNet | None = None,
        compiled: bool = False,
    ) -> None:
        torch.manual_seed(seed)
        net = build_network(card.architecture) if start is None else copy.deepcopy(start)
        self.net = net.to(memory_format=torch.channels_last).requires_grad_(True).train()
        self.model = Model(copy.deepcopy(self.net).eval(), card)
        self.steps_taken = 0
        self.cpu_seconds = 0.0
        self.losses: list[float] = []
        self._is_half = is_fast_in_half(torch.device("cpu"))
        self._run = torch.compile(self.net) if compiled else self.net
        self._crops, self._recipe, self._steps, self._seed = crops, recipe, steps, seed
        self._optimizer = _optimizer(self.net, recipe)
        self._identity = _identify(card, crops, recipe, seed, self.net)

    def run(self, state: Path, *, check: Check | None = None, check_steps: int = 0) -> Model:
        """Learn until the budget is spent; go on from ``state`` if it is there."""
        if state.exists():
            self._restore(state)
            say(f"going on after step {self.steps_taken}")
        saved = time.monotonic()
        with _requests_to_stop() as requests:
            while self.steps_taken < self._steps:
                self.step()
                done = self.steps_taken
                if done % TOLD_STEPS == 0:
                    loss = np.mean(self.losses[-TOLD_STEPS:])
                    say(f"step {done:5}  {self.cpu_seconds:6.0f} s of CPU time  loss {loss:.4f}")
                if check is not None and check_steps and done % check_steps == 0:
                    say(f"step {done:5}  {check(self.model)}")
                is_over = bool(requests) or done == self._steps
                if is_over or time.monotonic() - saved > SAVED_SECONDS:
                    self.save(state)
                    saved = time.monotonic()
                if requests:
                    raise Stopped
        return self.model

    def step(self) -> None:
        """Take one step."""
        began = time.process_time()
        recipe = self._recipe
        torch.manual_seed(self._seed * 1_000_003 + self.steps_taken)  # for dropout
        images, targets, weights = self._crops.draw(recipe.batch, self.steps_taken)
        rate = learning_rate(self.steps_taken / self._steps, recipe.learning_rate)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._is_half):
            logits = self._run(images.contiguous(memory_format=torch.channels_last))
        targets, weights = (_middle(maps, logits.shape[-2:]) for maps in (targets, weights))
        activation = self.model.card.activation
        loss = masked_loss(logits, targets, weights, activation, recipe.loss)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), LARGEST_GRADIENT)
        self._optimizer.step()
        self.steps_taken += 1
        self.losses.append(float(loss.detach()))
        _follow(self.model.net, self.net, self.steps_taken, recipe.average_steps)
        self.cpu_seconds += time.process_time() - began

    def save(self, path: Path) -> None:
        """Write all that another process needs to go on."""
        state = {
            "identity": self._identity,
            "steps_taken": self.steps_taken,
            "cpu_seconds": self.cpu_seconds,
            "losses": self.losses,
            "net": self.net.state_dict(),
            "average": self.model.net.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }
        with written_beside(path) as beside:
            torch.save(state, beside)

    def _restore(self, path: Path) -> None:
        """Go on from what an earlier process wrote."""
        state: dict[str, Any] = torch.load(path, weights_only=True)
        if state["identity"] != self._identity:
            raise SystemExit(
                f"{path} belongs to another training: other options, data or recipe. Give the same "
                "options as then, or delete it to start anew."
            )
        self.net.load_state_dict(state["net"])
        self.model.net.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.steps_taken, self.cpu_seconds = state["steps_taken"], state["cpu_seconds"]
        self.losses = state["losses"]


def common_options(what: str, steps: int) -> argparse.ArgumentParser:
    """Return the options that all training scripts have."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--data", type=Path, required=True, help="folder of the images")
    parser.add_argument("--out", type=Path, required=True, help="model file to write")
    parser.add_argument(
        "--steps", type=int, default=steps, help="training steps, default %(default)s"
    )
    parser.add_argument("--seed", type=int, default=0, help="start of the random numbers")
    parser.add_argument("--compile", action="store_true", help="faster; needs a C++ compiler")
    parser.add_argument(
        "--check-steps", type=int, default=0, help="between two scores told, 0: none"
    )
    return parser


def train(trainer: Trainer, options: argparse.Namespace, check: Check) -> Model:
    """Train with one thread until the budget is spent; end the program if it is asked to stop."""
    torch.set_num_threads(1)
    state = options.out.with_suffix(".training")
    count = sum(parameter.numel() for parameter in trainer.net.parameters())
    say(f"{count:,} parameters; the state is kept in {state}")
    try:
        model = trainer.run(state, check=check, check_steps=options.check_steps)
    except Stopped:
        raise SystemExit(f"Stopped. The same command goes on from {state}.") from None
    say(f"{trainer.steps_taken} steps, {trainer.cpu_seconds:.0f} s of CPU time")
    return model


def say(text: str) -> None:
    """Write a line at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _identify(card: Card, crops: Crops, recipe: Recipe, seed: int, net: UNet) -> str:
    """Name a training by all that it does, but for the images and the number of steps."""
    origin = [f"{float(parameter.detach().sum()):.4f}" for parameter in net.parameters()]
    reads = (card.architecture, card.normalization, card.outputs, card.activation)
    told = repr((reads, crops.settings, recipe, seed, origin))
    return hashlib.sha256(told.encode()).hexdigest()


def _optimizer(net: UNet, recipe: Recipe) -> torch.optim.Optimizer:
    """Make the optimiser of a recipe."""
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            net.parameters(), momentum=MOMENTUM, weight_decay=recipe.weight_decay
        )
    return torch.optim.AdamW(net.parameters(), weight_decay=recipe.weight_decay)


@torch.no_grad()
def _follow(average: UNet, net: UNet, step: int, memory_steps: int) -> None:
    """Move the running average of the weights (and of the norms' statistics) a little."""
    keep = min(1 - 1 / memory_steps, step / (step + 10))
    for mean, value in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - keep)
        else:
            mean.copy_(value)


def _middle(maps: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """Cut the middle out of maps (N, K, Y, X): what an unpadded network gives an answer for."""
    y, x = ((whole - part) // 2 for whole, part in zip(maps.shape[-2:], size, strict=True))
    return maps[..., y : y + size[0], x : x + size[1]]


@contextmanager
def _requests_to_stop() -> Iterator[list[int]]:
    """Collect the signals that ask the process to end, in place of ending at once."""
    requests: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda got, _: requests.append(got)) for number in numbers]
    try:
        yield requests
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
