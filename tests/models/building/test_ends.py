"""How networks of TorchScript and ONNX end: in class numbers, and in logarithms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from napari_unet.errors import ModelError
from napari_unet.models.opening import load_model, open_weights

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning"),
    pytest.mark.parametrize("suffix", [".pt", ".onnx"]),
]


class Ending(nn.Module):
    """Two convolutions, and what is done with their logits."""

    def __init__(self, end: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1))
        self.end = end

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(self.body(x))


def saved(net: nn.Module, path: Path) -> Path:
    image = torch.rand(1, 1, 16, 16)
    if path.suffix == ".pt":
        torch.jit.trace(net, image).save(path)
    else:
        torch.onnx.export(net, image, path, dynamo=False)
    return path


@pytest.mark.parametrize(
    "end",
    [
        lambda x: torch.argmax(x, 1),
        lambda x: torch.argmax(torch.softmax(x, 1), 1),
        lambda x: torch.argmax(torch.sigmoid(x), 1, keepdim=True).float(),
        lambda x: torch.log_softmax(x, 1),
    ],
    ids=["argmax", "argmax of softmax", "argmax of sigmoid", "log of softmax"],
)
def test_the_probabilities_behind_an_end_are_what_a_network_gives(end, suffix, tmp_path):
    net = Ending(end).eval()
    (model,) = open_weights(saved(net, tmp_path / f"net{suffix}"))
    x = torch.rand(1, 1, 24, 20)
    with torch.no_grad():
        given, expected = model.activate(model.net(x)), torch.softmax(net.body(x), 1)
    assert (given - expected).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("end", "sentence"),
    [
        (lambda x: torch.argmax(x, 1, keepdim=True).float() * 127, "the numbers of classes"),
        (lambda x: torch.argmax(x, 1).float() + 1, "the numbers of classes"),
        (lambda x: 1 - torch.log_softmax(x, 1), "elsewhere than at the end"),
    ],
    ids=["grey values", "from 1 on", "more than a logarithm"],
)
def test_arithmetic_with_an_end_is_refused(end, sentence, suffix, tmp_path):
    path = saved(Ending(end).eval(), tmp_path / f"net{suffix}")
    with pytest.raises(ModelError, match=sentence):
        load_model(path)
