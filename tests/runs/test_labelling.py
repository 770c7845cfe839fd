"""Labels from probabilities that were kept, into memory and into zarr, whatever memory there is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_unet.arrays import search
from napari_unet.errors import DeviceError
from napari_unet.models.card import Card
from napari_unet.runs import labelling
from napari_unet.runs.labelling import find_labels, label_steps
from napari_unet.runs.progress import Note, TileDone
from napari_unet.settings import Architecture, InstanceSettings

SETTINGS = InstanceSettings()


@pytest.fixture
def card():
    return Card(name="any", architecture=Architecture(widths=(2, 2)))


@pytest.fixture
def probability():
    """Two planes of discs, some of which touch; shape (1, 2, 500, 600)."""
    random = np.random.default_rng(0)
    outside = random.random((2, 500, 600)) > 0.001
    distance = [ndimage.distance_transform_edt(plane) for plane in outside]
    return (np.stack(distance) < 8).astype(np.float32)[None]


def find_nothing_in(monkeypatch, more_than_px):
    """Let memory run out where more pixels than that are looked at."""
    real = search.components

    def components(mask):
        if mask.size > more_than_px:
            raise MemoryError
        return real(mask)

    monkeypatch.setattr(search, "components", components)


def test_memory_that_runs_out_is_told_in_a_line_and_the_labels_are_right(
    card, probability, run_to_end, monkeypatch
):
    expected = [find_labels(card, plane, SETTINGS) for plane in probability.transpose(1, 0, 2, 3)]
    find_nothing_in(monkeypatch, 100_000)
    progress, labels = run_to_end(label_steps(card, probability, "TYX", SETTINGS))
    np.testing.assert_array_equal(labels, expected)
    notes = [event.text for event in progress if isinstance(event, Note)]
    assert notes == [
        "Memory ran out while objects were being found; going on with 250 x 300 px at a time."
    ]
    assert progress[-1] == TileDone(2, 2)


def test_memory_for_nothing_at_all_is_told_in_a_sentence(
    card, probability, run_to_end, monkeypatch
):
    find_nothing_in(monkeypatch, 0)
    with pytest.raises(DeviceError, match=r"Memory of this computer ran out .* Close other"):
        run_to_end(label_steps(card, probability, "TYX", SETTINGS))


@pytest.mark.parametrize("extra", [{}, {"shards": (1, 256, 256)}], ids=["chunks", "shards"])
@pytest.mark.parametrize("processors", [1, 3])
def test_labels_in_zarr_are_those_in_memory(
    card, probability, run_to_end, monkeypatch, extra, processors
):
    zarr = pytest.importorskip("zarr")
    monkeypatch.setattr(labelling, "count_processors", lambda: processors)
    monkeypatch.setattr("napari_unet.arrays.blocks.BLOCK_PX", 2**14)
    out = zarr.create_array(
        {}, shape=probability.shape[1:], chunks=(1, 64, 64), dtype="int32", **extra
    )
    _, expected = run_to_end(label_steps(card, probability, "TYX", SETTINGS))
    run_to_end(label_steps(card, probability, "TYX", SETTINGS, out))
    assert expected.max() > 100
    np.testing.assert_array_equal(out[:], expected)
