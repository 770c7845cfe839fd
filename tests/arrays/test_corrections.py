"""Corrections are counted, vouched for and applied without touching what was given."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_unet.arrays.corrections import (
    changed,
    count_changes,
    join_outside,
    keep_vouched,
    renamed_as,
    renumber,
    separate_parts,
)
from napari_unet.errors import LabelsError

small_labels = hnp.arrays(np.int32, st.tuples(*[st.integers(1, 9)] * 2), elements=st.integers(0, 4))


def two_squares() -> np.ndarray:
    labels = np.zeros((12, 20), np.int32)
    labels[2:8, 2:8] = 1
    labels[2:8, 10:16] = 2
    return labels


def disc(shape, centre, radius):
    y, x = np.indices(shape)
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


def test_what_was_undone_is_no_change():
    base = two_squares()
    assert not changed(base, base.copy()).any()
    assert count_changes(base, base.copy()) == 0


def test_added_removed_and_altered_objects_are_each_counted_once():
    base, now = two_squares(), two_squares()
    now[2:4, 2:4] = 0  # 1 is altered, at two places
    now[6:8, 6:8] = 0
    now[now == 2] = 0  # 2 is removed
    now[9:11, 1:4] = 7  # 7 is added
    assert count_changes(base, now) == 3
    assert changed(base, now).sum() == 8 + 36 + 6


def test_labels_of_another_shape_cannot_be_compared():
    with pytest.raises(LabelsError, match=r"\(3, 4\)"):
        changed(np.zeros((3, 4), int), np.zeros((4, 3), int))


def test_vouched_labels_survive_a_new_run_under_their_numbers():
    old, new = two_squares(), two_squares()[:, ::-1].copy()
    mask = np.zeros(old.shape, bool)
    mask[:, :5] = True  # cuts object 1 of the old labels; of the new ones, 2 lies there
    result = keep_vouched(new, old, mask)
    assert np.array_equal(result[mask], old[mask])
    assert np.array_equal(result[~mask] > 0, new[~mask] > 0)
    assert len({int(result[4, 4]), int(result[4, 6]), int(result[4, 14])}) == 2
    assert result[4, 4] == result[4, 6], "an object goes on outside under its number"
    assert result[4, 14] not in old[mask], "an object that was only there in the new run is new"


def test_a_new_object_beside_vouched_background_does_not_take_its_number():
    old = np.zeros((10, 20), np.int32)
    old[0:3, 0:6] = 5
    new = np.zeros((10, 20), np.int32)
    new[5:9, 2:14] = 5  # the person deleted it in the checked half
    mask = np.zeros(old.shape, bool)
    mask[:, :10] = True
    result = keep_vouched(new, old, mask)
    assert not result[5:9, :10].any()
    assert result[6, 12] not in (0, 5)


@given(small_labels, small_labels, st.randoms(use_true_random=False))
def test_keeping_all_or_nothing_gives_one_or_the_other(new, old, random):
    old = np.resize(old, new.shape)
    everything, nothing = np.ones(new.shape, bool), np.zeros(new.shape, bool)
    assert np.array_equal(keep_vouched(new, old, everything), old)
    assert np.array_equal(renumber(keep_vouched(new, old, nothing)), renumber(new))


def test_objects_painted_with_one_number_are_told_apart_but_specks_stay():
    labels = np.zeros((20, 30), np.int32)
    labels[2:10, 2:10] = 3
    labels[2:10, 15:23] = 3
    labels[15, 28] = 3  # a slip of the brush
    labels[12:16, 2:6] = 1
    parts = separate_parts(labels)
    assert len(np.unique(parts)) - 1 == 3
    assert parts[5, 5] != parts[5, 20]
    assert parts[15, 28] in (parts[5, 5], parts[5, 20])
    assert np.array_equal(parts > 0, labels > 0)


def test_an_object_goes_on_behind_the_edge_of_what_was_checked():
    labels = two_squares()
    mask = np.zeros(labels.shape, bool)
    mask[:, :5] = True
    labels[:, 5:][labels[:, 5:] == 1] = 9  # the model had another number for it
    joined, cut = join_outside(labels, mask)
    assert joined[4, 4] == joined[4, 6] > 0
    assert joined[4, 12] not in (0, joined[4, 4])
    assert not cut.any()


def test_two_objects_of_one_number_on_either_side_of_the_edge_are_two():
    labels = two_squares()
    labels[labels == 2] = 1
    mask = np.zeros(labels.shape, bool)
    mask[:, :9] = True
    joined, cut = join_outside(labels, mask)
    assert joined[4, 4] != joined[4, 12]
    assert not cut.any()


def test_an_object_across_the_gap_between_two_checked_areas_is_one():
    labels = two_squares()
    mask = np.ones(labels.shape, bool)
    mask[4:6] = False  # a gap through both squares
    joined, cut = join_outside(labels, mask)
    assert len(np.unique(joined)) == 3
    np.testing.assert_array_equal(joined > 0, labels > 0)
    assert not cut.any()
    split = labels.copy()
    split[6:8, 2:8] = 3  # below the gap the person has named another one
    assert len(np.unique(join_outside(split, mask)[0])) == 4


def test_an_object_that_ends_where_the_checked_area_ends_is_cut():
    whole = np.where(disc((40, 60), (20, 30), 10), 1, 0)
    mask = np.zeros(whole.shape, bool)
    mask[:, :33] = True
    cut_off = np.where(mask, whole, 0)
    _, cut = join_outside(cut_off, mask)
    assert np.array_equal(cut, cut_off > 0)
    _, cut = join_outside(whole, mask)
    assert not cut.any(), "with its other half there, nothing is cut"


def test_a_painted_object_that_is_all_that_was_vouched_for_is_not_cut():
    painted = disc((40, 60), (20, 30), 10)
    _, cut = join_outside(painted.astype(np.int32), painted)
    assert not cut.any()


def test_where_all_is_vouched_for_nothing_is_cut():
    labels = two_squares()
    labels[:3] = 4  # an object that the edge of the image cuts: the image tells no more
    joined, cut = join_outside(labels, np.ones(labels.shape, bool))
    assert not cut.any()
    assert len(np.unique(joined)) == len(np.unique(labels))


def test_an_object_that_only_got_another_number_is_not_corrected():
    base = np.zeros((20, 30), np.int32)
    base[2:8, 2:8], base[2:8, 12:18], base[12:18, 2:8] = 1, 2, 3
    now = np.zeros_like(base)
    now[2:8, 2:8], now[2:8, 12:18], now[12:18, 2:9] = 7, 1, 3  # 1 -> 7, 2 -> 1, 3 grew
    renamed = renamed_as(base, now)
    assert count_changes(renamed, now) == 1
    np.testing.assert_array_equal(np.argwhere(renamed != now)[:, 1], 8)
    np.testing.assert_array_equal(renamed_as(base, base), base)


def test_merging_splitting_and_deleting_stay_corrections_whatever_the_numbers():
    base = np.zeros((10, 20), np.int32)
    base[2:8, 2:8], base[2:8, 8:14] = 1, 2
    merged = np.where(base > 0, 2, 0)
    assert changed(renamed_as(base, merged), merged).any()
    split = np.where((base == 1) & (np.arange(20) > 4), 9, base)
    assert changed(renamed_as(base, split), split).any()
    deleted = np.where(base == 1, 0, base)
    assert count_changes(renamed_as(base, deleted), deleted) == 1
