from __future__ import annotations

import random
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch

from napari_unet.errors import ModelError
from napari_unet.models.recognise.layers import Layers
from napari_unet.models.recognise.monai_attention_unet import recognise_attention_unet
from napari_unet.models.recognise.monai_basic_unet import recognise_basic_unet
from napari_unet.models.recognise.monai_dynunet import recognise_dynunet
from napari_unet.models.recognise.monai_unet import recognise_monai_unet
from tests.models.recognise.comparing import (
    difference,
    is_refused,
    is_same,
    mutilated,
    noise,
    shaken,
)

if TYPE_CHECKING:
    from napari_unet.models.found import Found

pytestmark = pytest.mark.slow  # MONAI alone takes seconds to import

RECOGNISERS = {
    "BasicUNet": recognise_basic_unet,
    "UNet": recognise_monai_unet,
    "DynUNet": recognise_dynunet,
    "AttentionUnet": recognise_attention_unet,
}


@pytest.fixture(scope="module")
def nets() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("monai")
        import monai.networks.nets

    return monai.networks.nets


def recognised(name: str, net: torch.nn.Module) -> list[Found]:
    found = RECOGNISERS[name](Layers(net.state_dict()))
    assert found is not None
    return found


def check(nets: Any, name: str, size: tuple[int, ...], seed: int = 0, **options: Any) -> Found:
    net = shaken(getattr(nets, name)(spatial_dims=len(size), **options), seed)
    first = recognised(name, net)[0]
    assert first.architecture.in_channels == options["in_channels"]
    assert first.architecture.classes == options["out_channels"]
    assert is_same(first, net, noise(1, options["in_channels"], *size, seed=seed)), options
    return first


BASIC = {"in_channels": 1, "out_channels": 2, "features": (4, 4, 8, 8, 12, 6)}


@pytest.mark.parametrize("size", [(32, 48), (32, 32, 32)])
@pytest.mark.parametrize("upsample", ["deconv", "pixelshuffle", "nontrainable"])
def test_a_basic_unet_is_recognised_with_each_of_its_ways_up(
    nets: Any, size: tuple[int, ...], upsample: str
) -> None:
    found = check(nets, "BasicUNet", size, **BASIC, upsample=upsample)
    assert "LeakyReLU with slope 0.1" in found.assumed["activation of the layers"]


def test_a_basic_unet_pads_what_an_odd_size_lacks(nets: Any) -> None:
    check(nets, "BasicUNet", (45, 51), **BASIC)


def test_slopes_and_statistics_in_the_file_leave_nothing_to_assume(nets: Any) -> None:
    found = check(nets, "BasicUNet", (32, 32), **BASIC, act="prelu", norm="batch")
    assert not found.assumed
    net = shaken(nets.BasicUNet(spatial_dims=2, **BASIC, act="prelu", norm="batch"), 0)
    assert len(recognised("BasicUNet", net)) == 1


@pytest.mark.parametrize(
    ("options", "title"),
    [
        ({"act": "relu"}, "ReLU"),
        ({"act": "leakyrelu"}, "LeakyReLU with slope 0.01"),
        ({"act": "gelu"}, "GELU"),
        ({"norm": None}, "no norm"),
        ({"norm": ("group", {"num_groups": 2})}, "norm of 2 groups"),
        ({"norm": ("group", {"num_groups": 4})}, "norm of 4 groups"),
    ],
)
def test_what_the_tensors_do_not_tell_is_among_the_other_readings(
    nets: Any, options: dict[str, Any], title: str
) -> None:
    features = (4, 4, 8, 8, 16, 4)
    net = nets.BasicUNet(
        spatial_dims=2, in_channels=1, out_channels=2, features=features, **options
    )
    net, image = shaken(net, 1), noise(1, 1, 32, 32)
    same = [found.title for found in recognised("BasicUNet", net) if is_same(found, net, image)]
    assert same == [title]


UNET = {"in_channels": 2, "out_channels": 3, "channels": (4, 6, 8)}


