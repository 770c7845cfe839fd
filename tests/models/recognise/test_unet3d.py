from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from napari_unet.models.recognise import recognise
from napari_unet.models.recognise.layers import Layers
from napari_unet.models.recognise.pytorch_3dunet import recognise_pytorch_3dunet
from tests.models.recognise.comparing import is_refused, is_same, mutilated, noise, shaken

if TYPE_CHECKING:
    from napari_unet.models.found import Found

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
SPREAD = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BATCH = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOL = {2: functional.max_pool2d, 3: functional.max_pool3d}


def activation(letter: str, slope: float = 0.01) -> nn.Module:
    return {"r": nn.ReLU(), "l": nn.LeakyReLU(slope), "e": nn.ELU()}[letter]


class Single(nn.Sequential):
    """A convolution and what its order says stands around it."""

    def __init__(self, dims: int, wide: int, narrow: int, order: str, most: int = 8) -> None:
        super().__init__()
        channels = wide
        for letter in order:
            if letter == "c":
                has_norm = bool({"g", "b"} & {*order})
                self.add_module("conv", CONV[dims](wide, narrow, 3, padding=1, bias=not has_norm))
                channels = narrow
            elif letter == "g":
                groups = most if channels >= most else 1
                self.add_module("groupnorm", nn.GroupNorm(groups, channels))
            elif letter == "b":
                self.add_module("batchnorm", BATCH[dims](channels))
            else:
                self.add_module("non_linearity", activation(letter))


