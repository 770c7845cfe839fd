"""What too few labels taught, and nothing can judge, does not replace all that was known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_unet.models.card import Card
from napari_unet.models.model import Model
from napari_unet.network.unet import UNet
from napari_unet.runs.finetune import finetune
from napari_unet.runs.learner import Learner
from napari_unet.runs.mixing import cautious_share, mixed
from napari_unet.runs.samples import Sample
from napari_unet.settings import Architecture, FinetuneSettings
from tests.runs.test_finetune import field_of_discs

FAST = FinetuneSettings(seconds=None, steps=4, batch=2, crop_px=48, device="cpu")


def make_model(seed: int, **card) -> Model:
    torch.manual_seed(seed)
    net = UNet(Architecture(widths=(4, 8, 16), norm="batch")).eval()
    return Model(net, Card(name="tiny", architecture=net.architecture, **card))


def test_the_more_objects_taught_the_more_the_new_weights_count() -> None:
    shares = [cautious_share(objects) for objects in (0, 1, 5, 10, 20, 1000)]
    assert shares[2:5] == [1 / 3, 1 / 2, 2 / 3]
    assert 0 < shares[0] == shares[1] < shares[2]
    assert 0.98 < shares[-1] < 1


def test_weights_and_statistics_are_mixed_and_both_networks_stay() -> None:
    old, new = (make_model(seed).net.state_dict() for seed in (0, 1))
    before = {name: value.clone() for name, value in (old | new).items()}
    state = mixed(old, new, 0.25)
    assert state.keys() == new.keys()
    for name, value in state.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, 0.75 * old[name] + 0.25 * before[name])
        assert torch.equal(new[name], before[name])


@pytest.mark.parametrize("labels", ["instance", "semantic"])
def test_what_cannot_be_judged_stays_near_what_was_known(labels, monkeypatch) -> None:
    learned = []
    real = Learner.result

    def remember(self):
        learned.append(real(self))
        return learned[-1]

    monkeypatch.setattr(Learner, "result", remember)
    outputs = {"outputs": ("background", "disc"), "activation": "softmax"}
    model = make_model(0)
    if labels == "semantic":
        net = UNet(Architecture(widths=(4, 8, 16), norm="batch", classes=2)).eval()
        card = Card(name="tiny", architecture=net.architecture, labels="semantic", **outputs)
        model = Model(net, card)
    image, truth = field_of_discs()
    truth = truth if labels == "instance" else (truth > 0).astype(np.int32)
    mask = np.zeros(truth.shape, bool)
    mask[20:84, 20:84] = True
    result = finetune(model, [Sample(image, truth, mask)], FAST)
    assert result.outcome == "cannot judge"
    objects = result.report["samples"][0]["objects"] if labels == "instance" else None
    share = result.report["training"]["new_share"]
    old, new = model.net.state_dict(), learned[0].state_dict()
    moved = {n: v for n, v in new.items() if v.is_floating_point() and not torch.equal(v, old[n])}
    assert moved
    for name, value in moved.items():
        way = (result.model.net.state_dict()[name] - old[name]).norm() / (value - old[name]).norm()
        assert way == pytest.approx(share, abs=1e-3)
    assert 0 < share < 0.9
    if objects:
        assert share == pytest.approx(cautious_share(objects), abs=1e-4)
