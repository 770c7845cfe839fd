"""How far a graph looks along each axis, and on which grid tiles of it are laid.

Going from the image to the last node tells the sizes; going back, node by node, tells the span of
pixels that each of them has to give (interval arithmetic as in
:mod:`napari_unet.network.receptive_field`, on nodes instead of modules). The axes of a volume may
differ, so everything is computed per axis. The rows and columns of a plane share a grid and a
halo, for planes are turned; what holds for all axes is that of the one that needs most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_unet.errors import ModelError
from napari_unet.network import graph as g
from napari_unet.network.graph_grid import (
    ImageGrid,
    axes_of,
    different_axes,
    find_grid,
    finer_grid,
)
from napari_unet.network.graph_rules import node_reads, rates_along, sizes_along
from napari_unet.network.receptive_field import Span
from napari_unet.network.tiled_net import Grid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_unet.network.graph import AnyNode, Graph

_PLANE = 2  # axes that share a grid: the last ones


@dataclass(frozen=True)
class GraphField:
    """The grid of a network and how far it looks, in pixels of the image.

    See :class:`napari_unet.network.unet.UNet` for what the numbers mean; they hold for all axes.
    Along an axis that needs less, its own grid is finer.

    Attributes
    ----------
    stride, margin, reach, halo, receptive_field : int
        As of a U-Net.
    smallest : int
        Smallest size the network can take; it takes each that is a multiple of the stride more.
    grids : tuple of Grid
        One per spatial axis.
    invents_edges : bool
        Whether something is put in place of what lies beyond the edges of a tile.
    approximate : tuple of str
        What keeps tiles from giving what the whole image gives; empty if nothing does.
    """

    stride: int
    smallest: int
    margin: int
    reach: int
    halo: int
    receptive_field: int
    grids: tuple[Grid, ...]
    invents_edges: bool
    approximate: tuple[str, ...]


def spans_back(
    graph: Graph, axis: int, span: Span, sizes: dict[str, int], *, clip: bool = False
) -> dict[str, Span]:
    """Follow a span of the output back to the image.

    Parameters
    ----------
    graph : Graph
        The network.
    axis : int
        Spatial axis, counted from 0.
    span : Span
        Pixels of the output, counted from the output's first.
    sizes : dict of str to int
        Of all nodes along that axis, see :func:`sizes_along`.
    clip : bool
        Spans end with the features; else they go on without end.

    Returns
    -------
    dict of str to Span
        What is needed of each node, and of the image; what is not needed, or is needed as a
        whole whatever the span, is not there.
    """
    spans = {graph.nodes[-1].name: span}
    for node in reversed(graph.nodes):
        if node.name not in spans:
            continue
        for name, read in zip(
            node.inputs, node_reads(node, axis, spans[node.name], sizes), strict=True
        ):
            if read is not None:
                read = read.clipped(sizes[name]) if clip else read
                spans[name] = spans[name].joined(read) if name in spans else read
    return spans


def measure_graph(graph: Graph) -> GraphField:
    """Compute the grid of a network and how far it looks.

    Parameters
    ----------
    graph : Graph
        A network whose output lies on the pixels of its input, see :func:`at_image_size`.

    Returns
    -------
    GraphField
        What tiles need.

    Raises
    ------
    ModelError
        If its output does not lie on the pixels of its input, or no size fits.
    """
    grid = find_grid(graph)
    lost = {grid.smallest - output for output in grid.outputs}
    is_aligned = all(rates_along(graph, axis)[graph.nodes[-1].name] == 1 for axis in axes_of(graph))
    if not is_aligned or len(lost) > 1 or min(lost) < 0 or min(lost) % 2:
        raise ModelError(
            "The network gives an output of another size than the image, so its pixels are not "
            "those of the image. Open it with load_model, which adds what is missing."
        )
    margin = lost.pop() // 2
    reach = field = 0
    invents_edges, proportional = False, True
    for axis in different_axes(graph, axes_of(graph)):
        sizes = sizes_along(graph, axis, grid.smallest)
        reach = max(reach, _reach(graph, axis, sizes, grid.stride, margin))
        for phase in range(grid.stride):
            seen = spans_back(graph, axis, Span(phase, phase), sizes)[g.IMAGE]
            field = max(field, seen.last - seen.first + 1)
        invents_edges |= _invents_edges(graph, axis, sizes)
        proportional &= _is_proportional(graph, axis, sizes, grid)
    return GraphField(
        stride=grid.stride,
        smallest=grid.smallest,
        margin=margin,
        reach=reach,
        halo=-(-reach // grid.stride) * grid.stride,
        receptive_field=field,
        invents_edges=invents_edges,
        grids=tuple(_grids(graph, grid, margin)),
        approximate=tuple(_why_approximate(graph, is_proportional=proportional)),
    )


def at_image_size(graph: Graph) -> Graph:
    """Let a network's output lie on the pixels of its input.

    A network that ends at half the size is enlarged; of one that gives more pixels than it sees,
    or loses more of them on one side or axis than on another, the rest is cut off.

    Parameters
    ----------
    graph : Graph
        Any network that gives an answer for each pixel.

    Returns
    -------
    Graph
        The same if nothing is missing; else with a Resize, a Pad or both at the end. The weights
        are the same.

    Raises
    ------
    ModelError
        If it gives one answer for the whole image, or no size fits.
    """
    last = graph.nodes[-1].name
    rates = [rates_along(graph, axis)[last] for axis in axes_of(graph)]
    if min(rates) == 0:
        raise ModelError(
            "The network gives one answer for the whole image, not one for each pixel: it "
            "classifies images. A network that segments is needed."
        )
    if set(rates) != {1}:
        scale = tuple(float(1 / rate) for rate in rates)
        graph = _appended(graph, g.Resize(name="n", inputs=(last,), mode="linear", scale=scale))
    grid = find_grid(graph)
    margin = max(0, *(-(-(grid.smallest - output) // 2) for output in grid.outputs))
    extra = [output + 2 * margin - grid.smallest for output in grid.outputs]
    if any(extra):
        sides = tuple((-(pixels // 2), pixels // 2 - pixels) for pixels in extra)
        graph = _appended(graph, g.Pad(name="n", inputs=("n",), sides=sides))
    return graph


def describe_fit(graph: Graph) -> str:
    """Say what :func:`at_image_size` adds to a network.

    Parameters
    ----------
    graph : Graph
        As it was read.

    Returns
    -------
    str
        A sentence; empty if nothing is added.
    """
    added = at_image_size(graph).nodes[len(graph.nodes) :]
    parts = []
    for node in added:
        if isinstance(node, g.Resize) and node.scale is not None:
            factors = " x ".join(f"{factor:g}" for factor in node.scale)
            parts.append(f"is enlarged {factors} times")
        elif isinstance(node, g.Pad):
            most = max(-side for pair in node.sides for side in pair)
            parts.append(f"is cut by up to {most} px at the edges")
    if not parts:
        return ""
    return f"The network's output {' and '.join(parts)} to lie on the pixels of the image."


def _appended(graph: Graph, node: AnyNode) -> Graph:
    """Add a node that reads the last one."""
    names = {each.name for each in graph.nodes}
    name = next(
        name
        for name in (f"to_image_{count}" for count in range(len(names) + 1))
        if name not in names
    )
    node = node.replace(name=name, inputs=(graph.nodes[-1].name,))
    return graph.replace(nodes=(*graph.nodes, node))


def _grids(graph: Graph, grid: ImageGrid, margin: int) -> Iterator[Grid]:
    """Give the grid of each axis; a volume's planes share one."""
    depth, plane = axes_of(graph)[:-_PLANE], axes_of(graph)[-_PLANE:]
    for axes in filter(None, (depth, plane)):
        stride, smallest = finer_grid(graph, axes, grid)
        reach = max(
            _reach(graph, axis, sizes_along(graph, axis, smallest), stride, margin) for axis in axes
        )
        halo = -(-reach // stride) * stride
        yield from [Grid(smallest, stride, margin, halo)] * len(axes)


def _reach(graph: Graph, axis: int, sizes: dict[str, int], stride: int, margin: int) -> int:
    """Compute the margin that a core on the grid needs."""
    core = spans_back(graph, axis, Span(0, stride - 1), sizes)[g.IMAGE].shifted(-margin)
    return max(0, -core.first, core.last - (stride - 1))


def _invents_edges(graph: Graph, axis: int, sizes: dict[str, int]) -> bool:
    """Say whether the whole output depends on anything beyond the edges of what is given."""
    last = graph.nodes[-1].name
    spans = spans_back(graph, axis, Span(0, sizes[last] - 1), sizes, clip=True)
    for node in graph.nodes:
        if node.name in spans:
            reads = node_reads(node, axis, spans[node.name], sizes)
            for name, read in zip(node.inputs, reads, strict=True):
                if read is not None and read.clipped(sizes[name]) != read:
                    return True
    return False


def _is_proportional(graph: Graph, axis: int, sizes: dict[str, int], grid: ImageGrid) -> bool:
    """Say whether features grow with the image, and are resized by the same factor always."""
    rates = rates_along(graph, axis)
    larger = sizes_along(graph, axis, grid.smallest + grid.stride)
    grows = all(larger[name] - sizes[name] == rate * grid.stride for name, rate in rates.items())
    resized = [node for node in graph.nodes if isinstance(node, g.Resize) and len(node.inputs) > 1]
    return grows and all(
        sizes[node.inputs[0]] * rates[node.name] == sizes[node.name] * rates[node.inputs[0]]
        for node in resized
    )


def _why_approximate(graph: Graph, *, is_proportional: bool) -> Iterator[str]:
    """Name what keeps tiles from giving what the whole image gives."""
    nodes = graph.nodes
    if any(isinstance(node, g.Norm) and node.measures_image for node in nodes):
        yield "instance or group norm"
    if any(isinstance(node, g.GlobalAverage) for node in nodes):
        yield "averages over the whole of it"
    resized = [node for node in nodes if isinstance(node, g.Resize)]
    if any(node.align_corners and node.mode != "nearest" for node in resized):
        yield "resizing with aligned corners"
    elif not is_proportional:
        yield "sizes that do not grow with the image"
    modes = {getattr(node, "padding_mode", None) or getattr(node, "mode", None) for node in nodes}
    if "circular" in modes:
        yield "padding with what stands at the other end"
