"""Overlap-tile: cut an image into windows whose results fit together without a seam.

The network sees a tile (``outer``); near the tile's border it misses what lies beyond, so that
margin, the halo, is thrown away and only the middle (``core``) is kept. The cores cover the image
so that each pixel is written exactly once::

        |<------------ outer: what the network sees ------------>|
        |<-- halo -->|<--------- core: kept -------->|<-- halo -->|
                              |<-- halo -->|<-------- core: kept -------->|   the next tile
                              |<------------- its outer: ...

    image  0 ................................................... n|mirrored
           |0       |stride  |       |       |       |       |       |  grid of the poolings

The result equals that of the whole image if the halo is as large as the network's reach **and**
every tile starts on the grid of the poolings: a start between two grid lines pools other pixels
together. At the border of the image there is no halo: there the network's own zero padding
stands, in a tile as in the whole. Only to the right and below the image is mirrored, up to the
next grid line.

A network without padding (Ronneberger et al. 2015, Fig. 2) gives back less than it sees, by a
``margin`` on each side. What it gives is right to the last pixel, so it needs no halo; instead
the image is mirrored by the margin on all sides::

    mirrored image   |<- margin ->|0 ............... image ............... n|<- margin ->|
    first tile       |<- margin ->|<------- output ------->|<- margin ->|
    second tile                |<- margin ->|<------- output ------->|<- margin ->|

Along Z a network may look less far and pool less than in the plane: halo, stride and smallest size
may be given for each axis.

References
----------
.. [1] Ronneberger, Fischer, Brox (2015), U-Net, doi:10.1007/978-3-319-24574-4_28, Fig. 2.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_unet.errors import TileSizeError

if TYPE_CHECKING:
    from collections.abc import Iterator

Kind = tuple[tuple[int, bool, bool], ...]
"""Along each axis: the size of the window, and if it is the first and the last."""
Along = int | Sequence[int]
"""Pixels along all axes, or along each one."""


@dataclass(frozen=True)
class Tile:
    """One window and the part of its result that is kept; one slice per spatial axis."""

    outer: tuple[slice, ...]
    """What the network sees; counted in the mirrored image, which starts a margin before 0."""
    core: tuple[slice, ...]
    """What is written; counted in the image."""
    local: tuple[slice, ...]
    """The core again; counted in what the network gives back for this tile."""


@dataclass(frozen=True)
class _Grid:
    """Sizes that come back along an axis: ``smallest`` and every multiple of ``stride`` more."""

    stride: int
    margin: int
    smallest: int
    halo: int

    def up(self, size: int) -> int:
        """Return the next such size that is not smaller."""
        return self.smallest + _ceil(max(size - self.smallest, 0), self.stride)

    def down(self, size: int) -> int:
        """Return the next such size that is not larger (below ``smallest`` if there is none)."""
        return self.smallest + _floor(size - self.smallest, self.stride)


def plan_tiles(
    shape: Sequence[int],
    tile_px: int,
    halo_px: Along,
    stride: Along,
    margin: int = 0,
    smallest: Along | None = None,
) -> list[Tile]:
    """Cover an image with as few equal tiles as possible.

    Parameters
    ----------
    shape : sequence of int
        Image size (Y, X) or (Z, Y, X) in pixels.
    tile_px : int
        Largest side of a tile in pixels, halo and margin included; rounded down to what the
        network can take. Tiles are not larger than the image, so a short axis has one tile.
    halo_px : int or sequence of int
        Pixels per side that are computed and thrown away where tiles meet; rounded up to the
        stride. One number for all axes, or one for each.
    stride : int or sequence of int
        Grid of the poolings in pixels.
    margin : int
        Pixels per side by which the network's output is smaller than its input; 0 if padded.
    smallest : int or sequence of int, optional
        Smallest size the network gives back in pixels; the stride if not given.

    Returns
    -------
    list of Tile
        Row by row. The cores partition the image; every ``outer`` starts on the grid.

    Raises
    ------
    TileSizeError
        If the tile has no room for a core between its halos, or is too small for the network.

    References
    ----------
    .. [1] Ronneberger et al. (2015), U-Net, doi:10.1007/978-3-319-24574-4_28, Fig. 2.
    """
    grids = _grids(len(shape), halo_px, stride, margin, smallest)
    pairs = zip(shape, grids, strict=True)
    return _products([list(_tiles_along_axis(size, tile_px, grid)) for size, grid in pairs])


def plan_tiles_around(
    shape: Sequence[int],
    region: Sequence[slice],
    tile_px: int,
    halo_px: Along,
    stride: Along,
    margin: int = 0,
    smallest: Along | None = None,
) -> list[Tile]:
    """Cover an image with tiles of which as few as possible cover a region of it.

    The borders of the region are borders of tiles::

        +----+----+----+
        |    |    |    |
        +----+----+----+
        |    |view|    |
        +----+----+----+

    Parameters
    ----------
    shape : sequence of int
        See :func:`plan_tiles`.
    region : sequence of slice
        Which part of the image; it is made a little larger so that it lies on the grid.
    tile_px, halo_px, stride, margin, smallest : object
        See :func:`plan_tiles`.

    Returns
    -------
    list of Tile
        Row by row. The cores partition the image; every ``outer`` starts on the grid.

    Raises
    ------
    TileSizeError
        If the tile has no room for a core between its halos, or is too small for the network.
    """
    axes = []
    grids = _grids(len(shape), halo_px, stride, margin, smallest)
    for size, part, grid in zip(shape, region, grids, strict=True):
        start = _floor(part.start, grid.stride)
        stop = min(_ceil(part.stop, grid.stride), size)
        # A strip beside the region that is narrower than its halos goes with it.
        start, stop = start * (start > 2 * grid.halo), stop if size - stop > 2 * grid.halo else size
        ends = [0, start, stop, size]
        cores = (slice(*pair) for pair in itertools.pairwise(ends) if pair[0] < pair[1])
        axes.append([tile for core in cores for tile in _tiles_within(core, size, tile_px, grid)])
    return _products(axes)


def split_tile(
    tile: Tile,
    shape: Sequence[int],
    tile_px: int,
    halo_px: Along,
    stride: Along,
    margin: int = 0,
    smallest: Along | None = None,
) -> list[Tile]:
    """Cover the core of a tile with smaller tiles.

    Parameters
    ----------
    tile : Tile
        Planned for an image of that shape, with the same stride, margin and smallest size.
    shape, tile_px, halo_px, stride, margin, smallest : object
        See :func:`plan_tiles`.

    Returns
    -------
    list of Tile
        Row by row. The cores partition that of the tile.

    Raises
    ------
    TileSizeError
        If the tile has no room for a core between its halos.
    """
    grids = _grids(len(shape), halo_px, stride, margin, smallest)
    parts = zip(tile.core, shape, grids, strict=True)
    return _products([list(_tiles_within(core, size, tile_px, grid)) for core, size, grid in parts])


def moved_tile(
    tile: Tile,
    shape: Sequence[int],
    halo_px: Along,
    stride: Along,
    margin: int = 0,
    smallest: Along | None = None,
) -> Tile:
    """Lay a window of the same size across a border of a tile's core.

    Parameters
    ----------
    tile : Tile
        Planned for an image of that shape, with the same stride, margin and smallest size.
    shape : sequence of int
        See :func:`plan_tiles`.
    halo_px : int or sequence of int
        How far from the moved window's own edges its core shall stay, if there is room.
    stride, margin, smallest : object
        See :func:`plan_tiles`.

    Returns
    -------
    Tile
        Its core is a part of the tile's core, so that the two can be compared.
    """
    grids = _grids(len(shape), halo_px, stride, margin, smallest)
    parts = zip(tile.outer, tile.core, shape, grids, strict=True)
    (moved,) = _products([[_moved_along_axis(*part)] for part in parts])
    return moved


def all_of_tile(tile: Tile, shape: Sequence[int], margin: int = 0) -> Tile:
    """Give the same window with all that lies in the image as its core, the halo included.

    Parameters
    ----------
    tile : Tile
        Planned for an image of that shape, with the same margin.
    shape, margin : object
        See :func:`plan_tiles`.

    Returns
    -------
    Tile
        What it holds depends on the window; to compare two ways of computing the same.
    """
    sides = [
        min(outer.stop - 2 * margin, size) - outer.start
        for outer, size in zip(tile.outer, shape, strict=True)
    ]
    pairs = list(zip(tile.outer, sides, strict=True))
    return Tile(
        outer=tile.outer,
        core=tuple(slice(outer.start, outer.start + side) for outer, side in pairs),
        local=tuple(slice(0, side) for side in sides),
    )


def kind_of(tile: Tile, shape: Sequence[int]) -> Kind:
    """Say what tiles have in common that can be computed together.

    Parameters
    ----------
    tile : Tile
        Planned for an image of that shape.
    shape : sequence of int
        See :func:`plan_tiles`.

    Returns
    -------
    tuple
        Equal for tiles of the same size that end at the same sides of the image: of those, about
        the same part is kept.
    """
    return tuple(
        (outer.stop - outer.start, core.start == 0, core.stop == size)
        for outer, core, size in zip(tile.outer, tile.core, shape, strict=True)
    )


def _grids(
    dims: int, halo_px: Along, stride: Along, margin: int, smallest: Along | None
) -> list[_Grid]:
    """Give the grid of each axis."""
    steps = _each(stride, dims)
    least = steps if smallest is None else _each(smallest, dims)
    return [
        _Grid(step, margin, size, _ceil(halo, step))
        for step, size, halo in zip(steps, least, _each(halo_px, dims), strict=True)
    ]


def _each(pixels: Along, dims: int) -> Sequence[int]:
    """Repeat a number for each axis, unless there is one for each."""
    return (pixels,) * dims if isinstance(pixels, int) else pixels


def _products(axes: list[list[Tile]]) -> list[Tile]:
    """Join the tiles of each axis to tiles of all axes, row by row."""
    return [
        Tile(
            outer=tuple(tile.outer[0] for tile in tiles),
            core=tuple(tile.core[0] for tile in tiles),
            local=tuple(tile.local[0] for tile in tiles),
        )
        for tiles in itertools.product(*axes)
    ]


def _tiles_along_axis(size: int, tile_px: int, grid: _Grid) -> Iterator[Tile]:
    """Lay equal windows along one axis: the fewest, then the smallest that still cover it."""
    padded = grid.up(size)
    window, count = _even_windows(padded, tile_px, grid)
    steps = max(count - 1, 1)
    starts = [_floor(i * (padded - window) // steps, grid.stride) for i in range(count)]
    # Two windows are cut apart in the middle of their overlap, on the grid.
    cuts = [
        after + _floor((before + window - after) // 2, grid.stride)
        for before, after in itertools.pairwise(starts)
    ]
    for start, first, last in zip(starts, [0, *cuts], [*cuts, size], strict=True):
        yield Tile(
            outer=(slice(start, start + window + 2 * grid.margin),),
            core=(slice(first, last),),
            local=(slice(first - start, last - start),),
        )


def _tiles_within(core: slice, size: int, tile_px: int, grid: _Grid) -> Iterator[Tile]:
    """Cut a core along one axis into even ones, each with the window it needs."""
    padded = grid.up(size)
    room = _room(padded, tile_px, grid)
    count = -(-(core.stop - core.start) // room)
    step = _ceil(-(-(core.stop - core.start) // count), grid.stride)
    for first in range(core.start, core.stop, step):
        last = min(first + step, core.stop)
        stop = min(_ceil(last + grid.halo, grid.stride), padded)
        start = max(min(first - grid.halo, stop - grid.smallest), 0)
        yield Tile(
            outer=(slice(start, start + grid.up(stop - start) + 2 * grid.margin),),
            core=(slice(first, last),),
            local=(slice(first - start, last - start),),
        )


def _moved_along_axis(outer: slice, core: slice, size: int, grid: _Grid) -> Tile:
    """Lay a window over the end of its core, or else over the start, as far as there is room."""
    padded, window = grid.up(size), outer.stop - outer.start - 2 * grid.margin
    border = core.stop if core.stop < size else core.start
    start = min(max(_floor(border - window // 2, grid.stride), 0), padded - window)
    stop = start + window
    halo = min(grid.halo, _floor(window // 2 - grid.stride, grid.stride))
    first = max(core.start, start + halo * (start > 0))
    last = min(core.stop, stop - halo * (stop < padded))
    return Tile(
        outer=(slice(start, start + outer.stop - outer.start),),
        core=(slice(first, last),),
        local=(slice(first - start, last - start),),
    )


def _even_windows(padded: int, tile_px: int, grid: _Grid) -> tuple[int, int]:
    """Choose size (of the output) and number of the windows that cover a padded axis."""
    largest = grid.down(tile_px - 2 * grid.margin)
    if padded <= largest:
        return padded, 1
    _room(padded, tile_px, grid)
    count = 1 - (largest - padded) // _step(largest, grid)
    enough = (
        window
        for window in range(grid.smallest, largest, grid.stride)
        if window + (count - 1) * _step(window, grid) >= padded
    )
    return next(enough, largest), count


def _room(padded: int, tile_px: int, grid: _Grid) -> int:
    """Return how much of a window is left for its core, which must be something."""
    largest = grid.down(tile_px - 2 * grid.margin)
    if padded <= largest:
        return padded
    if largest < max(grid.smallest, 2 * grid.halo + grid.stride):
        raise TileSizeError(_why_too_small(tile_px, grid))
    return _step(largest, grid)


def _step(window: int, grid: _Grid) -> int:
    """Return the longest step from one window to the next."""
    return _floor(window - 2 * grid.halo, grid.stride)


def _why_too_small(tile_px: int, grid: _Grid) -> str:
    """Say why a tile is too small, and which one would do."""
    least = grid.up(max(grid.smallest, 2 * grid.halo + grid.stride)) + 2 * grid.margin
    if grid.halo == 0:
        return (
            f"A tile of {tile_px} px leaves nothing to keep of what this network gives back. "
            f"Choose at least {least} px."
        )
    return (
        f"A tile of {tile_px} px has no room left between two halos of {grid.halo} px. Choose at "
        f"least {least} px, or a smaller halo, which gives an approximate result."
    )


def _ceil(size: int, stride: int) -> int:
    """Round up to a multiple of the stride."""
    return -(-size // stride) * stride


def _floor(size: int, stride: int) -> int:
    """Round down to a multiple of the stride."""
    return size // stride * stride
