"""Every error is a sentence, and what was given instead is said in it."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from napari_unet import errors
from napari_unet.errors import UnetError, described, shortened


def test_every_error_is_caught_as_ours() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    assert len(kinds) > 8
    assert all(issubclass(kind, UnetError) for kind in kinds)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "None"),
        (True, "True"),
        (5, "the number 5"),
        (0.5, "the number 0.5"),
        ("nuclei", "the text 'nuclei'"),
        ({}, "a dict"),
        (np.zeros(3), "an ndarray"),
        (b"x", "a bytes"),
        (object(), "an object"),
    ],
)
def test_what_was_given_is_said(value: object, said: str) -> None:
    assert described(value) == said


def test_a_long_text_is_cut() -> None:
    assert len(described("x" * 5000)) < 80
    assert len(described(10**500)) < 80
    assert shortened("x" * 60) == "x" * 60
    assert shortened("x" * 61).endswith("x...")
