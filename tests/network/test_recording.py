"""A computation that is repeated is recorded, and goes on without if that fails."""

from __future__ import annotations

import pytest
import torch

from napari_unet.network.recording import MOST_RECORDINGS, REPEATS, Recorded

BOX = [slice(0, 3)]


def twice(seen, kept):
    return 2 * seen[(slice(None), *kept)]


def recorder(made):
    def record(compute, example):
        made.append(tuple(example.shape))
        return lambda tiles: compute(tiles) + 0.5  # shows that it was replayed

    return record


def test_the_first_times_are_computed_and_the_others_replayed() -> None:
    made: list[tuple[int, ...]] = []
    compute = Recorded(twice, recorder(made))
    tile = torch.arange(5.0)[None]
    for time in range(REPEATS + 3):
        expected = 2 * tile[:, :3] + (0.5 if time >= REPEATS else 0)
        assert torch.equal(compute(tile, BOX), expected)
    assert made == [(1, 5)]
    assert torch.equal(compute(tile, [slice(1, 3)]), 2 * tile[:, 1:3])  # another box, anew
    assert torch.equal(compute(tile.double(), BOX), 2 * tile.double()[:, :3])


def test_only_so_many_are_kept() -> None:
    made: list[tuple[int, ...]] = []
    compute = Recorded(twice, recorder(made))
    for side in range(5, 5 + 2 * MOST_RECORDINGS):
        for _ in range(REPEATS + 2):
            compute(torch.zeros(1, side), BOX)
    assert len(made) == compute.count == MOST_RECORDINGS


@pytest.mark.parametrize("error", [RuntimeError("no\nreally"), MemoryError("no"), TypeError("no")])
def test_after_a_failure_nothing_is_recorded_any_more_and_the_reason_is_kept(error) -> None:
    tries = []

    def refuse(compute, example):
        tries.append(1)
        raise error

    compute = Recorded(twice, refuse)
    tile = torch.ones(1, 4)
    for _ in range(2 * REPEATS):
        assert torch.equal(compute(tile, BOX), 2 * tile[:, :3])
    assert len(tries) == 1
    assert compute.problem == "no"


def test_without_a_way_to_record_nothing_is_recorded() -> None:
    compute = Recorded(twice, None)
    for _ in range(2 * REPEATS):
        compute(torch.ones(1, 4), BOX)
    assert compute.count == 0
    assert compute.problem is None
