"""U-Nets of published repositories, and of nobody, from their tensors: the same answer."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from napari_unet.errors import ModelError, TileSizeError, UnetError
from napari_unet.models.found import Found
from napari_unet.models.recognise import recognise
from napari_unet.models.recognise.layers import Layers
from napari_unet.models.recognise.network import Network
from napari_unet.models.recognise.plain import find_steps
from napari_unet.models.recognise.readings import FAMILIES, Reading
from napari_unet.models.recognise.units import common_starts
from napari_unet.network.build import build_network
from napari_unet.network.presets import PRESETS
from napari_unet.settings import Architecture
from tests.models.recognise import nets
from tests.models.recognise.nets import Any_

TOLERANCE = 1e-5
Make = Callable[[random.Random], tuple[nn.Module, tuple[int, ...]]]
"""Draws a network, and gives it with the size of an image it takes."""


def difference(found: Found, net: nn.Module, size: tuple[int, ...], channels: int) -> float:
    """Largest difference between what was recognised and the original."""
    ours = build_network(found.architecture)
    ours.load_state_dict(found.tensors)
    image = torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = net.double()(image.double())
        assert expected.std() > 1e-3
        try:
            answer = ours.double().eval()(image.double())
        except TileSizeError:
            return float("inf")
        finally:
            net.float()
    if answer.shape != expected.shape:
        return float("inf")
    return float((answer - expected).abs().max())


def channels_of(net: nn.Module) -> int:
    first = min(
        (m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Conv3d)),
        key=lambda m: m.in_channels,
    )
    return first.in_channels


def assert_right(net: nn.Module, size: tuple[int, ...], channels: int, reading: int = 0) -> Found:
    found = recognise(nets.shaken(net).state_dict())
    assert len(found) <= 6
    assert difference(found[reading], net, size, channels) < TOLERANCE
    return found[reading]


def even(chance: random.Random, stride: int) -> tuple[int, int]:
    return stride * chance.randint(2, 3), stride * chance.randint(2, 4)


def draw_milesial(chance: random.Random) -> tuple[nn.Module, tuple[int, ...], int]:
    channels, depth = chance.randint(1, 4), chance.randint(2, 5)
    net = nets.Milesial(
        channels, chance.randint(1, 5), chance.random() < 0.5, 2 * chance.randint(1, 6), depth
    )
    size = (2**depth * 2 + chance.randint(0, 9), 2**depth * 3 + chance.randint(0, 9))
    aligned = even(chance, 2**depth)
    return net, size if chance.random() < 0.3 else aligned, channels


def draw_brain(chance: random.Random) -> tuple[nn.Module, tuple[int, ...], int]:
    channels, depth = chance.randint(1, 4), chance.randint(2, 5)
    net = nets.Brain(channels, chance.randint(1, 4), chance.randint(2, 9), depth)
    return net, even(chance, 2**depth), channels


def draw_usuyama(chance: random.Random) -> tuple[nn.Module, tuple[int, ...], int]:
    channels, depth = chance.randint(1, 4), chance.randint(3, 6)
    net = nets.Usuyama(channels, chance.randint(1, 7), chance.randint(3, 9), depth)
    return net, even(chance, 2 ** (depth - 1)), channels


def draw_light(chance: random.Random) -> tuple[nn.Module, tuple[int, ...], int]:
    channels, depth = chance.randint(1, 4), chance.randint(2, 5)
    net = nets.Light(channels, chance.randint(1, 4), chance.randint(3, 9), depth)
    return net, even(chance, 2**depth), channels


def draw_lee(chance: random.Random) -> tuple[nn.Module, tuple[int, ...], int]:
    channels, depth = chance.randint(1, 4), chance.randint(2, 4)
    net = nets.Lee(
        channels, chance.randint(1, 4), chance.random() < 0.5, 2 * chance.randint(2, 5), depth
    )
    return net, even(chance, 2**depth), channels


def draw_persson(chance: random.Random) -> tuple[nn.Module, tuple[int, ...], int]:
    channels, depth = chance.randint(1, 4), chance.randint(2, 4)
    base = chance.randint(3, 9)
    net = nets.Persson(channels, chance.randint(1, 4), tuple(base * 2**i for i in range(depth)))
    return net, even(chance, 2**depth), channels


def draw_padded_jvanvugt(chance: random.Random) -> tuple[nn.Module, tuple[int, ...], int]:
    channels, depth = chance.randint(1, 4), chance.randint(3, 5)
    mode = chance.choice(["upconv", "upsample"])
    norm = chance.random() < 0.5
    net = nets.JVanVugt(
        channels, chance.randint(2, 4), depth, chance.randint(2, 4), True, norm, mode
    )
    return net, even(chance, 2 ** (depth - 1)), channels


def draw_scratch(chance: random.Random) -> tuple[nn.Module, tuple[int, ...], int]:
    channels, depth = chance.randint(1, 4), chance.randint(2, 5)
    net = nets.Scratch(channels, chance.randint(1, 4), chance.randint(3, 9), depth)
    return net, even(chance, 2**depth), channels


def draw_vgg(chance: random.Random) -> tuple[nn.Module, tuple[int, ...], int]:
    channels = chance.randint(1, 4)
    net = nets.VggUNet(channels, chance.randint(1, 7), chance.randint(3, 9))
    return net, even(chance, 16), channels


def draw_yassouali(chance: random.Random) -> tuple[nn.Module, tuple[int, ...], int]:
    channels, depth = chance.randint(1, 4), chance.randint(2, 4)
    is_early = chance.random() < 0.5
    net = nets.Yassouali(
        channels, chance.randint(1, 4), chance.randint(3, 9), depth, is_early=is_early
    )
    return net, even(chance, 2**depth), channels


FAMILY_NETS = [
    draw_milesial, draw_brain, draw_usuyama, draw_light, draw_lee, draw_persson,
    draw_padded_jvanvugt, draw_scratch, draw_vgg, draw_yassouali,
]  # fmt: skip
names = [draw.__name__.removeprefix("draw_") for draw in FAMILY_NETS]


@pytest.mark.parametrize("draw", FAMILY_NETS, ids=names)
@pytest.mark.parametrize("seed", range(2))
def test_a_published_layout_gives_the_original_answer(draw: Any, seed: int) -> None:
    assert_right(*draw(random.Random(seed)))


@pytest.mark.parametrize(("classes", "activation"), [(1, "sigmoid"), (3, "softmax")])
def test_a_family_s_softmax_is_not_taken_of_one_class_alone(classes: int, activation: str) -> None:
    for net in (nets.Yassouali(1, classes, 4, 3), nets.VggUNet(1, classes, 4)):
        found = recognise(nets.shaken(net).state_dict())[0]
        assert found.card["activation"] == activation
        assert ("activation" in found.assumed) == (classes == 1)
        assert ("activation" in found.tellers) == (classes > 1)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("draw", FAMILY_NETS, ids=names)
def test_hundreds_of_a_published_layout_give_the_original_answer(draw: Any) -> None:
    for seed in range(100, 200):
        net, size, channels = draw(random.Random(seed))
        try:
            assert_right(net, size, channels)
        except (AssertionError, UnetError) as error:
            pytest.fail(f"seed {seed}: {error}")


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("mode", ["upconv", "upsample"])
def test_without_padding_the_second_reading_is_the_original(norm: bool, mode: str) -> None:
    net = nets.JVanVugt(1, 2, 3, 3, False, norm, mode)
    found = assert_right(net, (60, 76), 1, reading=1)
    assert "unpadded" in found.title
    assert "not padded" in found.assumed["padding"]


@pytest.mark.parametrize("seed", range(3))
def test_what_is_one_of_ours_becomes_one_of_ours(seed: int) -> None:
    for draw in (draw_brain, draw_light, draw_persson, draw_scratch):
        net, _, _ = draw(random.Random(seed))
        found = recognise(nets.shaken(net).state_dict())[0]
        assert isinstance(found.architecture, Architecture)


def test_three_level_gives_the_original_answer_and_is_named() -> None:
    assert_right(nets.ThreeLevel(2, 3, 16), (16, 24), 2)
    found = assert_right(nets.ThreeLevel(), (16, 24), 1)
    assert found.architecture == PRESETS["three-level"]


def test_light_bn_is_named() -> None:
    net = nets.Light()
    assert len(net.state_dict()) == 156
    found = assert_right(net, (32, 48), 1)
    assert found.architecture == PRESETS["light-bn"]
    assert found.card["activation"] == "sigmoid"


PRESET_OPTIONS: dict[str, dict[str, Any]] = {
    "ronneberger2015": {"padded": False, "classes": 2},
    "same-bn": {"channels": 3, "norm": "batch"},
    "upconv-dropout": {
        "channels": 3, "classes": 2, "up": "nearest+2", "active_up": True, "skip_first": True,
        "head": 3,
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESET_OPTIONS)
def test_full_presets_are_named(name: str) -> None:
    net = Any_((64, 128, 256, 512, 1024), **PRESET_OPTIONS[name])
    found = recognise(net.state_dict())[0]
    assert isinstance(found.architecture, Architecture)
    assert found.architecture.preset == name
    preset = PRESETS[name]
    expected = preset.replace(dropout=0.0, norm_eps=1e-5)
    assert found.architecture == expected


@pytest.mark.parametrize("name", ["same-bn", "upconv-dropout"])
def test_presets_of_other_widths_give_the_original_answer(name: str) -> None:
    net = Any_((6, 12, 24, 48), **PRESET_OPTIONS[name])
    assert_right(net, (32, 48), net.options["channels"])


def test_the_paper_net_is_read_as_unpadded() -> None:
    net = Any_((4, 8, 16), **PRESET_OPTIONS["ronneberger2015"])
    found = recognise(nets.shaken(net).state_dict())
    unpadded = next(reading for reading in found if "unpadded" in reading.title)
    assert difference(unpadded, net, (60, 68), 1) < TOLERANCE


# ------------------------------------------------------------------------------ of nobody


def draw_any(chance: random.Random) -> tuple[Any_, tuple[int, ...], Reading]:
    """Draw a network of options, and how it is to be read."""
    dims = chance.choice((2, 2, 3))
    depth = chance.choice((2, 3, 4) if dims == 2 else (2, 3))
    base = chance.choice((4, 6, 8))
    widths = chance.choice(
        (
            tuple(base * 2**level for level in range(depth + 1)),
            tuple(base * (level + 1) for level in range(depth + 1)),
        )
    )
    kinds = ("transposed", "nearest", "linear", "aligned", "nearest+1", "linear+1", "nearest+2",
             "nearest+3", "linear+3")  # fmt: skip
    net = Any_(
        widths,
        dims=dims,
        channels=chance.randint(1, 4),
        classes=chance.choice((1, 2, 3, 5)),
        count=chance.choice((1, 2, 2, 3)),
        norm=chance.choice(("none", "batch", "batch", "group", "instance")),
        up=chance.choice(kinds),
        skip_first=chance.random() < 0.5,
        head=chance.choice((1, 1, 3)),
        residual=chance.random() < 0.2,
        norm_last=chance.random() < 0.15,
        style=chance.choice(("nested", "flat", "digits")),
    )
    o = net.options
    reading = Reading(
        skip_first=o["skip_first"],
        order="activation-norm" if o["norm_last"] else "norm-activation",
        resize="nearest" if o["up"].startswith("nearest") else "linear",
        align_corners=o["up"].startswith("aligned"),
        norm="group" if o["norm"] == "group" else "instance",
        active_up=False,
    )
    stride = 2**depth
    return net, tuple(max(2, 16 // stride) * stride for _ in range(dims)), reading


def read(tensors: dict[str, torch.Tensor], reading: Reading) -> Found:
    """Read tensors as a network, what they do not tell being given."""
    layers = Layers(tensors)
    steps = find_steps(layers)
    assert steps is not None
    return Network(steps, layers.spatial_dims).draw(reading)


def assert_structure(seed: int, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    net, size, reading = draw_any(random.Random(seed))
    found = read(change(nets.shaken(net, seed).state_dict()), reading)
    assert difference(found, net, size, net.options["channels"]) < TOLERANCE


@pytest.mark.parametrize("seed", range(12))
def test_a_layout_of_nobody_is_found_from_shapes_and_order(seed: int) -> None:
    assert_structure(seed, dict)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_hundreds_of_layouts_of_nobody_are_found_but_for_few() -> None:
    wrong = []
    for seed in range(1000, 1200):
        try:
            assert_structure(seed, dict)
        except (AssertionError, UnetError):
            wrong.append(seed)
    assert len(wrong) <= 2, wrong


def without_names(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Call the layers by their number alone."""
    numbers: dict[str, int] = {}
    renamed = {}
    for key, tensor in tensors.items():
        layer, _, role = key.rpartition(".")
        renamed[f"layer{numbers.setdefault(layer, len(numbers))}.{role}"] = tensor
    return renamed