@pytest.mark.parametrize("size", [(16, 32), (16, 16, 16)])
@pytest.mark.parametrize("units", [0, 1, 2, 3])
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_a_unet_of_monai_is_recognised(
    nets: Any, size: tuple[int, ...], units: int, norm: str
) -> None:
    check(nets, "UNet", size, **UNET, strides=(2, 2), num_res_units=units, norm=norm)


@pytest.mark.parametrize("strides", [(1, 2), (2, 1), (1, 1)])
def test_residual_units_tell_where_the_size_is_kept(nets: Any, strides: tuple[int, int]) -> None:
    check(nets, "UNet", (16, 16), **UNET, strides=strides, num_res_units=2)


@pytest.mark.parametrize("units", [0, 2])
@pytest.mark.parametrize(
    ("strides", "told", "size"),
    [
        ([3, 2], "3,2", (12, 24)),
        ([(1, 2, 2), 2], "1x2x2,2", (4, 16, 24)),
        ([(1, 2, 2), (2, 1, 3)], "1x2x2, 2x1x3", (4, 16, 24)),
    ],
)
def test_steps_that_differ_by_level_or_axis_can_be_told(
    nets: Any, units: int, strides: Any, told: str, size: tuple[int, ...]
) -> None:
    options: dict[str, Any] = {**UNET, "strides": strides, "num_res_units": units}
    net, image = shaken(nets.UNet(spatial_dims=len(size), **options), 0), noise(1, 2, *size)
    found = recognised("UNet", net)[0]
    assert not is_same(found, net, image)
    assert found.reread is not None
    again = found.reread({"strides": told})
    assert is_same(again, net, image)
    assert f"step {told.replace(' ', '')} pixels" in again.card["told"]["strides"]
    with pytest.raises(ModelError, match="is no list of whole numbers"):
        found.reread({"strides": "1x2x2x2,2"})


def test_a_step_of_as_many_numbers_as_there_are_axes_is_asked_for(nets: Any) -> None:
    found = recognised("UNet", nets.UNet(spatial_dims=3, **UNET, strides=(2, 2)))[0]
    assert found.reread is not None
    with pytest.raises(ModelError, match=r"2x2 has 2 numbers.* each of the 3, e\.g\. 1x2x2"):
        found.reread({"strides": "2x2,2"})


@pytest.mark.parametrize("units", [0, 2])
def test_no_step_is_taken_along_an_axis_of_flat_kernels(nets: Any, units: int) -> None:
    flat: dict[str, Any] = {"kernel_size": (1, 3, 3), "up_kernel_size": (1, 3, 3)}
    strides = [(1, 2, 2), (1, 2, 2)]
    check(nets, "UNet", (5, 16, 24), **UNET, **flat, strides=strides, num_res_units=units)


def test_the_order_of_the_file_tells_that_the_activation_comes_first(nets: Any) -> None:
    options: dict[str, Any] = {**UNET, "strides": (2, 2), "norm": "batch"}
    check(nets, "UNet", (16, 16), **options, adn_ordering="AN")
    net = shaken(nets.UNet(spatial_dims=2, **options), 0)
    state = dict(sorted(net.state_dict().items()))
    found = recognise_monai_unet(Layers(state))
    assert found is not None
    assert is_same(found[0], net, noise(1, 2, 16, 16)), "sorted names tell no order"


def test_a_unet_is_recognised_with_its_outermost_name_taken_off(nets: Any) -> None:
    net = shaken(nets.UNet(spatial_dims=2, **UNET, strides=(2, 2)), 0)
    state = {key.removeprefix("model."): tensor for key, tensor in net.state_dict().items()}
    found = recognise_monai_unet(Layers(state))
    assert found is not None
    assert is_same(found[0], net, noise(1, 2, 16, 16))


