"""Weights and their average in one file: a person may choose the average."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from napari_unet.errors import ModelError
from napari_unet.models.opening import load_model, read_weights
from tests.models.recognise import nets
from tests.models.recognise.tutorials import ForkOfMilesial


def prefixed(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}{key}": tensor for key, tensor in tensors.items()}


def weights_of(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return what is learned, without what batch norm measures."""
    return {key: tensor.detach().clone() for key, tensor in net.named_parameters()}


@pytest.mark.parametrize(
    "container",
    [
        *("dicts", "state dicts", "Lightning", "ema first", "without dots", "parameters alone"),
        *("a student", "a name of its own"),
    ],
)
def test_averaged_weights_are_offered_and_give_the_averaged_network_s_answer(
    container: str, tmp_path: Path
) -> None:
    net, averaged = (nets.shaken(ForkOfMilesial(2, 2, 4), seed) for seed in (0, 1))
    averaged.load_state_dict(net.state_dict() | weights_of(averaged))
    mine, other = net.state_dict(), averaged.state_dict()
    undotted = {
        f"model_ema.{key.replace('.', '')}": value for key, value in weights_of(averaged).items()
    }
    content, name = {
        "dicts": ({"model": mine, "ema": other}, "ema"),
        "state dicts": ({"model_state_dict": mine, "ema_state_dict": prefixed("module.", other)},
                        "ema_state_dict"),
        "Lightning": (
            {"state_dict": prefixed("model.", mine) | prefixed("model_ema.module.", other)},
            "model_ema",
        ),
        "ema first": (prefixed("ema_model.", other) | prefixed("online_model.", mine), "ema_model"),
        "without dots": (
            {"state_dict": prefixed("model.", mine) | undotted
             | {"model_ema.decay": torch.tensor(0.9)}}, "model_ema",
        ),
        "a student": ({"state_dict": prefixed("student.", mine) | prefixed("teacher.", other)},
                      "teacher"),
        "a name of its own": (prefixed("seg.unet.", mine) | prefixed("ema.unet.", other), "ema"),
        "parameters alone": ({"net": mine, "ema": {"shadow": weights_of(averaged)}}, "ema.shadow"),
    }[container]  # fmt: skip
    torch.save(content, tmp_path / "net.ckpt")
    image = torch.randn(1, 2, 16, 24)
    with torch.no_grad():
        for told, original in (({}, net), ({"weights": name}, averaged)):
            model = load_model(tmp_path / "net.ckpt", assume=told)
            assert (model.net(image) - original(image)).abs().max() < 1e-4
    assert name in model.card.told["weights"]
    assert "weights" not in model.card.assumed
    with pytest.raises(ModelError, match=f"Choose .*{name}"):
        load_model(tmp_path / "net.ckpt", assume={"weights": "the best"})


def test_another_set_and_a_point_of_its_network_are_told_together(tmp_path: Path) -> None:
    mine = nets.shaken(ForkOfMilesial(1, 1, 4), 0).state_dict()
    torch.save({"model": mine, "ema": dict(mine)}, tmp_path / "net.pth")
    reading = read_weights(tmp_path / "net.pth")[0].assume({"activation": "elu"})
    reading = reading.assume({"weights": "ema"})
    assert {"weights", "activation of the layers"} <= reading.card.told.keys()


def test_sets_of_other_networks_are_not_offered(tmp_path: Path) -> None:
    mine = nets.shaken(ForkOfMilesial(1, 1, 4)).state_dict()
    other = nets.shaken(ForkOfMilesial(1, 1, 6)).state_dict()
    torch.save({"model": mine, "ema": other}, tmp_path / "net.pth")
    names = [one.name for one in read_weights(tmp_path / "net.pth")[0].assumptions]
    assert "weights" not in names


def test_averages_that_cannot_take_their_place_are_said_to_be_left_out(tmp_path: Path) -> None:
    mine = nets.shaken(ForkOfMilesial(1, 1, 4)).state_dict()
    other = nets.shaken(ForkOfMilesial(1, 1, 6)).state_dict()
    content = prefixed("model.", mine) | prefixed("model_ema.", other)
    torch.save({"state_dict": content}, tmp_path / "net.pth")
    assert "not model_ema" in load_model(tmp_path / "net.pth").card.assumed["weights"]
