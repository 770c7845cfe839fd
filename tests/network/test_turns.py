"""Turning there and back, and where a box goes."""

from __future__ import annotations

import pytest
import torch

from napari_unet.network.turns import TURNS, Turn, average_over_turns


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


@pytest.mark.parametrize("at_once", [1, 5, 16])
@pytest.mark.parametrize("sizes", [(6, 6), (6, 9), (2, 6, 9)], ids=["square", "oblong", "volume"])
def test_the_average_is_the_same_however_many_turned_tiles_are_seen_at_once(
    sizes: tuple[int, ...], at_once: int
) -> None:
    torch.manual_seed(0)
    tiles = torch.rand(2, 1, *sizes, dtype=torch.double)
    weights = torch.rand(9, 9, dtype=torch.double)  # an answer that depends on the way it is seen
    seen: list[int] = []

    def compute(x: torch.Tensor, kept: tuple[slice, ...]) -> torch.Tensor:
        seen.append(len(x))
        return (x * weights[: x.shape[-2], : x.shape[-1]])[(slice(None), slice(None), *kept)]

    kept = (*(slice(0, 2) for _ in sizes[2:]), slice(1, 4), slice(2, 5))
    upright = [
        turn.back(turn.there(tiles) * weights[: turned[-2], : turned[-1]])
        for turn in TURNS
        for turned in [turn.there(tiles).shape]
    ]
    expected = torch.stack(upright).mean(0)[(slice(None), slice(None), *kept)]
    average = average_over_turns(compute, tiles, kept, sizes, at_once)
    torch.testing.assert_close(average, expected)
    assert sum(seen) == 8 * len(tiles)
    assert max(seen) <= max(at_once, len(tiles))