DYNUNET = {"in_channels": 1, "out_channels": 2, "filters": (4, 6, 8, 8)}


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("norm", [("instance", {"affine": True}), "batch"])
def test_the_steps_of_a_dynunet_are_told_by_its_weights(
    nets: Any, residual: bool, norm: Any
) -> None:
    options = {**DYNUNET, "res_block": residual, "norm_name": norm}
    plain = {"kernel_size": [3] * 4, "strides": [1, 2, 2, 2], "upsample_kernel_size": [2] * 3}
    check(nets, "DynUNet", (32, 32), **options, **plain)
    uneven = [(1, 2, 2), (2, 2, 2), (2, 1, 2)]
    check(
        nets,
        "DynUNet",
        (8, 32, 32),
        **options,
        kernel_size=[(1, 3, 3), 3, 3, (3, 3, 1)],
        strides=[1, *uneven],
        upsample_kernel_size=uneven,
    )


def test_heads_for_training_are_left_out_of_a_dynunet(nets: Any) -> None:
    options: dict[str, Any] = {**DYNUNET, "deep_supervision": True, "deep_supr_num": 2}
    steps = {"kernel_size": [3] * 4, "strides": [1, 2, 2, 2], "upsample_kernel_size": [2] * 3}
    found = check(nets, "DynUNet", (32, 32), **options, **steps)
    assert not any("supervision" in key or "super" in key for key in found.tensors)


def test_a_dynunet_is_recognised_from_either_name_of_its_layers(nets: Any) -> None:
    steps = {"kernel_size": [3] * 4, "strides": [1, 2, 2, 2], "upsample_kernel_size": [2] * 3}
    net = shaken(nets.DynUNet(spatial_dims=2, **DYNUNET, **steps), 0)
    state = net.state_dict()
    # safetensors keeps one name of each tensor, the first in the alphabet
    once = {key: state[key] for key in state if not key.startswith("upsamples.")}
    for kept in (once, {key: state[key] for key in state if not key.startswith("skip_layers.")}):
        found = recognise_dynunet(Layers(kept))
        assert found is not None
        assert is_same(found[0], net, noise(1, 1, 32, 32))


def test_a_dynunet_whose_two_names_of_a_layer_differ_is_refused(nets: Any) -> None:
    steps = {"kernel_size": [3] * 4, "strides": [1, 2, 2, 2], "upsample_kernel_size": [2] * 3}
    state = nets.DynUNet(spatial_dims=2, **DYNUNET, **steps).state_dict()
    key = "bottleneck.conv1.conv.weight"
    with pytest.raises(ModelError, match="one and the same"):
        recognise_dynunet(Layers({**state, key: 1 + state[key]}))


@pytest.mark.parametrize("size", [(16, 32), (16, 16, 16)])
def test_an_attention_unet_is_recognised(nets: Any, size: tuple[int, ...]) -> None:
    check(nets, "AttentionUnet", size, **UNET, strides=(2, 2))


def test_single_precision_agrees_within_a_hundred_thousandth(nets: Any) -> None:
    net = shaken(nets.BasicUNet(spatial_dims=2, **BASIC), 0).float()
    assert difference(recognised("BasicUNet", net)[0], net, noise(1, 1, 32, 32).float()) < 1e-5


@pytest.mark.parametrize("name", RECOGNISERS)
def test_an_incomplete_or_changed_file_is_refused_with_the_difference(nets: Any, name: str) -> None:
    steps = {"kernel_size": [3] * 3, "strides": [1, 2, 2], "upsample_kernel_size": [2] * 2}
    options: dict[str, dict[str, Any]] = {
        "BasicUNet": BASIC,
        "UNet": {**UNET, "strides": (2, 2), "num_res_units": 2, "norm": "batch"},
        "DynUNet": {**DYNUNET, **steps},
        "AttentionUnet": {**UNET, "strides": (2, 2)},
    }
    state = getattr(nets, name)(spatial_dims=2, **options[name]).state_dict()
    state = {key: tensor for key, tensor in state.items() if not key.startswith("skip_layers.")}
    for key, changed in mutilated(state):
        assert is_refused(RECOGNISERS[name], Layers(changed)), key


