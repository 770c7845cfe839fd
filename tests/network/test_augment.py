"""Augmented crops: image, targets and weights stay in register, outside is unknown."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from napari_unet.network.augment import (
    DIMMEST,
    Changes,
    augment_batch,
    change_grey_values,
    draw_changes,
    look_up,
)

OFF = {"flips": False, "elastic_px": 0.0, "grey_values": 0.0}
MOVES = {
    "flips": {"flips": True},
    "elastic": {"elastic_px": 6.0},
    "zoom": {"scale": (0.5, 2.0)},
    "rotation": {"rotation_degrees": 180.0},
    "all": {"flips": True, "elastic_px": 6.0, "scale": (0.7, 1.4), "rotation_degrees": 40.0},
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def coordinates(count: int, height: int, width: int) -> torch.Tensor:
    """Images of two channels whose grey values say where each pixel was."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([y, x]).float().repeat(count, 1, 1, 1)


@pytest.mark.parametrize("shape", [(48, 48), (32, 56), (1, 1)], ids=str)
def test_with_everything_off_the_batch_comes_back_as_it_is(shape):
    images, weights = torch.rand(3, 2, *shape), torch.ones(3, 1, *shape)
    given = (images, images.clone(), weights)
    for before, after in zip(given, augment_batch(*given, **OFF), strict=True):
        assert after is before


@pytest.mark.parametrize("shape", [(64, 64), (48, 80)], ids=["square", "oblong"])
@pytest.mark.parametrize("moves", MOVES.values(), ids=MOVES.keys())
def test_image_targets_and_weights_move_together(moves, shape):
    # the same coordinate image goes through as image, as target and (plus one) as weight
    where = coordinates(6, *shape)
    pixel = (where[:, :1] * shape[1] + where[:, 1:]) + 1
    images, targets, weights = augment_batch(
        where, where, pixel, **{**OFF, **moves}, generator=seeded()
    )
    known = weights[:, 0] > 0
    assert known.float().mean() > 0.4
    assert (images - targets)[known[:, None].expand_as(images)].abs().max() <= 0.5 + 1e-3
    pixel_of_target = targets[:, 0] * shape[1] + targets[:, 1] + 1
    assert torch.equal(pixel_of_target[known], weights[:, 0][known])
    assert not torch.equal(targets, where)  # control: something moved
    assert len({tuple(image.flatten().tolist()) for image in targets}) > 1  # each in its own way


def pixels_of(origins: torch.Tensor) -> np.ndarray:
    """Positions from -1 to 1 as pixels (Y, X)."""
    size = torch.tensor(origins.shape[1:3])
    return ((origins.flip(-1) + 1) / 2 * (size - 1)).numpy()


def relative(grid: torch.Tensor) -> torch.Tensor:
    """The other way round."""
    return (grid * 2 / (torch.tensor(grid.shape[1:3]) - 1) - 1).flip(-1)


def cubic(distance: float) -> float:
    """Weight of a neighbour in cubic convolution (Keys 1981, doi:10.1109/TASSP.1981.1163711)."""
    a, x = -0.75, abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def bent(nodes: np.ndarray, y: int, x: int, size: tuple[int, int]) -> np.ndarray:
    """Displacement (Y, X) of one pixel: bicubic between 3 x 3 nodes, the outer ones going on."""
    at = [2 * pixel / (length - 1) for pixel, length in zip((y, x), size, strict=True)]
    total = np.zeros(2)
    for row, column in product(range(-1, 4), repeat=2):
        share = cubic(at[0] - row) * cubic(at[1] - column)
        total += share * nodes[:, min(max(row, 0), 2), min(max(column, 0), 2)]
    return total


def test_the_elastic_deformation_is_that_of_the_paper():
    # doi:10.1007/978-3-319-24574-4_28, 3.1: a 3 x 3 grid, 10 px, bicubic; here pixel by pixel
    size = (37, 52)
    changes = draw_changes(2, 1, size, flips=False, grey_values=0, generator=seeded())
    assert changes.nodes.shape == (2, 2, 3, 3)
    grid = pixels_of(changes.origins(size))
    for crop, y, x in product(range(2), range(0, 37, 4), range(0, 52, 3)):
        expected = np.add((y, x), bent(changes.nodes[crop].numpy(), y, x, size))
        assert grid[crop, y, x] == pytest.approx(expected, abs=1e-3)
    images = torch.rand(2, 3, *size, generator=seeded(1))
    moved, _, weights = changes.apply(images, images[:, :1], torch.ones(2, 1, *size))
    for crop, channel in product(range(2), range(3)):
        plain = map_coordinates(
            images[crop, channel].numpy(), grid[crop].transpose(2, 0, 1), order=1, mode="mirror"
        )
        assert moved[crop, channel].numpy() == pytest.approx(plain, abs=1e-4)
        inside = ((grid[crop] > -0.49) & (grid[crop] < np.subtract(size, 0.51))).all(-1)
        outside = ((grid[crop] < -0.51) | (grid[crop] > np.subtract(size, 0.49))).any(-1)
        assert weights[crop, 0].numpy()[inside].all()
        assert outside.any()
        assert not weights[crop, 0].numpy()[outside].any()


