"""The card of a model: what it eats, what it gives, where it comes from.

The card travels inside the weights file, as JSON in the safetensors header, so that a model is
one file. Reading a card needs no torch.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from napari_unet.network.graph import Graph
from napari_unet.settings import Architecture, InstanceSettings, Normalization, Settings

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
        InstanceSettings(), description="How objects are best found in this model's output."
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
    parent: str | None = Field(None, description="Name of the model this one was fine-tuned from.")
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
