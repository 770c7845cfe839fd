"""A network as data: which layer reads what. Nothing in it is code.

Weights from elsewhere come from networks that are no :class:`napari_unet.network.unet.UNet`:
other norms, other upsamplings, residual units, a ResNet as the way down. Each of them is a list
of nodes, every one a layer from the short list below, in the order in which they are computed::

    Graph(
        spatial_dims=2, in_channels=1, classes=1,
        nodes=(
            Convolution(name="n1", inputs=("image",), in_channels=1, out_channels=8,
                        kernel=(3, 3), padding=((1, 1), (1, 1))),
            Activation(name="n2", inputs=("n1",), kind="relu"),
            ...
        ),
    )

The first input of the first node is ``image``; the last node gives the logits. The description
travels in the model's card, so that a network from a stranger can be saved, loaded, tiled
exactly and trained without a line of anybody's code.
:class:`napari_unet.network.graph_net.GraphNet` builds it.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from napari_unet.settings import Settings

IMAGE = "image"
"""What the first node reads."""

Sizes = tuple[int, ...]
"""One number per spatial axis."""

Sides = tuple[tuple[int, int], ...]
"""Pixels before and after, per spatial axis."""

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
JoinKind = Literal["concatenate", "add", "subtract", "multiply", "maximum"]
ActivationKind = Literal[
    "relu",
    "leaky_relu",
    "prelu",
    "elu",
    "celu",
    "selu",
    "gelu",
    "silu",
    "mish",
    "softplus",
    "hardswish",
    "hardsigmoid",
    "relu6",
    "sigmoid",
    "tanh",
    "softmax",
]


class Node(Settings):
    """A layer: its name, unique in the graph, and the names of the nodes it reads."""

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="Unique in the graph.")
    inputs: tuple[str, ...] = Field(min_length=1, description="Nodes it reads, in order.")


class Convolution(Node):
    """Weights: ``weight`` (out, in / groups, *kernel) and, with bias, ``bias`` (out,)."""

    op: Literal["convolution"] = "convolution"
    in_channels: int = Field(ge=1, description="Channels it reads.")
    out_channels: int = Field(ge=1, description="Channels it gives.")
    kernel: Sizes = Field(description="Size of the kernel.")
    stride: Sizes | None = Field(None, description="None: 1.")
    dilation: Sizes | None = Field(None, description="None: 1.")
    padding: Sides | None = Field(None, description="None: nothing.")
    padding_mode: PaddingMode = Field("zeros", description="What is padded with.")
    groups: int = Field(1, ge=1, description="Groups of channels, each on its own.")
    bias: bool = Field(True, description="Whether there is a bias.")


class TransposedConvolution(Node):
    """Weights: ``weight`` (in, out / groups, *kernel) and, with bias, ``bias`` (out,)."""

    op: Literal["transposed_convolution"] = "transposed_convolution"
    in_channels: int = Field(ge=1, description="Channels it reads.")
    out_channels: int = Field(ge=1, description="Channels it gives.")
    kernel: Sizes = Field(description="Size of the kernel.")
    stride: Sizes = Field(description="How many times larger the result is.")
    crop: Sides | None = Field(
        None, description="Pixels of the full result that are cut off; negative ones are added."
    )
    groups: int = Field(1, ge=1, description="Groups of channels, each on its own.")
    bias: bool = Field(True, description="Whether there is a bias.")


class Norm(Node):
    """Weights: with affine ``weight``, ``bias``; of batch norm ``running_mean``, ``running_var``.

    Each of shape (channels,).
    """

    op: Literal["norm"] = "norm"
    kind: Literal["batch", "instance", "group", "layer"] = Field(
        description="What is measured; layer: the channels of each pixel."
    )
    channels: int = Field(ge=1, description="Channels it reads and gives.")
    eps: float = Field(1e-5, ge=0, description="Added to the variance.")
    affine: bool = Field(True, description="Whether it scales and shifts afterwards.")
    groups: int = Field(1, ge=1, description="Groups of channels of group norm.")

    @property
    def measures_image(self) -> bool:
        """Whether it measures each image over all of its pixels."""
        return self.kind in {"instance", "group"}


class Activation(Node):
    """Pointwise, but softmax, which is over the channels.

    Weights: of prelu ``weight`` (channels,) or (1,).
    """

    op: Literal["activation"] = "activation"
    kind: ActivationKind = Field(description="Which function.")
    slope: float = Field(0.01, description="Of leaky_relu below 0; alpha of elu and celu.")
    channels: int = Field(1, ge=1, description="Weights of prelu.")


class Pooling(Node):
    """The largest value or the mean of a window."""

    op: Literal["pooling"] = "pooling"
    kind: Literal["max", "average"] = Field(description="What becomes of a window.")
    kernel: Sizes = Field(description="Size of the window.")
    stride: Sizes = Field(description="Steps of the window.")
    padding: Sides | None = Field(None, description="None: nothing.")
    counts_padding: bool = Field(True, description="Average: whether padded zeros count.")


class GlobalAverage(Node):
    """The mean over all pixels, of size 1 along each axis: tiles are then only approximate."""

    op: Literal["global_average"] = "global_average"


class Resize(Node):
    """Another size, by factors or, with a second input, the size of that one."""

    op: Literal["resize"] = "resize"
    mode: Literal["nearest", "linear", "cubic"] = Field("nearest", description="Interpolation.")
    scale: tuple[float, ...] | None = Field(None, description="Factor per axis.")
    align_corners: bool = Field(False, description="Corner pixels stay corner pixels.")


class PixelShuffle(Node):
    """Channels become pixels: factor**dims times fewer channels, each size times factor."""

    op: Literal["pixel_shuffle"] = "pixel_shuffle"
    factor: int = Field(ge=2, description="How many times larger the result is.")


class Pad(Node):
    """More pixels at the edges; fewer where negative."""

    op: Literal["pad"] = "pad"
    sides: Sides = Field(description="Pixels added.")
    mode: PaddingMode = Field("zeros", description="With what.")


class FitTo(Node):
    """The first input cropped or padded with zeros to the size of the second.

    ``centre``: the same on both sides, the odd pixel last when padding and when cropping;
    ``floor``: likewise, but the odd pixel is cropped first, as half a negative number that is
    rounded down does it; ``end``: at the end only.
    """

    op: Literal["fit_to"] = "fit_to"
    where: Literal["centre", "floor", "end"] = Field(
        "centre", description="Where pixels come and go."
    )
    mode: PaddingMode = Field("zeros", description="What is padded with.")


class Join(Node):
    """Several inputs become one: their channels side by side, or pixel by pixel.

    A size of 1 along an axis, and a single channel, are repeated as needed.
    """

    op: Literal["join"] = "join"
    how: JoinKind = Field(description="What is done with them.")


class Linear(Node):
    """``factor * value + offset``: numbers, or per channel the weights ``weight``, ``bias``."""

    op: Literal["linear"] = "linear"
    factor: float = Field(1.0, description="Every value is multiplied with it.")
    offset: float = Field(0.0, description="Then this is added.")
    channels: int = Field(0, ge=0, description="Weights per channel, or 0 for none.")


class Channels(Node):
    """Some of the channels: ``first`` to ``first + count - 1``."""

    op: Literal["channels"] = "channels"
    first: int = Field(ge=0, description="Counted from 0.")
    count: int = Field(ge=1, description="How many.")


class Dropout(Node):
    """Drops features while training; nothing otherwise."""

    op: Literal["dropout"] = "dropout"
    share: float = Field(0.5, ge=0, lt=1, description="Share that is dropped, 0..1.")
    whole_channels: bool = Field(False, description="Whole channels instead of single values.")


AnyNode = Annotated[
    Convolution
    | TransposedConvolution
    | Norm
    | Activation
    | Pooling
    | GlobalAverage
    | Resize
    | PixelShuffle
    | Pad
    | FitTo
    | Join
    | Linear
    | Channels
    | Dropout,
    Field(discriminator="op"),
]


class Graph(Settings):
    """A network: its nodes in the order in which they are computed."""

    family: str = Field("unknown", description="Where this kind of network is from.")
    spatial_dims: Literal[2, 3] = Field(2, description="2 for planes (YX), 3 for volumes (ZYX).")
    in_channels: int = Field(1, ge=1, description="Image channels the network sees at once.")
    classes: int = Field(1, ge=1, description="Output channels of the network.")
    nodes: tuple[AnyNode, ...] = Field(
        min_length=1, max_length=4096, description="The layers; the last gives the logits."
    )

    @model_validator(mode="after")
    def _reads_what_is_there(self) -> Self:
        known = {IMAGE}
        for node in self.nodes:
            unknown = [name for name in node.inputs if name not in known]
            if unknown:
                raise ValueError(f"layer {node.name} reads {unknown[0]}, which does not precede it")
            if node.name in known:
                raise ValueError(f"two layers are called {node.name}")
            known.add(node.name)
            for sizes in (getattr(node, field, None) for field in ("kernel", "stride", "dilation")):
                if sizes is not None and (len(sizes) != self.spatial_dims or min(sizes) < 1):
                    raise ValueError(f"layer {node.name} has sizes {sizes} that do not fit")
        return self
