"""The card of a model: what it eats, what it gives, where it comes from.

The card travels inside the weights file, as JSON in the safetensors header, so that a model is
one file. Reading a card needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from napari_unet.network.graph import Graph
from napari_unet.settings import (
    Architecture,
    InstanceSettings,
    Normalization,
    SegmentSettings,
    Settings,
    given_or_default,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

FOREGROUND = "foreground"
DISTANCE = "distance"


def _kind_of_network(value: object) -> str:
    """Tell a graph from a U-Net, so that what is wrong is told of the right one."""
    is_graph = isinstance(value, Graph) or (isinstance(value, dict) and "nodes" in value)
    return "graph" if is_graph else "unet"


Network = Annotated[
    Annotated[Architecture, Tag("unet")] | Annotated[Graph, Tag("graph")],
    Discriminator(_kind_of_network),
]


class Learned(Settings):
    """One step in the history of a model: what it learned from corrections, and what came of it.

    Numbers and settings are kept as plain values, so that a later version can read them.
    """

    parent: str = Field(description="Name of the model that learned, as it was called then.")
    parent_weights: str = Field(
        "", description="Checksum (SHA-256) of its weights: by it, it is found under any name."
    )
    created: str = Field(description="When, ISO 8601.")
    regions: int = Field(0, ge=0, description="Checked regions, as far as they were told.")
    planes: int = Field(description="Planes on which something was vouched for.")
    objects: int = Field(description="Objects vouched for on them, held-out ones included.")
    vouched_px: int = Field(description="Pixels vouched for.")
    changed_px: int = Field(description="Pixels of them that the person had corrected.")
    outcome: str = Field(description="better, not better or cannot judge.")
    before: dict[str, float] = Field(
        default_factory=dict, description="Scores of the parent on the held-out part."
    )
    after: dict[str, float] = Field(
        default_factory=dict, description="Scores of what came out, on the same part."
    )
    settings: dict[str, Any] = Field(
        default_factory=dict, description="How it learned, see FinetuneSettings."
    )


def main_score(scores: Mapping[str, float]) -> float | None:
    """Return the score that judges, 0..1: AP at IoU 0.5 of objects, or else IoU of classes.

    Parameters
    ----------
    scores : mapping of str to float
        All there are, e.g. :attr:`Learned.after`.

    Returns
    -------
    float or None
        None if nothing was judged.
    """
    return scores.get("ap50", scores.get("iou"))


class Card(Settings):
    """Everything a person or a program needs to know to use the weights rightly."""

    name: str = Field(description="Short name, shown in the list of models.")
    segments: str = Field("unknown", description="What the model labels, in a sentence.")
    architecture: Network = Field(
        description="The network the weights belong to: a U-Net of ours, or any other's layers."
    )
    input_channels: tuple[str, ...] = Field(
        ("image",), description="Name of each input channel, in order."
    )
    normalization: Normalization = Field(
        Normalization(), description="How grey values are scaled before the network."
    )
    outputs: tuple[str, ...] = Field(
        (FOREGROUND,),
        description=(
            "Name of each output channel: foreground, boundary and distance have a meaning of "
            "their own; other names are classes, the first of which is the background."
        ),
    )
    activation: Literal["sigmoid", "softmax", "none"] = Field(
        "sigmoid",
        description=(
            "What turns the network's answer into probabilities; none: it gives them by itself, "
            "and what is below 0 or above 1 is cut off."
        ),
    )
    labels: Literal["instance", "semantic"] = Field(
        "instance", description="One number per object, or one number per class."
    )
    instances: InstanceSettings = Field(
        InstanceSettings(),
        description=(
            "How objects are best found in this model's output; the smallest size is that of an "
            "image with objects of the typical size."
        ),
    )
    pixel_size_um: float | None = Field(
        None, gt=0, description="Pixel size of the training images in micrometres, if known."
    )
    object_size_px: float | None = Field(
        None, gt=0, description="Typical diameter of the training objects, in pixels."
    )
    training_data: str = Field("unknown", description="What the model was trained on.")
    licence: str = Field("unknown", description="Licence of the weights.")
    authors: tuple[str, ...] = Field((), description="Who made the model, if known.")
    cite: tuple[str, ...] = Field(
        (), description="What to cite: each a text, a DOI or an address, if known."
    )
    scores: dict[str, float] = Field(
        default_factory=dict, description="Held-out scores, with the data in the name."
    )
    source: str | None = Field(
        None, description="File and format the weights came in, if they are not our own."
    )
    source_sha256: str | None = Field(None, description="Checksum of that file.")
    assumed: dict[str, str] = Field(
        default_factory=dict,
        description=(
            "What the file did not say and was assumed: the field, and why it was so chosen."
        ),
    )
    told: dict[str, str] = Field(
        default_factory=dict,
        description="What the file did not say and a person told: the point, and what was told.",
    )
    original_names: dict[str, str] = Field(
        default_factory=dict,
        description=(
            "What the tensors were called in the file they came from, by our names; a state dict "
            "is written with them."
        ),
    )
    parent: str | None = Field(None, description="Name of the model this one was fine-tuned from.")
    history: tuple[Learned, ...] = Field(
        (),
        description=(
            "All that was learned from corrections on the way to this model, oldest first: each "
            "step made the parent of the next one, the last made this model."
        ),
    )
    created: str | None = Field(None, description="Day the weights were made, ISO 8601.")

    @model_validator(mode="after")
    def _fits_the_network(self) -> Self:
        if len(self.input_channels) != self.architecture.in_channels:
            raise ValueError(
                f"{len(self.input_channels)} input channels are named, the network has "
                f"{self.architecture.in_channels}"
            )
        if len(self.outputs) != self.architecture.classes:
            raise ValueError(
                f"{len(self.outputs)} outputs are named, the network has "
                f"{self.architecture.classes}"
            )
        return self

    def instances_at(self, object_size_px: float | None) -> InstanceSettings:
        """Return how objects are best found in an image that is scaled by its object size.

        Parameters
        ----------
        object_size_px : float or None
            Typical diameter of its objects, in its pixels; None: it is not scaled.

        Returns
        -------
        InstanceSettings
            Those of the card; the smallest size is in pixels of the image.
        """
        if object_size_px is None or self.object_size_px is None:
            return self.instances
        return self.instances.scaled(object_size_px / self.object_size_px)

    def complete(self, settings: SegmentSettings | None) -> SegmentSettings:
        """Let the card say how objects are found, as far as the settings do not.

        Parameters
        ----------
        settings : SegmentSettings or None
            As they were given.

        Returns
        -------
        SegmentSettings
            The same, with all that was not given of how objects are found.

        Raises
        ------
        SettingError
            If something else was given.
        """
        settings = given_or_default(settings, SegmentSettings())
        told = settings.instances.model_dump(exclude_unset=True)
        usual = self.instances_at(settings.object_size_px)
        return settings.replace(instances=usual.replace(**told))
