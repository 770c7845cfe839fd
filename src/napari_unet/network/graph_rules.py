"""One rule for each kind of node: channels and sizes of its result, and which pixels it reads.

Everything is said per axis, as the axes of a volume may differ. Nothing here computes features,
so what is said of a network that a stranger described costs nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from napari_unet.errors import ModelError
from napari_unet.network import graph as g
from napari_unet.network.receptive_field import Span

if TYPE_CHECKING:
    from napari_unet.network.graph import AnyNode, Graph

MOST_WEIGHTS = 2 * 10**9
LARGEST_SIDE = 2**15  # px that a layer pads or cuts
FINEST_SCALE = 64  # denominators of the factors by which features are resized


class TooSmall(ValueError):
    """Nothing is left of the features."""


class DoNotFit(ValueError):
    """Features that are joined have different sizes."""


def check_graph(graph: Graph) -> dict[str, int]:
    """Refuse a graph whose layers do not fit together, or that is absurdly large.

    Parameters
    ----------
    graph : Graph
        Any.

    Returns
    -------
    dict of str to int
        Channels of each node, and of the image.

    Raises
    ------
    ModelError
        With the layer that does not fit.
    """
    channels = {g.IMAGE: graph.in_channels}
    for node in graph.nodes:
        read = [channels[name] for name in node.inputs]
        problem = _problem(node, read, graph.spatial_dims)
        if problem:
            raise ModelError(
                f"The network cannot be built: layer {node.name} ({node.op}) {problem}. The "
                "description of the network is wrong."
            )
        channels[node.name] = _channels_after(node, read, graph.spatial_dims)
    last = channels[graph.nodes[-1].name]
    if last != graph.classes:
        raise ModelError(
            f"The network cannot be built: it gives {last} channels and is said to give "
            f"{graph.classes}. The description of the network is wrong."
        )
    count = sum(count_weights(node) for node in graph.nodes)
    if count > MOST_WEIGHTS:
        raise ModelError(
            f"The network is said to have {count:.2g} weights, more than the {MOST_WEIGHTS:.0e} "
            "that any U-Net has. The file is damaged, or not what it seems."
        )
    return channels


def count_weights(node: AnyNode) -> int:
    """Count the weights of a node from its options alone."""
    if isinstance(node, g.Convolution | g.TransposedConvolution):
        kernels = node.in_channels * node.out_channels // node.groups
        return kernels * math.prod(node.kernel) + node.bias * node.out_channels
    if isinstance(node, g.Norm):
        return 2 * node.channels * (node.affine + (node.kind == "batch"))
    if isinstance(node, g.Linear):
        return 2 * node.channels
    return node.channels if isinstance(node, g.Activation) and node.kind == "prelu" else 0


def sizes_along(graph: Graph, axis: int, size: int) -> dict[str, int]:
    """Say how large the features of all nodes are along an axis.

    Parameters
    ----------
    graph : Graph
        The network.
    axis : int
        Spatial axis, counted from 0.
    size : int
        Size of the image in pixels.

    Returns
    -------
    dict of str to int
        By the node's name; the image's, too.

    Raises
    ------
    TooSmall, DoNotFit
        If there is no result.
    """
    sizes = {g.IMAGE: size}
    for node in graph.nodes:
        sizes[node.name] = _size_after(node, axis, [sizes[name] for name in node.inputs])
        if sizes[node.name] < 1:
            raise TooSmall(node.name)
    return sizes


def rates_along(graph: Graph, axis: int) -> dict[str, Fraction]:
    """Say how many pixels of each node stand for one of the image; 0 for one pixel in all."""
    rates = {g.IMAGE: Fraction(1)}
    for node in graph.nodes:
        rates[node.name] = _rate_after(node, axis, [rates[name] for name in node.inputs])
    return rates


@dataclass(frozen=True)
class Window:
    """How a span of a node's result is computed, along one axis."""

    reads: tuple[Span | None, ...]
    """Pixels of each input, as far as there are such; None where all or none of it is needed."""
    sides: tuple[int, int]
    """What is padded before and after; of a layer that enlarges, what is cut off its result."""