def test_names_of_other_networks_are_left_to_others() -> None:
    other = Layers({"conv1.weight": torch.zeros(4, 1, 3, 3), "conv1.bias": torch.zeros(4)})
    assert not any(recognise(other) for recognise in RECOGNISERS.values())


@pytest.mark.parametrize("share", range(4))
def test_hundreds_of_basic_unets_are_recognised(nets: Any, share: int) -> None:
    draw = random.Random(share)
    for seed in range(60):
        size = draw.choice([(draw.randint(32, 50), draw.randint(32, 50)), (32, 32, 32)])
        check(
            nets,
            "BasicUNet",
            size,
            seed,
            in_channels=draw.randint(1, 4),
            out_channels=draw.randint(1, 5),
            features=tuple(draw.randint(1, 5) * 2 for _ in range(6)),
            act=draw.choice([("leakyrelu", {"negative_slope": 0.1}), "prelu"]),
            norm=draw.choice(["batch", "instance", ("instance", {"affine": True})]),
            bias=draw.random() < 0.5,
            upsample=draw.choice(["deconv", "pixelshuffle", "nontrainable"]),
        )


@pytest.mark.parametrize("share", range(4))
def test_hundreds_of_monai_unets_are_recognised(nets: Any, share: int) -> None:
    draw = random.Random(share)
    for seed in range(75):
        depth, dims = draw.randint(2, 5), draw.choice([2, 2, 3])
        units = draw.randint(0, 3)
        strides = [2] * (depth - 1)
        if units:
            strides = [draw.choice([1, 2, 2, 2]) for _ in strides]
        check(
            nets,
            "UNet",
            (2**depth,) * dims,
            seed,
            in_channels=draw.randint(1, 4),
            out_channels=draw.randint(1, 5),
            channels=[draw.randint(2, 9) for _ in range(depth)],
            strides=strides,
            num_res_units=units,
            kernel_size=draw.choice([3, 3, 5]),
            up_kernel_size=draw.choice([3, 3, 5]),
            act=draw.choice(["prelu", "prelu", "relu"]),
            norm=draw.choice(["batch", "instance", ("instance", {"affine": True})]),
            bias=draw.random() < 0.7,
        )


@pytest.mark.parametrize("share", range(4))
def test_hundreds_of_dynunets_are_recognised(nets: Any, share: int) -> None:
    draw = random.Random(share)
    for seed in range(60):
        depth, dims = draw.randint(3, 4), draw.choice([2, 2, 3])
        steps = [[draw.choice([1, 2, 2]) for _ in range(dims)] for _ in range(depth - 1)]
        check(
            nets,
            "DynUNet",
            (2**depth,) * dims,
            seed,
            in_channels=draw.randint(1, 4),
            out_channels=draw.randint(1, 5),
            filters=[draw.randint(3, 9) for _ in range(depth)],
            kernel_size=[[draw.choice([1, 3, 3, 5]) for _ in range(dims)] for _ in range(depth)]
            if seed % 3
            else [[3] * dims] * depth,
            strides=[[1] * dims, *steps],
            upsample_kernel_size=steps,
            res_block=draw.random() < 0.5,
            trans_bias=draw.random() < 0.5,
            deep_supervision=depth > 2 and draw.random() < 0.5,
            norm_name=draw.choice(["batch", "instance", ("instance", {"affine": True})]),
        )


def test_a_hundred_attention_unets_are_recognised(nets: Any) -> None:
    draw = random.Random(0)
    for seed in range(100):
        depth, dims = draw.randint(2, 4), draw.choice([2, 2, 3])
        check(
            nets,
            "AttentionUnet",
            (2**depth,) * dims,
            seed,
            in_channels=draw.randint(1, 4),
            out_channels=draw.randint(1, 5),
            channels=[draw.randint(2, 9) for _ in range(depth)],
            strides=[2] * (depth - 1),
        )
