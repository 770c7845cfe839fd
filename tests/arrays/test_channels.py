import numpy as np
import pytest

from napari_unet.arrays.channels import pick_channels
from napari_unet.errors import ImageError


@pytest.fixture
def plane():
    return np.random.default_rng(0).integers(0, 255, (3, 4, 5), dtype=np.uint8)


def test_as_many_channels_as_inputs_go_in_as_they_are(plane):
    assert pick_channels(plane, None, 3) is plane
    assert pick_channels(plane, (0, 1, 2), 3) is plane


def test_one_input_sees_the_mean_of_all_channels(plane):
    mean = pick_channels(plane, None, 1)
    assert mean.shape == (1, 4, 5)
    assert mean[0] == pytest.approx(plane.astype(float).mean(axis=0), abs=1e-4)


def test_the_mean_does_not_overflow():
    bright = np.full((3, 1, 1), 60_000, np.float16)
    assert pick_channels(bright, None, 1)[0, 0, 0] == np.float32(bright[0, 0, 0])


def test_chosen_channels_go_in_in_their_order_and_may_repeat(plane):
    assert (pick_channels(plane, (2, 0), 2) == plane[[2, 0]]).all()
    assert (pick_channels(plane[:1], (0, 0, 0), 3) == plane[[0, 0, 0]]).all()


@pytest.mark.parametrize(
    ("channels", "wanted", "sentence"),
    [
        pytest.param(
            None, 2, r"3 channels, the network 2 inputs.*counted from 0, e.g. 0, 1\.", id="many"
        ),
        pytest.param(None, 4, r"3 channels.*e.g. 0, 1, 2, 2\.", id="few"),
        pytest.param((0, 1), 1, "2 channels are chosen", id="too many chosen"),
        pytest.param((3,), 1, "Channel 3 is not there", id="beyond the last"),
        pytest.param((-1,), 1, "Channel -1 is not there", id="counted from the end"),
    ],
)
def test_channels_that_do_not_fit_are_told_with_an_example(plane, channels, wanted, sentence):
    with pytest.raises(ImageError, match=sentence):
        pick_channels(plane, channels, wanted)
