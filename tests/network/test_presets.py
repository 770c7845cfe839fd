"""The five published U-Nets: their counts, shapes and particulars, and that they can learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from scipy import ndimage
from torch import nn
from torch.nn import functional

from napari_unet.errors import SettingError
from napari_unet.network.presets import PRESETS, find_preset
from napari_unet.network.unet import UNet

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


def build(name: str, **options: object) -> UNet:
    """Build a preset without memory for its weights: shapes and counts only."""
    with torch.device("meta"):
        return UNet.from_preset(name, **options)


def trainable(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)


def convolutions(net: nn.Module) -> list[nn.Module]:
    return [layer for layer in net.modules() if isinstance(layer, CONVOLUTIONS)]


@pytest.mark.parametrize(
    ("name", "channels", "classes", "count"),
    [
        ("ronneberger2015", 1, 2, 31_030_658),
        ("same-bn", 3, 1, 31_043_521),
        ("light-bn", 1, 1, 487_449),
        ("upconv-dropout", 3, 2, 31_032_834),
        ("three-level", 1, 1, 167_937),
    ],
)
def test_a_preset_has_the_published_number_of_parameters(
    name: str, channels: int, classes: int, count: int
) -> None:
    assert trainable(build(name)) == count
    assert trainable(build(name, in_channels=channels, classes=classes)) == count
    assert (PRESETS[name].in_channels, PRESETS[name].classes) == (channels, classes)
    assert PRESETS[name].preset == name


def test_keras_counts_the_statistics_of_same_bn_too() -> None:
    net = build("same-bn")
    statistics = [b.numel() for n, b in net.named_buffers() if not n.endswith("tracked")]
    assert trainable(net) + sum(statistics) == 31_055_297


@pytest.mark.parametrize(
    ("name", "widths"),
    [
        ("ronneberger2015", [64, 128, 256, 512, 1024]),
        ("same-bn", [64, 128, 256, 512, 1024]),
        ("light-bn", [8, 16, 32, 64, 128]),
        ("upconv-dropout", [64, 128, 256, 512, 1024]),
    ],
)
def test_every_level_is_as_wide_as_published_on_both_ways(name: str, widths: list[int]) -> None:
    net = build(name)
    assert [block.units[-1].convolution.out_channels for block in net.down] == widths
    assert [stage.upsampling.convolution.out_channels for stage in net.up] == widths[-2::-1]
    assert [stage.block.units[0].convolution.in_channels for stage in net.up] == [
        2 * width for width in widths[-2::-1]
    ]
    assert len(convolutions(net)) == 23


def test_the_paper_gives_388_pixels_for_572_and_nothing_for_500() -> None:
    net = build("ronneberger2015")
    assert net(torch.empty(1, 1, 572, 572, device="meta")).shape == (1, 2, 388, 388)
    assert (net.margin, net.stride, net.halo) == (92, 16, 96)
    assert (net.output_size(572), net.output_size(500), net.valid_input(500)) == (388, 0, 508)
    assert (net.valid_input(1), net.output_size(188)) == (188, 4)


def test_the_paper_is_computed_as_written() -> None:
    torch.manual_seed(0)
    net = UNet.from_preset("ronneberger2015", widths=(2, 3, 4, 5, 6)).double().eval()
    weights = iter(net.state_dict().values())

    def convolve(x: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(x, next(weights), next(weights))

    image = torch.randn(1, 1, 188, 204, dtype=torch.double)
    x, skips = image, []
    for level in range(5):
        x = functional.max_pool2d(x, 2) if level else x
        x = convolve(x).relu()
        x = convolve(x).relu()
        skips.append(x)
    for skip in skips[-2::-1]:
        x = functional.conv_transpose2d(x, next(weights), next(weights), stride=2)
        y0, x0 = (skip.shape[2] - x.shape[2]) // 2, (skip.shape[3] - x.shape[3]) // 2
        x = torch.cat([x, skip[..., y0 : y0 + x.shape[2], x0 : x0 + x.shape[3]]], dim=1)
        x = convolve(x).relu()
        x = convolve(x).relu()
    expected = convolve(x)
    assert expected.shape == (1, 2, 4, 20)
    torch.testing.assert_close(net(image), expected, rtol=0, atol=1e-12)


def test_light_bn_normalises_after_every_convolution_but_the_3x3_output() -> None:
    net = build("light-bn")
    assert len(net.state_dict()) == 156
    norms = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(norms) == len(convolutions(net)) - 1 == 22
    assert net.output.kernel_size == (3, 3)
    parts = [type(layer) for layer in net.up[0].upsampling]
    assert parts == [nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU]


def test_same_bn_normalises_after_3x3_convolutions_only_and_as_keras_does() -> None:
    net = build("same-bn")
    norms = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(norms) == 18
    assert {norm.eps for norm in norms} == {1e-3}
    assert [type(layer) for layer in net.up[0].upsampling] == [nn.ConvTranspose2d]


def test_upconv_dropout_resizes_and_ends_in_a_3x3_convolution() -> None:
    net = build("upconv-dropout")
    assert [type(layer).__name__ for layer in net.up[0].upsampling] == [
        "Upsample",
        "ZeroPad2d",
        "Conv2d",
        "ReLU",
    ]
    assert net.output.kernel_size == (3, 3)


@pytest.mark.parametrize("name", ["ronneberger2015", "upconv-dropout"])
def test_dropout_stands_on_the_two_deepest_levels(name: str) -> None:
    rates = [getattr(block.dropout, "p", 0.0) for block in build(name).down]
    assert rates == [0, 0, 0, 0.5, 0.5]


def test_three_level_has_one_convolution_a_level_and_the_sketched_widths() -> None:
    net = build("three-level")
    assert [layer.out_channels for layer in convolutions(net)] == [32, 64, 128, 64, 32, 16, 8, 1]
    assert [layer.in_channels for layer in convolutions(net)] == [1, 32, 64, 128, 128, 32, 48, 8]
    assert net(torch.empty(1, 1, 64, 64, device="meta")).shape == (1, 1, 64, 64)


@pytest.mark.parametrize(("name", "first"), [("same-bn", False), ("upconv-dropout", True)])
def test_the_skip_joins_on_the_published_side(name: str, first: bool) -> None:
    net = UNet.from_preset(name, widths=(2, 3)).eval()
    seen = {}
    net.down[0].register_forward_hook(lambda *call: seen.update(skip=call[-1]))
    net.up[0].block.register_forward_pre_hook(lambda _, given: seen.update(joined=given[0]))
    net(torch.rand(1, 3, 8, 8))
    half = seen["joined"][:, :2] if first else seen["joined"][:, 2:]
    assert torch.equal(half, seen["skip"])


@pytest.mark.parametrize("name", ["ronneberger2015", "upconv-dropout"])
def test_the_first_weights_neither_silence_nor_blow_up_the_signal(name: str) -> None:
    torch.manual_seed(0)
    net = UNet.from_preset(name, in_channels=1, widths=(16, 32, 64, 128, 256)).eval()
    with torch.inference_mode():
        logits = net(torch.randn(1, 1, 220 if net.margin else 64, 220 if net.margin else 64))
    assert 0.1 < logits.std() < 10


def test_an_unknown_preset_is_answered_with_the_known_ones() -> None:
    with pytest.raises(SettingError, match=r"no preset 'unet'.*three-level"):
        find_preset("unet")


# The paper's net at a quarter of its widths: unpadded, it sees 252 x 252 px to give 68 x 68.
BY_HEART: dict[str, tuple[dict[str, Any], float, int]] = {
    "ronneberger2015": ({"widths": (16, 32, 64, 128, 256)}, 1e-3, 30),
    "same-bn": ({"in_channels": 1}, 3e-4, 20),
    "light-bn": ({}, 1e-2, 50),
    "upconv-dropout": ({"in_channels": 1}, 1e-4, 25),
    "three-level": ({}, 3e-3, 50),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_learns_one_real_image_by_heart(name: str) -> None:
    options, rate, steps = BY_HEART[name]
    torch.manual_seed(0)
    net = UNet.from_preset(name, **options)
    image, truth = coins(net.valid_input(64 + 2 * net.margin))
    kept = slice(net.margin, truth.shape[1] - net.margin)
    truth = truth[:, kept, kept]
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    before = dice(net, image, truth)
    for _ in range(steps):
        logits = net.train()(image)
        loss = (
            functional.binary_cross_entropy_with_logits(logits[:, 0], truth)
            if logits.shape[1] == 1
            else functional.cross_entropy(logits, truth.long())
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert before < 0.75
    assert dice(net, image, truth) > 0.94


def coins(side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The middle of a real image, and which pixels belong to a coin, its dark ones too."""
    image = skimage.data.coins().astype(np.float32)
    inside = ndimage.binary_fill_holes(ndimage.gaussian_filter(image, 1) > 107)
    window = np.s_[150 - side // 2 :, 200 - side // 2 :]
    image, inside = image[window][:side, :side], inside[window][:side, :side]
    image = (image - image.mean()) / image.std()
    return torch.from_numpy(image)[None, None], torch.from_numpy(inside).float()[None]


@torch.inference_mode()
def dice(net: UNet, image: torch.Tensor, truth: torch.Tensor) -> float:
    logits = net.eval()(image)
    found = (logits[:, 0] > 0 if logits.shape[1] == 1 else logits.argmax(1) == 1).float()
    return float(2 * (found * truth).sum() / (found.sum() + truth.sum()))
