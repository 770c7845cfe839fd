"""The network as a whole: its options, what it refuses, freezing, dropout."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch

from napari_unet.errors import ImageError, SettingError, TileSizeError
from napari_unet.network.unet import UNet
from napari_unet.settings import Architecture

SWITCHES = ("separable", "attention", "pyramid_pooling", "residual")
COMBINATIONS = [
    *[{"norm": norm} for norm in ("none", "batch", "instance", "group")],
    *[{switch: True} for switch in SWITCHES],
    *[{first: True, second: True} for first, second in itertools.combinations(SWITCHES, 2)],
    dict.fromkeys(SWITCHES, True) | {"norm": "group", "dropout": 0.2, "bias": False},
    {"upsampling": "linear", "relu_after_upsampling": True, "norm": "batch"},
    {"upsampling": "nearest", "skip_first": True, "output_kernel": 3, "convolutions": 3},
    {"decoder_widths": ((4, 3, 5), (2, 6)), "in_channels": 3, "classes": 4},
]


def name_of(options: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in options.items())


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("padded", [True, False], ids=["padded", "unpadded"])
@pytest.mark.parametrize("options", COMBINATIONS, ids=name_of)
def test_every_option_builds_gives_the_promised_size_and_learns_in_every_weight(
    options: dict[str, Any], padded: bool, spatial_dims: int
) -> None:
    torch.manual_seed(0)
    shape = Architecture(widths=(4, 6, 8), padded=padded, spatial_dims=spatial_dims, **options)
    net = UNet(shape)
    side = net.valid_input(8)
    logits = net(torch.randn(2, shape.in_channels, *(side,) * spatial_dims))
    assert logits.shape == (2, shape.classes, *(net.output_size(side),) * spatial_dims)
    logits.square().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_3d_is_a_parameter_of_every_preset() -> None:
    for name in ("ronneberger2015", "same-bn", "light-bn", "upconv-dropout"):
        net = UNet.from_preset(name, in_channels=2, spatial_dims=3, widths=(2, 3))
        flat = UNet.from_preset(name, in_channels=2, widths=(2, 3))
        assert (net.stride, net.halo, net.margin) == (flat.stride, flat.halo, flat.margin)
        lost = 2 * net.margin
        assert net(torch.rand(1, 2, 18, 20, 22)).shape[2:] == (18 - lost, 20 - lost, 22 - lost)


def test_sizes_of_the_axes_may_differ() -> None:
    net = UNet(Architecture(widths=(2, 3, 4))).eval()
    assert net(torch.rand(1, 1, 4, 36)).shape == (1, 1, 4, 36)


@pytest.mark.parametrize(
    ("options", "shape", "sentence"),
    [
        ({}, (500, 500), r"Tile 500 x 500 px .* 5 levels.* multiple of 16 px, e.g. 512 x 512\."),
        ({}, (8, 32), r"Tile 8 x 32 px .* e.g. 16 x 32\."),
        ({"norm": "instance"}, (16, 16), r"multiple of 16 px, e.g. 32 x 32\."),
        ({"padded": False}, (500, 64), r"Choose 188 plus a multiple of 16 px, e.g. 508 x 188\."),
    ],
)
def test_a_wrong_size_is_answered_with_the_size_to_use(
    options: dict[str, Any], shape: tuple[int, int], sentence: str
) -> None:
    net = UNet(Architecture(widths=(1,) * 5, **options))
    with pytest.raises(TileSizeError, match=sentence):
        net(torch.zeros(1, 1, *shape))


def test_the_size_to_use_is_always_accepted_and_none_below_it_fits() -> None:
    for options in ({}, {"padded": False}, {"padded": False, "convolutions": 1}):
        net = UNet(Architecture(widths=(1, 1, 1), **options)).eval()
        for size in range(1, 64):
            use = net.valid_input(size)
            assert use >= size
            assert not any(net.output_size(smaller) for smaller in range(size, use))
            assert net(torch.zeros(1, 1, use, use)).shape[2] == net.output_size(use) > 0


def test_wrong_channels_or_axes_are_told() -> None:
    net = UNet(Architecture(widths=(2, 3), in_channels=3))
    for shape in [(1, 1, 8, 8), (3, 8, 8), (1, 3, 8, 8, 8)]:
        with pytest.raises(ImageError, match="sees batches of 3 channels and 2 spatial axes"):
            net(torch.zeros(shape))


def test_options_that_contradict_each_other_are_refused() -> None:
    for options, reason in [
        ({"widths": (8,)}, "widths"),
        ({"widths": (8, 0)}, "feature channel"),
        ({"decoder_widths": ((4, 4),)}, "decoder_widths needs one entry"),
        ({"decoder_widths": ((4,), (4,), (4,), (4,))}, "the upsampling and 1..4 widths"),
        ({"dropout_levels": 9}, "dropout_levels"),
        ({"colour": True}, "colour"),
    ]:
        with pytest.raises(SettingError, match=reason):
            UNet.from_preset("same-bn", **options)


def test_frozen_levels_stay_as_they_are_while_the_others_learn() -> None:
    torch.manual_seed(0)
    net = UNet(Architecture(widths=(4, 4, 4), norm="batch")).train()
    net.freeze_levels(2)
    net.train()  # as a training loop does at every step
    before = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    net(torch.randn(2, 1, 16, 16)).square().mean().backward()
    optimizer.step()
    same = {key for key, value in net.state_dict().items() if torch.equal(value, before[key])}
    assert same == {key for key in before if key.startswith(("down.0.", "down.1."))}
    net.freeze_levels(0)
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert all(module.training for module in net.modules())


def test_more_levels_than_there_are_cannot_be_frozen() -> None:
    with pytest.raises(SettingError, match=r"Choose 0 to 2\."):
        UNet(Architecture(widths=(2, 2))).freeze_levels(3)


def test_dropout_is_random_in_training_only() -> None:
    net = UNet(Architecture(widths=(8, 8, 8), dropout=0.5))
    image = torch.rand(1, 1, 16, 16)
    assert not torch.equal(net(image), net(image))
    net.eval()
    assert torch.equal(net(image), net(image))


def test_the_order_of_the_images_in_a_batch_does_not_matter() -> None:
    net = UNet(Architecture(widths=(4, 8), norm="batch", attention=True)).double().eval()
    images = torch.randn(3, 1, 8, 8, dtype=torch.double)
    torch.testing.assert_close(net(images.flip(0)), net(images).flip(0))


def test_a_copy_and_a_net_loaded_from_its_weights_give_the_same() -> None:
    net = UNet(Architecture(widths=(4, 8), norm="batch", padded=False)).eval()
    with torch.device("meta"):
        empty = UNet(net.architecture).eval()
    empty.load_state_dict(net.state_dict(), assign=True)
    image = torch.rand(1, 1, 20, 20)
    assert torch.equal(copy.deepcopy(net)(image), net(image))
    assert torch.equal(empty(image), net(image))
