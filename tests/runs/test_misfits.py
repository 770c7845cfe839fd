"""Labels that cannot be right are found without a model, and right ones are let be."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.models.card import Card
from napari_unet.runs.misfits import find_misfits, find_move
from napari_unet.runs.samples import Sample, prepare_plane
from napari_unet.sample_data import tissue
from napari_unet.settings import Architecture, SegmentSettings

CARD = Card(
    name="net",
    architecture=Architecture(widths=(4, 8), in_channels=1),
    outputs=("foreground",),
    object_size_px=20.0,
)


def discs(seed: int, shape=(200, 240), *, dark=False) -> tuple[np.ndarray, np.ndarray]:
    """Draw noisy discs of 20 px across that do not touch."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    labels = np.zeros(shape, np.int32)
    for _ in range(300):
        middle = random.uniform(0, shape)
        if not labels[np.hypot(y - middle[0], x - middle[1]) < 12].any():
            labels[np.hypot(y - middle[0], x - middle[1]) < 10] = labels.max() + 1
    bright = (labels > 0) != dark
    image = np.where(bright, 1.0, 0.3) + random.normal(0, 0.15, shape)
    return image.astype(np.float32)[None], labels


def planes_of(image, labels, box=(slice(40, 160), slice(50, 200)), settings=None):
    labelled = np.zeros(labels.shape, bool)
    labelled[box] = True
    plane = prepare_plane(
        Sample(image, labels, labelled), CARD, settings or SegmentSettings(), 64, 4
    )
    return [plane]


@pytest.mark.parametrize("dark", [False, True])
def test_right_labels_are_let_be(dark):
    for seed in range(5):
        assert find_misfits(planes_of(*discs(seed, dark=dark))) == []


def test_the_sample_images_are_let_be():
    for seed in range(3):
        image, labels = tissue((256, 256), seed)
        assert find_misfits(planes_of(np.moveaxis(np.atleast_3d(image), -1, 0)[:1], labels)) == []


@pytest.mark.parametrize(("by", "back"), [((6, 0), "6 px up"), ((0, -8), "8 px right"),
                                          ((-5, 5), "5 px down and 5 px left")])  # fmt: skip
def test_moved_labels_are_told_with_the_way_back(by, back):
    image, labels = discs(1)
    (misfit,) = find_misfits(planes_of(image, np.roll(labels, by, (0, 1))))
    assert f"moved {back}" in misfit.reason
    assert misfit.middle == (100, 125)
    assert "around (y 100, x 125) do not lie on the edges" in misfit.told(1)
    assert "of the checked plane 1 of 3" in misfit.told(3)


def test_a_move_is_told_in_pixels_of_the_image_whatever_the_network_sees():
    image, labels = discs(2)
    twice = np.ones((2, 2), np.int32)
    image, labels = np.kron(image[0], twice)[None], np.kron(labels, twice)
    settings = SegmentSettings(object_size_px=40.0)
    box = (slice(80, 320), slice(100, 400))
    planes = planes_of(image, np.roll(labels, (12, 0), (0, 1)), box, settings)
    assert planes[0].truth.shape[0] < 300
    (misfit,) = find_misfits(planes, zoom=0.5)
    assert misfit.middle == (200, 250)
    up = int(misfit.reason.split("moved ")[1].split(" px")[0])
    assert up == pytest.approx(12, abs=2)


def test_labels_of_another_image_are_found():
    found = [find_misfits(planes_of(discs(seed)[0], discs(seed + 50)[1])) for seed in range(6)]
    assert sum(bool(each) for each in found) >= 5


def test_background_and_objects_mixed_up_are_found():
    image, labels = discs(3)
    (misfit,) = find_misfits(planes_of(image, (labels == 0).astype(np.int32)))
    assert "mixed up" in misfit.reason


def test_a_large_object_beside_others_is_none():
    image, labels = discs(3)
    labels = np.where(labels > 0, labels, 0)
    y, x = np.mgrid[: labels.shape[0], : labels.shape[1]]
    large = (y - 100) ** 2 + (x - 125) ** 2 < 55**2
    labels[large] = 999
    image = np.where(labels > 0, 1.0, 0.3).astype(np.float32)[None]
    assert find_misfits(planes_of(image, labels)) == []


def test_where_nothing_can_be_told_nothing_is_said():
    image, labels = discs(4)
    empty = np.zeros_like(labels)
    flat = np.full_like(image, 0.5)
    assert find_misfits(planes_of(image, empty)) == []
    assert find_misfits(planes_of(flat, labels)) == []
    (number,) = np.unique(labels[90:110, 90:110][labels[90:110, 90:110] > 0])[:1]
    assert find_misfits(planes_of(image, np.where(labels == number, labels, 0))) == []


def test_each_region_is_looked_at_alone():
    image, labels = discs(5)
    moved = labels.copy()
    moved[:, 120:] = np.roll(labels, (7, 0), (0, 1))[:, 120:]
    labelled = np.zeros(labels.shape, bool)
    labelled[20:180, 10:110] = labelled[20:180, 130:230] = True
    plane = prepare_plane(Sample(image, moved, labelled), CARD, SegmentSettings(), 64, 4)
    (misfit,) = find_misfits([plane])
    assert misfit.middle == (100, 180)


def test_objects_that_touch_have_an_edge_between_them():
    truth = np.zeros((60, 60), np.int32)
    truth[10:50, 10:30], truth[10:50, 30:50] = 1, 2
    image = np.where(truth > 0, 0.2, 0.0)
    image[10:50, 29:31] = 1.0  # a bright membrane between two dark cells
    region = np.zeros(truth.shape, bool)
    region[15:45, 15:45] = True  # sees nothing but the membrane
    fits = find_move(image[None].astype(np.float32), truth, region, 20.0)
    assert fits is None
    moved = find_move(image[None].astype(np.float32), np.roll(truth, 7, 1), region, 20.0)
    assert moved is not None
    assert abs(moved[1] + 7) <= 1
