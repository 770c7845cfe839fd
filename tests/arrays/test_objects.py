"""The object under a point is found, and cut where the point says."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.arrays.objects import cut_off, is_touching, part_at
from napari_unet.errors import LabelsError


def disc(shape, centre, radius):
    y, x = np.indices(shape)
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


def pasted(part, shape):
    mask = np.zeros(shape, bool)
    mask[part.pixels] = True
    return mask


def test_the_part_at_a_point_is_connected_and_has_its_number():
    labels = np.zeros((20, 30), np.uint8)
    labels[2:8, 3:9] = 7
    labels[8:12, 9:14] = 7  # meets it at a corner only
    labels[2:8, 9:12] = 5
    part = part_at(labels, (4, 4))
    assert part.number == 7
    expected = np.zeros(labels.shape, bool)
    expected[2:8, 3:9] = True
    assert np.array_equal(pasted(part, labels.shape), expected)
    assert part_at(labels, (0, 0)) is None
    assert part_at(labels, (9, 10)).mask.sum() == 20


def test_parts_touch_if_they_share_a_side():
    labels = np.zeros((20, 30), int)
    labels[2:8, 3:9], labels[2:8, 9:12], labels[8:12, 12:14], labels[15:18, 20:25] = 1, 2, 3, 4
    parts = [part_at(labels, at) for at in ((4, 4), (4, 10), (9, 12), (16, 22))]
    assert is_touching(parts[0], parts[1])
    assert is_touching(parts[1], parts[0])
    assert not is_touching(parts[1], parts[2]), "a corner is no side"
    assert not is_touching(parts[0], parts[3])


@pytest.mark.parametrize("turned", [False, True])
def test_a_dumbbell_is_cut_at_its_waist(turned):
    shape = (40, 70)
    labels = np.where(disc(shape, (18, 20), 11) | disc(shape, (20, 44), 14), 9, 0)
    labels[16:22, 20:44] = 9
    waist = (19, 31)
    if turned:
        labels, waist = labels.T.copy(), waist[::-1]
    part = part_at(labels, waist)
    piece = pasted(cut_off(part, waist), labels.shape)
    small = disc(shape, (18, 20), 11)
    assert (piece & (labels == 0)).sum() == 0
    assert (piece & (small.T if turned else small)).sum() >= small.sum() - 2
    assert piece.sum() < small.sum() + 40
    rest = (labels > 0) & ~piece
    assert len(np.unique(piece[labels > 0])) == 2
    for side in (piece, rest):  # each is one piece
        ys, xs = np.nonzero(side)
        assert part_at(side.astype(int), (int(ys[0]), int(xs[0]))).mask.sum() == side.sum()


@pytest.mark.parametrize("angle", np.linspace(0, np.pi, 13))
def test_the_cut_leaves_two_pieces_in_any_direction(angle):
    y, x = np.indices((81, 81)) - 40
    along, across = y * np.sin(angle) + x * np.cos(angle), y * np.cos(angle) - x * np.sin(angle)
    labels = ((np.abs(along) < 35) & (np.abs(across) < 6)).astype(np.int32)
    piece = cut_off(part_at(labels, (40, 40)), (40, 40))
    assert abs(piece.mask.sum() / labels.sum() - 0.5) < 0.06
    rest = labels.copy()
    rest[piece.pixels] = 0
    assert part_at(rest, tuple(np.argwhere(rest)[0])).mask.sum() == rest.sum()


def test_what_one_cut_does_not_part_is_refused():
    ring = disc((40, 40), (20, 20), 15) & ~disc((40, 40), (20, 20), 9)
    labels = ring.astype(np.int32)
    with pytest.raises(LabelsError, match="one piece"):
        cut_off(part_at(labels, (20, 8)), (20, 8))
    dot = np.zeros((5, 5), int)
    dot[2, 2] = 3
    with pytest.raises(LabelsError):
        cut_off(part_at(dot, (2, 2)), (2, 2))
