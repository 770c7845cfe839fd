"""The jobs of the computing process: each turns a call into a run and a run into plain values.

The runs themselves are in :mod:`napari_unet.runs`; here is what only the process knows: the
models that are kept warm, and the probabilities that are kept for later.
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import torch

from napari_unet.arrays import metrics
from napari_unet.arrays.axes import plan_planes
from napari_unet.arrays.differences import compare_classes, compare_objects
from napari_unet.arrays.instances import find_instances
from napari_unet.errors import Cancelled, UnetError, WorkerError
from napari_unet.models.card import FOREGROUND
from napari_unet.models.card_assumptions import told_of
from napari_unet.models.description import measure
from napari_unet.models.formats import OWN, sniff
from napari_unet.models.library import is_own_file, remember_model, rename_model
from napari_unet.models.model import Model, save_in_library, save_model
from napari_unet.models.opening import choose, find_weights, read_weights
from napari_unet.models.own_file import checksum
from napari_unet.models.versions import weights_checksum
from napari_unet.network.allocator import return_memory
from napari_unet.network.devices import choose_device, describe_device, is_out_of_memory
from napari_unet.runs import fitted
from napari_unet.runs.background import Background
from napari_unet.runs.labelling import find_labels
from napari_unet.runs.predict import predict_steps
from napari_unet.runs.progress import Job, TileDone
from napari_unet.settings import InstanceSettings, SegmentSettings, checked
from napari_unet.worker import learning, segmenting
from napari_unet.worker.kept import (
    Kept,
    Recent,
    open_probability,
)
from napari_unet.worker.protocol import as_region
from napari_unet.worker.spots import REASONS, find_spot
from napari_unet.worker.unfinished import MODEL_FILE, Lesson, read_lesson

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_unet.models.assumptions import Assumption
    from napari_unet.models.opening import Reading
    from napari_unet.worker.__main__ import Call
    from napari_unet.worker.protocol import Array

R = TypeVar("R")
Values = dict[str, Any]
ModelKey = tuple[Path, int, int, int]
"""File, reading, time of the last change, size."""

MODELS_KEPT = 3


class Opened(NamedTuple):
    """A model, the titles of all readings of its file, and what that leaves open."""

    model: Model
    titles: list[str]
    assumptions: tuple[Assumption, ...]


class _Models:
    """The models used last, each loaded once as long as its file stays the same."""

    def __init__(self) -> None:
        self._loaded: dict[ModelKey, Opened] = {}
        self._readings: tuple[ModelKey | None, list[Reading]] = (None, [])

    def key(self, name_or_path: str) -> ModelKey:
        """Return what changes with the file of a model."""
        path, reading = find_weights(name_or_path)
        stat = path.stat()
        return path.resolve(), reading, stat.st_mtime_ns, stat.st_size

    def get(self, name_or_path: str) -> Model:
        """Return a model, from memory if it is there."""
        return self.opened(name_or_path).model

    def opened(self, name_or_path: str) -> Opened:
        """Return a model, and what else is known of its file."""
        key = self.key(name_or_path)
        kept = self._loaded.pop(key, None)
        if kept is None:
            readings = self.readings(name_or_path)
            chosen = choose(key[0], readings, key[1])
            titles = [reading.title for reading in readings]
            kept = Opened(chosen.load(), titles, chosen.assumptions)
        self._loaded[key] = kept
        while len(self._loaded) > MODELS_KEPT:
            self._loaded.pop(next(iter(self._loaded)))
        return kept

    def readings(self, name_or_path: str) -> list[Reading]:
        """Return all ways to read a file; those of the last one are at hand."""
        key = self.key(name_or_path)
        of_file = (key[0], 0, *key[2:])
        if self._readings[0] != of_file:
            self._readings = of_file, read_weights(key[0])
        return self._readings[1]


_models = _Models()
_recent = Recent()


def prepare() -> str:
    """Do what is slow the first time, before a person waits for it.

    Returns
    -------
    str
        The device that computes, e.g. "CPU (2 threads)".
    """
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(1, 2, 3)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.zeros(1, 1, 8, 8)).sum().backward()
    optimizer.step()
    find_instances(np.eye(8, dtype=np.float32)[None], (FOREGROUND,), InstanceSettings())
    return describe_device(choose_device("auto"))


def explain(error: BaseException) -> str | None:
    """Put an error of torch that is not a defect into a sentence.

    Parameters
    ----------
    error : BaseException
        What a job raised.

    Returns
    -------
    str or None
        The sentence; None for a defect.
    """
    if is_out_of_memory(error):
        return (
            "The memory does not suffice for this. Use a smaller image or tile, choose the "
            "device 'cpu', or close other programs."
        )
    return None


def is_spoilt(error: BaseException) -> bool:
    """Say if no job can succeed in this process after an error.

    Parameters
    ----------
    error : BaseException
        What a job raised.

    Returns
    -------
    bool
        True after a fault of a GPU: CUDA then refuses everything until the process ends.
    """
    return "CUDA error" in str(error)


def tidy() -> None:
    """Give memory back to the system; the allocator would keep most of it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return_memory()


