"""A model, an image and settings that fit each other, gone through plane by plane.

Of a plane only windows are read: for its statistics once, then tile by tile. The exception is a
plane that is scaled (Object size): that one is in memory while it is its turn.
"""

from __future__ import annotations

import gc
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.arrays.axes import plan_planes
from napari_unet.arrays.blocks import cut_blocks, plan_blocks
from napari_unet.arrays.channels import check_channels
from napari_unet.arrays.normalize import check_grey_values, measure_steps
from napari_unet.arrays.reading import PlaneReader
from napari_unet.errors import DeviceError
from napari_unet.files.zarrs import writing
from napari_unet.network.allocator import return_memory
from napari_unet.runs.overlap_tile import OverlapTile
from napari_unet.runs.progress import Job, Note, TileDone
from napari_unet.runs.restart import Fingerprint, Unfinished, identify
from napari_unet.runs.tile_computer import Plane
from napari_unet.runs.zoom import choose_zoom, rescaled, resize, zoomed_shape

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from numpy.typing import NDArray

    from napari_unet.arrays.normalize import Statistics
    from napari_unet.arrays.tiles import Tile
    from napari_unet.models.model import Model
    from napari_unet.runs.background import Background
    from napari_unet.runs.batches import Order
    from napari_unet.settings import SegmentSettings

    Index = tuple[int, ...]
    NextPlane = Callable[[list[Index]], Index]
    Core = tuple[slice, ...]


