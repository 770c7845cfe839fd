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
    dimmed=0,
    zoom=1,
    rotation_degrees=0,
)


class FixedCrops:
    """Crops that are the same each time."""

    crop_px = window_px = CROP_PX
    margin_px = 0

    def draw(self, count: int, random: np.random.Generator, part: slice) -> tuple[Any, ...]:
        images = np.random.default_rng(3).random((count, 1, CROP_PX, CROP_PX), np.float32)[part]
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
    yield "augmenting", module, "draw_changes"
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
    settings = SETTINGS.replace(loss="cross-entropy")  # the Dice part sees each part alone
    learner, plain = Learner(model, settings), Learner(model, settings)
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
    assert (got - expected).abs().max() < 0.01 * settings.learning_rate * 3
    assert not torch.equal(got, expected)  # the sums of parts are rounded otherwise


def test_added_up_gradients_are_those_of_the_whole_batch(model: Model) -> None:
    settings = SETTINGS.replace(loss="cross-entropy")
    whole, parts = Learner(model, settings), Learner(model, settings)
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


class RandomCrops(FixedCrops):
    """Crops that are others each time."""

    def draw(self, count: int, random: np.random.Generator, part: slice) -> tuple[Any, ...]:
        images = random.random((count, 1, CROP_PX, CROP_PX), np.float32)[part]
        return images, (images > 0.5).astype(np.float32), np.ones_like(images)


def all_of(learner: Learner) -> dict[str, Any]:
    tensors, values = learner.state()
    return {**tensors, **{key: value for key, value in values.items() if key != "at_once"}}


@pytest.mark.parametrize("stage", range(7))
def test_a_step_that_fails_changes_nothing(stage: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = UNet(Architecture(widths=(4, 8), norm="batch")).eval()
    model = Model(net, Card(name="norm", architecture=net.architecture))
    settings = SETTINGS.replace(elastic_px=3, grey_values=0.2, batch_norm="adapt")
    learner = Learner(model, settings)
    learner.step(RandomCrops(), 0.5)
    before = all_of(learner)
    name, owner, function = list(stages(learner))[stage]

    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("a defect")

    owner = RandomCrops if owner is FixedCrops else owner
    with monkeypatch.context() as patch:
        patch.setattr(owner, function, broken)
        with pytest.raises(RuntimeError, match="a defect"):
            learner.step(RandomCrops(), 0.5)
    after = all_of(learner)
    for key, value in before.items():
        same = torch.equal(after[key], value) if isinstance(value, torch.Tensor) else None
        assert after[key] == value if same is None else same, (name, key)
    learner.step(RandomCrops(), 0.5)
    assert all_of(learner)["random"] != before["random"]


def test_a_run_that_ran_out_of_memory_goes_on_to_what_it_would_have_come_to(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SETTINGS.replace(elastic_px=3, grey_values=0.2)
    unbroken = Learner(model, settings)
    monkeypatch.setattr(module, "masked_loss", failing(1, module.masked_loss))
    unbroken.step(RandomCrops(), 0.5)
    kept = unbroken.state()
    resumed = Learner(model, settings)
    resumed.restore(*kept)
    for learner in (unbroken, resumed):
        learner.step(RandomCrops(), 0.5)
    assert kept[1]["at_once"] == 2
    tensors = [learner.state()[0].values() for learner in (unbroken, resumed)]
    assert all(torch.equal(one, other) for one, other in zip(*tensors, strict=True))


def test_the_optimiser_follows_to_another_device(model: Model) -> None:
    learner = Learner(model, SETTINGS)
    steps_taken(learner)
    seen = SimpleNamespace(type="meta")
    learner.device = torch.device(seen.type)
    learner._move()
    moments = [value for state in learner._optimizer.state.values() for value in state.values()]
    assert {value.device.type for value in moments} == {"meta"}
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


def test_float16_scales_the_loss_and_leaves_out_steps_it_was_scaled_too_much_for(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "half_dtype", lambda device: torch.float16)
    half = SETTINGS.replace(precision="half")
    learner = Learner(model, half)
    assert learner._scaler.get_scale() > 1000
    exact, near = steps_taken(Learner(model, SETTINGS), 5), steps_taken(learner, 5)
    start = torch.cat([value.flatten() for value in model.net.state_dict().values()])
    assert (near - exact).norm() < 0.3 * (exact - start).norm()

    learner._scaler.update(2.0**120)  # its gradients are no numbers in float16
    before = all_of(learner)
    learner.step(FixedCrops(), 0.5)
    assert learner.is_healthy
    assert (learner.steps, learner._scaler.get_scale()) == (5, 2.0**119)
    assert all(torch.equal(all_of(learner)[k], v) for k, v in before.items() if k.startswith("net"))

    resumed = Learner(model, half)
    resumed.restore(*learner.state())
    assert resumed._scaler.get_scale() == 2.0**119
    while learner.steps == 5:
        learner.step(FixedCrops(), 0.5)
    assert learner.is_healthy


def test_dropout_drops_if_asked_to_and_the_same_with_the_same_seed() -> None:
    torch.manual_seed(0)
    net = UNet(Architecture(widths=(4, 8), dropout=0.5)).eval()
    model = Model(net, Card(name="dropout", architecture=net.architecture))
    without, one, same, other = (
        steps_taken(Learner(model, SETTINGS.replace(dropout=dropout, seed=seed)), 2)
        for dropout, seed in ((False, 0), (True, 0), (True, 0), (True, 1))
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert not torch.equal(one, without)


def test_sgd_with_momentum_is_the_published_step(model: Model) -> None:
    method = {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.01, "l1": 0.001}
    settings = SETTINGS.replace(loss="cross-entropy", learning_rate=0.01, **method)
    learner = Learner(model, settings)
    crops = FixedCrops()
    weights = [p.detach().clone() for p in learner._net.parameters()]
    pace = [torch.zeros_like(weight) for weight in weights]
    for _ in range(3):
        learner.step(crops, 0.05)  # after the warm-up: the full rate
        for number, parameter in enumerate(learner._net.parameters()):
            # the gradient holds the pull of L1, clipped together with it
            slope = parameter.grad + 0.01 * weights[number] * (parameter.ndim > 1)
            pace[number] = 0.9 * pace[number] + slope
            weights[number] -= 0.01 * pace[number]
            torch.testing.assert_close(parameter.detach(), weights[number])


def test_l1_pulls_the_weights_and_not_the_biases(model: Model) -> None:
    def slopes(l1: float) -> list[torch.Tensor]:
        learner = Learner(model, SETTINGS.replace(l1=l1))
        learner._add_gradient(*learner.draw_batch(FixedCrops()))
        return [parameter.grad for parameter in learner._net.parameters()]

    pull = [one - other for one, other in zip(slopes(0.25), slopes(0.0), strict=True)]
    for parameter, slope in zip(model.net.parameters(), pull, strict=True):
        expected = 0.25 * parameter.sign() if parameter.ndim > 1 else torch.zeros(1)
        torch.testing.assert_close(slope, expected.expand_as(slope), atol=1e-6, rtol=1e-4)
