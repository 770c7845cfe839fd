"""Fine-tuning learns from what was vouched for, from nothing else, and never harms the model."""

from __future__ import annotations

import itertools
import time
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from napari_unet.errors import Cancelled, LabelsError, SettingError
from napari_unet.models.card import Card
from napari_unet.models.model import Model, load_model, save_model
from napari_unet.network.unet import UNet
from napari_unet.runs import finetune as module
from napari_unet.runs import learner, schedule
from napari_unet.runs.crops import Sample
from napari_unet.runs.finetune import FEW_STEPS, finetune, finetune_steps
from napari_unet.runs.progress import JudgedBefore, Note, StepDone
from napari_unet.runs.report import read_report, write_report
from napari_unet.runs.rounds import Rounds
from napari_unet.runs.schedule import WARM_UP, learning_rate
from napari_unet.runs.thresholds import AS_GOOD
from napari_unet.runs.verdict import Verdict
from napari_unet.settings import (
    Architecture,
    FinetuneSettings,
    InstanceSettings,
    SegmentSettings,
)

FAST = FinetuneSettings(seconds=None, steps=3, batch=2, crop_px=32, elastic_px=3, device="cpu")


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny networks are fastest on one thread, and steps are exactly repeatable."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def model(tiny_unet) -> Model:
    settings = InstanceSettings(min_size=10)
    card = Card(name="tiny", architecture=tiny_unet.architecture, instances=settings)
    return Model(tiny_unet, card)


def field_of_discs(seed=0, size=(128, 256), dark=False):
    """Discs of random size and place on a noisy background: image (1, Y, X) and labels."""
    random = np.random.default_rng(seed)
    y, x = np.indices(size)
    labels = np.zeros(size, np.int32)
    for number in range(1, size[0] * size[1] // 500):
        centre, radius = random.uniform(0, size), random.uniform(5, 9)
        distance = np.hypot(y - centre[0], x - centre[1])
        if not labels[distance <= radius + 2].any():
            labels[distance <= radius] = number
    image = 100 + (-40 if dark else 40) * (labels > 0) + 8 * random.standard_normal(size)
    return image[np.newaxis].astype(np.float32), labels


def box_sample(seed=0, changed=None, **options) -> Sample:
    """Vouch for a box of 112 x 224 pixels; outside of it no label is right."""
    image, labels = field_of_discs(seed, **options)
    mask = np.zeros(labels.shape, bool)
    mask[8:120, 16:240] = True
    return Sample(image, np.where(mask, labels, 0), mask, changed)


def weights_of(model: Model) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in model.net.state_dict().values()])


# ------------------------------------------------------------------------------------- learning


