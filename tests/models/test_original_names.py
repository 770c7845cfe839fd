from __future__ import annotations

import io
import zipfile

import pytest
import torch
from torch import nn

from napari_unet.models.export import export_model
from napari_unet.models.model import Model, load_model, save_model
from napari_unet.models.opening import load_model as load_any

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


class Theirs(nn.Module):
    """Somebody's U-Net of two levels, with names of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.way_down = self.pair(1, 4)
        self.floor = self.pair(4, 8)
        self.lift = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.way_up = self.pair(8, 4)
        self.ending = nn.Conv2d(4, 1, 1)

    @staticmethod
    def pair(before: int, after: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for channels in (before, after):
            layers += [nn.Conv2d(channels, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        return nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = self.way_down(x)
        up = self.lift(self.floor(nn.functional.max_pool2d(skip, 2)))
        return self.ending(self.way_up(torch.cat([skip, up], 1)))


def theirs(seed: int = 0) -> Theirs:
    torch.manual_seed(seed)
    net = Theirs().eval()
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor) * (0.5 if "running_var" in name else 0.1))
    return net


def opened(net: nn.Module, path, state=None) -> Model:
    torch.save(net.state_dict() if state is None else state, path)
    return load_any(path)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_strangers_weights_go_back_into_the_network_they_came_from(prefix, tmp_path):
    net = theirs()
    state = {f"{prefix}{key}": tensor for key, tensor in net.state_dict().items()}
    model = opened(net, tmp_path / "theirs.pth", state)
    written = export_model(model, tmp_path / "back.pth")
    again = theirs(1)
    again.load_state_dict(torch.load(written, weights_only=True)["state_dict"], strict=True)
    x = torch.rand(1, 1, 16, 16)
    assert torch.equal(again(x), net(x))


def test_what_was_learned_here_goes_back_too(tmp_path):
    net = theirs()
    model = opened(net, tmp_path / "theirs.pth")
    with torch.no_grad():
        for parameter in model.net.parameters():
            parameter.mul_(2)
    kept = load_model(save_model(model, tmp_path / "ours.safetensors"))
    written = export_model(kept, tmp_path / "back.pth")
    again = theirs()
    again.load_state_dict(torch.load(written, weights_only=True)["state_dict"], strict=True)
    for one, other in zip(net.parameters(), again.parameters(), strict=True):
        assert torch.equal(2 * one, other)


def test_a_file_under_original_names_opens_here_as_it_was(tmp_path):
    model = opened(theirs(), tmp_path / "theirs.pth")
    again = load_any(export_model(model, tmp_path / "back.pth"))
    assert again.card == model.card
    for one, other in zip(
        model.net.state_dict().values(), again.net.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)


def test_weights_without_counters_are_written_without_them(tmp_path):
    net = theirs()
    state = {k: t for k, t in net.state_dict().items() if "num_batches" not in k}
    model = opened(net, tmp_path / "theirs.pth", state)
    content = torch.load(export_model(model, tmp_path / "back.pth"), weights_only=True)
    assert content["state_dict"].keys() == state.keys()
    assert load_any(tmp_path / "back.pth").card == model.card


def test_layers_that_cannot_be_told_apart_keep_our_names(tmp_path):
    net = theirs()
    with torch.no_grad():
        net.way_down[3].weight.copy_(net.way_up[3].weight)
        net.way_down[3].bias.copy_(net.way_up[3].bias)
    assert not opened(net, tmp_path / "theirs.pth").card.original_names


def test_a_network_of_ours_is_written_as_before(tiny_unet, tmp_path):
    from napari_unet.models.card import Card

    model = Model(tiny_unet, Card(name="ours", architecture=tiny_unet.architecture))
    content = torch.load(export_model(model, tmp_path / "ours.pth"), weights_only=True)
    assert content["state_dict"].keys() == tiny_unet.state_dict().keys()
    assert zipfile.is_zipfile(io.BytesIO((tmp_path / "ours.pth").read_bytes()))
