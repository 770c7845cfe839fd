"""The card of a model: what it eats, what it gives, where it comes from.

The card travels inside the weights file, as JSON in the safetensors header, so that a model is
one file. Reading a card needs no torch.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from napari_unet.settings import Architecture, InstanceSettings, Normalization, Settings

FOREGROUND = "foreground"
DISTANCE = "distance"


class Card(Settings):
    """Everything a person or a program needs to know to use the weights rightly."""

    name: str = Field(description="Short name, shown in the list of models.")
    segments: str = Field("unknown", description="What the model labels, in a sentence.")
    architecture: Architecture = Field(description="The network the weights belong to.")
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
    activation: Literal["sigmoid", "softmax"] = Field(
        "sigmoid", description="What turns the network's logits into probabilities."
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
    scores: dict[str, float] = Field(
        default_factory=dict, description="Held-out scores, with the data in the name."
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
