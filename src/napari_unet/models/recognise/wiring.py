"""Layers become the nodes of a graph, one after the other, and their tensors go along.

A recogniser knows how its library wires a network. It names the layers in that order, and the
wiring looks each of them up, compares the channels that arrive with those the weight expects,
and writes node and tensors down. A tensor that is missing, does not fit, or is never asked for
ends the recognition with a sentence: a network is never built in part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from napari_unet.errors import ModelError
from napari_unet.models.recognise.layers import Layer
from napari_unet.network.graph import (
    IMAGE,
    Activation,
    AnyNode,
    Convolution,
    FitTo,
    GlobalAverage,
    Graph,
    Join,
    Norm,
    PixelShuffle,
    Pooling,
    Resize,
    TransposedConvolution,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_unet.models.recognise.layers import Layers
    from napari_unet.network.graph import ActivationKind, PaddingMode, Sides, Sizes

BIASED = "always"
"""The word for convolutions that have a bias in every network of the family."""

_NAMED = 3  # tensors that a sentence names
_CHANNEL_AXES = 2  # of the weight of a convolution
Weighted = Convolution | TransposedConvolution | Norm | Activation


class MisfitError(ModelError):
    """The names are those of a library's network, but tensors are missing, left over or differ."""


class Wiring:
    """Collects the nodes of a graph and the tensors that belong to them.

    Parameters
    ----------
    layers : Layers
        What the file holds.
    family : str
        Whose network it is, as in "a DynUNet of MONAI"; told in sentences and in the graph.
    first : str
        Name of the convolution that reads the image.

    Raises
    ------
    ModelError
        If that convolution is missing, or it is none for planes or volumes.
    """

    def __init__(self, layers: Layers, family: str, first: str) -> None:
        self.family = family
        self.nodes: list[AnyNode] = []
        self.tensors: dict[str, torch.Tensor] = {}
        self._layers = layers
        self._used: set[str] = set()
        self._channels: dict[str, int] = {}
        self._biased = {BIASED: True}
        self._first_with: dict[str, str] = {}
        weight = self.layer(first, "convolution").weight
        if weight.ndim not in (4, 5):
            raise self.misfit(f"{first}.weight has {weight.ndim} axes; planes need 4 and volumes 5")
        self.spatial_dims: Literal[2, 3] = 2 if weight.ndim == 4 else 3
        self._channels[IMAGE] = int(weight.shape[1])

    def channels(self, node: str) -> int:
        """Say how many channels a node gives."""
        return self._channels[node]

    def has(self, name: str) -> bool:
        """Say whether the file holds a layer."""
        return name in self._layers

    def layer(self, name: str, kind: str) -> Layer:
        """Return a layer that has to be there, and count its tensors as read."""
        if name not in self._layers or "weight" not in (layer := self._layers[name]).tensors:
            raise self.misfit(f"{name}.weight is missing, the weight of a {kind}")
        if layer.weight.numel() == 0:
            raise self.misfit(f"{name}.weight is empty")
        self._used.add(name)
        return layer

    def misfit(self, difference: str) -> MisfitError:
        """Return the sentence that ends the recognition."""
        return MisfitError(
            f"The tensors have the names of {self.family}, but {difference}. The file is "
            "incomplete or of a changed network: get the complete state dict, or an ONNX or "
            "TorchScript file, which tells its layers."
        )

    def kernel(self, name: str, kind: str = "convolution") -> Sizes:
        """Return the kernel of a convolution over as many axes as the first has."""
        layer = self.layer(name, kind)
        if len(layer.kernel) != self.spatial_dims:
            raise self.misfit(
                f"{name}.weight has {layer.weight.ndim} axes and that of the first convolution "
                f"{self.spatial_dims + _CHANNEL_AXES}"
            )
        return layer.kernel

    def convolution(
        self,
        name: str,
        reads: str,
        *,
        stride: int | Sizes = 1,
        padding: Sides | None = None,
        grouped: bool = False,
        bias: str = BIASED,
    ) -> str:
        """Add a convolution; without ``padding`` half the kernel, which keeps the size.

        All convolutions with the same word for ``bias`` have one, or none of them has.
        """
        kernel = self.kernel(name)
        layer = self.layer(name, "convolution")
        out_channels, expected = layer.sizes
        channels = self._channels[reads]
        groups = channels // expected if grouped and channels % expected == 0 else 1
        if channels != expected * groups or out_channels % groups:
            raise self.misfit(f"{name} reads {expected} channels where {channels} arrive")
        node = Convolution(
            name=self._name(name),
            inputs=(reads,),
            in_channels=channels,
            out_channels=out_channels,
            kernel=kernel,
            stride=self._each_axis(stride),
            padding=padding or tuple((size // 2, size // 2) for size in kernel),
            groups=groups,
            bias=self._has_bias(layer, bias),
        )
        return self._place(layer, node, out_channels)

    def transposed(
        self,
        name: str,
        reads: str,
        *,
        stride: int | Sizes,
        crop: Sides | None = None,
        bias: str = BIASED,
    ) -> str:
        """Add a transposed convolution; ``crop`` is cut off the full result."""
        kernel = self.kernel(name, "transposed convolution")
        layer = self.layer(name, "transposed convolution")
        expected, out_channels = layer.sizes
        if expected != self._channels[reads]:
            raise self.misfit(
                f"{name} reads {expected} channels where {self._channels[reads]} arrive"
            )
        node = TransposedConvolution(
            name=self._name(name),
            inputs=(reads,),
            in_channels=expected,
            out_channels=out_channels,
            kernel=kernel,
            stride=self._each_axis(stride),
            crop=crop,
            bias=self._has_bias(layer, bias),
        )
        return self._place(layer, node, out_channels)

    def norm(
        self,
        name: str,
        reads: str,
        *,
        affine: Literal["instance", "group"] = "instance",
        groups: int = 1,
        bare: Literal["instance", "none", "refused"] = "refused",
        eps: float = 1e-5,
    ) -> str:
        """Add a norm.

        Statistics in the file make it batch norm, weights without statistics what ``affine``
        says; where there are no tensors at all, ``bare`` decides.
        """
        channels = self._channels[reads]
        if not self.has(name):
            if bare == "refused":
                raise self.misfit(f"{name}.weight is missing, the weight of a norm")
            if bare == "none":
                return reads
        layer = self._layers[name] if self.has(name) else Layer(name, "norm", {})
        self._used.add(name)
        kind: Literal["batch", "instance", "group"] = affine if layer.tensors else "instance"
        if {"running_mean", "running_var"} & layer.tensors.keys():
            kind = "batch"
        if kind == "group" and channels % groups:
            raise self.misfit(f"{channels} channels of {name} do not divide into {groups} groups")
        node = Norm(
            name=self._name(name),
            inputs=(reads,),
            kind=kind,
            channels=channels,
            affine=bool({"weight", "bias"} & layer.tensors.keys()),
            groups=groups if kind == "group" else 1,
            eps=eps,
        )
        self._place(layer, node, channels)
        if kind == "batch":
            self.tensors[f"{node.name}.num_batches_tracked"] = torch.tensor(0)
        return node.name

    def prelu(self, name: str, reads: str) -> str:
        """Add an activation whose slopes below zero are in the file."""
        layer, channels = self.layer(name, "PReLU"), self._channels[reads]
        slopes = layer.weight.numel()
        if slopes not in (1, channels):
            raise self.misfit(f"{name} has {slopes} slopes for {channels} channels")
        node = Activation(name=self._name(name), inputs=(reads,), kind="prelu", channels=slopes)
        return self._place(layer, node, channels)

    def activation(self, kind: ActivationKind, reads: str, slope: float = 0.01) -> str:
        """Add an activation without weights."""
        node = Activation(name=self._name(kind), inputs=(reads,), kind=kind, slope=slope)
        return self._add(node, self._channels[reads])

    def pooling(
        self, reads: str, *, kernel: int | Sizes = 2, kind: Literal["max", "average"] = "max"
    ) -> str:
        """Keep the largest value, or the mean, of windows side by side."""
        sizes = self._each_axis(kernel)
        node = Pooling(
            name=self._name("pool"), inputs=(reads,), kind=kind, kernel=sizes, stride=sizes
        )
        return self._add(node, self._channels[reads])

    def stem_pooling(self, reads: str) -> str:
        """Keep the largest value of 3 x 3 windows two pixels apart, as a ResNet does."""
        node = Pooling(
            name=self._name("pool"),
            inputs=(reads,),
            kind="max",
            kernel=self._each_axis(3),
            stride=self._each_axis(2),
            padding=((1, 1),) * self.spatial_dims,
        )
        return self._add(node, self._channels[reads])

    def mean_of_corner(self, reads: str) -> str:
        """Average each pixel with those before it, zeros beyond the edge."""
        node = Pooling(
            name=self._name("mean"),
            inputs=(reads,),
            kind="average",
            kernel=self._each_axis(2),
            stride=self._each_axis(1),
            padding=((1, 0),) * self.spatial_dims,
        )
        return self._add(node, self._channels[reads])

    def global_average(self, reads: str) -> str:
        """Average over the whole image."""
        node = GlobalAverage(name=self._name("average"), inputs=(reads,))
        return self._add(node, self._channels[reads])

    def resize(
        self,
        reads: str,
        *,
        mode: Literal["nearest", "linear"],
        scale: float | tuple[float, ...] | None = None,
        like: str | None = None,
        align_corners: bool = False,
    ) -> str:
        """Resize by a factor, or to the size of the node ``like``."""
        if scale is not None and not isinstance(scale, tuple):
            scale = (float(scale),) * self.spatial_dims
        node = Resize(
            name=self._name("resize"),
            inputs=(reads,) if like is None else (reads, like),
            mode=mode,
            scale=scale,
            align_corners=align_corners,
        )
        return self._add(node, self._channels[reads])

    def pixel_shuffle(self, reads: str, factor: int) -> str:
        """Turn channels into pixels."""
        channels, cells = self._channels[reads], factor**self.spatial_dims
        if channels % cells:
            raise self.misfit(f"{channels} channels do not divide into {cells} pixels")
        node = PixelShuffle(name=self._name("shuffle"), inputs=(reads,), factor=factor)
        return self._add(node, channels // cells)

    def fit(self, reads: str, like: str, mode: PaddingMode = "zeros") -> str:
        """Pad or crop at the end to the size of the node ``like``."""
        node = FitTo(name=self._name("fit"), inputs=(reads, like), where="end", mode=mode)
        return self._add(node, self._channels[reads])

    def concatenate(self, *reads: str) -> str:
        """Put channels side by side."""
        node = Join(name=self._name("concatenate"), inputs=reads, how="concatenate")
        return self._add(node, sum(self._channels[name] for name in reads))

    def join(self, how: Literal["add", "multiply", "maximum"], *reads: str) -> str:
        """Combine pixel by pixel; a single channel may be multiplied with all."""
        counts = {self._channels[name] for name in reads} - ({1} if how == "multiply" else set())
        if len(counts) > 1:
            raise self.misfit(
                f"{sorted(counts)[0]} and {sorted(counts)[1]} channels meet where as many are "
                "expected"
            )
        node = Join(name=self._name(how), inputs=reads, how=how)
        return self._add(node, max(counts, default=1))

    def graph(self, ignored: Iterable[str] = ()) -> Graph:
        """Return the graph.

        Parameters
        ----------
        ignored : iterable of str
            Starts of the names of layers that serve training alone.

        Returns
        -------
        Graph
            The last node that was added gives the logits.

        Raises
        ------
        ModelError
            If tensors are left that no layer reads.
        """
        starts = tuple(ignored)
        left = [
            key
            for layer in self._layers
            if layer.name not in self._used and not f"{layer.name}.".startswith(starts)
            for key in (
                layer.tensors
                if layer.kind == "other"
                else (f"{layer.name}.{role}" for role in layer.tensors)
            )
        ]
        if left:
            more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
            raise self.misfit(f"there is no place in it for {', '.join(left[:_NAMED])}{more}")
        return Graph(
            family=self.family.partition(" ")[2],
            spatial_dims=self.spatial_dims,
            in_channels=self._channels[IMAGE],
            classes=self._channels[self.nodes[-1].name],
            nodes=tuple(self.nodes),
        )

    def _add(self, node: AnyNode, channels: int) -> str:
        """Append a node and return its name."""
        self.nodes.append(node)
        self._channels[node.name] = channels
        return node.name

    def _place(self, layer: Layer, node: Weighted, channels: int) -> str:
        """Append a node and keep the tensors of its layer: these shapes, and no others."""
        shapes = weight_shapes(node)
        for role in (*shapes, *layer.tensors):
            if role not in layer.tensors:
                raise self.misfit(f"{layer.name}.{role} is missing")
            if role not in shapes:
                raise self.misfit(f"there is no place in it for {layer.name}.{role}")
            shape = tuple(layer.tensors[role].shape)
            if shape != shapes[role]:
                raise self.misfit(
                    f"{layer.name}.{role} has the shape {shape} instead of {shapes[role]}"
                )
            self.tensors[f"{node.name}.{role}"] = layer.tensors[role]
        return self._add(node, channels)

    def _has_bias(self, layer: Layer, word: str) -> bool:
        """Say whether a layer has a bias; refuse it if others of its word differ."""
        expected = self._biased.setdefault(word, layer.has_bias)
        if layer.has_bias != expected:
            lacks = self._first_with[word] if layer.has_bias else layer.name
            raise self.misfit(f"{lacks}.bias is missing")
        self._first_with.setdefault(word, layer.name)
        return expected

    def _each_axis(self, size: int | Sizes) -> Sizes:
        """Repeat a number along all axes."""
        return (size,) * self.spatial_dims if isinstance(size, int) else size

    def _name(self, wanted: str) -> str:
        """Return a name for a node that is free and made of letters, digits and underscores."""
        plain = "".join(sign if sign.isascii() and sign.isalnum() else "_" for sign in wanted)
        plain = plain if plain[:1].isalpha() else f"layer_{plain}"
        name, number = plain, 1
        while name in self._channels:
            number += 1
            name = f"{plain}_{number}"
        return name


def weight_shapes(node: Weighted) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a node's tensors, by role."""
    if isinstance(node, Activation):
        return {"weight": (node.channels,)}
    if isinstance(node, Norm):
        roles = ["weight", "bias"] if node.affine else []
        roles += ["running_mean", "running_var"] if node.kind == "batch" else []
        return dict.fromkeys(roles, (node.channels,))
    channels = (node.out_channels, node.in_channels // node.groups)
    if isinstance(node, TransposedConvolution):
        channels = (node.in_channels, node.out_channels // node.groups)
    bias = {"bias": (node.out_channels,)} if node.bias else {}
    return {"weight": (*channels, *node.kernel), **bias}
