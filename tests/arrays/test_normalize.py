import numpy as np
import pytest

from napari_unet.arrays.blocks import cut_blocks
from napari_unet.arrays.normalize import (
    LIMIT,
    check_grey_values,
    measure,
    measure_steps,
    normalize,
)
from napari_unet.errors import ImageError, SettingError
from napari_unet.settings import Normalization

KINDS = ["percentile", "mean-std", "min-max", "divide", "none"]
PERCENTILE = Normalization()


@pytest.fixture
def plane():
    return np.random.default_rng(0).integers(0, 4000, (2, 40, 50))


def scaled(channels, rule=PERCENTILE, invert=False):
    return normalize(channels, measure(channels, rule), invert)


def test_percentiles_become_zero_and_one(plane):
    out = scaled(plane)
    assert np.percentile(out[0], 1.0) == pytest.approx(0, abs=1e-5)
    assert np.percentile(out[1], 99.8) == pytest.approx(1, abs=1e-5)


def test_mean_and_deviation_become_zero_and_one(plane):
    out = scaled(plane, Normalization(kind="mean-std"))
    assert out.mean(axis=(1, 2)) == pytest.approx([0, 0], abs=1e-5)
    assert out.std(axis=(1, 2)) == pytest.approx([1, 1], abs=1e-5)


def test_darkest_and_brightest_become_zero_and_one(plane):
    out = scaled(plane, Normalization(kind="min-max"))
    assert out.min(axis=(1, 2)).tolist() == [0, 0]
    assert out.max(axis=(1, 2)).tolist() == [1, 1]


def test_a_fixed_number_divides_and_none_leaves_grey_values(plane):
    assert scaled(plane, Normalization(kind="divide", divisor=100)) == pytest.approx(plane / 100)
    assert (scaled(plane, Normalization(kind="none")) == plane).all()


def test_channels_are_scaled_each_on_its_own(plane):
    other = plane * np.array([1, 50])[:, np.newaxis, np.newaxis] + 7
    assert scaled(other) == pytest.approx(scaled(plane), abs=1e-5)


