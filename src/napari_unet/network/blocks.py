"""The parts a U-Net is joined from: blocks, gates, pyramid pooling, stages.

A part that reads more than one pixel says what it reads (see
:mod:`napari_unet.network.receptive_field`), so the network's halo follows from what was built.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from torch.nn import functional

from napari_unet.network.layers import (
    AVERAGE_POOL,
    CONVOLUTION,
    LINEAR_MODE,
    make_unit,
    make_upsampling,
)
from napari_unet.network.receptive_field import Span, layer_reads, shrinkage

if TYPE_CHECKING:
    from napari_unet.settings import Architecture

PYRAMID_BINS = (1, 2, 3, 6)


class Block(nn.Module):
    """The convolutions of one level, each with its norm and ReLU.

    Parameters
    ----------
    shape : Architecture
        Options of the network.
    widths : tuple of int
        Channels in, then those of each convolution.
    dropout : float
        Share of the block's features dropped in training, 0..1.

    Notes
    -----
    A residual block adds its input, cropped to fit and brought to the same number of channels
    by a 1x1 convolution where they differ, before the last ReLU [1]_.

    References
    ----------
    .. [1] He et al. (2016), Deep Residual Learning for Image Recognition,
       doi:10.1109/CVPR.2016.90.
    """

    def __init__(self, shape: Architecture, widths: tuple[int, ...], dropout: float = 0.0) -> None:
        super().__init__()
        last = len(widths) - 2
        self.units = nn.Sequential(
            *(
                make_unit(shape, wide, narrow, relu=not (shape.residual and index == last))
                for index, (wide, narrow) in enumerate(pairwise(widths))
            )
        )
        self.widths = widths
        self.shrinkage = shrinkage(self.units)
        self.shortcut: nn.Module | None = None
        if shape.residual:
            self.shortcut = (
                nn.Identity()
                if widths[0] == widths[-1]
                else CONVOLUTION[shape.spatial_dims](widths[0], widths[-1], 1)
            )
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Turn features (N, C, *spatial) into features of the block's last width."""
        y = self.units(x)
        if self.shortcut is not None:
            y = torch.relu(y + self.shortcut(crop_to(x, y)))
        return cast("torch.Tensor", self.dropout(y))

    def reads(self, span: Span) -> Span:
        """Return the span of the input that a span of the output depends on."""
        read = layer_reads(self.units, span)
        return read if self.shortcut is None else read.joined(span.shifted(self.shrinkage // 2))


class Gate(nn.Module):
    """Attention gate: damps what a skip brings where the features from below see nothing.

    The gating features are the upsampled ones, so skip and gate have the same size and all
    convolutions are 1x1.

    References
    ----------
    .. [1] Oktay et al. (2018), Attention U-Net, doi:10.48550/arXiv.1804.03999.
    """

    def __init__(self, spatial_dims: int, skip: int, gate: int) -> None:
        super().__init__()
        convolution = CONVOLUTION[spatial_dims]
        inner = max(1, skip // 2)
        self.from_skip = convolution(skip, inner, 1)
        self.from_gate = convolution(gate, inner, 1, bias=False)
        self.attention = convolution(inner, 1, 1)

    def forward(self, skip: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        """Return the skip, each pixel multiplied by its attention 0..1."""
        seen = torch.relu(self.from_skip(skip) + self.from_gate(gate))
        return skip * torch.sigmoid(self.attention(seen))


class PyramidPooling(nn.Module):
    """Averages of the whole tile, its halves, thirds and sixths, joined to each pixel.

    It looks at the whole of what it is given, so tiles never give exactly what the whole image
    gives.

    References
    ----------
    .. [1] Zhao et al. (2017), Pyramid Scene Parsing Network, doi:10.1109/CVPR.2017.660.
    """

    def __init__(self, spatial_dims: int, width: int) -> None:
        super().__init__()
        convolution, branch = CONVOLUTION[spatial_dims], max(1, width // len(PYRAMID_BINS))
        self.mode = LINEAR_MODE[spatial_dims]
        self.branches = nn.ModuleList(
            nn.Sequential(
                AVERAGE_POOL[spatial_dims](bins), convolution(width, branch, 1), nn.ReLU()
            )
            for bins in PYRAMID_BINS
        )
        self.join = nn.Sequential(
            convolution(width + branch * len(PYRAMID_BINS), width, 1), nn.ReLU()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Turn features (N, C, *spatial) into features of the same shape."""
        size = x.shape[2:]
        pooled = [
            functional.interpolate(branch(x), size=size, mode=self.mode, align_corners=False)
            for branch in self.branches
        ]
        return cast("torch.Tensor", self.join(torch.cat([x, *pooled], dim=1)))

    def reads(self, span: Span) -> Span:
        """Return the span itself: what lies beyond is told by ``is_exact``."""
        return span


class Stage(nn.Module):
    """One step up: enlarge, join the skip, convolve.

    Parameters
    ----------
    shape : Architecture
        Options of the network.
    below : int
        Channels of the features from below.
    skip : int
        Channels of the skip.
    widths : tuple of int
        Channels of the upsampling, then of each convolution.
    """

    def __init__(self, shape: Architecture, below: int, skip: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.skip_first = shape.skip_first
        self.upsampling = make_upsampling(shape, below, widths[0])
        self.gate = Gate(shape.spatial_dims, skip, widths[0]) if shape.attention else None
        self.block = Block(shape, (skip + widths[0], *widths[1:]))

    def forward(self, below: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Turn features from below and the skip, which may be larger, into the level's."""
        up = self.upsampling(below)
        return self.join(up, crop_to(skip, up))

    def join(self, up: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Turn upsampled features and a skip of the same size into the level's."""
        if self.gate is not None:
            skip = self.gate(skip, up)
        joined = torch.cat([skip, up] if self.skip_first else [up, skip], dim=1)
        return cast("torch.Tensor", self.block(joined))


def crop_to(x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Cut the middle out of features so that they are as large as the others."""
    for axis in range(2, x.ndim):
        size = other.shape[axis]
        x = x.narrow(axis, (x.shape[axis] - size) // 2, size)
    return x
