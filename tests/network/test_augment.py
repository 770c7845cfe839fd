"""Augmented crops: image, targets and weights stay in register, outside is unknown."""

from __future__ import annotations

import pytest
import torch

from napari_unet.network.augment import (
    augment_batch,
    change_grey_values,
    deform,
    draw_displacement,
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


def test_what_comes_from_outside_has_no_weight_and_all_that_is_inside_keeps_it():
    images = torch.rand(4, 1, 40, 40)
    ones = torch.ones(4, 1, 40, 40)
    grid = coordinates(4, 40, 40).permute(0, 2, 3, 1) + torch.tensor([7.0, -3.0])
    moved, targets, weights = deform(images, images, ones, grid)
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
    field = draw_displacement(1500, (65, 33), elastic_px, seeded())
    assert field.shape == (1500, 65, 33, 2)
    nodes = field[:, ::32, ::16]
    assert nodes.shape[1:3] == (3, 3)
    torch.testing.assert_close(nodes.std(0), torch.full((3, 3, 2), elastic_px), rtol=0.08, atol=0)
    assert nodes.mean(0).abs().max() < 0.12 * elastic_px
    # smooth: neighbouring pixels move almost alike
    assert field.diff(dim=1).abs().max() < elastic_px / 2


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