def load(call: Call, *, model: str) -> Job[Values]:
    """Load a model of any format and tell what a person wants to know about it."""
    loaded, titles, assumptions = yield from _in_background(_models.opened, model)
    path, reading, _, _ = _models.key(model)
    remember_model(path, reading)
    sha256 = None if path.is_dir() else (yield from _in_background(checksum, path))
    return {
        "card": loaded.card,
        "path": path,
        "sha256": sha256,
        "readings": titles,
        "assumptions": assumptions,
        "reading": reading,
        **measure(loaded),
        "device": describe_device(choose_device("auto")),
    }


def try_models(
    call: Call, *, model: str, axes: str, settings: Values, trials: list[Values]
) -> Job[Values]:
    """Run a small image through several readings of a file, or through changed cards.

    Each trial has a ``reading``, as ``assume`` what a person tells of it, and as ``card`` the
    fields to change; one that cannot be run has its sentence in ``problems`` instead of an array.
    """
    path, _, _, _ = _models.key(model)
    readings = yield from _in_background(_models.readings, model)
    chosen = checked(SegmentSettings, settings)
    image = call.arrays["image"]
    values: Values = {"problems": {}, "cards": {}, "assumptions": {}}
    for number, trial in enumerate(trials):
        try:
            loaded, assumptions = yield from _in_background(_tried, path, readings, trial)
            values["assumptions"][str(number)] = assumptions
            planes = plan_planes(image.shape, axes, loaded.card.architecture.spatial_dims)
            shape = (loaded.card.architecture.classes, *planes.out_shape)
            probability = np.zeros(shape, np.float32)
            yield from predict_steps(loaded, image, axes, chosen, probability)
        except UnetError as error:
            if isinstance(error, Cancelled):
                raise
            values["problems"][str(number)] = str(error)
        else:
            values["cards"][str(number)] = loaded.card
            values[f"probability_{number}"] = probability
        yield TileDone(number + 1, len(trials))
    return values


def edit_card(call: Call, *, model: str, card: Values, assume: Values | None = None) -> Job[Values]:
    """Save a model with a changed card: in its place if it is the person's own, else as theirs."""
    path, number, _, _ = _models.key(model)
    readings = yield from _in_background(_models.readings, model)
    trial = {"reading": number, "assume": assume, "card": card}
    edited, _ = yield from _in_background(_tried, path, readings, trial)
    if is_own_file(path) and sniff(path) is OWN:
        if edited.card.name != readings[number].card.name:
            path = rename_model(path, edited.card.name)
        target = yield from _in_background(save_model, edited, path)
    else:
        target = yield from _in_background(save_in_library, edited)
    return (yield from load(call, model=str(target)))


def segment(
    call: Call, *, model: str, axes: str, settings: Values, view: Sequence[Any] | None = None
) -> Job[Values]:
    """Label an image, what the person sees first; its probabilities are kept under a token."""
    loaded = yield from _in_background(_models.get, model)
    chosen, file = checked(SegmentSettings, settings), str(_models.key(model))
    seen = None if view is None else as_region(view)
    return (yield from segmenting.segment(call, loaded, file, axes, chosen, seen, _recent))


def forget_tiles(call: Call) -> Job[Values]:
    """Forget which tiles fitted when memory ran out, and what was computed with them."""
    yield from _in_background(fitted.forget)
    _recent.forget()  # larger tiles may come closer
    return {}


def label(
    call: Call,
    *,
    settings: Values,
    token: str | None = None,
    model: str | None = None,
    axes: str | None = None,
    view: Sequence[Any] | None = None,
) -> Job[Values]:
    """Find objects again in probabilities that were kept, or are sent with their axes."""
    kept = _kept(call, token, model, axes)
    chosen = checked(InstanceSettings, settings)
    seen = None if view is None else as_region(view)
    return (yield from segmenting.label_again(call, kept, chosen, seen))


def uncertain(
    call: Call,
    *,
    token: str | None = None,
    model: str | None = None,
    axes: str | None = None,
    settings: Values | None = None,
) -> Job[Values]:
    """Find the most telling place; its position is None if everything is vouched for."""
    kept = _kept(call, token, model, axes)
    chosen = kept.card.instances if settings is None else checked(InstanceSettings, settings)
    spot = yield from _in_background(find_spot, kept, chosen, call.arrays.get("vouched"))
    return {
        "position": None if spot is None else spot.position,
        "why": None if spot is None else REASONS[spot.reason],
    }


