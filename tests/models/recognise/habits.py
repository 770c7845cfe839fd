"""U-Nets as people write them: each part of a plain one may be another habit of theirs."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

Tensor = torch.Tensor
Block = Callable[[int, int], nn.Module]


@dataclass
class Parts:
    """What a U-Net is put together from; each may be exchanged."""

    widths: Sequence[int] = (6, 10, 18)
    channels: int = 2
    classes: int = 3
    block: Block | None = None
    middle: Block | None = None
    merge: Block | None = None
    up: Block = lambda wide, narrow: nn.ConvTranspose2d(wide, narrow, 2, stride=2)
    keeps: bool = False
    """Whether what is enlarged keeps its channels."""
    down: Callable[[int, int], nn.Module] | None = None
    """What halves the size, from channels of one level; by default there is nothing to learn."""
    widens: bool = False
    """Whether that gives the channels of the next level."""
    pool: Callable[[Tensor], Tensor] = lambda x: functional.max_pool2d(x, 2)
    skip: Callable[[int], nn.Module] | None = None
    """What is done with the skips."""
    stem: Callable[[int, int], nn.Module] | None = None
    head: Callable[[int, int], nn.Module] = lambda wide, classes: nn.Conv2d(wide, classes, 1)
    end: Callable[[Tensor, Tensor], Tensor] = lambda x, image: x
    names: Sequence[str] = field(
        default=("first", "narrowing", "halving", "bottom", "growing", "widening", "answer")
    )


class Assembled(nn.Module):
    """A U-Net of parts; what is enlarged comes before the skip."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.parts = parts
        block = parts.block or double()
        widths, up = list(parts.widths), list(reversed(parts.widths))
        wide = parts.channels
        if parts.stem is not None:
            self.add_module(parts.names[0], parts.stem(wide, widths[0]))
            wide = widths[0]
        read = [wide, *(widths[1:] if parts.widens else widths[:-1])]
        down = nn.ModuleList(block(a, b) for a, b in zip(read, widths[:-1], strict=False))
        self.add_module(parts.names[1], down)
        if parts.skip is not None:
            self.leading = nn.ModuleList(parts.skip(width) for width in widths[:-1])
        if parts.down is not None:
            halving = nn.ModuleList(parts.down(a, b) for a, b in pairwise(widths))
            self.add_module(parts.names[2], halving)
        self.add_module(parts.names[3], (parts.middle or block)(read[-1], widths[-1]))
        self.add_module(parts.names[4], nn.ModuleList(parts.up(a, b) for a, b in pairwise(up)))
        merge = parts.merge or block
        self.add_module(
            parts.names[5],
            nn.ModuleList(merge((a if parts.keeps else b) + b, b) for a, b in pairwise(up)),
        )
        self.add_module(parts.names[6], parts.head(widths[0], parts.classes))

    def forward(self, image: Tensor) -> Tensor:
        first, narrowing, halving, bottom, growing, widening, answer = (
            getattr(self, name, None) for name in self.parts.names
        )
        x, skips = image if first is None else first(image), []
        for level, block in enumerate(narrowing):
            x = block(x)
            skips.append(x if self.parts.skip is None else self.leading[level](x))
            x = self.parts.pool(x) if halving is None else halving[level](x)
        x = bottom(x)
        for up, block in zip(growing, widening, strict=True):
            x = block(torch.cat([up(x), skips.pop()], 1))
        return self.parts.end(answer(x), image)


