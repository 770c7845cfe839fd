"""A U-Net that only computes, and only what is kept.

Of a tile only the core is kept, so on the way up each stage needs to give only what the core
depends on (interval arithmetic, :mod:`napari_unet.network.receptive_field`); on the way down all
of the tile is needed. What lies outside of a part is not looked at, so the result is exactly
that of the whole tile::

    level 0   |----------- tile ------------|  ->  joined   |---------|  ->  core  |=====|
    level 1      |-------- pooled -------|     ->  joined  |-----------|
    level 2         |----- pooled ----|        ->  all of it

On a CPU large features are fetched from the system and given back to it, layer after layer, which
can take longer than computing them (:mod:`napari_unet.network.allocator`). Unless the memory is at
hand, each block goes over its features in strips of rows, overlapping by the few rows that its
convolutions look at, so that what it computes in between is small enough to be used again at once::

    rows of a level   |== strip ==|== strip ==|== strip ==|
    read for the 2nd           |---============---|
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_unet.network.allocator import is_at_hand
from napari_unet.network.folding import folded_copy, speed_up_on_cpu
from napari_unet.network.parts import (
    Box,
    Part,
    box_of,
    channels_last,
    end_when,
    length,
    move_channels_last,
    whole_box,
    with_all_digits,
)
from napari_unet.network.receptive_field import Span, layer_reads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from napari_unet.network.unet import UNet

STRIP_BYTES = 16 * 2**20  # of a strip: less than what is given back to the system at once
UNLIMITED = 2**62
TOP_MAPS = 4  # so many features of the uppermost level are alive at once, without strips
LEAST_ROWS = 64  # of a strip: the rows that strips compute twice must be few among them
GRID_PX = 8  # what is joined lies on this grid, so that columns can be computed together


class InferenceNet:
    """A network's private copy on a device, made to compute.

    Parameters
    ----------
    net : UNet
        Left as it is, and where it is.
    device : torch.device
        Where to compute.
    dtype : torch.dtype, optional
        Precision of weights and features; that of the network if not given.
    strip_bytes : int, optional
        How much a strip of rows may take; if not given, what suits the device and the memory.
    """

    def __init__(
        self,
        net: UNet,
        device: torch.device,
        dtype: torch.dtype | None = None,
        strip_bytes: int | None = None,
    ) -> None:
        self.device, self.dtype = device, dtype or next(net.parameters()).dtype
        is_cpu = device.type == "cpu"
        # Folding takes double precision, which an Apple GPU has not.
        self._net = folded_copy(net, device if device.type == "cuda" else None)
        if is_cpu:
            speed_up_on_cpu(self._net)
        move_channels_last(self._net, device, self.dtype)
        self._chosen_strip_bytes = strip_bytes
        self._memory = Memory()

    def end_when(self, is_left: Callable[[], bool]) -> None:
        """End before the next layer once nobody waits for the answer.

        Parameters
        ----------
        is_left : callable
            Asked before each layer.
        """
        end_when(self._net, is_left)

    def __call__(self, x: torch.Tensor, kept: Sequence[slice] | None = None) -> torch.Tensor:
        """Compute logits.

        Parameters
        ----------
        x : Tensor of float, shape (N, C, *spatial)
            Of a size that the network can take.
        kept : sequence of slice, optional
            The part of the output that is wanted, one slice per spatial axis; all of it if not
            given.

        Returns
        -------
        Tensor of float32 or float64, shape (N, classes, *kept)
            On the device.
        """
        net, output = self._net, [self._net.output_size(size) for size in x.shape[2:]]
        box = box_of(kept, output)
        x = channels_last(x.to(self.device, self.dtype))
        self._strip_bytes = self._chosen_strip_bytes or self._choose_strip_bytes(x)
        with torch.inference_mode():
            # A norm over all of a tile would measure something else in a part of it.
            if net.exact and all(output):
                logits = self._compute(x, box)
            else:
                logits = Part(net(x), (0,) * len(box)).cut(box)
        return with_all_digits(logits)

    def _choose_strip_bytes(self, x: torch.Tensor) -> int:
        """Return how much a strip may take: no end of it where memory need not be fetched."""
        top_bytes = x.numel() // x.shape[1] * self._net.blocks[0].widths[-1] * x.itemsize
        is_plenty = self.device.type != "cpu" or is_at_hand(TOP_MAPS * top_bytes)
        return UNLIMITED if is_plenty else STRIP_BYTES

    def _compute(self, x: torch.Tensor, box: Box) -> torch.Tensor:
        """Go down with all of the tile, and up again with what the box depends on."""
        net, sizes = self._net, x.shape[2:]
        ways = [net.spans_up(*along, GRID_PX)[0] for along in zip(box, sizes, strict=True)]
        # Per level, the uppermost first: what is needed of a stage, and of what it joins.
        needed, joined = (
            [tuple(spans[which] for spans in level) for level in zip(*ways, strict=True)]
            for which in (0, 1)
        )
        skips: list[Part] = []
        part = Part(x, (0,) * len(box))
        for level in range(len(joined)):
            skip, part = self._down(level, part, joined[level])
            skips.append(skip)
        part = Part(net.bottom(net.blocks[-1](part.values)), part.first)
        for level in reversed(range(1, len(joined))):
            part = self._up(level, part, skips.pop(), joined[level], needed[level])
        return self._output(part, skips.pop(), joined[0], box)

    def _down(self, level: int, part: Part, joined: Box) -> tuple[Part, Part]:
        """Run a block of the contracting path; return what its skip needs, and the pooled."""
        net, block = self._net, self._net.blocks[level]
        sizes = [size - block.shrinkage for size in part.values.shape[2:]]
        everything = whole_box(sizes)
        skip = Gathered(tuple(span.shifted(net.crops[level]) for span in joined))
        pooled = Gathered(whole_box([size // 2 for size in sizes]))
        for rows in self._strips(part.values, everything, block.widths):
            read = block.reads(rows).clipped(part.values.shape[2])
            features = Part(block(part.rows(read).values), (read.first, *part.first[1:]))
            skip.put(features, rows, self._memory, f"skip {level}")
            half = Span(rows.first // 2, rows.last // 2)
            small = Part(net.pool(features.rows(rows).values), (half.first, *part.first[1:]))
            pooled.put(small, half, self._memory, f"features {level + 1}")
        return skip.part, pooled.part

    def _up(self, level: int, below: Part, skip: Part, joined: Box, needed: Box) -> Part:
        """Run a stage of the expanding path where it is needed."""
        result = Gathered(needed)
        widths = self._net.stages[-1 - level].block.widths
        for rows in self._strips(below.values, (needed[0], *joined[1:]), widths):
            features = self._stage(level, below, skip, joined, rows)
            result.put(features, rows, self._memory, f"features {level}")
        return result.part

    def _output(self, below: Part, skip: Part, joined: Box, box: Box) -> torch.Tensor:
        """Run the uppermost stage and the convolution that gives the logits."""
        net, result = self._net, Gathered(box)
        for rows in self._strips(below.values, (box[0], *joined[1:]), net.stages[-1].block.widths):
            stage_rows = layer_reads(net.output, rows).clipped(joined[0].last + 1)
            features = self._stage(0, below, skip, joined, stage_rows)
            logits = Part(net.output(features.values), features.first)
            result.put(logits, rows)
        return result.part.cut(box)

    def _stage(self, level: int, below: Part, skip: Part, joined: Box, rows: Span) -> Part:
        """Give rows of a stage's result; at the edges of what is joined they are not right."""
        stage, crop = self._net.stages[-1 - level], self._net.crops[level]
        read = stage.block.reads(rows).clipped(joined[0].last + 1)
        box = (Span(max(read.first, joined[0].first), read.last), *joined[1:])
        last = below.first[0] + below.values.shape[2]
        small = below.rows(layer_reads(stage.upsampling, box[0]).clipped(last))
        up = Part(stage.upsampling(small.values), tuple(2 * first for first in small.first))
        cut = skip.cut([span.shifted(crop) for span in box])
        return Part(stage.join(up.cut(box), cut), tuple(span.first for span in box))

    def _strips(self, x: torch.Tensor, box: Box, widths: tuple[int, ...]) -> Iterator[Span]:
        """Cut the rows of a box into even strips that stay in the cache."""
        rows = length(box[0])
        row_bytes = len(x) * sum(widths[:2]) * self.dtype.itemsize
        for span in box[1:]:
            row_bytes *= length(span)
        most = max(LEAST_ROWS, self._strip_bytes // row_bytes)
        count = -(-rows // most)
        step = -(-rows // count // 2) * 2
        for start in range(0, rows, step):
            yield Span(box[0].first + start, min(box[0].first + start + step, box[0].last + 1) - 1)


class Gathered:
    """A box of a level's features, put together from strips of rows.

    Parameters
    ----------
    box : tuple of Span
        What is wanted of the level.
    """

    def __init__(self, box: Box) -> None:
        self._box = box
        self.part: Part

    def put(self, features: Part, rows: Span, memory: Memory | None = None, name: str = "") -> None:
        """Take over the given rows of some features, as far as they are wanted."""
        wanted = self._box[0]
        first, last = max(rows.first, wanted.first), min(rows.last, wanted.last)
        if first > last:
            return
        if first == wanted.first and last == wanted.last:
            self.part = features  # all at once: no need to copy
            return
        if first == wanted.first:
            sizes, like = [length(span) for span in self._box], features.values
            values = (
                like.new_empty((*like.shape[:2], *sizes))
                if memory is None
                else memory.take(name, like, sizes)
            )
            self.part = Part(values, tuple(span.first for span in self._box))
        box = (Span(first, last), *self._box[1:])
        self.part.cut(box).copy_(features.cut(box))


class Memory:
    """Memory for features, used again for tile after tile: fresh memory is slow.

    It comes from numpy, which asks Linux for large pages.
    """

    def __init__(self) -> None:
        self._blocks: dict[str, torch.Tensor] = {}

    def take(self, name: str, like: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
        """Return memory for features (N, C, *sizes) of the kind given; valid until taken again."""
        batch, channels = like.shape[:2]
        count = batch * channels * math.prod(sizes) * like.itemsize
        if name not in self._blocks or self._blocks[name].numel() < count:
            self._blocks[name] = torch.from_numpy(np.empty(count, np.uint8))
        flat = self._blocks[name][:count].view(like.dtype)
        return flat.view(batch, *sizes, channels).movedim(-1, 1)
