"""Samples that cannot teach anything are refused, each with its own sentence."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_unet.errors import ImageError, LabelsError, ModelError
from napari_unet.models.card import Card
from napari_unet.runs.sample_checks import check_samples, remarks_on
from napari_unet.runs.samples import Sample
from napari_unet.settings import Architecture

CARD = Card(name="x", architecture=Architecture(widths=(3, 4)))
IMAGE = np.arange(2000, dtype=np.uint16).reshape(1, 40, 50)
LABELS = np.pad(np.ones((20, 20), int), ((10, 10), (10, 20)))


def test_right_samples_pass_whatever_holds_them() -> None:
    check_samples([Sample(IMAGE, LABELS)], CARD)
    check_samples((Sample(IMAGE.tolist(), LABELS.tolist(), changed=LABELS),), CARD)


@pytest.mark.parametrize(
    ("samples", "error", "sentence"),
    [
        (None, LabelsError, "A list of samples was expected, None was given"),
        (Sample(IMAGE, LABELS), LabelsError, "list of samples was expected, a Sample was given"),
        ({"image": IMAGE}, LabelsError, "a dict was given"),
        (iter([]), LabelsError, "A list of samples was expected"),
        ([(IMAGE, LABELS)], LabelsError, r"holds a tuple. Give \[Sample\(image, labels\)\]"),
        ([], LabelsError, "Nothing is vouched for"),
        ([Sample(IMAGE[0], LABELS)], ImageError, r"shape \(40, 50\).*Give image\[np.newaxis\]"),
        ([Sample(None, LABELS)], ImageError, r"shape \(\).*\(C, Y, X\) was expected"),
        ([Sample(IMAGE[:0], LABELS)], ImageError, r"shape \(0, 40, 50\)"),
        ([Sample(np.zeros((40, 50, 3)), LABELS)], ImageError, r"np.moveaxis\(image, -1, 0\)"),
        ([Sample(IMAGE, None)], LabelsError, r"labels of a sample has the shape \(\), its image"),
        ([Sample(IMAGE, LABELS[:5])], LabelsError, r"the shape \(5, 50\), its image \(40, 50\)"),
        ([Sample(IMAGE, LABELS, labelled=True)], LabelsError, "labelled of a sample has"),
        ([Sample(IMAGE, LABELS, changed="x")], LabelsError, "changed of a sample has"),
        ([Sample(IMAGE, LABELS, LABELS * np.nan)], LabelsError, "labelled of a sample holds"),
        ([Sample(IMAGE, LABELS, LABELS.astype(str))], LabelsError, "holds values that are no"),
        ([Sample(IMAGE, LABELS.astype(float))], LabelsError, "are of type float64, whole numbers"),
        ([Sample(IMAGE, -LABELS)], LabelsError, "hold numbers from -1, whole numbers from 0"),
        ([Sample(IMAGE, LABELS.astype(object))], LabelsError, "are of type object"),
        ([Sample(IMAGE, LABELS * 0)], LabelsError, "Only background is vouched for"),
        ([Sample(IMAGE, LABELS + 1)], LabelsError, "Only objects are vouched for"),
        ([Sample(IMAGE[:, :15, :15], LABELS[:15, :15])], LabelsError, "Only 225 pixels"),
    ],
)
def test_wrong_samples_are_told(samples, error, sentence) -> None:
    with pytest.raises(error, match=sentence):
        check_samples(samples, CARD)


def test_objects_on_an_image_of_one_grey_value_are_refused_and_background_on_it_is_not() -> None:
    blank = Sample(np.full_like(IMAGE, 7), LABELS, name="b.tif")
    with pytest.raises(LabelsError, match=r"b.tif has the grey value 7 everywhere, so the objects"):
        check_samples([Sample(IMAGE, LABELS), blank], CARD)
    holes = IMAGE.astype(float)
    holes[0, :5] = np.nan
    check_samples([Sample(holes, LABELS)], CARD)
    with pytest.raises(LabelsError, match="has no grey values"):
        check_samples([Sample(np.full(IMAGE.shape, np.nan), LABELS)], CARD)
    both = np.concatenate([IMAGE, blank.image])
    check_samples([Sample(both, LABELS)], CARD)
    with pytest.raises(LabelsError, match=r"grey value 7 everywhere.*and the channel"):
        check_samples([Sample(both, LABELS)], CARD, channels=(1,))
    empty = Sample(blank.image, np.zeros_like(LABELS))
    check_samples([Sample(IMAGE, LABELS), empty], CARD)


def test_classes_the_model_does_not_know_and_models_of_volumes_are_refused() -> None:
    classes = CARD.replace(labels="semantic")
    with pytest.raises(LabelsError, match="number 9, but x knows the classes 0 to 1"):
        check_samples([Sample(IMAGE, LABELS * 9)], classes)
    volumes = Card(name="x", architecture=Architecture(widths=(3, 4), spatial_dims=3))
    with pytest.raises(ModelError, match="looks at volumes"):
        check_samples([Sample(IMAGE, LABELS)], volumes)


def test_numbers_that_change_from_pixel_to_pixel_are_refused_but_slips_of_the_brush_are_not() -> (
    None
):
    mixed = np.where(LABELS, np.random.default_rng(0).integers(1, 99, LABELS.shape), 0)
    with pytest.raises(LabelsError, match="objects vouched for are of 2 pixels or fewer, as if"):
        check_samples([Sample(IMAGE, mixed)], CARD)
    outside = np.ones(LABELS.shape, bool)
    outside[10:30, 10:30] = False
    outside[10:30, 10] = True
    with pytest.raises(LabelsError, match="mixed up"):
        check_samples([Sample(IMAGE, mixed, outside)], CARD)
    slips = LABELS.copy()
    slips[2, 2:42:4] = 7
    check_samples([Sample(IMAGE, slips)], CARD)


def test_a_class_that_nobody_checked_is_told_before_it_is_forgotten() -> None:
    shape = Architecture(widths=(3, 4), classes=3)
    names = ("background", "cell", "nucleus")
    classes = CARD.replace(architecture=shape, outputs=names, labels="semantic")
    (remark,) = remarks_on([Sample(IMAGE, LABELS)], classes)
    assert "The class nucleus (2) is nowhere in the checked areas" in remark
    assert remarks_on([Sample(IMAGE, LABELS), Sample(IMAGE, 2 * LABELS)], classes) == []
    assert remarks_on([Sample(IMAGE, LABELS)], CARD) == []


def test_labels_that_look_like_classes_are_told_and_of_many_images_the_one_with_mixed_up_numbers():
    many = np.zeros((60, 80), int)
    many[5:55:10, 5:75:10] = many[6:56:10, 5:75:10] = many[7:57:10, 5:75:10] = 1
    image = np.arange(many.size).reshape(1, *many.shape)
    (remark,) = remarks_on([Sample(image, many, name="b.tif")], CARD)
    assert "The labels in b.tif have 1 number for 35 pieces, as classes have" in remark
    own, _ = ndimage.label(many)
    assert remarks_on([Sample(image, own)], CARD) == []
    mixed = np.where(many, np.random.default_rng(0).integers(1, 99, many.shape), 0)
    fine = Sample(image, np.pad(np.ones((20, 20), int), ((10, 30), (10, 50))))
    few = np.zeros_like(mixed)
    few[:8, :26] = mixed[:8, :26]  # nine specks: in one image a slip, in nine of them not
    with pytest.raises(LabelsError, match="vouched for are of 2 pixels or fewer"):
        check_samples([Sample(image, few, name=f"{n}.tif") for n in range(9)], CARD)
    with pytest.raises(LabelsError, match=r"vouched for in bad.tif are of 2 pixels or fewer"):
        check_samples([*[fine] * 50, Sample(image, mixed, name="bad.tif")], CARD)
