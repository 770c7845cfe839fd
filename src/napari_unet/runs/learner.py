"""The network that learns, step by step: optimiser, average of the weights, lack of memory.

When memory runs out, what the step has computed is given up and the step is taken again with half
as many crops at once, whose gradients are added up; at last, if even one does not fit, on the CPU.
The gradients of several parts are those of the whole batch, but for what a batch norm measures and
for the Dice part of the loss, which see each part alone.
"""

from __future__ import annotations

import copy
import math
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_unet.errors import DeviceError, SettingError
from napari_unet.models.model import Model
from napari_unet.network.augment import augment_batch
from napari_unet.network.batch_norm import batch_norms, blend_statistics
from napari_unet.network.devices import choose_device, free_memory, is_out_of_memory
from napari_unet.network.losses import masked_loss
from napari_unet.runs.progress import Note
from napari_unet.runs.schedule import learning_rate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_unet.network.build import Network
    from napari_unet.runs.crops import Crops, Map
    from napari_unet.settings import FinetuneSettings

AVERAGE_STEPS = 50  # memory of the average of the weights
LARGEST_GRADIENT = 1.0  # its norm is clipped to this
REPORT_SECONDS = 0.3  # between two reports of the loss
MEASURED_BATCHES = 6  # in which batch norm measures the new images before the first step


