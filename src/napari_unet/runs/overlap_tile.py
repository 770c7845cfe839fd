"""Run a network over a plane, tile by tile.

The geometry is that of :mod:`napari_unet.arrays.tiles`; here are the network, the processor and
its memory. If memory runs out, the tiles are halved until they fit, then the CPU takes over.
"""

from __future__ import annotations

import copy
import gc
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from napari_unet.arrays.normalize import Statistics, normalize
from napari_unet.arrays.tiles import Tile, cut_tile, plan_tiles
from napari_unet.errors import DeviceError
from napari_unet.network.devices import choose_device, is_out_of_memory
from napari_unet.runs.progress import Job, Note, TileDone

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_unet.models.model import Model
    from napari_unet.network.unet import UNet
    from napari_unet.runs.background import Background
    from napari_unet.settings import SegmentSettings

Write = Callable[[tuple[slice, ...], "NDArray[Any]"], None]
"""Takes a core (one slice per spatial axis) and its values (classes, *core)."""

# Of the largest activation. On the CPU, larger blocks go back to the system after each layer and
# are slow to get anew (glibc's limit).
BUDGET_BYTES = {"cpu": 32 * 2**20, "cuda": 256 * 2**20, "mps": 256 * 2**20}
# Smaller tiles than this many halos would spend most of the work on what is thrown away.
LEAST_HALOS = {2: 6, 3: 3}


class OverlapTile:
    """A network ready to run over planes of one size.

    Parameters
    ----------
    model : Model
        Its network is neither moved nor switched; where needed a copy is.
    shape : tuple of int
        Size of the planes (Y, X) or volumes (Z, Y, X) in pixels.
    settings : SegmentSettings
        Tile, halo, device, invert.
    background : Background
        Where the tiles are computed.

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
    ) -> None:
        self._model, self._shape = model, shape
        self._settings, self._background = settings, background
        self._device = choose_device(settings.device)
        self._net: UNet | None = None
        self._halo = choose_halo(model.net, settings)
        self._choose_tiles()

    @property
    def tiles(self) -> list[Tile]:
        """The tiles of a plane."""
        return self._tiles

    def notes(self) -> Iterator[Note]:
        """Tell where the result will be approximate."""
        net = self._model.net
        if len(self._tiles) == 1:
            return
        if not net.exact:
            yield Note(
                "This network measures all it sees at once (instance or group norm, or pyramid "
                "pooling), so with tiles the result is approximate. A larger tile comes closer."
            )
        elif net.margin == 0 and self._halo < net.halo:
            yield Note(
                f"A halo of {self._halo} px is less than the {net.halo} px this network looks "
                "around it, so the result is approximate where tiles meet."
            )

    def run(self, channels: NDArray[Any], statistics: Statistics, write: Write) -> Job[None]:
        """Run the network over one plane.

        Parameters
        ----------
        channels : ndarray, shape (C, *spatial)
            The plane in raw grey values, one channel for each input of the network.
        statistics : Statistics
            Of the whole plane.
        write : callable
            Called with each core and its probabilities; once per pixel, unless memory ran out
            and the plane was begun again.

        Yields
        ------
        TileDone
            Counted over this plane, after each tile.
        """
        while True:
            try:
                yield from self._run(channels, statistics, write)
                return
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            yield self._make_room()

    def _run(self, channels: NDArray[Any], statistics: Statistics, write: Write) -> Job[None]:
        """Run all tiles, or raise what torch raises."""
        net = self._net = self._net or _on_device(self._model.net, self._device)
        for done, tile in enumerate(self._tiles, start=1):
            values = yield from self._background.run(self._compute, net, channels, statistics, tile)
            write(tile.core, values)
            yield TileDone(done, len(self._tiles))

    def _compute(
        self, net: UNet, channels: NDArray[Any], statistics: Statistics, tile: Tile
    ) -> NDArray[Any]:
        """Compute the probabilities (classes, *core) of one tile."""
        pixels = normalize(cut_tile(channels, tile, net.margin), statistics, self._settings.invert)
        weights = next(net.parameters())
        with torch.inference_mode():
            seen = torch.from_numpy(pixels)[None].to(weights.device, weights.dtype)
            core = net(seen)[(..., *tile.local)]
            values: NDArray[Any] = self._model.activate(core)[0].cpu().numpy()
        return values

    def _choose_tiles(self) -> None:
        """Plan tiles as the settings say, or as the device's memory suggests."""
        net = self._model.net
        self._plan(
            self._settings.tile_px or default_tile(net, self._shape, self._halo, self._device.type)
        )

    def _plan(self, tile_px: int) -> None:
        """Lay the tiles on the network's grid."""
        net = self._model.net
        smallest = net.valid_input(1) - 2 * net.margin
        self._tiles = plan_tiles(self._shape, tile_px, self._halo, net.stride, net.margin, smallest)

    def _make_room(self) -> Note:
        """Take smaller tiles, or else the CPU, and say so."""
        net, is_gpu = self._model.net, self._device.type != "cpu"
        place = "the GPU" if is_gpu else "this computer"
        _free_memory(self._device)
        tile = max(part.stop - part.start for part in self._tiles[0].outer)
        smaller = max(tile // 2, _smallest_tile(net, self._halo))
        if smaller < tile:
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
        self._net, self._device = None, torch.device("cpu")
        self._choose_tiles()
        return Note("Memory of the GPU ran out; going on with the CPU, which is slower.")


def choose_halo(net: UNet, settings: SegmentSettings) -> int:
    """Return the halo in pixels, on the grid: as set, or all that the network needs.

    What an unpadded network gives back is right to the last pixel, unless it resizes on the way
    up: resizing knows nothing beyond the edge of a tile, either.
    """
    if net.margin:
        resizes = net.architecture.upsampling != "transposed"
        wanted = net.halo - net.margin if resizes else 0
    else:
        wanted = net.halo if settings.halo_px is None else settings.halo_px
    return -(-wanted // net.stride) * net.stride


def default_tile(net: UNet, shape: tuple[int, ...], halo_px: int, device: str = "cpu") -> int:
    """Choose the largest tile whose activations stay within a budget.

    Parameters
    ----------
    net : UNet
        The network.
    shape : tuple of int
        Size of the plane or volume; a short axis leaves more for the others.
    halo_px : int
        Halo per side in pixels.
    device : {"cpu", "cuda", "mps"}
        Where it runs.

    Returns
    -------
    int
        Side of the tile in pixels; large enough that most of the work is not halo.
    """
    step, shrink = net.stride, 2 * net.margin
    bytes_per_pixel = 4 * 2 * net.architecture.widths[0]  # float32; a skip and what it joins
    tile = LEAST_HALOS[len(shape)] * max(halo_px, net.margin) + step
    while tile < max(shape) + shrink + step and (
        math.prod(min(tile + step, size + shrink) for size in shape) * bytes_per_pixel
        <= BUDGET_BYTES[device]
    ):
        tile += step
    return tile


def _on_device(net: UNet, device: torch.device) -> UNet:
    """Return the network for inference on a device: itself if it is ready, else a copy."""
    is_there = next(net.parameters()).device.type == device.type
    if is_there and not net.training:
        return net
    return copy.deepcopy(net).to(device).eval()


def _smallest_tile(net: UNet, halo_px: int) -> int:
    """Return the smallest tile of which anything is left to keep."""
    return net.valid_input(net.stride + 2 * (halo_px + net.margin))


def _free_memory(device: torch.device) -> None:
    """Give back what torch keeps for later."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
