"""How far batch norm goes over to new images: as far as they show that it helps.

A batch norm subtracts the mean and divides by the spread of what it saw in training. On images of
another kind these are wrong, and to measure them anew can be half of the way (stained tissue for a
model of fluorescence). It can do harm as well: where what is seen differs in what it holds and not
in how it looks (membranes for a model of nuclei), the old statistics are the better ones. Between
both lies a blend [1]_, and how well each does is told by the loss on labels that are known.

References
----------
.. [1] Schneider et al. (2020), Improving robustness against common corruptions by covariate shift
   adaptation, arXiv:2006.16971.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.modules.batchnorm import _BatchNorm

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from napari_unet.network.build import Network

    Statistics = list[tuple[Tensor, Tensor]]

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
LEAST_GAIN = 1e-3  # of the loss, relative: for less, batch norm does not go further


def batch_norms(net: Network, frozen_levels: int = 0) -> list[_BatchNorm]:
    """List the batch norms that may change.

    Parameters
    ----------
    net : Network
        Any network.
    frozen_levels : int
        Those in so many levels of the contracting path, from the top, stay as they are.

    Returns
    -------
    list of torch.nn.Module
        In the order of the network; none if it has none.
    """
    frozen = {layer for level in net.level_layers(frozen_levels) for layer in level.modules()}
    return [
        layer
        for layer in net.modules()
        if isinstance(layer, _BatchNorm) and layer not in frozen and layer.running_mean is not None
    ]


@torch.no_grad()
def blend_statistics(
    net: Network,
    layers: Sequence[_BatchNorm],
    batches: Sequence[Tensor],
    loss_of: Callable[[], float],
) -> float:
    """Measure new images, and blend old and new statistics so that the loss is the least.

    Parameters
    ----------
    net : Network
        In evaluation mode; only its statistics change.
    layers : sequence of torch.nn.Module
        Batch norms of it, see :func:`batch_norms`.
    batches : sequence of Tensor of float, shape (N, C, H, W)
        New images.
    loss_of : callable
        Returns the loss of the network as it is.

    Returns
    -------
    float
        Share of the new statistics, 0..1; 0 if there are no batch norms.
    """
    if not layers:
        return 0.0
    old = _statistics(layers)
    best_share, least = 0.0, float("inf")
    try:
        new = _measure(net, layers, batches)
        for share in SHARES:
            _set_blend(layers, old, new, share)
            loss = loss_of()
            if loss < least * (1 - LEAST_GAIN):
                best_share, least = share, loss
        _set_blend(layers, old, new, best_share)
    except BaseException:  # memory may run out
        _set_blend(layers, old, old, 0.0)
        raise
    return best_share


def _measure(net: Network, layers: Sequence[_BatchNorm], batches: Sequence[Tensor]) -> Statistics:
    """Measure what each layer sees of new images: mean and variance, averaged over the batches."""
    momenta = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.momentum = None  # the mean over all that comes
            layer.reset_running_stats()
            layer.train()
        for images in batches:
            net(images)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            layer.eval()
    return _statistics(layers)


def _statistics(layers: Sequence[_BatchNorm]) -> Statistics:
    """Copy mean and variance."""
    return [
        (layer.running_mean.clone(), layer.running_var.clone())
        for layer in layers
        if layer.running_mean is not None and layer.running_var is not None
    ]


def _set_blend(
    layers: Sequence[_BatchNorm], old: Statistics, new: Statistics, share: float
) -> None:
    """Give the layers what lies between old and new statistics."""
    for layer, was, became in zip(layers, old, new, strict=True):
        for into, one, other in zip(
            (layer.running_mean, layer.running_var), was, became, strict=True
        ):
            if into is not None:
                into.copy_(torch.lerp(one, other, share))