class Learner:
    """The network that learns, its average, and everything a step needs.

    Parameters
    ----------
    model : Model
        Where it starts from; stays as it is.
    settings : FinetuneSettings
        How it learns.

    Attributes
    ----------
    model : Model
        The average of the weights so far, with the card that was given.
    device : torch.device
        Where it learns now.
    steps : int
        Steps taken.
    is_healthy : bool
        False once loss or gradient were no number; the weights are those from before.

    Raises
    ------
    SettingError
        If more levels are to be frozen than the network has.
    DeviceError
        If the chosen device is not there.
    """

    def __init__(self, model: Model, settings: FinetuneSettings) -> None:
        self._settings, self._card = settings, model.card
        self.device = choose_device(settings.device)
        self._at_once = settings.batch
        self._notes: list[Note] = []
        self._net = copy.deepcopy(model.net).eval()
        self._average = copy.deepcopy(self._net)
        self.model = Model(self._average, model.card)
        levels = model.net.levels
        if settings.frozen_levels > levels:
            raise SettingError(
                f"{settings.frozen_levels} levels are to be frozen, but the network has {levels}. "
                f"Choose 0 to {levels}."
            )
        self._net.requires_grad_(True)
        self._net.freeze_levels(settings.frozen_levels)
        if settings.batch_norm == "adapt":
            for layer in batch_norms(self._net, settings.frozen_levels):
                layer.train()
        self._optimizer = torch.optim.AdamW(
            _groups(self._net, settings.weight_decay), lr=settings.learning_rate
        )
        self._random = np.random.default_rng(settings.seed)
        self._generator = torch.Generator().manual_seed(settings.seed)
        self._losses: list[float] = []
        self._reported = 0.0
        self._lock = threading.Lock()  # held while a step is taken
        self.steps = 0
        self.is_healthy = True

    @property
    def is_report_due(self) -> bool:
        """Whether some time has passed since the last report."""
        return time.monotonic() - self._reported > REPORT_SECONDS

    def begin(self, crops: Crops) -> None:
        """Let batch norm go over to the new images as far as it helps, if the settings say so.

        Parameters
        ----------
        crops : Crops
            Where to draw from.

        Raises
        ------
        DeviceError
            If memory ran out with a single crop, on the CPU too.
        """
        if self._settings.batch_norm == "fit":
            random = np.random.default_rng(self._settings.seed)
            drawn = [crops.draw(self._settings.batch, random) for _ in range(MEASURED_BATCHES)]
            with self._lock:
                self._somehow(crops, lambda: self._fit_batch_norm(crops, drawn))

    def step(self, crops: Crops, used: float) -> None:
        """Take one step, at a part of the budget; if memory runs out, with fewer crops at once.

        Parameters
        ----------
        crops : Crops
            Where to draw from.
        used : float
            Part of the budget that is used, 0..1.

        Raises
        ------
        DeviceError
            If memory ran out with a single crop, on the CPU too.
        """
        with self._lock:
            rate = learning_rate(used, self._settings.learning_rate)
            self._somehow(crops, lambda: self._step(crops, rate))

    def take_notes(self) -> list[Note]:
        """Return what the person should know since the last call."""
        notes, self._notes = self._notes, []
        return notes

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return all that another learner needs to go on, once the step at hand is taken.

        Returns
        -------
        tensors : dict of str to Tensor
            Copies on the CPU: weights, average, optimiser and torch's random numbers.
        values : dict
            Plain values for JSON: steps, and numpy's random numbers.
        """
        with self._lock:
            named = {"generator": self._generator.get_state()}
            for title, net in (("net", self._net), ("average", self._average)):
                named |= {f"{title}.{key}": value for key, value in net.state_dict().items()}
            for number, moments in self._optimizer.state_dict()["state"].items():
                named |= {f"optimizer.{number}.{key}": value for key, value in moments.items()}
            values = {
                "steps": self.steps,
                "at_once": self._at_once,
                "losses": list(self._losses),
                "random": self._random.bit_generator.state,
            }
            return {key: _copied(tensor) for key, tensor in named.items()}, values

    def restore(self, tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> None:
        """Go on from a state that a learner of the same model and settings has given.

        Parameters
        ----------
        tensors, values : dict
            See :meth:`state`.

        Raises
        ------
        KeyError, ValueError, RuntimeError
            If the state is of another network, or damaged.
        """
        parts: dict[str, dict[str, torch.Tensor]] = {"net": {}, "average": {}, "optimizer": {}}
        for key, tensor in tensors.items():
            title, _, name = key.partition(".")
            if title != "generator":
                parts[title][name] = tensor
        self._net.load_state_dict(parts["net"])
        self._average.load_state_dict(parts["average"])
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for key, tensor in parts["optimizer"].items():
            number, _, name = key.partition(".")
            moments.setdefault(int(number), {})[name] = tensor
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self._generator.set_state(tensors["generator"])
        self._random.bit_generator.state = values["random"]
        self.steps, self._at_once = int(values["steps"]), int(values["at_once"])
        self._losses = [float(loss) for loss in values["losses"]]

    def _somehow(self, crops: Crops, action: Callable[[], None]) -> None:
        """Do something with as many crops at once as the memory takes."""
        while True:
            try:
                self._move()
                action()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                problem = error
            else:
                return
            self._make_room(crops, problem)

    def _move(self) -> None:
        """Bring networks and optimiser to the device, unless they are there."""
        if next(self._net.parameters()).device.type == self.device.type:
            return
        for net in (self._net, self._average):
            net.to(self.device)
        for state in self._optimizer.state.values():
            for name, value in state.items():
                if name != "step":
                    state[name] = value.to(self.device)

    def _make_room(self, crops: Crops, problem: BaseException) -> None:
        """See fewer crops at once, or else go on with the CPU, and say so."""
        self._optimizer.zero_grad(set_to_none=True)
        problem.__traceback__ = None  # it holds on to what the step has computed
        free_memory(self.device)
        place, before = "this computer" if self.device.type == "cpu" else "the GPU", self._at_once
        if before > 1:
            self._at_once = before // 2
            self._notes.append(
                Note(
                    f"Memory of {place} ran out with {_crops(before)} at once; going on with "
                    f"{_crops(self._at_once)} at once."
                )
            )
        elif self.device.type != "cpu":
            self.device, self._at_once = torch.device("cpu"), self._settings.batch
            self._notes.append(
                Note("Memory of the GPU ran out; going on with the CPU, which is slower.")
            )
        else:
            raise DeviceError(
                f"Memory of this computer ran out with a single crop of {crops.window_px} px. "
                "Choose smaller crops, or close other programs."
            ) from problem

    def _fit_batch_norm(self, crops: Crops, drawn: Sequence[tuple[Map, Map, Map]]) -> None:
        """Blend old and new statistics so that the loss on some crops is the least."""
        inner = slice(crops.margin_px, crops.margin_px + crops.crop_px)
        parts = [
            [torch.from_numpy(values[at : at + self._at_once]).to(self.device) for values in batch]
            for batch in drawn
            for at in range(0, len(batch[0]), self._at_once)
        ]

        def loss() -> float:
            total = 0.0
            for images, targets, weights in parts:
                answer = self._answer(images)
                known = targets[..., inner, inner], weights[..., inner, inner]
                total += float(masked_loss(answer, *known, self._card.activation))
            return total

        layers = batch_norms(self._net, self._settings.frozen_levels)
        blend_statistics(self._net, layers, [images for images, *_ in parts], loss)
        self._average.load_state_dict(self._net.state_dict())

    def _answer(self, images: torch.Tensor) -> torch.Tensor:
        """Return what the network gives, in as many digits as the settings say."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._is_half()):
            answer: torch.Tensor = self._net(images)
        return answer.float()

    def _step(self, crops: Crops, rate: float) -> None:
        """Take one step; without it if loss or gradient is no number."""
        settings = self._settings
        drawn = crops.draw(settings.batch, self._random)
        inner = slice(crops.margin_px, crops.margin_px + crops.crop_px)
        self._optimizer.zero_grad(set_to_none=True)
        value = 0.0
        all_weights = max(float(drawn[2].sum()), 1.0)
        for start in range(0, settings.batch, self._at_once):
            part = (all_of[start : start + self._at_once] for all_of in drawn)
            images, targets, weights = augment_batch(
                *(torch.from_numpy(values).to(self.device) for values in part),
                flips=settings.flips,
                elastic_px=settings.elastic_px,
                grey_values=settings.grey_values,
                scale=(1 / settings.zoom, settings.zoom),
                rotation_degrees=settings.rotation_degrees,
                generator=self._generator,
            )
            targets, weights = targets[..., inner, inner], weights[..., inner, inner]
            loss = masked_loss(self._answer(images), targets, weights, self._card.activation)
            if self._at_once < settings.batch:
                share = float(drawn[2][start : start + self._at_once].sum()) / all_weights
                loss = loss * share
            loss.backward()  # type: ignore[no-untyped-call]  # torch tells no types
            value += float(loss.detach())
        norm = torch.nn.utils.clip_grad_norm_(self._net.parameters(), LARGEST_GRADIENT)
        self.is_healthy = math.isfinite(value) and bool(torch.isfinite(norm))
        if not self.is_healthy:
            return
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self.steps += 1
        self._losses.append(value)
        _follow(self._average, self._net, self.steps)

    def _is_half(self) -> bool:
        """Whether the network computes with fewer digits; its weights keep them all."""
        wanted = self._settings.precision
        return wanted == "half" or (wanted == "auto" and is_fast_in_half(self.device))

    def mean_loss(self) -> float:
        """Mean loss since the last report."""
        mean = float(np.mean(self._losses))
        self._losses, self._reported = self._losses[-1:], time.monotonic()
        return mean

    def result(self) -> Network:
        """Return the average, as a network like the one that was given."""
        return self._average.cpu().requires_grad_(True).eval()


def is_fast_in_half(device: torch.device) -> bool:
    """Tell whether a processor has instructions of its own for bfloat16.

    Parameters
    ----------
    device : torch.device
        Where it computes.

    Returns
    -------
    bool
        True where a training step with bfloat16 takes about two thirds of the time.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)  # since Ampere
    # Older versions of torch cannot tell.
    return device.type == "cpu" and getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()


@torch.no_grad()
def _follow(average: Network, net: Network, step: int) -> None:
    """Move the average of weights and statistics towards the network's, at first fast."""
    keep = min(1 - 1 / AVERAGE_STEPS, step / (step + 10))
    for mean, value in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - keep)


def _groups(net: Network, weight_decay: float) -> list[dict[str, Any]]:
    """Weights of convolutions decay; biases and norms do not."""
    free = [parameter for parameter in net.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in free if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in free if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    """Copy a tensor to memory of its own on the CPU."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _crops(count: int) -> str:
    """Say a number of crops."""
    return f"{count} crops" if count > 1 else "1 crop"
