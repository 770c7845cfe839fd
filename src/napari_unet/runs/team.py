"""Several processors learn one network together, each from its share of the crops of a step.

The first process runs the training: it judges, reports, and alone writes. For every other
processor it starts a helper (:mod:`napari_unet.runs.helper`), gives it what its own learner is,
and then both take step after step::

    first process     draw -> its crops -> forward -> loss -> backward -> step      report, save
                                                     ^          ^
                                              sums added up   gradients averaged
                                                     v          v
    helper            draw -> its crops -> forward -> loss -> backward -> step

All draw the same random numbers, so each knows the whole batch and takes another part of it; loss
and batch norm are those of the whole batch. So the result is that of one process with the same
batch, within rounding. Lightning Fabric [1]_ joins the processes and averages the gradients.

A helper ends with the first process, whatever ends that. If a helper ends, the training ends with
a sentence, and its checkpoint holds the last whole step.

References
----------
.. [1] https://lightning.ai/docs/fabric
"""

from __future__ import annotations

import contextlib
import importlib.util
import pickle
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field, replace
from typing import IO, TYPE_CHECKING, Any, Self

import torch

from napari_unet.errors import DeviceError, SettingError
from napari_unet.network.devices import choose_device

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from napari_unet.models.model import Model
    from napari_unet.runs.crops import Crops
    from napari_unet.runs.learner import Learner
    from napari_unet.settings import FinetuneSettings

READY = b"ready\n"
DISMISSED = -1.0  # said instead of the used part of a budget
SECONDS_TO_LOOK_AGAIN = 2e-4  # whether all have heard, or one has ended
SECONDS_TO_END = 10.0  # for a helper, before it is killed
# Groups of processes that have ended. When a group is deallocated, torch joins its threads with
# Python's lock in its hands, and a thread that lets go of a tensor just then needs that lock: both
# would wait for ever. So none is deallocated.
_ENDED: list[object] = []


class Dismissed(Exception):  # no "Error" in the name: it is an outcome
    """The first process has something else to do for the others."""


class Alone:
    """A learner without others."""

    rank, size = 0, 1

    def agree(self, used: float) -> float:
        """Return the used part of the budget that counts for all."""
        return used

    def share(self, batch: int) -> slice:
        """Return which crops of a batch are this learner's."""
        return slice(self.rank * batch // self.size, (self.rank + 1) * batch // self.size)

    def add_up(self, part: Tensor) -> Tensor:
        """Add a sum over this learner's crops to those of the others, with its gradient."""
        return part

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a loss to the weights'."""
        loss.backward()  # type: ignore[no-untyped-call]  # torch tells no types


@dataclass(frozen=True)
class Place:
    """Which of the processes one is, and how it finds the others."""

    rank: int
    """From 0, which is the one that runs the training."""
    size: int
    """How many there are."""
    port: int
    """Of this computer; there the first one listens."""
    device: str
    """Kind of processor."""
    threads: int
    """For each process that computes on the CPU."""


@dataclass(frozen=True, eq=False)
class Work:
    """What a helper learns, and from what."""

    model: Model
    settings: FinetuneSettings
    state: tuple[dict[str, Tensor], dict[str, Any]]
    crops: Crops


class Member(Alone):
    """A learner among others; made once all are there.

    Parameters
    ----------
    place : Place
        Which one it is.
    check : callable, optional
        Called while the first one waits for the others; raises an error if one has ended.

    Attributes
    ----------
    device : torch.device
        Its own processor.
    """

    def __init__(self, place: Place, check: Callable[[], None] | None = None) -> None:
        from napari_unet.runs.fabric import make_fabric

        self.rank, self.size, self._check = place.rank, place.size, check
        if place.device == "cpu":
            torch.set_num_threads(place.threads)
        self._fabric = make_fabric(place)
        self.device: torch.device = self._fabric.device

    def agree(self, used: float) -> float:
        """Return what the first one says, for which a helper waits."""
        said = self._hear(used)
        if said == DISMISSED:
            raise Dismissed
        return said

    def dismiss(self) -> None:
        """Let the helpers wait for other work."""
        self._hear(DISMISSED)

    def _hear(self, number: float) -> float:
        """Return the number of the first one; a helper that was killed is not waited for."""
        said = torch.tensor(number, dtype=torch.float64, device=self.device)
        work = torch.distributed.broadcast(said, 0, async_op=True)
        while self._check is not None and not work.is_completed():
            self._check()
            time.sleep(SECONDS_TO_LOOK_AGAIN)
        work.wait()
        return float(said)

    def add_up(self, part: Tensor) -> Tensor:
        """Add a sum over this learner's crops to those of the others, with its gradient."""
        total: Tensor = _AddedUp.apply(part)  # type: ignore[no-untyped-call]
        return total

    def wrap(self, net: nn.Module) -> Callable[[Tensor], Tensor]:
        """Return the network so that its gradients are averaged over all members."""
        wrapped: Callable[[Tensor], Tensor] = self._fabric.setup_module(net)
        return wrapped

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a loss to the weights', averaged over all."""
        self._fabric.backward(loss)


class _AddedUp(torch.autograd.Function):
    """A sum over all processes; its gradient is the sum of what each of them makes of it."""

    @staticmethod
    def forward(_: Any, part: Tensor) -> Tensor:
        """Add up the parts."""
        total = part.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, slope: Tensor) -> Tensor:
        """Add up the slopes."""
        total = slope.clone()
        torch.distributed.all_reduce(total)
        return total


