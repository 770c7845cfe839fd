"""Turns the operations of somebody's computation graph into a network that is data.

Readers of ONNX, TorchScript and Keras files walk through the operations of a file without
computing one of them, and tell them to a :class:`GraphBuilder`, which notes layers and weights.
Files that belong to one size of image, and files that compute sizes ("pad by half of what the
skip connection is larger"), both become networks of free size: every size is followed for many
sizes of the image at once, the *probes*, and a rule is looked for that fits all of them::

    probe                 0     1     2    ...
    image                512   513   514
    skip connection      512   513   514        the layer's result has the size of the skip
    upsampled            512   512   514   ->   connection for every probe: FitTo(x, skip)
    padded               512   513   514

A probe for which the original could not run either, because sizes do not fit, is dropped.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from pydantic import ValidationError

from napari_unet.errors import ModelError
from napari_unet.models.found import Found
from napari_unet.network.graph import (
    IMAGE,
    Activation,
    AnyNode,
    Channels,
    Convolution,
    Dropout,
    FitTo,
    GlobalAverage,
    Graph,
    Join,
    Linear,
    Norm,
    Pad,
    PixelShuffle,
    Pooling,
    Resize,
    TransposedConvolution,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unet.network.graph import ActivationKind, JoinKind, PaddingMode, Sides, Sizes

    Ints = NDArray[np.int64]

MAX_NODES = 4096
BATCH, CHANNEL = 0, 1
_PROBES = 64
_SMALLEST_PROBE_PX = 512
_MAX_EXPANDED_WEIGHTS = 1 << 24
_NEGLIGIBLE = 1e-6
_MATCHING = 0.2  # share of the probes


@dataclass(frozen=True, eq=False)
class Feature:
    """What a layer gives: its name, channels, sizes for all probes, and how its axes are ordered.

    Attributes
    ----------
    node : str
        The layer, or ``image``.
    channels : int
        Number of channels.
    sizes : ndarray of int64, shape (probes, spatial axes)
        Pixels along each axis.
    order : tuple of int
        Which axis of (N, C, *spatial) stands at each place: (0, 2, 3, 1) is channels last. Where
        spatial axes are of size 1 they may be missing.
    """

    node: str
    channels: int
    sizes: Ints
    order: tuple[int, ...]

    @property
    def shape(self) -> list[Ints]:
        """Size along each axis in the feature's own order, for all probes."""
        ones = np.ones(len(self.sizes), np.int64)
        of_axis = [ones, ones * self.channels, *self.sizes.T]
        return [of_axis[axis] for axis in self.order]

    @property
    def plain(self) -> tuple[int, ...]:
        """The order (N, C, *spatial)."""
        return tuple(range(2 + self.sizes.shape[1]))

    def reordered(self, order: tuple[int, ...]) -> Feature:
        """Return the same feature with its axes in another order."""
        return Feature(self.node, self.channels, self.sizes, order)


def probe_sizes(spatial_dims: int, declared: Sequence[int | None] | None = None) -> Ints:
    """Choose the sizes of image that are followed through a network.

    Parameters
    ----------
    spatial_dims : int
        2 or 3.
    declared : sequence of int or None, optional
        Size along each axis in pixels where the file fixes it, None where it is free.

    Returns
    -------
    ndarray of int64, shape (probes, spatial axes)
        One probe if all axes are fixed.
    """
    declared = list(declared or [None] * spatial_dims)
    if all(size is not None for size in declared):
        return np.array([declared], np.int64)
    steps = np.arange(_PROBES)
    columns = [
        np.full(_PROBES, size) if size is not None else _SMALLEST_PROBE_PX * (axis + 1) + steps
        for axis, size in enumerate(declared)
    ]
    return np.stack(columns, axis=1).astype(np.int64)


