"""Blobs side by side in a small image keep their shape and do not touch."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.arrays.connected import components
from napari_unet.arrays.packing import Packed

SHAPES = st.one_of(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 9), st.integers(1, 12), st.integers(1, 12)),
)


@settings(max_examples=100, deadline=None)
@given(SHAPES, st.integers(0, 10**6), st.sampled_from([0.2, 0.5, 0.9]))
def test_what_is_taken_from_the_chosen_blobs_goes_back_where_it_was(shape, seed, density):
    random = np.random.default_rng(seed)
    blobs = components(random.random(shape) < density)
    chosen = random.random(blobs.max() + 1) < 0.5
    chosen[0] = False
    packed = Packed(blobs, chosen)
    assert packed.mask.sum() == chosen[blobs].sum()
    assert components(packed.mask).max(initial=0) == chosen.sum()
    values = random.random(shape)
    back = np.full(shape, -1.0)
    packed.put(packed.take(values), back)
    np.testing.assert_array_equal(back, np.where(chosen[blobs], values, -1))


def test_pixels_of_a_blob_keep_their_order():
    blobs = components(np.random.default_rng(0).random((30, 30)) < 0.55)
    chosen = np.ones(blobs.max() + 1, bool)
    chosen[0] = False
    packed = Packed(blobs, chosen)
    names, order = packed.take(blobs), packed.take(np.arange(blobs.size).reshape(blobs.shape))
    for name in range(1, blobs.max() + 1):
        assert (np.diff(order[names == name]) > 0).all()


def test_few_blobs_of_a_large_image_take_little_room():
    mask = np.zeros((1000, 1000), bool)
    mask[100:130, 100:140] = mask[800:830, 700:720] = mask[5:8, 990:] = True
    blobs = components(mask)
    assert Packed(blobs, np.array([False, True, True, True])).mask.size < 4 * mask.sum()


def test_no_blob_at_all_is_an_empty_image():
    packed = Packed(np.zeros((5, 6), np.int32), np.zeros(1, bool))
    assert packed.mask.size == 0
    assert packed.take(np.ones((5, 6))).size == 0