@dataclass
class Helper:
    """A process that learns with the first one, as seen from there."""

    process: subprocess.Popen[bytes]
    said: IO[bytes] = field(default_factory=tempfile.TemporaryFile)

    @classmethod
    def start(cls) -> Self:
        """Start one; what interrupts this process from a terminal does not reach it."""
        said = tempfile.TemporaryFile()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "napari_unet.runs.helper"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            start_new_session=True,
        )
        return cls(process, said)

    def tell(self, something: Place | Work) -> None:
        """Tell it its place, or what to learn."""
        try:
            pickle.dump(something, self._pipe(self.process.stdin))
            self._pipe(self.process.stdin).flush()
        except OSError as error:
            raise self.loss() from error

    def wait_until_ready(self) -> None:
        """Wait until it has imported what it needs and understood its place."""
        if self._pipe(self.process.stdout).readline() != READY:
            raise self.loss()

    def loss(self) -> DeviceError:
        """Return that it was there no longer when it was needed."""
        self.has_ended()
        return DeviceError(
            f"A process that was to learn together with this one has ended{self.reason()}. Choose "
            "one device."
        )

    def has_ended(self) -> bool:
        """Tell whether it has, or is about to."""
        try:
            self.process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            return False
        return True

    def reason(self) -> str:
        """Say what it has said last."""
        self.said.seek(0)
        lines = self.said.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f" ({last.rstrip('.')})" if last else f" (exit status {self.process.returncode})"

    def end(self) -> None:
        """End it: without its pipe it goes by itself."""
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                self._pipe(pipe).close()
        try:
            self.process.wait(timeout=SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.said.close()

    @staticmethod
    def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
        """Return a pipe, which is always there."""
        if pipe is None:
            raise ValueError("a helper was started without pipes")
        return pipe


class Team:
    """All that learn together, seen from the first process; used in a ``with``.

    Parameters
    ----------
    settings : FinetuneSettings
        Says how many devices learn, and of what kind; one learns alone.

    Raises
    ------
    SettingError
        If a batch has fewer crops than there are devices, or Lightning Fabric is not there.
    DeviceError
        If there are fewer devices.
    """

    def __init__(self, settings: FinetuneSettings) -> None:
        self._settings, self._size = settings, settings.devices
        self._helpers: list[Helper] = []
        self._member: Member | None = None
        self._learner: Learner | None = None
        self._threads = torch.get_num_threads()
        self._lock = threading.Lock()  # held while a step is taken
        if self._size > 1:
            check_devices(settings)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """End the helpers once the step at hand is taken."""
        if self._size == 1:
            return
        with self._lock:
            for helper in self._helpers:
                helper.end()
            self._helpers, self._size = [], 1
            torch.set_num_threads(self._threads)
            if torch.distributed.is_initialized():
                _ENDED.append(torch.distributed.group.WORLD)
                torch.distributed.destroy_process_group()

    def step(self, learner: Learner, crops: Crops, used: float) -> None:
        """Take one step together; see :meth:`napari_unet.runs.learner.Learner.step`.

        Parameters
        ----------
        learner : Learner
            Of this process; the others are made like it when it is a new one.
        crops : Crops
            Where all draw from.
        used : float
            Part of the budget that is used, 0..1.

        Raises
        ------
        DeviceError
            If a helper cannot be started or has ended, or memory ran out.
        """
        if self._size == 1:
            learner.step(crops, used)
            return
        with self._lock:
            try:
                if learner is not self._learner:
                    self._begin_with(learner, crops)
                learner.step(crops, used)
            except RuntimeError as error:  # e.g. that the others do not answer
                if any(helper.has_ended() for helper in self._helpers):
                    raise self._loss() from error
                raise

    def _loss(self) -> DeviceError:
        """Return that a helper has ended, and what it has said."""
        reason = next(helper.reason() for helper in self._helpers if helper.has_ended())
        return DeviceError(
            f"One of the {self._size} processes that learned together has ended{reason}. Go on "
            "with the training by resuming it, with fewer devices if it happens again."
        )

    def _begin_with(self, learner: Learner, crops: Crops) -> None:
        """Let the helpers learn what a new learner does, from its next step on."""
        if self._member is None:
            self._member = self._gather(learner.device.type)
        else:
            self._member.dismiss()
        work = Work(learner.model, learner.settings, learner.state(), crops)
        for helper in self._helpers:
            helper.tell(work)
        learner.join(self._member)
        self._learner = learner

    def _gather(self, device: str) -> Member:
        """Start the helpers and join them."""
        threads = max(1, self._threads // self._size)
        first = Place(0, self._size, _free_port(), device, threads)
        self._helpers += [Helper.start() for _ in range(1, self._size)]
        for rank, helper in enumerate(self._helpers, start=1):
            helper.tell(replace(first, rank=rank))
        for helper in self._helpers:
            helper.wait_until_ready()
        return Member(first, self._check)

    def _check(self) -> None:
        """Raise an error if a helper has ended."""
        if any(helper.process.poll() is not None for helper in self._helpers):
            raise self._loss()


def check_devices(settings: FinetuneSettings) -> None:
    """Refuse what several devices cannot do.

    Parameters
    ----------
    settings : FinetuneSettings
        With more than one device.

    Raises
    ------
    SettingError, DeviceError
        See :class:`Team`.
    """
    count = settings.devices
    if count > settings.batch:
        raise SettingError(
            f"{count} devices cannot share a batch of {settings.batch} crops. Choose a batch of "
            f"at least {count}, or fewer devices."
        )
    kind = choose_device(settings.device).type
    there = {"cuda": torch.cuda.device_count(), "mps": 1}.get(kind, count)
    if count > there:
        raise DeviceError(
            f"{count} devices were asked for, but this computer has {there} GPU"
            f"{'s' if there > 1 else ''} of this kind. Choose {there}, or the device 'cpu'."
        )
    if importlib.util.find_spec("lightning_fabric") is None:
        raise SettingError(
            "Several devices need Lightning Fabric. Install it by: pip install "
            "'napari-unet-interactive[multi]', or choose one device."
        )


def _free_port() -> int:
    """Find a port of this computer that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
