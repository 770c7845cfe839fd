"""Let a model learn from corrections: gently, within a budget, judged before it is used.

The run reads from top to bottom in :func:`finetune_steps`:

1. What was vouched for becomes planes; a part is kept aside (:mod:`napari_unet.runs.held_out`).
2. The model as it is, is judged on that part, the way it is used.
3. A copy learns from crops of the rest: AdamW, a warm-up and then a cosine over the budget, in
   time or in steps. Batch norm follows the new images: where they look different from what the
   model was trained on, that alone is half of the way. Dropout is off.
4. Beside it runs an average of its weights over the last steps. The average is what comes out;
   nothing is chosen on the held-out part, so that the part can judge. It only draws the curve.
5. The average is judged as the model was. It is better, or not, or there is too little to tell.

Stop ends step 3 early; what was learned so far is judged all the same. A loss that is no number
ends it, too, with the weights from before. A job that is closed leaves nothing, and the model
that was given is never changed. With a checkpoint, a run that was stopped, interrupted or killed
goes on where it was (:mod:`napari_unet.runs.checkpoint`), to the same result.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from napari_unet.errors import LabelsError
from napari_unet.models.card import Learned
from napari_unet.models.model import Model, check_model
from napari_unet.network.devices import describe_device
from napari_unet.runs.background import Background
from napari_unet.runs.checkpoint import Checkpoint, identify
from napari_unet.runs.crops import Crops
from napari_unet.runs.evaluate import judge_steps
from napari_unet.runs.held_out import hold_out, objects_in
from napari_unet.runs.learner import Learner
from napari_unet.runs.progress import Job, Note, StepDone, drive
from napari_unet.runs.report import versions
from napari_unet.runs.samples import check_samples, prepare_plane
from napari_unet.runs.schedule import Budget
from napari_unet.runs.verdict import compare
from napari_unet.settings import FinetuneSettings, SegmentSettings, given_or_default

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from napari_unet.models.card import Card
    from napari_unet.network.build import Network
    from napari_unet.runs.evaluate import Scores
    from napari_unet.runs.held_out import Split
    from napari_unet.runs.progress import Cancel, Progress
    from napari_unet.runs.samples import Plane, Sample
    from napari_unet.runs.verdict import Outcome


@dataclass(frozen=True, eq=False)
class FinetuneResult:
    """What came of a fine-tuning run."""

    model: Model
    """The new model, in evaluation mode on the CPU; whether to use it is told by the outcome."""
    before: Scores | None
    """Of the old model on the held-out labels; None if there were too few."""
    after: Scores | None
    """Of the new model on the same labels."""
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
    stop: Callable[[], bool] | None = None,
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
    stop : callable returning bool, optional
        Asked several times a second; ends the training and judges what was learned so far.
    checkpoint : str or path, optional
        File in which the state of the training is kept every few seconds, and when it is stopped
        or ended by an error; a training that comes to its end removes it.
    resume : bool
        Go on with the training whose state is in ``checkpoint``; if there is none, begin.

    Returns
    -------
    FinetuneResult
        The new model, before and after, and a verdict.

    Raises
    ------
    LabelsError
        If the labels cannot teach anything, see :func:`napari_unet.runs.samples.check_samples`.
    ImageError
        If the channels of an image do not fit the network.
    ModelError
        If the model looks at volumes.
    SettingError
        If more levels are to be frozen than the network has.
    DeviceError
        If memory ran out.
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
    stop: Callable[[], bool] | None = None,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
) -> Job[FinetuneResult]:
    """Let a model learn, as a job; see :func:`finetune`.

    Yields
    ------
    Progress
        StepDone a few times a second, with the held-out score about ten times in a run; Notes
        about what the person should know; a plain Progress wherever else the job can be
        cancelled.
    """
    check_model(model)
    settings = given_or_default(settings, FinetuneSettings())
    segment = given_or_default(segment, SegmentSettings(instances=model.card.instances))
    segment = segment.replace(device=settings.device)
    budget = Budget(settings)
    check_samples(samples, model.card)
    learner = Learner(model, settings)

    with Background() as background:
        # 0. What an earlier run has left
        kept = None
        if checkpoint is not None:
            run = yield from background.run(identify, model, samples, settings, segment)
            kept = Checkpoint(checkpoint, run)
            if resume and not (yield from background.run(kept.read)):
                yield Note(f"There is no {kept.path} to go on with: the training begins.")

        # 1. From samples to crops
        planes = yield from _prepare_all(background, model, samples, settings, segment)
        split = yield from background.run(
            hold_out,
            planes,
            settings.held_out,
            settings.crop_px,
            _crop_that_fits(model.net),
            margin_px=model.net.margin,
            semantic=model.card.labels == "semantic",
        )
        crops = yield from background.run(
            Crops,
            planes,
            split.masks,
            model.card,
            split.crop_px,
            model.net.margin,
            settings.correction_weight,
        )
        if not split.is_judged:
            yield Note("Too few labels to judge the result: all of them are learned from.")

        # 2. Before
        before = None
        if split.is_judged:
            started = time.monotonic()
            before = yield from judge_steps(model, planes, split.masks, segment)
            budget.keep_for_judging(time.monotonic() - started)

        # 3. Learn
        curve = [] if kept is None else kept.restore(learner, budget)
        if learner.steps:
            yield Note(f"An earlier run stopped here: going on after step {learner.steps}.")
        try:
            while not budget.is_spent(learner.steps) and not (stop and stop()):
                if kept is not None and kept.is_due:
                    yield from background.run(kept.save, learner, budget, curve)
                used = budget.used(learner.steps)
                yield from background.run(learner.step, crops, used)
                yield from learner.take_notes()
                if not learner.is_healthy:
                    yield Note("The loss is no longer a number; the weights from before are kept.")
                    break
                used = budget.used(learner.steps)
                held_out = None
                if split.is_judged and budget.is_point_due(used):
                    scores = yield from judge_steps(learner.model, planes, split.masks, segment)
                    held_out = scores.main
                    budget.point_made(used)
                if held_out is not None or learner.is_report_due:
                    left = budget.left(learner.steps)
                    done = StepDone(learner.steps, used, left, learner.mean_loss(), held_out)
                    curve.append(done)
                    yield done
        except BaseException:  # also Ctrl+C, and a job that is closed
            if kept is not None and learner.is_healthy:
                kept.save(learner, budget, curve)
            raise

        was_stopped = not budget.is_spent(learner.steps)
        if kept is not None and was_stopped and learner.is_healthy:
            yield from background.run(kept.save, learner, budget, curve)

        # 4. After
        after = None
        if split.is_judged:
            after = yield from judge_steps(learner.model, planes, split.masks, segment)
    if kept is not None and not (was_stopped and learner.is_healthy):
        kept.remove()
    verdict = compare(before, after)
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
    new = Model(learner.result(), _new_card(model, after, learned))
    report = {
        "outcome": verdict.outcome,
        "verdict": verdict.text,
        "evidence": verdict.evidence,
        "before": None if before is None else before.as_dict(),
        "after": None if after is None else after.as_dict(),
        "model": {
            "name": new.card.name,
            "parent": model.card.name,
            "history": [step.model_dump(mode="json") for step in new.card.history],
        },
        "settings": learned.settings,
        "segment": segment.model_dump(mode="json"),
        "samples": taught,
        "held_out": _describe_split(planes, split),
        "training": {
            "steps": learner.steps,
            "seconds": round(budget.elapsed(), 2),
            "stopped": was_stopped,
            "device": describe_device(learner.device),
            "curve": [
                {"step": p.step, "loss": round(p.loss, 5), "held_out": p.held_out} for p in curve
            ],
        },
        "versions": versions(),
        "created": learned.created,
    }
    return FinetuneResult(new, before, after, verdict.outcome, verdict.text, report)


def _crop_that_fits(net: Network) -> Callable[[int], int]:
    """Return what gives the next side of a crop's part that counts the network can take."""
    return lambda wanted: net.valid_input(wanted + 2 * net.margin) - 2 * net.margin


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
    for sample in samples:
        plane = yield from background.run(
            prepare_plane, sample, model.card, segment, reach_px, net.stride
        )
        planes += [plane] if plane is not None else []
    if not planes:
        raise LabelsError(
            "Nothing is left of the checked areas at the size the network sees the image. Mark a "
            "larger region, or look at the object size."
        )
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
            "vouched_px": int(plane.vouched.sum()),
            "changed_px": int(plane.changed.sum()),
            "objects": objects_in(plane, plane.vouched),
        }
        for plane in planes
    ]


def _describe_split(planes: Sequence[Plane], split: Split) -> dict[str, Any]:
    """Say what was kept aside."""
    return {
        "kind": split.kind,
        "crop_px": split.crop_px,
        "held_out_px": [int(mask.sum()) for mask in split.masks],
        "objects": sum(objects_in(p, m) for p, m in zip(planes, split.masks, strict=True)),
    }
