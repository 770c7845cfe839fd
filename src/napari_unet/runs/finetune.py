"""Let a model learn from corrections: gently, within a budget, judged before it is used.

The run reads from top to bottom in :func:`finetune_steps`:

1. What was vouched for becomes planes; labels that cannot be right are told
   (:mod:`napari_unet.runs.misfits`); parts are kept aside (:mod:`napari_unet.runs.held_out`).
2. The model as it is, is judged on them, the way it is used.
3. A copy learns from crops of the rest, two in five of them fainter than they are, for the sake of
   faint objects: AdamW, a warm-up and then a cosine over the budget, in time or in steps. Batch
   norm goes over to the new images first, as far as they show that it helps. Dropout is off. Beside
   it runs an average of its weights over the last steps, and that is what comes out: nothing is
   chosen on the parts kept aside, so that they can judge.
4. That is done in two rounds (:mod:`napari_unet.runs.rounds`): a check that is judged as the model
   was, on what it has not learned from; then it goes on and learns from everything. Without enough
   to judge, what is learned is mixed with what was known (:mod:`napari_unet.runs.mixing`).
5. How objects are found suits what was learned: what is too small for one is told by the labels
   (:mod:`napari_unet.runs.smallest`), the threshold and how readily objects are split are fitted
   on what the check gave (:mod:`napari_unet.runs.thresholds`).
6. The training made the model better, or not, or there is too little to tell.

Stop ends the training early; what was learned so far is judged all the same. A loss that is no
number ends it, too, with the weights from before. A job that is closed leaves nothing, and the
model that was given is never changed. With a checkpoint, a run that was stopped, interrupted or
killed goes on where it was (:mod:`napari_unet.runs.checkpoint`), to the same result.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from napari_unet.models.card import Learned
from napari_unet.models.model import Model, check_model
from napari_unet.network.devices import describe_device
from napari_unet.runs.background import Background
from napari_unet.runs.checkpoint import Checkpoint, identify
from napari_unet.runs.evaluate import look_steps, score
from napari_unet.runs.held_out import hold_out, objects_in
from napari_unet.runs.judged import truth_in
from napari_unet.runs.misfits import find_misfits
from napari_unet.runs.progress import Job, JudgedBefore, Note, StepDone, as_question, drive
from napari_unet.runs.report import versions
from napari_unet.runs.rounds import Rounds
from napari_unet.runs.sample_checks import check_samples, remarks_on
from napari_unet.runs.samples import prepare_plane
from napari_unet.runs.schedule import Budget
from napari_unet.runs.smallest import fit_smallest
from napari_unet.runs.team import Team
from napari_unet.runs.thresholds import score_fitted
from napari_unet.runs.verdict import LOOK, OldAtBest, compare
from napari_unet.runs.zoom import choose_zoom
from napari_unet.settings import FinetuneSettings, SegmentSettings, given_or_default

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from napari_unet.models.card import Card
    from napari_unet.network.build import Network
    from napari_unet.runs.evaluate import Scores
    from napari_unet.runs.held_out import Split
    from napari_unet.runs.misfits import Misfit
    from napari_unet.runs.progress import Cancel, Progress
    from napari_unet.runs.samples import Plane, Sample
    from napari_unet.runs.verdict import Outcome

FEW_STEPS = 60  # of all rounds: a budget in seconds that bought fewer says so


@dataclass(frozen=True, eq=False)
class FinetuneResult:
    """What came of a fine-tuning run."""

    model: Model
    """The new model, in evaluation mode on the CPU; whether to use it is told by the outcome."""
    before: Scores | None
    """Of the old model on the held-out labels; None if there were too few."""
    after: Scores | None
    """Of what the check has learned, on the same labels."""
    outcome: Outcome
    """"better", "not better" or "cannot judge"."""
    verdict: str
    """The outcome in a sentence, with what to do."""
    report: dict[str, Any]
    """Settings, samples, scores, versions and times, as plain values for a JSON file."""

    @property
    def accepted(self) -> bool:
        """Whether the new model takes the place of the old one unasked."""
        return self.outcome == "better"


def finetune(
    model: Model,
    samples: Sequence[Sample],
    settings: FinetuneSettings | None = None,
    segment: SegmentSettings | None = None,
    *,
    progress: Callable[[Progress], None] | None = None,
    cancel: Cancel | None = None,
    stop: Cancel | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
) -> FinetuneResult:
    """Let a model learn from labels somebody vouched for.

    Parameters
    ----------
    model : Model
        Where to start from; stays as it is.
    samples : sequence of Sample
        Planes with labels, and where they are vouched for. All corrections so far belong here,
        also those the model has learned from before.
    settings : FinetuneSettings, optional
        Budget and method.
    segment : SegmentSettings, optional
        As the planes are segmented: channels, invert, and how objects are found. If not given,
        objects are found as the card suggests.
    progress : callable, optional
        Called with each :class:`napari_unet.runs.progress.Progress`.
    cancel : threading.Event or callable returning bool, optional
        Asked several times a second; ends the run with nothing.
    stop : threading.Event or callable returning bool, optional
        Asked several times a second; ends the training and judges what was learned so far.
    checkpoint : str or path, optional
        File in which the state of the training is kept every few seconds, and when it is stopped
        or ended by an error; a training that comes to its end removes it. That of another
        training is written over, unless ``resume`` is given; no other file is.
    resume : bool
        Go on with the training whose state is in ``checkpoint``; if there is none, begin.

    Returns
    -------
    FinetuneResult
        The new model, before and after, and a verdict.

    Raises
    ------
    LabelsError
        If the labels cannot teach anything, see
        :func:`napari_unet.runs.sample_checks.check_samples`.
    ImageError
        If the channels of an image do not fit the network.
    ModelError
        If the model looks at volumes.
    SettingError
        If more levels are to be frozen than the network has, or several devices are to learn
        together and cannot; if ``stop``, ``progress`` or ``cancel`` cannot be called.
    DeviceError
        If memory ran out, or a process that learned together with this one has ended.
    FileError
        If the checkpoint belongs to another training, is damaged, or cannot be written.
    Cancelled
        If ``cancel`` became true.
    """
    job = finetune_steps(
        model, samples, settings, segment, stop, checkpoint=checkpoint, resume=resume
    )
    return drive(job, progress, cancel)


def finetune_steps(
    model: Model,
    samples: Sequence[Sample],
    settings: FinetuneSettings | None = None,
    segment: SegmentSettings | None = None,
    stop: Cancel | None = None,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
) -> Job[FinetuneResult]:
    """Let a model learn, as a job; see :func:`finetune`.

    Yields
    ------
    Progress
        JudgedBefore once, if something is kept aside; StepDone a few times a second, with the
        held-out score about ten times in a run; Notes
        about what the person should know; a plain Progress wherever else the job can be
        cancelled.
    """
    check_model(model)
    settings = given_or_default(settings, FinetuneSettings())
    segment = model.card.complete(segment)
    segment = segment.replace(device=settings.device)
    budget = Budget(settings)
    check_samples(samples, model.card, segment.channels)
    is_to_stop = as_question("stop", stop)
    # How the person wants objects to be found is not touched.
    own, size = segment.instances, segment.object_size_px
    fits = model.card.labels == "instance" and own == model.card.instances_at(size)

    with Background() as background, Team(settings) as team:
        for remark in (yield from background.run(remarks_on, samples, model.card)):
            yield Note(remark)

        # 0. What an earlier run has left
        kept = None
        if checkpoint is not None:
            run = yield from background.run(identify, model, samples, settings, segment)
            kept = Checkpoint(checkpoint, run)
            if not resume:
                kept.check_place()
            elif not (yield from background.run(kept.read)):
                yield Note(f"There is no {kept.path} to go on with: the training begins.")

        # 1. From samples to crops
        planes = yield from _prepare_all(background, model, samples, settings, segment)
        misfits: list[Misfit] = []
        if model.card.labels == "instance":
            zoom = choose_zoom(model.card, segment)
            misfits = yield from background.run(find_misfits, planes, zoom)
        split = yield from background.run(
            hold_out,
            planes,
            settings.held_out,
            settings.crop_px,
            _crop_that_fits(model.net),
            margin_px=model.net.margin,
            semantic=model.card.labels == "semantic",
        )
        if not split.is_judged:
            yield Note(
                "Too few labels to judge the result: all of them are learned from, and the fewer "
                "objects they hold the nearer the model stays to what it was."
            )

        crop_px = _crop_that_fits(model.net)(settings.crop_px)
        rounds = yield from background.run(Rounds, model, settings, planes, split, crop_px)

        looked_at, suited = segment, model.card.instances
        if fits:
            right = () if misfits else planes  # of wrong labels the sizes say nothing
            least = fit_smallest(right, model.card.instances.min_size)
            suited = model.card.instances.replace(min_size=least)
            looked_at = segment.replace(
                instances=model.card.replace(instances=suited).instances_at(size)
            )
            if looked_at != segment:
                yield Note(
                    f"The new model drops labels below {looked_at.instances.min_size} px instead "
                    f"of {own.min_size}: the checked objects are all larger."
                )

        # 2. Before
        curve = [] if kept is None else (yield from background.run(kept.restore, rounds, budget))
        before = after = None
        if split.is_judged:
            if not rounds.before:
                rounds.before = yield from look_steps(model, planes, split.masks, segment)
            before = yield from background.run(score, model.card, rounds.before, segment)
            yield JudgedBefore(before.main)

        # 3. Learn
        if rounds.steps:
            yield Note(f"An earlier run stopped here: going on after step {rounds.steps}.")
        for misfit in misfits:  # last of all that is told before the first step: it stays in sight
            yield Note(f"{misfit.told} {LOOK}")
        learning = _learn(background, team, rounds, budget, planes, looked_at, curve, kept)
        try:
            while not is_to_stop():
                event = next(learning, None)
                if event is None:
                    break
                yield event
        except BaseException:  # also Ctrl+C, and a job that is closed
            if kept is not None and rounds.learner.is_healthy:
                kept.save(rounds, budget, curve)
            raise
        yield from background.run(rounds.learner.settle)
        was_stopped = rounds.is_check or not budget.is_spent(rounds.steps)
        goes_on = was_stopped and rounds.learner.is_healthy
        if kept is not None and goes_on:
            yield from background.run(kept.save, rounds, budget, curve)

        # 4. After
        fitted = looked_at.instances
        if split.is_judged:
            found = rounds.found
            if rounds.is_check:  # stopped in it
                found = yield from look_steps(rounds.learner.model, planes, split.masks, segment)
            if fits:
                fitting = background.run(score_fitted, model.card, found, looked_at)
                after, fitted = yield from fitting
            else:
                after = yield from background.run(score, model.card, found, segment)
        judged = [
            misfit.told for misfit in misfits if misfit.is_in(split.masks) or not split.is_judged
        ]
        is_one_region = split.kind == "block"
        verdict = compare(before, after, judged, is_one_region=is_one_region)
        if fits and verdict.outcome == "better":
            fitting = background.run(score_fitted, model.card, rounds.before, looked_at)
            old_at_best = OldAtBest(*(yield from fitting))
            verdict = compare(before, after, judged, old_at_best, is_one_region=is_one_region)
    if budget.is_in_seconds and not was_stopped and rounds.steps < FEW_STEPS:
        few = (
            f"The time was enough for {rounds.steps} steps on this computer, which is little to "
            "learn in: give it more seconds, or close other programs."
        )
        verdict = replace(verdict, text=f"{verdict.text} {few}")
    if kept is not None and not goes_on:
        kept.remove()
    taught = _describe_samples(planes)
    learned = Learned(
        parent=model.card.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        planes=len(planes),
        **{name: sum(plane[name] for plane in taught) for name in taught[0]},
        outcome=verdict.outcome,
        before={} if before is None else before.as_dict(),
        after={} if after is None else after.as_dict(),
        settings=settings.model_dump(mode="json"),
    )
    card = _new_card(model, after, learned)
    if fits:  # on the card, the smallest object is told at the scale the network sees
        card = card.replace(instances=fitted.replace(min_size=suited.min_size))
    new_model = Model(rounds.result(), card)
    report = {
        "outcome": verdict.outcome,
        "verdict": verdict.text,
        "evidence": verdict.evidence,
        "before": None if before is None else before.as_dict(),
        "after": None if after is None else after.as_dict(),
        "model": {
            "name": card.name,
            "parent": model.card.name,
            "history": [step.model_dump(mode="json") for step in card.history],
        },
        "settings": learned.settings,
        "segment": segment.model_dump(mode="json"),
        "instances": {
            "before": own.model_dump(mode="json"),
            "after": fitted.model_dump(mode="json"),
        },
        "samples": [
            {"name": plane.name, **what} for plane, what in zip(planes, taught, strict=True)
        ],
        "misfits": [asdict(misfit) for misfit in misfits],
        "held_out": _describe_split(planes, split),
        "training": {
            "steps": rounds.steps,
            "seconds": round(budget.elapsed(), 2),
            "stopped": was_stopped,
            "new_share": round(rounds.new_share, 4),
            "device": describe_device(rounds.learner.device),
            "curve": [
                {"step": p.step, "loss": round(p.loss, 5), "held_out": p.held_out} for p in curve
            ],
        },
        "versions": versions(),
        "created": learned.created,
    }
    return FinetuneResult(new_model, before, after, verdict.outcome, verdict.text, report)


def _crop_that_fits(net: Network) -> Callable[[int], int]:
    """Return what gives the next side of a crop's part that counts the network can take."""
    return lambda wanted: net.valid_input(wanted + 2 * net.margin) - 2 * net.margin


