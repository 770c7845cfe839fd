"""What is kept aside can judge, and no crop comes near it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.runs.crops import Crops
from napari_unet.runs.held_out import hold_out
from tests.runs.fields import CARD, box, discs, plane_of


def distance_between(window, mask) -> int:
    """Pixels between a window (slices) and the nearest that is set, along Y or X."""
    at = np.argwhere(mask)
    apart = [
        np.maximum(np.maximum(side.start - at[:, k], at[:, k] - side.stop + 1), 0)
        for k, side in enumerate(window)
    ]
    return int(np.maximum(*apart).min()) - 1


def test_an_end_of_the_longer_side_of_a_large_region_is_kept_aside():
    labels = discs((300, 500))
    vouched = box(labels.shape, 20, 100, 276, 420)
    split = hold_out([plane_of(labels, vouched)], 0.25, 128)
    (far,) = split.masks
    assert split.kind == "block"
    assert not far[:, :300].any(), "the end of the longer side, X"
    assert np.array_equal(far, vouched & far)
    assert 0.2 < far.sum() / vouched.sum() < 0.35
    assert 48 <= split.crop_px <= 128


def test_it_is_the_other_end_where_the_first_has_no_objects():
    labels = discs((300, 500))
    vouched = box(labels.shape, 20, 100, 276, 420)
    labels[:, 300:] = 0
    split = hold_out([plane_of(labels, vouched)], 0.25, 128)
    (near,) = split.masks
    assert split.kind == "block"
    assert near.any()
    assert not near[:, 220:].any()


def test_an_end_and_what_is_learned_beside_it_are_as_large_as_each_other_at_most():
    labels = discs((200, 256))
    vouched = box(labels.shape, 0, 0, 200, 256)
    split = hold_out([plane_of(labels, vouched)], 0.9, 128)
    (far,) = split.masks
    assert split.crop_px == 64
    assert far[:, 160:].all()
    assert not far[:, :160].any()


def test_regions_that_lie_apart_are_kept_aside_whole():
    labels = discs((200, 900))
    first, second = box(labels.shape, 0, 0, 128, 128), box(labels.shape, 0, 700, 100, 800)
    split = hold_out([plane_of(labels, first | second)], 0.25, 64)
    assert split.kind == "regions"
    assert np.array_equal(split.masks[0], second), "the smaller one is nearer to a quarter"


@pytest.mark.parametrize(("share", "kept"), [(0.25, 1), (0.5, 2)])
def test_planes_are_apart_whatever_their_regions(share, kept):
    labels = discs((100, 100))
    planes = [plane_of(labels, box(labels.shape, 0, 0, 90, 90)) for _ in range(4)]
    split = hold_out(planes, share, 64)
    assert split.kind == "regions"
    assert [mask.any() for mask in split.masks].count(True) == kept


def test_one_small_region_is_all_learned_from():
    labels = discs((300, 300))
    split = hold_out([plane_of(labels, box(labels.shape, 20, 20, 148, 148))], 0.25, 128)
    assert split.kind == "nothing"
    assert not split.is_judged
    assert not split.masks[0].any()


def test_an_end_without_objects_can_judge_nothing():
    labels = discs((200, 400))
    vouched = box(labels.shape, 0, 0, 200, 400)
    along_x = hold_out([plane_of(labels, vouched)], 0.25, 64).masks[0]
    assert along_x.any(axis=1).all()
    assert not along_x[:, :200].any()
    labels[:, 100:] = 0
    along_y = hold_out([plane_of(labels, vouched)], 0.25, 64).masks[0]
    assert along_y.any(axis=0).all(), "the ends of the other side have objects"
    assert not along_y[:100].any()
    labels[60:] = 0
    assert hold_out([plane_of(labels, vouched)], 0.25, 64).kind == "nothing"


@settings(deadline=None, max_examples=30)
@given(
    boxes=st.lists(
        st.tuples(
            st.integers(0, 300), st.integers(0, 300), st.integers(20, 400), st.integers(20, 400)
        ),
        min_size=1,
        max_size=3,
    ),
    crop=st.sampled_from([32, 64, 128]),
    share=st.floats(0.1, 0.6),
    margin=st.sampled_from([0, 12]),
)
def test_no_crop_comes_nearer_to_the_held_out_part_than_its_side(boxes, crop, share, margin):
    labels = discs((350, 420))
    vouched = np.zeros(labels.shape, bool)
    for y, x, height, width in boxes:
        vouched[y : y + height, x : x + width] = True
    plane = plane_of(labels, vouched)
    split = hold_out([plane], share, crop, margin_px=margin)
    classes = CARD.replace(labels="semantic")  # the same crops without the cost of weights
    random = np.random.default_rng(0)
    if not split.is_judged:
        return
    crops = Crops([plane], split.masks, classes, split.crop_px, margin)
    for _, (y, x) in crops.draw_windows(40, random):
        learned = vouched[y : y + split.crop_px, x : x + split.crop_px]
        assert learned.any(), "a crop without a vouched pixel teaches nothing"
        seen = [
            slice(max(0, start - margin), min(size, start + split.crop_px + margin))
            for start, size in zip((y, x), labels.shape, strict=True)
        ]
        assert distance_between(seen, split.masks[0]) >= split.crop_px
