"""The rounds of a training: one that keeps something aside to be judged, one that keeps nothing.

What is kept aside to judge a result cannot teach, and with few labels both are dear. So a training
has two rounds (see :mod:`napari_unet.runs.held_out` for the parts)::

    budget  0                                  2/3                     1
            | check                             | all of it            |
            learns from one part                goes on from there, with everything

What the check finds in the part it has never seen, beside what the model before finds there, is
the verdict on this training. It judges a model that had less time and less to learn from than the
one that comes out of it, so it is rather too strict. No step is lost for the verdict: the weights
that come out have learned from the first step to the last, with a learning rate that rises and
falls in each round. Where the time is over a few steps after the check, what was judged comes out:
the optimiser begins anew there, and its first steps are its worst.

Where there is too little for a verdict there is one round only, and what comes out lies between the
weights before and after it (:mod:`napari_unet.runs.mixing`).
"""

from __future__ import annotations

import copy
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_unet.runs.crops import Crops
from napari_unet.runs.held_out import objects_in
from napari_unet.runs.judged import Part, truth_in
from napari_unet.runs.learner import Learner
from napari_unet.runs.mixing import cautious_share, mixed
from napari_unet.runs.places import count_places
from napari_unet.runs.samples import grown_box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unet.models.model import Model
    from napari_unet.network.build import Network
    from napari_unet.runs.held_out import Split
    from napari_unet.runs.samples import Plane
    from napari_unet.settings import FinetuneSettings

    Mask = NDArray[np.bool_]

CHECK_SHARE = 0.65  # of the budget
FIRST_STEPS = 10  # after the check: fewer make nothing better than what was judged
LARGEST_SEED = 2**32


