"""Where memory runs out, the search for objects goes on with smaller blocks, and says so."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_unet.arrays import search
from napari_unet.arrays.instances import find_instances, find_instances_steps
from napari_unet.settings import InstanceSettings

OUTPUTS = ("foreground",)


@pytest.fixture
def probability() -> np.ndarray:
    """Discs on a grid, some of which touch."""
    random = np.random.default_rng(0)
    inside = np.zeros((600, 700), bool)
    inside[random.integers(0, 600, 300), random.integers(0, 700, 300)] = True
    return (ndimage.distance_transform_edt(~inside) < 8).astype(np.float32)[None]


def short_of_memory(monkeypatch, most_px: int, step: str = "split_at_necks") -> list[int]:
    """Let a step fail for more than so many pixels; returns the sizes it was asked for."""
    asked = []
    real = getattr(search, step)

    def fail_if_large(blobs, *rest):
        asked.append(blobs.size)
        if blobs.size > most_px:
            raise MemoryError
        return real(blobs, *rest)

    monkeypatch.setattr(search, step, fail_if_large)
    return asked


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("step", ["split_at_necks", "components", "fill_own_holes"])
def test_out_of_memory_means_smaller_blocks_and_the_same_labels(
    probability, threads, step, monkeypatch
):
    settings = InstanceSettings(fill_holes=True)
    expected = find_instances(probability, OUTPUTS, settings)
    asked = short_of_memory(monkeypatch, 150_000, step)
    out = np.full(expected.shape, -7, np.int32)
    steps = list(find_instances_steps(probability, OUTPUTS, settings, out, threads=threads))
    np.testing.assert_array_equal(out, expected)
    assert max(asked) > 150_000
    (line,) = [step for step in steps if isinstance(step, str)]
    assert line == (
        "Memory ran out while objects were being found; going on with 300 x 350 px at a time."
    )
    done, total = steps[-1]
    assert done == total


def test_memory_that_suffices_for_nothing_is_an_error(probability, monkeypatch):
    asked = short_of_memory(monkeypatch, 0)
    out = np.zeros(probability.shape[1:], np.int32)
    with pytest.raises(MemoryError):
        list(find_instances_steps(probability, OUTPUTS, InstanceSettings(), out, threads=2))
    assert min(asked) <= search.LEAST_BLOCK_PX


def test_blocks_do_not_become_smaller_than_what_is_written_at_once(probability, monkeypatch):
    zarr = pytest.importorskip("zarr")
    short_of_memory(monkeypatch, 100_000)
    out = zarr.create_array({}, shape=(600, 700), chunks=(300, 700), dtype="int32")
    with pytest.raises(MemoryError):
        list(find_instances_steps(probability, OUTPUTS, InstanceSettings(), out))