@pytest.mark.parametrize(
    "dtype", ["uint8", "uint16", "int16", "int32", "int64", "float32", "float64", ">u2", ">f4"]
)
def test_the_dtype_makes_no_difference(dtype):
    values = np.random.default_rng(0).integers(0, 120, (1, 30, 30))
    assert scaled(values.astype(dtype)) == pytest.approx(scaled(values), abs=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bool", "longdouble"])
def test_rare_dtypes_are_scaled_too(dtype):
    values = (np.random.default_rng(0).random((1, 30, 30)) > 0.5).astype(dtype)
    assert (scaled(values) == values.astype(np.float32)).all()


@pytest.mark.parametrize(
    ("dtype", "offset"), [("uint16", 33001), ("int64", 10**12), ("float64", 1e12)]
)
def test_a_large_offset_costs_no_digits(dtype, offset):
    values = np.random.default_rng(0).integers(0, 3862, (1, 64, 64))
    shifted = (values + offset).astype(dtype)
    assert scaled(shifted) == pytest.approx(scaled(values), abs=1e-6)


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_finite_is_background_and_does_not_touch_the_rest(kind, invert):
    values = np.random.default_rng(0).normal(size=(1, 50, 50))
    holes = values.copy()
    holes[0, :3, :20] = np.array([np.nan, np.inf, -np.inf])[:, np.newaxis]
    rule = Normalization(kind=kind)
    out = scaled(holes, rule, invert)
    expected = normalize(values, measure(values[:, 3:], rule), invert)

    assert np.isfinite(out).all()
    assert (out[0, :3, :20] == 0).all()
    assert out[0, 3:] == pytest.approx(expected[0, 3:], abs=0.05)


@pytest.mark.parametrize("value", [0, 7, -3.5, np.nan, np.inf, 1e300])
@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_image_stays_finite(kind, value):
    out = scaled(np.full((1, 4, 4), value), Normalization(kind=kind))
    assert np.isfinite(out).all()
    if kind in {"percentile", "mean-std", "min-max"}:
        assert (out == 0).all()


def test_a_few_bright_pixels_on_black_are_scaled_by_the_whole_range():
    image = np.zeros((1, 100, 100), np.uint8)
    image[0, 50, 50:53] = 200
    assert set(np.unique(scaled(image))) == {0, 1}


def test_absurd_values_stay_within_what_a_network_can_add_up():
    image = np.array([[[0, 1, 1e38, -1e38]]], np.float32)
    out = scaled(image, Normalization(kind="none"))
    assert out.tolist() == [[[0, 1, LIMIT, -LIMIT]]]


@pytest.mark.parametrize("kind", ["percentile", "min-max", "mean-std"])
def test_inverted_dark_objects_look_like_bright_ones(kind, plane):
    rule = Normalization(kind=kind, low=0.5, high=99.5)
    assert scaled(-plane, rule, invert=True) == pytest.approx(scaled(plane, rule), abs=1e-5)


def test_a_part_of_the_plane_is_scaled_as_in_the_whole(plane):
    statistics = measure(plane, PERCENTILE)
    part = normalize(plane[:, 5:9, 7:30], statistics)
    assert (part == normalize(plane, statistics)[:, 5:9, 7:30]).all()
    assert (part != scaled(plane[:, 5:9, 7:30])).any()


def test_the_image_is_not_changed(plane):
    before = plane.astype(np.float32)
    after = before.copy()
    scaled(after, invert=True)
    assert (before == after).all()


def measured_in_parts(channels, rule, block):
    steps, passes = measure_steps(channels, rule, cut_blocks(channels.shape[1:], block)), 0
    while True:
        try:
            next(steps)
            passes += 1
        except StopIteration as end:
            return end.value, passes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", ">u2", "int64", "float16", "float32", "f8", "g"]
)
def test_windows_give_the_statistics_of_the_whole(dtype, kind):
    values = np.random.default_rng(0).normal(60, 25, (2, 70, 90)).clip(0, 120).astype(dtype)
    if values.dtype.kind == "f":
        values[0, :3], values[1, 5:9, 2] = np.nan, np.inf
    rule = Normalization(kind=kind, low=2.5, high=97)
    expected = measure(values, rule)
    found, _ = measured_in_parts(values, rule, (30, 41))
    assert found.offset == pytest.approx(expected.offset, rel=1e-6, abs=1e-9)
    assert found.scale == pytest.approx(expected.scale, rel=1e-6)
    assert found.inverted_zero == expected.inverted_zero
    at_once, _ = measured_in_parts(values, rule, (70, 90))
    np.testing.assert_array_equal(at_once.offset, expected.offset)
    np.testing.assert_array_equal(at_once.scale, expected.scale)


@pytest.mark.parametrize(
    ("value", "kind"), [(np.nan, "percentile"), (7, "percentile"), (3, "mean-std")]
)
def test_windows_of_a_constant_plane_are_measured_too(value, kind):
    values, rule = np.full((1, 20, 30), float(value)), Normalization(kind=kind)
    found, _ = measured_in_parts(values, rule, (7, 11))
    expected = measure(values, rule)
    assert (found.offset.tolist(), found.scale.tolist()) == (
        expected.offset.tolist(),
        expected.scale.tolist(),
    )


def test_what_needs_no_statistics_reads_nothing():
    values = np.zeros((1, 20, 30))
    assert measured_in_parts(values, Normalization(kind="divide"), (5, 5))[1] == 0
    assert measured_in_parts(values, Normalization(kind="min-max"), (5, 5))[1] == 24


@pytest.mark.parametrize(
    ("dtype", "sentence"),
    [("complex64", r"np\.abs"), ("U3", "Convert"), ("O", "Convert"), ("M8[s]", "Convert")],
)
def test_values_that_are_no_grey_values_are_told(dtype, sentence):
    with pytest.raises(ImageError, match=sentence):
        check_grey_values(np.dtype(dtype))
    with pytest.raises(ImageError, match=sentence):
        measure(np.zeros((1, 2, 2), dtype), PERCENTILE)


def test_measuring_in_steps_leaves_the_callers_error_state_alone():
    before = np.geterr()
    windows = [(slice(0, 4), slice(0, 8)), (slice(4, 8), slice(0, 8))]
    steps = measure_steps(np.ones((1, 8, 8), np.uint16), Normalization(), windows)
    next(steps)
    assert np.geterr() == before


