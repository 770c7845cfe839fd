"""Batch norm goes over to new images as far as they show that it helps, and no further."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from napari_unet.errors import ImageError
from napari_unet.network.batch_norm import SHARES, batch_norms, blend_statistics
from napari_unet.network.unet import UNet
from napari_unet.settings import Architecture


@pytest.fixture
def net() -> UNet:
    torch.manual_seed(0)
    return UNet(Architecture(widths=(4, 8, 16), norm="batch")).eval()


@pytest.fixture
def images() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [3 + 2 * torch.randn((2, 1, 32, 32), generator=generator) for _ in range(3)]


def first_mean(net: UNet) -> torch.Tensor:
    mean = batch_norms(net)[0].running_mean
    assert mean is not None
    return mean.clone()


def test_it_is_blended_as_far_as_the_loss_falls(net: UNet, images: list[torch.Tensor]) -> None:
    layers = batch_norms(net)
    convolution = next(layer for layer in net.modules() if isinstance(layer, nn.Conv2d))
    with torch.no_grad():
        seen = torch.cat([convolution(batch) for batch in images]).mean(dim=(0, 2, 3))
    for wanted in SHARES:
        old = first_mean(net)
        goal = torch.lerp(old, seen, wanted)

        def loss(goal: torch.Tensor = goal) -> float:
            return float((first_mean(net) - goal).abs().sum())

        assert blend_statistics(net, layers, images, loss) == wanted
        torch.testing.assert_close(first_mean(net), torch.lerp(old, seen, wanted))
        with torch.no_grad():
            layers[0].running_mean.copy_(old)


def test_where_nothing_is_gained_everything_stays(net: UNet, images: list[torch.Tensor]) -> None:
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert blend_statistics(net, batch_norms(net), images, lambda: 1.0) == 0
    for name, value in net.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, before[name]), name
    assert not any(layer.training for layer in net.modules())
    assert all(layer.momentum == 0.1 for layer in batch_norms(net))


def test_frozen_levels_keep_their_statistics(net: UNet, images: list[torch.Tensor]) -> None:
    free = batch_norms(net, frozen_levels=1)
    assert 0 < len(free) < len(batch_norms(net))
    losses = iter([5.0, 4.0, 3.0, 2.0, 1.0])
    before = first_mean(net)
    assert blend_statistics(net, free, images, lambda: next(losses)) == 1
    assert torch.equal(first_mean(net), before)


def test_a_network_without_batch_norm_is_left_alone() -> None:
    net = UNet(Architecture(widths=(4, 8), norm="instance")).eval()
    assert batch_norms(net) == []
    assert blend_statistics(net, [], [torch.zeros(1, 1, 16, 16)], lambda: 1.0) == 0


def test_what_ends_the_measuring_leaves_the_statistics_as_they_were(
    net: UNet, images: list[torch.Tensor]
) -> None:
    before = first_mean(net)

    def out_of_memory() -> float:
        raise MemoryError

    with pytest.raises(MemoryError):
        blend_statistics(net, batch_norms(net), images, out_of_memory)
    assert torch.equal(first_mean(net), before)
    with pytest.raises(ImageError):
        blend_statistics(net, batch_norms(net), [torch.zeros(1, 5, 32, 32)], lambda: 1.0)
    assert torch.equal(first_mean(net), before)
    assert not any(layer.training for layer in net.modules())
