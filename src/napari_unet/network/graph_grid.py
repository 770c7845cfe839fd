"""Which sizes of the image a network takes: a smallest one, and some pixels more, again and again.

A node's *rate* is how many of its pixels stand for one of the image's: 1/2 after a pooling. Sizes
on which all rates give whole pixels behave alike; which of them to use (even ones, say, or 12 more
than a multiple of 16) is found by trying: those at which no pooling leaves a pixel over and
features fit together without being cut unevenly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_unet.errors import ModelError
from napari_unet.network import graph as g
from napari_unet.network.graph_rules import (
    DoNotFit,
    TooSmall,
    rates_along,
    sides_along,
    sides_to_fit,
    sizes_along,
    step_along,
    wide_along,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.network.graph import Graph

LARGEST_STRIDE = 512  # px; U-Nets have 16 or 32
MOST_TRIED = 150_000  # layers times sizes; U-Nets have 200 times 32
LARGEST_SIZE = 2**17  # px; a network that fits no size up to here fits none


@dataclass(frozen=True)
class ImageGrid:
    """Sizes that an image may have along any axis, and what is given back of the smallest one.

    Attributes
    ----------
    stride, smallest : int
        Each size is a multiple of the stride more than the smallest.
    outputs : tuple of int
        Sizes of the output where the image has the smallest one; one per axis.
    """

    stride: int
    smallest: int
    outputs: tuple[int, ...]


def axes_of(graph: Graph) -> range:
    """Return the spatial axes of a network, counted from 0."""
    return range(graph.spatial_dims)


def different_axes(graph: Graph, axes: Sequence[int]) -> list[int]:
    """List axes, but of those along which all layers are alike only the first.

    Parameters
    ----------
    graph : Graph
        The network.
    axes : sequence of int
        Spatial axes, counted from 0.

    Returns
    -------
    list of int
        In order; at least one.
    """
    fields = ("kernel", "stride", "dilation", "padding", "crop", "sides", "scale")
    found: dict[tuple[object, ...], int] = {}
    for axis in axes:
        options = [getattr(node, name, None) for node in graph.nodes for name in fields]
        found.setdefault(tuple(each and each[axis] for each in options), axis)
    return list(found.values())


def find_grid(graph: Graph) -> ImageGrid:
    """Find the sizes at which the layers fit together best along all axes.

    Parameters
    ----------
    graph : Graph
        The network.

    Returns
    -------
    ImageGrid
        The same for all axes.

    Raises
    ------
    ModelError
        If no size fits, or the network shrinks the image too much.
    """
    axes = different_axes(graph, axes_of(graph))
    stride = _stride(graph, axes)
    if stride > LARGEST_STRIDE:
        raise ModelError(
            f"The network shrinks the image {stride} times, more than the {LARGEST_STRIDE} times "
            "that we support. Use a network of fewer levels."
        )
    if stride * len(graph.nodes) > MOST_TRIED:
        raise ModelError(
            f"The network has {len(graph.nodes)} layers and shrinks the image {stride} times, "
            "which is more than we support. Use a network of fewer layers or levels."
        )
    best: tuple[tuple[int, ...], int] | None = None
    for start in range(stride):
        faults = _faults(graph, axes, start, stride)
        if faults is not None and (best is None or faults < best[0]):
            best = faults, start
        if best is not None and not any(best[0]):
            break
    if best is None:
        raise ModelError(
            "The network's layers do not fit together at any size of the image. The description "
            "of the network is wrong."
        )
    smallest = _smallest(graph, axes, best[1], stride)
    last = graph.nodes[-1].name
    outputs = tuple(sizes_along(graph, axis, smallest)[last] for axis in axes_of(graph))
    return ImageGrid(stride, smallest, outputs)


def finer_grid(graph: Graph, axes: Sequence[int], grid: ImageGrid) -> tuple[int, int]:
    """Find the sizes that are possible along some axes; those of the whole are among them.

    Parameters
    ----------
    graph : Graph
        The network.
    axes : sequence of int
        Those that shall share a grid.
    grid : ImageGrid
        That of all axes.

    Returns
    -------
    tuple of int
        Stride and smallest size.
    """
    axes = different_axes(graph, axes)
    stride = _stride(graph, axes)
    return stride, _smallest(graph, axes, grid.smallest % stride, stride)


def _stride(graph: Graph, axes: Sequence[int]) -> int:
    """Return the step of a grid on which all rates give whole pixels along some axes."""
    rates = [rate for axis in axes for rate in rates_along(graph, axis).values()]
    return math.lcm(*(rate.denominator for rate in rates))


def _faults(graph: Graph, axes: list[int], start: int, stride: int) -> tuple[int, ...] | None:
    """Count what does not fit well at sizes of so many pixels more than a multiple of the stride.

    Features cut unevenly, an output that is not in the middle, pixels that windows leave over;
    None if there is no result.
    """
    counts = [0, 0, 0]
    for axis in axes:
        size = _large_size(graph, axis, start, stride)
        if size is None:
            return None
        sizes, rates = sizes_along(graph, axis, size), rates_along(graph, axis)
        last = graph.nodes[-1].name
        lost = size - (math.floor(sizes[last] / rates[last]) if rates[last] else size)
        counts[1] += lost < 0 or lost % 2 != 0
        for node in graph.nodes:
            read = sizes[node.inputs[0]]
            if isinstance(node, g.FitTo):
                before, after = sides_to_fit(node, read, sizes[node.inputs[1]])
                counts[0] += abs(before - after)
            elif isinstance(node, g.Convolution | g.Pooling):
                counts[2] += _left_over(node, axis, read)
    return tuple(counts)


def _left_over(node: g.Convolution | g.Pooling, axis: int, size: int) -> int:
    """Count the pixels at the end that no window reads though a smaller step would."""
    before, after = sides_along(node.padding, axis)
    step, window = step_along(node, axis), wide_along(node, axis) + 1
    rest = (size + before + after - window) % step
    return max(0, rest - max(after, 0) - max(0, step - window))


def _large_size(graph: Graph, axis: int, start: int, stride: int) -> int | None:
    """Find a size on a grid that is large enough for all layers."""
    size = start or stride
    while size <= LARGEST_SIZE:
        try:
            sizes_along(graph, axis, size)
        except TooSmall:
            size += max(stride, (size // stride) * stride)
        except DoNotFit:
            # Of small features, one pixel may stand for all.
            return None
        else:
            return size
    return None


def _smallest(graph: Graph, axes: list[int], start: int, stride: int) -> int:
    """Find the smallest size on a grid, from which on features grow with the image."""
    size = start or stride
    while size <= LARGEST_SIZE:
        if all(_is_enough(graph, axis, size, stride) for axis in axes):
            return size
        size += stride
    raise ModelError(
        f"The network needs images of more than {LARGEST_SIZE} px. The description of the "
        "network is wrong."
    )


def _is_enough(graph: Graph, axis: int, size: int, stride: int) -> bool:
    """Say whether something is left of all features, and of a norm's more than a single pixel."""
    try:
        sizes, larger = (sizes_along(graph, axis, each) for each in (size, size + 8 * stride))
    except (TooSmall, DoNotFit):
        return False
    measured = [
        node.name
        for node in graph.nodes
        if isinstance(node, g.Norm) and node.measures_image and larger[node.name] > 1
    ]
    return all(sizes[name] > 1 for name in measured)
