"""Networks of published repositories and tutorials, rebuilt: their names, their arithmetic."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
UP = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BATCH = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}


def shaken(net: nn.Module, seed: int = 0) -> nn.Module:
    """Give a network weights and statistics by chance, of a size that keeps the signal alive."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if name.endswith("num_batches_tracked"):
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.copy_(0.5 + noise.abs())
            elif tensor.ndim > 1:
                tensor.copy_(noise * (2 / tensor[0].numel()) ** 0.5)
            elif name.endswith("weight"):
                tensor.copy_(1 + 0.3 * noise)
            else:
                tensor.copy_(0.3 * noise)
    return net.eval()


def _cat(skip_first: bool, skip: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return torch.cat([skip, up] if skip_first else [up, skip], dim=1)


# --------------------------------------------------------------------------------- milesial


class MilesialDouble(nn.Module):
    def __init__(self, wide: int, narrow: int, middle: int | None = None) -> None:
        super().__init__()
        middle = middle or narrow
        self.double_conv = nn.Sequential(
            nn.Conv2d(wide, middle, 3, padding=1, bias=False),
            nn.BatchNorm2d(middle),
            nn.ReLU(),
            nn.Conv2d(middle, narrow, 3, padding=1, bias=False),
            nn.BatchNorm2d(narrow),
            nn.ReLU(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.double_conv(x)


class MilesialDown(nn.Module):
    def __init__(self, wide: int, narrow: int) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), MilesialDouble(wide, narrow))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.maxpool_conv(x)


class MilesialUp(nn.Module):
    def __init__(self, wide: int, narrow: int, bilinear: bool) -> None:
        super().__init__()
        if bilinear:
            self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            self.conv = MilesialDouble(wide, narrow, wide // 2)
        else:
            self.up = nn.ConvTranspose2d(wide, wide // 2, 2, stride=2)
            self.conv = MilesialDouble(wide, narrow)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        x = self.up(x)
        dy, dx = (skip.shape[axis] - x.shape[axis] for axis in (2, 3))
        x = functional.pad(x, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])
        return self.conv(torch.cat([skip, x], dim=1))


class MilesialOut(nn.Module):
    def __init__(self, wide: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(wide, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


class Milesial(nn.Module):
    def __init__(
        self, channels: int, classes: int, bilinear: bool, base: int = 64, depth: int = 4
    ) -> None:
        super().__init__()
        self.depth, factor = depth, 2 if bilinear else 1
        self.inc = MilesialDouble(channels, base)
        for i in range(1, depth + 1):
            narrow = base * 2**i // (factor if i == depth else 1)
            setattr(self, f"down{i}", MilesialDown(base * 2 ** (i - 1), narrow))
        for i in range(1, depth + 1):
            wide = base * 2 ** (depth - i + 1)
            narrow = base if i == depth else wide // 2 // factor
            setattr(self, f"up{i}", MilesialUp(wide, narrow, bilinear))
        self.outc = MilesialOut(base, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, skips = self.inc(x), []
        for i in range(1, self.depth + 1):
            skips.append(x)
            x = getattr(self, f"down{i}")(x)
        for i in range(1, self.depth + 1):
            x = getattr(self, f"up{i}")(x, skips.pop())
        return self.outc(x)


# ------------------------------------------------------------------- mateuszbuda: brain


class Brain(nn.Module):
    def __init__(self, channels: int, classes: int, base: int = 32, depth: int = 4) -> None:
        super().__init__()
        self.depth = depth
        wide = channels
        for i in range(1, depth + 1):
            setattr(self, f"encoder{i}", self._block(wide, base * 2 ** (i - 1), f"enc{i}"))
            setattr(self, f"pool{i}", nn.MaxPool2d(2, 2))
            wide = base * 2 ** (i - 1)
        self.bottleneck = self._block(wide, 2 * wide, "bottleneck")
        for i in range(depth, 0, -1):
            narrow = base * 2 ** (i - 1)
            setattr(self, f"upconv{i}", nn.ConvTranspose2d(2 * narrow, narrow, 2, stride=2))
            setattr(self, f"decoder{i}", self._block(2 * narrow, narrow, f"dec{i}"))
        self.conv = nn.Conv2d(base, classes, 1)

    @staticmethod
    def _block(wide: int, narrow: int, name: str) -> nn.Sequential:
        block = nn.Sequential()
        for i, before in ((1, wide), (2, narrow)):
            block.add_module(f"{name}conv{i}", nn.Conv2d(before, narrow, 3, padding=1, bias=False))
            block.add_module(f"{name}norm{i}", nn.BatchNorm2d(narrow))
            block.add_module(f"{name}relu{i}", nn.ReLU())
        return block

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for i in range(1, self.depth + 1):
            x = getattr(self, f"encoder{i}")(x)
            skips.append(x)
            x = getattr(self, f"pool{i}")(x)
        x = self.bottleneck(x)
        for i in range(self.depth, 0, -1):
            x = getattr(self, f"upconv{i}")(x)
            x = getattr(self, f"decoder{i}")(torch.cat([x, skips.pop()], dim=1))
        return self.conv(x)


# ----------------------------------------------------------------------------- jvanvugt


class JBlock(nn.Module):
    def __init__(self, wide: int, narrow: int, padding: bool, norm: bool) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for before in (wide, narrow):
            parts += [nn.Conv2d(before, narrow, 3, padding=int(padding)), nn.ReLU()]
            parts += [nn.BatchNorm2d(narrow)] if norm else []
        self.block = nn.Sequential(*parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x)


class JUp(nn.Module):
    def __init__(self, wide: int, narrow: int, mode: str, padding: bool, norm: bool) -> None:
        super().__init__()
        self.up: nn.Module = (
            nn.ConvTranspose2d(wide, narrow, 2, stride=2)
            if mode == "upconv"
            else nn.Sequential(
                nn.Upsample(mode="bilinear", scale_factor=2), nn.Conv2d(wide, narrow, 1)
            )
        )
        self.conv_block = JBlock(wide, narrow, padding, norm)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        x = self.up(x)
        top, left = ((skip.shape[a] - x.shape[a]) // 2 for a in (2, 3))
        skip = skip[:, :, top : top + x.shape[2], left : left + x.shape[3]]
        return self.conv_block(torch.cat([x, skip], 1))


class JVanVugt(nn.Module):
    def __init__(
        self, channels: int, classes: int, depth: int, wf: int, padding: bool, norm: bool, mode: str
    ) -> None:
        super().__init__()
        wide = channels
        self.down_path = nn.ModuleList()
        for i in range(depth):
            self.down_path.append(JBlock(wide, 2 ** (wf + i), padding, norm))
            wide = 2 ** (wf + i)
        self.up_path = nn.ModuleList()
        for i in reversed(range(depth - 1)):
            self.up_path.append(JUp(wide, 2 ** (wf + i), mode, padding, norm))
            wide = 2 ** (wf + i)
        self.last = nn.Conv2d(wide, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for i, down in enumerate(self.down_path):
            x = down(x)
            if i != len(self.down_path) - 1:
                skips.append(x)
                x = functional.max_pool2d(x, 2)
        for up in self.up_path:
            x = up(x, skips.pop())
        return self.last(x)


# ------------------------------------------------------------------------------ usuyama


class Usuyama(nn.Module):
    def __init__(self, channels: int, classes: int, base: int = 64, depth: int = 4) -> None:
        super().__init__()
        self.depth, wide = depth, channels
        for i in range(1, depth + 1):
            setattr(self, f"dconv_down{i}", self._double(wide, base * 2 ** (i - 1)))
            wide = base * 2 ** (i - 1)
        for i in range(depth - 1, 0, -1):
            narrow = base * 2 ** (i - 1)
            setattr(self, f"dconv_up{i}", self._double(wide + narrow, narrow))
            wide = narrow
        self.conv_last = nn.Conv2d(base, classes, 1)

    @staticmethod
    def _double(wide: int, narrow: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(wide, narrow, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(narrow, narrow, 3, padding=1),
            nn.ReLU(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for i in range(1, self.depth + 1):
            x = getattr(self, f"dconv_down{i}")(x)
            if i < self.depth:
                skips.append(x)
                x = functional.max_pool2d(x, 2)
        for i in range(self.depth - 1, 0, -1):
            x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            x = getattr(self, f"dconv_up{i}")(torch.cat([x, skips.pop()], dim=1))
        return self.conv_last(x)


# ------------------------------------------------------------------------------ bubbliiiing


class VggUp(nn.Module):
    def __init__(self, wide: int, narrow: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(wide, narrow, 3, padding=1)
        self.conv2 = nn.Conv2d(narrow, narrow, 3, padding=1)
        self.up = nn.UpsamplingBilinear2d(scale_factor=2)

    def forward(self, skip: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
        x = self.conv1(torch.cat([skip, self.up(below)], 1))
        return functional.relu(self.conv2(functional.relu(x)))


class VggUNet(nn.Module):
    """The five stages of VGG16 stand in one sequence; two of them are of one width."""

    def __init__(self, channels: int, classes: int, base: int) -> None:
        super().__init__()
        self.vgg = nn.Module()
        layers: list[nn.Module] = []
        self.stages, wide = [0], channels
        for stage, (count, factor) in enumerate(((2, 1), (2, 2), (3, 4), (3, 8), (3, 8))):
            layers += [nn.MaxPool2d(2)] if stage else []
            for _ in range(count):
                layers += [nn.Conv2d(wide, base * factor, 3, padding=1), nn.ReLU()]
                wide = base * factor
            self.stages.append(len(layers))
        self.vgg.features = nn.Sequential(*layers, nn.MaxPool2d(2))
        for number, (below, skip) in enumerate(((2, 1), (4, 2), (8, 4), (8, 8)), 1):
            setattr(self, f"up_concat{number}", VggUp(base * (below + skip), base * skip))
        self.final = nn.Conv2d(base, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = []
        for start, end in pairwise(self.stages):
            x = self.vgg.features[start:end](x)
            kept.append(x)
        for number in (4, 3, 2, 1):
            x = getattr(self, f"up_concat{number}")(kept[number - 1], x)
        return self.final(x)


# ------------------------------------------------------------------------------ yassouali


class Yassouali(nn.Module):
    """That of 2019 has a module before the first level; each next one sees the size above."""

    def __init__(
        self, channels: int, classes: int, base: int, depth: int, *, is_early: bool = False
    ) -> None:
        super().__init__()
        self.depth, self.is_early, wide = depth, is_early, channels
        if is_early:
            self.start_conv, wide = self._double(channels, base), base
        for level in range(1, depth + 1):
            width = base * 2 ** (level if is_early else level - 1)
            self._put(f"down{level}", down_conv=self._double(wide, width))
            wide = width
        deepest = base * 2**depth
        self.middle_conv, wide = self._double(wide, deepest), deepest
        for level in range(1, depth + 1):
            up = nn.ConvTranspose2d(wide, wide // 2, 2, 2)
            self._put(f"up{level}", up=up, up_conv=self._double(wide, wide // 2))
            wide //= 2
        self.final_conv = nn.Conv2d(wide, classes, 1)

    def _put(self, name: str, **parts: nn.Module) -> None:
        module = nn.Module()
        for key, part in parts.items():
            setattr(module, key, part)
        setattr(self, name, module)

    @staticmethod
    def _double(wide: int, narrow: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for channels in (wide, narrow):
            convolution = nn.Conv2d(channels, narrow, 3, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(narrow), nn.ReLU()]
        return nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        if self.is_early:
            x = self.start_conv(x)
        for level in range(1, self.depth + 1):
            convolutions = getattr(self, f"down{level}").down_conv
            if self.is_early:
                skips.append(x)
                x = functional.max_pool2d(convolutions(x), 2)
            else:
                skips.append(convolutions(x))
                x = functional.max_pool2d(skips[-1], 2)
        x = self.middle_conv(x)
        for level in range(1, self.depth + 1):
            module = getattr(self, f"up{level}")
            x = module.up_conv(torch.cat([skips.pop(), module.up(x)], dim=1))
        return self.final_conv(x)


# ---------------------------------------------------------------------------------- fastMRI


class MriLayers(nn.Module):
    def __init__(self, *convolutions: nn.Module) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for convolution in convolutions:
            norm = nn.InstanceNorm2d(convolution.out_channels)
            layers += [convolution, norm, nn.LeakyReLU(0.2), nn.Dropout2d(0.1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class FastMri(nn.Module):
    def __init__(self, channels: int, classes: int, base: int, depth: int) -> None:
        super().__init__()
        widths = [base * 2**i for i in range(depth)]
        self.down_sample_layers = nn.ModuleList(
            self._double(wide, narrow)
            for wide, narrow in zip((channels, *widths), widths, strict=False)
        )
        self.conv = self._double(widths[-1], 2 * widths[-1])
        self.up_transpose_conv = nn.ModuleList(
            MriLayers(nn.ConvTranspose2d(2 * width, width, 2, 2, bias=False))
            for width in widths[::-1]
        )
        ups: list[nn.Module] = [self._double(2 * width, width) for width in widths[::-1]]
        ups[-1] = nn.Sequential(ups[-1], nn.Conv2d(base, classes, 1))
        self.up_conv = nn.ModuleList(ups)

    @staticmethod
    def _double(wide: int, narrow: int) -> MriLayers:
        return MriLayers(
            nn.Conv2d(wide, narrow, 3, padding=1, bias=False),
            nn.Conv2d(narrow, narrow, 3, padding=1, bias=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for layers in self.down_sample_layers:
            x = layers(x)
            skips.append(x)
            x = functional.avg_pool2d(x, 2)
        x = self.conv(x)
        for up, layers in zip(self.up_transpose_conv, self.up_conv, strict=True):
            x = layers(torch.cat([up(x), skips.pop()], 1))
        return x


# ------------------------------------------------------------------- light-bn, as in its tutorial


class LightDouble(nn.Module):
    def __init__(self, wide: int, narrow: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(wide, narrow, 3, padding=1)
        self.conv2 = nn.Conv2d(narrow, narrow, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(narrow)
        self.bn2 = nn.BatchNorm2d(narrow)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(x)))


class LightUp(nn.Module):
    def __init__(self, wide: int, narrow: int) -> None:
        super().__init__()
        self.conv1 = nn.ConvTranspose2d(wide, narrow, 2, stride=2)
        self.bn1 = nn.BatchNorm2d(narrow)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(self.bn1(self.conv1(x)))


class Light(nn.Module):
    def __init__(self, channels: int = 1, classes: int = 1, base: int = 8, depth: int = 4) -> None:
        super().__init__()
        self.depth, wide = depth, channels
        for i in range(depth + 1):
            setattr(self, f"layer{i + 1}_conv", LightDouble(wide, base * 2**i))
            wide = base * 2**i
        for i in range(depth):
            narrow = base * 2 ** (depth - 1 - i)
            setattr(self, f"layer{depth + 2 + i}_conv", LightDouble(2 * narrow, narrow))
        setattr(self, f"layer{2 * depth + 2}_conv", nn.Conv2d(base, classes, 3, padding=1))
        for i in range(depth):
            narrow = base * 2 ** (depth - 1 - i)
            setattr(self, f"deconv{i + 1}", LightUp(2 * narrow, narrow))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for i in range(1, self.depth + 2):
            x = getattr(self, f"layer{i}_conv")(x)
            if i <= self.depth:
                skips.append(x)
                x = functional.max_pool2d(x, 2)
        for i in range(self.depth):
            x = getattr(self, f"deconv{i + 1}")(x)
            x = torch.cat([x, skips.pop()], dim=1)
            x = getattr(self, f"layer{self.depth + 2 + i}_conv")(x)
        return getattr(self, f"layer{2 * self.depth + 2}_conv")(x)


# --------------------------------------------------------- LeeJunHyun: U-Net, attention U-Net


class LeeBlock(nn.Module):
    def __init__(self, wide: int, narrow: int) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for before in (wide, narrow):
            parts += [nn.Conv2d(before, narrow, 3, 1, 1), nn.BatchNorm2d(narrow), nn.ReLU()]
        self.conv = nn.Sequential(*parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


class LeeUp(nn.Module):
    def __init__(self, wide: int, narrow: int) -> None:
        super().__init__()
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2),
            nn.Conv2d(wide, narrow, 3, 1, 1),
            nn.BatchNorm2d(narrow),
            nn.ReLU(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.up(x)


class LeeGate(nn.Module):
    def __init__(self, below: int, skip: int, inner: int) -> None:
        super().__init__()
        self.W_g = nn.Sequential(nn.Conv2d(below, inner, 1), nn.BatchNorm2d(inner))
        self.W_x = nn.Sequential(nn.Conv2d(skip, inner, 1), nn.BatchNorm2d(inner))
        self.psi = nn.Sequential(nn.Conv2d(inner, 1, 1), nn.BatchNorm2d(1), nn.Sigmoid())

    def forward(self, below: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return skip * self.psi(functional.relu(self.W_g(below) + self.W_x(skip)))


class Lee(nn.Module):
    def __init__(
        self, channels: int, classes: int, gates: bool, base: int = 64, depth: int = 4
    ) -> None:
        super().__init__()
        self.depth, self.gates, wide = depth, gates, channels
        for i in range(1, depth + 2):
            setattr(self, f"Conv{i}", LeeBlock(wide, base * 2 ** (i - 1)))
            wide = base * 2 ** (i - 1)
        for i in range(depth + 1, 1, -1):
            narrow = base * 2 ** (i - 2)
            setattr(self, f"Up{i}", LeeUp(2 * narrow, narrow))
            if gates:
                setattr(self, f"Att{i}", LeeGate(narrow, narrow, max(2, narrow // 2)))
            setattr(self, f"Up_conv{i}", LeeBlock(2 * narrow, narrow))
        self.Conv_1x1 = nn.Conv2d(base, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for i in range(1, self.depth + 2):
            x = getattr(self, f"Conv{i}")(x if i == 1 else functional.max_pool2d(x, 2))
            skips.append(x)
        skips.pop()
        for i in range(self.depth + 1, 1, -1):
            x, skip = getattr(self, f"Up{i}")(x), skips.pop()
            if self.gates:
                skip = getattr(self, f"Att{i}")(x, skip)
            x = getattr(self, f"Up_conv{i}")(torch.cat((skip, x), dim=1))
        return self.Conv_1x1(x)


# --------------------------------------------------------------------------- ups before downs


class PerssonDouble(nn.Module):
    def __init__(self, wide: int, narrow: int) -> None:
        super().__init__()
        self.conv = MilesialDouble(wide, narrow).double_conv

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


class Persson(nn.Module):
    def __init__(self, channels: int, classes: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.ups, self.downs, wide = nn.ModuleList(), nn.ModuleList(), channels
        for width in widths:
            self.downs.append(PerssonDouble(wide, width))
            wide = width
        for width in reversed(widths):
            self.ups.append(nn.ConvTranspose2d(2 * width, width, 2, 2))
            self.ups.append(PerssonDouble(2 * width, width))
        self.bottleneck = PerssonDouble(widths[-1], 2 * widths[-1])
        self.final_conv = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for down in self.downs:
            x = down(x)
            skips.append(x)
            x = functional.max_pool2d(x, 2)
        x = self.bottleneck(x)
        for i in range(0, len(self.ups), 2):
            x = self.ups[i + 1](torch.cat((skips.pop(), self.ups[i](x)), dim=1))
        return self.final_conv(x)


# ---------------------------------------------------------------- any names, any order: by options


class Any_(nn.Module):
    """A U-Net of options, whose layers have flat names in the order of computing.

    Parameters
    ----------
    widths : tuple of int
        Of each level, the deepest last.
    options
        dims, channels, classes, count (convolutions a level), norm (none, batch, group,
        instance), up (transposed, nearest, linear, aligned, nearest+1, nearest+2, nearest+3),
        skip_first, bias, head, residual, padded, order, names.
    """

    def __init__(self, widths: tuple[int, ...], **options: Any) -> None:
        super().__init__()
        self.options = {
            "dims": 2, "channels": 1, "classes": 1, "count": 2, "norm": "none",
            "up": "transposed", "skip_first": False, "bias": True, "head": 1, "residual": False,
            "padded": True, "norm_last": False, "style": "nested", "active_up": False,
        } | options  # fmt: skip
        o = self.options
        self.widths = widths
        wide = o["channels"]
        for level, width in enumerate(widths):
            self._block("down", level, wide, width)
            wide = width
        for level in reversed(range(len(widths) - 1)):
            narrow = widths[level]
            kind = o["up"]
            given = wide
            if kind == "transposed":
                given = narrow
                self._put("up", level, UP[o["dims"]](wide, narrow, 2, 2))
            elif "+" in kind:
                given = narrow
                kernel = int(kind[-1])
                self._put(
                    "up", level, CONV[o["dims"]](wide, narrow, kernel, padding=(kernel - 1) // 2)
                )
            self._block("merge", level, given + narrow, narrow)
            wide = narrow
        self._put("head", 0, CONV[o["dims"]](wide, o["classes"], o["head"], padding=o["head"] // 2))

    def _name(self, role: str, level: int, part: str) -> str:
        style = self.options["style"]
        names = {
            "nested": {"down": "contract", "merge": "expand", "up": "grow", "head": "final"},
            "flat": {"down": "enc", "merge": "dec", "up": "upconv", "head": "out"},
            "digits": {"down": "c", "merge": "d", "up": "u", "head": "z"},
        }[style]
        if style == "nested":
            return f"{names[role]}{level}{'__' + part if part else ''}"
        if style == "flat":
            return f"{names[role]}{level}{'_' + part if part else ''}"
        return f"{names[role]}{level}{part}"

    def _put(self, role: str, level: int, module: nn.Module, part: str = "") -> None:
        self.add_module(self._name(role, level, part), module)

    def _get(self, role: str, level: int, part: str = "") -> nn.Module:
        return getattr(self, self._name(role, level, part))

    def _norm(self, width: int) -> nn.Module:
        o = self.options
        if o["norm"] == "batch":
            return BATCH[o["dims"]](width)
        if o["norm"] == "group":
            return nn.GroupNorm(next(n for n in range(8, 0, -1) if width % n == 0), width)
        instance = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[o["dims"]]
        return instance(width, affine=True)

    def _block(self, role: str, level: int, wide: int, narrow: int) -> None:
        o = self.options
        before = wide
        for i in range(o["count"]):
            padding = 1 if o["padded"] else 0
            conv = CONV[o["dims"]](before, narrow, 3, padding=padding, bias=o["bias"])
            self._put(role, level, conv, f"conv{i}")
            if o["norm"] != "none":
                self._put(role, level, self._norm(narrow), f"norm{i}")
            before = narrow
        if o["residual"]:
            self._put(role, level, CONV[o["dims"]](wide, narrow, 1), "shortcut")

    def _run(self, role: str, level: int, x: torch.Tensor) -> torch.Tensor:
        o, start = self.options, x
        for i in range(o["count"]):
            x = self._get(role, level, f"conv{i}")(x)
            if o["norm"] != "none" and not o["norm_last"]:
                x = self._get(role, level, f"norm{i}")(x)
            if i < o["count"] - 1 or not o["residual"]:
                x = functional.relu(x)
            if o["norm"] != "none" and o["norm_last"]:
                x = self._get(role, level, f"norm{i}")(x)
        if o["residual"]:
            x = functional.relu(x + self._get(role, level, "shortcut")(start))
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        o, skips = self.options, []
        for level in range(len(self.widths)):
            x = self._run("down", level, x)
            if level < len(self.widths) - 1:
                skips.append(x)
                x = POOL[o["dims"]](2)(x)
        for level in reversed(range(len(self.widths) - 1)):
            kind, skip = o["up"], skips.pop()
            if kind != "transposed":
                linear = {2: "bilinear", 3: "trilinear"}[o["dims"]]
                mode = "nearest" if kind.startswith("nearest") else linear
                aligned = {"align_corners": kind.startswith("aligned")} if mode == linear else {}
                x = functional.interpolate(x, scale_factor=2, mode=mode, **aligned)
            if kind == "transposed" or "+" in kind:
                if kind.endswith("+2"):
                    x = functional.pad(x, (0, 1) * o["dims"])
                x = self._get("up", level)(x)
                x = functional.relu(x) if o["active_up"] else x
            for axis in range(2, x.ndim):
                more = skip.shape[axis] - x.shape[axis]
                skip = skip.narrow(axis, more // 2, x.shape[axis])
            x = self._run("merge", level, _cat(o["skip_first"], skip, x))
        return self._get("head", 0)(x)


# ------------------------------------------------------------- three-level, as its sketch goes


class ThreeLevel(nn.Module):
    def __init__(self, channels: int = 1, classes: int = 1, base: int = 32) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, base, 3, padding=1)
        self.conv2 = nn.Conv2d(base, 2 * base, 3, padding=1)
        self.conv3 = nn.Conv2d(2 * base, 4 * base, 3, padding=1)
        self.up1 = nn.ConvTranspose2d(4 * base, 2 * base, 2, stride=2)
        self.conv4 = nn.Conv2d(4 * base, base, 3, padding=1)
        self.up2 = nn.ConvTranspose2d(base, base // 2, 2, stride=2)
        self.conv5 = nn.Conv2d(base + base // 2, base // 4, 3, padding=1)
        self.out = nn.Conv2d(base // 4, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one = functional.relu(self.conv1(x))
        two = functional.relu(self.conv2(functional.max_pool2d(one, 2)))
        x = functional.relu(self.conv3(functional.max_pool2d(two, 2)))
        x = functional.relu(self.conv4(torch.cat([self.up1(x), two], 1)))
        x = functional.relu(self.conv5(torch.cat([self.up2(x), one], 1)))
        return self.out(x)


# ----------------------------------------------------------- flat names of two digits, unbroken


class Scratch(nn.Module):
    def __init__(self, channels: int, classes: int, base: int, depth: int = 4) -> None:
        super().__init__()
        self.depth, wide = depth, channels
        for level in range(1, depth + 2):
            width = base * 2 ** (level - 1)
            setattr(self, f"e{level}1", nn.Conv2d(wide, width, 3, padding=1))
            setattr(self, f"e{level}2", nn.Conv2d(width, width, 3, padding=1))
            wide = width
        for level in range(1, depth + 1):
            width = wide // 2
            setattr(self, f"upconv{level}", nn.ConvTranspose2d(wide, width, 2, stride=2))
            setattr(self, f"d{level}1", nn.Conv2d(wide, width, 3, padding=1))
            setattr(self, f"d{level}2", nn.Conv2d(width, width, 3, padding=1))
            wide = width
        self.outconv = nn.Conv2d(wide, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for level in range(1, self.depth + 2):
            x = functional.relu(getattr(self, f"e{level}1")(x))
            x = functional.relu(getattr(self, f"e{level}2")(x))
            skips.append(x)
            x = functional.max_pool2d(x, 2) if level <= self.depth else x
        skips.pop()
        for level in range(1, self.depth + 1):
            x = torch.cat([getattr(self, f"upconv{level}")(x), skips.pop()], dim=1)
            x = functional.relu(getattr(self, f"d{level}1")(x))
            x = functional.relu(getattr(self, f"d{level}2")(x))
        return self.outconv(x)
