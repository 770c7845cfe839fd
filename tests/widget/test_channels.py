"""What each network input sees must be what the person reads beside it."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image

from napari_unet.widget.channels import MEAN, Subject, default_sources, list_sources


def subject_of(image: Image, axes: str, inputs: int, others: list[Image]) -> Subject:
    """Choose the default sources."""
    sources = list_sources(image, axes, others)
    return Subject(image, axes, tuple(default_sources(sources, inputs)))


def test_a_grey_image_feeds_its_own_data_without_a_copy() -> None:
    image = Image(np.zeros((8, 9)), name="grey")
    gathered = subject_of(image, "YX", 1, []).gather()
    assert gathered.array is image.data
    assert (gathered.axes, gathered.channels) == ("YX", None)


def test_one_input_sees_the_grey_value_of_an_rgb_image_without_its_alpha() -> None:
    image = Image(np.zeros((8, 9, 4), np.uint8), rgb=True, name="rgba")
    gathered = subject_of(image, "YXC", 1, []).gather()
    assert gathered.array.shape == (8, 9, 3)
    assert gathered.channels is None


def test_one_input_sees_the_first_channel_of_a_multichannel_image() -> None:
    image = Image(np.zeros((3, 8, 9)), name="multi")
    gathered = subject_of(image, "CYX", 1, []).gather()
    assert gathered.channels == (0,)


def test_layers_of_the_same_size_can_feed_further_inputs() -> None:
    dapi = Image(np.full((8, 9), 1.0), name="DAPI")
    actin = Image(np.full((8, 9), 2.0), name="actin")
    other = Image(np.zeros((5, 5)), name="small")
    assert [s.text for s in list_sources(dapi, "YX", [actin, other])] == ["DAPI", "actin"]
    gathered = subject_of(dapi, "YX", 2, [actin, other]).gather()
    assert gathered.axes == "CYX"
    values = np.asarray(gathered.array)
    np.testing.assert_array_equal(values[:, 0, 0], [1, 2])


@pytest.mark.parametrize(("axes", "shape"), [("CZYX", (2, 4, 8, 9)), ("ZCYX", (4, 2, 8, 9))])
def test_mean_and_channels_can_be_mixed_along_any_axis(axes: str, shape: tuple[int, ...]) -> None:
    data = np.random.default_rng(0).normal(size=shape)
    image = Image(data, name="stack")
    sources = list_sources(image, axes, [])
    mean = next(s for s in sources if s.index == MEAN)
    gathered = Subject(image, axes, (sources[1], mean)).gather()
    assert gathered.axes == "CZYX"
    along = axes.index("C")
    expected = np.stack([data.take(1, axis=along), data.mean(axis=along)])
    np.testing.assert_allclose(np.asarray(gathered.array), expected)
