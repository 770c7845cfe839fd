"""Losses against torch's own where everything counts, and blind where nothing is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from napari_unet.network.losses import cross_entropy, masked_loss, soft_dice, two_sided_dice

PARTS = [cross_entropy, soft_dice, two_sided_dice, masked_loss]
ACTIVATIONS = ["sigmoid", "softmax"]


def batch(classes: int = 3, shape: tuple[int, ...] = (9, 11)) -> tuple[torch.Tensor, ...]:
    """Logits, one-hot targets, weights of which about half are 0."""
    random = torch.Generator().manual_seed(3)
    logits = torch.randn((2, classes, *shape), generator=random)
    ids = torch.randint(classes, (2, *shape), generator=random)
    targets = functional.one_hot(ids, classes).movedim(-1, 1).float()
    weights = torch.rand((2, 1, *shape), generator=random)
    return logits, targets, weights * (weights > 0.5)


def gradient(loss, logits, *rest) -> torch.Tensor:
    leaf = logits.clone().requires_grad_()
    loss(leaf, *rest).backward()
    return leaf.grad


def test_with_equal_weights_the_cross_entropy_is_torchs():
    logits, targets, _ = batch()
    for factor in (1.0, 7.0):
        ones = torch.full((2, 1, 9, 11), factor)
        torch.testing.assert_close(
            cross_entropy(logits, targets, ones, "sigmoid"),
            functional.binary_cross_entropy_with_logits(logits, targets),
        )
        torch.testing.assert_close(
            cross_entropy(logits, targets, ones, "softmax"),
            functional.cross_entropy(logits, targets.argmax(1)),
        )


def test_the_soft_dice_of_hard_answers_is_one_minus_the_dice_coefficient():
    truth = torch.zeros(1, 1, 40, 40)
    truth[..., 10:30, 10:30] = 1
    answer = torch.zeros(1, 1, 40, 40)
    answer[..., 10:30, 20:40] = 1
    loss = soft_dice((answer - 0.5) * 100, truth, torch.ones(1, 1, 40, 40))
    assert loss.item() == pytest.approx(1 - 2 * 200 / 800, abs=2e-3)


def test_the_two_sided_dice_is_the_mean_of_that_of_the_objects_and_that_of_the_rest():
    logits, targets, weights = batch()
    sides = (
        soft_dice(sign * logits, side, weights) for sign, side in ((1, targets), (-1, 1 - targets))
    )
    torch.testing.assert_close(two_sided_dice(logits, targets, weights), sum(sides) / 2)
    torch.testing.assert_close(
        two_sided_dice(logits, targets, weights, "softmax"),
        soft_dice(logits, targets, weights, "softmax"),
    )


def test_where_objects_cover_nearly_all_the_two_sided_dice_sees_a_membrane_that_is_missed():
    cells = torch.ones(1, 1, 40, 40)
    cells[..., 20:22] = 0  # a membrane
    everything, ones = torch.full((1, 1, 40, 40), 20.0), torch.ones(1, 1, 40, 40)
    assert soft_dice(everything, cells, ones) < 0.03
    assert two_sided_dice(everything, cells, ones) > 0.5


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("loss", PARTS)
@pytest.mark.parametrize("shape", [(9, 11), (4, 5, 6)], ids=["2D", "3D"])
def test_unlabelled_pixels_change_neither_value_nor_gradient(loss, activation, shape):
    logits, targets, weights = batch(shape=shape)
    unknown = (weights == 0).expand_as(logits)
    value = loss(logits, targets, weights, activation)
    slope = gradient(loss, logits, targets, weights, activation)
    other_logits = torch.where(unknown, -30 * logits, logits)
    other_targets = torch.where(unknown, 1 - targets, targets)
    torch.testing.assert_close(loss(other_logits, targets, weights, activation), value)
    torch.testing.assert_close(loss(logits, other_targets, weights, activation), value)
    assert not slope[unknown].any()
    # controls: what is known does count
    assert slope[~unknown].abs().min() > 0
    moved = loss(torch.where(unknown, logits, -5 * logits), targets, weights, activation)
    assert (moved - value).abs() > 0.01


@pytest.mark.parametrize("loss", PARTS)
def test_a_pixel_of_weight_three_counts_like_three_pixels(loss):
    logits, targets, _ = batch()
    weights = torch.ones(2, 1, 9, 11)
    weights[..., :4] = 3
    tripled = [torch.cat([t[..., :4]] * 2 + [t], dim=-1) for t in (logits, targets)]
    ones = torch.ones(2, 1, 9, 19)
    torch.testing.assert_close(loss(logits, targets, weights), loss(*tripled, ones))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("loss", PARTS)
def test_where_nothing_is_known_there_is_nothing_to_learn(loss, activation):
    logits, targets, weights = batch()
    slope = gradient(loss, logits, targets, torch.zeros_like(weights), activation)
    assert not slope.any()
    assert torch.isfinite(loss(logits, targets, torch.zeros_like(weights), activation))


@pytest.mark.parametrize("loss", PARTS)
def test_the_loss_is_least_where_the_answer_equals_a_soft_target(loss):
    targets = torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
    logits, ones = targets.logit(), torch.ones(1, 1, 12, 12)
    assert gradient(loss, logits, targets, ones).abs().max() < 1e-4
    assert all(loss(logits + d, targets, ones) > loss(logits, targets, ones) for d in (-0.3, 0.3))


def test_the_sum_is_the_sum_of_its_parts_in_half_precision_too():
    logits, targets, weights = batch()
    whole = masked_loss(logits, targets, weights)
    parts = cross_entropy(logits, targets, weights) + two_sided_dice(logits, targets, weights)
    torch.testing.assert_close(whole, parts)
    half = masked_loss(logits.bfloat16(), targets, weights)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, whole, atol=0.01, rtol=0.01)


def plain_cross_entropy(logits, targets, weights) -> float:
    """Equation 1 of the paper pixel by pixel, doi:10.1007/978-3-319-24574-4_28."""
    total = 0.0
    for crop in range(logits.shape[0]):
        for y, x in np.ndindex(*logits.shape[2:]):
            a = logits[crop, :, y, x]
            p = np.exp(a) / np.exp(a).sum()
            total -= weights[crop, 0, y, x] * np.log(p[targets[crop, :, y, x].argmax()])
    return total / weights.sum()


def plain_dice(probability, targets, weights) -> float:
    """The overlap of V-Net, doi:10.1109/3DV.2016.79, section 3, class by class."""
    losses = []
    for k in range(targets.shape[1]):
        p, t, w = probability[:, k], targets[:, k], weights[:, 0]
        both, either = (w * p * t).sum(), (w * p**2).sum() + (w * t**2).sum()
        losses.append(1 - (2 * both + 1) / (either + 1))
    return float(np.mean(losses))


def test_the_losses_are_the_published_ones():
    logits, targets, weights = batch()
    plain = [values.double().numpy() for values in (logits, targets, weights)]
    probability = np.exp(plain[0]) / np.exp(plain[0]).sum(axis=1, keepdims=True)
    entropy = plain_cross_entropy(*plain)
    dice = plain_dice(probability, *plain[1:])
    for kind, expected in {"cross-entropy": entropy, "dice": dice, "both": entropy + dice}.items():
        loss = masked_loss(logits, targets, weights, "softmax", kind)
        assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", ["both", "cross-entropy", "dice"])
def test_the_sums_over_two_parts_of_a_batch_add_up_to_the_loss_of_the_whole(kind, activation):
    logits, targets, weights = batch()
    sums: list[list[torch.Tensor]] = [[], []]
    for part, kept in enumerate(sums):
        halves = (values[part : part + 1] for values in (logits, targets, weights))

        def keep(total: torch.Tensor, kept=kept) -> torch.Tensor:
            kept.append(total)
            return total

        masked_loss(*halves, activation, kind, keep)
    totals = iter([one + other for one, other in zip(*sums, strict=True)])
    first = (values[:1] for values in (logits, targets, weights))
    whole = masked_loss(*first, activation, kind, lambda total: next(totals))
    torch.testing.assert_close(whole, masked_loss(logits, targets, weights, activation, kind))
