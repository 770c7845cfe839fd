"""The generated images are what a microscope could give, and their truth is right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from napari_unet import sample_data
from napari_unet.arrays.metrics import evaluate
from napari_unet.errors import ImageError

GENERATED = {
    "nuclei": lambda seed: sample_data.nuclei((160, 192), seed),
    "tissue": lambda seed: sample_data.tissue((160, 192), seed),
    "stack": lambda seed: sample_data.stack((8, 96, 112), seed),
}


@pytest.mark.parametrize("make", GENERATED.values(), ids=GENERATED)
def test_the_same_seed_gives_the_same_image_and_another_seed_another(make: Callable) -> None:
    image, labels = make(3)
    again, labels_again = make(3)
    other, other_labels = make(4)
    assert np.array_equal(image, again)
    assert np.array_equal(labels, labels_again)
    assert not np.array_equal(labels, other_labels)
    assert not np.array_equal(image, other)


@pytest.mark.parametrize("make", GENERATED.values(), ids=GENERATED)
def test_labels_are_numbered_without_gaps_and_each_is_one_piece(make: Callable) -> None:
    from scipy import ndimage

    _, labels = make(0)
    assert labels.dtype == np.int32
    assert np.array_equal(np.unique(labels), np.arange(labels.max() + 1))
    assert labels.max() >= 3
    for number in range(1, labels.max() + 1):
        assert ndimage.label(labels == number)[1] == 1
        assert (labels == number).sum() >= 25


def test_some_nuclei_touch_as_real_ones_do() -> None:
    _, labels = sample_data.nuclei()
    right, left = labels[:, 1:], labels[:, :-1]
    assert len(np.unique(right[(right != left) & (right > 0) & (left > 0)])) > 10


def test_nuclei_are_brighter_and_tissue_nuclei_darker_than_what_is_around() -> None:
    image, labels = sample_data.nuclei((256, 256))
    assert image.dtype == np.uint16
    assert np.median(image[labels > 0]) > 2 * np.median(image[labels == 0])
    image, labels = sample_data.tissue((256, 256))
    assert image.dtype == np.uint8
    assert np.median(image[labels > 0]) < 0.7 * np.median(image[labels == 0])


def test_a_threshold_alone_does_not_find_the_nuclei_of_tissue() -> None:
    from scipy import ndimage

    image, labels = sample_data.tissue()
    smooth = ndimage.gaussian_filter(image.astype(float), 1)
    scores = [
        evaluate(ndimage.label(smooth < grey)[0], labels)["ap50"] for grey in range(80, 200, 10)
    ]
    assert 0.3 < max(scores) < 0.6


@pytest.mark.parametrize("name", sample_data.SAMPLES)
def test_every_sample_says_what_it_is(name: str) -> None:
    sample = sample_data.sample(name)
    assert sample.name == name
    assert len(sample.axes) == sample.image.ndim
    spatial = sample.axes.replace("C", "")
    if sample.labels is not None:
        assert sample.labels.shape == sample.image.shape
    if sample.pixel_size_um is not None:
        assert len(sample.pixel_size_um) == len(spatial)


def test_impossible_samples_are_refused() -> None:
    with pytest.raises(ImageError, match="at least 32"):
        sample_data.nuclei((16, 512))
    with pytest.raises(ImageError, match="at least 32"):
        sample_data.stack((2, 64, 64))
    with pytest.raises(ImageError, match="Choose one of: nuclei"):
        sample_data.sample("mice")
