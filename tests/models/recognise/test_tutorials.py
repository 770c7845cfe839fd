"""What people trained after a tutorial: the best reading, or one that is told, is the original."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from napari_unet.errors import ModelError
from napari_unet.models.export import export_model
from napari_unet.models.opening import load_model
from napari_unet.models.recognise import recognise
from napari_unet.models.recognise.layers import Layers
from napari_unet.models.recognise.names import cleaned
from tests.models.recognise import nets
from tests.models.recognise.test_plain import difference
from tests.models.recognise.tutorials import TUTORIALS

TOLERANCE = 1e-5


def image_for(channels: int, size: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", TUTORIALS)
def test_a_tutorial_s_network_gives_its_own_answer_once_told(name: str, tmp_path: Path) -> None:
    make, channels, size, told = TUTORIALS[name]
    torch.manual_seed(0)
    net = nets.shaken(make())
    torch.save({"model_state_dict": net.state_dict()}, tmp_path / "net.pth")
    model = load_model(tmp_path / "net.pth", assume=told)
    image = image_for(channels, size)
    with torch.no_grad():
        expected = net.double()(image.double())
        answer = model.net.double()(image.double())
    assert expected.std() > 1e-3
    assert answer.shape == expected.shape
    assert float((answer - expected).abs().max()) < TOLERANCE
    assert len(model.card.told) == len(told)


@pytest.mark.parametrize("name", TUTORIALS)
def test_a_tutorial_s_network_with_a_tensor_less_is_refused_in_a_sentence(name: str) -> None:
    make, _, _, _ = TUTORIALS[name]
    tensors = make().state_dict()
    keys = [key for key, tensor in cleaned(tensors).items() if tensor.ndim > 3]
    keys = [key for key in keys if tensors[key].shape[0] != tensors[key].shape[1]]
    keys = [key for key in keys if not key.startswith("lift")]  # a level less is a network, too
    for key in keys[1 :: max(1, len(keys) // 4)]:
        rest = {other: tensor for other, tensor in tensors.items() if other != key}
        with pytest.raises(ModelError, match=r"\. "):
            recognise(rest)


@pytest.mark.parametrize("name", TUTORIALS)
def test_the_layers_of_a_tutorial_s_network_stand_in_its_order(name: str) -> None:
    assert not Layers(cleaned(TUTORIALS[name][0]().state_dict())).are_shuffled


def test_a_person_may_tell_what_a_library_s_default_is_not() -> None:
    from monai.networks.nets import BasicUNet

    net = nets.shaken(
        BasicUNet(
            2, 1, 2, features=(4, 4, 8, 8, 8, 4), act="elu", norm=("group", {"num_groups": 2})
        )
    )
    found = recognise(net.state_dict())[0]
    assert found.reread is not None
    told = found.reread({"activation": "elu", "norm": "group"}).reread({"groups": "2"})
    assert difference(told, net, (32, 32), 1) < TOLERANCE
    assert {one.name: one.told_by for one in told.assumptions}["activation"] == "you"
    assert told.card["told"].keys() == {
        "activation of the layers", "kind of norm", "groups of the norm"
    }  # fmt: skip
    assert "activation of the layers" not in told.assumed


@pytest.mark.parametrize("strides", [(2, 1, 2), (4, 2, 1)])
def test_the_steps_of_a_monai_unet_are_told(strides: tuple[int, ...]) -> None:
    from monai.networks.nets import UNet

    net = nets.shaken(UNet(2, 1, 3, (4, 8, 8, 12), strides))
    found = recognise(net.state_dict())[0]
    assert found.reread is not None
    told = found.reread({"strides": ",".join(map(str, strides))})
    assert difference(told, net, (32, 32), 1) < TOLERANCE
    assert "strides" in told.card["told"]
    for wrong in ("2,2", "2,2,x", "0,1,1"):
        with pytest.raises(ModelError, match=rf"strides={wrong} is .* Write e\.g\. 2,2,2"):
            found.reread({"strides": wrong})


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ({"activation": "swish"}, "activation=swish is not possible"),
        ({"colour": "red"}, "colour is nothing that these weights leave open. What can be told is"),
        ({"slope": "0.1"}, "Leave it out, or say activation=leaky_relu"),
        ({"norm": "group", "groups": "1.5"}, "norm makes no difference"),
        ({"eps": "small"}, "eps=small is no number of 0 or more"),
        ({"output": "argmax"}, "Choose sigmoid, softmax or none"),
        ({"normalization": 255}, "normalization=255 is not possible"),
    ],
)
def test_what_cannot_be_told_is_refused_with_what_can(
    told: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    torch.save(TUTORIALS["five levels"][0]().state_dict(), tmp_path / "net.pth")
    with pytest.raises(ModelError, match=sentence):
        load_model(tmp_path / "net.pth", assume=told)


def test_what_was_told_is_written_into_the_card_and_stays(tmp_path: Path) -> None:
    make, _, _, told = TUTORIALS["residual SiLU"]
    torch.save(make().state_dict(), tmp_path / "net.pth")
    model = load_model(tmp_path / "net.pth", assume={**told, "normalization": "mean-std"})
    assert "SiLU" in model.card.told["activation of the layers"]
    assert "normalization" in model.card.told
    assert not model.card.told.keys() & model.card.assumed.keys()
    for form, name in (
        ("safetensors", "a.safetensors"),
        ("onnx", "a.onnx"),
        ("state-dict", "b.pth"),
    ):
        path = export_model(model, tmp_path / name, form)
        again = load_model(path)
        assert again.card.told == model.card.told, form
        assert again.card.assumed == model.card.assumed, form
