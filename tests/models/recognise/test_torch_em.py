from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from napari_unet.errors import ModelError
from napari_unet.models.recognise import recognise
from napari_unet.models.recognise.layers import Layers
from napari_unet.models.recognise.torch_em import HALVED, recognise_torch_em
from tests.models.recognise.comparing import (
    built,
    is_refused,
    is_same,
    mutilated,
    noise,
    shaken,
)

if TYPE_CHECKING:
    from pathlib import Path

    from napari_unet.models.found import Found

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
POOL = {2: functional.max_pool2d, 3: functional.max_pool3d}
LINEAR = {2: "bilinear", 3: "trilinear"}
NORMS: dict[str, dict[int, Any]] = {
    "instance": {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d},
    "batch": {2: nn.BatchNorm2d, 3: nn.BatchNorm3d},
}


class Block(nn.Module):
    """Norm, convolution, ReLU, twice; called ``block`` as the library does."""

    def __init__(self, dims: int, wide: int, narrow: int, norm: str, kernel: Any = 3) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        kernels = (kernel,) * dims if isinstance(kernel, int) else kernel
        for channels in (wide, narrow):
            if norm == "group":
                steps.append(nn.GroupNorm(min(32, channels), channels))
            elif norm == "tracked":
                steps.append(
                    NORMS["instance"][dims](channels, affine=True, track_running_stats=True)
                )
            elif norm != "none":
                steps.append(NORMS[norm][dims](channels))
            margins = tuple(size // 2 for size in kernels)
            steps += [CONV[dims](channels, narrow, kernels, padding=margins), nn.ReLU()]
        self.block = nn.Sequential(*steps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(x)


class Sampler(nn.Module):
    def __init__(self, dims: int, wide: int, narrow: int) -> None:
        super().__init__()
        self.conv = CONV[dims](wide, narrow, 1)


class Way(nn.Module):
    """The way down or up."""

    def __init__(self, blocks: list[Block], samplers: list[Sampler] | None = None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        if samplers is not None:
            self.samplers = nn.ModuleList(samplers)


class TorchEm(nn.Module):
    """The UNet of torch-em, as published."""

    def __init__(
        self,
        dims: int = 2,
        channels: int = 1,
        classes: int | None = 1,
        widths: tuple[int, ...] = (4, 8, 16),
        norm: str = "instance",
        factors: tuple[tuple[int, ...], ...] = (),
        sides: bool = False,
        halved: bool = False,
        cubes: bool = False,
    ) -> None:
        super().__init__()
        self.dims, self.halved = dims, halved
        self.factors = factors or ((2,) * dims,) * (len(widths) - 1)
        kernels = [
            tuple(1 if step == 1 and not cubes else 3 for step in factor) for factor in self.factors
        ]
        ins = (channels, *widths)
        self.encoder = Way(
            [Block(dims, ins[i], ins[i + 1], norm, kernel) for i, kernel in enumerate(kernels)]
        )
        self.base = Block(dims, widths[-2], widths[-1], norm)
        down = widths[::-1]
        pairs = list(zip(down, down[1:], kernels[::-1], strict=False))
        self.decoder = Way(
            [Block(dims, 2 * narrow, narrow, norm, kernel) for _, narrow, kernel in pairs],
            [Sampler(dims, wide, narrow) for wide, narrow, _ in pairs],
        )
        if sides:
            heads = [CONV[dims](narrow, classes or 1, 1) for _, narrow, _ in pairs]
            self.out_conv: nn.Module | None = nn.ModuleList(heads)
        else:
            self.out_conv = CONV[dims](widths[0], classes, 1) if classes else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for block, factor in zip(self.encoder.blocks, self.factors, strict=True):
            skips.append(block(x))
            x = POOL[self.dims](skips[-1], factor)
        x = self.base(x)
        ups = zip(
            self.decoder.blocks, self.decoder.samplers, self.factors[::-1], skips[::-1], strict=True
        )
        for block, sampler, factor, skip in ups:
            x = functional.interpolate(
                x,
                scale_factor=tuple(map(float, factor)),
                mode=LINEAR[self.dims],
                align_corners=False,
            )
            x = block(torch.cat([sampler.conv(x), skip], dim=1))
        if isinstance(self.out_conv, nn.ModuleList):
            x = self.out_conv[-1](x)
        elif self.out_conv is not None:
            x = self.out_conv(x)
        return functional.interpolate(x, scale_factor=0.5) if self.halved else x


def recognised(net: nn.Module) -> list[Found]:
    found = recognise_torch_em(Layers(net.state_dict()))
    assert found is not None
    return found


def check(size: tuple[int, ...], seed: int = 0, **options: Any) -> Found:
    net = shaken(TorchEm(len(size), **options), seed)
    first = recognised(net)[0]
    assert is_same(first, net, noise(1, options.get("channels", 1), *size, seed=seed)), options
    return first


@pytest.mark.parametrize("size", [(16, 24), (8, 16, 16)])
@pytest.mark.parametrize("norm", ["instance", "batch", "group", "tracked", "none"])
def test_a_unet_of_torch_em_is_recognised_with_each_norm(size: tuple[int, ...], norm: str) -> None:
    found = check(size, norm=norm, channels=2, classes=3)
    assert found.architecture.spatial_dims == len(size)
    assert (found.architecture.in_channels, found.architecture.classes) == (2, 3)
    assert found.card["normalization"].kind == "mean-std"


def test_kernels_of_one_tell_axes_that_keep_their_size() -> None:
    check((4, 16, 16), factors=((1, 2, 2), (2, 2, 2)))


def test_steps_of_levels_whose_kernels_are_cubes_are_assumed_and_can_be_told() -> None:
    factors = ((1, 2, 2), (1, 2, 2), (2, 2, 2))
    net = shaken(TorchEm(3, widths=(4, 8, 8, 16), factors=factors, cubes=True), 0).float()
    image = noise(1, 1, 8, 16, 16).float()
    for reading in recognise(net.state_dict()):
        assert "2,2,2" in reading.assumed["strides"]
        assert reading.reread is not None
        told = reading.reread({"strides": "1x2x2,1x2x2,2"})
        assert "strides" in told.card["told"]
        assert is_same(told, net, image) == (reading.title != HALVED)
        with pytest.raises(ModelError, match="there are 3 levels"):
            reading.reread({"strides": "1x2x2,2"})


def test_the_uppermost_of_several_answers_is_kept() -> None:
    found = check((16, 16), sides=True, classes=2)
    assert [key for key in found.tensors if key.startswith("out_conv")] == [
        "out_conv_1.weight",
        "out_conv_1.bias",
    ]


def test_without_a_head_the_features_are_the_answer() -> None:
    assert check((16, 16), classes=None).architecture.classes == 4


def test_the_network_that_gives_every_other_pixel_is_the_second_reading() -> None:
    net, image = shaken(TorchEm(halved=True), 0), noise(1, 1, 16, 24)
    same = [found.title for found in recognised(net) if is_same(found, net, image)]
    assert same == [HALVED]


@pytest.mark.parametrize(
    ("folder", "title"),
    [
        ("bioimageio_fixed_shape", "answer at full size"),
        ("bioimageio_diff_output_shape", HALVED),
    ],
)
def test_real_weights_give_the_reference_of_their_package(
    data_dir: Path, folder: str, title: str
) -> None:
    place = data_dir / "weights" / folder
    state = torch.load(place / "weights.pt", weights_only=True, map_location="cpu")
    image = torch.from_numpy(np.load(place / "test_input.npy"))
    expected = np.load(place / "test_output.npy")
    image = (image - image.mean()) / (image.std(correction=0) + 1e-6)
    found = recognise_torch_em(Layers(state))
    assert found is not None
    with torch.no_grad():
        answer = next(built(reading)(image) for reading in found if reading.title == title)
    np.testing.assert_allclose(answer.numpy(), expected, rtol=0, atol=1e-5)


def test_two_images_in_one_file_count_as_channels(data_dir: Path) -> None:
    place = data_dir / "weights" / "bioimageio_multi_tensor" / "weights.pt"
    found = recognise_torch_em(Layers(torch.load(place, weights_only=True, map_location="cpu")))
    assert found is not None
    assert (found[0].architecture.in_channels, found[0].architecture.classes) == (2, 2)


@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
def test_an_incomplete_or_changed_file_is_refused_with_the_difference(norm: str) -> None:
    for key, changed in mutilated(TorchEm(norm=norm).state_dict()):
        assert is_refused(recognise_torch_em, Layers(changed)), key


def test_other_names_are_left_to_others() -> None:
    assert recognise_torch_em(Layers({"encoder.conv.weight": torch.zeros(4, 1, 3, 3)})) is None


@pytest.mark.slow
@pytest.mark.parametrize("share", range(2))
def test_hundreds_of_torch_em_networks_are_recognised(share: int) -> None:
    draw = random.Random(share)
    for seed in range(150):
        dims, depth = draw.choice([2, 2, 3]), draw.randint(1, 4)
        first, gain = draw.choice([2, 4, 5, 8]), draw.choice([1, 2, 2])
        factors = tuple(
            tuple(draw.choice([1, 2, 2]) for _ in range(dims)) if seed % 2 else (2,) * dims
            for _ in range(depth)
        )
        uneven = all(max(factor) == 2 for factor in factors)
        check(
            (2 ** (depth + 1),) * dims,
            seed,
            channels=draw.randint(1, 4),
            classes=draw.randint(1, 5),
            widths=tuple(first * gain**level for level in range(depth + 1)),
            # Group norm divides all widths into 32 groups.
            norm=draw.choice(["instance", "batch", "none", "instance" if first == 5 else "group"]),
            factors=factors if uneven else (),
            sides=draw.random() < 0.3,
        )
