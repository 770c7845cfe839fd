"""Two processes that share the crops of a step learn what one learns from all of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from napari_unet.errors import DeviceError, SettingError
from napari_unet.models.card import Card
from napari_unet.models.model import Model
from napari_unet.network.unet import UNet
from napari_unet.runs import learner as learners
from napari_unet.runs import team as teams
from napari_unet.runs.crops import Crops
from napari_unet.runs.learner import Learner
from napari_unet.runs.samples import Plane
from napari_unet.runs.team import Alone, Team
from napari_unet.settings import Architecture, FinetuneSettings

SETTINGS = FinetuneSettings(
    batch=5, crop_px=32, device="cpu", precision="float32", elastic_px=3, batch_norm="adapt"
)
TWO = SETTINGS.replace(devices=2)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_model(**architecture: object) -> Model:
    torch.manual_seed(0)
    net = UNet(Architecture(**{"widths": (4, 8), "norm": "batch", **architecture})).eval()
    outputs = ("background", "cell")[2 - net.architecture.classes :]
    classes = {"outputs": outputs, "labels": "semantic", "activation": "softmax"}
    more = classes if net.architecture.classes == 2 else {}
    return Model(net, Card(name="small", architecture=net.architecture, **more))


def make_crops(blobs, model: Model) -> Crops:
    everything, nothing = np.ones(blobs.labels.shape, bool), np.zeros(blobs.labels.shape, bool)
    image = (blobs.image[np.newaxis] - 100) / 60
    corrected = np.zeros_like(nothing)
    corrected[:40, :40] = True
    truth = np.minimum(blobs.labels, 1) if model.card.labels == "semantic" else blobs.labels
    plane = Plane(image, truth, everything, corrected, nothing)
    return Crops([plane], [nothing], model.card, SETTINGS.crop_px, model.net.margin, 2.0)


def weights(learner: Learner) -> torch.Tensor:
    return torch.cat([value.flatten() for value in learner.model.net.state_dict().values()])


def learned(model: Model, crops: Crops, settings: FinetuneSettings, rounds=(3,)) -> list:
    """Weights and losses after each round."""
    results = []
    with Team(settings) as team:
        for number, steps in enumerate(rounds):
            learner = Learner(model, settings.replace(seed=number))
            for step in range(steps):
                team.step(learner, crops, 0.3 + 0.1 * step)
            assert learner.steps == steps
            results.append((weights(learner), learner.mean_loss()))
    return results


# AdamW makes a step of the rounding of a gradient that is 0, as of the biases before a batch norm.
CASES = {
    "batch norm that follows": ({}, {"optimizer": "sgd"}),
    "classes and no padding": ({"classes": 2, "padded": False}, {"optimizer": "sgd"}),
    "one loss, L1": ({}, {"optimizer": "sgd", "loss": "cross-entropy", "l1": 1e-3}),
    "AdamW": ({"norm": "none"}, {}),
}


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "method"), CASES.values(), ids=CASES.keys())
def test_two_processes_learn_what_one_does(blobs, architecture, method) -> None:
    model = make_model(**architecture)
    crops = make_crops(blobs, model)
    alone = learned(model, crops, SETTINGS.replace(**method), (3, 2))
    together = learned(model, crops, TWO.replace(**method), (3, 2))
    start = weights(Learner(model, SETTINGS))
    for (one, one_loss), (both, both_loss) in zip(alone, together, strict=True):
        assert both_loss == pytest.approx(one_loss, rel=1e-4)
        assert (both - one).abs().max() < 1e-3 * (one - start).abs().max()
    assert not torch.distributed.is_initialized()
    assert torch.get_num_threads() == 1


def test_each_process_has_other_crops_and_all_have_the_whole_batch(blobs) -> None:
    model = make_model()
    crops = make_crops(blobs, model)
    whole = Learner(model, SETTINGS).draw_batch(crops)
    parts = []
    for rank in range(3):
        learner = Learner(model, SETTINGS)
        learner._member = Alone()
        learner._member.rank, learner._member.size = rank, 3
        parts.append(learner.draw_batch(crops))
    for number, values in enumerate(whole):
        together = torch.cat([part[number] for part in parts])
        torch.testing.assert_close(together, values, rtol=0, atol=1e-5)
    assert [len(part[0]) for part in parts] == [1, 2, 2]


@pytest.mark.slow
def test_a_helper_that_is_killed_ends_the_training_with_a_sentence(blobs) -> None:
    model = make_model()
    crops, learner = make_crops(blobs, model), Learner(model, TWO)
    with Team(TWO) as team:
        team.step(learner, crops, 0.5)
        team.step(learner, crops, 0.5)
        before, group = learner.state(), torch.distributed.group.WORLD
        os.kill(team._helpers[0].process.pid, signal.SIGKILL)
        with pytest.raises(DeviceError, match="One of the 2 processes that learned together has"):
            team.step(learner, crops, 0.5)
    assert learner.steps == 2
    tensors, values = learner.state()
    assert values == before[1], "a step that failed has changed nothing"
    for name, tensor in before[0].items():
        assert torch.equal(tensors[name], tensor), name
    assert not torch.distributed.is_initialized()
    assert group in teams._ENDED, "torch may wait for ever when a group is deallocated"


@pytest.mark.slow
def test_what_goes_wrong_in_a_helper_is_told(blobs, monkeypatch) -> None:
    model = make_model()
    crops, learner = make_crops(blobs, model), Learner(model, TWO)
    state = learner.state()
    monkeypatch.setattr(learner, "state", lambda: ({"x": torch.zeros(1)}, state[1]))
    with (
        pytest.raises(DeviceError, match=r"has ended \(KeyError: 'x'\)\. Go on"),
        Team(TWO) as team,
    ):
        team.step(learner, crops, 0.5)


LEARNER = """
import sys, time
from tests.runs import test_team as here
from tests.conftest import blobs
model = here.make_model()
crops = here.make_crops(blobs.__wrapped__(), model)
learner = here.Learner(model, here.TWO)
with here.Team(here.TWO) as team:
    team.step(learner, crops, 0.5)
    print(team._helpers[0].process.pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="asks for a process by its number")
def test_a_helper_ends_with_the_first_process_even_if_that_is_killed() -> None:
    process = subprocess.Popen([sys.executable, "-c", LEARNER], stdout=subprocess.PIPE)
    helper = int(process.stdout.readline())
    os.kill(helper, 0)
    process.kill()
    process.communicate()
    for _ in range(100):
        try:
            os.kill(helper, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("the helper is still there")


def test_what_several_devices_cannot_do_is_told(monkeypatch) -> None:
    with pytest.raises(SettingError, match="cannot share a batch of 5 crops"):
        Team(SETTINGS.replace(devices=6))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SettingError, match=r"pip install 'napari-unet-interactive\[multi\]'"):
        Team(TWO)
    monkeypatch.setattr("napari_unet.runs.team.choose_device", lambda kind: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(DeviceError, match="this computer has 1 GPU of this kind"):
        Team(TWO)


def test_lack_of_memory_in_a_team_is_told(blobs, monkeypatch) -> None:
    model = make_model()
    learner = Learner(model, SETTINGS)
    learner._member = Alone()
    learner._member.size = 2

    def fail(*arguments: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(learners, "masked_loss", fail)
    with pytest.raises(DeviceError, match="while 2 processes learned together"):
        learner.step(make_crops(blobs, model), 0.5)
