"""Percentiles of values that come in parts are those of all values at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_unet.arrays import percentiles
from napari_unet.arrays.percentiles import OrderStatistics

DTYPES = [
    "uint8", "int8", "uint16", ">u2", "int16", "uint32", "int32", "int64", "uint64", "float16",
    "float32", ">f4", "float64",
]  # fmt: skip


def in_parts(parts, wanted):
    statistics, passes = OrderStatistics(wanted), 0
    while True:
        for part in parts:
            statistics.add(part)
        passes += 1
        if statistics.is_done():
            return statistics.percentiles(), passes


def finite(dtype):
    if np.dtype(dtype).kind == "f":
        limits = np.finfo(dtype)
        width = 8 * np.dtype(dtype).itemsize
        return st.floats(float(limits.min) / 4, float(limits.max) / 4, width=width)
    return None


@given(st.data())
def test_parts_of_any_dtype_give_what_numpy_gives(data):
    dtype = data.draw(st.sampled_from(DTYPES))
    native = np.dtype(dtype).newbyteorder("=")
    size = data.draw(st.integers(1, 60))
    values = data.draw(arrays(native, size, elements=finite(native))).astype(dtype)
    cuts = sorted(data.draw(st.lists(st.integers(0, size), max_size=3)))
    wanted = data.draw(st.lists(st.floats(0, 100), min_size=1, max_size=3))
    found, _ = in_parts(np.split(values, cuts), wanted)
    expected = np.percentile(values.astype(np.float64), wanted)
    assert found == pytest.approx(expected.tolist(), rel=1e-9)


@pytest.mark.parametrize(("dtype", "passes"), [("uint8", 1), ("uint16", 1), ("int16", 1)])
def test_values_of_16_bits_take_one_pass(dtype, passes):
    values = np.random.default_rng(0).integers(0, 120, 5000).astype(dtype)
    assert in_parts([values], (1, 99.8))[1] == passes


@pytest.mark.parametrize("few", [0, 50, 10**6])
@pytest.mark.parametrize("dtype", ["int64", "float64", "float32"])
def test_whether_few_values_are_sorted_or_many_counted_makes_no_difference(dtype, few, monkeypatch):
    monkeypatch.setattr(percentiles, "FEW", few)
    values = (np.random.default_rng(0).normal(size=20_000) * 1e3).astype(dtype)
    found, passes = in_parts(np.array_split(values, 7), (1, 50, 99.8))
    expected = np.percentile(values.astype(np.float64), (1, 50, 99.8))
    assert found == pytest.approx(expected.tolist(), rel=1e-12)
    assert passes <= (2 if few > values.size else values.itemsize // 2)


def test_of_nothing_all_percentiles_are_zero():
    assert in_parts([np.zeros(0, np.float32)], (1, 99)) == ([0.0, 0.0], 1)
