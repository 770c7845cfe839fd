"""The rounds of a training: two that check each other, and one that learns from everything.

What is kept aside to judge a result cannot teach, and with few labels both are dear. So a training
has three rounds (see :mod:`napari_unet.runs.held_out` for the parts)::

    budget  0               1/3              2/3                  1
            | check 1        | check 2        | all of it           |
            learns from        learns from      begins with the mean
            one part           the other        of their weights, and
                                                learns from both

What each check finds in the part it has never seen, beside what the model before finds there, is
the verdict on this training. It judges models that had less to learn from than the one that comes
out, so it is rather too strict. With less time for the checks it would be stricter still, and the
threshold that is fitted on what they give would not suit the model that comes out, which the longer
it learns the surer it is. The mean of the weights of networks that learned
from the same start is as good as either, mostly better [1]_: the time of the checks is not lost.

Where there is too little for a verdict there is one round only, and what comes out lies between the
weights before and after it (:mod:`napari_unet.runs.mixing`).

References
----------
.. [1] Wortsman et al. (2022), Model soups: averaging weights of multiple fine-tuned models
   improves accuracy without increasing inference time, arXiv:2203.05482.
"""

from __future__ import annotations

import copy
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_unet.models.model import Model
from napari_unet.runs.crops import Crops
from napari_unet.runs.evaluate import Part
from napari_unet.runs.held_out import objects_in
from napari_unet.runs.learner import Learner
from napari_unet.runs.mixing import cautious_share, mixed
from napari_unet.runs.places import count_places
from napari_unet.runs.samples import grown_box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unet.network.build import Network
    from napari_unet.runs.held_out import Split
    from napari_unet.runs.samples import Plane
    from napari_unet.settings import FinetuneSettings

    Mask = NDArray[np.bool_]

CHECK_SHARE = 1 / 3  # of the budget, for each check
LARGEST_SEED = 2**32


class Rounds:
    """Where a training is: which round, what it learns from, and what the checks gave.

    Parameters
    ----------
    model : Model
        Where it starts from; stays as it is.
    settings : FinetuneSettings
        How it learns.
    planes : sequence of Plane
        What was vouched for.
    split : Split
        What the checks keep aside.
    crop_px : int
        Side of the crops of the last round, in pixels.

    Attributes
    ----------
    number : int
        Of the round, from 0; the last one follows the checks.
    learner : Learner
        Of this round.
    crops : Crops
        Likewise.
    before : list of list of Part
        For each check, what the model gives in the part it keeps aside; none until it was judged.
    found : list of list of Part
        For each check that is over, what its model gives in the part it kept aside.

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
        self._weights: list[dict[str, torch.Tensor]] = []
        self._steps_before = 0
        self.before: list[list[Part]] = []
        self.found: list[list[Part]] = []
        self.number = 0
        self._lock = threading.Lock()  # held between two rounds
        self._open()
        self.learner.begin(self.crops)

    @property
    def steps(self) -> int:
        """Steps taken, in all rounds."""
        return self._steps_before + self.learner.steps

    @property
    def is_check(self) -> bool:
        """Whether something is kept aside now."""
        return self.number < len(self._split.checks)

    @property
    def held_out(self) -> tuple[Mask, ...]:
        """Of each plane, the pixels that are kept aside now."""
        if self.is_check:
            return self._split.checks[self.number]
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
        start = self.number * CHECK_SHARE
        stop = start + CHECK_SHARE if self.is_check else 1.0
        return min(1.0, max(0.0, (of_budget - start) / (stop - start)))

    def close_check(self, parts: list[Part]) -> None:
        """End a check, and open the next round.

        Parameters
        ----------
        parts : list of Part
            What its model gives in the part it kept aside.
        """
        with self._lock:
            self._weights.append(_copied(self.learner.model.net))
            self.found.append(parts)
            self._steps_before += self.learner.steps
            self.number += 1
            self._open()
            if self.is_check:  # else it begins with what the checks have found
                self.learner.begin(self.crops)

    def result(self) -> Network:
        """Return what was learned so far, as a network like the one that was given."""
        if self.is_check and self._weights:  # the second check is not over: the first one's
            return self._with(self._weights[0])
        learned, share = self.learner.result(), self.new_share
        if share == 1:  # nothing of the old ones
            return learned
        return self._with(mixed(_copied(self._model.net), learned.state_dict(), share))

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
            return self._state()

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
        self.number, self._steps_before = int(values["round"]), int(values["steps_before"])
        self._weights = [groups[f"check {number}"] for number in range(self.number)]
        self.before = [
            self._parts(number, groups[f"before {number}"])
            for number in range(len(self._split.checks))
        ]
        self.found = [
            self._parts(number, groups[f"found {number}"]) for number in range(self.number)
        ]
        self._open()
        self.learner.restore(groups["learner"], values["learner"])

    def _state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """See :meth:`state`."""
        tensors, values = self.learner.state()
        tensors = {f"learner.{key}": tensor for key, tensor in tensors.items()}
        for number, weights in enumerate(self._weights):
            tensors |= {f"check {number}.{key}": value for key, value in weights.items()}
        for title, checks in (("before", self.before), ("found", self.found)):
            for number, parts in enumerate(checks):
                tensors |= {
                    f"{title} {number}.{at}": torch.from_numpy(
                        np.ascontiguousarray(part.probability)
                    )
                    for at, part in enumerate(parts)
                }
        return tensors, {
            "round": self.number,
            "steps_before": self._steps_before,
            "learner": values,
        }

    def _open(self) -> None:
        """Make what the round at hand needs."""
        start = self._model
        if self._weights and not self.is_check:
            one, other = self._weights
            start = Model(self._with(mixed(one, other, 0.5)), self._model.card)
        seed = (self._settings.seed + self.number) % LARGEST_SEED
        self.learner = Learner(start, self._settings.replace(seed=seed))
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

    def _with(self, weights: dict[str, torch.Tensor]) -> Network:
        """Return a network like the given one, with other weights."""
        net = copy.deepcopy(self._model.net)
        net.load_state_dict(weights)
        return net.requires_grad_(True).eval()

    def _parts(self, number: int, tensors: dict[str, torch.Tensor]) -> list[Part]:
        """Join what a check gave with the truth about it."""
        net = self._model.net
        parts: list[Part] = []
        for plane, mask in zip(self._planes, self._split.checks[number], strict=True):
            if mask.any():
                area = grown_box(mask, net.halo, net.stride)
                probability = tensors[str(len(parts))].numpy()
                parts.append(Part(probability, plane.truth[area], mask[area]))
        return parts


def _copied(net: Network) -> dict[str, torch.Tensor]:
    """Copy the weights of a network to the CPU."""
    return {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in net.state_dict().items()
    }
