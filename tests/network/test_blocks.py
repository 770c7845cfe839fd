"""The parts of the network, one by one."""

from __future__ import annotations

import torch
from torch import nn

from napari_unet.network.blocks import Block, Gate, PyramidPooling, make_unit, make_upsampling
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


def test_a_residual_block_of_silent_convolutions_passes_its_input_on() -> None:
    shape = Architecture(residual=True, padded=False)
    block = Block(shape, (3, 5, 3))
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    image = torch.rand(1, 3, 10, 10)
    assert torch.equal(block(image), image[..., 2:-2, 2:-2])


def test_a_gate_only_damps_and_closes_where_it_is_told() -> None:
    gate = Gate(2, skip=4, gate=2)
    skip, below = torch.rand(1, 4, 6, 6), torch.rand(1, 2, 6, 6)
    assert (gate(skip, below) < skip).all()
    nn.init.constant_(gate.attention.bias, -1e3)
    assert not gate(skip, below).any()


def test_pyramid_pooling_keeps_the_shape_even_of_a_single_pixel() -> None:
    for shape in [(2, 6, 1, 1), (1, 6, 5, 9)]:
        assert PyramidPooling(2, 6)(torch.rand(shape)).shape == shape
    assert PyramidPooling(3, 2)(torch.rand(1, 2, 3, 4, 5)).shape == (1, 2, 3, 4, 5)
