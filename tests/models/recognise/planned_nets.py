"""The networks that nnU-Net plans, in our own words: a step and a kernel per level and axis."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

Sizes = tuple[int, ...]
CONVOLUTIONS: dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, Any] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
AVERAGES: dict[int, Any] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
NORMS: dict[str, dict[int, Any]] = {
    "instance": {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d},
    "batch": {2: nn.BatchNorm2d, 3: nn.BatchNorm3d},
}


class Unit(nn.Module):
    """Convolution, norm and activation; all but the activation stand in the file twice."""

    def __init__(
        self,
        wide: int,
        narrow: int,
        kernel: Sizes,
        stride: Sizes,
        norm: str,
        *,
        bias: bool = True,
        active: bool = True,
    ) -> None:
        super().__init__()
        dims, padding = len(kernel), [(size - 1) // 2 for size in kernel]
        self.conv = CONVOLUTIONS[dims](wide, narrow, kernel, stride, padding, bias=bias)
        self.norm = NORMS[norm][dims](narrow, affine=True)
        layers = [self.conv, self.norm]
        if active:
            self.nonlin = nn.LeakyReLU(0.01)
            layers.append(self.nonlin)
        self.all_modules = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.all_modules(x)


class Chain(nn.Module):
    """Some units, the first of which steps."""

    def __init__(
        self, count: int, wide: int, narrow: int, kernel: Sizes, stride: Sizes, norm: str
    ) -> None:
        super().__init__()
        one = (1,) * len(kernel)
        self.convs = nn.Sequential(
            *(
                Unit(narrow if i else wide, narrow, kernel, one if i else stride, norm)
                for i in range(count)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(x)


class Residual(nn.Module):
    """Two units, and what leads around them: a mean if it steps, a convolution if it widens."""

    def __init__(self, wide: int, narrow: int, kernel: Sizes, stride: Sizes, norm: str) -> None:
        super().__init__()
        one = (1,) * len(kernel)
        self.conv1 = Unit(wide, narrow, kernel, stride, norm)
        self.conv2 = Unit(narrow, narrow, kernel, one, norm, active=False)
        around: list[nn.Module] = []
        if max(stride) > 1:
            around.append(AVERAGES[len(kernel)](stride, stride))
        if wide != narrow:
            around.append(Unit(wide, narrow, one, one, norm, bias=False, active=False))
        self.skip = nn.Sequential(*around)
        self.nonlin2 = nn.LeakyReLU(0.01)

    def forward(self, x: Tensor) -> Tensor:
        return self.nonlin2(self.conv2(self.conv1(x)) + self.skip(x))


class ResidualChain(nn.Module):
    """Some residual blocks, the first of which steps."""

    def __init__(
        self, count: int, wide: int, narrow: int, kernel: Sizes, stride: Sizes, norm: str
    ) -> None:
        super().__init__()
        one = (1,) * len(kernel)
        self.blocks = nn.Sequential(
            *(
                Residual(narrow if i else wide, narrow, kernel, one if i else stride, norm)
                for i in range(count)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class Planned(nn.Module):
    """A network of nnU-Net: ``counts`` of units, or of residual blocks, on each level."""

    def __init__(
        self,
        channels: int,
        classes: int,
        widths: Sequence[int],
        kernels: Sequence[Sizes],
        strides: Sequence[Sizes],
        *,
        counts: Sequence[int] | None = None,
        residual: bool = False,
        up_count: int = 1,
        norm: str = "instance",
        bias: bool = True,
    ) -> None:
        super().__init__()
        dims = len(kernels[0])
        counts = counts or [2] * len(widths)
        self.encoder = nn.Module()
        wide = channels
        if residual:
            self.encoder.stem = Chain(1, channels, widths[0], kernels[0], (1,) * dims, norm)
            wide = widths[0]
        stages = []
        for count, width, kernel, stride in zip(counts, widths, kernels, strides, strict=True):
            if residual:
                stages.append(ResidualChain(count, wide, width, kernel, stride, norm))
            else:
                stages.append(nn.Sequential(Chain(count, wide, width, kernel, stride, norm)))
            wide = width
        self.encoder.stages = nn.Sequential(*stages)
        self.decoder = nn.Module()
        self.decoder.encoder = self.encoder
        deep, one = list(reversed(widths)), (1,) * dims
        behind = list(zip(deep[1:], list(reversed(kernels))[1:], strict=True))
        self.decoder.stages = nn.ModuleList(
            Chain(up_count, 2 * width, width, kernel, one, norm) for width, kernel in behind
        )
        steps = list(reversed(strides))
        self.decoder.transpconvs = nn.ModuleList(
            TRANSPOSED[dims](below, width, step, step, bias=bias)
            for (below, width), step in zip(pairwise(deep), steps, strict=False)
        )
        self.decoder.seg_layers = nn.ModuleList(
            CONVOLUTIONS[dims](width, classes, 1) for width in deep[1:]
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.encoder.stem(x) if hasattr(self.encoder, "stem") else x
        skips = []
        for stage in self.encoder.stages:
            x = stage(x)
            skips.append(x)
        skips.pop()
        for up, stage in zip(self.decoder.transpconvs, self.decoder.stages, strict=True):
            x = stage(torch.cat((up(x), skips.pop()), 1))
        return self.decoder.seg_layers[-1](x)
