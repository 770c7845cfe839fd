"""A step of the training is taken also where memory is short: in parts, or on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from napari_unet.errors import DeviceError
from napari_unet.models.card import Card
from napari_unet.models.model import Model
from napari_unet.network.unet import UNet
from napari_unet.runs import learner as module
from napari_unet.runs.learner import Learner
from napari_unet.settings import Architecture, FinetuneSettings

CROP_PX = 32
SETTINGS = FinetuneSettings(
    batch=4,
    crop_px=CROP_PX,
    device="cpu",
    precision="float32",
    flips=False,
    elastic_px=0,
    grey_values=0,
    zoom=1,
    rotation_degrees=0,
)


class FixedCrops:
    """Crops that are the same each time."""

    crop_px = window_px = CROP_PX
    margin_px = 0

    def draw(self, count: int, random: np.random.Generator) -> tuple[Any, ...]:
        images = np.random.default_rng(3).random((count, 1, CROP_PX, CROP_PX), np.float32)
        return images, (images > 0.5).astype(np.float32), np.ones_like(images)


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    net = UNet(Architecture(widths=(4, 8)))
    return Model(net, Card(name="small", architecture=net.architecture))


def steps_taken(learner: Learner, count: int = 1) -> torch.Tensor:
    for _ in range(count):
        learner.step(FixedCrops(), 0.5)
    return torch.cat([value.flatten() for value in learner._net.state_dict().values()])


def failing(times: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """Let memory run out the first few times."""
    left = iter(range(times))

    def call(*args: Any, **kwargs: Any) -> Any:
        if next(left, None) is not None:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return function(*args, **kwargs)

    return call


def stages(learner: Learner) -> Iterator[tuple[str, object, str]]:
    yield "drawing", FixedCrops, "draw"
    yield "augmenting", module, "augment_batch"
    yield "forward", UNet, "forward"
    yield "loss", module, "masked_loss"
    yield "backward", torch.Tensor, "backward"
    yield "clipping", torch.nn.utils, "clip_grad_norm_"
    yield "moving", Learner, "_move"


@pytest.mark.parametrize("stage", range(7))
@pytest.mark.parametrize("times", [1, 2])
def test_memory_may_run_out_at_any_stage_of_a_step(
    model: Model, stage: int, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, plain = Learner(model, SETTINGS), Learner(model, SETTINGS)
    expected = steps_taken(plain, 3)
    name, owner, function = list(stages(learner))[stage]
    monkeypatch.setattr(owner, function, failing(times, getattr(owner, function)))
    got = steps_taken(learner, 3)
    assert learner.steps == 3, name
    assert [note.text for note in learner.take_notes()] == [
        "Memory of this computer ran out with 4 crops at once; going on with 2 crops at once.",
        "Memory of this computer ran out with 2 crops at once; going on with 1 crop at once.",
    ][:times]
    assert learner.take_notes() == []
    # The Dice part sees each part of the batch alone, so it is near and not the same.
    assert (got - expected).abs().max() < 0.2 * SETTINGS.learning_rate * 3
    assert not torch.equal(got, expected)


def test_added_up_gradients_are_those_of_the_whole_batch(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "masked_loss", module.masked_loss.__globals__["cross_entropy"])
    whole, parts = Learner(model, SETTINGS), Learner(model, SETTINGS)
    parts._at_once = 1
    for learner in (whole, parts):
        learner.step(FixedCrops(), 0.0)
    for one, other in zip(whole._net.parameters(), parts._net.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-7)


def test_the_cpu_takes_over_when_one_crop_is_too_much_for_the_gpu(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "choose_device", lambda device: torch.device("meta"))
    monkeypatch.setattr(module, "free_memory", lambda device: None)
    learner = Learner(model, SETTINGS)
    real = Learner._move

    def full(self: Learner) -> None:
        if self.device.type == "meta":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        real(self)

    monkeypatch.setattr(Learner, "_move", full)
    learner.step(FixedCrops(), 0.5)
    assert learner.device.type == "cpu"
    assert learner.steps == 1
    assert [note.text.partition(";")[0] for note in learner.take_notes()] == [
        "Memory of the GPU ran out with 4 crops at once",
        "Memory of the GPU ran out with 2 crops at once",
        "Memory of the GPU ran out",
    ]


def test_a_single_crop_that_does_not_fit_is_told_in_a_sentence(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "masked_loss", failing(99, module.masked_loss))
    learner = Learner(model, SETTINGS)
    with pytest.raises(DeviceError, match=r"a single crop of 32 px\. Choose smaller crops"):
        learner.step(FixedCrops(), 0.5)
    assert learner.steps == 0


def test_what_is_no_lack_of_memory_is_raised(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(module, "masked_loss", broken)
    with pytest.raises(RuntimeError, match="a defect"):
        Learner(model, SETTINGS).step(FixedCrops(), 0.5)


def test_the_optimiser_follows_to_another_device(model: Model) -> None:
    learner = Learner(model, SETTINGS)
    steps_taken(learner)
    seen = SimpleNamespace(type="meta")
    learner.device = torch.device(seen.type)
    learner._move()
    moments = [value for state in learner._optimizer.state.values() for value in state.values()]
    assert {value.device.type for value in moments if value.ndim} == {"meta"}
    assert next(learner._average.parameters()).device.type == "meta"


def test_half_precision_learns_nearly_the_same_and_keeps_all_digits_of_the_weights(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    half, auto = (SETTINGS.replace(precision=wanted) for wanted in ("half", "auto"))
    exact, near = steps_taken(Learner(model, SETTINGS), 5), steps_taken(Learner(model, half), 5)
    start = torch.cat([value.flatten() for value in model.net.state_dict().values()])
    assert near.dtype == torch.float32
    assert not torch.equal(near, exact)
    assert (near - exact).norm() < 0.3 * (exact - start).norm()
    for is_fast, expected in ((True, near), (False, exact)):
        monkeypatch.setattr(module, "is_fast_in_half", lambda device, answer=is_fast: answer)
        assert torch.equal(steps_taken(Learner(model, auto), 5), expected)
