"""Batch norms that measure a batch of which each process holds a part.

A batch norm that follows the images scales by mean and variance of the batch. If each process
measured its own part only, several processes would learn something else than one that has all of
it. So sums are added up over all of them before they are divided. (torch's own
``SyncBatchNorm`` does the same, on NVIDIA's GPUs alone.)
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch.nn.modules.batchnorm import _BatchNorm

if TYPE_CHECKING:
    from torch import Tensor, nn

    from napari_unet.network.losses import AddUp


def share_batch_norm(net: nn.Module, add_up: AddUp) -> None:
    """Let the batch norms that are in training mode measure the batch of all processes.

    Parameters
    ----------
    net : Module
        Its parameters and buffers stay what they are.
    add_up : callable
        Adds a sum over this process's part of the batch to those of all others; its gradient, too.
    """
    for layer in net.modules():
        if isinstance(layer, _BatchNorm) and layer.training:
            layer.forward = partial(_normalised, layer, add_up)  # type: ignore[method-assign]


def _normalised(layer: _BatchNorm, add_up: AddUp, given: Tensor) -> Tensor:
    """Scale values of shape (N, C, *spatial) by the statistics of all processes."""
    values = given.float()
    over = [0, *range(2, values.ndim)]
    channels = (1, -1, *[1] * (values.ndim - 2))
    count = values.new_full((1,), values.numel() / values.shape[1])
    sums = add_up(torch.cat([values.sum(over), count]))
    mean, count = sums[:-1] / sums[-1], sums[-1].detach()
    centred = values - mean.view(channels)
    variance = add_up(centred.square().sum(over)) / count
    _remember(layer, mean.detach(), variance.detach() * count / (count - 1).clamp_min(1))
    scaled = centred * (variance + layer.eps).rsqrt().view(channels)
    if layer.affine:
        scaled = scaled * layer.weight.view(channels) + layer.bias.view(channels)
    return scaled.to(given.dtype)


@torch.no_grad()
def _remember(layer: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Update what the layer has measured so far, as torch does."""
    if layer.running_mean is None or layer.running_var is None:
        return
    share = layer.momentum
    if layer.num_batches_tracked is not None:
        layer.num_batches_tracked.add_(1)
        share = 1 / float(layer.num_batches_tracked) if share is None else share
    layer.running_mean.lerp_(mean, share or 0.0)
    layer.running_var.lerp_(variance, share or 0.0)