class Double(nn.Sequential):
    """Two convolutions; on the way down the first gives half of the channels."""

    def __init__(
        self, dims: int, wide: int, narrow: int, order: str, groups: int, *, down: bool
    ) -> None:
        middle = max(narrow // 2, wide) if down else narrow
        super().__init__()
        self.add_module("SingleConv1", Single(dims, wide, middle, order, groups))
        self.add_module("SingleConv2", Single(dims, middle, narrow, order, groups))


class Residual(nn.Module):
    """A convolution to the wanted channels, then two that are added to it."""

    def __init__(
        self, dims: int, wide: int, narrow: int, order: str, *, old: bool, attention: str
    ) -> None:
        super().__init__()
        linear = "".join(letter for letter in order if letter not in "rle")
        if old:
            self.conv1: nn.Module = Single(dims, wide, narrow, order)
        else:
            self.conv1 = nn.Identity() if wide == narrow else CONV[dims](wide, narrow, 1)
        self.conv2 = Single(dims, narrow, narrow, order)
        self.conv3 = Single(dims, narrow, narrow, linear)
        self.last = activation(next(letter for letter in order if letter in "rle"), 0.1)
        self.se_module = attend(dims, narrow, attention) if attention else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv1(x)
        return self.se_module(self.last(self.conv3(self.conv2(x)) + x))


class ChannelAttention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, channels)
        self.fc2 = nn.Linear(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.flatten(2).mean(dim=2)
        gate = torch.sigmoid(self.fc2(functional.relu(self.fc1(mean))))
        return x * gate.reshape(*gate.shape, *(1,) * (x.ndim - 2))


class PixelAttention(nn.Module):
    def __init__(self, dims: int, channels: int) -> None:
        super().__init__()
        self.conv = CONV[dims](channels, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(self.conv(x))


class BothAttentions(nn.Module):
    def __init__(self, dims: int, channels: int) -> None:
        super().__init__()
        self.cSE = ChannelAttention(channels)
        self.sSE = PixelAttention(dims, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.maximum(self.cSE(x), self.sSE(x))


def attend(dims: int, channels: int, kind: str) -> nn.Module:
    if kind == "scse":
        return BothAttentions(dims, channels)
    return ChannelAttention(channels) if kind == "cse" else PixelAttention(dims, channels)


class Step(nn.Module):
    """A level of the way down or up."""

    def __init__(self, block: nn.Module, upsampling: nn.Module | None = None) -> None:
        super().__init__()
        if upsampling is not None:
            self.upsampling = upsampling
        self.basic_module = block


class Holder(nn.Module):
    def __init__(self, **modules: nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)


class UNet3D(nn.Module):
    """The networks of pytorch-3dunet, as published; ``up``: nearest, deconv, or its older form."""

    def __init__(
        self,
        dims: int = 3,
        channels: int = 1,
        classes: int = 2,
        widths: tuple[int, ...] = (8, 16, 32),
        order: str = "gcr",
        *,
        groups: int = 8,
        residual: bool = False,
        up: str = "",
        old: bool = False,
        attention: str = "",
    ) -> None:
        super().__init__()
        self.dims, self.residual = dims, residual
        self.up = up or ("deconv" if residual else "nearest")

        def block(wide: int, narrow: int, *, down: bool) -> nn.Module:
            if residual:
                return Residual(dims, wide, narrow, order, old=old, attention=attention)
            return Double(dims, wide, narrow, order, groups, down=down)

        ins = (channels, *widths)
        self.encoders = nn.ModuleList(
            [Step(block(ins[i], ins[i + 1], down=True)) for i in range(len(widths))]
        )
        self.decoders = nn.ModuleList()
        for i in range(len(widths) - 1, 0, -1):
            wide, narrow = widths[i], widths[i - 1]
            spread, given = None, wide
            if self.up != "nearest":
                given = narrow
                is_old = self.up == "old deconv"
                layer = SPREAD[dims](wide, narrow, 3, stride=2, padding=1, bias=is_old)
                spread = Holder(upsample=layer if is_old else Holder(conv_transposed=layer))
            wide_block = narrow if residual else given + narrow
            self.decoders.append(Step(block(wide_block, narrow, down=False), spread))
        self.final_conv = CONV[dims](widths[0], classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for level, step in enumerate(self.encoders):
            x = step.basic_module(POOL[self.dims](x, 2) if level else x)
            skips.append(x)
        skips.pop()
        for step in self.decoders:
            skip = skips.pop()
            size = skip.shape[2:]
            if self.up == "old deconv":
                x = step.upsampling.upsample(x, size)
            else:
                if self.up == "deconv":
                    x = step.upsampling.upsample.conv_transposed(x)
                x = functional.interpolate(x, size)
            x = step.basic_module(skip + x if self.residual else torch.cat([skip, x], dim=1))
        return self.final_conv(x)


def recognised(net: nn.Module) -> list[Found]:
    found = recognise_pytorch_3dunet(Layers(net.state_dict()))
    assert found is not None
    return found


def same(size: tuple[int, ...], seed: int = 0, **options: Any) -> list[str]:
    """Titles of the readings that compute what the original does."""
    net = shaken(UNet3D(len(size), **options), seed)
    image = noise(1, options.get("channels", 1), *size, seed=seed)
    return [found.title for found in recognised(net) if is_same(found, net, image)]


def first_is_same(size: tuple[int, ...], seed: int = 0, **options: Any) -> bool:
    net = shaken(UNet3D(len(size), **options), seed)
    image = noise(1, options.get("channels", 1), *size, seed=seed)
    return is_same(recognised(net)[0], net, image)


@pytest.mark.parametrize("size", [(16, 24), (8, 16, 16)])
@pytest.mark.parametrize("order", ["gcr", "cgr", "bcr", "cbr", "cr"])
def test_the_side_of_the_norm_is_told_by_its_channels(size: tuple[int, ...], order: str) -> None:
    assert first_is_same(size, order=order)


@pytest.mark.parametrize(
    ("order", "title"),
    [
        ("gcl", "LeakyReLU with slope 0.01"),
        ("gce", "ELU"),
        ("cge", "ELU"),
        ("crg", "ReLU before the norm"),
        ("crb", "ReLU before the norm"),
        ("clg", "LeakyReLU with slope 0.01 before the norm"),
        ("clb", "LeakyReLU with slope 0.01 before the norm"),
        ("ceg", "ELU before the norm"),
        ("cbl", "LeakyReLU with slope 0.01"),
        ("ce", "ELU"),
    ],
)
def test_the_letters_that_leave_no_tensors_are_among_the_readings(order: str, title: str) -> None:
    assert same((16, 16), order=order) == [title]


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("order", ["crg", "clb", "ceg"])
def test_order_and_activation_are_assumed_and_can_be_told(order: str, residual: bool) -> None:
    net = shaken(UNet3D(2, order=order, residual=residual), 0)
    first = recognise(net.state_dict())[0]
    assert {"order of norm and activation", "activation of the layers"} <= first.assumed.keys()
    kind = {"r": "relu", "l": "leaky_relu", "e": "elu"}[order[1]]
    for told in ({"activation": kind}, {"order": "activation-norm"}):
        assert first.reread is not None
        first = first.reread(told)
    assert is_same(first, net.float(), noise(1, 1, 16, 16).float())
    assert {"order of norm and activation", "activation of the layers"} <= first.card["told"].keys()


@pytest.mark.parametrize("order", ["gcr", "cge", "bcr"])
@pytest.mark.parametrize("up", ["deconv", "old deconv"])
def test_a_residual_network_adds_its_skips(order: str, up: str) -> None:
    assert first_is_same((8, 16, 16), order=order, residual=True, up=up, old=up == "old deconv")


def test_order_in_the_file_tells_the_side_of_the_norm_in_a_residual_network() -> None:
    assert same((16, 16), order="cgr", residual=True) == ["ReLU"]
    assert same((16, 16), order="gcr", residual=True) == ["ReLU"]


@pytest.mark.parametrize("attention", ["scse", "cse", "sse"])
def test_squeeze_and_excitation_is_recognised(attention: str) -> None:
    assert first_is_same((8, 16, 16), residual=True, attention=attention)


def test_transposed_convolutions_with_concatenation_are_recognised() -> None:
    assert first_is_same((16, 16), up="deconv")


@pytest.mark.parametrize("up", ["nearest", "deconv"])
def test_features_from_below_take_the_odd_size_of_the_skip(up: str) -> None:
    assert first_is_same((17, 23), up=up)


def test_the_names_tell_that_planes_and_volumes_differ_and_what_is_assumed() -> None:
    for dims in (2, 3):
        found = recognised(UNet3D(dims, channels=3, classes=4))[0]
        assert found.architecture.spatial_dims == dims
        assert (found.architecture.in_channels, found.architecture.classes) == (3, 4)
        assert found.card["activation"] == "sigmoid"
        assert "softmax" in found.assumed["activation"]
        assert "8 groups" in found.assumed["kind of norm"]


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("order", ["gcr", "cbr", "cr"])
def test_an_incomplete_or_changed_file_is_refused_with_the_difference(
    residual: bool, order: str
) -> None:
    attention = "scse" if residual else ""
    net = UNet3D(2, widths=(8, 8, 16), order=order, residual=residual, attention=attention)
    for key, changed in mutilated(net.state_dict()):
        assert is_refused(recognise_pytorch_3dunet, Layers(changed)), key


def test_groups_that_do_not_divide_the_channels_are_not_assumed() -> None:
    assert first_is_same((16, 16), widths=(4, 8, 16), groups=4)


def test_other_names_are_left_to_others() -> None:
    other = Layers({"encoders.0.conv.weight": torch.zeros(4, 1, 3, 3)})
    assert recognise_pytorch_3dunet(other) is None


@pytest.mark.slow
@pytest.mark.parametrize("share", range(2))
def test_hundreds_of_networks_of_pytorch_3dunet_are_recognised(share: int) -> None:
    draw = random.Random(share)
    for seed in range(150):
        dims, depth = draw.choice([2, 2, 3]), draw.randint(2, 4)
        residual = draw.random() < 0.4
        order = draw.choice(["gcr", "cge" if residual else "cgr", "bcr", "cr"])
        options: dict[str, Any] = {
            "channels": draw.randint(1, 4),
            "classes": draw.randint(1, 5),
            "widths": tuple(draw.choice([2, 3, 4, 6, 8, 16]) for _ in range(depth)),
            "order": order,
            "residual": residual,
            "up": draw.choice(["", "deconv", "old deconv"]),
            "attention": draw.choice(["", "scse"]) if residual else "",
        }
        if "g" in order and not residual:
            # Channels of two levels meet in a norm, which has to divide into groups.
            options["widths"] = tuple(draw.choice([8, 16]) for _ in range(depth))
            options["channels"] = 1
        assert first_is_same((2**depth,) * dims, seed, **options), options
