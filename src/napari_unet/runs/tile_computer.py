"""Compute the probabilities of tiles, several at once, on one processor.

Of each batch of tiles the first half of the work is begun here, and the second waited for::

    start    read -> upload -> scale -> network -> activate -> (put together on the device)
    finish                                     ... wait -> are the numbers sound? -> download

A GPU goes on by itself in between, so the next batch is read meanwhile. Half precision overflows
beyond 65504: such a batch is computed once more with all digits, and so are all that follow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch

from napari_unet.arrays.boxes import within
from napari_unet.arrays.mirroring import cut_tile
from napari_unet.network.devices import free_memory
from napari_unet.network.graph_inference import GraphInferenceNet
from napari_unet.network.graph_net import GraphNet
from napari_unet.network.grey_values import upload_scaled
from napari_unet.network.inference import InferenceNet
from napari_unet.network.recording import Recorded
from napari_unet.network.transfers import Arriving, Assembly, Transfers
from napari_unet.network.turns import average_over_turns

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_unet.arrays.normalize import Statistics
    from napari_unet.arrays.tiles import Tile
    from napari_unet.models.model import Model
    from napari_unet.network.policy import DevicePolicy
    from napari_unet.settings import SegmentSettings

Write = Callable[[tuple[slice, ...], "NDArray[Any]"], None]
"""Takes a core (one slice per spatial axis) and its values (classes, *core)."""


@dataclass(frozen=True, eq=False)
class Plane:
    """A plane, or volume, to run a network over."""

    channels: Any
    """Raw grey values, shape (C, *spatial), one channel for each input; read tile by tile."""
    statistics: Statistics
    """Of the whole plane."""
    write: Write
    """Called with each part and its probabilities; once per pixel, also if memory ran out."""
    skip: Collection[int] = ()
    """Which of its tiles need not be computed, counted from 0."""


@dataclass(frozen=True, eq=False)
class Piece:
    """One tile of a plane."""

    plane: Plane
    tile: Tile


@dataclass(frozen=True, eq=False)
class Started:
    """A batch of tiles whose probabilities are being computed."""

    pieces: Sequence[Piece]
    values: Sequence[Arriving]
    """Of each piece, shape (classes, *core); none where they stay on the device."""
    is_unsound: Arriving
    """Whether a number was too large for half precision; there once all else is."""
    again: Callable[[], Started]
    """Begins anew, with the numbers that are then used."""


class TileComputer:
    """A network's private copy on one processor, and how tiles get there and back.

    Parameters
    ----------
    model : Model
        Its network is neither moved nor switched.
    settings : SegmentSettings
        Invert, augment.
    device : torch.device
        Where to compute.
    dtype : torch.dtype
        With which numbers.
    policy : DevicePolicy
        What suits the device.
    is_left : callable, optional
        Says whether nobody waits for the probabilities any more.
    """

    def __init__(
        self,
        model: Model,
        settings: SegmentSettings,
        device: torch.device,
        dtype: torch.dtype,
        policy: DevicePolicy,
        is_left: Callable[[], bool] = bool,
    ) -> None:
        self._model, self._settings, self._is_left = model, settings, is_left
        self.device, self.dtype, self._policy = device, dtype, policy
        self._compute: Recorded | None = None

    @property
    def recording_problem(self) -> str | None:
        """Why the steps are not recorded though that was tried; None if all is well."""
        return self._compute.problem if self._compute else None

    def start(
        self,
        pieces: Sequence[Piece],
        kept: tuple[slice, ...],
        at_once: int = 1,
        into: Mapping[Plane, Assembly] | None = None,
    ) -> Started:
        """Begin to compute tiles of one shape.

        Parameters
        ----------
        pieces : sequence of Piece
            The tiles.
        kept : tuple of slice
            What is computed of the network's answer; holds the core of each tile.
        at_once : int
            So many tiles the network sees together at most, turned ones counted singly.
        into : mapping of Plane to Assembly, optional
            Where the results stay on the device.

        Returns
        -------
        Started
            For :meth:`finish`.
        """
        probability = self._answer(self._upload(pieces), kept, at_once)
        suspect = probability if self.dtype == torch.float16 else probability.new_zeros(1)
        values = []
        for piece, answer in zip(pieces, probability, strict=True):
            core = answer[(slice(None), *within(piece.tile.local, kept))]
            if into is None:
                values.append(self.transfers.download(core))
            else:
                into[piece.plane].put(piece.tile.core, core)
        again = partial(self.start, pieces, kept, at_once, into)
        return Started(pieces, values, self.transfers.download(suspect.isnan().any()), again)

    def finish(self, started: Started) -> list[NDArray[Any]]:
        """Wait for the probabilities of some tiles; with all digits if half precision overflows.

        Parameters
        ----------
        started : Started
            The tiles.

        Returns
        -------
        list of ndarray of float32, shape (classes, *core)
            One for each tile; none where they stay on the device.
        """
        if started.is_unsound.wait():
            self._compute, self.dtype = None, torch.float32
            return self.finish(started.again())
        return [values.wait() for values in started.values]

    def compute(self, piece: Piece) -> NDArray[Any]:
        """Compute the probabilities (classes, *core) of one tile."""
        return self.finish(self.start([piece], piece.tile.local))[0]

    def assemble(self, shape: tuple[int, ...]) -> Assembly:
        """Make room on the device for the result of a plane."""
        return Assembly(self._model.card.architecture.classes, shape, self.device)

    def free(self) -> None:
        """Give up the copy of the network and all memory that is kept for later."""
        self._compute = None
        free_memory(self.device)

    @cached_property
    def transfers(self) -> Transfers:
        """What copies to the device and back."""
        return Transfers(self.device)

    def _upload(self, pieces: Sequence[Piece]) -> torch.Tensor:
        """Read tiles and bring them to the device, scaled for the network."""
        margin = self._model.net.margin
        return upload_scaled(
            [cut_tile(piece.plane.channels, piece.tile, margin) for piece in pieces],
            [piece.plane.statistics for piece in pieces],
            self._settings.invert,
            self.transfers,
            is_scaled_there=self._policy.scales,
        )

    def _answer(self, seen: torch.Tensor, kept: tuple[slice, ...], at_once: int) -> torch.Tensor:
        """Compute the probabilities (N, classes, *kept) of tiles on the device."""
        if self._compute is None:
            self._compute = self._prepare()
        if not self._settings.augment:
            return self._compute(seen, kept)
        net = self._model.net
        sizes = [net.output_size(size, axis) for axis, size in enumerate(seen.shape[2:])]
        return average_over_turns(self._compute, seen, kept, sizes, at_once)

    def _prepare(self) -> Recorded:
        """Make the network's private copy, and what is recorded of it."""
        given = self._model.net
        net = (
            GraphInferenceNet(given, self.device, self.dtype)
            if isinstance(given, GraphNet)
            else InferenceNet(given, self.device, self.dtype)
        )
        net.end_when(self._is_left)

        def probabilities(seen: torch.Tensor, kept: Sequence[slice]) -> torch.Tensor:
            """Run the network; what is too large a number for half precision becomes NaN."""
            logits = net(seen, kept)
            if net.dtype != torch.float16:
                return self._model.activate(logits)
            return torch.where(logits.isfinite(), self._model.activate(logits), torch.nan)

        return Recorded(probabilities, self._policy.record)
