"""Go on with a training that was broken off: its whole state, in one file, every few seconds.

The file holds what the check gave, the weights, their average, the optimiser, the random numbers,
the used part of the budget and the curve: tensors as safetensors, the rest as JSON in its header,
so that reading it runs nothing. It names what it belongs to (model, images and labels, settings);
no other training goes on with it. A training that comes to its end leaves no such file.
"""

from __future__ import annotations

import glob
import hashlib
import json
import threading
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from napari_unet.errors import FileError
from napari_unet.files.atomic import written_beside
from napari_unet.files.paths import as_path
from napari_unet.runs.progress import StepDone

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from pathlib import Path

    import torch

    from napari_unet.models.model import Model
    from napari_unet.runs.rounds import Rounds
    from napari_unet.runs.samples import Sample
    from napari_unet.runs.schedule import Budget
    from napari_unet.settings import FinetuneSettings, SegmentSettings

KEY = "napari_unet_checkpoint"
VERSION = 4
SECONDS_BETWEEN = 15.0
LARGEST_SHARE = 0.05  # of the time that writing may take
PARTS = {
    "model": "another model",
    "samples": "other images or labels",
    "settings": "other settings of the training",
    "segment": "other settings of the segmentation",
}


class Checkpoint:
    """The file in which a training keeps its state.

    Parameters
    ----------
    path : str or path
        The file; its folder is made if it is not there.
    run : dict of str to str
        What is trained with what, see :func:`identify`.
    """

    def __init__(self, path: str | os.PathLike[str], run: dict[str, str]) -> None:
        self.path = as_path(path, "a checkpoint")
        self._run = run
        self._state: tuple[dict[str, torch.Tensor], dict[str, Any]] | None = None
        self._lock = threading.Lock()
        self._next = 0.0

    @property
    def is_due(self) -> bool:
        """Whether it is time to write the state; at first, at once."""
        return time.monotonic() >= self._next

    def read(self) -> bool:
        """Read what an earlier run has left.

        Returns
        -------
        bool
            Whether there is anything to go on with.

        Raises
        ------
        FileError
            If the file is damaged or belongs to another training.
        """
        if not self.path.exists():
            return False
        try:
            with safe_open(self.path, framework="pt") as file:
                values = json.loads((file.metadata() or {})[KEY])
                tensors = {key: file.get_tensor(key) for key in file.keys()}
            version, run = values["version"], values["run"]
            others = [text for part, text in PARTS.items() if run[part] != self._run[part]]
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise self._damaged(error) from error
        if version != VERSION:
            raise FileError(
                f"{self.path} was written by another version of napari-unet. Start the training "
                "anew, without resuming."
            )
        if others:
            raise FileError(
                f"{self.path} belongs to another training, with {' and '.join(others)}. Give what "
                "was given then, or start anew, without resuming."
            )
        self._state = tensors, values
        return True

    def check_place(self) -> None:
        """Refuse to write over a file that is no checkpoint.

        Raises
        ------
        FileError
            If there is one.
        """
        if not self.path.exists():
            return
        try:
            with safe_open(self.path, framework="pt") as file:
                is_ours = KEY in (file.metadata() or {})
        except (SafetensorError, OSError):
            is_ours = False
        if not is_ours:
            raise FileError(
                f"{self.path} is no checkpoint of a training, and would be lost. Give the "
                "checkpoint another name."
            )

    def restore(self, rounds: Rounds, budget: Budget) -> list[StepDone]:
        """Bring rounds and budget to where the earlier run was.

        Parameters
        ----------
        rounds : Rounds
            As they were when it began.
        budget : Budget
            Likewise.

        Returns
        -------
        list of StepDone
            The curve so far.

        Raises
        ------
        FileError
            If the state does not fit.
        """
        if self._state is None:
            return []
        (tensors, values), self._state = self._state, None
        try:
            rounds.restore(tensors, values["rounds"])
            budget.restore(values["budget"])
            return [StepDone(**point) for point in values["curve"]]
        except (KeyError, TypeError, ValueError, RuntimeError, IndexError) as error:
            raise self._damaged(error) from error

    def save(self, rounds: Rounds, budget: Budget, curve: Sequence[StepDone]) -> None:
        """Write the state after the step that is being taken.

        Parameters
        ----------
        rounds : Rounds
            What the check gave; weights, average, optimiser, random numbers.
        budget : Budget
            How much of it is used.
        curve : sequence of StepDone
            So far.

        Raises
        ------
        FileError
            If the file cannot be written.
        """
        with self._lock:
            started = time.monotonic()
            tensors, state = rounds.state()
            values = {
                "version": VERSION,
                "run": self._run,
                "rounds": state,
                "budget": budget.state(),
                "curve": [asdict(point) for point in curve],
            }
            content = save(tensors, {KEY: json.dumps(values)})
            with written_beside(self.path) as beside:
                beside.write_bytes(content)
            now = time.monotonic()
            self._next = now + max(SECONDS_BETWEEN, (now - started) / LARGEST_SHARE)

    def remove(self) -> None:
        """Leave nothing of a training that came to its end."""
        with self._lock:
            self.path.unlink(missing_ok=True)
            for half in self.path.parent.glob(f".{glob.escape(self.path.name)}.*.part"):
                half.unlink(missing_ok=True)  # of a run that was killed while writing

    def _damaged(self, error: Exception) -> FileError:
        about = str(error).splitlines()[0] if str(error) else type(error).__name__
        return FileError(
            f"{self.path} holds no training that can go on ({about}). Start the training anew, "
            "without resuming."
        )


def identify(
    model: Model,
    samples: Sequence[Sample],
    settings: FinetuneSettings,
    segment: SegmentSettings,
) -> dict[str, str]:
    """Return what a training is made of, in short: equal only where the result is equal.

    Parameters
    ----------
    model : Model
        Its card and weights count.
    samples : sequence of Sample
        All pixels and labels count.
    settings : FinetuneSettings
        All but the device and how many there are.
    segment : SegmentSettings
        All but the device.

    Returns
    -------
    dict of str to str
        A checksum (SHA-256) of each.
    """
    of_model = hashlib.sha256(model.card.model_dump_json().encode())
    for name, tensor in sorted(model.net.state_dict().items()):
        of_model.update(name.encode())
        of_model.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    of_samples = hashlib.sha256()
    for sample in samples:
        for given in (sample.image, sample.labels, sample.labelled, sample.changed):
            array = np.asarray([] if given is None else given)
            of_samples.update(f"{given is None} {array.dtype} {array.shape}".encode())
            of_samples.update(np.ascontiguousarray(array).tobytes())
    return {
        "model": of_model.hexdigest(),
        "samples": of_samples.hexdigest(),
        "settings": _digest(settings.model_dump_json(exclude={"device", "devices"})),
        "segment": _digest(segment.model_dump_json(exclude={"device"})),
    }


def checkpoint_path(out: Path) -> Path:
    """Return where the checkpoint of a training lies: beside the model it will write.

    Parameters
    ----------
    out : Path
        The model.

    Returns
    -------
    Path
        ``mine.checkpoint`` for ``mine.safetensors``.
    """
    return out.with_suffix(".checkpoint")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
