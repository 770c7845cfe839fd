"""What is too small for an object is told by the labels, the bolder the more there are."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.runs.samples import Plane
from napari_unet.runs.smallest import fit_smallest


def make_plane(*sides: int, vouched: tuple[slice, slice] | None = None, cut: int = 0) -> Plane:
    """Squares of these sides in a row, each on 40 x 40 pixels."""
    truth = np.zeros((40, 40 * max(len(sides), 1)), np.int32)
    for number, side in enumerate(sides, start=1):
        start = 40 * (number - 1) + 2
        truth[2 : 2 + side, start : start + side] = number
    known = np.zeros(truth.shape, bool)
    known[vouched or ...] = True
    image = np.zeros((1, *truth.shape), np.float32)
    return Plane(image, truth, known, np.zeros_like(known), (truth == cut) & (cut > 0))


@pytest.mark.parametrize(("count", "bound"), [(4, 400 * 4 / 18), (10, 400 / 3), (45, 400 * 0.45)])
def test_the_bound_is_a_part_of_a_small_object_the_larger_the_more_there_are(count, bound) -> None:
    assert fit_smallest([make_plane(*[20] * count)], 20) == round(bound)
    assert fit_smallest([make_plane(*[20] * (count - 2)), make_plane(20, 20)], 20) == round(bound)


def test_one_crumb_among_many_objects_does_not_count() -> None:
    assert fit_smallest([make_plane(2, *[20] * 44)], 20) == 180
    assert fit_smallest([make_plane(*[2] * 5, *[20] * 40)], 20) == 2


def test_specks_set_no_bound() -> None:
    assert fit_smallest([make_plane(*[1] * 12)], 7) == 7
    assert fit_smallest([], 7) == 7


def test_objects_that_are_not_known_as_a_whole_do_not_count() -> None:
    half = (slice(None), slice(0, 90))  # the third square is known in part
    assert fit_smallest([make_plane(20, 20, 30, vouched=half)], 7) == round(400 / 7)
    assert fit_smallest([make_plane(20, 4, cut=2)], 7) == round(200 / 6)
    assert fit_smallest([make_plane(20, vouched=(slice(0, 5), slice(None)))], 7) == 7
    assert fit_smallest([make_plane()], 7) == 7