@pytest.fixture(scope="module")
def bright_model() -> Model:
    """A small network that has learned bright discs, and only those."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = UNet(Architecture(widths=(8, 16, 32), norm="batch")).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for step in range(80):
        image, labels = field_of_discs(step, (96, 96))
        scaled = (image - image.min()) / np.ptp(image)
        target = torch.from_numpy((labels > 0).astype(np.float32))[None, None]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            net(torch.from_numpy(scaled)[None]), target
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    card = Card(
        name="bright", architecture=net.architecture, instances=InstanceSettings(min_size=20)
    )
    return Model(net.eval(), card)


@pytest.mark.slow
def test_a_model_of_bright_objects_learns_dark_ones_from_one_box(bright_model):
    settings = FinetuneSettings(
        seconds=None, steps=80, learning_rate=5e-3, batch=4, elastic_px=3, device="cpu"
    )
    reports = []
    sample = box_sample(3, size=(160, 320), dark=True)
    result = finetune(bright_model, [sample], settings, progress=reports.append)
    assert result.before.ap50 < 0.3
    assert result.after.ap50 > result.before.ap50 + 0.3
    assert result.outcome == "better"
    assert result.accepted
    curve = [report.held_out for report in reports if isinstance(report, StepDone)]
    assert sum(score is not None for score in curve) >= 4
    losses = [report.loss for report in reports if isinstance(report, StepDone)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("outcome", ["better", "not better"])
def test_a_better_model_is_held_against_the_old_one_at_its_best(model, outcome, monkeypatch):
    asked = []

    def ask(before, after, misfits, old_at_best=None, **_):
        asked.append((before, old_at_best))
        return Verdict(outcome, "", {})

    monkeypatch.setattr(module, "compare", ask)
    result = finetune(model, [box_sample(3, size=(160, 320))], FAST)
    (_, nothing), *more = asked
    assert nothing is None
    assert len(more) == (outcome == "better")
    for before, at_best in more:
        assert at_best.scores.main >= before.main - AS_GOOD
        assert 0 < at_best.instances.threshold < 1
        assert at_best.instances.min_size == result.report["instances"]["after"]["min_size"]


def test_labels_that_were_moved_are_told_before_the_first_step_and_in_the_verdict(model):
    right = box_sample(3, size=(160, 320))
    moved = np.where(right.labelled, np.roll(right.labels, (5, 5), (0, 1)), 0)
    told = []
    result = finetune(
        model, [Sample(right.image, moved, right.labelled)], FAST, progress=told.append
    )
    (misfit,) = result.report["misfits"]
    assert "5 px up and 5 px left" in misfit["reason"]
    assert misfit["reason"] in result.verdict
    assert not result.accepted
    (at,) = (n for n, e in enumerate(told) if isinstance(e, Note) and misfit["reason"] in e.text)
    assert at < min(n for n, event in enumerate(told) if isinstance(event, StepDone))
    assert finetune(model, [right], FAST).report["misfits"] == []


def test_labels_that_cannot_be_right_are_told_again_where_nothing_can_be_judged(model):
    right = box_sample(3, size=(160, 160))
    turned = np.where(right.labelled, right.labels == 0, 0).astype(np.int32)
    result = finetune(model, [Sample(right.image, turned, right.labelled)], FAST)
    (misfit,) = result.report["misfits"]
    assert result.before is None
    assert result.outcome == "cannot judge"
    assert misfit["reason"] in result.verdict
    sizes = result.report["instances"]
    assert sizes["after"]["min_size"] == sizes["before"]["min_size"], "wrong labels tell no size"


@pytest.mark.slow
def test_a_model_that_is_right_already_is_not_made_worse(bright_model):
    settings = FAST.replace(steps=30, crop_px=64)
    result = finetune(bright_model, [box_sample(5)], settings)
    assert result.before.ap50 > 0.9
    assert result.after.ap50 > result.before.ap50 - 0.1
    assert result.outcome in ("better", "not better")
    if not result.accepted:
        assert "stays in use" in result.verdict


# ----------------------------------------------------------------------------- what has influence


def test_what_nobody_vouched_for_has_no_influence(model):
    sample = box_sample()
    labels = sample.labels.copy()
    labels[121:, :] = 4  # not beside the box: an object there may go on inside of it
    labels[:6] = 0
    elsewhere = finetune(model, [Sample(sample.image, labels, sample.labelled)], FAST)
    as_it_was = finetune(model, [sample], FAST)
    assert torch.equal(weights_of(elsewhere.model), weights_of(as_it_was.model))
    labels[40:60, 30:60] = 0
    inside = finetune(model, [Sample(sample.image, labels, sample.labelled)], FAST)
    assert not torch.equal(weights_of(inside.model), weights_of(as_it_was.model))


def test_what_is_kept_aside_has_no_influence_on_the_check_and_teaches_afterwards(
    model, monkeypatch
):
    checks = []
    real = Rounds.close_check

    def remember(self, parts):
        checks.append((self.held_out, weights_of(self.learner.model).clone()))
        real(self, parts)

    monkeypatch.setattr(Rounds, "close_check", remember)
    sample, settings = box_sample(changed=None), FAST.replace(steps=45)
    as_it_was = finetune(model, [sample], settings)
    ((held_out, weights),) = checks
    y, x = np.argwhere(held_out[0]).mean(axis=0).astype(int)  # the plane is cut out at its corner
    labels = sample.labels.copy()
    labels[y - 6 : y + 6, x - 6 : x + 6] = 0
    assert not np.array_equal(labels, sample.labels)
    checks.clear()
    other = finetune(model, [Sample(sample.image, labels, sample.labelled)], settings)
    assert np.array_equal(checks[0][0][0], held_out[0])
    assert torch.equal(checks[0][1], weights), "the check has not seen it"
    assert other.after != as_it_was.after, "but is judged on it"
    assert not torch.equal(weights_of(other.model), weights_of(as_it_was.model)), "it has taught"


def test_what_comes_out_goes_on_from_the_check(model, monkeypatch):
    ends = []
    real = Rounds.close_check

    def remember(self, parts):
        ends.append((self.learner.steps, weights_of(self.learner.model).clone()))
        real(self, parts)
        begins.append(weights_of(self.learner.model).clone())
        assert not any(mask.any() for mask in self.held_out)

    begins = []
    monkeypatch.setattr(Rounds, "close_check", remember)
    told = []
    result = finetune(model, [box_sample()], FAST.replace(steps=20), progress=told.append)
    ((steps, end),), (begin,) = ends, begins
    assert steps == 13
    assert torch.equal(begin, end)
    assert result.report["training"]["steps"] == 20
    held = result.report["held_out"]
    assert held["kind"] == "block"
    assert held["held_out_px"][0] > 0.2 * 112 * 224
    scores = result.before
    assert scores.tp + scores.fn == pytest.approx(held["objects"], abs=2)
    (at,) = (number for number, event in enumerate(told) if isinstance(event, JudgedBefore))
    assert told[at].held_out == scores.main
    assert not any(isinstance(event, StepDone) for event in told[:at])
    points = [event for event in told if isinstance(event, StepDone)]
    assert all(event.step <= steps for event in points if event.held_out is not None)


@pytest.mark.parametrize(("steps", "is_the_same"), [(20, True), (40, False)])
def test_a_few_steps_after_the_check_change_nothing(model, monkeypatch, steps, is_the_same):
    """The optimiser begins anew there: a step or two made what came out worse than the check."""
    ends = []
    real = Rounds.close_check

    def remember(self, parts):
        ends.append(weights_of(self.learner.model).clone())
        real(self, parts)

    monkeypatch.setattr(Rounds, "close_check", remember)
    result = finetune(model, [box_sample()], FAST.replace(steps=steps))
    assert torch.equal(ends[0], weights_of(result.model)) == is_the_same


@pytest.mark.parametrize("stopped_at", [1, 6, 14])
def test_stopped_in_any_round_it_gives_what_it_has_and_judges_it(model, stopped_at, monkeypatch):
    monkeypatch.setattr(learner, "REPORT_SECONDS", 0)
    steps = []

    def watch(progress):
        if isinstance(progress, StepDone):
            steps.append(progress.step)

    result = finetune(
        model,
        [box_sample()],
        FAST.replace(steps=20),
        progress=watch,
        stop=lambda: bool(steps) and steps[-1] >= stopped_at,
    )
    assert result.report["training"]["stopped"]
    assert result.after is not None
    assert not torch.equal(weights_of(result.model), weights_of(model))


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(model):
    first = finetune(model, [box_sample()], FAST)
    again = finetune(model, [box_sample()], FAST)
    other = finetune(model, [box_sample()], FAST.replace(seed=1))
    assert torch.equal(weights_of(first.model), weights_of(again.model))
    assert not torch.equal(weights_of(first.model), weights_of(other.model))


def test_frozen_levels_stay_as_they_are(model):
    result = finetune(model, [box_sample()], FAST.replace(frozen_levels=2))
    state, old = result.model.net.state_dict(), model.net.state_dict()
    same = {name for name in state if torch.equal(state[name], old[name])}
    frozen = {name for name in state if name.startswith(("down.0.", "down.1."))}
    assert frozen
    assert frozen <= same
    assert not any(name.startswith("up.") for name in same if state[name].ndim > 1)
    assert all(parameter.requires_grad for parameter in result.model.net.parameters())


# -------------------------------------------------------------------------- the model is not harmed


def test_the_given_model_is_not_changed(model):
    before, was_training = weights_of(model).clone(), model.net.training
    result = finetune(model, [box_sample()], FAST)
    assert torch.equal(weights_of(model), before)
    assert model.net.training == was_training
    assert not torch.equal(weights_of(result.model), before)
    assert result.model.card.parent == "tiny"


@pytest.mark.parametrize("frozen", [0, 2])
def test_batch_norm_follows_the_images_or_keeps_its_statistics(frozen):
    net = UNet(Architecture(widths=(4, 8, 16), norm="batch")).eval()
    model = Model(net, Card(name="bn", architecture=net.architecture))

    def changed(**settings):
        result = finetune(model, [box_sample()], FAST.replace(frozen_levels=frozen, **settings))
        assert not any(layer.training for layer in result.model.net.modules())
        old = net.state_dict()
        state = {n: v for n, v in result.model.net.state_dict().items() if "running" in n}
        assert state
        return {n for n, value in state.items() if not torch.equal(value, old[n])}

    assert changed(batch_norm="keep") == set()
    assert changed(batch_norm="fit") in (set(), changed(batch_norm="adapt"))
    followed = changed(batch_norm="adapt")
    levels = [any(name.startswith(f"down.{level}.") for name in followed) for level in range(3)]
    assert levels == [level >= frozen for level in range(3)]


def test_a_first_step_is_a_small_one():
    rates = [learning_rate(used, 1.0) for used in np.linspace(0, 1, 101)]
    assert rates[0] <= 0.01
    assert max(rates) == pytest.approx(1.0, abs=0.01)
    assert np.argmax(rates) == pytest.approx(100 * WARM_UP, abs=1)
    assert rates[-1] == pytest.approx(0, abs=1e-6)
    assert all(later < earlier for earlier, later in pairwise(rates[6:]))


def test_a_closed_job_ends_at_once_and_leaves_the_model_alone(model):
    before = weights_of(model).clone()
    job = finetune_steps(model, [box_sample()], FAST.replace(steps=10_000))
    while not isinstance(next(job), StepDone):
        pass
    started = time.monotonic()
    job.close()
    assert time.monotonic() - started < 1
    assert torch.equal(weights_of(model), before)


def test_cancel_ends_the_run_with_nothing(model):
    with pytest.raises(Cancelled):
        finetune(model, [box_sample()], FAST.replace(steps=10_000), cancel=lambda: True)


def test_stop_keeps_what_was_learned_and_judges_it(model):
    steps = []

    def watch(progress):
        if isinstance(progress, StepDone):
            steps.append(progress.step)

    settings = FAST.replace(steps=10_000)
    result = finetune(model, [box_sample()], settings, progress=watch, stop=lambda: len(steps) >= 2)
    assert result.report["training"]["stopped"]
    assert result.after is not None
    assert not torch.equal(weights_of(result.model), weights_of(model))


def test_a_loss_that_is_no_number_ends_the_training_with_the_weights_before(model, monkeypatch):
    real, calls = learner.masked_loss, []

    def broken_later(*args):
        calls.append(1)
        return real(*args) * (float("nan") if len(calls) > 2 else 1)

    monkeypatch.setattr(learner, "masked_loss", broken_later)
    notes = []
    result = finetune(model, [box_sample()], FAST.replace(steps=50), progress=notes.append)
    assert result.report["training"]["steps"] == 2
    assert torch.isfinite(weights_of(result.model)).all()
    assert any(isinstance(note, Note) and "no longer a number" in note.text for note in notes)


# ------------------------------------------------------------------------------ refusals, verdicts


def test_labels_that_teach_nothing_are_refused_before_any_training(model, monkeypatch):
    monkeypatch.setattr(module, "Rounds", None)
    image, labels = field_of_discs()
    with pytest.raises(LabelsError, match="Nothing is vouched for"):
        finetune(model, [Sample(image, labels, np.zeros(labels.shape, bool))], FAST)


def test_thin_strokes_teach_where_the_network_sees_the_image_much_smaller(model):
    image, labels = field_of_discs()
    mask = np.zeros(labels.shape, bool)
    mask[1::16, ::2] = mask[2::16, ::2] = True  # lines that fall between the pixels of the zoom
    sized = Model(model.net, model.card.replace(object_size_px=4))
    settings = SegmentSettings(object_size_px=64, instances=sized.card.instances)
    result = finetune(sized, [Sample(image, labels, mask)], FAST, settings)
    assert result.report["training"]["steps"] == FAST.steps


def test_more_frozen_levels_than_there_are_is_refused(model):
    with pytest.raises(SettingError, match="the network has 3"):
        finetune(model, [box_sample()], FAST.replace(frozen_levels=4))


def test_too_few_labels_to_judge_is_said_and_the_old_model_stays(model):
    image, labels = field_of_discs()
    mask = np.zeros(labels.shape, bool)
    mask[20:84, 20:84] = True
    notes = []
    result = finetune(model, [Sample(image, labels, mask)], FAST, progress=notes.append)
    assert result.outcome == "cannot judge"
    assert not result.accepted
    assert result.before is None
    assert result.after is None
    assert "mark one more region" in result.verdict
    assert any(isinstance(note, Note) for note in notes)


def test_a_time_budget_ends_and_leaves_time_for_every_round(model, monkeypatch):
    looks = itertools.count()  # a clock that goes on a little whenever it is looked at
    clock = SimpleNamespace(monotonic=lambda: 0.02 * next(looks))
    monkeypatch.setattr(schedule, "time", clock)
    told, rounds = [], []
    real = Rounds.close_check

    def remember(self, parts):
        rounds.append(self.learner.steps)
        real(self, parts)

    monkeypatch.setattr(Rounds, "close_check", remember)
    settings = FAST.replace(steps=None, seconds=3.0)
    result = finetune(model, [box_sample()], settings, progress=told.append)
    (check,) = rounds
    assert check > 0
    steps = result.report["training"]["steps"]
    assert 0.5 * steps < check < 0.75 * steps
    assert 3.0 <= result.report["training"]["seconds"] < 3.3
    assert not result.report["training"]["stopped"]
    left = [event.seconds_left for event in told if isinstance(event, StepDone)]
    assert left == sorted(left, reverse=True)


@pytest.mark.parametrize(
    ("budget", "is_told"), [({"seconds": 1.0, "steps": None}, True), ({}, False)]
)
def test_a_budget_in_seconds_that_bought_few_steps_says_so(model, monkeypatch, budget, is_told):
    looks = itertools.count()
    clock = SimpleNamespace(monotonic=lambda: 0.02 * next(looks))
    monkeypatch.setattr(schedule, "time", clock)
    result = finetune(model, [box_sample()], FAST.replace(**budget))
    steps = result.report["training"]["steps"]
    assert steps < FEW_STEPS
    assert (f"enough for {steps} steps on this computer" in result.verdict) == is_told
    assert result.verdict == result.report["verdict"]
    assert result.verdict


def test_the_report_says_what_was_done_and_can_be_written(model, tmp_path):
    result = finetune(model, [box_sample(changed=box_sample().labels > 9)], FAST)
    report = read_report(write_report(tmp_path / "report.json", result.report))
    assert report["settings"]["seed"] == 0
    assert report["model"]["parent"] == "tiny"
    assert report["held_out"]["kind"] == "block"
    assert report["held_out"]["objects"] >= 5
    assert report["samples"][0]["vouched_px"] == 112 * 224
    assert report["samples"][0]["changed_px"] > 0
    assert report["training"]["steps"] == 3
    assert report["before"].keys() == report["after"].keys() >= {"ap50", "missed", "iou"}
    assert report["versions"]["torch"]
    assert report["outcome"] == result.outcome
    assert report["evidence"].keys() == {"ap50", "iou"}
    assert report["evidence"]["ap50"]["places"] >= 5


def test_how_objects_are_found_follows_the_labels_unless_the_person_chose_it(model):
    told = []
    result = finetune(model, [box_sample()], FAST, progress=told.append)
    least = result.model.card.instances.min_size
    assert f"drops labels below {least} px instead of 10" in " ".join(
        event.text for event in told if isinstance(event, Note)
    )
    sizes = np.bincount(field_of_discs()[1].ravel())[1:]
    assert model.card.instances.min_size == 10
    assert 10 < least < sizes[sizes > 0].min()
    report = result.report["instances"]
    assert report["before"] == model.card.instances.model_dump(mode="json")
    assert report["after"] == result.model.card.instances.model_dump(mode="json")
    own = SegmentSettings(instances=InstanceSettings(min_size=11))
    chosen = finetune(model, [box_sample()], FAST, own)
    assert chosen.model.card.instances == model.card.instances
    assert chosen.report["instances"]["before"] == chosen.report["instances"]["after"]


def test_the_smallest_object_is_learned_at_the_scale_the_network_sees(model):
    sized = Model(model.net, model.card.replace(object_size_px=20))
    sample = box_sample()
    twice = [np.repeat(np.repeat(a, 2, -1), 2, -2) for a in (sample.image, sample.labels)]
    known = np.repeat(np.repeat(sample.labelled, 2, 0), 2, 1)
    settings = SegmentSettings(object_size_px=40, instances=sized.card.instances_at(40))
    small = finetune(sized, [sample], FAST)
    large = finetune(sized, [Sample(*twice, known)], FAST, settings)
    least = small.model.card.instances.min_size
    assert large.model.card.instances.min_size == least
    assert large.report["instances"]["before"]["min_size"] == 40
    assert large.report["instances"]["after"]["min_size"] == 4 * least


def test_the_history_of_a_model_is_on_its_card_and_in_the_report(model, tmp_path):
    first = finetune(model, [box_sample()], FAST)
    second = finetune(
        Model(first.model.net, first.model.card.replace(name="mine")),
        [box_sample(), box_sample(2)],
        FAST.replace(seed=5),
    )
    path = save_model(second.model, tmp_path / "new")
    old, new = load_model(path).card.history
    assert (old.parent, new.parent) == ("tiny", "mine")
    assert (old.planes, new.planes) == (1, 2)
    assert new.objects > old.objects > 20
    assert (old.settings["seed"], new.settings["seed"]) == (0, 5)
    assert new.outcome == second.outcome
    assert new.before["ap50"] == second.before.ap50
    assert new.after == second.after.as_dict()
    assert second.report["model"]["history"][1] == new.model_dump(mode="json")
    assert second.model.card.training_data.count("corrections") == 1
    assert model.card.history == ()


# ----------------------------------------------------------------------------------- all the kinds


@pytest.mark.parametrize(
    ("architecture", "card"),
    [
        pytest.param({"padded": False}, {}, id="without padding"),
        pytest.param({"norm": "instance"}, {}, id="instance norm"),
        pytest.param({"norm": "batch", "dropout": 0.5}, {}, id="dropout"),
        pytest.param({"classes": 2}, {"outputs": ("foreground", "distance")}, id="distance"),
        pytest.param(
            {"classes": 2},
            {"outputs": ("background", "cell"), "activation": "softmax", "labels": "semantic"},
            id="classes",
        ),
        pytest.param({}, {"outputs": ("cell",), "labels": "semantic"}, id="one class"),
    ],
)
def test_every_kind_of_model_takes_a_step(architecture, card):
    net = UNet(Architecture(widths=(4, 8, 16), **architecture)).eval()
    model = Model(net, Card(name="kind", architecture=net.architecture, **card))
    sample = box_sample()
    if model.card.labels == "semantic":
        sample = Sample(sample.image, np.minimum(sample.labels, 1), sample.labelled)
    result = finetune(model, [sample], FAST)
    assert result.report["training"]["steps"] == 3
    assert result.before is not None
    assert not torch.equal(weights_of(result.model), weights_of(model))
