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
    assert "around (y 100, x 125) do not lie on the edges" in misfit.told


def test_the_plane_is_told_by_its_name():
    image, labels = discs(1)
    moved = np.roll(labels, (6, 0), (0, 1))
    samples = Sample(image, labels), Sample(image, moved, name="cells, Z 3")
    planes = [prepare_plane(each, CARD, SegmentSettings(), 64, 4) for each in samples]
    (misfit,) = find_misfits(planes)
    assert misfit.told.startswith("The labels around (y 100, x 120) in cells, Z 3 do not lie")


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


def test_background_and_objects_changed_round_are_found():
    image, labels = discs(3)
    (misfit,) = find_misfits(planes_of(image, (labels == 0).astype(np.int32)))
    assert "changed round" in misfit.reason


@pytest.mark.parametrize("wider_px", [-4, 4, 7])
@pytest.mark.parametrize("ground", [0.3, 0.4])
def test_labels_wider_or_narrower_than_what_has_edges_are_let_be(wider_px, ground):
    """Whole cells are labelled around nuclei, or only their cores."""
    y, x = np.mgrid[:200, :240]
    for seed in range(6):
        random = np.random.default_rng(seed)
        labels, image = np.zeros((200, 240), np.int32), np.full((200, 240), ground)
        for _ in range(300):
            distance = np.hypot(y - random.uniform(0, 200), x - random.uniform(0, 240))
            if not labels[distance < 19].any():
                labels[distance < 8 + wider_px] = labels.max() + 1
                image[distance < 8] = 1.0
        image += random.normal(0, 0.1, image.shape)
        assert find_misfits(planes_of(image[None].astype(np.float32), labels)) == []


def test_channels_of_opposite_contrast_do_not_cancel_each_other():
    image, labels = discs(6)
    both = np.concatenate([image, 1.3 - image])
    two = CARD.architecture.replace(in_channels=2)
    card = CARD.replace(architecture=two, input_channels=("nuclei", "cytoplasm"))
    labelled = np.zeros(labels.shape, bool)
    labelled[40:160, 50:200] = True
    for by, found in (((0, 0), 0), ((7, 0), 1)):
        sample = Sample(both, np.roll(labels, by, (0, 1)), labelled)
        plane = prepare_plane(sample, card, SegmentSettings(), 64, 4)
        assert len(find_misfits([plane])) == found


def test_a_painted_object_with_its_overspill_erased_is_let_be():
    image, labels = discs(3)
    painted = np.zeros_like(labels)
    y, x = np.mgrid[: labels.shape[0], : labels.shape[1]]
    stroke = np.hypot(y - 100, x - 120) < 14
    painted[stroke] = 1
    for angle in (0, 2, 4):
        erased = np.hypot(y - 100 - 13 * np.sin(angle), x - 120 - 13 * np.cos(angle)) < 4
        stroke |= erased
        painted[erased] = 0
    plane = prepare_plane(Sample(image, painted, stroke), CARD, SegmentSettings(), 64, 4)
    assert find_misfits([plane]) == []


def test_large_and_hollow_objects_are_let_be():
    image, labels = discs(3)
    y, x = np.mgrid[: labels.shape[0], : labels.shape[1]]
    labels[np.hypot(y - 100, x - 125) < 55] = 999
    image = np.where(labels > 0, 1.0, 0.3).astype(np.float32)[None]
    assert find_misfits(planes_of(image, labels)) == []
    for at in (100, 150):  # two lumens
        labels[np.hypot(y - 100, x - at) < 10] = 0
    image = np.where(labels > 0, 1.0, 0.3).astype(np.float32)[None]
    assert find_misfits(planes_of(image, labels)) == []
    network = np.where((y % 40 < 6) | (x % 40 < 6), 1, 0).astype(np.int32)
    image = np.where(network > 0, 1.0, 0.3).astype(np.float32)[None]
    assert find_misfits(planes_of(image, network)) == [], "membranes or vessels as one object"


def test_of_a_large_plane_the_middle_is_looked_at():
    random = np.random.default_rng(0)
    y, x = np.mgrid[:1500, :1200]
    labels = (np.hypot(y % 40 - 20, x % 40 - 20) < 10).astype(np.int32)
    labels *= 1 + (y // 40) * 30 + x // 40
    image = ((labels > 0) + random.normal(0, 0.1, labels.shape)).astype(np.float32)[None]
    plane = prepare_plane(Sample(image, np.roll(labels, 6, 0)), CARD, SegmentSettings(), 64, 4)
    (misfit,) = find_misfits([plane])
    assert misfit.box == ((0, 1500), (0, 1200))
    assert "moved 6 px up" in misfit.reason
    assert misfit.is_in([np.ones(labels.shape, bool)])
    assert not misfit.is_in([np.zeros(labels.shape, bool)])


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


def test_cells_that_cover_everything_have_edges_between_them():
    random = np.random.default_rng(0)
    y, x = np.mgrid[:160, :160]
    middles = random.uniform(0, 160, (60, 2))
    distances = np.sort(np.hypot(y - middles[:, 0, None, None], x - middles[:, 1, None, None]), 0)
    truth = np.hypot(y - middles[:, 0, None, None], x - middles[:, 1, None, None]).argmin(0) + 1
    membrane = distances[1] - distances[0] < 3
    image = (membrane + random.normal(0, 0.1, truth.shape)).astype(np.float32)[None]
    region = np.zeros(truth.shape, bool)
    region[30:130, 30:130] = True
    truth = truth.astype(np.int32)
    assert find_move(image, truth, region, 22.0) is None
    moved = find_move(image, np.roll(truth, (0, 7), (0, 1)), region, 22.0)
    assert moved is not None
    assert abs(moved[0]) <= 1
    assert abs(moved[1] + 7) <= 1
