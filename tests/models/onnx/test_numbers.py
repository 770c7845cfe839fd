"""Arithmetic on sizes gives what the reference implementation of ONNX gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from napari_unet.errors import ModelError
from napari_unet.models.onnx.numbers import FOLDED

SIZES = np.array([512, 3, 7, -2], np.int64)
OTHERS = np.array([2, 3, 5, 4], np.int64)
TABLE = np.arange(24, dtype=np.int64).reshape(2, 3, 4)
REAL = np.array([0.5, -1.5, 2.5, 3.0], np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


CASES: list[tuple[str, list[np.ndarray], dict[str, Any]]] = [
    *((op, [SIZES, OTHERS], {}) for op in "Add Sub Mul Div Mod Min Max Equal Less".split()),
    *((op, [SIZES, OTHERS], {}) for op in "Greater GreaterOrEqual LessOrEqual".split()),
    ("Mod", [REAL, REAL[::-1].copy()], {"fmod": 1}),
    ("Pow", [OTHERS, ints(2)], {}),
    *((op, [REAL], {}) for op in "Floor Ceil Round Neg Abs Sign Reciprocal Exp".split()),
    *((op, [np.abs(REAL)], {}) for op in "Sqrt Log".split()),
    ("Gather", [TABLE, ints(1, 0)], {"axis": 1}),
    ("GatherND", [TABLE, np.array([[0, 1], [1, 2]])], {}),
    ("Concat", [SIZES, OTHERS], {"axis": 0}),
    ("Slice", [TABLE, ints(0, -3), ints(2, 4), ints(1, 2), ints(1, 2)], {}),
    ("Slice", [SIZES, ints(-1), ints(-9), ints(0), ints(-1)], {}),
    ("Cast", [REAL], {"to": 7}),
    ("Unsqueeze", [SIZES, ints(0, 2)], {}),
    ("Squeeze", [SIZES[None, :, None], ints(0, 2)], {}),
    ("Squeeze", [SIZES[None]], {}),
    ("Reshape", [TABLE, ints(0, -1)], {}),
    ("Flatten", [TABLE], {"axis": 2}),
    ("Transpose", [TABLE], {"perm": [2, 0, 1]}),
    ("Where", [SIZES > 4, SIZES, OTHERS], {}),
    ("Range", [ints(1)[0], ints(9)[0], ints(3)[0]], {}),
    ("ConstantOfShape", [ints(2, 3)], {}),
    ("Expand", [OTHERS, ints(3, 4)], {}),
    ("Tile", [TABLE, ints(1, 2, 1)], {}),
    *((op, [TABLE, ints(1)], {}) for op in ("ReduceProd", "ReduceSum")),
    *((op, [TABLE, ints(0, 2)], {"keepdims": 0}) for op in ("ReduceMax", "ReduceMin")),
    ("Split", [SIZES, ints(1, 3)], {"axis": 0}),
    ("ScatterND", [SIZES, np.array([[1], [3]]), ints(8, 9)], {}),
    ("And", [SIZES > 4, OTHERS > 2], {}),
    ("Not", [SIZES > 4], {}),
]


@pytest.mark.parametrize(("op", "arrays", "options"), CASES)
def test_an_operation_on_numbers_gives_what_its_definition_says(op, arrays, options):
    names = [f"x{n}" for n in range(len(arrays))]
    count = 2 if op == "Split" else 1
    node = helper.make_node(op, names, [f"y{n}" for n in range(count)], **options)
    expected = ReferenceEvaluator(node).run(None, dict(zip(names, arrays, strict=True)))
    with np.errstate(all="ignore"):
        given = FOLDED[op]({"opset": 18, **options}, *arrays)
    for one, other in zip(given if count > 1 else [given], expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
        assert np.asarray(one).dtype == np.asarray(other).dtype


@pytest.mark.parametrize(
    ("op", "arrays"),
    [
        ("ConstantOfShape", [ints(1 << 20, 1 << 20)]),
        ("Expand", [OTHERS, ints(1 << 40, 4)]),
        ("Tile", [OTHERS, ints(1 << 40)]),
        ("Range", [ints(0)[0], ints(1 << 60)[0], ints(1)[0]]),
    ],
)
def test_a_constant_that_would_fill_the_memory_is_not_computed(op, arrays):
    with pytest.raises(ModelError, match="very large constant"):
        FOLDED[op]({}, *arrays)
