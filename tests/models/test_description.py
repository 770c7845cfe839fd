"""A card in words."""

from __future__ import annotations

from napari_unet.models.card import Card
from napari_unet.models.description import (
    describe,
    describe_network,
    describe_normalization,
    introduce,
    measure,
)
from napari_unet.models.model import Model
from napari_unet.network.graph import Convolution, Graph
from napari_unet.settings import Architecture, Normalization


def test_every_line_of_a_card_says_something(tiny_unet) -> None:
    card = Card(name="cells", architecture=tiny_unet.architecture, authors=("Ada",), cite=("x",))
    facts = measure(Model(tiny_unet, card))
    rows = dict(describe(card, facts))
    assert rows["receptive field"] == f"{tiny_unet.receptive_field} px"
    assert rows["parameters"].replace(",", "").isdigit()
    assert rows["network"] == "U-Net 2D, 4-8-16"
    assert rows["made from"] == "random weights"
    assert (rows["authors"], rows["cite"], rows["licence"]) == ("Ada", "x", "unknown")
    assert dict(describe(card))["receptive field"] == "unknown"


def test_a_network_of_layers_is_named_by_its_family() -> None:
    layer = Convolution(name="c", inputs=("image",), in_channels=1, out_channels=1, kernel=(1, 1))
    card = Card(name="x", architecture=Graph(family="Keras", nodes=(layer,)), source="a.h5")
    assert describe_network(card) == "Keras 2D, 1 layers"
    assert dict(describe(card))["made from"] == "unknown"


def test_every_scaling_of_grey_values_is_said() -> None:
    said = {
        kind: describe_normalization(Normalization(kind=kind))
        for kind in ("percentile", "mean-std", "min-max", "divide", "fixed", "none")
    }
    assert len(set(said.values())) == len(said)
    how = Normalization(
        kind="min-max", joint=True, limits=(0, 255), gain=2, shift=-1, clip=(-1, None)
    )
    for part in ("all channels", "cut off at 0 and 255", "times 2 plus -1", "cut off at -1"):
        assert part in describe_normalization(how)


def test_a_new_file_is_introduced_with_what_was_assumed() -> None:
    shape = Architecture(widths=(3, 4))
    own = Card(name="mine", architecture=shape)
    assert introduce(own, {}) == "mine is ready."
    card = own.replace(source="a.pth, PyTorch weights", assumed=dict.fromkeys("abcde", "why"))
    told = introduce(card, {})
    assert "a.pth, PyTorch weights: recognised as U-Net 2D" in told
    assert "Assumed: a, b, c and 2 more." in told
