"""Turning there and back, and where a box goes."""

from __future__ import annotations

import pytest
import torch

from napari_unet.network.turns import TURNS, Turn


@pytest.mark.parametrize("shape", [(1, 2, 5, 7), (1, 1, 3, 4, 6)], ids=["plane", "volume"])
def test_the_eight_turns_are_all_different_and_each_finds_back(shape: tuple[int, ...]) -> None:
    image = torch.rand(shape)
    seen = [turn.there(image) for turn in TURNS]
    assert len({tuple(turned.flatten().tolist()) for turned in seen}) == 8
    for turn, turned in zip(TURNS, seen, strict=True):
        assert torch.equal(turn.back(turned), image)


@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_a_box_of_the_image_is_the_turned_box_of_the_turned_image(turn: Turn) -> None:
    image = torch.rand(1, 3, 5, 7)
    box = (slice(1, 3), slice(0, 2), slice(4, 6))
    turned = turn.there(image)[(..., *turn.box(box, image.shape[1:]))]
    assert torch.equal(turn.back(turned), image[(..., *box)])