class Rounds:
    """Where a training is: in which round, what it learns from, and what the check gave.

    Parameters
    ----------
    model : Model
        Where it starts from; stays as it is.
    settings : FinetuneSettings
        How it learns.
    planes : sequence of Plane
        What was vouched for.
    split : Split
        What the check keeps aside.
    crop_px : int
        Side of the crops of the last round, in pixels.

    Attributes
    ----------
    is_check : bool
        Whether something is kept aside now.
    learner : Learner
        Of this round.
    crops : Crops
        Likewise.
    before : list of Part
        What the model gives in the part that is kept aside; none until it was judged.
    found : list of Part
        What the check has learned gives there; none until the check is over.

    Raises
    ------
    SettingError
        If more levels are to be frozen than the network has.
    DeviceError
        If the chosen device is not there.
    """

    def __init__(
        self,
        model: Model,
        settings: FinetuneSettings,
        planes: Sequence[Plane],
        split: Split,
        crop_px: int,
    ) -> None:
        self._model, self._settings = model, settings
        self._planes, self._split, self._crop_px = planes, split, crop_px
        self.before: list[Part] = []
        self.found: list[Part] = []
        self.is_check = split.is_judged
        self._steps_before = 0
        self._lock = threading.Lock()  # held between the rounds
        self._open(model)
        self.learner.begin(self.crops)

    @property
    def steps(self) -> int:
        """Steps taken, in both rounds."""
        return self._steps_before + self.learner.steps

    @property
    def held_out(self) -> tuple[Mask, ...]:
        """Of each plane, the pixels that are kept aside now."""
        if self.is_check:
            return self._split.masks
        return tuple(np.zeros(plane.truth.shape, bool) for plane in self._planes)

    @property
    def new_share(self) -> float:
        """Share of the new weights in what comes out, 0..1; all where they are judged."""
        return 1.0 if self._split.is_judged else cautious_share(self._things())

    def used(self, of_budget: float) -> float:
        """Return the used part of this round, 0..1, at a used part of the budget.

        Parameters
        ----------
        of_budget : float
            Used part of the whole budget, 0..1.

        Returns
        -------
        float
            1 where the round is over.
        """
        start = CHECK_SHARE if self._split.is_judged and not self.is_check else 0.0
        stop = CHECK_SHARE if self.is_check else 1.0
        return min(1.0, max(0.0, (of_budget - start) / (stop - start)))

    def close_check(self, parts: list[Part]) -> None:
        """End the check, and learn from everything from here on.

        Parameters
        ----------
        parts : list of Part
            What was learned so far gives in the part that was kept aside.
        """
        with self._lock:
            self.found, self.is_check = parts, False
            self._steps_before = self.learner.steps
            self._open(self.learner.model)

    def result(self) -> Network:
        """Return what was learned so far, as a network like the one that was given."""
        learned, share = self.learner.result(), self.new_share
        if share == 1:  # nothing of the old ones
            return learned
        net = copy.deepcopy(self._model.net)
        net.load_state_dict(mixed(_copied(self._model.net), learned.state_dict(), share))
        return net.requires_grad_(True).eval()

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return all that is needed to go on, once the step at hand is taken.

        Returns
        -------
        tensors : dict of str to Tensor
            On the CPU.
        values : dict
            Plain values for JSON.
        """
        with self._lock:
            tensors, values = self.learner.state()
            tensors = {f"learner.{key}": tensor for key, tensor in tensors.items()}
            for title, parts in (("before", self.before), ("found", self.found)):
                for number, part in enumerate(parts):
                    probability = np.ascontiguousarray(part.probability)
                    tensors[f"{title}.{number}"] = torch.from_numpy(probability)
            return tensors, {
                "is_check": self.is_check,
                "steps_before": self._steps_before,
                "learner": values,
            }

    def restore(self, tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> None:
        """Go on from a state that a training of the same model and settings has given.

        Parameters
        ----------
        tensors, values : dict
            See :meth:`state`.

        Raises
        ------
        KeyError, ValueError, RuntimeError, IndexError
            If the state is of another training, or damaged.
        """
        groups: dict[str, dict[str, torch.Tensor]] = {}
        for key, tensor in tensors.items():
            title, _, name = key.partition(".")
            groups.setdefault(title, {})[name] = tensor
        self.is_check = bool(values["is_check"])
        self._steps_before = int(values["steps_before"])
        if self._split.is_judged:
            self.before = self._parts(groups["before"])
            self.found = [] if self.is_check else self._parts(groups["found"])
        self._open(self._model)
        self.learner.restore(groups["learner"], values["learner"])

    def _open(self, start: Model) -> None:
        """Make what the round at hand needs, from where it starts."""
        seed = self._settings.seed if self.is_check else self._settings.seed + 1
        goes_on = self._split.is_judged and not self.is_check
        settings = self._settings.replace(seed=seed % LARGEST_SEED)
        self.learner = Learner(start, settings, still=FIRST_STEPS if goes_on else 0)
        self.crops = Crops(
            self._planes,
            self.held_out,
            self._model.card,
            self._split.crop_px if self.is_check else self._crop_px,
            self._model.net.margin,
            self._settings.correction_weight,
        )

    def _things(self) -> int:
        """Count what was vouched for: objects, or places with something in them."""
        if self._model.card.labels == "instance":
            return sum(objects_in(plane, plane.vouched) for plane in self._planes)
        truths, masks = zip(*[(p.truth, p.vouched) for p in self._planes], strict=True)
        return count_places(truths, masks, semantic=True)

    def _parts(self, tensors: dict[str, torch.Tensor]) -> list[Part]:
        """Join what was found with the truth about it."""
        net = self._model.net
        parts: list[Part] = []
        for plane, mask in zip(self._planes, self._split.masks, strict=True):
            if mask.any():
                area = grown_box(mask, net.halo, net.stride)
                probability = tensors[str(len(parts))].numpy()
                parts.append(Part(probability, *truth_in(plane, area, mask)))
        return parts


def _copied(net: Network) -> dict[str, torch.Tensor]:
    """Copy the weights of a network to the CPU."""
    return {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in net.state_dict().items()
    }
