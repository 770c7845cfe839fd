"""Crops are drawn from what was vouched for, and never near what is held out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_unet.errors import ImageError, LabelsError, ModelError
from napari_unet.models.card import Card
from napari_unet.runs.crops import Crops, Sample
from napari_unet.runs.held_out import hold_out, objects_in
from napari_unet.runs.samples import Plane, check_samples, grown_box, prepare_plane
from napari_unet.settings import Architecture, SegmentSettings

TINY = Architecture(widths=(4, 8, 16))
CARD = Card(name="tiny", architecture=TINY)


def discs(shape, spacing=24, radius=8) -> np.ndarray:
    """Discs in rows and columns, each with a number of its own."""
    y, x = np.indices(shape)
    row, column = y // spacing, x // spacing
    inside = (y % spacing - spacing // 2) ** 2 + (x % spacing - spacing // 2) ** 2 <= radius**2
    return np.where(inside, 1 + row * 1000 + column, 0).astype(np.int32)


def box(shape, y0, x0, y1, x1) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def plane_of(labels, vouched, changed=None) -> Plane:
    image = np.random.default_rng(0).random((1, *labels.shape), np.float32)
    nothing = np.zeros(labels.shape, bool)
    changed = nothing if changed is None else changed
    return Plane(image, labels, vouched, changed, nothing)


def distance_between(window, mask) -> int:
    """Pixels between a window (slices) and the nearest that is set, along Y or X."""
    at = np.argwhere(mask)
    apart = [
        np.maximum(np.maximum(side.start - at[:, k], at[:, k] - side.stop + 1), 0)
        for k, side in enumerate(window)
    ]
    return int(np.maximum(*apart).min()) - 1


# ------------------------------------------------------------------------------------- held out


def test_each_check_keeps_another_end_of_the_longer_side_of_a_large_region_aside():
    labels = discs((300, 500))
    vouched = box(labels.shape, 20, 100, 276, 420)
    split = hold_out([plane_of(labels, vouched)], 0.25, 128)
    (far,), (near,) = split.checks
    assert split.kind == "block"
    assert not far[:, :300].any(), "the end of the longer side, X"
    assert not near[:, 220:].any(), "the other end"
    assert np.array_equal(split.masks[0], far | near)
    assert np.array_equal(far | near, vouched & (far | near))
    for mask in (far, near):
        assert 0.2 < mask.sum() / vouched.sum() < 0.35
    assert 48 <= split.crop_px <= 128


def test_an_end_and_what_is_learned_beside_it_are_as_large_as_each_other_at_most():
    labels = discs((200, 256))
    vouched = box(labels.shape, 0, 0, 200, 256)
    split = hold_out([plane_of(labels, vouched)], 0.9, 128)
    (far,), (near,) = split.checks
    assert split.crop_px == 64
    assert far[:, 160:].all()
    assert not far[:, :160].any()
    assert near[:, :96].all()
    assert not near[:, 96:].any()


def test_regions_that_lie_apart_are_kept_aside_whole():
    labels = discs((200, 900))
    first, second = box(labels.shape, 0, 0, 128, 128), box(labels.shape, 0, 700, 100, 800)
    split = hold_out([plane_of(labels, first | second)], 0.25, 64)
    assert split.kind == "regions"
    assert np.array_equal(split.checks[0][0], second), "the smaller one is nearer to a quarter"
    assert np.array_equal(split.checks[1][0], first)


@pytest.mark.parametrize(("share", "kept"), [(0.25, 1), (0.5, 2)])
def test_planes_are_apart_whatever_their_regions(share, kept):
    labels = discs((100, 100))
    planes = [plane_of(labels, box(labels.shape, 0, 0, 90, 90)) for _ in range(4)]
    split = hold_out(planes, share, 64)
    assert split.kind == "regions"
    counted = [[mask.any() for mask in masks].count(True) for masks in split.checks]
    assert counted == [kept, kept]
    assert not any((one & other).any() for one, other in zip(*split.checks, strict=True))


def test_one_small_region_is_all_learned_from():
    labels = discs((300, 300))
    split = hold_out([plane_of(labels, box(labels.shape, 20, 20, 148, 148))], 0.25, 128)
    assert split.kind == "nothing"
    assert not split.is_judged
    assert split.masks == ()


def test_an_end_without_objects_can_judge_nothing():
    labels = discs((200, 400))
    vouched = box(labels.shape, 0, 0, 200, 400)
    along_x = hold_out([plane_of(labels, vouched)], 0.25, 64).checks[0][0]
    assert along_x.any(axis=1).all()
    assert not along_x[:, :200].any()
    labels[:, 100:] = 0
    along_y = hold_out([plane_of(labels, vouched)], 0.25, 64).checks[0][0]
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
    for masks in split.checks:
        crops = Crops([plane], masks, classes, split.crop_px, margin)
        for _, (y, x) in crops.draw_windows(40, random):
            learned = vouched[y : y + split.crop_px, x : x + split.crop_px]
            assert learned.any(), "a crop without a vouched pixel teaches nothing"
            seen = [
                slice(max(0, start - margin), min(size, start + split.crop_px + margin))
                for start, size in zip((y, x), labels.shape, strict=True)
            ]
            assert distance_between(seen, masks[0]) >= split.crop_px


# ---------------------------------------------------------------------------------------- crops


def test_weights_are_zero_where_nothing_is_known_and_high_where_corrected():
    labels = np.zeros((96, 96), np.int32)
    labels[40:50, 40:50] = 1
    vouched = box(labels.shape, 32, 32, 64, 64)
    changed = box(labels.shape, 40, 40, 50, 45) & vouched
    crops = Crops([plane_of(labels, vouched, changed)], [np.zeros_like(vouched)], CARD, 96, 0, 3.0)
    images, targets, weights = crops.draw(1, np.random.default_rng(0))
    assert images.shape == targets.shape == weights.shape == (1, 1, 96, 96)
    assert np.array_equal(weights[0, 0] > 0, vouched)
    assert np.array_equal(targets[0, 0] > 0, labels > 0)
    assert weights[0, 0][changed].min() == pytest.approx(3.0)
    assert weights[0, 0][vouched & ~changed].min() == pytest.approx(1.0)


def test_crops_prefer_places_that_were_corrected():
    labels = discs((256, 256))
    changed = box(labels.shape, 200, 200, 210, 210)
    everything, nothing = np.ones(labels.shape, bool), np.zeros(labels.shape, bool)

    def hits(changed):
        plane = plane_of(labels, everything, changed)
        windows = Crops([plane], [nothing], CARD, 32).draw_windows(300, np.random.default_rng(0))
        return sum(160 < y < 220 and 160 < x < 220 for _, (y, x) in windows)

    assert hits(changed) > 130
    assert hits(nothing) < 60


def test_the_margin_of_an_unpadded_network_is_seen_but_weighs_nothing():
    labels = discs((60, 60))
    everything, nothing = np.ones(labels.shape, bool), np.zeros(labels.shape, bool)
    crops = Crops([plane_of(labels, everything)], [nothing], CARD, 32, 10)
    images, _, weights = crops.draw(5, np.random.default_rng(0))
    assert images.shape[-2:] == (52, 52)
    assert weights[..., 10:-10, 10:-10].min() > 0
    at_corner = Crops([plane_of(labels, everything)], [nothing], CARD, 60, 10)
    image = at_corner.draw(1, np.random.default_rng(0))[0][0, 0]
    assert np.array_equal(image[9], image[11]), "mirrored at the edge of the plane"


def test_a_plane_smaller_than_a_crop_is_mirrored_with_weight_0():
    labels = discs((40, 30), spacing=20, radius=5)
    everything, nothing = np.ones(labels.shape, bool), np.zeros(labels.shape, bool)
    crops = Crops([plane_of(labels, everything)], [nothing], CARD, 64)
    images, _, weights = crops.draw(1, np.random.default_rng(0))
    assert images.shape == (1, 1, 64, 64)
    assert np.array_equal(weights[0, 0] > 0, box((64, 64), 0, 0, 40, 30))


# -------------------------------------------------------------------------------------- samples


def sample(labels=None, labelled=None, image=None, changed=None) -> Sample:
    labels = discs((64, 80)) if labels is None else labels
    if image is None:
        image = 100 + 50 * np.random.default_rng(0).random((1, *np.shape(labels)))
    return Sample(image, labels, labelled, changed)


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        pytest.param([], "Nothing is vouched for", id="no samples"),
        pytest.param([sample(labelled=np.zeros((64, 80), bool))], "Nothing", id="no pixel"),
        pytest.param([sample(labelled=discs((64, 80)) > 0)], "Only objects", id="objects only"),
        pytest.param([sample(labelled=discs((64, 80)) == 0)], "Only background", id="no object"),
        pytest.param([sample(labelled=box((64, 80), 8, 8, 20, 20))], "144 pixels", id="small"),
        pytest.param([sample(image=np.zeros((1, 64, 81)))], r"\(64, 81\)", id="labels' shape"),
        pytest.param([sample(labelled=np.ones((4, 4), bool))], "labelled", id="mask's shape"),
        pytest.param([sample(labels=discs((64, 80)) - 1)], "from -1", id="negative"),
        pytest.param([sample(labels=discs((64, 80)) / 1.0)], "float64", id="no whole numbers"),
    ],
)
def test_what_cannot_teach_is_refused_in_a_sentence(bad, told):
    with pytest.raises(LabelsError, match=told):
        check_samples(bad, CARD)


def test_classes_the_model_does_not_know_are_refused():
    two = CARD.replace(labels="semantic")
    check_samples([sample(labels=np.minimum(discs((64, 80)), 1))], two)
    with pytest.raises(LabelsError, match="classes 0 to 1"):
        check_samples([sample()], two)


def test_a_model_of_volumes_is_refused():
    volumes = Card(name="v", architecture=TINY.replace(spatial_dims=3))
    with pytest.raises(ModelError, match="volumes"):
        check_samples([sample()], volumes)


def test_grey_values_are_scaled_as_the_whole_plane_not_as_the_region():
    image = np.zeros((1, 64, 80))
    image[0, :, 40:] = 100
    mask = box((64, 80), 0, 0, 32, 32)  # dark all over
    plane = prepare_plane(sample(labelled=mask, image=image), CARD, SegmentSettings(), 4)
    assert plane.image.max() == 0
    inverted = prepare_plane(
        sample(labelled=mask, image=image), CARD, SegmentSettings(invert=True), 4
    )
    assert inverted.image.min() == 1
    assert plane.truth.shape == (36, 36)
    assert plane.vouched.sum() == 32 * 32


def test_channels_are_chosen_as_in_use():
    image = np.stack([np.full((64, 80), value, float) for value in (0, 1, 2)])
    image[1, 0, :40] = 9
    settings = SegmentSettings(channels=(1,))
    plane = prepare_plane(sample(image=image), CARD, settings, 0)
    assert plane.image.shape == (1, 64, 80)
    assert plane.image[0, 0, 0] > plane.image[0, 5, 5]
    with pytest.raises(ImageError):
        prepare_plane(sample(image=image), CARD, SegmentSettings(channels=(3,)), 0)


def test_one_number_for_many_objects_is_taken_for_many_objects():
    labels = np.minimum(discs((64, 80)), 1)
    plane = prepare_plane(sample(labels=labels), CARD, SegmentSettings(), 0)
    assert objects_in(plane, plane.vouched) == len(np.unique(discs((64, 80)))) - 1


def test_the_cut_starts_on_the_grid_of_the_network():
    rows, columns = grown_box(box((100, 90), 37, 50, 41, 55), 5, stride=8)
    assert (rows, columns) == (slice(32, 48), slice(40, 64))
    rows, columns = grown_box(box((100, 90), 95, 85, 100, 90), 5, stride=8)
    assert (rows.stop, columns.stop) == (100, 90)
