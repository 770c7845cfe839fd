"""Networks as strangers write them, drawn by chance; they can be traced, scripted and exported."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from napari_unet.models.found import Found

TOLERANCE = 1e-5

CONVOLUTION: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED: dict[int, type[nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BATCH: dict[int, type[nn.Module]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
INSTANCE: dict[int, type[nn.Module]] = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
LARGEST: dict[int, type[nn.Module]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
MEAN: dict[int, type[nn.Module]] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}


class Squeeze(nn.Module):
    """Channels weighed by their means, through dense layers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Sequential(
            nn.Linear(channels, 2), nn.ReLU(), nn.Linear(2, channels), nn.Sigmoid()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = self.mix(functional.adaptive_avg_pool2d(x, 1).flatten(1))
        return x * weights.unsqueeze(-1).unsqueeze(-1)


class Residual(nn.Module):
    """A block whose input is added to its result."""

    def __init__(self, dims: int, channels: int, out: int, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.short = CONVOLUTION[dims](channels, out, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.inner(x) + self.short(x))


class Gate(nn.Module):
    """The skip connection weighed pixel by pixel."""

    def __init__(self, dims: int, channels: int, skip: int) -> None:
        super().__init__()
        self.of_x = CONVOLUTION[dims](channels, 2, 1)
        self.of_skip = CONVOLUTION[dims](skip, 2, 1)
        self.last = CONVOLUTION[dims](2, 1, 1)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        weight = torch.sigmoid(self.last(torch.relu(self.of_x(x) + self.of_skip(skip))))
        return skip * weight


class Level(nn.Module):
    """One level of the way up."""

    def __init__(
        self, up: nn.Module, gate: nn.Module | None, block: nn.Module, fit: str, first: bool
    ) -> None:
        super().__init__()
        self.up, self.block, self.fit, self.first = up, block, fit, first
        self.gate = gate if gate is not None else nn.Identity()
        self.gated = gate is not None


class LevelOf2d(Level):
    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        x = self.up(x)
        if self.fit == "pad":
            more_y, more_x = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]
            x = functional.pad(
                x, [more_x // 2, more_x - more_x // 2, more_y // 2, more_y - more_y // 2]
            )
        if self.fit == "resize":
            x = functional.interpolate(x, size=skip.shape[2:], mode="bilinear", align_corners=False)
        if self.fit == "crop":
            y, z = (skip.shape[2] - x.shape[2]) // 2, (skip.shape[3] - x.shape[3]) // 2
            skip = skip[:, :, y : y + x.shape[2], z : z + x.shape[3]]
        return self.block(torch.cat([x, skip] if self.first else [skip, x], 1))


class LevelOf3d(Level):
    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        x = self.up(x)
        if self.fit == "resize":
            x = functional.interpolate(x, size=skip.shape[2:], mode="nearest")
        return self.block(torch.cat([x, skip] if self.first else [skip, x], 1))


class GatedLevel(Level):
    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        x = self.up(x)
        return self.block(torch.cat([x, self.gate(x, skip)], 1))


class Foreign(nn.Module):
    """A U-Net drawn by chance.

    Attributes
    ----------
    shape : tuple of int
        Of an image that it takes: (1, C, *spatial).
    """

    def __init__(self, seed: int, *, plain: bool = False) -> None:
        super().__init__()
        chance = random.Random(seed)
        self.dims = dims = chance.choice([2, 2, 2, 3])
        depth = chance.choice([1, 2] if dims == 2 else [1])
        self.in_channels = chance.randint(1, 3)
        self.classes = chance.randint(1, 3)
        self.ending = chance.choice(["none", "sigmoid", "softmax"])
        fits = ["none", "pad", "resize"] if dims == 2 else ["none", "resize"]
        fit = chance.choice(["none"] if plain else fits)
        width = chance.choice([2, 4, 6])
        widths = [width * 2**level for level in range(depth + 1)]
        channels = self.in_channels
        down, pools, up = [], [], []
        for level in widths:
            down.append(_block(chance, dims, channels, level))
            pools.append(_pool(chance, dims, level, odd=fit != "none"))
            channels = level
        for level in reversed(widths[:-1]):
            step, out = _up(chance, dims, channels, level)
            first = chance.random() < 0.5
            block = _block(chance, dims, out + level, level)
            gated = chance.random() < 0.3 and fit == "none"
            gate = Gate(dims, out, level) if gated else None
            kind = GatedLevel if gated else LevelOf2d if dims == 2 else LevelOf3d
            up.append(kind(step, gate, block, fit, first))
            channels = level
        self.down, self.pools, self.up = nn.ModuleList(down), nn.ModuleList(pools[:-1]), None
        self.up = nn.ModuleList(up)
        self.last = CONVOLUTION[dims](channels, self.classes, 1)
        sizes = (27, 37, 16) if fit != "none" else (16, 24, 16)
        self.shape = (1, self.in_channels, *sizes[:dims])
        self.free = fit != "none"
        shaken(self, seed)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for place, block in enumerate(self.down):
            x = block(x)
            for at, pool in enumerate(self.pools):
                if at == place:
                    skips.append(x)
                    x = pool(x)
        for level in self.up:
            x = level(x, skips.pop())
        x = self.last(x)
        if self.ending == "sigmoid":
            x = torch.sigmoid(x)
        if self.ending == "softmax":
            x = torch.softmax(x, dim=1)
        return x


class Unpadded(nn.Module):
    """Convolutions without padding; skips are cut, axis by axis, to what comes up from below."""

    def __init__(self, dims: int, depth: int = 3) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            CONVOLUTION[dims](3 if level else 1, 3, 3) for level in range(depth)
        )
        self.ups = nn.ModuleList(TRANSPOSED[dims](3, 3, 2, 2) for _ in range(depth - 1))
        self.joined = nn.ModuleList(CONVOLUTION[dims](6, 3, 3) for _ in range(depth - 1))
        self.pool = LARGEST[dims](2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Give 3 classes."""
        skips: list[torch.Tensor] = []
        for level, block in enumerate(self.down):
            if level:
                skips.append(x)
                x = self.pool(x)
            x = torch.relu(block(x))
        for level, (up, block) in enumerate(zip(self.ups, self.joined)):  # noqa: B905
            x = up(x)
            skip = skips[-1 - level]
            for axis in range(2, x.ndim):
                first = (skip.shape[axis] - x.shape[axis]) // 2
                skip = skip.narrow(axis, first, x.shape[axis])
            x = torch.relu(block(torch.cat([x, skip], 1)))
        return x


def _activation(chance: random.Random, channels: int) -> nn.Module:
    return chance.choice(
        [
            lambda: nn.ReLU(inplace=True),
            nn.ReLU,
            lambda: nn.LeakyReLU(0.1),
            lambda: nn.PReLU(channels),
            nn.PReLU,
            nn.ELU,
            nn.SELU,
            nn.GELU,
            nn.SiLU,
            nn.Mish,
            nn.Softplus,
            nn.Hardswish,
            nn.ReLU6,
            nn.Tanh,
            lambda: nn.Hardtanh(-0.5, 1.5),
        ]
    )()


def _norm(chance: random.Random, dims: int, channels: int) -> nn.Module:
    return chance.choice(
        [
            nn.Identity,
            lambda: BATCH[dims](channels, eps=1e-3),
            lambda: BATCH[dims](channels, affine=False),
            lambda: INSTANCE[dims](channels, affine=True),
            lambda: INSTANCE[dims](channels),
            lambda: INSTANCE[dims](channels, affine=True, track_running_stats=True),
            lambda: nn.GroupNorm(2, channels),
            lambda: nn.GroupNorm(1, channels, affine=False),
        ]
    )()


def _block(chance: random.Random, dims: int, channels: int, out: int) -> nn.Module:
    layers: list[nn.Module] = []
    start = channels
    for _ in range(chance.randint(1, 2)):
        kernel = chance.choice([1, 3, 3, 5])
        spread = chance.choice([1, 1, 2])
        groups = 2 if channels % 2 == out % 2 == 0 and chance.random() < 0.2 else 1
        mode = chance.choice(["zeros", "zeros", "reflect", "replicate"])
        padding = spread * (kernel - 1) // 2
        layers.append(
            CONVOLUTION[dims](
                channels,
                out,
                kernel,
                padding="same" if spread == 1 and chance.random() < 0.2 else padding,
                dilation=spread,
                groups=groups,
                bias=chance.random() < 0.7,
                padding_mode=mode,
            )
        )
        layers += [_norm(chance, dims, out), _activation(chance, out)]
        if chance.random() < 0.2:
            layers.append(nn.Dropout(0.3))
        channels = out
    if dims == 2 and chance.random() < 0.2:
        layers.append(Squeeze(out))
    block = nn.Sequential(*layers)
    return Residual(dims, start, out, block) if chance.random() < 0.3 else block


def _pool(chance: random.Random, dims: int, channels: int, *, odd: bool) -> nn.Module:
    ceil = odd and chance.random() < 0.3
    choices = [
        lambda: LARGEST[dims](2, ceil_mode=ceil),
        lambda: LARGEST[dims](3, 2, padding=1),
        lambda: MEAN[dims](2, ceil_mode=ceil),
        lambda: CONVOLUTION[dims](channels, channels, 3, stride=2, padding=1),
    ]
    return chance.choice(choices)()


def _up(chance: random.Random, dims: int, channels: int, out: int) -> tuple[nn.Module, int]:
    smooth = "bilinear" if dims == 2 else "trilinear"
    choices = [
        (lambda: TRANSPOSED[dims](channels, out, 2, stride=2), out),
        (lambda: TRANSPOSED[dims](channels, out, 3, stride=2, padding=1, output_padding=1), out),
        (lambda: TRANSPOSED[dims](channels, out, 4, stride=2, padding=1, bias=False), out),
        (lambda: nn.Upsample(scale_factor=2), channels),
        (lambda: nn.Upsample(scale_factor=2, mode=smooth), channels),
        (lambda: nn.Upsample(scale_factor=2, mode=smooth, align_corners=True), channels),
    ]
    if dims == 2:
        choices += [
            (lambda: nn.Upsample(scale_factor=2, mode="bicubic"), channels),
            (lambda: nn.PixelShuffle(2), channels // 4),
        ]
        if channels % 4:
            choices.pop()
    make, given = chance.choice(choices)
    return make(), given


def shaken(net: nn.Module, seed: int) -> nn.Module:
    """Give a network weights and statistics of which each counts."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if not tensor.is_floating_point():
                continue
            if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.ndim == 1:
                tensor.normal_(0, 0.3, generator=generator)
            else:
                fan_in = max(tensor[0].numel(), 1)
                tensor.normal_(0, 1.2 / fan_in**0.5, generator=generator)
    return net.eval()


def image(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """Draw an image."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def answer(found: Found, x: torch.Tensor) -> torch.Tensor:
    """Compute what a network that was found gives, with the activation the file tells."""
    from napari_unet.network.graph_net import GraphNet

    net = GraphNet(found.architecture).eval()
    assert net.state_dict().keys() == found.tensors.keys()
    net.load_state_dict(found.tensors)
    with torch.no_grad():
        logits = net(x)
    activation = found.card["activation"]
    if "is added" in found.assumed.get("activation", ""):
        return logits
    if activation == "sigmoid":
        return torch.sigmoid(logits)
    return torch.softmax(logits, 1) if activation == "softmax" else logits


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the largest difference, relative to the largest value if that is above 1."""
    assert one.shape == other.shape
    return float((one - other).abs().max() / max(1.0, float(other.abs().max())))
