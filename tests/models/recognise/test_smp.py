from __future__ import annotations

import importlib.util
import random
import sys
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from napari_unet.errors import ModelError
from napari_unet.models.recognise.layers import Layers
from napari_unet.models.recognise.smp_unet import recognise_smp_unet
from tests.models.recognise.comparing import is_refused, is_same, mutilated, noise, shaken

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_unet.models.found import Found

pytestmark = pytest.mark.slow  # the library alone takes seconds to import

OPERATORS = ("nms", "qnms")
SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


@pytest.fixture(scope="module")
def smp() -> Iterator[Any]:
    if importlib.util.find_spec("segmentation_models_pytorch") is None:
        pytest.skip("segmentation_models_pytorch is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        operators = make_torchvision_importable()
        import segmentation_models_pytorch

        yield segmentation_models_pytorch
    del operators


def make_torchvision_importable() -> object:
    """Declare the operators of torchvision where its compiled part does not fit torch's."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for operator in OPERATORS:
            library.define(f"{operator}{SIGNATURE}")
        return library
    return None


def recognised(net: nn.Module) -> list[Found]:
    found = recognise_smp_unet(Layers(net.state_dict()))
    assert found is not None
    return found


def check(smp: Any, size: tuple[int, int], seed: int = 0, **options: Any) -> Found:
    options = {"encoder_name": "resnet18", "decoder_channels": (16, 8, 8, 4, 4), **options}
    options["encoder_depth"] = len(options["decoder_channels"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = shaken(smp.Unet(encoder_weights=None, **options), seed)
    found = recognised(net)
    linear = options.get("decoder_interpolation") == "bilinear"
    image = noise(1, options.get("in_channels", 3), *size, seed=seed)
    assert is_same(found[linear], net, image), options
    return found[linear]


@pytest.mark.parametrize(
    "encoder", ["resnet18", "resnet34", "resnet50", "resnet101", "resnext50_32x4d", "tu-resnet18"]
)
def test_a_unet_is_recognised_with_a_resnet_as_encoder(smp: Any, encoder: str) -> None:
    check(smp, (64, 64), encoder_name=encoder)


@pytest.mark.parametrize("depth", [5, 4, 3])
@pytest.mark.parametrize(
    "encoder", ["vgg11", "vgg16_bn", "vgg19_bn", "mobilenet_v2", "efficientnet-b0"]
)
def test_a_unet_is_recognised_with_other_encoders(smp: Any, encoder: str, depth: int) -> None:
    check(smp, (64, 96), encoder_name=encoder, decoder_channels=(16, 8, 8, 4, 4)[:depth])


@pytest.mark.parametrize("number", range(1, 8))
def test_each_efficientnet_is_padded_as_it_was_made(smp: Any, number: int) -> None:
    check(smp, (64, 64), encoder_name=f"efficientnet-b{number}")


@pytest.mark.parametrize("depth", [3, 4, 5])
def test_the_stages_up_tell_the_depth(smp: Any, depth: int) -> None:
    found = check(smp, (64, 64), decoder_channels=(8,) * depth)
    last = "encoder_layer4" in "".join(found.tensors)
    assert last == (depth == 5)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_other_than_three_colours_are_scaled_otherwise(smp: Any, channels: int) -> None:
    found = check(smp, (64, 64), in_channels=channels, classes=2)
    assert found.architecture.in_channels == channels
    assert found.architecture.classes == 2
    scaled = found.card["normalization"]
    assert scaled.kind == ("fixed" if channels == 3 else "mean-std")
    assert ("ImageNet" in found.assumed["normalization"]) == (channels == 3)
    if channels == 3:
        assert scaled.offsets[0] == pytest.approx(123.675)


@pytest.mark.parametrize(
    "options",
    [
        {"decoder_attention_type": "scse", "decoder_channels": (32, 16, 16, 16, 16)},
        {"decoder_use_batchnorm": False},
        {"decoder_use_norm": {"type": "instancenorm", "affine": True}},
        {"decoder_interpolation": "bilinear"},
    ],
    ids=str,
)
def test_options_of_the_way_up_are_recognised(smp: Any, options: dict[str, Any]) -> None:
    check(smp, (64, 64), **options)


def test_features_take_the_odd_size_of_the_skip(smp: Any) -> None:
    check(smp, (75, 61))


def test_a_head_that_classifies_is_left_out(smp: Any) -> None:
    net = smp.Unet("resnet18", encoder_weights=None, aux_params={"classes": 3})
    state = shaken(net, 0).state_dict()
    assert any(key.startswith("classification_head") for key in state)
    found = recognise_smp_unet(Layers(state))
    assert found is not None
    image = noise(1, 3, 64, 64)
    net.classification_head = None
    assert is_same(found[0], net, image)


def old_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the layers as the library of 2018 did."""
    renamed = {}
    for key, tensor in state.items():
        if key.startswith("decoder.blocks."):
            _, _, block, layer, inner = key.split(".", 4)
            place = {"conv1": "block.0.block", "conv2": "block.1.block"}[layer]
            renamed[f"decoder.layer{int(block) + 1}.{place}.{inner}"] = tensor
        elif key.startswith("segmentation_head.0."):
            renamed[key.replace("segmentation_head.0", "decoder.final_conv")] = tensor
        else:
            renamed[key] = tensor
    return renamed


def test_the_names_of_the_first_version_are_recognised(smp: Any) -> None:
    net = smp.Unet("resnet18", encoder_weights=None)
    net.segmentation_head[0] = nn.Conv2d(16, 1, 1)  # as it was then
    net = shaken(net, 0)
    found = recognise_smp_unet(Layers(old_names(net.state_dict())))
    assert found is not None
    assert is_same(found[0], net, noise(1, 3, 64, 64))


def test_another_encoder_is_refused_with_what_to_do(smp: Any) -> None:
    net = smp.Unet("densenet121", encoder_weights=None)
    with pytest.raises(ModelError, match=r"its encoder is a DenseNet; .*ResNet, VGG, "):
        recognise_smp_unet(Layers(net.state_dict()))


def test_an_incomplete_or_changed_file_is_refused_with_the_difference(smp: Any) -> None:
    net = smp.Unet("resnet18", encoder_weights=None, encoder_depth=3, decoder_channels=(8, 8, 4))
    state = net.state_dict()
    unused = ("encoder.layer3.", "encoder.layer4.")
    state = {key: tensor for key, tensor in state.items() if not key.startswith(unused)}
    for key, changed in mutilated(state):
        assert is_refused(recognise_smp_unet, Layers(changed)), key


@pytest.mark.parametrize("encoder", ["vgg11_bn", "mobilenet_v2", "efficientnet-b0"])
def test_other_encoders_with_a_layer_less_are_refused(smp: Any, encoder: str) -> None:
    net = smp.Unet(encoder, encoder_weights=None, encoder_depth=3, decoder_channels=(8, 8, 4))
    state = net.state_dict()
    found = recognise_smp_unet(Layers(state))
    assert found is not None
    names = {node.name for node in found[0].architecture.nodes}
    for key in [key for key in state if key.rpartition(".")[0].replace(".", "_") in names]:
        if key.endswith("weight"):
            less = {other: tensor for other, tensor in state.items() if other != key}
            assert is_refused(recognise_smp_unet, Layers(less)), key


def test_other_names_are_left_to_others() -> None:
    other = Layers({"encoder.conv1.weight": torch.zeros(4, 1, 3, 3)})
    assert recognise_smp_unet(other) is None


@pytest.mark.parametrize("share", range(5))
def test_hundreds_of_unets_with_a_resnet_are_recognised(smp: Any, share: int) -> None:
    draw = random.Random(share)
    for seed in range(40):
        depth, attends = draw.randint(3, 5), draw.random() < 0.3
        check(
            smp,
            (draw.randint(64, 80), draw.randint(64, 80)),
            seed,
            encoder_name=draw.choice(["resnet18", "resnet18", "resnet34"]),
            decoder_channels=tuple(
                draw.choice([16, 32]) if attends else draw.randint(3, 9) for _ in range(depth)
            ),
            decoder_attention_type="scse" if attends else None,
            decoder_use_norm=draw.random() < 0.7,
            in_channels=draw.randint(1, 5),
            classes=draw.randint(1, 6),
        )
