"""The network that learns, step by step: optimiser, average of the weights, lack of memory.

When memory runs out, what the step has computed is given up and the step is taken again, with the
same crops, half as many of them at once, whose gradients are added up; at last, if even one does
not fit, on the CPU. The gradients of several parts are those of the whole batch, but for what a
batch norm measures and for the Dice part of the loss, which see each part alone.

A step that fails changes nothing: neither weights nor random numbers nor what batch norms have
measured. So whatever ends a training, its state is that after a whole number of steps.
"""

from __future__ import annotations

import copy
import math
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_unet.errors import DeviceError, SettingError
from napari_unet.models.model import Model
from napari_unet.network.augment import draw_changes
from napari_unet.network.batch_norm import batch_norms, blend_statistics
from napari_unet.network.devices import choose_device, free_memory, is_out_of_memory
from napari_unet.network.losses import masked_loss
from napari_unet.network.shared_norm import share_batch_norm
from napari_unet.runs.optimizer import (
    half_dtype,
    is_fast_in_half,
    make_optimizer,
    make_scaler,
)
from napari_unet.runs.progress import Note
from napari_unet.runs.schedule import learning_rate
from napari_unet.runs.team import Alone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from napari_unet.network.build import Network
    from napari_unet.runs.crops import Crops, Map
    from napari_unet.runs.team import Member
    from napari_unet.settings import FinetuneSettings

AVERAGE_STEPS = 50  # memory of the average of the weights
LARGEST_GRADIENT = 1.0  # its norm is clipped to this
REPORT_SECONDS = 0.3  # between two reports of the loss
LEAST_SCALE = (
    1.0  # of a float16 loss: if its gradients are no numbers even so, the step is not taken
)
MEASURED_BATCHES = 2  # in which batch norm measures the new images before the first step


