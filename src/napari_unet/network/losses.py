"""How far the network's answer is from the truth, counted only where the truth is known.

Every pixel has a weight; weight 0 means that nobody said what is there, and such a pixel has no
influence on the value nor on the gradient. The targets may lie between 0 and 1 (a distance
map), so the soft Dice has squares in its denominator: it is 0 exactly where answer and target
agree, which the plain sum would not give.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

    Activation = Literal["sigmoid", "softmax", "none"]

TINY = 1e-6  # probabilities closer to 0 or 1 than this count as this
SMOOTHING = 1.0  # in pixels: a crop without any object has a defined Dice, close to 0


def masked_loss(
    logits: Tensor, targets: Tensor, weights: Tensor, activation: Activation = "sigmoid"
) -> Tensor:
    """Cross-entropy plus soft Dice, both counted by the weights.

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

    Returns
    -------
    Tensor, no dimensions
        The loss; 0 (with a gradient of 0) if all weights are 0.
    """
    return cross_entropy(logits, targets, weights, activation) + soft_dice(
        logits, targets, weights, activation
    )


def cross_entropy(
    logits: Tensor, targets: Tensor, weights: Tensor, activation: Activation = "sigmoid"
) -> Tensor:
    """Weighted mean of the cross-entropy over the pixels.

    For softmax the cross-entropy between the classes; else the binary cross-entropy, averaged
    over the outputs. Parameters as for :func:`masked_loss`.

    Parameters
    ----------
    logits, targets, weights : Tensor
        See :func:`masked_loss`.
    activation : {"sigmoid", "softmax", "none"}
        What turns logits into probabilities.

    Returns
    -------
    Tensor, no dimensions
        In nats per pixel; 0 if all weights are 0.
    """
    logits = as_logits(logits, activation)
    if activation == "softmax":
        loss = -(targets * functional.log_softmax(logits, dim=1)).sum(dim=1, keepdim=True)
    else:
        loss = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        loss = loss.mean(dim=1, keepdim=True)
    return (loss * weights).sum() / _at_least_tiny(weights.sum())


def soft_dice(
    logits: Tensor, targets: Tensor, weights: Tensor, activation: Activation = "sigmoid"
) -> Tensor:
    """One minus the Dice overlap of probabilities and targets, averaged over the outputs.

    ``1 - (2 sum(w p t) + s) / (sum(w p^2) + sum(w t^2) + s)``, the sums over batch and space, as
    in V-Net [1]_.

    Parameters
    ----------
    logits, targets, weights : Tensor
        See :func:`masked_loss`.
    activation : {"sigmoid", "softmax", "none"}
        What turns logits into probabilities.

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
    over = [0, *range(2, logits.ndim)]
    both = (weights * probability * targets).sum(dim=over)
    either = (weights * (probability**2 + targets**2)).sum(dim=over)
    return (1 - (2 * both + SMOOTHING) / (either + SMOOTHING)).mean()


def as_logits(answer: Tensor, activation: Activation) -> Tensor:
    """Widen a network's answer to float32; turn probabilities into what a sigmoid makes them of.

    Only what lies between 0 and 1 has a gradient then: beyond, it is cut off.
    """
    answer = answer.float()
    return answer.logit(eps=TINY) if activation == "none" else answer


def _at_least_tiny(total: Tensor) -> Tensor:
    """Keep a sum of weights from being a divisor of 0."""
    return total.clamp_min(1e-6)