def node_reads(
    node: AnyNode, axis: int, span: Span, sizes: dict[str, int]
) -> tuple[Span | None, ...]:
    """Say which pixels a node reads to give a span of its result, along an axis.

    Parameters
    ----------
    node : Node
        Any.
    axis : int
        Spatial axis, counted from 0.
    span : Span
        Pixels of the node's result.
    sizes : dict of str to int
        Of all nodes along that axis, see :func:`sizes_along`.

    Returns
    -------
    tuple of Span or None
        For each of its inputs; pixels that are not there are padding. None where all of the
        input, or only its size, is needed.
    """
    first, last = span.first, span.last
    read, *others = (sizes[name] for name in node.inputs)
    if isinstance(node, g.Convolution | g.Pooling):
        step, before = step_along(node, axis), sides_along(node.padding, axis)[0]
        return (Span(first * step - before, last * step - before + wide_along(node, axis)),)
    if isinstance(node, g.TransposedConvolution):
        step, before = node.stride[axis], sides_along(node.crop, axis)[0]
        ends = -(-(first + before - (node.kernel[axis] - 1)) // step), (last + before) // step
        return (Span(min(ends), max(ends)),)
    if isinstance(node, g.Pad):
        return (span.shifted(-node.sides[axis][0]),)
    if isinstance(node, g.FitTo):
        return (span.shifted(-sides_to_fit(node, read, others[0])[0]), None)
    if isinstance(node, g.Resize):
        return (_resize_reads(node, axis, span, read, sizes[node.name]), *(None for _ in others))
    if isinstance(node, g.PixelShuffle):
        return (Span(first // node.factor, last // node.factor),)
    if isinstance(node, g.Join):
        size = sizes[node.name]
        return tuple(None if sizes[name] == 1 < size else span for name in node.inputs)
    return (None,) if isinstance(node, g.GlobalAverage) else (span,)


def node_window(node: AnyNode, axis: int, span: Span, sizes: dict[str, int]) -> Window:
    """Say how a span of a node's result is computed from pixels that are there.

    Parameters
    ----------
    node : Node
        One that does not measure the whole of its input.
    axis : int
        Spatial axis, counted from 0.
    span : Span
        Pixels of the node's result, none of them outside.
    sizes : dict of str to int
        Of all nodes along that axis, see :func:`sizes_along`.

    Returns
    -------
    Window
        What to cut out of the inputs, and the sides with which the layer is called.
    """
    wanted, *others = node_reads(node, axis, span, sizes)
    if isinstance(node, g.Join) or wanted is None:
        return Window((wanted, *others), (0, 0))
    size = sizes[node.inputs[0]]
    read, factor = wanted.clipped(size), _enlarges(node, axis)
    mode = getattr(node, "padding_mode", None) or getattr(node, "mode", None)
    if factor is not None:
        # A part begins where its first pixel becomes a whole number of pixels.
        read = read.widened(factor.denominator).clipped(size)
        start = int(read.first * factor)
        start -= sides_along(getattr(node, "crop", None), axis)[0]
        stop = start + _size_after(node, axis, [read.last - read.first + 1])
        stop += sum(sides_along(getattr(node, "crop", None), axis))
        return Window((read, *others), (span.first - start, stop - 1 - span.last))
    if mode == "reflect":
        # What is mirrored must be there.
        first = min(read.first, size - 1 - max(0, wanted.last - read.last))
        read = Span(max(first, 0), max(read.last, min(read.first - wanted.first, size - 1)))
    return Window((read, *others), (read.first - wanted.first, wanted.last - read.last))


def _enlarges(node: AnyNode, axis: int) -> Fraction | None:
    """Return how many times larger a node makes an axis, if that is what it does."""
    if isinstance(node, g.TransposedConvolution):
        return Fraction(node.stride[axis])
    if isinstance(node, g.PixelShuffle):
        return Fraction(node.factor)
    return scale_along(node, axis) if isinstance(node, g.Resize) else None


def _resize_reads(node: g.Resize, axis: int, span: Span, read: int, size: int) -> Span:
    """Read the nearest pixel, or those around the place that is interpolated."""
    factor = Fraction(size, read) if len(node.inputs) > 1 else scale_along(node, axis)
    if node.mode == "nearest":
        return Span(math.floor(span.first / factor), math.floor(span.last / factor))
    half = Fraction(1, 2)
    corners = Fraction(read - 1, max(size - 1, 1))
    first, last = (
        pixel * corners if node.align_corners else (pixel + half) / factor - half
        for pixel in (span.first, span.last)
    )
    more = 1 if node.mode == "cubic" else 0
    return Span(math.floor(first) - more, math.ceil(last) + more)


def sides_to_fit(node: g.FitTo, size: int, wanted: int) -> tuple[int, int]:
    """Say how many pixels a FitTo adds before and after along an axis; negative ones are cut."""
    more = wanted - size
    # The odd pixel comes and goes at the end.
    if node.where == "floor":
        before = more // 2
    else:
        before = 0 if node.where == "end" else int(math.copysign(abs(more) // 2, more))
    return before, more - before


def _problem(node: AnyNode, read: list[int], dims: int) -> str | None:
    """Say what is wrong with a node that reads features of so many channels."""
    for sizes in (getattr(node, name, None) for name in ("padding", "crop", "sides", "scale")):
        if sizes is not None and len(sizes) != dims:
            return f"has {len(sizes)} sizes for {dims} axes"
    for sides in (getattr(node, name, None) for name in ("padding", "crop", "sides")):
        if sides is not None and max(abs(side) for pair in sides for side in pair) > LARGEST_SIDE:
            return f"pads or cuts more than {LARGEST_SIDE} px"
    if node.name == "training":
        return "has a name that torch keeps for itself"
    wanted, most = _input_count(node)
    if not wanted <= len(read) <= most:
        return f"reads {len(read)} layers"
    expected = getattr(node, "in_channels", None) or _own_channels(node)
    if expected is not None and expected != read[0]:
        return f"expects {expected} channels and gets {read[0]}"
    groups = getattr(node, "groups", 1)
    if read[0] % groups or getattr(node, "out_channels", groups) % groups:
        return f"cannot part its channels into {groups} groups"
    if isinstance(node, g.PixelShuffle) and read[0] % node.factor**dims:
        return f"cannot make {node.factor**dims} pixels out of {read[0]} channels"
    if isinstance(node, g.Channels) and node.first + node.count > read[0]:
        return f"takes channels {node.first} to {node.first + node.count - 1} of {read[0]}"
    if isinstance(node, g.Join) and node.how != "concatenate" and len({*read} - {1}) > 1:
        return f"joins features of {' and '.join(map(str, read))} channels"
    if isinstance(node, g.Resize):
        if len(read) == 1 and (node.scale is None or not 0 < min(node.scale) <= max(node.scale)):
            return "has no factor"
        if node.mode == "cubic" and dims == 3:
            return "is cubic, which we have for planes only"
        if node.scale is not None and max(node.scale) > FINEST_SCALE:
            return f"enlarges more than {FINEST_SCALE} times"
    return None


def _input_count(node: AnyNode) -> tuple[int, int]:
    """Say how many nodes a node may read: at least and at most."""
    if isinstance(node, g.Join):
        return 1, 4096
    if isinstance(node, g.FitTo):
        return 2, 2
    return (1, 2) if isinstance(node, g.Resize) else (1, 1)


def _own_channels(node: AnyNode) -> int | None:
    """Say how many channels the weights of a norm, a prelu or a scaling are for."""
    if isinstance(node, g.Norm):
        return node.channels
    if isinstance(node, g.Linear):
        return node.channels or None
    if isinstance(node, g.Activation) and node.kind == "prelu" and node.channels > 1:
        return node.channels
    return None


def _channels_after(node: AnyNode, read: list[int], dims: int) -> int:
    """Count the channels that a node gives."""
    if isinstance(node, g.Convolution | g.TransposedConvolution):
        return node.out_channels
    if isinstance(node, g.Join):
        return sum(read) if node.how == "concatenate" else max(read)
    if isinstance(node, g.PixelShuffle):
        return int(read[0] // node.factor**dims)
    return node.count if isinstance(node, g.Channels) else read[0]


def _size_after(node: AnyNode, axis: int, sizes: list[int]) -> int:
    """Size of a node's result along an axis."""
    size = sizes[0]
    if isinstance(node, g.Convolution | g.Pooling):
        before, after = sides_along(node.padding, axis)
        if isinstance(node, g.Convolution):
            _check_padding(node.padding_mode, size, before, after)
        return (size + before + after - wide_along(node, axis) - 1) // step_along(node, axis) + 1
    if isinstance(node, g.TransposedConvolution):
        before, after = sides_along(node.crop, axis)
        return (size - 1) * node.stride[axis] + node.kernel[axis] - before - after
    if isinstance(node, g.Pad):
        _check_padding(node.mode, size, *node.sides[axis])
        return size + sum(node.sides[axis])
    if isinstance(node, g.FitTo):
        _check_padding(node.mode, size, *sides_to_fit(node, size, sizes[1]))
        return sizes[1]
    if isinstance(node, g.Resize):
        return sizes[1] if len(sizes) > 1 else math.floor(size * node.scale[axis])  # type: ignore[index]  # checked
    if isinstance(node, g.PixelShuffle):
        return size * node.factor
    if isinstance(node, g.Join):
        found = {*sizes} - {1} or {1}
        if len(found) > 1:
            raise DoNotFit(node.name)
        return found.pop()
    return 1 if isinstance(node, g.GlobalAverage) else size


def _rate_after(node: AnyNode, axis: int, rates: list[Fraction]) -> Fraction:
    """Rate of a node's result along an axis."""
    rate = rates[0]
    if isinstance(node, g.Convolution | g.Pooling):
        return rate / step_along(node, axis)
    if isinstance(node, g.TransposedConvolution):
        return rate * node.stride[axis]
    if isinstance(node, g.PixelShuffle):
        return rate * node.factor
    if isinstance(node, g.Resize):
        return rates[1] if len(rates) > 1 else rate * scale_along(node, axis)
    if isinstance(node, g.Join):
        return max(rates)
    return Fraction(0) if isinstance(node, g.GlobalAverage) else rate


def scale_along(node: g.Resize, axis: int) -> Fraction:
    """Return the factor of a Resize along an axis as a fraction."""
    return Fraction(node.scale[axis]).limit_denominator(FINEST_SCALE)  # type: ignore[index]  # checked


def _check_padding(mode: str, size: int, before: int, after: int) -> None:
    """Refuse a padding with more pixels than there are to mirror or repeat."""
    most = {"reflect": size - 1, "circular": size}.get(mode, max(before, after))
    if max(before, after) > most:
        raise TooSmall(mode)


def sides_along(sides: g.Sides | None, axis: int) -> tuple[int, int]:
    """Sides along an axis; none if not given."""
    return (0, 0) if sides is None else sides[axis]


def step_along(node: g.Convolution | g.Pooling, axis: int) -> int:
    """Say how far apart windows lie along an axis."""
    return 1 if node.stride is None else node.stride[axis]


def wide_along(node: g.Convolution | g.Pooling, axis: int) -> int:
    """Pixels from the first to the last of a window along an axis."""
    dilation = getattr(node, "dilation", None)
    return (node.kernel[axis] - 1) * (1 if dilation is None else int(dilation[axis]))