def _learn(
    background: Background,
    team: Team,
    rounds: Rounds,
    budget: Budget,
    planes: Sequence[Plane],
    segment: SegmentSettings,
    curve: list[StepDone],
    kept: Checkpoint | None,
) -> Job[None]:
    """Go through the rounds, to the end of the budget or until the loss is no number.

    ``curve`` takes what is told of the steps.
    """
    while True:
        learner = rounds.learner
        used = rounds.used(budget.used(rounds.steps))
        if used >= 1 and not rounds.is_check:
            return
        if used >= 1:
            parts = yield from look_steps(learner.model, planes, rounds.held_out, segment)
            yield from background.run(rounds.close_check, parts)
            continue
        if kept is not None and kept.is_due:
            yield from background.run(kept.save, rounds, budget, curve)
        yield from background.run(team.step, learner, rounds.crops, used)
        yield from learner.take_notes()
        if not learner.is_healthy:
            yield Note("The loss is no longer a number; the weights from before are kept.")
            return
        used = budget.used(rounds.steps)
        held_out = None
        if rounds.is_check and budget.is_point_due(used):
            parts = yield from look_steps(learner.model, planes, rounds.held_out, segment)
            scores = yield from background.run(score, learner.model.card, parts, segment)
            held_out = scores.main
            budget.point_made(used)
        if held_out is not None or learner.is_report_due:
            left = budget.left(rounds.steps)
            done = StepDone(rounds.steps, used, left, learner.mean_loss(), held_out)
            curve.append(done)
            yield done


