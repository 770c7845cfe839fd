"""The U-Net: one network for the five published builds and their options.

Down the contracting path each level convolves and halves the size, up the expanding path each
stage doubles it, joins the features of the same level (the skip) and convolves::

    level 0   block ------------- skip ------------> stage -> 1x1 -> logits
                | pool                                 ^ up
    level 1     block ------- skip -------> stage -----'
                  | pool                      ^ up
    level 2       block ----------------------'

The network gives logits; what turns them into probabilities is told by the model's card. Its
stride, halo, margin and receptive field are computed from what was built.

References
----------
.. [1] Ronneberger, Fischer, Brox (2015), U-Net: Convolutional Networks for Biomedical Image
   Segmentation, doi:10.1007/978-3-319-24574-4_28.
.. [2] Cicek et al. (2016), 3D U-Net, doi:10.1007/978-3-319-46723-8_49.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, cast

import torch
from torch import nn

from napari_unet.errors import ImageError, TileSizeError
from napari_unet.network.blocks import Block, PyramidPooling, Stage
from napari_unet.network.layers import CONVOLUTION, MAX_POOL, draw_weights
from napari_unet.network.presets import PRESETS, find_preset
from napari_unet.network.receptive_field import (
    Span,
    is_exact,
    layer_reads,
    measure_field,
    shrinkage,
)
from napari_unet.network.tiled_net import Grid, TiledNet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_unet.settings import Architecture

__all__ = ["PRESETS", "UNet"]


class UNet(TiledNet):
    """A U-Net built from its architecture.

    Parameters
    ----------
    architecture : Architecture
        Widths and options.

    Attributes
    ----------
    architecture : Architecture
        What it was built from.
    stride : int
        Grid of the poolings in pixels: the sizes of a padded net divide by it, and the steps
        between tiles too.
    reach : int
        Margin per side, in pixels, beyond which nothing changes a core that starts and ends on
        the stride's grid.
    halo : int
        The reach rounded up to a multiple of the stride.
    crops : tuple of int
        Pixels per side that each skip is larger than what it is joined to, the uppermost first.
    margin : int
        Pixels per side that the unpadded convolutions take off; 0 for a padded net.
    receptive_field : int
        Pixels along one axis that one output pixel depends on, at most.
    approximate : tuple of str
        What keeps tiles from giving exactly what the whole image gives: instance or group norm
        and pyramid pooling, which measure the whole tile. Empty if nothing does.
    exact : bool
        Whether that is so.
    invents_edges : bool
        Whether something is put in place of what lies beyond the edges of a tile: padding, or
        the pixel that resizing repeats.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = shape = architecture
        dims, widths, depth = shape.spatial_dims, shape.widths, len(shape.widths) - 1
        self.down = nn.ModuleList(
            Block(
                shape,
                (before, *(width,) * shape.convolutions),
                dropout=shape.dropout if level > depth - shape.dropout_levels else 0.0,
            )
            for level, (before, width) in enumerate(
                zip((shape.in_channels, *widths), widths, strict=False)
            )
        )
        self.pool = MAX_POOL[dims](2)
        self.bottom = PyramidPooling(dims, widths[-1]) if shape.pyramid_pooling else nn.Identity()
        self.up = nn.ModuleList()
        below = widths[-1]
        for skip, stage in zip(reversed(widths[:-1]), _stage_widths(shape), strict=True):
            self.up.append(Stage(shape, below, skip, stage))
            below = stage[-1]
        padding = shape.output_kernel // 2 if shape.padded else 0
        self.output = CONVOLUTION[dims](below, shape.classes, shape.output_kernel, padding=padding)
        draw_weights(self, _linear_layers(self))
        self._measure()

    @classmethod
    def from_preset(
        cls,
        name: str,
        in_channels: int | None = None,
        classes: int | None = None,
        spatial_dims: int = 2,
        **options: Any,
    ) -> Self:
        """Build a published U-Net, or a variation on it.

        Parameters
        ----------
        name : str
            ``ronneberger2015``, ``same-bn``, ``light-bn``, ``upconv-dropout`` or
            ``three-level``.
        in_channels, classes : int, optional
            Channels in and out; as published if not given.
        spatial_dims : int
            2 for planes, 3 for volumes.
        **options
            Any other field of :class:`napari_unet.settings.Architecture`.

        Returns
        -------
        UNet
            With random weights (He initialisation).

        Raises
        ------
        SettingError
            If there is no such preset or option, or an option is out of its range.
        """
        changes = {"in_channels": in_channels, "classes": classes}
        given = {field: value for field, value in changes.items() if value is not None}
        return cls(find_preset(name).replace(spatial_dims=spatial_dims, **given, **options))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Give the logits of a batch of images.

        Parameters
        ----------
        x : torch.Tensor
            Float, shape (N, channels in, *spatial).

        Returns
        -------
        torch.Tensor
            Shape (N, classes, *spatial), each size smaller by twice the margin.

        Raises
        ------
        ImageError
            If the number of axes or channels is wrong.
        TileSizeError
            If a size cannot be halved evenly as often as the network halves it.
        """
        self._check(x)
        skips: list[torch.Tensor] = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else self.pool(x))
            skips.append(x)
        x = self.bottom(skips.pop())
        for stage in self.up:
            x = stage(x, skips.pop())
        return cast("torch.Tensor", self.output(x))

    @property
    def levels(self) -> int:
        """Levels of the contracting path."""
        return len(self.down)

    def level_layers(self, levels: int) -> list[nn.Module]:
        """Return the uppermost levels of the contracting path."""
        return list(self.down[:levels])

    @property
    def grid(self) -> Grid:
        """Which sizes it takes along all axes."""
        return Grid(self._smallest, self.stride, self.margin, self.halo)

    @property
    def grids(self) -> tuple[Grid, ...]:
        """Which sizes it takes along each axis: all are alike."""
        return (self.grid,) * self.architecture.spatial_dims

    def reads(self, span: Span) -> Span:
        """Return the span of the input that a span of the output depends on.

        Parameters
        ----------
        span : Span
            Pixels of the output, counted from the output's first.

        Returns
        -------
        Span
            Pixels of the input, counted from the input's first.
        """
        spans, below = self.spans_up(span)
        *blocks, deepest = self.blocks
        span = deepest.reads(layer_reads(self.bottom, below))
        for block, (_, joined), crop in zip(
            reversed(blocks), reversed(spans), reversed(self.crops), strict=True
        ):
            span = block.reads(layer_reads(self.pool, span).joined(joined.shifted(crop)))
        return span

    def spans_up(
        self, span: Span, size: int | None = None, grid: int = 1
    ) -> tuple[list[tuple[Span, Span]], Span]:
        """Follow a span of the output down the expanding path.

        Parameters
        ----------
        span : Span
            Pixels of the output, counted from the output's first.
        size : int, optional
            Size of the input in pixels; spans end with the features. Endless if not given.
        grid : int
            Widen what is joined to a grid of so many pixels of the image.

        Returns
        -------
        list of tuple of Span
            For each stage, the uppermost first: what is needed of its result, and of what it
            joins.
        Span
            What is needed of the deepest features.
        """
        joined_sizes = [None] * len(self.stages) if size is None else self.sizes(size)[1]
        span, spans = layer_reads(self.output, span), []
        for level, (stage, joined_size) in enumerate(
            zip(reversed(self.stages), joined_sizes, strict=True)
        ):
            if joined_size is not None:
                span = span.clipped(joined_size - stage.block.shrinkage)
            joined = stage.block.reads(span).widened(max(1, grid >> level))
            if joined_size is not None:
                joined = joined.clipped(joined_size)
            spans.append((span, joined))
            span = layer_reads(stage.upsampling, joined)
        return spans, span

    def sizes(self, size: int) -> tuple[list[int], list[int]]:
        """Say how large the features are along an axis, level by level, the uppermost first.

        Parameters
        ----------
        size : int
            Size of the input in pixels, one that the network can take.

        Returns
        -------
        list of int
            What each block of the contracting path gives.
        list of int
            What each stage of the expanding path joins.
        """
        down = [size - self.blocks[0].shrinkage]
        for block in self.blocks[1:]:
            down.append(down[-1] // 2 - block.shrinkage)
        joined, below = [], down[-1]
        for stage in self.stages:
            joined.append(2 * below)
            below = joined[-1] - stage.block.shrinkage
        return down, joined[::-1]

    @property
    def blocks(self) -> list[Block]:
        """The levels of the contracting path, from the top."""
        return cast("list[Block]", list(self.down))

    @property
    def stages(self) -> list[Stage]:
        """The steps of the expanding path, from the bottom."""
        return cast("list[Stage]", list(self.up))

    def _measure(self) -> None:
        """Compute stride, crops, margin, smallest input and reach from the layers."""
        lost = [block.shrinkage for block in self.blocks]
        regained = [stage.block.shrinkage for stage in self.stages]
        below, crops = lost[-1], []
        for down, up in zip(reversed(lost[:-1]), regained, strict=True):
            # The features from below lack this many pixels of the skip, half of them per side.
            crops.append(below)
            below = down + 2 * below + up
        self.crops = tuple(reversed(crops))
        self.stride = int(2 ** len(regained))
        self.margin = (below + shrinkage(self.output)) // 2
        self._smallest = self._find_smallest(lost, regained)
        field = measure_field(self, self.stride, self.margin)
        self.reach, self.halo = field.reach, field.halo
        self.receptive_field = field.receptive_field
        self.exact = is_exact(self)
        self.approximate = () if self.exact else tuple(_whole_tile_parts(self.architecture))
        self.invents_edges = not self.margin or self.architecture.upsampling != "transposed"

    def _find_smallest(self, lost: list[int], regained: list[int]) -> int:
        """Find the smallest input of which something is left at every level."""
        # A norm over the single pixel of a tile would leave nothing of it.
        bottom = 2 if self.architecture.norm in ("instance", "group") else 1
        while min(_sizes_up(bottom, regained)) <= shrinkage(self.output):
            bottom += 1
        size = bottom + lost[-1]
        for shrink in reversed(lost[:-1]):
            size = 2 * size + shrink
        return size

    def _check(self, x: torch.Tensor) -> None:
        """Refuse what the network cannot take, and say what it could."""
        shape = self.architecture
        if x.ndim != shape.spatial_dims + 2 or x.shape[1] != shape.in_channels:
            raise ImageError(
                f"The network got an array of shape {tuple(x.shape)}; it sees batches of "
                f"{shape.in_channels} channels and {shape.spatial_dims} spatial axes. "
                "Choose the channels and axes that fit."
            )
        sizes = [int(size) for size in x.shape[2:]]
        if all(self.output_size(size) for size in sizes):
            return
        grid = f"a multiple of {self.stride}"
        if self.margin:
            grid = f"{self._smallest} plus {grid}"
        raise TileSizeError(
            f"Tile {_times(sizes)} px does not fit the grid of a network of {len(self.down)} "
            f"levels. Choose {grid} px, e.g. "
            f"{_times([self.valid_input(size) for size in sizes])}."
        )


def _stage_widths(shape: Architecture) -> tuple[tuple[int, ...], ...]:
    """Widths of the stages on the way up, the deepest first."""
    if shape.decoder_widths is not None:
        return shape.decoder_widths
    return tuple((width,) * (1 + shape.convolutions) for width in reversed(shape.widths[:-1]))


def _whole_tile_parts(shape: Architecture) -> Iterator[str]:
    """Name the parts of a network that measure the whole of a tile."""
    if shape.norm in ("instance", "group"):
        yield "instance or group norm"
    if shape.pyramid_pooling:
        yield "pyramid pooling"


def _sizes_up(bottom: int, regained: list[int]) -> list[int]:
    """Sizes of the features at the bottom and after each stage on the way up."""
    sizes = [bottom]
    for shrink in regained:
        sizes.append(2 * sizes[-1] - shrink)
    return sizes


def _linear_layers(net: UNet) -> set[nn.Module]:
    """Find the convolutions that no ReLU follows."""
    if net.architecture.relu_after_upsampling:
        return {net.output}
    return {net.output, *(cast("Stage", stage).upsampling[-1] for stage in net.up)}


def _times(sizes: list[int]) -> str:
    """Write sizes as people do."""
    return " x ".join(str(size) for size in sizes)
