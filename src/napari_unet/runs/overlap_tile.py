"""Run a network over a plane, tile by tile.

The geometry is that of :mod:`napari_unet.arrays.tiles`, the network's private copy that of
:mod:`napari_unet.network.inference`; here are the order of the tiles, the processor and its
memory. If memory runs out, what is left to do is cut into tiles of half the size until they fit,
then the CPU takes over. What is done stays done.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_unet.arrays.normalize import Statistics, normalize
from napari_unet.arrays.tiles import Tile, cut_tile, moved_tile, plan_tiles, split_tile
from napari_unet.errors import DeviceError
from napari_unet.network.devices import choose_device, choose_dtype, free_memory, is_out_of_memory
from napari_unet.network.graph_inference import GraphInferenceNet, peak_numbers
from napari_unet.network.graph_net import GraphNet
from napari_unet.network.inference import InferenceNet
from napari_unet.network.turns import TURNS
from napari_unet.runs.progress import Job, Note, TileDone

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from numpy.typing import NDArray

    from napari_unet.models.model import Model
    from napari_unet.network.build import Network
    from napari_unet.network.graph import Graph
    from napari_unet.runs.background import Background
    from napari_unet.settings import Architecture, SegmentSettings

Write = Callable[[tuple[slice, ...], "NDArray[Any]"], None]
"""Takes a core (one slice per spatial axis) and its values (classes, *core)."""

Order = Callable[[list[Tile]], Tile]
"""Picks, of the tiles that remain, the one to compute next."""

# For the features of all levels together, and for what a person's computer can spare.
BUDGET_BYTES = {"cpu": 768 * 2**20, "cuda": 2048 * 2**20, "mps": 1024 * 2**20}
# On the CPU, where the result is not in memory either: a large image then takes little of it.
STREAMED_BYTES = 160 * 2**20
# Smaller tiles than this many halos would spend most of the work on what is thrown away.
LEAST_HALOS = {2: 6, 3: 3}
# Larger tiles than this many halos, or pixels, would save little more of it.
MOST_HALOS, MOST_PX = 24, 1024
# Tiles that are computed once more where the result is approximate, to tell by how much.
MOST_MEASURED = 3
_MEASURED = {1: "One tile was", 2: "Two tiles were", 3: "Three tiles were"}

_largest_that_fitted: dict[tuple[Architecture | Graph, str], int] = {}
"""Tile in pixels, per network and kind of device, after memory ran out in this process."""


@dataclass(frozen=True)
class _Started:
    """A tile whose probabilities are being computed."""

    tile: Tile
    values: torch.Tensor
    """Shape (classes, *core)."""
    ready: torch.cuda.Event | None
    """After which the values are right; at once if None."""


@dataclass(frozen=True)
class _Share:
    """How much of the progress is left to so many pieces of work."""

    counts_for: int
    pieces: int

    def left(self, pieces: int) -> int:
        """Return what so many of them count for: nothing only if there are none."""
        return -(-self.counts_for * pieces // max(self.pieces, 1))


class OverlapTile:
    """A network ready to run over planes of one size.

    Parameters
    ----------
    model : Model
        Its network is neither moved nor switched; a private copy computes.
    shape : tuple of int
        Size of the planes (Y, X) or volumes (Z, Y, X) in pixels.
    settings : SegmentSettings
        Tile, halo, device, invert.
    background : Background
        Where the tiles are computed.
    is_streamed : bool
        The result is written to disk: the tiles are chosen so that little memory is taken.

    Raises
    ------
    TileSizeError
        If the chosen tile has no room for a core.
    DeviceError
        If the chosen device is not there.
    """

    def __init__(
        self,
        model: Model,
        shape: tuple[int, ...],
        settings: SegmentSettings,
        background: Background,
        *,
        is_streamed: bool = False,
    ) -> None:
        self._model, self._shape = model, shape
        self._is_streamed = is_streamed
        self._settings, self._background = settings, background
        self._device = choose_device(settings.device)
        weights = next(model.net.parameters())
        self._dtype = choose_dtype(settings.precision, self._device, weights.dtype)
        self._net: InferenceNet | GraphInferenceNet | None = None
        self._halo = choose_halo(model.net, settings)
        self._choose_tiles()
        self._count, self._is_counted = len(self._tiles), False
        self._is_measured = False
        self._differences: list[tuple[float, float]] = []

    @property
    def count(self) -> int:
        """How many tiles a plane counts for; the same from the first that is done."""
        return self._count

    @property
    def tiles(self) -> list[Tile]:
        """The tiles of a plane; other ones after memory ran out."""
        return self._tiles

    def notes(self) -> Iterator[Note]:
        """Tell where the result will be approximate."""
        net = self._model.net
        if len(self._tiles) == 1:
            return
        if not net.exact:
            yield Note(
                f"What this network answers depends on all it sees at once "
                f"({', '.join(net.approximate)}), so with tiles the result is approximate. A "
                "larger tile comes closer."
            )
        elif net.margin == 0 and self._halo < net.halo:
            yield Note(
                f"A halo of {self._halo} px is less than the {net.halo} px this network looks "
                "around it, so the result is approximate where tiles meet."
            )

    def run(
        self,
        channels: Any,
        statistics: Statistics,
        write: Write,
        order: Order | None = None,
        skip: Collection[int] = (),
    ) -> Job[None]:
        """Run the network over one plane.

        Parameters
        ----------
        channels : array-like, shape (C, *spatial)
            The plane in raw grey values, one channel for each input of the network; it is read
            tile by tile.
        statistics : Statistics
            Of the whole plane.
        write : callable
            Called with each core and its probabilities; once per pixel, also if memory ran out.
        order : callable, optional
            Asked before each tile which of the remaining ones is next; row by row if not given.
        skip : collection of int
            Which of ``tiles`` need not be computed, counted from 0.

        Yields
        ------
        TileDone
            Counted over this plane, after each tile; always of ``count``, also if memory ran out
            later and they are more and smaller.
        """
        remaining = [tile for index, tile in enumerate(self._tiles) if index not in skip]
        started: list[_Started] = []
        share = _Share(-(-self._count * len(remaining) // len(self._tiles)), len(remaining))
        while remaining or started:
            try:
                if remaining:
                    tile = order(remaining) if order else remaining[0]
                    started.append(
                        (yield from self._background.run(self._start, channels, statistics, tile))
                    )
                    remaining.remove(tile)
                if remaining and len(started) <= self._ahead:
                    continue
                values = yield from self._background.run(
                    self._finish, channels, statistics, started[0]
                )
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            else:
                tile = started.pop(0).tile
                write(tile.core, values)
                left = len(remaining) + len(started)
                if left in {share.pieces - 1, share.pieces // 2, 0}:
                    yield from self._measure(channels, statistics, tile, values, is_last=not left)
                self._is_counted = True
                yield TileDone(self._count - share.left(left), self._count)
                continue
            remaining = [*(each.tile for each in started), *remaining]
            started.clear()
            yield self._make_room()
            counts_for = share.left(len(remaining))
            remaining = [part for tile in remaining for part in self._split(tile)]
            if not self._is_counted:  # nobody knows another count yet
                self._count += len(remaining) - counts_for
                counts_for = len(remaining)
            share = _Share(counts_for, len(remaining))
        self._is_counted = True

    @property
    def _ahead(self) -> int:
        """How many tiles are being computed while the next one is cut: a GPU needs no waiting."""
        return 0 if self._device.type == "cpu" else 1

    def _start(self, channels: Any, statistics: Statistics, tile: Tile) -> _Started:
        """Begin to compute the probabilities of one tile; a GPU goes on by itself."""
        net = self._model.net
        if self._net is None:
            self._net = (
                GraphInferenceNet(net, self._device, self._dtype)
                if isinstance(net, GraphNet)
                else InferenceNet(net, self._device, self._dtype)
            )
        pixels = normalize(cut_tile(channels, tile, net.margin), statistics, self._settings.invert)
        seen = _to_device(torch.from_numpy(pixels)[None], self._device)
        if self._settings.augment:
            sizes = [net.output_size(size) for size in seen.shape[2:]]
            answers = (
                turn.back(self._answer(self._net, turn.there(seen), turn.box(tile.local, sizes)))
                for turn in TURNS
            )
            answer = sum(answers, start=torch.zeros(())) / len(TURNS)
        else:
            answer = self._answer(self._net, seen, tile.local)
        return _Started(tile, *_to_host(answer[0]))

    def _answer(
        self, net: InferenceNet | GraphInferenceNet, seen: torch.Tensor, kept: tuple[slice, ...]
    ) -> torch.Tensor:
        """Run the network; what is too large a number for half precision becomes NaN."""
        logits = net(seen, kept)
        if net.dtype != torch.float16:
            return self._model.activate(logits)
        return torch.where(logits.isfinite(), self._model.activate(logits), torch.nan)

    def _finish(self, channels: Any, statistics: Statistics, started: _Started) -> NDArray[Any]:
        """Return the probabilities (classes, *core) of a tile; with all digits if half overflow."""
        if started.ready is not None:
            started.ready.synchronize()
        values: NDArray[Any] = started.values.cpu().numpy()
        if self._dtype == torch.float16 and np.isnan(values).any():
            self._net, self._dtype = None, torch.float32
            return self._compute(channels, statistics, started.tile)
        return values

    def _compute(self, channels: Any, statistics: Statistics, tile: Tile) -> NDArray[Any]:
        """Compute the probabilities (classes, *core) of one tile."""
        return self._finish(channels, statistics, self._start(channels, statistics, tile))

    def _measure(
        self,
        channels: Any,
        statistics: Statistics,
        tile: Tile,
        values: NDArray[Any],
        *,
        is_last: bool,
    ) -> Job[None]:
        """Where tiles are approximate, look how much another tile differs; say so at the last."""
        if self._is_measured or not any(self.notes()):
            return
        if is_last or len(self._differences) < MOST_MEASURED - 1:
            try:
                difference = yield from self._background.run(
                    self._difference, channels, statistics, tile, values
                )
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._is_measured = True  # what is wanted comes first, with the memory there is
            else:
                self._differences.append(difference)
        if self._is_measured:
            free_memory(self._device)
        self._is_measured |= is_last
        if self._is_measured and self._differences:
            largest, means = max(most for most, _ in self._differences), self._differences
            mean = sum(each for _, each in means) / len(means)
            yield Note(
                f"{_MEASURED[len(means)]} computed once more, moved across a border: "
                f"probabilities differ by at least {largest:.2g} in places ({mean:.2g} on average)."
            )

    def _difference(
        self, channels: Any, statistics: Statistics, tile: Tile, values: NDArray[Any]
    ) -> tuple[float, float]:
        """Return the largest and the mean difference to a tile across the border of this one."""
        net = self._model.net
        other = moved_tile(tile, self._shape, net.halo - net.margin, *_grid(net))
        again = self._compute(channels, statistics, other)
        common = (
            slice(part.start - core.start, part.stop - core.start)
            for part, core in zip(other.core, tile.core, strict=True)
        )
        difference = np.abs(values[(slice(None), *common)] - again)
        return float(difference.max()), float(difference.mean())

    def _choose_tiles(self) -> None:
        """Plan tiles as the settings say, or as the device's memory suggests."""
        net, device = self._model.net, self._device.type
        budget = STREAMED_BYTES if self._is_streamed and device == "cpu" else BUDGET_BYTES[device]
        chosen = self._settings.tile_px
        tile_px = chosen or default_tile(net, self._shape, self._halo, device, budget)
        fitted = _largest_that_fitted.get((net.architecture, device), tile_px)
        self._plan(min(tile_px, max(fitted, _smallest_tile(net, self._halo))))

    def _plan(self, tile_px: int) -> None:
        """Lay the tiles on the network's grid."""
        self._tile_px = tile_px
        self._tiles = plan_tiles(self._shape, tile_px, self._halo, *_grid(self._model.net))

    def _split(self, tile: Tile) -> list[Tile]:
        """Cut a tile into tiles of the size that is now used."""
        return split_tile(tile, self._shape, self._tile_px, self._halo, *_grid(self._model.net))

    def _make_room(self) -> Note:
        """Take smaller tiles, or else the CPU, and say so."""
        net, is_gpu = self._model.net, self._device.type != "cpu"
        place = "the GPU" if is_gpu else "this computer"
        self._net = None
        free_memory(self._device)
        tile = max(part.stop - part.start for part in self._tiles[0].outer)
        smaller = max(tile // 2, _smallest_tile(net, self._halo))
        if smaller < tile:
            _largest_that_fitted[net.architecture, self._device.type] = smaller
            self._plan(smaller)
            return Note(
                f"Memory of {place} ran out with a tile of {tile} px; going on with {smaller} px."
            )
        if not is_gpu:
            raise DeviceError(
                f"Memory of this computer ran out with a tile of {tile} px, and this network "
                "cannot take a smaller one. Close other programs, or choose a smaller halo or "
                "a smaller network."
            )
        self._device = torch.device("cpu")
        self._dtype = choose_dtype("auto", self._device, next(net.parameters()).dtype)
        self._choose_tiles()
        return Note("Memory of the GPU ran out; going on with the CPU, which is slower.")


def choose_halo(net: Network, settings: SegmentSettings) -> int:
    """Return the halo in pixels, on the grid: as set, or all that the network needs.

    What an unpadded network gives back is right to the last pixel, unless it resizes on the way
    up: resizing knows nothing beyond the edge of a tile, either. So do networks that pad here and
    not there.
    """
    if net.margin:
        wanted = net.halo - net.margin if net.invents_edges else 0
    else:
        wanted = net.halo if settings.halo_px is None else settings.halo_px
    return -(-wanted // net.stride) * net.stride


def default_tile(
    net: Network,
    shape: tuple[int, ...],
    halo_px: int,
    device: str = "cpu",
    budget_bytes: int | None = None,
) -> int:
    """Choose a tile so large that hardly any work is thrown away, if memory allows.

    Parameters
    ----------
    net : UNet or GraphNet
        The network.
    shape : tuple of int
        Size of the plane or volume; a short axis leaves more for the others.
    halo_px : int
        Halo per side in pixels.
    device : {"cpu", "cuda", "mps"}
        Where it runs.
    budget_bytes : int, optional
        Instead of the budget of the device.

    Returns
    -------
    int
        Side of the tile in pixels; large enough that most of the work is not halo.
    """
    step, shrink, lost = net.stride, 2 * net.margin, max(halo_px, net.margin)
    bytes_per_pixel = feature_bytes(net)
    tile = LEAST_HALOS[len(shape)] * lost + step
    most = min(max(shape) + shrink, max(MOST_HALOS * lost, MOST_PX)) + step
    while tile < most and (
        math.prod(min(tile + step, size + shrink) for size in shape) * bytes_per_pixel
        <= (budget_bytes or BUDGET_BYTES[device])
    ):
        tile += step
    return tile


def feature_bytes(net: Network) -> float:
    """Estimate the bytes per pixel of a tile that the features of all levels take together.

    Those that a strip of rows keeps for a while are left out, see
    :class:`napari_unet.network.inference.InferenceNet`.
    """
    if isinstance(net, GraphNet):
        return 4 * peak_numbers(net)
    skips = [block.widths[-1] for block in net.blocks]
    below = [0, *(stage.block.widths[-1] for stage in net.stages[-2::-1]), 0]
    dims = net.architecture.spatial_dims
    pairs = enumerate(zip(skips, below, strict=True))
    numbers = sum((skip + result) / 2.0 ** (dims * level) for level, (skip, result) in pairs)
    at_once = 0 if net.exact else 3 * skips[0]
    return 4 * (numbers + at_once + net.architecture.in_channels + net.architecture.classes)


def _grid(net: Network) -> tuple[int, int, int]:
    """Return stride, margin and the smallest output of a network."""
    return net.stride, net.margin, net.valid_input(1) - 2 * net.margin


def _smallest_tile(net: Network, halo_px: int) -> int:
    """Return the smallest tile of which anything is left to keep."""
    return net.valid_input(net.stride + 2 * (halo_px + net.margin))


def _to_device(pixels: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy to where it is computed; to an NVIDIA GPU while it still computes something else."""
    if device.type == "cuda":
        return pixels.pin_memory().to(device, non_blocking=True)
    return pixels.to(device)


def _to_host(values: torch.Tensor) -> tuple[torch.Tensor, torch.cuda.Event | None]:
    """Begin to copy back from an NVIDIA GPU; return what says that it is done."""
    if values.device.type != "cuda":
        return values, None
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    host.copy_(values, non_blocking=True)
    ready = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch tells no types
    ready.record()
    return host, ready