class GraphBuilder:
    """Takes operations one by one and gives the network.

    Parameters
    ----------
    spatial_dims : int
        2 or 3.
    in_channels : int
        Channels of the image.
    sizes : ndarray of int64, shape (probes, spatial axes)
        Sizes of image that are followed.
    """

    def __init__(self, spatial_dims: int, in_channels: int, sizes: Ints) -> None:
        if spatial_dims not in {2, 3}:
            raise ModelError(
                f"The network works on data with {spatial_dims} spatial axes; planes have 2 and "
                "volumes have 3. Use a network for images."
            )
        if in_channels < 1:
            raise ModelError(
                "The file does not tell how many channels the image has. Export the network "
                "with a fixed number of channels."
            )
        self.dims = spatial_dims
        self.in_channels = in_channels
        self.alive = np.ones(len(sizes), bool)
        self.nodes: dict[str, AnyNode] = {}
        self.tensors: dict[str, dict[str, torch.Tensor]] = {}
        self.features: dict[str, Feature] = {}
        self.assumed: dict[str, str] = {}
        self.image = Feature(IMAGE, in_channels, sizes, tuple(range(2 + spatial_dims)))
        self.features[IMAGE] = self.image
        self._errors_of_gelu: dict[str, Feature] = {}
        self._half_cropped: dict[str, tuple[Feature, Ints, Ints, ModelError]] = {}
        self._scaled_from: dict[str, tuple[Feature, float, float]] = {}

    # ------------------------------------------------------------------------------- layers

    def convolution(
        self,
        x: Feature,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        *,
        stride: Sequence[int] = (),
        dilation: Sequence[int] = (),
        padding: Sides = (),
        padding_mode: PaddingMode = "zeros",
        groups: int = 1,
        name: str = "",
    ) -> Feature:
        """Add a convolution; weight (out, in / groups, *kernel)."""
        x = self._plain(x)
        stride, dilation = self._each(stride, 1), self._each(dilation, 1)
        sides = padding or ((0, 0),) * self.dims
        self._check_kernel(weight, "convolution")
        out_channels, kernel = weight.shape[0], tuple(weight.shape[2:])
        if weight.shape[1] * groups != x.channels or out_channels % groups:
            raise _does_not_fit("convolution", tuple(weight.shape), x.channels)
        sizes = _window_sizes(x.sizes, kernel, stride, dilation, sides)
        node = Convolution(
            name=self._free(name or "conv"),
            inputs=(x.node,),
            in_channels=x.channels,
            out_channels=out_channels,
            kernel=kernel,
            stride=None if set(stride) == {1} else stride,
            dilation=None if set(dilation) == {1} else dilation,
            padding=sides if any(map(any, sides)) else None,
            padding_mode=padding_mode,
            groups=groups,
            bias=bias is not None,
        )
        return self._add(node, out_channels, sizes, weight=weight, bias=bias)

    def transposed_convolution(
        self,
        x: Feature,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        *,
        stride: Sequence[int],
        crop: Sides = (),
        groups: int = 1,
        name: str = "",
    ) -> Feature:
        """Add a transposed convolution; weight (in, out / groups, *kernel)."""
        x = self._plain(x)
        stride = self._each(stride, 1)
        sides = crop or ((0, 0),) * self.dims
        self._check_kernel(weight, "transposed convolution")
        out_channels, kernel = weight.shape[1] * groups, tuple(weight.shape[2:])
        if weight.shape[0] != x.channels or x.channels % groups:
            raise _does_not_fit("transposed convolution", tuple(weight.shape), x.channels)
        sizes = (x.sizes - 1) * stride + kernel - np.sum(sides, axis=1)
        node = TransposedConvolution(
            name=self._free(name or "up"),
            inputs=(x.node,),
            in_channels=x.channels,
            out_channels=out_channels,
            kernel=kernel,
            stride=stride,
            crop=sides if any(map(any, sides)) else None,
            groups=groups,
            bias=bias is not None,
        )
        return self._add(node, out_channels, sizes, weight=weight, bias=bias)

    def dense(
        self, x: Feature, weight: torch.Tensor, bias: torch.Tensor | None, name: str = ""
    ) -> Feature:
        """Add a layer that mixes the channels of each pixel; weight (out, in)."""
        kernel = weight.reshape(*weight.shape, *(1,) * self.dims)
        mixed = self.convolution(x.reordered(x.plain), kernel, bias, name=name)
        return mixed.reordered(x.order)

    def norm(
        self,
        x: Feature,
        kind: Literal["batch", "instance", "group"],
        weight: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
        *,
        mean: torch.Tensor | None = None,
        variance: torch.Tensor | None = None,
        eps: float = 1e-5,
        groups: int = 1,
        name: str = "",
    ) -> Feature:
        """Add a norm; each tensor of shape (channels,)."""
        x = self._plain(x)
        given = next((t for t in (weight, bias) if t is not None), None)
        if given is not None:
            weight = torch.ones_like(given) if weight is None else weight
            bias = torch.zeros_like(given) if bias is None else bias
        for tensor in (weight, bias, mean, variance):
            if tensor is not None and tuple(tensor.shape) != (x.channels,):
                raise _does_not_fit("norm", tuple(tensor.shape), x.channels)
        if kind == "group" and (groups < 1 or x.channels % groups):
            raise _does_not_fit("group norm", (groups,), x.channels)
        node = Norm(
            name=self._free(name or "norm"),
            inputs=(x.node,),
            kind=kind,
            channels=x.channels,
            eps=eps,
            affine=weight is not None,
            groups=groups,
        )
        counted = torch.zeros((), dtype=torch.int64) if kind == "batch" else None
        return self._add(
            node,
            x.channels,
            x.sizes,
            weight=weight,
            bias=bias,
            running_mean=mean,
            running_var=variance,
            num_batches_tracked=counted,
        )

    def activation(
        self,
        x: Feature,
        kind: ActivationKind,
        *,
        slope: float | None = None,
        weight: torch.Tensor | None = None,
        axis: int | None = None,
        name: str = "",
    ) -> Feature:
        """Add an activation; ``axis`` is that of softmax, in the feature's own order."""
        if axis is not None and x.order[axis] != CHANNEL:
            raise ModelError(
                "The network has a softmax that is not over the channels. No rule is known for "
                "it; export the network without it."
            )
        node = Activation(
            name=self._free(name or kind),
            inputs=(x.node,),
            kind=kind,
            slope=0.01 if slope is None else slope,
            channels=1 if weight is None else weight.numel(),
        )
        if weight is not None and weight.numel() not in {1, x.channels}:
            raise _does_not_fit("PReLU", tuple(weight.shape), x.channels)
        flat = None if weight is None else weight.flatten()
        return self._add(node, x.channels, x.sizes, order=x.order, weight=flat)

    def clip(self, x: Feature, low: float | None, high: float | None) -> Feature:
        """Add limits to the values."""
        if low is None:
            if high is None:
                return x
            flipped = self.activation(self.linear(x, -1.0, high), "relu")
            return self.linear(flipped, -1.0, high)
        if high is None:
            return self.linear(self.activation(self.linear(x, 1.0, -low), "relu"), 1.0, low)
        if high <= low:
            raise unsupported("Clip with no range")
        unit = (high - low) / 6.0
        inside = self.activation(self.linear(x, 1.0 / unit, -low / unit), "relu6")
        return self.linear(inside, unit, low)

    def pooling(
        self,
        x: Feature,
        kind: Literal["max", "average"],
        kernel: Sequence[int],
        *,
        stride: Sequence[int] = (),
        padding: Sides = (),
        ceil: bool = False,
        counts_padding: bool = True,
        name: str = "",
    ) -> Feature:
        """Add a pooling; with ``ceil`` a window may begin inside and end outside."""
        x = self._plain(x)
        window = self._each(kernel, 1)
        steps = self._each(stride, 1) if len(stride) else window
        sides = padding or ((0, 0),) * self.dims
        if ceil and any(step > 1 for step in steps):
            if kind == "average" and counts_padding:
                if any(map(any, sides)):
                    raise unsupported("average pooling with padding and ceil mode")
                counts_padding = False
            sides = tuple(
                (before, after + step - 1)
                for (before, after), step in zip(sides, steps, strict=True)
            )
        if any(p >= k for pair, k in zip(sides, window, strict=True) for p in pair):
            raise unsupported("pooling with windows that lie in the padding alone")
        sizes = _window_sizes(x.sizes, window, steps, (1,) * self.dims, sides)
        node = Pooling(
            name=self._free(name or "pool"),
            inputs=(x.node,),
            kind=kind,
            kernel=window,
            stride=steps,
            padding=sides if any(map(any, sides)) else None,
            counts_padding=counts_padding,
        )
        return self._add(node, x.channels, sizes)

    def global_average(self, x: Feature, name: str = "") -> Feature:
        """Add the mean over all pixels."""
        node = GlobalAverage(name=self._free(name or "mean"), inputs=(x.node,))
        return self._add(node, x.channels, np.ones_like(x.sizes), order=x.order)

    def resize(
        self,
        x: Feature,
        mode: Literal["nearest", "linear", "cubic"],
        *,
        scale: Sequence[float] | None = None,
        sizes: Ints | None = None,
        align_corners: bool = False,
        name: str = "",
    ) -> Feature:
        """Add another size: by factors, or sizes (probes, spatial axes) that a rule must fit."""
        x = self._plain(x)
        inputs: tuple[str, ...] = (x.node,)
        if sizes is not None:
            scale = self.constant_scale(x, sizes)
            if scale is None:
                inputs = (x.node, self._feature_of_size(sizes, "resizes to a size").node)
        elif scale is not None:
            if len(scale) != self.dims or not all(0 < s < 1e3 for s in scale):
                raise unsupported(f"resizing by {tuple(scale)}")
            sizes = np.floor(x.sizes * np.array(scale) + 1e-9).astype(np.int64)
        if sizes is None:
            raise unsupported("resizing to no size")
        if scale is not None and all(s == 1 for s in scale):
            return x
        node = Resize(
            name=self._free(name or "resize"),
            inputs=inputs,
            mode=mode,
            scale=None if scale is None else tuple(float(s) for s in scale),
            align_corners=align_corners and mode != "nearest",
        )
        return self._add(node, x.channels, sizes)

    def resize_from_corner(self, x: Feature, factors: Sequence[int]) -> Feature:
        """Add linear interpolation whose first pixel stays in place, as TensorFlow 1 did it."""
        factors = self._each(factors, 1)
        widened = self.pad_by(x, (0,) * self.dims, (1,) * self.dims, "replicate")
        kernel = torch.ones((1,) * self.dims)
        for axis, factor in enumerate(factors):
            ramp = 1 - torch.arange(1 - factor, factor).abs() / factor
            kernel = kernel * ramp.reshape([-1 if a == axis else 1 for a in range(self.dims)])
        return self.transposed_convolution(
            widened,
            kernel.expand(x.channels, 1, *kernel.shape).clone(),
            None,
            stride=factors,
            crop=tuple((f - 1, f) for f in factors),
            groups=x.channels,
        )

    def pixel_shuffle(self, x: Feature, factor: int, *, depth_first: bool = False) -> Feature:
        """Add channels that become pixels; ``depth_first`` as TensorFlow orders them."""
        x = self._plain(x)
        block = factor**self.dims
        if factor < 2 or x.channels % block:
            raise _does_not_fit("pixel shuffle", (factor,), x.channels)
        if depth_first:
            source = torch.arange(x.channels).reshape(block, -1).T.flatten()
            x = self.dense(x, torch.eye(x.channels)[source], None, "reorder")
        node = PixelShuffle(name=self._free("shuffle"), inputs=(x.node,), factor=factor)
        return self._add(node, x.channels // block, x.sizes * factor)

    def pad_by(
        self,
        x: Feature,
        before: Sequence[int | Ints],
        after: Sequence[int | Ints],
        mode: PaddingMode = "zeros",
        name: str = "",
    ) -> Feature:
        """Add pixels, negative ones are cut off; per spatial axis a number or one per probe."""
        x = self._plain(x)
        first = self._per_probe(before)
        last = self._per_probe(after)
        crops_only = not (first[self.alive] > 0).any() and not (last[self.alive] > 0).any()
        if x.node in self._half_cropped:
            x, cropped_first, cropped_last, refused = self._half_cropped[x.node]
            if not crops_only:
                raise refused
            first, last = first + cropped_first, last + cropped_last
        sizes = x.sizes + first + last
        if not (first[self.alive].any() or last[self.alive].any()):
            return x
        constant = all((v[self.alive] == v[self.alive][:1]).all() for v in (first, last))
        target = self._odd_target(sizes, first, last) if constant else None
        if constant and target is None:
            probe = int(np.flatnonzero(self.alive)[0])
            sides = tuple((int(a), int(b)) for a, b in zip(first[probe], last[probe], strict=True))
            pad = Pad(name=self._free(name or "pad"), inputs=(x.node,), sides=sides, mode=mode)
            return self._add(pad, x.channels, sizes)
        if target is None:
            try:
                target = self._feature_of_size(sizes, "crops or pads to a size")
            except ModelError as error:
                if not crops_only:
                    raise
                return self._crop_half(x, first, last, error)
        here = self.alive & (target.sizes == sizes).all(axis=1)
        more = target.sizes - x.sizes
        befores = {"centre": np.sign(more) * (np.abs(more) // 2), "floor": more // 2, "end": 0}
        fitting = [w for w, n in befores.items() if (first == n)[here].all()]
        if not fitting:
            raise unsupported("a crop or padding that depends on the size of the image")
        fit = FitTo(
            name=self._free(name or "fit"),
            inputs=(x.node, target.node),
            where=fitting[0],
            mode=mode,
        )
        sizes = target.sizes
        return self._add(fit, x.channels, sizes)

    def _crop_half(self, x: Feature, first: Ints, last: Ints, error: ModelError) -> Feature:
        """Note a crop that may go on: files cut to the size of a layer one axis after another."""
        name = self._free("cropped")
        result = Feature(name, x.channels, x.sizes + first + last, x.order)
        self.features[name] = result
        self._half_cropped[name] = (x, first, last, error)
        return result

    def join(
        self,
        how: JoinKind,
        parts: Sequence[Feature],
        name: str = "",
    ) -> Feature:
        """Add a layer that makes one of several."""
        if not parts:
            raise unsupported("joining nothing")
        order = parts[0].order
        if any(part.order != order for part in parts):
            raise ModelError(
                "The network joins layers whose axes are in different orders. No rule is known "
                "for it; export the network again, with all sizes fixed."
            )
        if how == "concatenate":
            channels = sum(part.channels for part in parts)
        else:
            channels = max(part.channels for part in parts)
            if any(part.channels not in {1, channels} for part in parts):
                raise _does_not_fit("sum", tuple(p.channels for p in parts), channels)
        if len(parts) == 1:
            return parts[0]
        gelu = self._as_gelu(parts) if how == "multiply" and len(parts) == 2 else None
        if gelu is not None:
            return gelu
        stack = np.stack([part.sizes for part in parts])
        sizes = stack.max(axis=0)
        fitting = stack == sizes
        if how != "concatenate":
            fitting |= stack == 1
        self._keep(fitting.all(axis=(0, 2)), "joins layers of different sizes")
        node = Join(
            name=self._free(name or how), inputs=tuple(part.node for part in parts), how=how
        )
        return self._add(node, channels, sizes, order=order)

    def linear(
        self,
        x: Feature,
        factor: float | torch.Tensor = 1.0,
        offset: float | torch.Tensor = 0.0,
        name: str = "",
    ) -> Feature:
        """Add ``factor * x + offset``: numbers, or tensors of shape (channels,).

        What was scaled just before is scaled once, and a norm without weights gets them.
        """
        for value in (factor, offset):
            if isinstance(value, torch.Tensor) and tuple(value.shape) != (x.channels,):
                raise _does_not_fit("factor", tuple(value.shape), x.channels)
        given = (factor, offset)
        source, factor, offset = self._unscaled(x, factor, offset)
        plain_numbers = not isinstance(factor, torch.Tensor) and not isinstance(
            offset, torch.Tensor
        )
        if plain_numbers and _close(factor, 1.0) and _close(offset, 0.0):
            return source
        before = self.nodes.get(source.node)
        if not plain_numbers:
            ones = torch.ones(x.channels)
            factor, offset = ones * factor, ones * offset
            if isinstance(before, Norm) and not before.affine:
                kept = dict(self.tensors[before.name], weight=factor, bias=offset)
                scaled = before.replace(name=self._free(before.name), affine=True)
                return self._add(scaled, x.channels, x.sizes, order=x.order, **kept)
        node = Linear(
            name=self._free(name or "scale"),
            inputs=(source.node,),
            factor=1.0 if isinstance(factor, torch.Tensor) else factor,
            offset=0.0 if isinstance(offset, torch.Tensor) else offset,
            channels=0 if plain_numbers else x.channels,
        )
        weights = {} if plain_numbers else {"weight": factor, "bias": offset}
        result = self._add(node, x.channels, x.sizes, order=x.order, **weights)  # type: ignore[arg-type]  # no tensors where plain numbers
        if isinstance(given[0], float) and isinstance(given[1], float):
            self._scaled_from[result.node] = (x, given[0], given[1])
        return result

    def channels(self, x: Feature, first: int, count: int) -> Feature:
        """Add a choice of channels."""
        if first < 0 or count < 1 or first + count > x.channels:
            raise _does_not_fit("choice of channels", (first, first + count), x.channels)
        if count == x.channels:
            return x
        node = Channels(name=self._free("channels"), inputs=(x.node,), first=first, count=count)
        return self._add(node, count, x.sizes, order=x.order)

    def slice(
        self, x: Feature, axis: int, start: int | Ints, stop: int | Ints, step: int = 1
    ) -> Feature:
        """Add a slice along an axis of the feature's own order, with Python's rules."""
        length = x.shape[axis]
        first = np.clip(np.where(np.less(start, 0), length + start, start), 0, length)
        last = np.clip(np.where(np.less(stop, 0), length + stop, stop), 0, length)
        if step != 1:
            raise unsupported(f"a slice in steps of {step}")
        place = x.order[axis]
        if place == BATCH:
            self._keep((first == 0) & (last == length), "takes images out of a batch")
            return x
        if place == CHANNEL:
            begin, end = self.same(first), self.same(last)
            return self.channels(x, begin, end - begin)
        before: list[int | Ints] = [0] * self.dims
        after: list[int | Ints] = [0] * self.dims
        before[place - 2], after[place - 2] = -first, last - length
        return self.pad_by(x.reordered(x.plain), before, after).reordered(x.order)

    def reshape(self, x: Feature, target: Ints) -> Feature:
        """Give the same numbers another shape (probes, axes) that keeps the image, -1 is the rest.

        Axes of size 1 may go and come back; nothing is mixed.
        """
        now = np.stack(x.shape, axis=1)
        total = now.prod(axis=1)
        known = np.where(target < 0, 1, target).prod(axis=1)
        target = np.where(target < 0, (total // np.maximum(known, 1))[:, None], target)
        wanted = target[self.alive]
        orders = [x.order]
        if (x.sizes == 1)[self.alive].all():
            # A single pixel: its axes may go, come back and stand on either side of the channels.
            spatial = tuple(range(2, 2 + self.dims))[: max(wanted.shape[1] - 2, 0)]
            orders += [
                (BATCH, *spatial[:place], CHANNEL, *spatial[place:])
                for place in range(len(spatial) + 1)
            ]
        for order in orders:
            shape = np.stack(x.reordered(order).shape, axis=1)[self.alive]
            if shape.shape == wanted.shape and (shape == wanted).all():
                return x.reordered(order)
        raise unsupported("a reshape of a layer's result")

    def dropout(self, x: Feature, share: float, *, whole_channels: bool = False) -> Feature:
        """Add what drops features while training; nothing for a share of 0."""
        if not 0 < share < 1:
            return x
        node = Dropout(
            name=self._free("dropout"),
            inputs=(x.node,),
            share=share,
            whole_channels=whole_channels,
        )
        return self._add(node, x.channels, x.sizes, order=x.order)

    def error_function(self, x: Feature) -> Feature:
        """Note the error function: it is only known as a part of GELU."""
        name = self._free("erf")
        result = Feature(name, x.channels, x.sizes, x.order)
        self.features[name] = result
        self._errors_of_gelu[name] = x
        return result

    # ------------------------------------------------------------------------------- result

    def found(
        self, output: Feature, *, family: str, title: str = "", card: dict[str, Any] | None = None
    ) -> Found:
        """Give the network that ends with a layer.

        Parameters
        ----------
        output : Feature
            What the original gives.
        family : str
            Where the network is from.
        title : str
            Tells this reading from others.
        card : dict, optional
            What else is known.

        Returns
        -------
        Found
            A sigmoid or softmax at the end is taken off and stands in the card.

        Raises
        ------
        ModelError
            If the result is no image, or the network has a layer that has no meaning alone.
        """
        if len(output.order) != 2 + self.dims:
            raise ModelError(
                "The network gives numbers for the whole image, not an image. Use a network for "
                "segmentation, which gives a value for each pixel."
            )
        activation, last = self._without_activation(output)
        needed = self._needed(last)
        nodes = tuple(node for name, node in self.nodes.items() if name in needed)
        if not nodes:
            raise ModelError(
                "The network in the file has no layers. Use the file of a trained network."
            )
        try:
            graph = Graph(
                family=family,
                spatial_dims=2 if self.dims == 2 else 3,
                in_channels=self.in_channels,
                classes=last.channels,
                nodes=nodes,
            )
        except ValidationError as error:
            raise ModelError(
                f"The network in the file is no network we can describe: "
                f"{error.errors()[0]['msg']}. Ask for a state dict of the weights instead."
            ) from error
        tensors = {
            f"{node.name}.{key}": tensor
            for node in nodes
            for key, tensor in self.tensors.get(node.name, {}).items()
        }
        for key, tensor in tensors.items():
            if not bool(torch.isfinite(tensor).all()):
                raise ModelError(
                    f"The weights {key} hold values that are not finite numbers, so the network "
                    "cannot give an answer. Use an undamaged copy or an earlier version."
                )
        known: dict[str, Any] = {"activation": activation, **(card or {})}
        return Found(graph, tensors, known, dict(self.assumed), title)

    def readings(self, output: Feature, family: str, title: str = "") -> list[Found]:
        """Give the network that ends with a layer, and how its values may be meant."""
        plain = self.found(output, family=family, title=title)
        last = plain.architecture.nodes[-1] if isinstance(plain.architecture, Graph) else None
        if plain.card["activation"] != "none" or not isinstance(last, Convolution | Linear | Norm):
            return [plain]
        other = "sigmoid" if plain.architecture.classes == 1 else "softmax"
        sentence = (
            f"The network ends without sigmoid or softmax, as most are saved: a {other} is added. "
            "If it gives values from 0 to 1 by itself, choose the reading with values as they are."
        )
        made = replace(
            plain,
            card={**plain.card, "activation": other},
            assumed={**plain.assumed, "activation": sentence},
            title=", ".join(filter(None, (title, f"with a {other}"))),
        )
        sentence = "The network ends without sigmoid or softmax: its values are taken as they are."
        as_it_is = replace(
            plain,
            assumed={**plain.assumed, "activation": sentence},
            title=", ".join(filter(None, (title, "values as they are"))),
        )
        return [made, as_it_is]

    def same(self, value: int | Ints) -> int:
        """Return the one value that all living probes have."""
        values = np.broadcast_to(np.asarray(value), self.alive.shape)[self.alive]
        if not len(values) or (values != values[0]).any():
            raise unsupported("a number that depends on the size of the image")
        return int(values[0])

    def either(
        self, one: Feature, mask: NDArray[np.bool_], other: Feature, other_mask: NDArray[np.bool_]
    ) -> Feature | None:
        """Find the layer that does what two branches do, each for its own probes.

        That is the one which fits to a size, where the other branch has that size already.
        """
        for done, here, left, there in (
            (one, mask, other, other_mask),
            (other, other_mask, one, mask),
        ):
            node = self.nodes.get(done.node)
            fits = isinstance(node, FitTo) or (isinstance(node, Resize) and len(node.inputs) == 2)
            if node is None or not fits or node.inputs[0] != left.node:
                continue
            if (self.features[node.inputs[1]].sizes == left.sizes)[there].all():
                sizes = np.where(here[:, None], done.sizes, left.sizes)
                merged = Feature(done.node, done.channels, sizes, done.order)
                self.features[done.node] = merged
                return merged
        return one if one.node == other.node and one.order == other.order else None

    def kill(self, condition: NDArray[np.bool_], why: str) -> None:
        """Drop the probes for which the original cannot run."""
        self._keep(~condition, why)

    # ------------------------------------------------------------------------------ helpers

    def _add(
        self,
        node: AnyNode,
        channels: int,
        sizes: Ints,
        *,
        order: tuple[int, ...] | None = None,
        **tensors: torch.Tensor | None,
    ) -> Feature:
        """Note a layer and its weights."""
        if len(self.nodes) >= MAX_NODES:
            raise ModelError(
                f"The network has more than {MAX_NODES} layers. Use one for microscopy images."
            )
        sizes = np.asarray(sizes, np.int64)
        self._keep(np.all(sizes > 0, axis=1), "leaves no pixels")
        self.nodes[node.name] = node
        kept = {key: _stored(tensor) for key, tensor in tensors.items() if tensor is not None}
        self.tensors[node.name] = kept
        feature = Feature(node.name, channels, sizes, order or tuple(range(2 + self.dims)))
        self.features[node.name] = feature
        return feature

    def _keep(self, condition: NDArray[np.bool_] | np.bool_, what: str) -> None:
        """Drop the probes that do not satisfy a condition; some must be left."""
        self.alive &= condition
        if not self.alive.any():
            raise ModelError(
                f"The network {what}, whatever the size of the image. The file is damaged or "
                "its layers are of a kind that is not known; use a state dict of the weights."
            )

    def _free(self, wanted: str) -> str:
        """Make a name that a layer may have and none has."""
        base = re.sub(r"[^A-Za-z0-9_]+", "_", wanted).strip("_")[:80] or "layer"
        if base[0].isdigit() or base == IMAGE:
            base = f"n{base}"
        name, number = base, 2
        while name in self.features:
            name, number = f"{base}_{number}", number + 1
        return name

    def _each(self, values: Sequence[int], default: int) -> Sizes:
        """Return one positive number per spatial axis."""
        numbers = tuple(int(v) for v in values) or (default,) * self.dims
        if len(numbers) == 1:
            numbers *= self.dims
        if len(numbers) != self.dims or min(numbers) < 1 or max(numbers) > 1 << 16:
            raise ModelError(
                f"A layer has the sizes {numbers}, {self.dims} numbers of at least 1 were "
                "expected. The file is damaged; use an undamaged copy."
            )
        return numbers

    def _per_probe(self, values: Sequence[int | Ints]) -> Ints:
        """Return numbers per spatial axis as an array (probes, spatial axes)."""
        columns = [np.broadcast_to(np.asarray(v, np.int64), self.alive.shape) for v in values]
        if len(columns) != self.dims:
            raise unsupported(f"padding along {len(columns)} axes")
        return np.stack(columns, axis=1)

    def _plain(self, x: Feature) -> Feature:
        """Refuse a feature whose axes are not (N, C, *spatial)."""
        if x.order != x.plain:
            raise ModelError(
                "A layer of the network reads data whose axes are in an order that is not known. "
                "Export the network again, with a current version of its library."
            )
        return x

    def _check_kernel(self, weight: torch.Tensor, what: str) -> None:
        """Refuse weights of another number of axes, and empty ones."""
        if weight.ndim != 2 + self.dims or 0 in weight.shape:
            raise ModelError(
                f"The weights of a {what} have the shape {tuple(weight.shape)}, {2 + self.dims} "
                "axes were expected. The network is not for this kind of image."
            )

    def constant_scale(self, x: Feature, sizes: Ints) -> tuple[float, ...] | None:
        """Find the factors by which all probes grow, if they are the same for all."""
        here, there = x.sizes[self.alive], sizes[self.alive]
        if not (there > 0).all():
            return None
        ratio = there / here
        simple = np.rint(ratio[0] * 16) == ratio[0] * 16
        if (ratio == ratio[0]).all() and simple.all():
            return tuple(float(r) for r in ratio[0])
        return None

    def _feature_of_size(self, sizes: Ints, what: str) -> Feature:
        """Find a layer that has a size for all probes, the newest first."""
        for feature in reversed(self.features.values()):
            if feature.node in self._errors_of_gelu or feature.node in self._half_cropped:
                continue
            if (feature.sizes == sizes)[self.alive].all():
                return feature
        raise ModelError(
            f"The network {what} that is neither fixed nor that of another layer. Export it for "
            "images of one size, without dynamic axes, or use a state dict of the weights."
        )

    def _odd_target(self, sizes: Ints, first: Ints, last: Ints) -> Feature | None:
        """Find the layer whose size was wanted where one pixel more is padded at the end.

        So it stands in a file that was written for one size of image, an odd one.
        """
        uneven = np.abs(first - last)[self.alive]
        if not uneven.any() or (uneven > 1).any():
            return None
        for feature in reversed(self.features.values()):
            matching = (feature.sizes == sizes).all(axis=1)[self.alive]
            is_layer = feature.node not in {*self._errors_of_gelu, *self._half_cropped}
            if is_layer and matching.mean() >= _MATCHING:
                return feature
        return None

    def _unscaled(
        self, x: Feature, factor: float | torch.Tensor, offset: float | torch.Tensor
    ) -> tuple[Feature, float | torch.Tensor, float | torch.Tensor]:
        """Look through a scaling or the scale of a norm: its source and the joint numbers."""
        before = self.nodes.get(x.node)
        held = self.tensors.get(x.node, {})
        if isinstance(before, Linear):
            inner = held.get("weight", before.factor)
            added = held.get("bias", before.offset)
            source = self.features[before.inputs[0]].reordered(x.order)
            return source, inner * factor, added * factor + offset
        return x, factor, offset

    def _as_gelu(self, parts: Sequence[Feature]) -> Feature | None:
        """Recognise ``x * (1 + erf(x / sqrt(2)))``, with factors anywhere."""
        for x, bracket in (parts, parts[::-1]):
            for erf, factor, shift in self._chain(bracket):
                inner = self._errors_of_gelu.get(erf.node)
                if inner is None or not _close(factor, shift):
                    continue
                for source, stretch, moved in self._chain(inner):
                    for same, times, more in self._chain(x):
                        is_gelu = _close(stretch, math.sqrt(0.5)) and not moved and not more
                        if source.node == same.node and is_gelu:
                            curve = self.activation(source, "gelu")
                            return self.linear(curve, 2.0 * factor * times)
        return None

    def _chain(self, x: Feature) -> list[tuple[Feature, float, float]]:
        """List what a feature was scaled from, with factor and offset: itself first."""
        chain = [(x, 1.0, 0.0)]
        while x.node in self._scaled_from:
            x, inner, added = self._scaled_from[x.node]
            _, factor, offset = chain[-1]
            chain.append((x, inner * factor, added * factor + offset))
        return chain

    def _without_activation(self, output: Feature) -> tuple[str, Feature]:
        """Take a sigmoid or softmax off the end."""
        node = self.nodes.get(output.node)
        while isinstance(node, Dropout):
            output = self.features[node.inputs[0]]
            node = self.nodes.get(output.node)
        if isinstance(node, Activation) and node.kind in {"sigmoid", "softmax"}:
            source = self.features[node.inputs[0]]
            if source.node in self.nodes:
                return node.kind, source
        return "none", output

    def _needed(self, last: Feature) -> set[str]:
        """Collect the layers that a result depends on."""
        needed: set[str] = set()
        waiting = [last.node]
        while waiting:
            name = waiting.pop()
            if name in needed or name == IMAGE:
                continue
            if name in self._errors_of_gelu:
                raise unsupported("Erf")
            if name in self._half_cropped:
                raise self._half_cropped[name][-1]
            needed.add(name)
            waiting.extend(self.nodes[name].inputs)
        return needed


def unsupported(what: str) -> ModelError:
    """Say that an operation is not known.

    Parameters
    ----------
    what : str
        Its name, or a few words.

    Returns
    -------
    ModelError
        To be raised.
    """
    return ModelError(
        f"The network uses an operation that is not supported: {what}. Ask for a network of "
        "convolutions, norms, poolings and upsamplings, or for a state dict of its weights."
    )


def _does_not_fit(what: str, shape: tuple[int, ...], channels: int) -> ModelError:
    """Say that weights do not fit the channels they are applied to."""
    return ModelError(
        f"The {what} of shape {shape} does not fit the {channels} channels it reads. The file is "
        "damaged or holds only a part of a network; use an undamaged copy."
    )


def _window_sizes(
    sizes: Ints,
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    padding: Sides,
) -> Ints:
    """Count the places of a window along each axis."""
    reach = (np.array(kernel) - 1) * np.array(dilation) + 1
    count: Ints = (sizes + np.sum(padding, axis=1) - reach) // np.array(stride) + 1
    return count


def _close(a: float | torch.Tensor, b: float | torch.Tensor) -> bool:
    """Whether two plain numbers are the same but for rounding."""
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
        return False
    return abs(a - b) <= _NEGLIGIBLE * max(1.0, abs(a))


def _stored(tensor: torch.Tensor) -> torch.Tensor:
    """Copy a weight onto its own memory, real ones as float32 at most."""
    if tensor.is_floating_point():
        tensor = tensor.float()
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def all_found(
    builder: GraphBuilder, images: Sequence[tuple[str, Feature]], family: str
) -> list[Found]:
    """Give a network for each result that is an image.

    Parameters
    ----------
    builder : GraphBuilder
        Knows the layers.
    images : sequence of tuple of str and Feature
        Each result, with words that tell it from the others.
    family : str
        Where the network is from.

    Returns
    -------
    list of Found
        Where nothing tells whether values are probabilities, a reading that makes them so comes
        after the one that takes them as they are.

    Raises
    ------
    ModelError
        If no result is an image.
    """
    found: list[Found] = []
    refused: ModelError | None = None
    for title, feature in images:
        name = title if len(images) > 1 else ""
        try:
            found += builder.readings(feature, family, name)
        except ModelError as error:
            refused = refused or error
    if not found:
        raise refused or unsupported("a result that is no image")
    return found
