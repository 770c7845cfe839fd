"""What changes the weights, and in how many digits."""

from __future__ import annotations

import pytest
import torch

from napari_unet.network.unet import UNet
from napari_unet.runs.optimizer import half_dtype, is_fast_in_half, make_optimizer, make_scaler
from napari_unet.settings import Architecture, FinetuneSettings

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capability", "dtype"), [((7, 5), torch.float16), ((8, 0), torch.bfloat16)]
)
def test_a_gpu_without_bfloat16_computes_in_float16(capability, dtype, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert half_dtype(torch.device("cuda")) == dtype
    assert is_fast_in_half(torch.device("cuda"))
    assert half_dtype(CPU) == torch.bfloat16
    assert make_scaler(torch.float16, CPU).is_enabled()
    assert not make_scaler(torch.bfloat16, CPU).is_enabled()


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_convolutions_decay_and_what_is_frozen_stays(kind) -> None:
    net = UNet(Architecture(widths=(4, 8), norm="batch"))
    net.freeze_levels(1)
    settings = FinetuneSettings(optimizer=kind, weight_decay=0.2, learning_rate=1e-3)
    optimizer = make_optimizer(net, settings, CPU)
    decaying, others = optimizer.param_groups
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.2, 0)
    assert {p.ndim for p in decaying["params"]} == {4}
    assert {p.ndim for p in others["params"]} == {1}
    learning = {id(p) for group in (decaying, others) for p in group["params"]}
    assert learning == {id(p) for p in net.parameters() if p.requires_grad}
    assert len(learning) < len(list(net.parameters()))
