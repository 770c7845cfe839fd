"""Objects found block by block are those found at once, to the pixel and to the number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_unet.arrays import blocks, pieces, search
from napari_unet.arrays.blocks import cut_blocks, plan_blocks
from napari_unet.arrays.connected import fill_holes
from napari_unet.arrays.instances import find_instances, find_instances_steps
from napari_unet.settings import InstanceSettings

OUTPUTS = [("foreground", "distance"), ("foreground", "boundary"), ("foreground",)]


def blobs(shape: tuple[int, ...], seed: int, coarseness: float, holes: float) -> np.ndarray:
    """Probabilities of random blobs that touch, with holes and islands in them: (2, *shape)."""
    random = np.random.default_rng(seed)
    maps = []
    for scale in (coarseness, coarseness / 2):
        smooth = ndimage.gaussian_filter(random.normal(size=shape), scale)
        smooth -= smooth.min()
        maps.append(smooth / max(smooth.max(), 1e-9))
    maps[0][random.random(shape) < holes] = 0
    return np.round(np.stack(maps), 2).astype(np.float32)  # rounded: many pixels are equally deep


def by_blocks(probability, outputs, chosen, block, threads=1):
    out = np.full(probability.shape[1:], -1, np.int32)
    steps = list(
        find_instances_steps(probability, outputs, chosen, out, block=block, threads=threads)
    )
    done, total = steps[-1]
    assert done == total
    return out


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        st.tuples(st.integers(1, 60), st.integers(1, 60)),
        st.tuples(st.integers(1, 14), st.integers(1, 20), st.integers(1, 20)),
    ),
    st.data(),
)
def test_blocks_of_any_size_give_what_is_found_at_once(shape, data):
    outputs = data.draw(st.sampled_from(OUTPUTS))
    chosen = InstanceSettings(
        threshold=data.draw(st.sampled_from([0.2, 0.4, 0.5, 0.6])),
        min_size=data.draw(st.sampled_from([0, 5, 40])),
        split=data.draw(st.booleans()),
        fill_holes=data.draw(st.booleans()),
    )
    coarseness = data.draw(st.sampled_from([0.7, 1.5, 3.0, 6.0]))
    holes = data.draw(st.sampled_from([0.0, 0.02, 0.2]))
    probability = blobs(shape, data.draw(st.integers(0, 10**6)), coarseness, holes)[: len(outputs)]
    at_once = by_blocks(probability, outputs, chosen, shape)
    block = tuple(data.draw(st.integers(1, size)) for size in shape)
    threads = data.draw(st.sampled_from([1, 3]))
    np.testing.assert_array_equal(by_blocks(probability, outputs, chosen, block, threads), at_once)
    _, first = np.unique(at_once[at_once > 0], return_index=True)
    assert (np.diff(first) > 0).all()  # numbered in the order of the first pixels


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_blobs_too_large_for_a_window_do_not_depend_on_the_blocks_either(data):
    outputs = data.draw(st.sampled_from(OUTPUTS))
    shape = data.draw(st.sampled_from([(60, 70), (9, 80), (14, 20, 22)]))
    chosen = InstanceSettings(
        threshold=data.draw(st.sampled_from([0.3, 0.4, 0.5])),
        min_size=data.draw(st.sampled_from([0, 40])),
        split=data.draw(st.booleans()),
        fill_holes=data.draw(st.booleans()),
    )
    coarseness = data.draw(st.sampled_from([1.5, 3.0]))
    probability = blobs(shape, data.draw(st.integers(0, 10**6)), coarseness, 0.02)[: len(outputs)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "LARGEST_BLOB_PX", data.draw(st.sampled_from([1, 100, 700])))
        patch.setattr(pieces, "CELL_PX", {2: 16, 3: 8})
        patch.setattr(search, "MARGIN_PX", {2: 8, 3: 4})
        at_once = by_blocks(probability, outputs, chosen, shape)
        block = tuple(data.draw(st.integers(1, size)) for size in shape)
        threads = data.draw(st.sampled_from([1, 3]))
        in_blocks = by_blocks(probability, outputs, chosen, block, threads)
    np.testing.assert_array_equal(in_blocks, at_once)


@pytest.mark.parametrize("outputs", OUTPUTS, ids=" ".join)
def test_a_carpet_of_cells_is_cut_like_any_blob_however_large_it_is(outputs, monkeypatch):
    y, x = np.mgrid[:240, :300]
    centres = np.array([(a, b) for a in range(10, 240, 20) for b in range(10, 300, 20)])
    distances = np.hypot(y - centres[:, 0, None, None], x - centres[:, 1, None, None]).min(axis=0)
    inside = (distances < 10.6) & (x % 20 != 0) | ((x % 20 == 0) & (y % 20 // 3 == 3))
    edge = np.clip((distances - 6) / 6, 0, 1)
    second = edge if "boundary" in outputs else 1 - distances / 14.2
    probability = np.stack([inside, second])[: len(outputs)].astype(np.float32)
    chosen = InstanceSettings()
    as_a_whole = find_instances(probability, outputs, chosen)
    assert ndimage.label(inside)[1] < 20
    assert as_a_whole.max() == len(centres)
    monkeypatch.setattr(pieces, "LARGEST_BLOB_PX", 900)
    monkeypatch.setattr(pieces, "CELL_PX", {2: 70})
    monkeypatch.setattr(search, "MARGIN_PX", {2: 30})
    cell_by_cell = find_instances(probability, outputs, chosen)
    assert cell_by_cell.max() == len(centres)
    assert (cell_by_cell != as_a_whole).mean() < 0.01
    monkeypatch.setattr(search, "MARGIN_PX", {2: 0})  # control: without a margin cells are cut
    assert find_instances(probability, outputs, chosen).max() > len(centres)


@pytest.mark.parametrize("outputs", OUTPUTS, ids=" ".join)
def test_a_blob_alone_is_cut_as_it_is_in_the_crowd(outputs):
    probability = blobs((90, 110), 3, 3.0, 0.01)[: len(outputs)]
    chosen = InstanceSettings(threshold=0.55, min_size=0)
    whole = find_instances(probability, outputs, chosen)
    mask = probability[0] > 0.55
    places, count = ndimage.label(mask)
    assert count > 5
    for number, box in enumerate(ndimage.find_objects(places), start=1):
        window = tuple(
            slice(max(part.start - 1, 0), min(part.stop + 1, size))
            for part, size in zip(box, mask.shape, strict=True)
        )
        alone = probability[(slice(None), *window)].copy()
        alone[0][places[window] != number] = 0
        found = find_instances(alone, outputs, chosen)
        expected = np.where(places[window] == number, whole[window], 0)
        pairs = np.unique(np.stack([found.ravel(), expected.ravel()]), axis=1)
        assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]


def test_blocks_that_are_not_joined_show(monkeypatch):
    """Control: the comparison above would notice blobs that are cut at the borders."""
    probability = blobs((60, 60), 0, 3.0, 0.0)
    chosen = InstanceSettings(min_size=0)
    at_once = find_instances(probability, OUTPUTS[0], chosen)
    monkeypatch.setattr(
        search.Pieces, "add", lambda _, found, at: np.zeros(found.max() + 1, np.int32)
    )
    assert (by_blocks(probability, OUTPUTS[0], chosen, (20, 20)) != at_once).any()


def test_a_spiral_through_all_blocks_is_one_object():
    turns = np.zeros((41, 41), np.float32)
    top, left, bottom, right = 0, 0, 40, 40
    while top < bottom and left < right:
        turns[top, left : right + 1] = turns[top : bottom + 1, right] = 1
        turns[bottom, left + 2 : right + 1] = turns[top + 2 : bottom + 1, left + 2] = 1
        turns[top + 2, left + 2 : left + 4] = 1
        top, left, bottom, right = top + 2, left + 2, bottom - 2, right - 2
    _, count = ndimage.label(turns)
    assert count == 1
    chosen = InstanceSettings(split=False)
    found = by_blocks(turns[np.newaxis], ("foreground",), chosen, (7, 5))
    np.testing.assert_array_equal(found, turns.astype(np.int32))


def test_only_windows_are_read_never_the_whole(tmp_path):
    zarr = pytest.importorskip("zarr")
    probability = blobs((200, 180), 1, 2.0, 0.0)
    expected = find_instances(probability, OUTPUTS[0])
    largest = []

    class Watched:
        shape, dtype = probability.shape, probability.dtype

        def __len__(self):
            return len(probability)

        def __getitem__(self, index):
            part = probability[index]
            largest.append(part.size)
            return part

    out = zarr.create_array(tmp_path / "l.zarr", shape=(200, 180), chunks=(32, 32), dtype="i4")
    for _ in find_instances_steps(
        Watched(), OUTPUTS[0], InstanceSettings(threshold=0.6), out, block=(64, 64)
    ):
        pass
    expected = find_instances(probability, OUTPUTS[0], InstanceSettings(threshold=0.6))
    np.testing.assert_array_equal(out[:], expected)
    assert max(largest) < 200 * 180 / 2


@given(
    st.tuples(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 400)),
    st.tuples(st.integers(1, 600), st.integers(1, 600), st.integers(1, 64)),
)
def test_blocks_are_whole_chunks_and_cover_each_pixel_once(shape, chunks):
    block = plan_blocks(shape, chunks=chunks)
    for side, size, chunk in zip(block, shape, chunks, strict=True):
        assert side == size or side % chunk == 0
    one_chunk = np.prod(np.minimum(shape, chunks))
    assert np.prod(block) <= max(blocks.BLOCK_PX, 8 * one_chunk)
    covered = np.zeros(tuple(min(size, 40) for size in shape), int)
    for window in cut_blocks(covered.shape, [min(side, 7) for side in block]):
        covered[window] += 1
    assert (covered == 1).all()


def test_an_island_in_a_hole_keeps_the_hole_open_across_blocks():
    ring = np.zeros((1, 30, 30), np.float32)
    ring[0, 3:27, 3:27] = 1
    ring[0, 8:22, 8:22] = 0
    chosen = InstanceSettings(min_size=0, fill_holes=True, split=False)
    assert (by_blocks(ring, ("foreground",), chosen, (10, 10))[8:22, 8:22] == 1).all()
    ring[0, 14, 14] = 1
    found = by_blocks(ring, ("foreground",), chosen, (10, 10))
    assert found[10, 10] == 0
    assert found.max() == 2


def test_holes_of_one_object_are_filled_and_gaps_between_several_are_not():
    labels = np.zeros((20, 40), np.int32)
    labels[2:12, 2:12] = 1
    labels[5:8, 5:8] = 0  # a hole of 1
    labels[2:12, 14:20], labels[2:12, 20:26] = 2, 3
    labels[5:8, 18:22] = 0  # a gap between 2 and 3
    labels[14:20, 30:40] = 4
    labels[17:20, 33:36] = 0  # a bay at the border of the image
    filled = fill_holes(labels)
    assert (filled[5:8, 5:8] == 1).all()
    assert not filled[5:8, 18:22].any()
    assert not filled[17:20, 33:36].any()
    np.testing.assert_array_equal(filled[labels > 0], labels[labels > 0])
    np.testing.assert_array_equal(fill_holes(filled), filled)


def test_a_hollow_ball_is_filled_and_an_open_ring_is_not():
    ball = np.zeros((9, 9, 9), np.int32)
    ball[1:8, 1:8, 1:8] = 1
    ball[3:6, 3:6, 3:6] = 0
    assert (fill_holes(ball)[1:8, 1:8, 1:8] == 1).all()
    ball[:4, 4, 4] = 0  # a channel to the outside
    np.testing.assert_array_equal(fill_holes(ball), ball)
