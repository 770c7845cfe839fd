"""The networks that nnU-Net plans, rebuilt in our own words, recognised from their weights."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from napari_unet.models.opening import load_model
from napari_unet.models.recognise import recognise
from napari_unet.models.recognise.layers import Layers
from napari_unet.models.recognise.nnunet_residual import recognise_nnunet_residual
from napari_unet.runs.predict import predict
from napari_unet.settings import SegmentSettings
from tests.models.recognise.comparing import difference, is_refused, mutilated, noise, shaken
from tests.models.recognise.planned_nets import Planned

KERNELS = [(1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3)]
STRIDES = [(1, 1, 1), (1, 2, 2), (1, 2, 2), (2, 2, 2)]
WIDTHS = (4, 6, 8, 8)


def draw_plan(seed: int, *, residual: bool) -> tuple[nn.Module, torch.Tensor]:
    """Draw a network and an image; of a volume, Z is pooled later than the planes."""
    draw = random.Random(seed)
    dims, depth = draw.choice([2, 3]), draw.randint(3, 5)
    flat = draw.randint(0, 2) if dims == 3 else 0
    kernels: list[Any] = [
        ((1 if level < flat else 3),) + (3,) * (dims - 1) for level in range(depth)
    ]
    strides: list[Any] = [(1,) * dims]
    strides += [((1 if level < flat else 2),) + (2,) * (dims - 1) for level in range(depth - 1)]
    channels = draw.randint(1, 3)
    net = Planned(
        channels,
        draw.randint(2, 5),
        [draw.randint(3, 9) for _ in range(depth)],
        kernels,
        strides,
        counts=[draw.randint(1, 3) if residual else 2 for _ in range(depth)],
        residual=residual,
        up_count=draw.randint(1, 2) if residual else 2,
        norm=draw.choice(["instance", "batch"]),
        bias=draw.random() < 0.5,
    )
    size = [int(np.prod([step[axis] for step in strides])) * 2 for axis in range(dims)]
    return shaken(net, seed).float(), noise(1, channels, *size, seed=seed).float()


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_a_network_planned_by_nnunet_is_recognised(residual: bool, seed: int) -> None:
    net, image = draw_plan(seed, residual=residual)
    assert difference(recognise(net.state_dict())[0], net, image) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("residual", [False, True])
def test_a_hundred_networks_planned_by_nnunet_are_recognised(residual: bool) -> None:
    for seed in range(100, 200):
        net, image = draw_plan(seed, residual=residual)
        assert difference(recognise(net.state_dict())[0], net, image) < 1e-5, seed


def test_a_checkpoint_of_nnunet_opens_and_a_thin_volume_gives_the_original_answer(tmp_path):
    net = shaken(Planned(1, 3, WIDTHS, KERNELS, STRIDES, residual=True), 0).float()
    torch.save({"network_weights": net.state_dict(), "current_epoch": 7}, tmp_path / "best.pth")
    model = load_model(tmp_path / "best.pth", assume={"normalization": "none"})
    assert "residual-encoder U-Net of nnU-Net" in str(model.card.architecture.family)
    volume = np.random.default_rng(0).normal(size=(6, 32, 48)).astype(np.float32)
    with torch.inference_mode():
        expected = torch.softmax(net(torch.from_numpy(volume)[None, None]), 1)[0]
    given = predict(model, volume, "ZYX", SegmentSettings(device="cpu"))
    assert np.abs(given - expected.numpy()).max() < 1e-5


def test_an_incomplete_or_changed_file_is_refused() -> None:
    net = Planned(1, 2, WIDTHS[:3], KERNELS[1:], STRIDES[1:], residual=True)
    state = {key: tensor for key, tensor in net.state_dict().items() if "all_modules" not in key}
    state = {key: tensor for key, tensor in state.items() if not key.startswith("decoder.encoder")}
    state = {key: tensor for key, tensor in state.items() if "seg_layers.0" not in key}
    for key, changed in mutilated(state):
        assert is_refused(recognise_nnunet_residual, Layers(changed)), key
