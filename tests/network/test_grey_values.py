"""Grey values scaled on a device are those that are scaled before they get there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_unet.arrays.normalize import measure, normalize
from napari_unet.network import grey_values
from napari_unet.network.grey_values import SCALED_THERE, upload_scaled
from napari_unet.network.transfers import Transfers
from napari_unet.settings import Normalization

RULES = {
    "percentiles": Normalization(),
    "mean and deviation": Normalization(kind="mean-std"),
    "fixed, with limits": Normalization(
        kind="fixed", offsets=(3.0, 40.0), scales=(7.0, 0.5), limits=(2.0, 90.0), clip=(-1.0, 3.0)
    ),
    "gain and shift": Normalization(kind="min-max", gain=2.0, shift=-1.0),
}
TRANSFERS = Transfers(torch.device("cpu"))


def make_tiles(dtype: str) -> list[np.ndarray]:
    """Make tiles of two channels, with all that grey values can be, in backward views."""
    random = np.random.default_rng(0)
    values = random.uniform(0, 100, (3, 2, 16, 24))
    if dtype == "uint16":
        values *= 600
    if dtype == "bool":
        values = values > 50
    if dtype.startswith("float"):
        values[0, 0, 0, :4] = np.nan, np.inf, -np.inf, 5e4
    tiles = values.astype(dtype)
    tiles.setflags(write=False)
    return [tile[:, ::-1] for tile in tiles]


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("dtype", SCALED_THERE)
def test_scaling_on_the_device_gives_the_same(dtype, rule, invert, monkeypatch) -> None:
    monkeypatch.setattr(grey_values, "normalize", None)  # it must not be asked
    tiles = make_tiles(dtype)
    statistics = [measure(tile, rule) for tile in tiles]
    before = [tile.copy() for tile in tiles]
    seen = upload_scaled(tiles, statistics, invert, TRANSFERS, is_scaled_there=True)
    for tile, same, measured, there in zip(tiles, before, statistics, seen, strict=True):
        expected = normalize(tile, measured, invert)
        assert there.dtype == torch.float32
        assert np.allclose(there.numpy(), expected, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(tile, same)


@pytest.mark.parametrize("dtype", ["int32", "uint32", "int64", "float64", ">u2", ">f4"])
def test_what_a_gpu_has_no_numbers_for_is_scaled_before(dtype) -> None:
    tiles = make_tiles(dtype)
    statistics = [measure(tile, Normalization()) for tile in tiles]
    seen = upload_scaled(tiles, statistics, False, TRANSFERS, is_scaled_there=True)
    for tile, measured, there in zip(tiles, statistics, seen, strict=True):
        np.testing.assert_array_equal(there.numpy(), normalize(tile, measured))


def test_a_cpu_is_given_what_was_scaled_before() -> None:
    (tile, *_) = make_tiles("uint8")
    measured = measure(tile, Normalization())
    seen = upload_scaled([tile], [measured], False, TRANSFERS, is_scaled_there=False)
    np.testing.assert_array_equal(seen[0].numpy(), normalize(tile, measured))