def finetune(
    call: Call,
    *,
    model: str,
    samples: list[Values],
    settings: Values,
    segment: Values | None = None,
    name: str | None = None,
    regions: int = 0,
    training: str | None = None,
) -> Job[Values]:
    """Let a model learn from corrections; what comes out is kept as a version.

    With a folder for the ``training`` it can go on if it is broken off; without one what comes
    out is saved in the call's folder only.
    """
    loaded = yield from _in_background(_models.get, model)
    weights = yield from _in_background(weights_checksum, _models.key(model)[0])
    lesson = Lesson(loaded.card.name, weights, name, regions, samples, settings, segment)
    stop = call.is_stopped
    if training is None:
        return (yield from learning.learn_for_now(loaded, lesson, call.arrays, stop, call.folder))
    return (yield from learning.learn(loaded, lesson, call.arrays, stop, Path(training)))


def go_on(call: Call, *, training: str) -> Job[Values]:
    """Go on with a training that was broken off or stopped, where it was."""
    folder = Path(training)
    lesson, arrays = read_lesson(folder)
    loaded = yield from _in_background(_models.get, str(folder / MODEL_FILE))
    return (yield from learning.learn(loaded, lesson, arrays, call.is_stopped, folder, resume=True))


def compare(call: Call, *, old: str, new: str, axes: str, settings: Values) -> Job[Values]:
    """Label an image with two models and tell what the new one labels otherwise.

    Objects are found as each card suggests, unless the person has set something else.
    """
    image, chosen = call.arrays["image"], checked(SegmentSettings, settings)
    models: dict[str, Model] = {}
    for which, reference in (("old", old), ("new", new)):
        models[which] = yield from _in_background(_models.get, reference)
    suggested = {
        which: model.card.instances_at(chosen.object_size_px) for which, model in models.items()
    }
    is_suggested = chosen.instances in suggested.values()
    found: dict[str, Array] = {}
    for which, model in models.items():
        card = model.card
        planes = plan_planes(image.shape, axes, card.architecture.spatial_dims)
        probability = np.zeros((card.architecture.classes, *planes.out_shape), np.float32)
        yield from predict_steps(model, image, axes, chosen, probability)
        instances = suggested[which] if is_suggested else chosen.instances
        found[which] = np.zeros(planes.out_shape, np.int32)
        for index in planes.indices():
            at = planes.out_index(index)
            plane = probability[(slice(None), *at)]
            found[which][at] = yield from _in_background(find_labels, card, plane, instances)
    is_semantic = any(model.card.labels == "semantic" for model in models.values())
    tell = compare_classes if is_semantic else compare_objects
    differences = yield from _in_background(tell, found["old"], found["new"])
    counts = {"added": differences.added, "gone": differences.gone, "changed": differences.changed}
    return {**found, "difference": differences.classes, **counts}


def save(
    call: Call, *, model: str, destination: str | None = None, format: str = "safetensors"
) -> Job[Values]:
    """Save a model as a file of some format; without a destination in the person's own folder."""
    loaded = yield from _in_background(_models.get, model)
    if destination is None:
        path = yield from _in_background(save_in_library, loaded)
    else:
        path = yield from _in_background(_export, loaded, destination, format)
    return {"path": path}


def evaluate(call: Call) -> Job[Values]:
    """Judge labels against the truth."""
    labels, truth = call.arrays["labels"], call.arrays["truth"]
    scores = yield from _in_background(metrics.evaluate, labels, truth)
    return dict(scores)


JOBS: dict[str, Callable[..., Job[Values]]] = {
    "load": load,
    "segment": segment,
    "forget_tiles": forget_tiles,
    "label": label,
    "uncertain": uncertain,
    "finetune": finetune,
    "go_on": go_on,
    "compare": compare,
    "save_model": save,
    "edit_card": edit_card,
    "try_models": try_models,
    "evaluate": evaluate,
}


def _export(model: Model, destination: str, format: str) -> Path:
    """Write a model; the libraries of other formats are imported only when they are needed."""
    if format == "safetensors":
        return save_model(model, destination)
    from napari_unet.models.export import export_model

    return export_model(model, destination, format)


def _tried(
    path: Path, readings: list[Reading], trial: Values
) -> tuple[Model, tuple[Assumption, ...]]:
    """Build the model of one trial; what a person tells of it is no longer called assumed."""
    chosen = choose(path, readings, int(trial.get("reading", 0))).assume(trial.get("assume") or {})
    card, changes = chosen.card, trial.get("card") or {}
    changed = {key for key, value in changes.items() if getattr(card, key) != value}
    told = told_of(card, changed & (card.assumed.keys() | card.told.keys()), changes)
    return Model(chosen.load().net, card.replace(**changes, **told)), chosen.assumptions


def _in_background(function: Callable[..., R], *arguments: Any) -> Job[R]:
    """Call a function and stay open for Cancel meanwhile."""
    with Background() as background:
        return (yield from background.run(function, *arguments))


def _kept(call: Call, token: str | None, model: str | None, axes: str | None) -> Kept:
    """Return the probabilities a request is about."""
    if token is not None:
        return open_probability(token)
    if model is None or axes is None or "probability" not in call.arrays:
        raise WorkerError("Neither a token nor probability, model and axes were given.")
    return Kept(_models.get(model).card, axes, call.arrays["probability"])