@pytest.mark.slow
def test_names_that_tell_nothing_are_enough_where_each_level_is_wider() -> None:
    wrong, tried = [], 0
    for seed in range(2000, 2120):
        net, size, reading = draw_any(random.Random(seed))
        o = net.options
        if o["residual"] or o["up"] not in ("transposed", "nearest+2", "linear") or o["count"] != 2:
            continue
        tried += 1
        try:
            found = read(without_names(nets.shaken(net, seed).state_dict()), reading)
            assert difference(found, net, size, o["channels"]) < TOLERANCE
        except (AssertionError, UnetError):
            wrong.append(seed)
    assert tried > 10
    assert not wrong


def shuffled(tensors: dict[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    """Bring the modules into another order, each by itself in its own."""
    modules = list(dict.fromkeys(key.split("__")[0].partition(".")[0] for key in tensors))
    random.Random(seed).shuffle(modules)
    return {
        key: tensor
        for module in modules
        for key, tensor in tensors.items()
        if key.split("__")[0].partition(".")[0] == module
    }


@pytest.mark.slow
def test_modules_in_any_order_are_put_together() -> None:
    for seed in range(20):
        net = Any_((4, 8, 16, 32), norm="batch", count=2, skip_first=seed % 2 == 0)
        tensors = shuffled(nets.shaken(net, seed).state_dict(), seed)
        found = read(tensors, Reading(skip_first=seed % 2 == 0))
        assert difference(found, net, (16, 24), 1) < TOLERANCE


@pytest.mark.parametrize("draw", FAMILY_NETS, ids=names)
def test_keys_sorted_by_name_as_safetensors_has_them_are_put_together(draw: Any) -> None:
    from napari_unet.models.recognise.layers import natural_order

    net, size, channels = draw(random.Random(5))
    tensors = nets.shaken(net).state_dict()
    ordered = {key: tensors[key] for key in sorted(tensors, key=natural_order)}
    assert any(difference(found, net, size, channels) < TOLERANCE for found in recognise(ordered))


@pytest.mark.parametrize("style", ["nested", "flat", "digits"])
def test_norms_that_are_sorted_by_name_find_their_convolutions(style: str) -> None:
    net = Any_((4, 8, 16), norm="batch", style=style)
    tensors = nets.shaken(net).state_dict()
    found = read({key: tensors[key] for key in sorted(tensors)}, Reading())
    assert difference(found, net, (16, 24), 1) < TOLERANCE


# ------------------------------------------------------------------------- what is not told


def test_readings_differ_and_say_what_was_assumed() -> None:
    net = Any_((4, 8, 16), up="linear", norm="batch")
    found = recognise(nets.shaken(net).state_dict())
    assert 2 <= len(found) <= 6
    assert len({reading.title for reading in found}) == len(found)
    assert {"skip order", "upsampling", "padding", "activation"} <= found[0].assumed.keys()
    assert all(text.endswith(".") for reading in found for text in reading.assumed.values())
    answers = [difference(reading, net, (16, 24), 1) for reading in found]
    assert sum(answer < TOLERANCE for answer in answers) == 1


def test_each_order_of_the_join_and_each_interpolation_is_among_the_readings() -> None:
    for up in ("nearest", "linear", "aligned"):
        for skip_first in (False, True):
            net = Any_((4, 8, 16), up=up, norm="none", skip_first=skip_first)
            found = recognise(nets.shaken(net).state_dict())
            assert min(difference(reading, net, (16, 24), 1) for reading in found) < TOLERANCE


def test_a_known_family_is_not_assumed() -> None:
    found = recognise(nets.shaken(nets.Milesial(1, 1, True, 4)).state_dict())
    assert found[0].assumed.keys() <= {"activation"}
    assert found[0].architecture.family == "milesial/Pytorch-UNet"


def test_families_tell_only_fields_of_a_reading() -> None:
    for family in FAMILIES:
        assert replace(Reading(), **dict(family.told))


# ----------------------------------------------------------------------------------- refusals


PARTS = 4  # of the tensors of a network; deep ones take minutes


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("draw", FAMILY_NETS, ids=names)
def test_weights_with_one_tensor_missing_are_refused(draw: Any, part: int) -> None:
    net, _, _ = draw(random.Random(3))
    tensors = net.state_dict()
    for key in list(tensors)[part::PARTS]:
        if key.endswith("num_batches_tracked") or key == "outconv.bias":
            continue  # of nobody known, the last convolution may do without a bias
        rest = {other: tensor for other, tensor in tensors.items() if other != key}
        with pytest.raises(ModelError, match=r"\. "):
            recognise(rest)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("draw", FAMILY_NETS, ids=names)
def test_weights_with_one_tensor_of_another_shape_are_refused(draw: Any, part: int) -> None:
    net, _, _ = draw(random.Random(3))
    tensors = net.state_dict()
    for key in list(tensors)[part::PARTS]:
        if key.endswith("num_batches_tracked") or tensors[key].shape[0] == 1:
            continue
        changed = dict(tensors) | {key: tensors[key][:-1]}
        with pytest.raises(ModelError, match=r"\. "):
            recognise(changed)


def test_a_missing_tensor_is_named() -> None:
    tensors = nets.Milesial(1, 1, False, 4).state_dict()
    del tensors["down2.maxpool_conv.1.double_conv.4.running_var"]
    with pytest.raises(ModelError, match=r"down2\S*double_conv\.4\.running_var is missing"):
        recognise(tensors)


def test_other_networks_are_refused_by_kind() -> None:
    classifier = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 16, 3), nn.Flatten(), nn.Linear(16, 5)
    )
    transformer = {
        "blocks.0.attn.qkv.weight": torch.ones(3, 3),
        "conv.weight": torch.ones(4, 4, 3, 3),
    }
    chain = nn.Sequential(*(nn.Conv2d(a, b, 3) for a, b in ((1, 8), (8, 8), (8, 16), (16, 32))))
    signals = nn.Sequential(nn.Conv1d(1, 8, 3), nn.Conv1d(8, 8, 3))
    both = {"a.weight": torch.ones(4, 4, 3, 3), "b.weight": torch.ones(4, 4, 3, 3, 3)}
    for tensors, words in (
        (classifier.state_dict(), "name the whole image"),
        (transformer, "transformer"),
        (chain.state_dict(), "U-Net"),
        (signals.state_dict(), "signals"),
        (both, "planes and some for volumes"),
        ({"a.weight": torch.ones(3, 3)}, "no convolution"),
        ({}, "no convolution"),
    ):
        with pytest.raises(ModelError, match=words):
            recognise(tensors)


def test_names_divide_where_less_is_common() -> None:
    assert common_starts(["e11", "e12", "e21", "e22"]) == [2, 1, 2]
    assert common_starts(["conv9", "conv10", "conv11"]) == [4, 4]
    assert common_starts(["a.0", "a.3", "b.0"]) == [2, 0]
