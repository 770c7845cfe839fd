"""U-Nets as people write them after a tutorial: other names, depths, kernels, activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

Tensor = torch.Tensor


class EluLists(nn.Module):
    """ModuleLists of blocks in a Sequential, ELU, no norm, 5 x 5 kernels."""

    def __init__(self, channels: int, classes: int, widths: Sequence[int]) -> None:
        super().__init__()
        wide = [channels, *widths]
        self.contracting = nn.ModuleList(
            self._block(a, b) for a, b in zip(wide, widths, strict=False)
        )
        deep = list(reversed(widths))
        self.upscale = nn.ModuleList(
            nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in pairwise(deep)
        )
        self.expanding = nn.ModuleList(self._block(2 * b, b) for b in deep[1:])
        self.classifier = nn.Conv2d(widths[0], classes, 1)

    @staticmethod
    def _block(wide: int, narrow: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(wide, narrow, 5, padding=2), nn.ELU(),
            nn.Conv2d(narrow, narrow, 5, padding=2), nn.ELU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level, block in enumerate(self.contracting):
            x = block(functional.max_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for up, block in zip(self.upscale, self.expanding, strict=True):
            x = block(torch.cat([up(x), skips.pop()], 1))
        return self.classifier(x)


class GeluGroups(nn.Module):
    """A dict of modules; convolution without bias, GroupNorm of 4, GELU; skip first."""

    def __init__(self, channels: int, classes: int, base: int, groups: int = 4) -> None:
        super().__init__()
        widths = [base, 2 * base, 3 * base]
        self.layers = nn.ModuleDict()
        wide = channels
        for level, width in enumerate(widths):
            self.layers[f"stage{level}_enc"] = self._block(wide, width, groups)
            wide = width
        for level in (1, 0):
            self.layers[f"stage{level}_up"] = nn.ConvTranspose2d(wide, widths[level], 2, 2)
            self.layers[f"stage{level}_dec"] = self._block(2 * widths[level], widths[level], groups)
            wide = widths[level]
        self.layers["logits"] = nn.Conv2d(wide, classes, 1)

    @staticmethod
    def _block(wide: int, narrow: int, groups: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(wide, narrow, 3, padding=1, bias=False), nn.GroupNorm(groups, narrow),
            nn.GELU(),
            nn.Conv2d(narrow, narrow, 3, padding=1, bias=False), nn.GroupNorm(groups, narrow),
            nn.GELU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        one = self.layers["stage0_enc"](x)
        two = self.layers["stage1_enc"](functional.max_pool2d(one, 2))
        x = self.layers["stage2_enc"](functional.max_pool2d(two, 2))
        x = self.layers["stage1_dec"](torch.cat([two, self.layers["stage1_up"](x)], 1))
        x = self.layers["stage0_dec"](torch.cat([one, self.layers["stage0_up"](x)], 1))
        return self.layers["logits"](x)


class AveragedVolumes(nn.Module):
    """3D, average pooling, leaky ReLU of 0.1, trilinear upsampling, three-fold numbers as names."""

    def __init__(self, channels: int, classes: int, base: int) -> None:
        super().__init__()
        a, b, c = base, 2 * base, 4 * base
        self.conv1a = nn.Conv3d(channels, a, 3, padding=1)
        self.norm1a = nn.BatchNorm3d(a)
        self.conv1b = nn.Conv3d(a, a, 3, padding=1)
        self.norm1b = nn.BatchNorm3d(a)
        self.conv2a = nn.Conv3d(a, b, 3, padding=1)
        self.norm2a = nn.BatchNorm3d(b)
        self.conv2b = nn.Conv3d(b, b, 3, padding=1)
        self.norm2b = nn.BatchNorm3d(b)
        self.conv3a = nn.Conv3d(b, c, 3, padding=1)
        self.norm3a = nn.BatchNorm3d(c)
        self.conv3b = nn.Conv3d(c, c, 3, padding=1)
        self.norm3b = nn.BatchNorm3d(c)
        self.conv4a = nn.Conv3d(c + b, b, 3, padding=1)
        self.norm4a = nn.BatchNorm3d(b)
        self.conv4b = nn.Conv3d(b, b, 3, padding=1)
        self.norm4b = nn.BatchNorm3d(b)
        self.conv5a = nn.Conv3d(b + a, a, 3, padding=1)
        self.norm5a = nn.BatchNorm3d(a)
        self.conv5b = nn.Conv3d(a, a, 3, padding=1)
        self.norm5b = nn.BatchNorm3d(a)
        self.conv6 = nn.Conv3d(a, classes, 1)

    def _block(self, number: int, x: Tensor) -> Tensor:
        for part in "ab":
            x = getattr(self, f"conv{number}{part}")(x)
            x = functional.leaky_relu(getattr(self, f"norm{number}{part}")(x), 0.1)
        return x

    def forward(self, x: Tensor) -> Tensor:
        one = self._block(1, x)
        two = self._block(2, functional.avg_pool3d(one, 2))
        x = self._block(3, functional.avg_pool3d(two, 2))
        x = functional.interpolate(x, scale_factor=2, mode="trilinear", align_corners=True)
        x = self._block(4, torch.cat([x, two], 1))
        x = functional.interpolate(x, scale_factor=2, mode="trilinear", align_corners=True)
        x = self._block(5, torch.cat([x, one], 1))
        return self.conv6(x)


class BareInstance(nn.Module):
    """3D, instance norm without weights, leaky ReLU, transposed convolutions without bias."""

    def __init__(self, channels: int, classes: int, base: int) -> None:
        super().__init__()
        self.down = nn.ModuleList()
        self.lift = nn.ModuleList()
        self.up = nn.ModuleList()
        wide = channels
        for level in range(3):
            self.down.append(self._block(wide, base << level))
            wide = base << level
        for level in (1, 0):
            self.lift.append(nn.ConvTranspose3d(wide, base << level, 2, 2, bias=False))
            self.up.append(self._block(2 * (base << level), base << level))
            wide = base << level
        self.final = nn.Conv3d(wide, classes, 1)

    @staticmethod
    def _block(wide: int, narrow: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv3d(wide, narrow, 3, padding=1, bias=False), nn.InstanceNorm3d(narrow),
            nn.LeakyReLU(0.01),
            nn.Conv3d(narrow, narrow, 3, padding=1, bias=False), nn.InstanceNorm3d(narrow),
            nn.LeakyReLU(0.01),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        one = self.down[0](x)
        two = self.down[1](functional.max_pool3d(one, 2))
        x = self.down[2](functional.max_pool3d(two, 2))
        x = self.up[0](torch.cat((self.lift[0](x), two), dim=1))
        x = self.up[1](torch.cat((self.lift[1](x), one), dim=1))
        return self.final(x)


class PreActivated(nn.Module):
    """A residual U-Net of norm, activation, convolution; strides instead of pooling."""

    def __init__(self, channels: int, classes: int, widths: Sequence[int]) -> None:
        super().__init__()
        a, b, c, d = widths
        self.input_layer = nn.Sequential(
            nn.Conv2d(channels, a, 3, padding=1), nn.BatchNorm2d(a), nn.ReLU(),
            nn.Conv2d(a, a, 3, padding=1),
        )  # fmt: skip
        self.input_skip = nn.Sequential(nn.Conv2d(channels, a, 3, padding=1))
        self.residual_conv_1 = PreActivatedBlock(a, b, 2)
        self.residual_conv_2 = PreActivatedBlock(b, c, 2)
        self.bridge = PreActivatedBlock(c, d, 2)
        self.upsample_1 = Lifted(d, d)
        self.up_residual_conv1 = PreActivatedBlock(d + c, c, 1)
        self.upsample_2 = Lifted(c, c)
        self.up_residual_conv2 = PreActivatedBlock(c + b, b, 1)
        self.upsample_3 = Lifted(b, b)
        self.up_residual_conv3 = PreActivatedBlock(b + a, a, 1)
        self.output_layer = nn.Sequential(nn.Conv2d(a, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        one = self.input_layer(x) + self.input_skip(x)
        two = self.residual_conv_1(one)
        three = self.residual_conv_2(two)
        x = self.bridge(three)
        x = self.up_residual_conv1(torch.cat([self.upsample_1(x), three], dim=1))
        x = self.up_residual_conv2(torch.cat([self.upsample_2(x), two], dim=1))
        x = self.up_residual_conv3(torch.cat([self.upsample_3(x), one], dim=1))
        return self.output_layer(x)


class PreActivatedBlock(nn.Module):
    def __init__(self, wide: int, narrow: int, stride: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.BatchNorm2d(wide), nn.ReLU(),
            nn.Conv2d(wide, narrow, 3, stride=stride, padding=1),
            nn.BatchNorm2d(narrow), nn.ReLU(),
            nn.Conv2d(narrow, narrow, 3, padding=1),
        )  # fmt: skip
        self.conv_skip = nn.Sequential(
            nn.Conv2d(wide, narrow, 3, stride=stride, padding=1), nn.BatchNorm2d(narrow)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_block(x) + self.conv_skip(x)


class Lifted(nn.Module):
    def __init__(self, wide: int, narrow: int) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(wide, narrow, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.upsample(x)


class ResidualSilu(nn.Module):
    """Residual blocks with the activation before the sum, SiLU, nearest pixels, 7 x 7 first."""

    def __init__(self, channels: int, classes: int, base: int) -> None:
        super().__init__()
        self.enc1 = SiluBlock(channels, base, 7)
        self.enc2 = SiluBlock(base, 2 * base)
        self.mid = SiluBlock(2 * base, 4 * base)
        self.dec2 = SiluBlock(6 * base, 2 * base)
        self.dec1 = SiluBlock(3 * base, base)
        self.head = nn.Conv2d(base, classes, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.enc1(x)
        two = self.enc2(functional.max_pool2d(one, 2))
        x = self.mid(functional.max_pool2d(two, 2))
        x = self.dec2(torch.cat([functional.interpolate(x, scale_factor=2), two], 1))
        x = self.dec1(torch.cat([functional.interpolate(x, scale_factor=2), one], 1))
        return self.head(x)


class SiluBlock(nn.Module):
    def __init__(self, wide: int, narrow: int, kernel: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(wide, narrow, kernel, padding=kernel // 2)
        self.bn1 = nn.BatchNorm2d(narrow)
        self.conv2 = nn.Conv2d(narrow, narrow, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(narrow)
        self.shortcut = nn.Conv2d(wide, narrow, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.silu(self.bn1(self.conv1(x)))
        y = functional.silu(self.bn2(self.conv2(y)))
        return y + self.shortcut(x)


class GatedBySkips(nn.Module):
    """Attention on the skips as in the paper's retellings, with other names than any repository."""

    def __init__(self, channels: int, classes: int, base: int) -> None:
        super().__init__()
        widths = [base << level for level in range(4)]
        wide = channels
        for level, width in enumerate(widths):
            self.add_module(f"encode{level}", DoubleStep(wide, width))
            wide = width
        for level in (2, 1, 0):
            width = widths[level]
            self.add_module(f"grow{level}", nn.ConvTranspose2d(wide, width, 2, 2))
            self.add_module(f"attend{level}", Gate(width, width, max(1, width // 2)))
            self.add_module(f"decode{level}", DoubleStep(2 * width, width))
            wide = width
        self.to_classes = nn.Conv2d(wide, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level in range(4):
            x = getattr(self, f"encode{level}")(functional.max_pool2d(x, 2) if level else x)
            skips.append(x)
        for level in (2, 1, 0):
            x = getattr(self, f"grow{level}")(x)
            skip = getattr(self, f"attend{level}")(x, skips[level])
            x = getattr(self, f"decode{level}")(torch.cat([skip, x], 1))
        return self.to_classes(x)


class DoubleStep(nn.Module):
    def __init__(self, wide: int, narrow: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(wide, narrow, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(narrow)
        self.second = nn.Conv2d(narrow, narrow, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(narrow)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.first_norm(self.first(x)))
        return functional.relu(self.second_norm(self.second(x)))


class Gate(nn.Module):
    def __init__(self, below: int, skip: int, inner: int) -> None:
        super().__init__()
        self.w_gate = nn.Sequential(nn.Conv2d(below, inner, 1), nn.BatchNorm2d(inner))
        self.w_skip = nn.Sequential(nn.Conv2d(skip, inner, 1), nn.BatchNorm2d(inner))
        self.psi = nn.Sequential(nn.Conv2d(inner, 1, 1), nn.BatchNorm2d(1), nn.Sigmoid())

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        return skip * self.psi(functional.relu(self.w_gate(below) + self.w_skip(skip)))


class OneSequence(nn.Module):
    """A net whose blocks are one numbered Sequential with pooling inside; activation, then norm."""

    def __init__(self, channels: int, classes: int, base: int) -> None:
        super().__init__()
        self.left0 = self._block(channels, base)
        self.left1 = nn.Sequential(nn.MaxPool2d(2), *self._block(base, 2 * base))
        self.left2 = nn.Sequential(nn.MaxPool2d(2), *self._block(2 * base, 4 * base))
        self.raise1 = nn.ConvTranspose2d(4 * base, 2 * base, 3, 2, padding=1, output_padding=1)
        self.right1 = self._block(4 * base, 2 * base)
        self.raise0 = nn.ConvTranspose2d(2 * base, base, 3, 2, padding=1, output_padding=1)
        self.right0 = self._block(2 * base, base)
        self.answer = nn.Conv2d(base, classes, 1)

    @staticmethod
    def _block(wide: int, narrow: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(wide, narrow, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(narrow),
            nn.Conv2d(narrow, narrow, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(narrow),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        one = self.left0(x)
        two = self.left1(one)
        x = self.left2(two)
        x = self.right1(torch.cat([two, self.raise1(x)], 1))
        x = self.right0(torch.cat([one, self.raise0(x)], 1))
        return self.answer(x)


class Thin(nn.Module):
    """One convolution of 5 x 5 a level, in odd widths; the size is doubled before the join."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.down_convs = nn.ModuleList(
            nn.Conv2d(a, b, 5, padding=2) for a, b in ((channels, 12), (12, 20), (20, 28))
        )
        self.up_convs = nn.ModuleList(
            nn.Conv2d(a, b, 5, padding=2) for a, b in ((28 + 20, 20), (20 + 12, 12))
        )
        self.last = nn.Conv2d(12, classes, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        one = functional.silu(self.down_convs[0](x))
        two = functional.silu(self.down_convs[1](functional.max_pool2d(one, 2)))
        x = functional.silu(self.down_convs[2](functional.max_pool2d(two, 2)))
        x = torch.cat([functional.interpolate(x, scale_factor=2), two], 1)
        x = functional.silu(self.up_convs[0](x))
        x = torch.cat([functional.interpolate(x, scale_factor=2), one], 1)
        return self.last(functional.silu(self.up_convs[1](x)))


class FiveLevels(nn.Module):
    """The usual one with five levels, three convolutions a level, bilinear and a 1 x 1 after it."""

    def __init__(self, channels: int, classes: int, base: int) -> None:
        super().__init__()
        widths = [base << level for level in range(5)]
        wide = channels
        for level, width in enumerate(widths, 1):
            setattr(self, f"block_{level}", self._block(wide, width))
            wide = width
        for level in (4, 3, 2, 1):
            width = widths[level - 1]
            setattr(self, f"reduce_{level}", nn.Conv2d(wide, width, 1))
            setattr(self, f"merge_{level}", self._block(2 * width, width))
            wide = width
        self.predict = nn.Conv2d(wide, classes, 1)

    @staticmethod
    def _block(wide: int, narrow: int) -> nn.Sequential:
        parts: list[nn.Module] = []
        for place in range(3):
            parts += [
                nn.Conv2d(narrow if place else wide, narrow, 3, padding=1, bias=False),
                nn.BatchNorm2d(narrow, eps=1e-3),
                nn.ReLU(inplace=True),
            ]
        return nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level in range(1, 6):
            x = getattr(self, f"block_{level}")(functional.max_pool2d(x, 2) if level > 1 else x)
            skips.append(x)
        for level in (4, 3, 2, 1):
            x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = getattr(self, f"reduce_{level}")(x)
            x = getattr(self, f"merge_{level}")(torch.cat([x, skips[level - 1]], 1))
        return self.predict(x)


class LearnedHalving(nn.Module):
    """Convolutions of 2 x 2 and stride 2 in place of pooling, PReLU, affine instance norm."""

    def __init__(self, channels: int, classes: int, base: int) -> None:
        super().__init__()
        self.e0 = self._block(channels, base)
        self.shrink0 = nn.Conv2d(base, 2 * base, 2, stride=2)
        self.e1 = self._block(2 * base, 2 * base)
        self.shrink1 = nn.Conv2d(2 * base, 4 * base, 2, stride=2)
        self.e2 = self._block(4 * base, 4 * base)
        self.grow1 = nn.ConvTranspose2d(4 * base, 2 * base, 2, stride=2)
        self.d1 = self._block(4 * base, 2 * base)
        self.grow0 = nn.ConvTranspose2d(2 * base, base, 2, stride=2)
        self.d0 = self._block(2 * base, base)
        self.out = nn.Conv2d(base, classes, 1)

    @staticmethod
    def _block(wide: int, narrow: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(wide, narrow, 3, padding=1), nn.InstanceNorm2d(narrow, affine=True),
            nn.PReLU(narrow),
            nn.Conv2d(narrow, narrow, 3, padding=1), nn.InstanceNorm2d(narrow, affine=True),
            nn.PReLU(narrow),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        one = self.e0(x)
        two = self.e1(self.shrink0(one))
        x = self.e2(self.shrink1(two))
        x = self.d1(torch.cat([self.grow1(x), two], 1))
        x = self.d0(torch.cat([self.grow0(x), one], 1))
        return self.out(x)


class LayerNormed(nn.Module):
    """GroupNorm of one group, which some call layer norm, Mish, and four levels."""

    def __init__(self, channels: int, classes: int, base: int, groups: int = 1) -> None:
        super().__init__()
        self.groups = groups
        widths = [base, 2 * base, 4 * base, 4 * base]
        self.encoder_blocks = nn.ModuleList()
        self.decoder_blocks = nn.ModuleList()
        wide = channels
        for width in widths:
            self.encoder_blocks.append(NormedPair(wide, width, groups))
            wide = width
        for width in reversed(widths[:-1]):
            self.decoder_blocks.append(NormedPair(wide + width, width, groups))
            wide = width
        self.segmentation = nn.Conv2d(wide, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level, block in enumerate(self.encoder_blocks):
            x = block(functional.max_pool2d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for block in self.decoder_blocks:
            x = functional.interpolate(x, scale_factor=2, mode="nearest")
            x = block(torch.cat([skips.pop(), x], dim=1))
        return self.segmentation(x)


class NormedPair(nn.Module):
    def __init__(self, wide: int, narrow: int, groups: int) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(wide, narrow, 3, padding=1)
        self.gn1 = nn.GroupNorm(groups, narrow)
        self.c2 = nn.Conv2d(narrow, narrow, 3, padding=1)
        self.gn2 = nn.GroupNorm(groups, narrow)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.mish(self.gn1(self.c1(x)))
        return functional.mish(self.gn2(self.c2(x)))


class ForkOfMilesial(nn.Module):
    """The much copied names with one convolution of 1 x 1 less and ReLU6: skip first."""

    def __init__(self, channels: int, classes: int, base: int) -> None:
        super().__init__()
        self.inc = DoubleStep(channels, base)
        self.down1 = nn.Sequential(nn.MaxPool2d(2), DoubleStep(base, 2 * base))
        self.down2 = nn.Sequential(nn.MaxPool2d(2), DoubleStep(2 * base, 4 * base))
        self.up1 = nn.ModuleDict(
            {
                "up": nn.ConvTranspose2d(4 * base, 2 * base, 2, 2),
                "conv": DoubleStep(4 * base, 2 * base),
            }
        )
        self.up2 = nn.ModuleDict(
            {"up": nn.ConvTranspose2d(2 * base, base, 2, 2), "conv": DoubleStep(2 * base, base)}
        )
        self.outc = nn.Conv2d(base, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.inc(x)
        two = self.down1(one)
        x = self.down2(two)
        x = self.up1["conv"](torch.cat([two, self.up1["up"](x)], 1))
        x = self.up2["conv"](torch.cat([one, self.up2["up"](x)], 1))
        return self.outc(x)


class Unpadded(nn.Module):
    """Convolutions without padding, skips cropped at the centre, SELU, in a dict of Sequentials."""

    def __init__(self, channels: int, classes: int, base: int) -> None:
        super().__init__()
        self.path = nn.ModuleDict(
            {
                "a": nn.Sequential(*self._step(channels, base), *self._step(base, base)),
                "b": nn.Sequential(*self._step(base, 2 * base), *self._step(2 * base, 2 * base)),
                "u": nn.ConvTranspose2d(2 * base, base, 2, 2),
                "c": nn.Sequential(*self._step(2 * base, base), *self._step(base, base)),
                "z": nn.Conv2d(base, classes, 1),
            }
        )

    @staticmethod
    def _step(wide: int, narrow: int) -> list[nn.Module]:
        return [nn.Conv2d(wide, narrow, 3), nn.SELU()]

    def forward(self, x: Tensor) -> Tensor:
        one = self.path["a"](x)
        x = self.path["u"](self.path["b"](functional.max_pool2d(one, 2)))
        top, left = ((a - b) // 2 for a, b in zip(one.shape[2:], x.shape[2:], strict=True))
        one = one[..., top : top + x.shape[2], left : left + x.shape[3]]
        return self.path["z"](self.path["c"](torch.cat([x, one], 1)))


class Residual3D(nn.Module):
    """3D, residual blocks whose shortcut has no weights where widths agree, GroupNorm, stride."""

    def __init__(self, channels: int, classes: int, base: int, groups: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv3d(channels, base, 3, padding=1)
        self.enc0 = ResidualPair(base, base, groups)
        self.enc1 = ResidualPair(base, 2 * base, groups)
        self.enc2 = ResidualPair(2 * base, 4 * base, groups)
        self.up1 = nn.ConvTranspose3d(4 * base, 2 * base, 2, 2)
        self.dec1 = ResidualPair(4 * base, 2 * base, groups)
        self.up0 = nn.ConvTranspose3d(2 * base, base, 2, 2)
        self.dec0 = ResidualPair(2 * base, base, groups)
        self.head = nn.Conv3d(base, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.enc0(functional.relu(self.stem(x)))
        two = self.enc1(functional.max_pool3d(one, 2))
        x = self.enc2(functional.max_pool3d(two, 2))
        x = self.dec1(torch.cat([self.up1(x), two], 1))
        x = self.dec0(torch.cat([self.up0(x), one], 1))
        return self.head(x)


class ResidualPair(nn.Module):
    def __init__(self, wide: int, narrow: int, groups: int) -> None:
        super().__init__()
        self.conv_a = nn.Conv3d(wide, narrow, 3, padding=1, bias=False)
        self.norm_a = nn.GroupNorm(groups, narrow)
        self.conv_b = nn.Conv3d(narrow, narrow, 3, padding=1, bias=False)
        self.norm_b = nn.GroupNorm(groups, narrow)
        self.match = nn.Conv3d(wide, narrow, 1) if wide != narrow else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norm_a(self.conv_a(x)))
        y = self.norm_b(self.conv_b(y))
        return functional.relu(y + self.match(x))


class Supervised(nn.Module):
    """The plain network of nnU-Net: strides, a head on each level, layers under two names."""

    def __init__(self, channels: int, classes: int, widths: Sequence[int], dims: int = 2) -> None:
        super().__init__()
        self.encoder = nn.Module()
        stages, wide = [], channels
        for level, width in enumerate(widths):
            stages.append(nn.Sequential(Stacked(wide, width, 2 if level else 1, dims)))
            wide = width
        self.encoder.stages = nn.Sequential(*stages)
        self.decoder = nn.Module()
        self.decoder.encoder = self.encoder
        up = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}[dims]
        head = {2: nn.Conv2d, 3: nn.Conv3d}[dims]
        deep = list(reversed(widths))
        self.decoder.stages = nn.ModuleList(Stacked(2 * b, b, 1, dims) for b in deep[1:])
        self.decoder.transpconvs = nn.ModuleList(up(a, b, 2, 2) for a, b in pairwise(deep))
        self.decoder.seg_layers = nn.ModuleList(head(b, classes, 1) for b in deep[1:])

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for stage in self.encoder.stages:
            x = stage(x)
            skips.append(x)
        skips.pop()
        for up, stage in zip(self.decoder.transpconvs, self.decoder.stages, strict=True):
            x = stage(torch.cat((up(x), skips.pop()), 1))
        return self.decoder.seg_layers[-1](x)


class Stacked(nn.Module):
    def __init__(self, wide: int, narrow: int, stride: int, dims: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            NormedOnce(wide, narrow, stride, dims), NormedOnce(narrow, narrow, 1, dims)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.convs(x)


class NormedOnce(nn.Module):
    def __init__(self, wide: int, narrow: int, stride: int, dims: int) -> None:
        super().__init__()
        conv = {2: nn.Conv2d, 3: nn.Conv3d}[dims]
        norm = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[dims]
        self.conv = conv(wide, narrow, 3, stride, 1)
        self.norm = norm(narrow, affine=True)
        self.all_modules = nn.Sequential(self.conv, self.norm, nn.LeakyReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.all_modules(x)


class Kaggle(nn.Module):
    """Flat names c1 … c9 with a letter, u6 … u9, dropout between, ELU, as in a Keras notebook."""

    def __init__(self, channels: int, classes: int, base: int, depth: int = 3) -> None:
        super().__init__()
        self.depth = depth
        wide = channels
        for level in range(depth + 1):
            width = base << level
            setattr(self, f"c{level + 1}_1", nn.Conv2d(wide, width, 3, padding=1))
            setattr(self, f"c{level + 1}_2", nn.Conv2d(width, width, 3, padding=1))
            wide = width
        for place in range(depth):
            number, width = depth + 2 + place, wide // 2
            setattr(self, f"u{number}", nn.ConvTranspose2d(wide, width, 2, 2))
            setattr(self, f"c{number}_1", nn.Conv2d(wide, width, 3, padding=1))
            setattr(self, f"c{number}_2", nn.Conv2d(width, width, 3, padding=1))
            wide = width
        self.outputs = nn.Conv2d(wide, classes, 1)

    def _block(self, number: int, x: Tensor) -> Tensor:
        x = functional.elu(getattr(self, f"c{number}_1")(x))
        return functional.elu(getattr(self, f"c{number}_2")(functional.dropout(x, 0.1, False)))

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for number in range(1, self.depth + 2):
            x = self._block(number, functional.max_pool2d(x, 2) if number > 1 else x)
            skips.append(x)
        skips.pop()
        for number in range(self.depth + 2, 2 * self.depth + 2):
            x = self._block(number, torch.cat([getattr(self, f"u{number}")(x), skips.pop()], 1))
        return self.outputs(x)


TUTORIALS: dict[
    str, tuple[Callable[[], nn.Module], int, tuple[int, ...], dict[str, str | float]]
] = {
    "lists of ELU": (lambda: EluLists(2, 3, (6, 10, 14)), 2, (16, 24), {"activation": "elu"}),
    "a dict of GELU and groups": (
        lambda: GeluGroups(1, 2, 8), 1, (16, 24),
        {"activation": "gelu", "norm": "group", "groups": 4, "skip_order": "skip-first"},
    ),
    "16 groups": (
        lambda: GeluGroups(3, 1, 16, 16), 3, (16, 24),
        {"activation": "gelu", "norm": "group", "groups": 16, "skip_order": "skip-first"},
    ),
    "averaged volumes": (
        lambda: AveragedVolumes(1, 2, 4), 1, (8, 8, 12),
        {"activation": "leaky_relu", "slope": 0.1, "pooling": "average",
         "upsampling": "linear-aligned"},
    ),
    "volumes with bare norms": (
        lambda: BareInstance(2, 3, 4), 2, (8, 8, 12), {"activation": "leaky_relu"},
    ),
    "residual before the convolution": (
        lambda: PreActivated(3, 1, (4, 8, 16, 24)), 3, (32, 24), {},
    ),
    "residual SiLU": (
        lambda: ResidualSilu(1, 1, 6), 1, (16, 24),
        {"activation": "silu", "residual_end": "before", "upsampling": "nearest"},
    ),
    "gated": (lambda: GatedBySkips(1, 2, 4), 1, (16, 24), {"skip_order": "skip-first"}),
    "activation, then norm": (
        lambda: OneSequence(1, 2, 4), 1, (16, 24), {"skip_order": "skip-first"},
    ),
    "thin": (
        lambda: Thin(1, 4), 1, (16, 24), {"activation": "silu", "upsampling": "nearest"},
    ),
    "five levels": (lambda: FiveLevels(3, 2, 2), 3, (32, 48), {"eps": 1e-3}),
    "learned halving": (lambda: LearnedHalving(1, 2, 4), 1, (16, 24), {}),
    "layer norm": (
        lambda: LayerNormed(2, 2, 4), 2, (16, 24),
        {"activation": "mish", "norm": "group", "groups": 1, "skip_order": "skip-first",
         "upsampling": "nearest"},
    ),
    "32 groups": (
        lambda: LayerNormed(1, 2, 32, 32), 1, (16, 24),
        {"activation": "mish", "norm": "group", "groups": 32, "skip_order": "skip-first",
         "upsampling": "nearest"},
    ),
    "a fork": (lambda: ForkOfMilesial(3, 2, 5), 3, (16, 24), {}),
    "unpadded": (
        lambda: Unpadded(1, 2, 5), 1, (36, 44), {"activation": "selu", "padding": "unpadded"},
    ),
    "residual volumes": (
        lambda: Residual3D(1, 2, 4), 1, (8, 8, 12), {"norm": "group", "groups": 2},
    ),
    "nnU-Net": (lambda: Supervised(1, 2, (4, 6, 8, 8)), 1, (32, 48), {}),
    "nnU-Net of volumes": (lambda: Supervised(2, 3, (4, 6, 8), 3), 2, (8, 16, 12), {}),
    "a notebook": (lambda: Kaggle(3, 1, 4), 3, (16, 24), {"activation": "elu"}),
}  # fmt: skip
"""By name: what makes the network, channels, size of an image, and what a person has to say."""