class PlaneRun:
    """One run of a network over an image.

    Parameters
    ----------
    model : Model
        The network and its card.
    image : array-like
        The image; numpy, memory map, dask or zarr.
    axes : str
        Its axes.
    settings : SegmentSettings
        Channels, tile, halo, object size, device.
    background : Background
        Where everything long is computed.
    out : array, optional
        What is given for the result; None or a numpy array is in memory.
    extra : int
        What is to be done with each plane beside its tiles, counted as so many tiles.
    around : tuple of slice, optional
        A part of each plane that is wanted first.

    Raises
    ------
    ImageError
        If the axes, channels or values do not fit the model.
    TileSizeError
        If the tile is too small.
    """

    def __init__(
        self,
        model: Model,
        image: Any,
        axes: str,
        settings: SegmentSettings,
        background: Background,
        out: Any = None,
        extra: int = 0,
        around: Core | None = None,
    ) -> None:
        architecture = model.card.architecture
        check_grey_values(image.dtype)
        self.planes = plan_planes(image.shape, axes, architecture.spatial_dims)
        check_channels(self.planes.channels, settings.channels, architecture.in_channels)
        self.classes = architecture.classes
        zoom = choose_zoom(model.card, settings)
        self._seen_shape = zoomed_shape(self.planes.spatial_shape, zoom)
        self._around = around
        if around is not None:
            around = rescaled(around, self.planes.spatial_shape, self._seen_shape)
        # Where somebody waits for a part, time counts more than memory.
        self._is_streamed = around is None and out is not None and type(out) is not np.ndarray
        self.tiling = OverlapTile(
            model,
            self._seen_shape,
            settings,
            background,
            is_streamed=self._is_streamed,
            around=around,
        )
        self._model, self._image, self._settings, self._out = model, image, settings, out
        self._background, self._extra = background, extra
        self._planes_done = self._extras_done = 0

    def unfinished(self, out: Any) -> Job[Unfinished]:
        """Look what an earlier run left in the output, and say so.

        Parameters
        ----------
        out : array
            Where the probabilities of all planes are written.

        Returns
        -------
        Unfinished
            Empty for arrays that cannot keep it.
        """
        run = ""
        if Unfinished.is_kept_in(out):
            identity = self._model, self._image, self.planes.axes, self._settings
            run = yield from self._background.run(identify, *identity)
        unfinished = Unfinished(out, run)
        yield from unfinished.notes(self._cores())
        return unfinished

    def go_over(
        self,
        indices: Sequence[Index],
        outs: Sequence[Any],
        order: Order | None = None,
        unfinished: Unfinished | None = None,
    ) -> Job[None]:
        """Run the network over a plane, or over some together, see :attr:`planes_at_once`.

        Parameters
        ----------
        indices : sequence of tuple of int
            The planes.
        outs : sequence of array of float32, shape (classes, *spatial)
            Where their probabilities are written.
        order : callable, optional
            Picks the next of the tiles that remain.
        unfinished : Unfinished, optional
            Knows which tiles are done, and is told of each that is.

        Yields
        ------
        TileDone
            After each tile, counted over all planes.

        Raises
        ------
        FileError
            If the output cannot be written.
        """
        planes = []
        for index, out in zip(indices, outs, strict=True):
            planes.append((yield from self._prepare(index, out, unfinished)))
        try:
            if self._is_scaled:
                for plane in planes:
                    yield from self._scaled(plane, order)
            else:
                yield from self._tiles(planes, order)
        except BaseException:
            with suppress(OSError):  # the error that ended the run is the one to be told
                if unfinished is not None:
                    unfinished.save()
            raise
        self._planes_done += len(planes)

    @property
    def planes_at_once(self) -> int:
        """Over how many planes to run together so that the device is busy."""
        return 1 if self._is_scaled else self.tiling.planes_at_once

    def extra_done(self) -> TileDone:
        """Count what was done with a plane beside its tiles."""
        self._extras_done += self._extra
        return self._count(0)

    def _prepare(self, index: Index, out: Any, unfinished: Unfinished | None) -> Job[Plane]:
        """Measure a plane, and look what is done of it."""
        channels = self._reader(index)
        shape = self.planes.spatial_shape
        windows = cut_blocks(shape, plan_blocks(shape, chunks=channels.cell))
        skip: Collection[int] = ()
        if unfinished is not None and unfinished.is_kept:
            seen = Fingerprint(channels, windows)
            statistics = yield from self._measure(seen, windows)
            content = yield from self._background.go_through(seen.finish_steps())
            skip = yield from unfinished.skip(index, content, self._cores())
        else:
            statistics = yield from self._measure(channels, windows)

        def write(core: Core, values: NDArray[Any]) -> None:
            """Write a core to its place."""
            with writing(self._out):
                try:
                    out[(slice(None), *core)] = values
                except MemoryError:  # a zarr array needs some to pack its chunks
                    gc.collect()
                    out[(slice(None), *core)] = values
                if unfinished is not None:
                    unfinished.add(index, core)
            if self._is_streamed:
                return_memory()  # of many tiles in several threads, much would be left behind

        return Plane(channels, statistics, write, skip)

    def _reader(self, index: Index) -> PlaneReader:
        """Return what reads the channels the network wants of a plane."""
        wanted = self._model.card.architecture.in_channels
        return PlaneReader(self._image, self.planes, index, self._settings.channels, wanted)

    @property
    def _is_scaled(self) -> bool:
        """Say if the network sees planes of another size."""
        return self._seen_shape != self.planes.spatial_shape

    def _cores(self) -> list[Core]:
        """Return what is written of a plane at a time."""
        if self._is_scaled:
            return [tuple(slice(0, size) for size in self.planes.spatial_shape)]
        return [tile.core for tile in self.tiling.tiles]

    def _scaled(self, plane: Plane, order: Order | None) -> Job[None]:
        """Run the network over a plane of another size, and write all of it at once."""
        if plane.skip:
            return
        (whole,) = self._cores()
        everything = plane.channels[(slice(None), *whole)]
        scaled = yield from self._background.run(resize, everything, self._seen_shape)
        seen = np.empty((self.classes, *self._seen_shape), np.float32)

        def keep(core: Core, values: NDArray[Any]) -> None:
            """Write a core of the scaled plane, and what it is about where somebody waits."""
            seen[(slice(None), *core)] = values
            if order is not None and self._around is not None and self.tiling.count > 1:
                place = rescaled(core, self._seen_shape, self.planes.spatial_shape)
                plane.write(place, resize(values, [part.stop - part.start for part in place]))

        yield from self._tiles([Plane(scaled, plane.statistics, keep)], self._in_image(order))
        values = yield from self._background.run(resize, seen, self.planes.spatial_shape)
        plane.write(whole, values)

    def _in_image(self, order: Order | None) -> Order | None:
        """Ask for the next tile of a scaled plane by where it lies in the image."""
        if order is None:
            return None

        def next_of(tiles: list[Tile]) -> Tile:
            """Pick a tile."""
            shapes = self._seen_shape, self.planes.spatial_shape
            placed = [replace(tile, core=rescaled(tile.core, *shapes)) for tile in tiles]
            return tiles[placed.index(order(placed))]

        return next_of

    def _measure(
        self, channels: PlaneReader | Fingerprint, windows: Sequence[Core]
    ) -> Job[Statistics]:
        """Measure a plane, window by window; once more if memory runs out."""
        try:
            return (yield from self._measure_once(channels, windows))
        except MemoryError:
            gc.collect()
            yield Note("Memory ran out while the image was being measured; once more.")
        try:
            return (yield from self._measure_once(channels, windows))
        except MemoryError as error:
            raise DeviceError(
                "Memory of this computer ran out while the image was being measured. Close other "
                "programs, or give the image as a zarr array of small chunks."
            ) from error

    def _measure_once(
        self, channels: PlaneReader | Fingerprint, windows: Sequence[Core]
    ) -> Job[Statistics]:
        """Measure a plane, window by window."""
        steps = measure_steps(channels, self._model.card.normalization, windows)
        return (yield from self._background.go_through(steps))

    def _tiles(self, planes: Sequence[Plane], order: Order | None) -> Job[None]:
        """Run the network over what it is to see of some planes; count over all planes."""
        for event in self.tiling.run(planes, order):
            yield self._count(event.done) if isinstance(event, TileDone) else event

    def _count(self, tiles_done: int) -> TileDone:
        """Say how many pieces of work are done, and of how many."""
        done = self._planes_done * self.tiling.count + self._extras_done + tiles_done
        return TileDone(done, self.planes.count * (self.tiling.count + self._extra))