def _prepare_all(
    background: Background,
    model: Model,
    samples: Sequence[Sample],
    settings: FinetuneSettings,
    segment: SegmentSettings,
) -> Job[list[Plane]]:
    """Prepare the samples that have something vouched for."""
    net = model.net
    crop_px = _crop_that_fits(net)(settings.crop_px)
    reach_px = max(crop_px + net.margin, net.halo)
    planes = []
    for number, sample in enumerate(samples, start=1):
        if len(samples) > 1 and not sample.name:
            sample = replace(sample, name=f"sample {number} of {len(samples)}")
        plane = yield from background.run(
            prepare_plane, sample, model.card, segment, reach_px, net.stride
        )
        planes += [plane] if plane is not None else []
    return planes


def _new_card(model: Model, after: Scores | None, learned: Learned) -> Card:
    """Card of the new model: whose child it is, and how well it does on held-out labels."""
    old = model.card
    suffix = " fine-tuned"
    scores = {} if after is None else {f"held-out {k}": v for k, v in after.as_dict().items()}
    return old.replace(
        name=old.name if old.name.endswith(suffix) else old.name + suffix,
        parent=old.name,
        history=(*old.history, learned),
        training_data=(
            old.training_data if old.history else f"{old.training_data}; then corrections"
        ),
        scores=scores,
        created=learned.created[:10],
    )


def _describe_samples(planes: Sequence[Plane]) -> list[dict[str, int]]:
    """Say what each plane has taught."""
    return [
        {
            "vouched_px": int((plane.original or plane).vouched.sum()),
            "changed_px": int((plane.original or plane).changed.sum()),
            "objects": objects_in(plane, plane.vouched),
        }
        for plane in planes
    ]


def _describe_split(planes: Sequence[Plane], split: Split) -> dict[str, Any]:
    """Say what was kept aside."""
    return {
        "kind": split.kind,
        "crop_px": split.crop_px,
        "held_out_px": [
            int(truth_in(plane, [slice(0, side) for side in mask.shape], mask)[1].sum())
            for plane, mask in zip(planes, split.masks, strict=False)
        ],
        "objects": sum(objects_in(p, m) for p, m in zip(planes, split.masks, strict=False)),
    }