class Learner:
    """The network that learns, its average, and everything a step needs.

    Parameters
    ----------
    model : Model
        Where it starts from; stays as it is.
    settings : FinetuneSettings
        How it learns.
    still : int
        Steps after which the average begins to move: until then it is the model that was given.

    Attributes
    ----------
    settings : FinetuneSettings
        As given.
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

    def __init__(self, model: Model, settings: FinetuneSettings, still: int = 0) -> None:
        self.settings, self._card, self._still = settings, model.card, still
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
        if settings.dropout:
            _let_dropout_drop(self._net)
        self._list_tensors()
        self._optimizer = make_optimizer(self._net, settings, self.device)
        self._scaler = make_scaler(self.half, self.device)
        self._random = np.random.default_rng(settings.seed)
        self._generator = torch.Generator().manual_seed(settings.seed)
        self._losses: list[float] = []
        self._reported = 0.0
        self._lock = threading.Lock()  # held while a step is taken
        self._member: Alone | Member = Alone()
        self._forward: Callable[[Tensor], Tensor] = self._net
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
        if self.settings.batch_norm == "fit":
            random = np.random.default_rng(self.settings.seed)
            drawn = [crops.draw(self.settings.batch, random) for _ in range(MEASURED_BATCHES)]
            with self._lock:
                self._somehow(crops, lambda: self._fit_batch_norm(crops, drawn))

    def join(self, member: Member) -> None:
        """Learn together with others from here on, each from its share of the crops.

        Parameters
        ----------
        member : Member
            Which of them this learner is, and how they speak to each other.
        """
        self._member, self.device = member, member.device
        self._move()
        share_batch_norm(self._net, member.add_up)
        self._forward = member.wrap(self._net)

    def step(self, crops: Crops, used: float) -> None:
        """Take one step, at a part of the budget; if memory runs out, with fewer crops at once.

        Parameters
        ----------
        crops : Crops
            Where to draw from.
        used : float
            Part of the budget that is used, 0..1; in a team, what the first member says.

        Raises
        ------
        DeviceError
            If memory ran out with a single crop, on the CPU too.
        """
        with self._lock:
            used = self._member.agree(used)
            rate = learning_rate(used, self.settings.learning_rate)
            self._somehow(crops, lambda: self._step(crops, rate))

    def settle(self) -> None:
        """Return once the step at hand is taken."""
        with self._lock:
            pass

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
                "scaler": self._scaler.state_dict(),
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
        if self._scaler.is_enabled() and values["scaler"]:
            self._scaler.load_state_dict(values["scaler"])

    @contextmanager
    def _nothing_changed_by_failure(self) -> Iterator[None]:
        """Bring back the random numbers and what batch norms have measured if a step fails."""
        numbers = self._random.bit_generator.state, self._generator.get_state()
        measured = [buffer.clone() for buffer in self._measured]
        try:
            yield
        except BaseException:
            self._optimizer.zero_grad(set_to_none=True)
            self._random.bit_generator.state = numbers[0]
            self._generator.set_state(numbers[1])
            for buffer, before in zip(self._measured, measured, strict=True):
                buffer.copy_(before)
            raise

    def _somehow(self, crops: Crops, action: Callable[[], None]) -> None:
        """Do something with as many crops at once as the memory takes."""
        while True:
            try:
                self._move()
                with self._nothing_changed_by_failure():
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
                state[name] = value.to(self.device)
        self._list_tensors()

    def _list_tensors(self) -> None:
        """List once what each step goes through; to list it costs as much as the step there."""
        self._measured = _measured_by(self._net)
        self._averaged, self._learned = (_numbers_of(net) for net in (self._average, self._net))

    def _make_room(self, crops: Crops, problem: BaseException) -> None:
        """See fewer crops at once, or else go on with the CPU, and say so."""
        problem.__traceback__ = None  # it holds on to what the step has computed
        free_memory(self.device)
        place, before = "this computer" if self.device.type == "cpu" else "the GPU", self._at_once
        if self._member.size > 1:
            raise DeviceError(
                f"Memory of {place} ran out while {self._member.size} processes learned together. "
                "Choose a smaller batch, smaller crops, or one device: that one goes on with fewer "
                "crops at once."
            ) from problem
        if before > 1:
            self._at_once = before // 2
            self._notes.append(
                Note(
                    f"Memory of {place} ran out with {_crops(before)} at once; going on with "
                    f"{_crops(self._at_once)} at once."
                )
            )
        elif self.device.type != "cpu":
            self.device, self._at_once = torch.device("cpu"), self.settings.batch
            self._scaler = make_scaler(self.half, self.device)
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

        layers = batch_norms(self._net, self.settings.frozen_levels)
        blend_statistics(self._net, layers, [images for images, *_ in parts], loss)
        self._average.load_state_dict(self._net.state_dict())

    def _answer(self, images: Tensor) -> Tensor:
        """Return what the network gives, in as many digits as the settings say."""
        half = self.half
        with self._dropping(), torch.autocast(self.device.type, half, enabled=half is not None):
            return self._forward(images).float()

    def _step(self, crops: Crops, rate: float) -> None:
        """Take one step; without it if loss or gradient is no number."""
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._add_gradient(*self.draw_batch(crops))
        self._scaler.unscale_(self._optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self._net.parameters(), LARGEST_GRADIENT)
        value, length = torch.stack([loss, norm.to(loss)]).tolist()
        if math.isfinite(value) and not math.isfinite(length) and self._was_scaled_too_much():
            return
        self.is_healthy = math.isfinite(value) and math.isfinite(length)
        if not self.is_healthy:
            return
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self.steps += 1
        self._losses.append(value)
        self._follow()

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the average of weights and statistics towards the network's, at first fast."""
        steps = self.steps - self._still
        if steps <= 0:
            return
        keep = min(1 - 1 / AVERAGE_STEPS, steps / (steps + 10))
        torch._foreach_lerp_(self._averaged, self._learned, 1 - keep)

    def draw_batch(self, crops: Crops) -> tuple[Tensor, Tensor, Tensor]:
        """Draw the crops of a step and change them at random, on the device.

        Parameters
        ----------
        crops : Crops
            Where to draw from.

        Returns
        -------
        tuple of Tensor
            Images, targets and weights of this learner's share of the batch, see
            :meth:`napari_unet.runs.crops.Crops.draw`; of the last two only the part that counts.
        """
        settings, share = self.settings, self._member.share(self.settings.batch)
        drawn = crops.draw(settings.batch, self._random, share)
        changes = draw_changes(
            settings.batch,
            drawn[0].shape[1],
            (crops.window_px, crops.window_px),
            flips=settings.flips,
            elastic_px=settings.elastic_px,
            grey_values=settings.grey_values,
            dimmed=settings.dimmed,
            scale=(1 / settings.zoom, settings.zoom),
            rotation_degrees=settings.rotation_degrees,
            share=settings.changed_crops,
            generator=self._generator,
        )
        images, targets, weights = changes.part(share).apply(
            *(torch.from_numpy(values).to(self.device) for values in drawn)
        )
        inner = slice(crops.margin_px, crops.margin_px + crops.crop_px)
        return images, targets[..., inner, inner], weights[..., inner, inner]

    def _add_gradient(self, images: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Add the gradient of the loss, as many crops at once as fit; returns the loss."""
        settings, at_once = self.settings, self._at_once
        total = torch.zeros((), device=self.device)
        for start in range(0, len(images), at_once):
            part = slice(start, start + at_once)
            loss = masked_loss(
                self._answer(images[part]),
                targets[part],
                weights[part],
                self._card.activation,
                settings.loss,
                self._member.add_up,
            )
            if at_once < len(images):
                loss = loss * (weights[part].sum() / weights.sum().clamp_min(1e-6))
            if settings.l1 and start == 0:
                loss = loss + settings.l1 * _sum_of_sizes(self._net)
            self._member.backward(self._scaler.scale(loss))
            total += loss.detach()
        return total

    @contextmanager
    def _dropping(self) -> Iterator[None]:
        """Let dropout draw from this learner's random numbers, if it is to drop anything."""
        if not self.settings.dropout:
            yield
            return
        seed = int(torch.randint(2**32, (), generator=self._generator)) + self._member.rank
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield

    def _was_scaled_too_much(self) -> bool:
        """Tell whether a float16 loss was too large for its gradients; it is scaled less then."""
        if not self._scaler.is_enabled() or self._scaler.get_scale() <= LEAST_SCALE:
            return False
        self._scaler.step(self._optimizer)  # which it leaves out
        self._scaler.update()
        return True

    @property
    def half(self) -> torch.dtype | None:
        """The fewer digits the network computes with, if any; its weights keep them all."""
        wanted = self.settings.precision
        is_half = wanted == "half" or (wanted == "auto" and is_fast_in_half(self.device))
        return half_dtype(self.device) if is_half else None

    def mean_loss(self) -> float:
        """Mean loss since the last report."""
        mean = float(np.mean(self._losses))
        self._losses, self._reported = self._losses[-1:], time.monotonic()
        return mean

    def result(self) -> Network:
        """Return the average, as a network like the one that was given."""
        return self._average.cpu().requires_grad_(True).eval()


def _let_dropout_drop(net: Network) -> None:
    """Let the network's own dropout drop signals; nothing else changes."""
    for layer in net.modules():
        if isinstance(layer, torch.nn.modules.dropout._DropoutNd):
            layer.train()


def _numbers_of(net: Network) -> list[Tensor]:
    """List weights and statistics, but for what is counted."""
    return [tensor for tensor in net.state_dict().values() if tensor.is_floating_point()]


def _measured_by(net: Network) -> list[Tensor]:
    """List what the batch norms that follow the images have measured."""
    layers = (layer for layer in batch_norms(net) if layer.training)
    return [buffer for layer in layers for buffer in layer.buffers()]


def _sum_of_sizes(net: Network) -> Tensor:
    """Add up the sizes of the weights that learn; biases and norms do not count."""
    free = [p.abs().sum() for p in net.parameters() if p.requires_grad and p.ndim > 1]
    return torch.stack(free).sum()


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    """Copy a tensor to memory of its own on the CPU."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _crops(count: int) -> str:
    """Say a number of crops."""
    return f"{count} crops" if count > 1 else "1 crop"
