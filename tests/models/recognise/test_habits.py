"""Bare state dicts of U-Nets as people write them: right, or asked, or refused; never else."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from napari_unet.errors import ModelError
from napari_unet.models.export import export_model
from napari_unet.models.found import Found
from napari_unet.models.opening import load_model
from napari_unet.models.recognise import recognise
from napari_unet.models.recognise.answering import QUESTIONS
from napari_unet.network.build import build_network
from tests.models.recognise import nets
from tests.models.recognise.habits import (
    Alternating,
    Assembled,
    BothSqueezes,
    Bypassed,
    ChannelNorm,
    Counted,
    Named,
    Parts,
    Patches,
    Residual,
    Squeeze,
    Strided,
    conv,
    double,
    draw_widths,
    single,
)

TOLERANCE = 1e-5
Told = dict[str, str]


def enlarge(*layers: nn.Module, first: bool = True, **options: Any) -> nn.Sequential:
    """Return an upsampling without weights, before other layers or behind them."""
    options = {"mode": "bilinear", **options}
    resize = nn.Upsample(scale_factor=2, **options)
    return nn.Sequential(*([resize, *layers] if first else [*layers, resize]))


def halve(**options: Any) -> Callable[[int, int], nn.Module]:
    """Return a strided convolution with norm and ReLU, which keeps the channels."""
    options = {"stride": 2, **options}
    return lambda wide, _: nn.Sequential(*single(wide, wide, **options))


NAMED_DOWN = ("first", "levels", "down", "bottom", "up", "joined", "answer")

RIGHT: dict[str, dict[str, Any]] = {
    "residual blocks, whose shortcuts have no weights where widths agree": {"block": Residual},
    "residual blocks behind a stem": {
        "block": Residual,
        "stem": lambda wide, narrow: nn.Sequential(*single(wide, narrow, bias=False)),
    },
    "two residual blocks a stage": {
        "block": lambda wide, narrow: nn.Sequential(
            Residual(wide, narrow), Residual(narrow, narrow)
        )
    },
    "channels weighed behind each block": {
        "block": lambda wide, narrow: nn.Sequential(double()(wide, narrow), Squeeze(narrow))
    },
    "channels weighed by linear layers": {
        "block": lambda wide, narrow: nn.Sequential(double()(wide, narrow), Squeeze(narrow, True))
    },
    "channels weighed on the way up alone": {
        "merge": lambda wide, narrow: nn.Sequential(double()(wide, narrow), Squeeze(narrow))
    },
    "channels weighed in residual blocks": {
        "block": lambda wide, narrow: Residual(wide, narrow, Squeeze(narrow))
    },
    "channels and pixels weighed": {
        "block": lambda wide, narrow: nn.Sequential(double()(wide, narrow), BothSqueezes(narrow))
    },
    "linear interpolation and a convolution of one pixel": {
        "up": lambda wide, narrow: enlarge(conv(wide, narrow, 1))
    },
    "strided convolutions between the levels": {"down": halve(), "names": NAMED_DOWN},
    "strided convolutions that widen": {
        "down": lambda wide, narrow: nn.Sequential(*single(wide, narrow, stride=2)),
        "widens": True,
        "names": NAMED_DOWN,
    },
    "strided convolutions in modules that are called anything": {
        "down": halve(),
        "names": ("first", "levels", "transition", "bottom", "up", "joined", "answer"),
    },
    "strided convolutions of kernel 2": {"down": halve(kernel=2, padding=0)},
    "strided convolutions of kernel 4": {"down": halve(kernel=4, padding=1)},
    "transposed convolutions of kernel 4": {
        "up": lambda wide, narrow: nn.ConvTranspose2d(wide, narrow, 4, 2, 1)
    },
    "transposed convolutions of kernel 3": {
        "up": lambda wide, narrow: nn.ConvTranspose2d(wide, narrow, 3, 2, 1, 1)
    },
    "transposed convolutions that keep the channels": {
        "up": lambda wide, _: nn.Sequential(
            nn.ConvTranspose2d(wide, wide, 2, 2), nn.BatchNorm2d(wide), nn.ReLU()
        ),
        "keeps": True,
    },
    "a norm at the end of each block": {
        "block": lambda wide, narrow: nn.Sequential(
            conv(wide, narrow), nn.ReLU(), conv(narrow, narrow), nn.BatchNorm2d(narrow), nn.ReLU()
        )
    },
    "a norm in the middle of each block": {
        "block": lambda wide, narrow: nn.Sequential(
            conv(wide, narrow), nn.BatchNorm2d(narrow), nn.ReLU(), conv(narrow, narrow), nn.ReLU()
        )
    },
    "one norm for both convolutions": {
        "block": lambda wide, narrow: Named(wide, narrow, True, nn.ReLU())
    },
    "one PReLU for both convolutions": {
        "block": lambda wide, narrow: Named(wide, narrow, False, nn.PReLU())
    },
    "a PReLU for each convolution": {
        "block": lambda wide, narrow: nn.Sequential(
            *single(wide, narrow, act=nn.PReLU), *single(narrow, narrow, act=nn.PReLU)
        )
    },
    "a head without bias": {"head": lambda wide, classes: conv(wide, classes, 1, bias=False)},
    "a head of two convolutions": {
        "head": lambda wide, classes: nn.Sequential(
            conv(wide, wide), nn.ReLU(), conv(wide, classes, 1)
        )
    },
    "dropout between": {
        "block": lambda wide, narrow: nn.Sequential(
            *single(wide, narrow), nn.Dropout2d(0.3), *single(narrow, narrow), nn.Dropout(0.1)
        )
    },
    "a middle width in each block": {
        "block": lambda wide, narrow: nn.Sequential(
            *single(wide, narrow // 2 + 1), *single(narrow // 2 + 1, narrow)
        )
    },
    "a bottom of one pixel": {"middle": double(kernel=1)},
    "statistics without weights": {
        "block": double(norm=lambda channels: nn.BatchNorm2d(channels, affine=False))
    },
    "norm and activation before each convolution": {
        "block": lambda wide, narrow: nn.Sequential(
            nn.BatchNorm2d(wide), nn.ReLU(), conv(wide, narrow),
            nn.BatchNorm2d(narrow), nn.ReLU(), conv(narrow, narrow),
        )
    },
    "upsampling before its convolution": {
        "up": lambda wide, narrow: enlarge(*single(wide, narrow), mode="nearest")
    },
}  # fmt: skip
"""Read right without a word."""

ASKED: dict[str, tuple[dict[str, Any], Told]] = {
    "a bare strided convolution": (
        {"down": lambda wide, _: conv(wide, wide, stride=2), "names": NAMED_DOWN},
        {"downsampling_activation": "no"},
    ),
    "a strided convolution with norm and no activation": (
        {"down": halve(act=nn.Identity), "names": NAMED_DOWN},
        {"downsampling_activation": "no"},
    ),
    "a transposed convolution with norm and no activation": (
        {
            "up": lambda wide, narrow: nn.Sequential(
                nn.ConvTranspose2d(wide, narrow, 2, 2), nn.BatchNorm2d(narrow)
            )
        },
        {"upsampling_activation": "no"},
    ),
    "an activation after strided convolutions": (
        {"down": halve(norm=None), "names": NAMED_DOWN},
        {"downsampling_activation": "yes"},
    ),
    "patches of four pixels": (
        {
            "down": halve(kernel=4, padding=0, stride=4),
            "up": lambda wide, narrow: nn.ConvTranspose2d(wide, narrow, 4, 4),
        },
        {"strides": "4"},
    ),
    "poolings of four pixels": (
        {
            "pool": lambda x: functional.max_pool2d(x, 4),
            "up": lambda wide, narrow: nn.ConvTranspose2d(wide, narrow, 4, 4),
        },
        {"strides": "4"},
    ),
    "convolution before the upsampling": (
        {"up": lambda wide, narrow: enlarge(*single(wide, narrow), first=False)},
        {"upsampling_order": "convolution-first", "upsampling": "linear"},
    ),
    "cubic upsampling": (
        {"up": lambda wide, _: enlarge(mode="bicubic"), "keeps": True},
        {"upsampling": "cubic"},
    ),
    "cubic upsampling, aligned": (
        {
            "up": lambda wide, narrow: enlarge(
                conv(wide, narrow, 1), mode="bicubic", align_corners=True
            )
        },
        {"upsampling": "cubic-aligned"},
    ),
    "CELU": ({"block": double(act=lambda: nn.CELU(0.7))}, {"activation": "celu", "slope": "0.7"}),
    "channels weighed in the skips alone": (
        {"block": double(), "skip": lambda channels: Squeeze(channels)},
        {"squeeze_place": "skip"},
    ),
    "the image added": (
        {"end": lambda x, image: x + image, "channels": 1, "classes": 1},
        {"input_added": "yes"},
    ),
    "dilated convolutions": ({"block": double(dilation=2, padding=2)}, {"dilation": "2"}),
    "mirrored pixels": ({"block": double(padding_mode="reflect")}, {"padding_mode": "reflect"}),
    "repeated pixels": ({"block": double(padding_mode="replicate")}, {"padding_mode": "replicate"}),
    "the other side": ({"block": double(padding_mode="circular")}, {"padding_mode": "circular"}),
    "the eps of Keras": (
        {"block": double(norm=lambda channels: nn.BatchNorm2d(channels, eps=1e-3))},
        {"eps": "0.001"},
    ),
    "layer norm": ({"block": double(norm=ChannelNorm)}, {"norm": "layer"}),
    "group norm": (
        {"block": double(norm=lambda channels: nn.GroupNorm(2, channels))},
        {"norm": "group", "groups": "2"},
    ),
    "a shortcut without weights": ({"block": Bypassed}, {"shortcuts": "added"}),
    "a norm that serves once": (
        {"block": lambda wide, narrow: Named(wide, narrow, True, nn.ReLU(), both=False)},
        {"reused": "once"},
    ),
    "a stem without activation": (
        {"block": Residual, "stem": lambda wide, narrow: conv(wide, narrow, 7)},
        {"stem_activation": "no"},
    ),
    "mean pooling": ({"pool": lambda x: functional.avg_pool2d(x, 2)}, {"pooling": "average"}),
}


def weights_of(net: nn.Module) -> dict[str, torch.Tensor]:
    return {key: tensor.clone() for key, tensor in nets.shaken(net).state_dict().items()}


def difference(found: Found, net: nn.Module, channels: int, size: int = 64) -> float:
    """Largest difference from the original, per largest value, in float64."""
    ours = build_network(found.architecture)
    ours.load_state_dict(found.tensors)
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(1, channels, size, size, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        expected, answer = net.double().eval()(image), ours.double().eval()(image)
    assert expected.std() > 1e-3
    assert answer.shape == expected.shape
    return float((answer - expected).abs().max() / expected.abs().max())


def read(tensors: dict[str, torch.Tensor], told: Told) -> Found:
    """Read tensors; the order of the join is never what a test is about."""
    found = recognise(tensors)[0]
    assert found.reread is not None
    asked = {one.name for one in found.assumptions}
    order = {"skip_order": "upsampled-first"} if "skip_order" in asked else {}
    return found.reread(order | told)


def draw(options: dict[str, Any], seed: int) -> Assembled:
    chance = random.Random(seed)
    torch.manual_seed(seed)
    drawn = {
        "widths": draw_widths(chance),
        "channels": chance.choice((1, 2, 3)),
        "classes": chance.choice((1, 2, 5)),
    }
    return Assembled(Parts(**(drawn | options)))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", RIGHT)
def test_a_habit_that_tensors_tell_is_read_right(name: str, seed: int) -> None:
    net = draw(RIGHT[name], seed)
    assert difference(read(weights_of(net), {}), net, net.parts.channels) < TOLERANCE


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", ASKED)
def test_a_habit_that_tensors_do_not_tell_is_assumed_and_can_be_told(name: str, seed: int) -> None:
    options, told = ASKED[name]
    net = draw(options, seed)
    size = 256 if "strides" in told else 64
    tensors = weights_of(net)
    found = read(tensors, told)
    assert difference(found, net, net.parts.channels, size) < TOLERANCE
    untold = recognise(tensors)[0]
    loud = [one for one in QUESTIONS if one.name in told and one.name not in ("slope", "groups")]
    assert {one.topic for one in loud} <= untold.assumed.keys()
    assert found.card["told"].keys() >= {one.topic for one in loud}
    assert not found.card["told"].keys() & found.assumed.keys()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["down", "pool", "d", "reduce"])
def test_strided_convolutions_between_blocks_with_a_shortcut_halve_the_size(
    name: str, seed: int
) -> None:
    chance = random.Random(seed)
    widths, channels = draw_widths(chance), chance.randint(1, 3)
    net = Alternating(name, widths, channels, 2)
    tensors = weights_of(net)
    assert difference(read(tensors, {}), net, channels) < TOLERANCE
    assert {"pooling", "activation after downsampling"} <= recognise(tensors)[0].assumed.keys()


SHUFFLED = "order of the layers"


@pytest.mark.parametrize("order", ["reversed", "sorted backwards", "by chance"])
def test_a_file_in_no_order_is_read_by_its_names_and_says_so(order: str) -> None:
    net = nets.Milesial(1, 2, bilinear=False, base=8, depth=2)
    tensors = weights_of(net)
    assert SHUFFLED not in recognise(tensors)[0].assumed
    keys = list(reversed(tensors)) if order == "reversed" else sorted(tensors, reverse=True)
    if order == "by chance":
        random.Random(1).shuffle(keys)
    found = recognise({key: tensors[key] for key in keys})[0]
    assert difference(found, net, 1) < TOLERANCE
    assert SHUFFLED in found.assumed
    assert found.reread is not None
    assert SHUFFLED in found.reread({"activation": "elu"}).assumed


@pytest.mark.parametrize("width", range(4, 12, 2))
def test_layers_without_modules_that_are_counted_down_are_read_by_their_names(width: int) -> None:
    tensors = weights_of(Counted(width))
    for order in (list(tensors), list(reversed(tensors))):
        found = recognise({key: tensors[key] for key in order})[0]
        assert difference(found, Counted(width, tensors), 1) < TOLERANCE
        assert (SHUFFLED in found.assumed) == (order != list(tensors))


@pytest.mark.parametrize("name", ["a middle width in each block", "one norm for both convolutions"])
def test_a_file_sorted_by_name_is_in_an_order(name: str) -> None:
    tensors = weights_of(draw(RIGHT[name], 0))
    assert SHUFFLED not in recognise(dict(sorted(tensors.items())))[0].assumed


@pytest.mark.parametrize("seed", range(2))
def test_kernels_of_four_all_the_way_are_put_together(seed: int) -> None:
    chance = random.Random(seed)
    widths, channels = draw_widths(chance), chance.randint(1, 3)
    net = Strided(widths, channels, 4)
    told = {"activation": "leaky_relu", "slope": "0.2"}
    assert difference(read(weights_of(net), told), net, channels) < TOLERANCE


@pytest.mark.parametrize("size", [2, 4])
def test_patches_before_and_behind_a_u_net_are_put_together(size: int) -> None:
    net = Patches(size, (8, 12, 20), 3, 2)
    assert difference(read(weights_of(net), {}), net, 3) < TOLERANCE


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "add", [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm], ids=["old", "new"]
)
def test_weights_of_spectral_norm_are_divided_as_torch_does(add: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    net = Assembled(Parts())
    for layer in list(net.modules()):
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            add(layer)
    with torch.no_grad():
        for _ in range(5):  # it measures while it trains
            net.train()(torch.randn(2, 2, 32, 32))
    tensors = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    assert difference(read(tensors, {}), net, 2) < TOLERANCE


def test_what_was_told_of_a_habit_survives_each_format(tmp_path: Path) -> None:
    net = Assembled(Parts(block=double(act=lambda: nn.CELU(0.7), padding_mode="reflect")))
    torch.save(weights_of(net), tmp_path / "net.pth")
    told = {"activation": "celu", "slope": 0.7, "padding_mode": "reflect"}
    model = load_model(tmp_path / "net.pth", assume={**told, "skip_order": "upsampled-first"})
    image = torch.randn(1, 2, 32, 48, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = net.float().eval()(image)
        for form, name in (
            ("onnx", "a.onnx"),
            ("torchscript", "a.pt"),
            ("safetensors", "a.safetensors"),
        ):
            again = load_model(export_model(model, tmp_path / name, form))
            assert torch.allclose(again.net(image), expected, atol=1e-4), form


# ----------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, None])
@pytest.mark.parametrize("cut", ["the head", "the head and a convolution"])
def test_weights_without_their_end_are_refused(norm: Any, cut: str) -> None:
    net = Assembled(Parts(block=double(norm=norm)))
    gone = ("answer.",) if cut == "the head" else ("answer.", "widening.1.2.", "widening.1.3.")
    gone += ("widening.1.4.",) if len(gone) > 1 else ()
    tensors = {key: t for key, t in weights_of(net).items() if not key.startswith(gone)}
    with pytest.raises(ModelError, match=r"what comes last is widening\.1\.\d, .* not the one"):
        recognise(tensors)


def test_a_last_level_with_fewer_convolutions_is_taken_knowingly() -> None:
    tensors = weights_of(Assembled(Parts()))
    gone = ("widening.1.3.", "widening.1.4.")
    found = recognise({key: t for key, t in tensors.items() if not key.startswith(gone)})
    assert "widening.1 has fewer" in found[0].assumed["convolutions of the last level"]


def test_a_head_without_bias_is_taken_knowingly() -> None:
    tensors = weights_of(Assembled(Parts()))
    del tensors["answer.bias"]
    assert "answer has no bias" in recognise(tensors)[0].assumed["bias of the last convolution"]


def test_a_residual_block_that_lacks_its_shortcut_is_refused() -> None:
    tensors = weights_of(Assembled(Parts(block=Residual, widths=(4, 8, 12, 20))))
    gone = "narrowing.1.shortcut."
    with pytest.raises(ModelError, match=r"narrowing\.1 has no shortcut"):
        recognise({key: t for key, t in tensors.items() if not key.startswith(gone)})


def test_a_norm_of_the_image_beside_the_network_is_not_left_out() -> None:
    inner = {f"net.{key}": tensor for key, tensor in weights_of(Assembled(Parts())).items()}
    norm = {f"scale.{key}": tensor for key, tensor in nn.BatchNorm2d(2).state_dict().items()}
    with pytest.raises(ModelError, match="scale has 2 channels"):
        recognise(norm | inner)
