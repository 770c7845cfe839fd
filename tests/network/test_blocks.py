"""The parts of the network, one by one."""

from __future__ import annotations

import torch
from torch import nn

from napari_unet.network.blocks import Block, Gate, PyramidPooling
from napari_unet.settings import Architecture


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
