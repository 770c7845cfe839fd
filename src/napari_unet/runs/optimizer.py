"""What changes the weights of a network that learns, and in how many digits it computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from napari_unet.network.build import Network
    from napari_unet.settings import FinetuneSettings


def is_fast_in_half(device: torch.device) -> bool:
    """Tell whether a processor has instructions of its own for half precision.

    Parameters
    ----------
    device : torch.device
        Where it computes.

    Returns
    -------
    bool
        True where a training step in half precision takes about two thirds of the time.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (7, 0)  # tensor cores
    # Older versions of torch cannot tell.
    return device.type == "cpu" and getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()


def half_dtype(device: torch.device) -> torch.dtype:
    """Choose the kind of half precision.

    Parameters
    ----------
    device : torch.device
        Where it computes.

    Returns
    -------
    torch.dtype
        The type bfloat16, which knows numbers as large and as small as float32; float16 on a GPU
        without it, where the loss has to be scaled so that small gradients are not lost.
    """
    is_old = device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0)
    return torch.float16 if is_old or device.type == "mps" else torch.bfloat16


def make_optimizer(
    net: Network, settings: FinetuneSettings, device: torch.device
) -> torch.optim.Optimizer:
    """Make what changes the weights, all of them in one go where that is possible.

    Parameters
    ----------
    net : Network
        Whose weights learn, as far as they are not frozen.
    settings : FinetuneSettings
        Kind, learning rate, weight decay and momentum.
    device : torch.device
        Where it computes.

    Returns
    -------
    torch.optim.Optimizer
        Weights of convolutions decay; biases and norms do not.
    """
    groups, rate = _groups(net, settings.weight_decay), settings.learning_rate
    fused = True if device.type in ("cpu", "cuda") else None
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, fused=fused)
    return torch.optim.SGD(groups, lr=rate, momentum=settings.momentum, fused=fused)


def make_scaler(half: torch.dtype | None, device: torch.device) -> torch.amp.GradScaler:
    """Make what keeps small gradients from being lost in float16; nothing else needs it.

    Parameters
    ----------
    half : torch.dtype or None
        The fewer digits it computes with, if any.
    device : torch.device
        Where it computes.

    Returns
    -------
    torch.amp.GradScaler
        It does nothing but for float16.
    """
    return torch.amp.GradScaler(device.type, enabled=half == torch.float16)


def _groups(net: Network, weight_decay: float) -> list[dict[str, Any]]:
    """Weights of convolutions decay; biases and norms do not."""
    free = [parameter for parameter in net.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in free if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in free if p.ndim <= 1], "weight_decay": 0.0},
    ]
