from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from napari_unet.models.opening import load_model
from tests.models.recognise import nets

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Small(nn.Module):
    """A U-Net of two poolings, skips joined behind what comes up."""

    def __init__(self, norm: Callable[[int], nn.Module] | None = None) -> None:
        super().__init__()
        self.norm = norm
        self.e1, self.e2, self.b = self.block(1, 8), self.block(8, 16), self.block(16, 32)
        self.u2, self.u1 = nn.ConvTranspose2d(32, 16, 2, 2), nn.ConvTranspose2d(16, 8, 2, 2)
        self.d2, self.d1 = self.block(32, 16), self.block(16, 8)
        self.head = nn.Conv2d(8, 1, 1)

    def block(self, channels: int, width: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for read in (channels, width):
            layers.append(nn.Conv2d(read, width, 3, padding=1))
            layers += [self.norm(width)] if self.norm else []
            layers.append(nn.ReLU())
        return nn.Sequential(*layers)

    def up(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.e1(x)
        second = self.e2(nn.functional.max_pool2d(first, 2))
        x = self.b(nn.functional.max_pool2d(second, 2))
        x = self.d2(torch.cat([self.up(self.u2(x)), second], 1))
        return self.head(self.d1(torch.cat([self.up(self.u1(x)), first], 1)))


class LinearEnds(Small):
    """The same, with an activation after the first convolution of a level alone."""

    def block(self, channels: int, width: int) -> nn.Sequential:
        return super().block(channels, width)[:-1]


class LatePooling(Small):
    """The same, but for the first each module sees the size above it and is pooled."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.e1(x)
        second = nn.functional.max_pool2d(self.e2(first), 2)
        x = nn.functional.max_pool2d(self.b(second), 2)
        x = self.d2(torch.cat([self.u2(x), second], 1))
        return self.head(self.d1(torch.cat([self.u1(x), first], 1)))


class ActiveUp(Small):
    """The same, with an activation after each transposed convolution."""

    def up(self, x: torch.Tensor) -> torch.Tensor:
        return x.relu()


def difference(net: nn.Module, path: Path, **told: str) -> float:
    """Save, open again, and return how far the answers are apart."""
    torch.save(net.state_dict(), path)
    image = torch.rand(1, 1, 48, 32, generator=torch.Generator().manual_seed(1))
    found = load_model(path, assume=told).net
    with torch.no_grad():
        return float((found(image) - net.eval()(image)).abs().max())


@pytest.fixture(autouse=True)
def same_weights():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def test_instance_norms_without_weights_behind_biases_can_be_told(tmp_path):
    net, path = Small(nn.InstanceNorm2d), tmp_path / "net.pth"
    assert difference(net, path, bare_norm="instance", skip_order="upsampled-first") < 1e-5
    assert difference(net, path, bare_norm="none", skip_order="upsampled-first") > 1e-2  # control


def test_an_activation_after_transposed_convolutions_can_be_told(tmp_path):
    told = {"skip_order": "upsampled-first"}
    net, path = ActiveUp(), tmp_path / "net.pth"
    assert difference(net, path, upsampling_activation="yes", **told) < 1e-5
    assert difference(net, path, upsampling_activation="no", **told) > 1e-3  # control


def test_levels_that_end_without_activation_can_be_told(tmp_path):
    told = {"skip_order": "upsampled-first"}
    net, path = LinearEnds(), tmp_path / "net.pth"
    assert difference(net, path, level_end="linear", **told) < 1e-5
    assert difference(net, path, level_end="active", **told) > 1e-3  # control


def test_pooling_behind_the_first_module_of_a_level_can_be_told(tmp_path):
    told = {"skip_order": "upsampled-first"}
    net, path = nets.shaken(LatePooling()), tmp_path / "net.pth"
    assert difference(net, path, pooling_place="last", **told) < 1e-5
    assert difference(net, path, pooling_place="first", **told) > 1e-3  # control


def test_an_upsampling_without_bias_is_normed_before_its_activation_like_all(tmp_path):
    net, path = nets.FastMri(1, 1, 4, 3), tmp_path / "net.pth"
    told = {"activation": "leaky_relu", "slope": "0.2", "pooling": "average"}
    assert difference(net, path, upsampling_activation="yes", **told) < 1e-5
    assert difference(net, path, upsampling_activation="no", **told) > 1e-2  # control


@pytest.mark.parametrize(
    "add",
    [
        pytest.param(
            nn.utils.weight_norm, marks=pytest.mark.filterwarnings("ignore::FutureWarning")
        ),
        nn.utils.parametrizations.weight_norm,
    ],
)
def test_weights_kept_as_direction_and_length_are_multiplied_out(add, tmp_path):
    net = Small()
    for layer in list(net.modules()):
        if isinstance(layer, nn.Conv2d):
            add(layer)
            with torch.no_grad():
                for name, tensor in layer.named_parameters():
                    if name.endswith(("weight_g", "original0")):
                        tensor *= 1.5
    assert difference(net, tmp_path / "net.pth", skip_order="upsampled-first") < 1e-5


def test_weights_that_were_pruned_count_where_their_mask_says(tmp_path):
    net = Small()
    for layer in list(net.modules()):
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            prune.random_unstructured(layer, "weight", 0.3)
            prune.random_unstructured(layer, "bias", 0.3)
    assert difference(net, tmp_path / "net.pth", skip_order="upsampled-first") < 1e-5