def test_fixed_offsets_and_scales_are_taken_channel_by_channel(plane):
    rule = Normalization(kind="fixed", offsets=(100, 200), scales=(10, 20))
    expected = (plane - np.array([100, 200])[:, None, None]) / np.array([10, 20])[:, None, None]
    assert scaled(plane, rule) == pytest.approx(expected, rel=1e-5)
    one_for_all = Normalization(kind="fixed", offsets=(100,), scales=(10,))
    assert scaled(plane, one_for_all) == pytest.approx((plane - 100) / 10, rel=1e-5)


def test_fixed_numbers_for_other_channels_are_refused(plane):
    rule = Normalization(kind="fixed", offsets=(1, 2, 3), scales=(1,))
    with pytest.raises(ImageError, match="fixed for 3 channels, 2 are given"):
        measure(plane, rule)


@pytest.mark.parametrize("kind", ["percentile", "mean-std", "min-max"])
def test_channels_measured_jointly_keep_their_difference(plane, kind):
    other = plane + np.array([0, 5000])[:, None, None]
    rule = Normalization(kind=kind, joint=True)
    as_one = other.reshape(1, -1)
    expected = normalize(as_one, measure(as_one, Normalization(kind=kind)))
    assert scaled(other, rule) == pytest.approx(expected.reshape(plane.shape), abs=1e-6)


def test_what_is_added_to_the_divisor_counts():
    values = np.linspace(0, 1, 101).reshape(1, 1, -1)
    out = scaled(values, Normalization(kind="min-max", eps=0.1))
    assert out.max() == pytest.approx(1 / 1.1)


def test_gain_shift_and_clip_follow_the_scaling(plane):
    plain = scaled(plane, Normalization(low=5, high=95))
    rule = Normalization(low=5, high=95, gain=2, shift=-1, clip=(-1, 1))
    assert scaled(plane, rule) == pytest.approx((2 * plain - 1).clip(-1, 1), abs=1e-5)
    inverted = scaled(plane, rule, invert=True)
    assert inverted == pytest.approx((2 * (1 - plain) - 1).clip(-1, 1), abs=1e-5)
    reversed_rule = Normalization(kind="divide", divisor=4000, gain=-1, shift=1)
    assert scaled(plane, reversed_rule) == pytest.approx(1 - plane / 4000, abs=1e-6)


def test_limits_cut_grey_values_before_they_are_measured(plane):
    rule = Normalization(kind="mean-std", limits=(500, 3000))
    expected = scaled(plane.clip(500, 3000), Normalization(kind="mean-std"))
    assert scaled(plane, rule) == pytest.approx(expected, abs=1e-6)
    assert scaled(plane.astype(np.uint16), rule) == pytest.approx(expected, abs=1e-6)


def test_what_is_not_finite_becomes_the_shifted_background():
    values = np.array([[[0, 100, np.nan, np.inf]]])
    rule = Normalization(kind="min-max", limits=(0, 50), gain=2, shift=-1)
    assert scaled(values, rule).tolist() == [[[-1, 1, -1, -1]]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_windows_measure_joint_and_limited_channels_like_the_whole(kind, dtype):
    values = np.random.default_rng(0).normal(60, 25, (2, 70, 90)).clip(0, 120).astype(dtype)
    rule = Normalization(
        kind=kind, joint=True, limits=(10, None), eps=1e-3, gain=3, shift=1, clip=(None, 2)
    )
    found, _ = measured_in_parts(values, rule, (30, 41))
    expected = measure(values, rule)
    assert found.offset == pytest.approx(expected.offset, rel=1e-6, abs=1e-9)
    assert found.scale == pytest.approx(expected.scale, rel=1e-6)
    assert (found.limits, found.clip) == (expected.limits, expected.clip)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"scales": (0.0,)}, "above 0"),
        ({"offsets": (1, 2), "scales": (1, 2, 3)}, "as many"),
        ({"gain": 0}, "nothing of the image"),
        ({"clip": (1, 0)}, "lower bound"),
        ({"shift": float("inf")}, "finite"),
        ({"low": 50, "high": 20}, "low percentile"),
    ],
)
def test_an_impossible_normalisation_is_refused(values, sentence):
    with pytest.raises(SettingError, match=sentence):
        Normalization(**values)


def test_the_normalisation_of_an_older_card_means_what_it_meant(plane):
    older = {"kind": "percentile", "low": 1.0, "high": 99.8, "divisor": 255.0}
    assert Normalization(**older) == PERCENTILE
