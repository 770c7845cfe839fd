"""What is no U-Net, or not a whole one, is refused in a sentence that says what is wrong."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from napari_unet.errors import ModelError
from napari_unet.models.recognise import recognise
from napari_unet.models.recognise.layers import Layers
from napari_unet.models.recognise.refusing import refuse_gaps
from napari_unet.models.recognise.search import Search
from napari_unet.models.recognise.units import make_units
from napari_unet.network.build import build_network
from tests.models.recognise import nets
from tests.models.recognise.nets import Any_


class Lists(nn.Module):
    """A U-Net whose parts stand in lists."""

    def __init__(self, base: int = 8, depth: int = 3) -> None:
        super().__init__()
        widths = [base * 2**level for level in range(depth + 1)]
        self.encoder = nn.ModuleList(
            self._block(wide, narrow)
            for wide, narrow in zip([1, *widths[:-2]], widths[:-1], strict=True)
        )
        self.middle = self._block(widths[-2], widths[-1])
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(wide, narrow, 2, 2) for wide, narrow in pairs)
        self.decoder = nn.ModuleList(self._block(wide, narrow) for wide, narrow in pairs)
        self.out = nn.Conv2d(base, 5, 1)

    @staticmethod
    def _block(wide: int, narrow: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(wide, narrow, 3, padding=1), nn.BatchNorm2d(narrow), nn.ReLU(),
            nn.Conv2d(narrow, narrow, 3, padding=1), nn.BatchNorm2d(narrow), nn.ReLU(),
        )  # fmt: skip


class Encoded(nn.Module):
    """An autoencoder: its shapes are those of a U-Net that adds its skips."""

    def __init__(self) -> None:
        super().__init__()
        self.d1, self.d2 = self._block(1, 8), self._block(8, 16)
        self.u1 = nn.ConvTranspose2d(16, 8, 2, 2)
        self.c1, self.out = self._block(8, 8), nn.Conv2d(8, 1, 1)

    @staticmethod
    def _block(wide: int, narrow: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(wide, narrow, 3, padding=1), nn.ReLU(),
            nn.Conv2d(narrow, narrow, 3, padding=1), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.c1(self.u1(self.d2(nn.functional.max_pool2d(self.d1(x), 2)))))


@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.parametrize("classes", [1, 3])
def test_a_second_end_is_refused_and_named(place: str, classes: int) -> None:
    for net in (nets.Milesial(3, 2, False, 4), Lists()):
        whole = net.state_dict()
        width = 4 if isinstance(net, nets.Milesial) else 8
        aux = {"aux.weight": torch.ones(classes, width, 1, 1), "aux.bias": torch.ones(classes)}
        tensors = aux | whole if place == "first" else whole | aux
        with pytest.raises(ModelError, match=r"no part of a U-Net uses, among .*aux\.weight"):
            recognise(tensors)


def test_no_network_ends_in_a_block_with_a_shortcut() -> None:
    tensors = nets.Milesial(3, 2, False, 4, 2).state_dict()
    tensors |= {"aux.weight": torch.ones(2, 4, 1, 1), "aux.bias": torch.ones(2)}
    units, _ = make_units(Layers(tensors))
    assert Search(units).run() is None


@pytest.mark.parametrize("name", ["up.1", "decoder.1"])
def test_a_gap_in_a_list_of_alike_modules_is_named(name: str) -> None:
    tensors = Lists().state_dict()
    assert recognise(tensors)
    rest = {key: value for key, value in tensors.items() if not key.startswith(f"{name}.")}
    with pytest.raises(ModelError, match=re.escape(f"{name} is missing")):
        recognise(rest)


def test_numbers_of_modules_without_tensors_are_no_gap() -> None:
    def block(wide: int, narrow: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(wide, narrow, 3), nn.Conv2d(narrow, narrow, 3), nn.ReLU(),
            nn.Conv2d(narrow, 2 * narrow, 3),
        )  # fmt: skip

    pooled = nn.Sequential(
        block(1, 4), nn.MaxPool2d(2), block(8, 16), nn.MaxPool2d(2), block(32, 4)
    )
    both = nn.ModuleDict({"a": pooled, "b": nn.ModuleList(nn.Conv2d(3, 3, 3) for _ in range(5))})
    refuse_gaps(Layers(pooled.state_dict()))
    refuse_gaps(Layers(both.state_dict()))


@pytest.mark.parametrize("count", [3, 5, 100])
@pytest.mark.parametrize("norm", [True, False])
def test_a_chain_of_one_width_is_no_u(count: int, norm: bool) -> None:
    layers: list[nn.Module] = [nn.Conv2d(1, 16, 3, padding=1)]
    for _ in range(count):
        layers += [nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()]
        layers += [nn.BatchNorm2d(16)] if norm else []
    layers.append(nn.Conv2d(16, 1, 3, padding=1))
    with pytest.raises(ModelError, match="nothing halves and doubles"):
        recognise(nn.Sequential(*layers).state_dict())


def test_what_only_widens_is_refused_before_any_way_is_tried() -> None:
    layers = [
        layer
        for wide, narrow in ((3, 16), (16, 16), (16, 32), (32, 32), (32, 64), (64, 64), (64, 128))
        for layer in (nn.Conv2d(wide, narrow, 3), nn.BatchNorm2d(narrow))
    ]
    head = nn.Conv2d(128, 21, 1)  # narrow, but nothing goes on from there
    for net in (nn.Sequential(*layers), nn.Sequential(*layers, head)):
        units, _ = make_units(Layers(net.state_dict()))
        search = Search(units)
        assert search.run() is None
        assert search.furthest == (0, -1, 0)


def test_skips_that_are_added_may_be_none_at_all() -> None:
    net = nets.shaken(Encoded())
    found = recognise(net.state_dict())
    assert "cannot tell it from no skips" in found[0].assumed["skips"]
    bare = next(reading for reading in found if reading.title == "no skips")
    assert "There are no skips" in bare.assumed["skips"]
    ours = build_network(bare.architecture)
    ours.load_state_dict(bare.tensors)
    image = torch.randn(1, 1, 16, 24, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(ours.eval()(image), net(image), atol=1e-5)


def test_skips_that_are_concatenated_are_not_assumed() -> None:
    found = recognise(nets.shaken(Any_((4, 8, 16), norm="batch")).state_dict())
    assert all("skips" not in reading.assumed for reading in found)


def test_a_vnet_is_refused_by_its_names() -> None:
    names = ("in_tr.conv_block", "down_tr32.down_conv", "up_tr32.up_conv", "out_tr.conv_block")
    tensors = {f"{name}.conv.weight": torch.ones(4, 4, 3, 3) for name in names[::3]}
    tensors |= {f"{name}.weight": torch.ones(4, 4, 2, 2) for name in names[1:3]}
    with pytest.raises(ModelError, match="VNet, which is not a U-Net that can be read"):
        recognise(tensors)


def test_a_convolution_that_reads_what_nothing_gives_is_named() -> None:
    tensors = nets.Brain(1, 3, 4, 3).state_dict()
    tensors["upconv3.weight"] = tensors["upconv3.weight"][:-1]
    with pytest.raises(ModelError, match=r"nothing gives the channels that upconv3 reads"):
        recognise(tensors)


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (("encoder.conv1", "decoder.p5", "decoder.seg_blocks.0.block.0.block.0"), "an FPN"),
        (("encoder.conv1", "decoder.blocks.x_0_0.conv1.0"), "a UNet\\+\\+ of seg"),
        (
            ("encoder.conv1", "decoder.blocks.0.block.0.0", "decoder.blocks.0.block.2.0"),
            "a Linknet",
        ),
        (("encoder.conv1", "decoder.feature_norms.0", "decoder.psp.blocks.0.0"), "a UPerNet"),
        (("convInit.conv", "down_layers.0.1.conv1.conv", "up_samples.0.0.conv"), "a SegResNet"),
        (("conv0_0.conv1", "conv0_1.conv1", "conv0_2.conv1"), "a UNet\\+\\+,"),
        (("net.conv0_0.conv1", "net.conv0_1.conv1", "net.conv0_2.conv1"), "a UNet\\+\\+,"),
    ],
)
def test_networks_that_are_no_u_net_are_named(names: tuple[str, ...], kind: str) -> None:
    names = (*names, "segmentation_head.0") if names[0] == "encoder.conv1" else names
    tensors = {f"{name}.weight": torch.ones(4, 4, 3, 3) for name in names}
    with pytest.raises(ModelError, match=f"{kind}.* Ask for it as TorchScript or ONNX"):
        recognise(tensors)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("features.denseblock1.denselayer1.conv1", "a DenseNet"),
        ("layer0.conv1", "an SENet"),
        ("stages_0.blocks.0", "another one"),
    ],
)
def test_an_encoder_that_is_not_known_is_named(name: str, kind: str) -> None:
    names = (f"encoder.{name}", "decoder.blocks.0.conv1.0", "segmentation_head.0")
    tensors = {f"{name}.weight": torch.ones(4, 4, 3, 3) for name in names}
    with pytest.raises(ModelError, match=f"its encoder is {kind}; .* Export"):
        recognise(tensors)


@pytest.mark.parametrize("groups", [4, 8], ids=["grouped", "depthwise"])
def test_grouped_convolutions_are_told_as_the_reason(groups: int) -> None:
    net = Lists()
    for block in (*net.encoder, net.middle):
        channels = block[3].out_channels
        block[3] = nn.Conv2d(channels, channels, 3, groups=channels // 8 * groups)
    with pytest.raises(ModelError, match=r"encoder\.0\.3 with a weight .* depthwise or grouped"):
        recognise(net.state_dict())
