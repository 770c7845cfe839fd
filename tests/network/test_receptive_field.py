"""The computed reach against gradients, and what it promises against tiles."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from napari_unet.network.receptive_field import Span, layer_reads
from napari_unet.network.unet import UNet
from napari_unet.settings import Architecture

NARROW = (2, 2, 2, 2, 2, 2)
VARIANTS: dict[str, dict[str, Any]] = {
    "no padding": {"padded": False},
    "no padding, one convolution": {"padded": False, "convolutions": 1, "output_kernel": 3},
    "no padding, residual": {"padded": False, "residual": True},
    "nearest upsampling": {"upsampling": "nearest"},
    "linear upsampling": {"upsampling": "linear"},
    "3x3 output": {"output_kernel": 3, "norm": "batch", "relu_after_upsampling": True},
    "one convolution": {"convolutions": 1, "decoder_widths": ((2, 2), (2, 2))},
    "four convolutions": {"convolutions": 4},
    "residual": {"residual": True},
    "separable": {"separable": True},
    "attention": {"attention": True},
}


def all_positive(net: UNet) -> UNet:
    """Make every dependency show: positive weights, so that no ReLU hides one; mean pooling."""
    net.pool = {2: nn.AvgPool2d, 3: nn.AvgPool3d}[net.architecture.spatial_dims](2)
    for parameter in net.parameters():
        nn.init.uniform_(parameter, 0.05, 0.1)
    return net.double().eval()


def gradient_span(net: UNet, pixels: Span, size: int) -> Span:
    """Which columns of the input change the given columns of the output."""
    image = torch.rand(1, 1, net.valid_input(1), size, dtype=torch.double, requires_grad=True)
    output = net(image)
    output[..., pixels.first : pixels.last + 1].sum().backward()
    columns = image.grad.abs().sum((0, 1, 2)).nonzero().flatten()
    return Span(int(columns.min()), int(columns.max()))


def with_orthogonal_weights(net: UNet) -> UNet:
    """Let signals reach far: with default weights far pixels hardly matter at all."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.orthogonal_(layer.weight, gain=1.6)
            nn.init.normal_(layer.bias, std=0.1)
    return net.double().eval()


@pytest.mark.parametrize(
    ("depth", "reach", "halo", "worst"),
    [(2, 22, 24, 23), (3, 46, 48, 51), (4, 94, 96, 107), (5, 190, 192, 219)],
)
def test_two_convolutions_per_level_reach_as_far_as_known(
    depth: int, reach: int, halo: int, worst: int
) -> None:
    net = UNet(Architecture(widths=NARROW[: depth + 1]))
    assert (net.stride, net.reach, net.halo, net.margin) == (2**depth, reach, halo, 0)
    spans = {phase: net.reads(Span(phase, phase)) for phase in range(net.stride)}
    assert max(max(p - span.first, span.last - p) for p, span in spans.items()) == worst
    assert net.receptive_field == max(span.last - span.first + 1 for span in spans.values())


@pytest.mark.parametrize("depth", [2, 3, 4, 5])
def test_the_reach_of_an_aligned_core_is_that_of_the_gradient(depth: int) -> None:
    net = all_positive(UNet(Architecture(widths=NARROW[: depth + 1])))
    start = net.halo + net.stride
    core = Span(start, start + net.stride - 1)
    seen = gradient_span(net, core, 2 * start + net.stride)
    assert net.reach == max(core.first - seen.first, seen.last - core.last)


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_every_phase_reads_the_span_that_its_gradient_shows(options: dict[str, Any]) -> None:
    net = all_positive(UNet(Architecture(widths=NARROW[:3], **options)))
    size = net.valid_input(2 * net.halo + 4 * net.stride)
    start = net.halo - net.margin + net.stride
    start -= start % net.stride
    for phase in range(net.stride):
        pixel = Span(start + phase, start + phase)
        assert net.reads(pixel) == gradient_span(net, pixel, size)


@pytest.mark.parametrize("options", [{"norm": "instance"}, {"norm": "group"}])
def test_a_norm_over_the_tile_is_not_exact_and_reads_beyond_the_halo(
    options: dict[str, Any],
) -> None:
    net = with_orthogonal_weights(UNet(Architecture(widths=(4, 4), **options)))
    assert not net.exact
    assert gradient_span(net, Span(64, 64), 128) == Span(0, 127)


def test_pyramid_pooling_is_not_exact_and_reads_beyond_the_halo() -> None:
    net = all_positive(UNet(Architecture(widths=(2, 2), pyramid_pooling=True)))
    assert not net.exact
    assert gradient_span(net, Span(64, 64), 128) == Span(0, 127)


def test_batch_norm_and_the_other_options_are_exact() -> None:
    options = {"norm": "batch", "residual": True, "attention": True, "separable": True}
    assert UNet(Architecture(widths=(2, 2), **options)).exact


@pytest.mark.parametrize(
    ("halo", "shift", "same"),
    [(48, 0, True), (40, 0, False), (48, 4, False)],
    ids=["the halo", "a halo one step too small", "a start off the grid"],
)
@pytest.mark.parametrize("upsampling", ["transposed", "nearest"])
def test_a_tile_gives_what_the_whole_image_gives_only_with_halo_and_grid(
    upsampling: str, halo: int, shift: int, same: bool
) -> None:
    torch.manual_seed(0)
    net = with_orthogonal_weights(
        UNet(Architecture(widths=(4, 4, 4, 4), upsampling=upsampling, norm="batch"))
    )
    # A 2x2 convolution padded to the right lets "nearest" look one step further.
    halo += net.halo - 48
    core = slice(96 + shift, 128 + shift)
    image = torch.randn(4, 1, 32, 256, dtype=torch.double)
    with torch.inference_mode():
        whole = net(image)
        tile = net(image[..., core.start - halo : core.stop + halo])
    difference = (whole[..., core] - tile[..., halo : halo + 32]).abs().max() / whole.std()
    assert (difference < 1e-9) == same
    assert same or difference > 1e-3


def test_an_unpadded_net_sees_the_same_in_a_tile_on_the_grid() -> None:
    torch.manual_seed(0)
    net = with_orthogonal_weights(UNet(Architecture(widths=(4, 4, 4), padded=False)))
    small, large = net.valid_input(1), net.valid_input(100)
    image = torch.randn(2, 1, small, large, dtype=torch.double)
    with torch.inference_mode():
        whole = net(image)[..., 8:12]
        on_grid = net(image[..., 8 : 8 + small])
        off_grid = net(image[..., 6 : 6 + small])
    assert (whole - on_grid[..., :4]).abs().max() < 1e-9
    assert (whole[..., :2] - off_grid[..., 2:4]).abs().max() > 1e-3


def test_a_layer_without_a_rule_is_named() -> None:
    with pytest.raises(TypeError, match="PixelShuffle"):
        layer_reads(nn.Sequential(nn.ReLU(), nn.PixelShuffle(2)), Span(0, 0))
