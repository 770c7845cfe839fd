from __future__ import annotations

import json

import numpy as np
import pytest

from napari_unet.arrays.normalize import measure, normalize
from napari_unet.errors import ModelError
from napari_unet.models.bioimageio.postprocessing import read_postprocessing
from napari_unet.models.bioimageio.preprocessing import read_preprocessing
from napari_unet.models.bioimageio.steps import Step
from napari_unet.models.bioimageio.written_steps import write_preprocessing
from napari_unet.settings import Normalization

IMAGE = np.random.default_rng(0).gamma(2, 40, (2, 40, 50)).astype(np.float32)
ZMUV = Step("zero_mean_unit_variance", {"axes": ["y", "x"]})


def scaled(*steps: Step, image=IMAGE) -> np.ndarray:
    rule = read_preprocessing(steps, len(image), "yx", {})
    return normalize(image, measure(image, rule))


def by_channel(function) -> np.ndarray:
    return np.stack([function(channel.astype(np.float64)) for channel in IMAGE])


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([], IMAGE),
        ([Step("ensure_dtype", {"dtype": "float32"}), ZMUV],
         by_channel(lambda c: (c - c.mean()) / (c.std() + 1e-6))),
        ([Step("zero_mean_unit_variance", {"axes": "cxy", "mode": "per_sample", "eps": "1e-3"})],
         (IMAGE - IMAGE.mean()) / (IMAGE.std() + 1e-3)),
        ([Step("zero_mean_unit_variance", {"mode": "fixed", "axes": "xy", "mean": [10, 20],
               "std": [2, 4]})],
         np.stack([(IMAGE[0] - 10) / 2, (IMAGE[1] - 20) / 4])),
        ([Step("fixed_zero_mean_unit_variance", {"axis": "channel", "mean": [1, 2],
               "std": [3, 4]})],
         np.stack([(IMAGE[0] - 1) / 3, (IMAGE[1] - 2) / 4])),
        ([Step("scale_range", {"axes": ["x", "y"], "min_percentile": 5, "max_percentile": 99})],
         by_channel(lambda c: (c - np.percentile(c, 5)) / np.ptp(np.percentile(c, (5, 99))))),
        ([Step("scale_linear", {"gain": 1 / 255}), ZMUV],
         by_channel(lambda c: (c / 255 - c.mean() / 255) / (c.std() / 255 + 1e-6))),
        ([Step("scale_linear", {"gain": [2, 3], "offset": [1, 0]})],
         np.stack([2 * IMAGE[0] + 1, 3 * IMAGE[1]])),
        ([Step("scale_range", {"axes": ["x", "y"]}),
          Step("scale_linear", {"gain": 2, "offset": -1}), Step("clip", {"min": -0.5, "max": 0.5})],
         by_channel(lambda c: (2 * (c - c.min()) / np.ptp(c) - 1).clip(-0.5, 0.5))),
        ([Step("scale_linear", {"gain": 0.01}), Step("clip", {"min": 0.2, "max": 1}), ZMUV],
         by_channel(lambda c: ((d := (c / 100).clip(0.2, 1)) - d.mean()) / (d.std() + 1e-6))),
        ([Step("scale_range", {"axes": ["x", "y"]}), ZMUV],
         by_channel(lambda c: (c - c.mean()) / c.std())),
        ([Step("clip", {"min_percentile": 2, "max_percentile": 98, "axes": ["x", "y"]}),
          Step("scale_range", {"axes": ["x", "y"]})],
         by_channel(lambda c: ((c - (q := np.percentile(c, (2, 98)))[0]) / np.ptp(q)).clip(0, 1))),
        ([Step("scale_linear", {"gain": -1, "offset": 255})], 255 - IMAGE),
        ([Step("scale_linear", {"gain": 2}), Step("scale_linear", {"offset": 3}),
          Step("scale_linear", {"gain": 0.5})], IMAGE + 1.5),
    ],
)  # fmt: skip
def test_steps_before_the_network_are_followed(steps, expected) -> None:
    np.testing.assert_allclose(scaled(*steps), expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize(
    ("step", "sentence"),
    [
        (Step("sigmoid"), "'sigmoid', which is not known"),
        (Step("__init__"), "not known"),
        (Step("zero_mean_unit_variance", {"axes": ["x"]}), "each Y on its own"),
        (Step("scale_range", {"axes": ["x", "y"], "reference_tensor": "other"}), "another tensor"),
        (Step("scale_range", {"axes": ["x", "y"], "min_percentile": 90, "max_percentile": 10}),
         "percentiles"),
        (Step("scale_linear", {"gain": [1, 2, 3]}), "3 numbers for 2 channels"),
        (Step("scale_linear", {"gain": 0}), "multiplies with 0"),
        (Step("scale_linear", {"gain": "many"}), "no number"),
        (Step("scale_linear", {"gain": [1, -1]}), "turns some channels round"),
        (Step("scale_linear", {"axis": "y", "gain": [1, 2]}), "along y"),
        (Step("fixed_zero_mean_unit_variance", {"mean": 1}), "std"),
        (Step("clip", {"min": 2, "max": 1}), "bounds"),
        (Step("clip", {"min_percentile": 2}), "without scaling"),
    ],
)  # fmt: skip
def test_steps_that_cannot_be_followed_are_told(step, sentence) -> None:
    with pytest.raises(ModelError, match=sentence):
        read_preprocessing([step], 2, "yx", {})


def test_statistics_of_a_dataset_are_told_to_be_those_of_the_image() -> None:
    assumed: dict[str, str] = {}
    read_preprocessing([Step("zero_mean_unit_variance")], 1, "yx", assumed)
    assert "on its own" in assumed["normalization"]


@pytest.mark.parametrize(
    "rule",
    [
        Normalization(),
        Normalization(kind="mean-std", joint=True, eps=1e-3),
        Normalization(kind="min-max", gain=2, shift=-1, clip=(-1, 1)),
        Normalization(kind="divide", divisor=7, limits=(3, None)),
        Normalization(kind="fixed", offsets=(1, 2), scales=(3, 4), gain=0.5),
        Normalization(kind="fixed", offsets=(5,), scales=(2, 4)),
        Normalization(kind="none"),
    ],
)
def test_what_is_written_before_the_network_is_read_back_the_same(rule) -> None:
    written = write_preprocessing(rule, "yx", 2)
    json.dumps(written)
    steps = [Step(step["id"], step["kwargs"]) for step in written]
    back = read_preprocessing(steps, 2, "yx", {})
    expected, found = (normalize(IMAGE, measure(IMAGE, each)) for each in (rule, back))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_steps_after_the_network_are_followed() -> None:
    assumed: dict[str, str] = {}
    found = read_postprocessing(
        [
            Step("sigmoid"),
            Step("scale_linear", {"gain": 255}),
            Step("binarize", {"threshold": 51}),
        ],
        assumed,
    )
    assert (found.activation, found.threshold) == ("sigmoid", pytest.approx(0.2))
    assert "stays between 0 and 1" in assumed["post-processing"]


@pytest.mark.parametrize(
    "steps",
    [
        [Step("cellpose_flow_dynamics")],
        [Step("scale_mean_variance")],
        [Step("custom")],
        [Step("sigmoid"), Step("softmax")],
        [Step("scale_linear", {"gain": -1})],
    ],
)
def test_answers_that_are_no_probabilities_are_refused(steps) -> None:
    with pytest.raises(ModelError):
        read_postprocessing(steps, {})