def test_a_turn_and_a_magnification_are_about_the_middle():
    size, angle, zoom = (41, 31), math.radians(30), 1.25
    changes = draw_changes(1, 1, size, flips=False, elastic_px=0, grey_values=0, rotation_degrees=1)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    grid = pixels_of(replace(changes, matrix=turn[None] / zoom).origins(size))[0]
    assert grid[20, 15] == pytest.approx([20, 15], abs=1e-4)
    assert grid[20, 25] == pytest.approx([20 - 4, 15 + 8 * math.sqrt(0.75)], abs=1e-4)
    assert grid[30, 15] == pytest.approx([20 + 8 * math.sqrt(0.75), 15 + 4], abs=1e-4)


def test_the_corners_of_a_turned_crop_are_unlabelled_not_background():
    changes = Changes(None, turned_by(45)[None], None, None, None)
    ones = torch.ones(1, 1, 61, 61)
    _, _, weights = changes.apply(ones, ones, ones)
    y, x = torch.meshgrid(*(torch.arange(61.0) - 30,) * 2, indexing="ij")
    from_middle = (y.abs() + x.abs()) / math.sqrt(2)
    assert not weights[0, 0][from_middle > 31].any()
    assert weights[0, 0][from_middle < 30].all()


def turned_by(degrees: float) -> torch.Tensor:
    angle = torch.tensor(math.radians(degrees))
    return torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)


