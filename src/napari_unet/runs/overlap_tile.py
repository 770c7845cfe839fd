"""Run a network over planes, tile by tile.

The geometry is that of :mod:`napari_unet.arrays.tiles`, the network's private copy that of
:mod:`napari_unet.network.inference`; here are the order of the tiles, the processor and its
memory. If memory runs out, fewer tiles are computed at once, then what is left to do is cut into
tiles of half the size until they fit, then the CPU takes over. What is done stays done.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from napari_unet.arrays.tiles import (
    Tile,
    all_of_tile,
    plan_tiles,
    plan_tiles_around,
    split_tile,
)
from napari_unet.errors import DeviceError
from napari_unet.network.devices import choose_device, choose_dtype, is_out_of_memory
from napari_unet.network.policy import DevicePolicy, choose_policy
from napari_unet.network.turns import TURNS
from napari_unet.runs.batches import Batches, Order
from napari_unet.runs.difference import Difference
from napari_unet.runs.fitted import recall, remember
from napari_unet.runs.progress import Job, Note
from napari_unet.runs.tile_choice import (
    choose_halo,
    default_tile,
    grid_of,
    measured_tile,
    smallest_tile,
    tile_bytes,
    worthwhile_tile,
)
from napari_unet.runs.tile_computer import Piece, Plane, TileComputer
from napari_unet.runs.work import Work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_unet.models.model import Model
    from napari_unet.network.transfers import Assembly
    from napari_unet.runs.background import Background
    from napari_unet.settings import Precision, SegmentSettings

HOW_TO_FORGET = (
    "To have larger ones tried again: --forget-tiles, or in the dock Segment, Advanced, "
    "Try larger tiles again."
)


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
    around : sequence of slice, optional
        A part of the plane that is wanted first: the tiles are laid so that few cover it.
    policy : callable, optional
        Chooses how tiles are computed on a device; as it suits the device if not given.

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
        around: Sequence[slice] | None = None,
        policy: Callable[..., DevicePolicy] | None = None,
    ) -> None:
        self._model, self._shape = model, shape
        self._settings, self._background = settings, background
        self._around = around
        self._is_streamed, self._choose_policy = is_streamed, policy or choose_policy
        self._halo = choose_halo(model.net, settings)
        self._difference = Difference(model.net, shape, background)
        self._use(choose_device(settings.device), settings.precision)
        self._count, self._is_counted = len(self._tiles), False
        self._ran_out_with = ""
        self._is_problem_told = self._became_approximate = False

    @property
    def count(self) -> int:
        """How many tiles a plane counts for; the same from the first that is done."""
        return self._count

    @property
    def tiles(self) -> list[Tile]:
        """The tiles of a plane; other ones after memory ran out."""
        return self._tiles

    @property
    def planes_at_once(self) -> int:
        """Over how many planes to run together so that the device is busy."""
        return max(self._pieces_at_once // len(self._tiles), 1)

    @property
    def is_approximate(self) -> bool:
        """Say whether the result depends on where the tiles lie."""
        return len(self._tiles) > 1 and (not self._model.net.exact or self._short_halo is not None)

    def notes(self) -> Iterator[Note]:
        """Tell where the tiles are smaller than need be, and where the result is approximate."""
        if self._fitted is not None:
            yield Note(
                f"Beginning with {self._in_use}, as memory ran out with more on "
                f"{self._fitted.day}. {HOW_TO_FORGET}"
            )
        if self.is_approximate:
            yield self._why_approximate()

    def run(self, planes: Sequence[Plane], order: Order | None = None) -> Job[None]:
        """Run the network over a plane, or over some together, see :attr:`planes_at_once`.

        Parameters
        ----------
        planes : sequence of Plane
            All of the one size.
        order : callable, optional
            Asked before each tile which of the remaining ones is next, and each is written when it
            is done. If not given, row by row, and what is written at a time may be other parts.

        Yields
        ------
        TileDone
            Counted over these planes, after each tile; always of ``count`` for each, also if
            memory ran out later and they are more and smaller.
        """
        work = self._plan_work(planes, order)
        while work.remaining or work.started:
            try:
                if work.remaining:
                    yield from self._start(work, order)
                if work.remaining and len(work.started) <= self._policy.ahead:
                    continue
                values = yield from self._background.run(self._computer.finish, work.started[0])
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                yield from self._begin_again(work)
            else:
                yield from self._told()
                yield from self._finish(work, values)
        yield from self._unload(work.results)
        self._is_counted = True
        if self._settings.precision == "half" and not self._difference.is_rounding_told:
            yield from self._rounding(planes[0])

    def _plan_work(self, planes: Sequence[Plane], order: Order | None) -> Work:
        """Put down what is to be done; results stay on the device if nobody watches."""
        remaining = [
            Piece(plane, tile)
            for plane in planes
            for index, tile in enumerate(self._tiles)
            if index not in plane.skip
        ]
        work = Work(remaining, len(planes), self._count)
        work.share_out(-(-work.total * len(remaining) // (len(planes) * len(self._tiles))))
        if order is None:
            work.results = self._assemblies(planes)
        return work

    def _start(self, work: Work, order: Order | None) -> Job[None]:
        """Begin to compute the tiles that are next."""
        pieces = self._batches.choose(work.remaining, order, self._pieces_at_once)
        self._tried = min(self._at_once, len(pieces) * self._turns)
        kept = self._batches.kept(pieces, is_alike=self._policy.record is not None)
        into = work.results or None
        batch = yield from self._background.run(
            self._computer.start, pieces, kept, self._tried, into
        )
        work.started.append(batch)
        for piece in batch.pieces:
            work.remaining.remove(piece)

    def _finish(self, work: Work, values: Sequence[NDArray[Any]]) -> Job[None]:
        """Write the tiles that were begun first and are computed now, and count them."""
        pieces = work.started.pop(0).pieces
        for number, piece in enumerate(pieces, start=1):
            left = work.left + len(pieces) - number
            if work.results:
                work.results[piece.plane].add(piece.tile.core)
            else:
                piece.plane.write(piece.tile.core, values[number - 1])
                yield from self._measured(piece, values[number - 1], left, work.pieces)
            self._is_counted = True
            yield work.done(left)

    def _begin_again(self, work: Work) -> Job[None]:
        """After memory ran out: keep what is done, and do the rest in smaller pieces."""
        work.take_back()
        yield from self._unload(work.results)
        work.results = {}
        counts_for = work.counts_for(work.left)
        was_approximate = self.is_approximate
        self._make_room()
        self._became_approximate |= self.is_approximate and not was_approximate
        work.remaining = [
            Piece(piece.plane, part) for piece in work.remaining for part in self._split(piece.tile)
        ]
        if not self._is_counted:  # nobody knows another count yet
            self._count += (work.left - counts_for) // work.planes
            work.count, counts_for = self._count, work.left
        work.share_out(counts_for)

    def _assemblies(self, planes: Sequence[Plane]) -> dict[Plane, Assembly]:
        """Make room on the device for results that can stay there until all is computed."""
        size = len(planes) * self._model.card.architecture.classes * math.prod(self._shape)
        is_one_by_one = len(self._tiles) == 1 or self.is_approximate
        if is_one_by_one or size * torch.float32.itemsize > self._policy.result_bytes:
            return {}
        try:
            return {plane: self._computer.assemble(self._shape) for plane in planes}
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return {}

    def _unload(self, results: Mapping[Plane, Assembly]) -> Job[None]:
        """Write what is done of results that stayed on the device."""
        for plane, result in results.items():
            parts = result.take(self._computer.transfers)
            while part := (yield from self._background.run(next, parts, None)):
                plane.write(*part)

    def _measured(self, piece: Piece, values: NDArray[Any], left: int, pieces: int) -> Job[None]:
        """Where tiles are approximate, look how much another tile differs."""
        if self.is_approximate and not self._difference.is_told:
            yield from self._difference.measure(self._computer, piece, values, left, pieces)

    def _rounding(self, plane: Plane) -> Job[None]:
        """Where half precision was chosen, look in the middle how much all digits would change."""
        computer, net = self._computer, self._model.net
        if computer.dtype.itemsize >= torch.float32.itemsize:
            return
        side = measured_tile(net, self._halo, self._largest_side)
        middle = self._tiles[len(self._tiles) // 2]
        small = split_tile(middle, self._shape, side, self._halo, *grid_of(net))
        piece = Piece(plane, all_of_tile(small[len(small) // 2], self._shape, net.margin))
        exact = self._computer_on(computer.device, torch.float32)
        yield from self._difference.rounding(computer, exact, piece)

    def _use(self, device: torch.device, precision: Precision) -> None:
        """Compute on a device from now on, with tiles as it suits it and as they fitted before."""
        net = self._model.net
        dtype = choose_dtype(precision, device, next(net.parameters()).dtype)
        self._policy = self._choose_policy(device, is_streamed=self._is_streamed)
        self._computer = self._computer_on(device, dtype)
        self._is_less = False
        budget = self._policy.budget_bytes
        tile_px = self._settings.tile_px or default_tile(net, self._shape, self._halo, budget)
        self._plan(tile_px)
        wanted = self._tiles
        fitted = recall(net, device, dtype)
        if fitted:
            # Smaller ones helped once; to begin with they would make every run many times longer.
            self._plan(min(tile_px, max(fitted.tile_px, worthwhile_tile(net, self._halo))))
        features = tile_bytes(net, [part.stop - part.start for part in self._tiles[0].outer])
        most = max(int(self._policy.together_bytes // features), 1)
        self._at_once: int = min(most, fitted.at_once) if fitted else most
        self._tried = self._at_once
        is_less = self._tiles != wanted or self._at_once < most
        self._fitted = fitted if is_less else None

    def _computer_on(self, device: torch.device, dtype: torch.dtype) -> TileComputer:
        """Return what computes tiles, until the job is left."""
        how = self._settings, device, dtype, self._policy
        return TileComputer(self._model, *how, is_left=self._background.is_left)

    def _plan(self, tile_px: int) -> None:
        """Lay the tiles on the network's grid."""
        self._tile_px = tile_px
        how = tile_px, self._halo, *grid_of(self._model.net)
        self._tiles = (
            plan_tiles(self._shape, *how)
            if self._around is None
            else plan_tiles_around(self._shape, self._around, *how)
        )
        self._batches = Batches(self._tiles, self._shape)

    def _split(self, tile: Tile) -> list[Tile]:
        """Cut a tile into tiles of the size that is now used, if it is larger."""
        if all(part.stop - part.start <= self._tile_px for part in tile.outer):
            return [tile]
        return split_tile(tile, self._shape, self._tile_px, self._halo, *grid_of(self._model.net))

    def _make_room(self) -> None:
        """Take fewer tiles at once, or smaller ones, or else the CPU."""
        net, device = self._model.net, self._computer.device
        self._ran_out_with = self._ran_out_with or (
            f"{'this computer' if device.type == 'cpu' else 'the GPU'} ran out with {self._in_use}"
        )
        self._computer.free()
        smaller = max(self._largest_side // 2, smallest_tile(net, self._halo))
        if self._tried > 1:
            self._at_once = self._tried = self._tried // 2
        elif smaller < self._largest_side:
            self._plan(smaller)
        elif device.type == "cpu":
            raise DeviceError(
                f"Memory of {self._ran_out_with}, and this network cannot take a smaller one. "
                "Close other programs, or choose a smaller halo or a smaller network."
            )
        else:
            remember(net, device, self._computer.dtype, smaller, 1)
            self._use(torch.device("cpu"), "auto")
            return
        self._is_less = True

    def _told(self) -> Iterator[Note]:
        """Tell, once it is computed, what was done when memory ran out; remember what fitted."""
        computer, problem = self._computer, self._computer.recording_problem
        if self._ran_out_with:
            yield Note(f"Memory of {self._ran_out_with}; going on with {self._in_use}.")
        if self._became_approximate:
            self._became_approximate = False
            yield self._why_approximate()
        if self._ran_out_with and self._is_less:
            net = self._model.net
            remember(net, computer.device, computer.dtype, self._tile_px, self._at_once)
        self._ran_out_with = ""
        if problem and not self._is_problem_told:
            self._is_problem_told = True
            yield Note(
                f"What the GPU computes for each tile cannot be recorded ({problem}); it is told "
                "tile by tile, which is slower where they are small."
            )

    def _why_approximate(self) -> Note:
        """Say why the result depends on where the tiles lie."""
        if self._model.net.exact and self._short_halo is not None:
            halo, wanted = self._short_halo
            text = (
                f"A halo of {halo} px is less than the {wanted} px this network looks around it, "
                "so the result is approximate where tiles meet."
            )
        else:
            text = (
                "What this network answers depends on all it sees at once "
                f"({', '.join(self._model.net.approximate)}), so with tiles the result is "
                "approximate. A larger tile comes closer."
            )
        return Note(text, is_caveat=True)

    @property
    def _short_halo(self) -> tuple[int, int] | None:
        """The halo and what the network needs, along an axis that is cut with too little of it."""
        net = self._model.net
        if net.margin:
            return None
        axes = zip(self._halo, net.grids, self._tiles[0].core, self._shape, strict=True)
        for halo, grid, core, size in axes:
            if halo < grid.halo and core.stop < size:
                return halo, grid.halo
        return None

    @property
    def _in_use(self) -> str:
        """What is used of which memory can run out."""
        if self._ran_out_with.startswith("the GPU") and self._computer.device.type == "cpu":
            return "the CPU, which is slower"
        side = f"{self._largest_side} px"
        return f"{self._tried} tiles of {side} at once" if self._tried > 1 else f"a tile of {side}"

    @property
    def _largest_side(self) -> int:
        """The largest side of the tiles as they are planned."""
        return max(int(part.stop - part.start) for part in self._tiles[0].outer)

    @property
    def _turns(self) -> int:
        """How often each tile is computed."""
        return len(TURNS) if self._settings.augment else 1

    @property
    def _pieces_at_once(self) -> int:
        """How many tiles are given to the device at once."""
        return max(self._at_once // self._turns, 1)
