"""A card fits its network, and survives being written as JSON."""

from __future__ import annotations

import pytest

from napari_unet.errors import SettingError
from napari_unet.models.card import Card
from napari_unet.settings import Architecture, InstanceSettings, Normalization, SegmentSettings

RGB = Architecture(widths=(3, 4), in_channels=3, classes=2)


def test_a_card_comes_back_from_json_as_it_was() -> None:
    card = Card(
        name="cells",
        architecture=RGB,
        input_channels=("red", "green", "blue"),
        outputs=("foreground", "distance"),
        normalization=Normalization(kind="divide", divisor=4095),
        instances=InstanceSettings(threshold=0.4),
        scores={"held-out ap50": 0.9},
    )
    assert Card.model_validate_json(card.model_dump_json()) == card


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"outputs": ("a", "b")}, "1 input channels are named, the network has 3"),
        ({"input_channels": ("r", "g", "b")}, "1 outputs are named, the network has 2"),
        ({"colour": "red"}, "no setting colour in Card"),
        ({"activation": "relu"}, "activation = 'relu'"),
        ({"object_size_px": 0}, "object_size_px = 0"),
    ],
)
def test_a_card_that_does_not_fit_its_network_is_refused(changes, sentence) -> None:
    with pytest.raises(SettingError, match=sentence):
        Card(name="x", architecture=RGB, **changes)


def test_the_smallest_object_is_told_for_an_image_whose_objects_have_another_size() -> None:
    usual = InstanceSettings(threshold=0.4, min_size=30)
    card = Card(name="x", architecture=Architecture(), instances=usual, object_size_px=20)
    assert card.instances_at(None) == card.instances_at(20) == usual
    assert card.instances_at(40) == usual.replace(min_size=120)
    assert card.instances_at(10) == usual.replace(min_size=8)
    assert card.replace(object_size_px=None).instances_at(40) == usual
    assert card.instances_at(9999).min_size == 1_000_000, "no more than the setting takes"


def test_what_is_not_said_of_how_objects_are_found_is_said_by_the_card() -> None:
    own = InstanceSettings(threshold=0.6, min_size=30, fill_holes=True)
    card = Card(name="x", architecture=Architecture(), instances=own, object_size_px=20)
    assert card.complete(None).instances == own
    assert card.complete(SegmentSettings(invert=True)).instances == own
    scaled = card.complete(SegmentSettings(object_size_px=40))
    assert scaled.instances == own.replace(min_size=120)
    assert card.complete(scaled.replace(invert=True)).instances == scaled.instances
    told = SegmentSettings(instances=InstanceSettings(threshold=0.5), object_size_px=40)
    assert card.complete(told).instances == own.replace(threshold=0.5, min_size=120)
    plain = InstanceSettings(**InstanceSettings().model_dump())
    assert card.complete(SegmentSettings(instances=plain)).instances == plain, "all of it is said"


def test_a_card_without_a_network_is_refused_in_a_short_sentence() -> None:
    with pytest.raises(SettingError, match=r"^Setting architecture of Card is missing"):
        Card(name="x")
