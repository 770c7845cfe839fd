"""Retraining in the computing process: what comes out is kept as a version, with its report.

A training that ends in any other way than by itself, or because nobody wants it, leaves what it
needs to go on (:mod:`napari_unet.worker.unfinished`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unet.arrays.axes import plan_planes
from napari_unet.models.library import report_path
from napari_unet.models.model import Model, save_model
from napari_unet.models.versions import free_place
from napari_unet.runs.background import Background
from napari_unet.runs.finetune import finetune_steps
from napari_unet.runs.report import write_report
from napari_unet.runs.samples import Sample
from napari_unet.settings import FinetuneSettings, SegmentSettings, checked
from napari_unet.worker.unfinished import MODEL_FILE, STATE_FILE, Values, discard, write_lesson

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from napari_unet.runs.finetune import FinetuneResult
    from napari_unet.runs.progress import Job
    from napari_unet.worker.protocol import Array
    from napari_unet.worker.unfinished import Lesson


def learn(
    model: Model,
    lesson: Lesson,
    arrays: Mapping[str, Array],
    stop: Callable[[], bool],
    training: Path,
    *,
    resume: bool = False,
) -> Job[Values]:
    """Let a model learn, and keep what comes out with the models of the person, or aside.

    Parameters
    ----------
    model : Model
        Which learns; stays as it is.
    lesson : Lesson
        What is to be learned.
    arrays : mapping of str to ndarray
        Those its samples name.
    stop : callable
        Ends the training early once it returns True.
    training : Path
        Folder of the training; removed at its end, unless it was stopped or broke off.
    resume : bool
        Go on where it was.

    Yields
    ------
    Progress
        See :func:`napari_unet.runs.finetune.finetune_steps`.
    """
    state = training / STATE_FILE
    try:
        if not resume:
            with Background() as background:
                yield from background.run(_prepare, training, model, lesson, arrays)
        result = yield from _steps(model, lesson, arrays, stop, state, resume=resume)
        values = _keep(result, lesson)
    except GeneratorExit:  # nobody wants it
        discard(training)
        raise
    except BaseException:
        if not state.exists():
            discard(training)
        raise
    if not state.exists():
        discard(training)
    return values


def learn_for_now(
    model: Model,
    lesson: Lesson,
    arrays: Mapping[str, Array],
    stop: Callable[[], bool],
    folder: Path,
) -> Job[Values]:
    """Let a model learn; what comes out is saved in a folder that will go, and no version.

    Parameters
    ----------
    model : Model
        Which learns; stays as it is.
    lesson : Lesson
        What is to be learned.
    arrays : mapping of str to ndarray
        Those its samples name.
    stop : callable
        Ends the training early once it returns True.
    folder : Path
        Where the model is saved.

    Yields
    ------
    Progress
        See :func:`napari_unet.runs.finetune.finetune_steps`.
    """
    result = yield from _steps(model, lesson, arrays, stop, None, resume=False)
    new = result.model
    if lesson.name is not None:
        new = Model(new.net, new.card.replace(name=lesson.name))
    return _tell(new, result, save_model(new, folder / MODEL_FILE), result.report)


def _prepare(folder: Path, model: Model, lesson: Lesson, arrays: Mapping[str, Array]) -> None:
    """Write down all that a training needs to go on, should it be broken off."""
    save_model(model, folder / MODEL_FILE)
    write_lesson(folder, lesson, arrays)


def _steps(
    model: Model,
    lesson: Lesson,
    arrays: Mapping[str, Array],
    stop: Callable[[], bool],
    state: Path | None,
    *,
    resume: bool,
) -> Job[FinetuneResult]:
    """Run a training."""
    return (
        yield from finetune_steps(
            model,
            [_sample(arrays, described) for described in lesson.samples],
            checked(FinetuneSettings, lesson.settings),
            None if lesson.segment is None else checked(SegmentSettings, lesson.segment),
            stop=stop,
            checkpoint=state,
            resume=resume,
        )
    )


def _keep(result: FinetuneResult, lesson: Lesson) -> Values:
    """Save a new version and, beside it, the report of how it was made."""
    card = result.model.card
    place = free_place(lesson.name or card.name, is_taken=result.accepted)
    learned = card.history[-1].replace(parent_weights=lesson.weights, regions=lesson.regions)
    card = card.replace(name=place.stem, history=(*card.history[:-1], learned))
    chain = [step.model_dump(mode="json") for step in card.history]
    report = {
        **result.report,
        "model": {"name": card.name, "parent": learned.parent, "history": chain},
    }
    new = Model(result.model.net, card)
    path = save_model(new, place)
    write_report(report_path(path), report)
    return _tell(new, result, path, report)


def _tell(new: Model, result: FinetuneResult, path: Path, report: Values) -> Values:
    """Return what the window wants to know."""
    return {
        "outcome": result.outcome,
        "verdict": result.verdict,
        "before": None if result.before is None else result.before.as_dict(),
        "after": None if result.after is None else result.after.as_dict(),
        "model": path,
        "card": new.card,
        "report": report,
    }


def _sample(arrays: Mapping[str, Array], described: Values) -> Sample:
    """Put one plane with its labels together; its arrays are named, its axes told."""
    given = {
        key: arrays[described[key]]
        for key in ("image", "labels", "labelled", "changed")
        if described.get(key) is not None
    }
    image = given.pop("image")
    axes = described.get("axes") or "CYX"[-image.ndim :]
    plane = plan_planes(image.shape, axes).read(image, ())
    return Sample(plane, name=described.get("name", ""), **given)