@pytest.mark.parametrize("size", [(24, 24), (24, 31)], ids=["square", "oblong"])
def test_mirrors_give_the_same_whether_pixels_are_interpolated_or_moved(size):
    options = {"elastic_px": 0.0, "grey_values": 0.0}
    exact = draw_changes(30, 1, size, **options, generator=seeded())
    bent = draw_changes(30, 1, size, **options, rotation_degrees=1e-9, generator=seeded())
    assert exact.matrix is bent.mirrors is None
    given = tuple(torch.rand(30, count, *size, generator=seeded(5)) for count in (2, 3, 1))
    for one, other in zip(exact.apply(*given), bent.apply(*given), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


def test_a_part_of_a_batch_changes_as_in_the_whole():
    given = tuple(torch.rand(5, count, 20, 20, generator=seeded(5)) for count in (2, 3, 1))
    for options in ({}, OFF, {**OFF, "flips": True}):
        changes = draw_changes(5, 2, (20, 20), **options, generator=seeded())
        whole = changes.apply(*given)
        part = changes.part(slice(2, 4)).apply(*(values[2:4] for values in given))
        for one, other in zip(whole, part, strict=True):
            torch.testing.assert_close(one[2:4], other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_only_a_share_of_the_crops_is_changed_and_the_others_stay_sharp(share):
    given = tuple(torch.rand(300, count, 16, 16, generator=seeded(5)) for count in (1, 1, 1))
    options = {"flips": False, "rotation_degrees": 30, "scale": (0.75, 1.33), "grey_values": 0.3}
    changed = augment_batch(*given, **options, share=share, generator=seeded())
    same = [
        torch.isclose(after, before, rtol=0, atol=1e-4).flatten(1).all(1)
        for before, after in zip(given, changed, strict=True)
    ]
    assert 1 - same[0].float().mean() == pytest.approx(share, abs=0.08 if share else 0)
    assert torch.equal(same[0], same[1])
    assert torch.equal(same[0], same[2])
    mirrored = draw_changes(99, 1, (16, 16), share=share, generator=seeded()).matrix
    plain = torch.isclose(mirrored, mirrored.round(), rtol=0, atol=1e-6)
    assert plain.all(), "mirrored and turned by quarters at any share"


def test_what_comes_from_outside_has_no_weight_and_all_that_is_inside_keeps_it():
    images = torch.rand(4, 1, 40, 40)
    ones = torch.ones(4, 1, 40, 40)
    grid = coordinates(4, 40, 40).permute(0, 2, 3, 1) + torch.tensor([7.0, -3.0])
    moved, targets, weights = look_up(images, images, ones, relative(grid))
    assert weights[:, :, :33, 3:].min() == 1
    assert not weights[:, :, 33:].any()
    assert not weights[:, :, :, :3].any()
    torch.testing.assert_close(moved[:, :, :33, 3:], images[:, :, 7:, :-3])
    torch.testing.assert_close(targets[:, :, :33, 3:], images[:, :, 7:, :-3])
    assert torch.isfinite(moved).all()


def test_targets_keep_their_values_and_unlabelled_stays_unlabelled():
    targets = (torch.rand(4, 2, 64, 64, generator=seeded()) > 0.5).float()
    weights = torch.zeros(4, 1, 64, 64)
    _, moved, known = augment_batch(
        torch.rand(4, 1, 64, 64), targets, weights, elastic_px=9.0, generator=seeded()
    )
    assert set(moved.unique().tolist()) == {0.0, 1.0}
    assert not known.any()


def test_flips_give_all_eight_positions_of_a_square_and_four_of_an_oblong():
    for shape, positions in [((5, 5), 8), ((4, 6), 4)]:
        where = coordinates(200, *shape)
        images, _, _ = augment_batch(
            where, where, where[:, :1], **{**OFF, "flips": True}, generator=seeded()
        )
        assert images.shape == where.shape
        assert len({tuple(image.flatten().tolist()) for image in images}) == positions


@pytest.mark.parametrize("elastic_px", [2.0, 10.0])
def test_displacements_have_the_spread_that_was_asked_for_at_the_nodes(elastic_px):
    nodes = draw_changes(1500, 1, (65, 33), elastic_px=elastic_px, generator=seeded()).nodes
    torch.testing.assert_close(nodes.std(0), torch.full((2, 3, 3), elastic_px), rtol=0.08, atol=0)
    assert nodes.mean(0).abs().max() < 0.12 * elastic_px


def test_the_same_seed_gives_the_same_crops_and_another_seed_others():
    images, ones = torch.rand(2, 1, 32, 32), torch.ones(2, 1, 32, 32)
    first, again, other = (
        augment_batch(images, images, ones, generator=seeded(seed)) for seed in (1, 1, 2)
    )
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("strength", [0.2, 1.0])
def test_grey_values_change_by_the_strength_and_keep_their_order(strength):
    images = torch.linspace(-0.3, 1.4, 400).view(1, 1, 20, 20).repeat(50, 2, 1, 1)
    changed = change_grey_values(images, strength, seeded())
    assert changed.shape == images.shape
    assert (changed.flatten(2).diff(dim=-1) >= 0).all()
    contrast = changed.std((-2, -1)) / images.std((-2, -1))
    assert contrast.min() < 1 - strength / 2 < 1 + strength / 2 < contrast.max()
    assert contrast.max() < 1.6 * torch.tensor(strength).exp()
    assert not torch.equal(changed[:, 0], changed[:, 1])  # each channel on its own
    torch.testing.assert_close(change_grey_values(images, 0.0), images)


def test_a_constant_crop_stays_constant_and_finite():
    changed = change_grey_values(torch.full((2, 1, 8, 8), 3.0), 1.0, seeded())
    assert torch.isfinite(changed).all()
    assert changed.std((-2, -1)).max() < 1e-5


def test_unknown_grey_values_do_not_spread():
    # a crop that is all one pixel has no neighbours to take values from
    one = torch.ones(1, 1, 1, 1)
    for values in augment_batch(one, one, one, generator=seeded()):
        assert torch.isfinite(values).all()


def test_some_crops_are_dimmed_all_channels_alike_and_nothing_else_of_them():
    images, targets, weights = torch.rand(400, 2, 4, 4) + 0.1, torch.rand(400, 1, 4, 4), None
    weights = torch.ones_like(targets)
    given = (images, targets, weights)
    dimmed, *same = augment_batch(*given, **{**OFF, "dimmed": 0.4}, generator=seeded())
    light = (dimmed / images).flatten(1)
    assert torch.allclose(light, light[:, :1].expand_as(light), atol=1e-5), "one factor for a crop"
    is_dimmed = light[:, 0] < 1
    assert is_dimmed.float().mean() == pytest.approx(0.4, abs=0.08)
    assert torch.equal(dimmed[~is_dimmed], images[~is_dimmed])
    assert light.min() >= DIMMEST - 1e-6
    assert light[is_dimmed, 0].log().mean() == pytest.approx(np.log(DIMMEST) / 2, abs=0.1)
    assert all(one is other for one, other in zip(same, given[1:], strict=True))


def test_a_part_of_a_batch_gets_the_light_meant_for_it():
    images = torch.ones(6, 1, 4, 4)
    changes = draw_changes(6, 1, (4, 4), **{**OFF, "dimmed": 0.5}, generator=seeded())
    whole, *_ = changes.apply(images, images, images)
    part, *_ = changes.part(slice(2, 5)).apply(*[images[:3]] * 3)
    assert torch.equal(part, whole[2:5])
    assert len(whole.flatten(1)[:, 0].unique()) > 2
