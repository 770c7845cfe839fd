"""What a package does after its network: what makes probabilities, and a threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from napari_unet.errors import ModelError
from napari_unet.models.bioimageio.steps import ASK, Step, cannot

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Postprocessing:
    """What is done with the answer of the network."""

    activation: Literal["sigmoid", "softmax"] | None = None
    threshold: float | None = None


def read_postprocessing(steps: Iterable[Step], assumed: dict[str, str]) -> Postprocessing:
    """Turn the steps after the network into an activation and a threshold.

    Parameters
    ----------
    steps : iterable of Step
        In the order in which they are done.
    assumed : dict
        Gets a sentence for what is left out.

    Returns
    -------
    Postprocessing
        The threshold is that of the activated values.

    Raises
    ------
    ModelError
        If the network's answer is no probability: stardist, cellpose, code of the package.
    """
    activation: Literal["sigmoid", "softmax"] | None = None
    threshold: float | None = None
    gain, shift = 1.0, 0.0
    for step in steps:
        if step.name in {"sigmoid", "softmax"}:
            if activation or threshold is not None or (gain, shift) != (1.0, 0.0):
                raise cannot(step, "other steps come before it")
            activation = "sigmoid" if step.name == "sigmoid" else "softmax"
        elif step.name == "binarize":
            thresholds = step.numbers("threshold")
            threshold = (thresholds[-1] - shift) / gain
            if len(set(thresholds)) > 1:
                assumed["instances"] = (
                    f"The package has a threshold for each channel ({_listed(thresholds)}); here "
                    "the last one is used."
                )
        elif step.name == "scale_linear":
            gains, shifts = step.numbers("gain", 1.0), step.numbers("offset", 0.0)
            if len({*gains}) > 1 or len({*shifts}) > 1 or gains[0] <= 0:
                raise cannot(step, "it scales the channels of the output differently")
            gain, shift = gain * gains[0], shift * gains[0] + shifts[0]
            assumed["post-processing"] = (
                f"The package multiplies its output with {gains[0]:g} and adds {shifts[0]:g}; "
                "here it stays between 0 and 1."
            )
        elif step.name in {"scale_range", "clip"}:
            if step.name == "scale_range":
                assumed["post-processing"] = (
                    "The package stretches its output to the range from 0 to 1 in each image; "
                    "here it stays as the network gives it."
                )
        elif step.name != "ensure_dtype":
            raise ModelError(
                f"After the network the package does {step.name!r}, so what the network gives are "
                f"no probabilities that could be used here. {ASK}"
            )
    return Postprocessing(activation, threshold)


def _listed(values: Iterable[float]) -> str:
    """Write numbers as people do."""
    return ", ".join(f"{value:g}" for value in values)
