"""Tiles get to a device and back, and a result that stays there is copied back once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_unet.network import transfers
from napari_unet.network.transfers import Assembly, Transfers

CPU = torch.device("cpu")
VALUES = torch.arange(2 * 10 * 6, dtype=torch.float32).view(2, 10, 6)
CORES = [
    (slice(0, 7), slice(0, 4)),
    (slice(0, 7), slice(4, 6)),
    (slice(7, 10), slice(0, 4)),
    (slice(7, 10), slice(4, 6)),
]


def test_tiles_of_any_layout_arrive_together() -> None:
    array = np.arange(48, dtype=np.uint8).reshape(1, 6, 8)
    array.setflags(write=False)
    tiles = [array[:, ::-1, ::2], array[:, :, ::-2]]
    there = Transfers(CPU).upload(tiles)
    assert there.shape == (2, 1, 6, 4)
    for tile, arrived in zip(tiles, there, strict=True):
        np.testing.assert_array_equal(arrived.numpy(), tile)
    there += 1
    assert array.max() == 47  # what was given is left alone
    (alone,) = Transfers(CPU).upload(tiles[:1])
    np.testing.assert_array_equal(alone.numpy(), tiles[0])


@pytest.mark.parametrize("strip_bytes", [1, 100, 10**6])
def test_a_complete_result_comes_back_in_strips_of_rows(strip_bytes, monkeypatch) -> None:
    monkeypatch.setattr(transfers, "STRIP_BYTES", strip_bytes)
    result = Assembly(2, (10, 6), CPU)
    for core in CORES[::-1]:
        result.put(core, VALUES[(slice(None), *core)])
        result.add(core)
    out, times = np.zeros((2, 10, 6)), np.zeros((10, 6), int)
    for box, values in result.take(Transfers(CPU)):
        out[(slice(None), *box)] = values
        times[box] += 1
        assert box[1] == slice(0, 6)
    assert (times == 1).all()
    np.testing.assert_array_equal(out, VALUES.numpy())


def test_of_a_result_that_was_broken_off_only_what_is_done_comes_back() -> None:
    result = Assembly(2, (10, 6), CPU)
    for core in CORES[:3]:
        result.put(core, VALUES[(slice(None), *core)])
    for core in CORES[:2]:
        result.add(core)
    parts = list(result.take(Transfers(CPU)))
    assert [box for box, _ in parts] == CORES[:2]
    for box, values in parts:
        np.testing.assert_array_equal(values, VALUES[(slice(None), *box)].numpy())
