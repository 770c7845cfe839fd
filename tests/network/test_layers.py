"""The layers a network is made of, for planes and volumes."""

from __future__ import annotations

import torch
from torch import nn

from napari_unet.network.layers import draw_weights, make_unit, make_upsampling
from napari_unet.settings import Architecture


def test_the_convolution_after_resizing_is_padded_right_and_bottom_only() -> None:
    upsampling = make_upsampling(Architecture(upsampling="nearest"), 1, 1)
    for parameter in upsampling.parameters():
        nn.init.zeros_(parameter)
    upsampling.convolution.weight.data[0, 0, 1, 1] = 1  # reads the neighbour below and to the right
    image = torch.rand(1, 1, 3, 4)
    enlarged = image.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    output = upsampling(image)
    assert torch.equal(output[..., :-1, :-1], enlarged[..., 1:, 1:])
    assert not output[..., -1, :].any()
    assert not output[..., -1].any()


def test_separable_convolutions_are_light_but_the_one_on_the_image_is_full() -> None:
    shape = Architecture(separable=True, in_channels=3, norm="batch", bias=False)
    first, later = make_unit(shape, 3, 32), make_unit(shape, 32, 64)
    assert first.convolution.weight.shape == (32, 3, 3, 3)
    assert later.depthwise.weight.numel() == 32 * 9
    assert later.convolution.weight.numel() == 32 * 64
    assert later(first(torch.rand(1, 3, 8, 8))).shape == (1, 64, 8, 8)


def test_a_bias_is_left_out_only_where_a_norm_follows() -> None:
    assert make_unit(Architecture(bias=False, norm="batch"), 2, 2).convolution.bias is None
    assert make_unit(Architecture(bias=False), 2, 2).convolution.bias is not None
    assert (
        make_upsampling(Architecture(bias=False, norm="batch"), 2, 2).convolution.bias is not None
    )


def test_drawn_weights_keep_the_size_of_a_signal_through_a_relu_or_none() -> None:
    torch.manual_seed(0)
    shape = Architecture()
    unit, upsampling = make_unit(shape, 64, 256), make_upsampling(shape, 64, 256)
    draw_weights(unit, linear=set())
    draw_weights(upsampling, linear={upsampling.convolution})
    noise = torch.randn(1, 64, 32, 32)
    power = unit(noise)[..., 1:-1, 1:-1].square().mean()
    assert 0.9 < power < 1.1
    assert 0.9 < upsampling(noise).square().mean() < 1.1
