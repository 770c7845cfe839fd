"""What lies in a checked region is vouched for, to the pixel."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_unet.widget.regions import Regions


@pytest.fixture
def stack() -> tuple[ViewerModel, Regions]:
    """Labels of 3 x 40 x 50 in a viewer, with their regions."""
    viewer = ViewerModel()
    labels = viewer.add_labels(np.zeros((3, 40, 50), np.int32), scale=(2, 0.5, 0.5))
    return viewer, Regions(viewer, labels)


def test_a_box_checks_exactly_its_pixels_in_its_plane(stack) -> None:
    _, regions = stack
    regions.add_box((1,), 5, 7, 20, 30)
    mask = regions.mask((1,))
    expected = np.zeros((40, 50), bool)
    expected[5:20, 7:30] = True
    np.testing.assert_array_equal(mask, expected)
    assert not regions.mask((0,)).any()
    assert regions.planes() == {(1,)}


def test_a_whole_plane_is_checked_to_its_last_pixel(stack) -> None:
    _, regions = stack
    regions.check_plane((2,))
    assert regions.mask((2,)).all()
    assert regions.planes() == {(2,)}


def test_ellipses_and_polygons_check_what_they_enclose(stack) -> None:
    _, regions = stack
    layer = regions.draw()
    box = np.array([[0, 10, 10], [0, 10, 30], [0, 30, 30], [0, 30, 10]], float)
    layer.add_ellipses(box)
    area = regions.mask((0,)).sum()
    assert area == pytest.approx(np.pi * 10 * 10, rel=0.05)
    layer.data = []
    layer.add_polygons(np.array([[0, 0, 0], [0, 0, 20], [0, 20, 0]], float))
    assert 200 <= regions.mask((0,)).sum() <= 231  # half of 20 x 20, with its rim


def test_regions_lie_on_the_labels_and_outlive_their_deletion(stack) -> None:
    viewer, regions = stack
    layer = regions.draw()
    np.testing.assert_array_equal(layer.scale, (2, 0.5, 0.5))
    assert layer.mode == "add_rectangle"
    viewer.layers.remove(layer)
    assert regions.layer is None
    assert regions.count == 0
    assert not regions.mask((0,)).any()
    regions.add_box((0,), 0, 0, 4, 4)
    assert regions.mask((0,)).sum() == 16


def test_a_region_outside_of_the_stack_counts_for_nothing(stack) -> None:
    _, regions = stack
    regions.add_box((7,), 0, 0, 4, 4)
    regions.add_box((0,), -50, -50, -10, -10)
    regions.add_box((0,), 5, 5, 5, 30)
    assert regions.planes() == set()
    assert regions.count == 0
    assert not regions.mask((0,)).any()
    regions.add_box((0,), -50, -50, 3, 3)
    assert (regions.count, regions.mask((0,)).sum()) == (1, 9)


def test_lines_and_paths_are_no_areas_and_the_person_is_told_once(stack) -> None:
    _, regions = stack
    said: list[str] = []
    regions.refused.connect(said.append)
    layer = regions.draw()
    line = np.array([[0, 2, 2], [0, 30, 30]], float)
    path = np.array([[1, 2, 2], [1, 30, 30], [1, 2, 40]], float)
    layer.add_lines(line)
    layer.add_paths(path)
    layer.add_lines(line + 1)
    assert (regions.count, regions.planes()) == (0, set())
    assert not regions.mask((0,)).any()
    assert not regions.mask((1,)).any()
    assert len(said) == 1
    assert "line" in said[0]
    regions.add_box((0,), 5, 7, 20, 30)
    assert (regions.count, regions.mask((0,)).sum()) == (1, 15 * 23)
    assert len(said) == 1


def test_a_shape_across_planes_is_no_area_and_the_person_is_told(stack) -> None:
    _, regions = stack
    said: list[str] = []
    regions.refused.connect(said.append)
    upright = np.array([[0, 5, 5], [0, 5, 30], [2, 5, 30], [2, 5, 5]], float)
    regions.draw().add_rectangles(upright)  # as drawn with z and x in view
    assert (regions.count, regions.planes()) == (0, set())
    assert "planes" in said[0]


def test_the_same_area_marked_again_counts_once(stack) -> None:
    _, regions = stack
    assert regions.check_plane((2,))
    assert not regions.check_plane((2,)), "it is checked already"
    assert len(regions.layer.data) == 1
    regions.add_box((2,), -3, -3, 99, 99)
    assert regions.count == 1
    regions.add_box((1,), 0, 0, 40, 50)
    assert regions.count == 2


def test_deleting_the_layer_is_told_at_once(stack) -> None:
    viewer, regions = stack
    regions.check_plane((2,))
    counts: list[int] = []
    regions.changed.connect(lambda: counts.append(regions.count))
    viewer.layers.remove(regions.layer)
    assert counts == [0]


def test_a_newer_labelling_takes_the_regions_over(stack) -> None:
    viewer, regions = stack
    regions.add_box((1,), 5, 7, 20, 30)
    newer = Regions(viewer, viewer.add_labels(np.zeros((3, 40, 50), np.int32), name="new"))
    newer.adopt(regions)
    assert (newer.count, regions.count) == (1, 0)
    assert newer.mask((1,)).sum() == 15 * 23


def test_a_dock_that_is_opened_again_goes_on_with_the_regions(stack) -> None:
    viewer, regions = stack
    regions.add_box((1,), 5, 7, 20, 30)
    regions.close()
    again = Regions(viewer, viewer.layers[0])
    assert again.count == 1
    assert again.mask((1,)).sum() == 15 * 23
