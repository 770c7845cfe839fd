"""A training that may be broken off: all it needs to go on, in a folder of its own.

::

    unfinished/<when>.lock
    unfinished/<when>/  request.json       what was asked for; written last, so that without it
                        model.safetensors  the folder is only half there
                        *.npy              planes, labels and where they are vouched for
                        state.checkpoint   how far it is, every few seconds

The window makes the name and holds the lock as long as the training runs; the process fills the
folder and removes it at the end. What is left without a lock was broken off, with the process,
with napari or with the computer, and the next dock offers to go on with it. Needs no torch.
"""

from __future__ import annotations

import json
import shutil
import uuid
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open

from napari_unet.errors import WorkerError
from napari_unet.files.atomic import written_beside
from napari_unet.models.library import user_folder
from napari_unet.worker.protocol import Array, open_array

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

REQUEST_FILE = "request.json"
MODEL_FILE = "model.safetensors"
STATE_FILE = "state.checkpoint"

Values = dict[str, Any]


@dataclass(frozen=True)
class Lesson:
    """What a network is to learn, as plain values.

    Attributes
    ----------
    model : str
        Name of the model that learns.
    weights : str
        Checksum of its weights.
    name : str or None
        What the new model is to be called, if that is free.
    regions : int
        How many regions were checked.
    samples : list of dict
        For each plane the names of its arrays, the axes of its image, and its own name.
    settings : dict
        See :class:`napari_unet.settings.FinetuneSettings`.
    segment : dict or None
        See :class:`napari_unet.settings.SegmentSettings`.
    """

    model: str
    weights: str
    name: str | None
    regions: int
    samples: list[Values]
    settings: Values
    segment: Values | None


@dataclass(frozen=True)
class Unfinished:
    """A training that was broken off or stopped.

    Attributes
    ----------
    folder : Path
        Where it is.
    lesson : Lesson
        What it learns.
    since : str
        When it began, local time.
    fraction : float
        Part of its budget that is used, 0..1.
    """

    folder: Path
    lesson: Lesson
    since: str
    fraction: float

    def describe(self) -> str:
        """Say in a sentence what it is."""
        planes, regions = len(self.lesson.samples), self.lesson.regions
        taught = f"{planes} plane{'s' * (planes != 1)}"
        if regions:
            taught = f"{regions} region{'s' * (regions != 1)} on {taught}"
        return (
            f"A training of {self.lesson.model} on {taught}, begun {self.since}, did not come to "
            f"its end: {self.fraction:.0%} of its time is used."
        )


def unfinished_folder() -> Path:
    """Return the folder of all trainings under way; it may not exist yet."""
    return user_folder().parent / "unfinished"


def new_training() -> Path:
    """Return a folder for another training; it is not made yet."""
    now = datetime.now().astimezone().strftime("%Y-%m-%d %H.%M.%S")
    return unfinished_folder() / f"{now} {uuid.uuid4().hex[:6]}"


def lock_path(folder: Path) -> Path:
    """Return where the lock of a training lies: beside its folder."""
    return folder.with_name(f"{folder.name}.lock")


def write_lesson(folder: Path, lesson: Lesson, arrays: Mapping[str, Array]) -> None:
    """Write down what a training is about; the model is written by whoever has it.

    Parameters
    ----------
    folder : Path
        Of the training; made if it is not there.
    lesson : Lesson
        What is to be learned.
    arrays : mapping of str to ndarray
        Those its samples name.

    Raises
    ------
    FileError
        If the disk is full or not to be written to.
    """
    for name, array in arrays.items():
        with written_beside(folder / f"{name}.npy") as beside, beside.open("wb") as file:
            np.save(file, array, allow_pickle=False)
    with written_beside(folder / REQUEST_FILE) as beside:
        beside.write_text(json.dumps(asdict(lesson)), encoding="utf-8")


def read_lesson(folder: Path) -> tuple[Lesson, dict[str, Array]]:
    """Read what a training is about.

    Parameters
    ----------
    folder : Path
        Of the training.

    Returns
    -------
    lesson : Lesson
        What is to be learned.
    arrays : dict of str to ndarray
        Read from disk as they are used.

    Raises
    ------
    WorkerError
        If something of it is missing.
    """
    try:
        values = json.loads((folder / REQUEST_FILE).read_text(encoding="utf-8"))
        lesson = Lesson(**values)
        return lesson, {path.stem: open_array(path) for path in folder.glob("*.npy")}
    except (OSError, ValueError, TypeError) as error:
        raise WorkerError(
            "This training cannot go on: a part of what it was about is missing. Discard it and "
            "press Retrain."
        ) from error


def find_unfinished() -> list[Unfinished]:
    """List the trainings that did not come to their end, the newest first.

    Returns
    -------
    list of Unfinished
        Those that run now are among them: their folder is locked.
    """
    found = []
    for folder in sorted(unfinished_folder().glob("*/"), reverse=True):
        fraction = _used(folder / STATE_FILE)
        try:
            values = json.loads((folder / REQUEST_FILE).read_text(encoding="utf-8"))
            lesson = Lesson(**values)
        except (OSError, ValueError, TypeError):
            continue
        if fraction is not None:
            found.append(Unfinished(folder, lesson, folder.name[:16].replace(".", ":"), fraction))
    return found


def find_useless() -> list[Path]:
    """List the folders in which there is no training that can go on.

    Returns
    -------
    list of Path
        Those of trainings that are just beginning are among them: they are locked.
    """
    useful = {found.folder for found in find_unfinished()}
    return [folder for folder in unfinished_folder().glob("*/") if folder not in useful]


def discard(folder: Path) -> None:
    """Remove a training for good; what cannot be removed now no longer counts as one.

    Parameters
    ----------
    folder : Path
        Of the training.
    """
    (folder / REQUEST_FILE).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _used(state: Path) -> float | None:
    """Read from the header of a checkpoint how much of the budget is used; None if damaged."""
    if not state.exists():
        return 0.0  # the old model was still being judged
    try:
        with safe_open(state, framework="numpy") as file:
            (text,) = (file.metadata() or {}).values()
        curve = json.loads(text)["curve"]
        return float(curve[-1]["fraction"]) if curve else 0.0
    except (SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None
