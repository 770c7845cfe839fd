"""How far the network's answer is from the truth, counted only where the truth is known.

Every pixel has a weight; weight 0 means that nobody said what is there, and such a pixel has no
influence on the value nor on the gradient. The targets may lie between 0 and 1 (a distance
map), so the soft Dice has squares in its denominator: it is 0 exactly where answer and target
agree, which the plain sum would not give.

Both losses are quotients of sums over the whole batch. Where several processes have a part of the
batch each, ``add_up`` adds such a sum over all of them, so that each knows the loss of the whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from napari_unet.settings import Loss

    Activation = Literal["sigmoid", "softmax", "none"]
    AddUp = Callable[[Tensor], Tensor]

TINY = 1e-6  # probabilities closer to 0 or 1 than this count as this
SMOOTHING = 1.0  # in pixels: a crop without any object has a defined Dice, close to 0


def alone(part: Tensor) -> Tensor:
    """Return a sum over a part of a batch that is the whole of it."""
    return part


def masked_loss(
    logits: Tensor,
    targets: Tensor,
    weights: Tensor,
    activation: Activation = "sigmoid",
    kind: Loss = "both",
    add_up: AddUp = alone,
) -> Tensor:
    """Cross-entropy, soft Dice or both, counted by the weights.

    Parameters
    ----------
    logits : Tensor of float, shape (N, K, *spatial)
        What the network gives, before its activation; probabilities if there is none.
    targets : Tensor of float, shape (N, K, *spatial), range 0..1
        What it should give after its activation; sums to 1 over K for softmax.
    weights : Tensor of float, shape (N, 1, *spatial), 0 or more
        How much each pixel counts; 0 where nothing is known.
    activation : {"sigmoid", "softmax", "none"}
        What turns logits into probabilities.
    kind : {"both", "cross-entropy", "dice"}
        Which loss, or the sum of the two.
    add_up : callable
        Adds a sum over this part of the batch to those over all others.

    Returns
    -------
    Tensor, no dimensions
        The loss; 0 (with a gradient of 0) if all weights are 0.
    """
    parts = {"cross-entropy": cross_entropy, "dice": two_sided_dice}
    chosen = parts.values() if kind == "both" else [parts[kind]]
    losses = [loss(logits, targets, weights, activation, add_up) for loss in chosen]
    return torch.stack(losses).sum()


def cross_entropy(
    logits: Tensor,
    targets: Tensor,
    weights: Tensor,
    activation: Activation = "sigmoid",
    add_up: AddUp = alone,
) -> Tensor:
    """Weighted mean of the cross-entropy over the pixels.

    For softmax the cross-entropy between the classes, as in the U-Net paper [1]_, equation 1,
    over the sum of the weights; else the binary cross-entropy, averaged over the outputs.

    Parameters
    ----------
    logits, targets, weights, activation, add_up : object
        See :func:`masked_loss`.

    Returns
    -------
    Tensor, no dimensions
        In nats per pixel; 0 if all weights are 0.

    References
    ----------
    .. [1] Ronneberger, Fischer, Brox (2015), doi:10.1007/978-3-319-24574-4_28.
    """
    logits = as_logits(logits, activation)
    if activation == "softmax":
        loss = -(targets * functional.log_softmax(logits, dim=1)).sum(dim=1, keepdim=True)
    else:
        loss = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        loss = loss.mean(dim=1, keepdim=True)
    sums = add_up(torch.stack([(loss * weights).sum(), weights.sum()]))
    return sums[0] / _at_least_tiny(sums[1])


def soft_dice(
    logits: Tensor,
    targets: Tensor,
    weights: Tensor,
    activation: Activation = "sigmoid",
    add_up: AddUp = alone,
) -> Tensor:
    """One minus the Dice overlap of probabilities and targets, averaged over the outputs.

    ``1 - (2 sum(w p t) + s) / (sum(w p^2) + sum(w t^2) + s)``, the sums over batch and space, as
    in V-Net [1]_.

    Parameters
    ----------
    logits, targets, weights, activation, add_up : object
        See :func:`masked_loss`.

    Returns
    -------
    Tensor, no dimensions, range 0..1
        0 where answer and target agree everywhere that counts.

    References
    ----------
    .. [1] Milletari, Navab, Ahmadi (2016), V-Net, doi:10.1109/3DV.2016.79.
    """
    logits = as_logits(logits, activation)
    probability = logits.softmax(dim=1) if activation == "softmax" else logits.sigmoid()
    return _dice_loss(probability, targets, weights, add_up)


def two_sided_dice(
    logits: Tensor,
    targets: Tensor,
    weights: Tensor,
    activation: Activation = "sigmoid",
    add_up: AddUp = alone,
) -> Tensor:
    """Soft Dice loss of the outputs and of what is left beside them, averaged.

    Where objects cover most of an image, as cells between membranes do, their own overlap hardly
    tells a membrane from a gap in it, and a network that is to make it small calls everything an
    object. The overlap of the rest tells. For a softmax, the rest of one class is the others, which
    have outputs of their own: there it is :func:`soft_dice`.

    Parameters
    ----------
    logits, targets, weights, activation, add_up : object
        See :func:`masked_loss`.

    Returns
    -------
    Tensor, no dimensions, range 0..1
        0 where answer and target agree everywhere that counts.
    """
    if activation == "softmax":
        return soft_dice(logits, targets, weights, activation, add_up)
    probability = as_logits(logits, activation).sigmoid()
    answers, truths = (torch.cat([side, 1 - side], dim=1) for side in (probability, targets))
    return _dice_loss(answers, truths, weights, add_up)


def as_logits(answer: Tensor, activation: Activation) -> Tensor:
    """Widen a network's answer to float32; turn probabilities into what a sigmoid makes them of.

    Only what lies between 0 and 1 has a gradient then: beyond, it is cut off.
    """
    answer = answer.float()
    return answer.logit(eps=TINY) if activation == "none" else answer


def _dice_loss(probability: Tensor, targets: Tensor, weights: Tensor, add_up: AddUp) -> Tensor:
    """One minus the Dice overlap of each map, averaged over the maps."""
    over = [0, *range(2, probability.ndim)]
    both = (weights * probability * targets).sum(dim=over)
    either = (weights * (probability**2 + targets**2)).sum(dim=over)
    sums = add_up(torch.stack([both, either]))
    return (1 - (2 * sums[0] + SMOOTHING) / (sums[1] + SMOOTHING)).mean()


def _at_least_tiny(total: Tensor) -> Tensor:
    """Keep a sum of weights from being a divisor of 0."""
    return total.clamp_min(1e-6)
