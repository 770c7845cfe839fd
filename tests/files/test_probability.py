"""Probabilities are written as they are, with axes and pixel size."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.errors import ImageError
from napari_unet.files.images import read_image
from napari_unet.files.probability import write_probability


def test_probabilities_come_back_bit_by_bit_and_calibrated(tmp_path) -> None:
    probability = np.random.default_rng(0).random((2, 5, 20, 30), np.float32)
    path = write_probability(
        probability, tmp_path / "p.tif", "ZYX", (2.0, 0.5, 0.25), ("foreground", "distance")
    )
    back = read_image(path)
    assert back.axes == "CZYX"
    assert back.pixel_size_um == (2.0, 0.5, 0.25)
    assert np.array_equal(back.array, probability)


def test_axes_that_do_not_fit_are_refused_and_nothing_is_written(tmp_path) -> None:
    with pytest.raises(ImageError, match="one letter per axis"):
        write_probability(np.zeros((1, 4, 4), np.float32), tmp_path / "p.tif", "ZYX")
    assert list(tmp_path.iterdir()) == []