def conv(wide: int, narrow: int, kernel: int = 3, **options: object) -> nn.Conv2d:
    return nn.Conv2d(wide, narrow, kernel, **{"padding": kernel // 2, **options})


def single(
    wide: int,
    narrow: int,
    norm: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
    act: Callable[[], nn.Module] = nn.ReLU,
    **options: object,
) -> list[nn.Module]:
    norms = [norm(narrow)] if norm else []
    return [conv(wide, narrow, **options), *norms, act()]


def double(**options: object) -> Block:
    """Twice a convolution, norm and ReLU, in a sequence."""
    return lambda wide, narrow: nn.Sequential(
        *single(wide, narrow, **options), *single(narrow, narrow, **options)
    )


class Residual(nn.Module):
    """A block whose shortcut has weights only where widths differ."""

    def __init__(self, wide: int, narrow: int, squeeze: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = conv(wide, narrow, bias=False)
        self.bn1 = nn.BatchNorm2d(narrow)
        self.conv2 = conv(narrow, narrow, bias=False)
        self.bn2 = nn.BatchNorm2d(narrow)
        self.weigh = squeeze or nn.Identity()
        self.shortcut = nn.Sequential()
        if wide != narrow:
            self.shortcut = nn.Sequential(conv(wide, narrow, 1), nn.BatchNorm2d(narrow))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.weigh(self.bn2(self.conv2(y)))
        return functional.relu(y + self.shortcut(x))


class Squeeze(nn.Module):
    """Channels weighed by their means; of linear layers or of convolutions of one pixel."""

    def __init__(self, channels: int, linear: bool = False) -> None:
        super().__init__()
        fewer = max(1, channels // 2)
        self.linear = linear
        if linear:
            layers = [nn.Linear(channels, fewer, bias=False), nn.ReLU(), nn.Linear(fewer, channels)]
        else:
            layers = [conv(channels, fewer, 1), nn.ReLU(), conv(fewer, channels, 1)]
        self.excite = nn.Sequential(*layers, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3))
        weights = self.excite(means if self.linear else means[:, :, None, None])
        return x * weights.reshape(*means.shape, 1, 1)


class BothSqueezes(nn.Module):
    """Channels weighed by their means and pixels by their channels, both added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel_excitation = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), conv(channels, channels // 2, 1), nn.ReLU(),
            conv(channels // 2, channels, 1), nn.Sigmoid(),
        )  # fmt: skip
        self.spatial_se = nn.Sequential(conv(channels, 1, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.channel_excitation(x) + x * self.spatial_se(x)


class Named(nn.Module):
    """Two convolutions by name; one norm and one activation, perhaps for both."""

    def __init__(
        self, wide: int, narrow: int, norm: bool, act: nn.Module, both: bool = True
    ) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(wide, narrow), conv(narrow, narrow)
        self.norm = nn.BatchNorm2d(narrow) if norm else nn.Identity()
        self.act, self.both = act, both

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        x = self.act(self.norm(x) if self.both else x)
        return self.act(self.norm(self.conv2(x)))


class Briefly(nn.Module):
    """A block with a shortcut, whose layers have names of two letters."""

    def __init__(self, wide: int, narrow: int) -> None:
        super().__init__()
        self.c1, self.b1 = conv(wide, narrow), nn.BatchNorm2d(narrow)
        self.c2, self.b2 = conv(narrow, narrow), nn.BatchNorm2d(narrow)
        self.sk = conv(wide, narrow, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.b1(self.c1(x)))
        return functional.relu(self.b2(self.c2(y)) + self.sk(x))


class Alternating(nn.Module):
    """Blocks with a shortcut, and a strided convolution between two levels, each by its name."""

    def __init__(self, name: str, widths: Sequence[int], channels: int, classes: int) -> None:
        super().__init__()
        self.called, self.depth = name, len(widths)
        for level, (wide, narrow) in enumerate(pairwise([channels, *widths]), start=1):
            self.add_module(f"enc{level}", Briefly(wide, narrow))
            if level < self.depth:
                self.add_module(f"{name}{level}", conv(narrow, narrow, stride=2))
        for level in range(self.depth - 1, 0, -1):
            wide, narrow = widths[level], widths[level - 1]
            self.add_module(f"up{level}", nn.ConvTranspose2d(wide, narrow, 2, 2))
            self.add_module(f"dec{level}", Briefly(2 * narrow, narrow))
        self.out = conv(widths[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level in range(1, self.depth):
            x = getattr(self, f"enc{level}")(x)
            skips.append(x)
            x = getattr(self, f"{self.called}{level}")(x)
        x = getattr(self, f"enc{self.depth}")(x)
        for level in range(self.depth - 1, 0, -1):
            x = torch.cat([getattr(self, f"up{level}")(x), skips.pop()], 1)
            x = getattr(self, f"dec{level}")(x)
        return self.out(x)


class Counted(nn.Module):
    """Three levels of one convolution each, all in one module and called by numbers."""

    def __init__(self, width: int, tensors: dict[str, Tensor] | None = None) -> None:
        super().__init__()
        self.c1, self.c2 = conv(1, width), conv(width, 2 * width)
        self.c3 = conv(2 * width, 4 * width)
        self.u1 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2)
        self.c4 = conv(4 * width, 2 * width)
        self.u2 = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.c5, self.out = conv(2 * width, width), conv(width, 1, 1)
        if tensors is not None:
            self.load_state_dict(tensors)

    def forward(self, x: Tensor) -> Tensor:
        one = functional.relu(self.c1(x))
        two = functional.relu(self.c2(functional.max_pool2d(one, 2)))
        x = functional.relu(self.c3(functional.max_pool2d(two, 2)))
        x = functional.relu(self.c4(torch.cat([self.u1(x), two], 1)))
        return self.out(functional.relu(self.c5(torch.cat([self.u2(x), one], 1))))


class Bypassed(nn.Module):
    """A convolution, and two more with what they read added; no shortcut has weights."""

    def __init__(self, wide: int, narrow: int) -> None:
        super().__init__()
        self.entry = conv(wide, narrow)
        self.one, self.two = conv(narrow, narrow), conv(narrow, narrow)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.entry(x))
        return functional.relu(x + self.two(functional.relu(self.one(x))))


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(torch.ones(channels)),
            nn.Parameter(torch.zeros(channels)),
        )

    def forward(self, x: Tensor) -> Tensor:
        normal = functional.layer_norm(x.movedim(1, -1), self.weight.shape, self.weight, self.bias)
        return normal.movedim(-1, 1)


class Strided(nn.Module):
    """Kernels of 4 all the way: each halves or doubles the size, and nothing stands between."""

    def __init__(self, widths: Sequence[int], channels: int, classes: int) -> None:
        super().__init__()
        self.shrink = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(a, b, 4, 2, 1), nn.BatchNorm2d(b), nn.LeakyReLU(0.2)
            ) for a, b in pairwise([channels, *widths])
        )  # fmt: skip
        deep = list(reversed(widths))
        self.spread = nn.ModuleList(
            nn.Sequential(
                nn.ConvTranspose2d(a if i == 0 else 2 * a, b, 4, 2, 1), nn.BatchNorm2d(b),
                nn.LeakyReLU(0.2),
            ) for i, (a, b) in enumerate(pairwise(deep))
        )  # fmt: skip
        self.final = nn.ConvTranspose2d(2 * widths[0], classes, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for block in self.shrink:
            x = block(x)
            skips.append(x)
        skips.pop()
        for block in self.spread:
            x = torch.cat([block(x), skips.pop()], 1)
        return self.final(x)


class Patches(nn.Module):
    """A U-Net between what cuts the image into patches and what spreads them again."""

    def __init__(self, size: int, widths: Sequence[int], channels: int, classes: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(channels, widths[0], size, size)
        self.inner = Assembled(
            Parts(widths, widths[0], widths[0], head=lambda wide, _: nn.Identity())
        )
        self.expand = nn.ConvTranspose2d(widths[0], widths[0], size, size)
        self.classify = conv(widths[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.expand(self.inner(self.embed(x))))


def draw_widths(chance: random.Random) -> list[int]:
    """Draw the widths of three to five levels: doubled, or growing otherwise."""
    levels, base = chance.choice((3, 3, 4)), 2 * chance.randint(2, 7)
    if chance.random() < 0.5:
        return [base * 2**level for level in range(levels)]
    widths = [base]
    while len(widths) < levels:
        widths.append(widths[-1] + 2 * chance.randint(1, 6))
    return widths
