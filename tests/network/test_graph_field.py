"""The computed grid, reach and receptive field against gradients, and against tiles."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from napari_unet.errors import ModelError
from napari_unet.network import graph as g
from napari_unet.network.graph_field import at_image_size, describe_fit, measure_graph
from napari_unet.network.graph_net import GraphNet
from napari_unet.network.graph_rules import sizes_along
from napari_unet.network.receptive_field import Span
from napari_unet.network.unet import UNet
from napari_unet.settings import Architecture
from tests.graphs import Sketch, draw_graph, shaken_net, small_graph


def all_positive(graph: g.Graph) -> GraphNet:
    """Let every dependency show: positive weights, nothing that hides one, means for maxima."""
    nodes = []
    for node in graph.nodes:
        if isinstance(node, g.Pooling):
            nodes.append(node.replace(kind="average"))
        elif isinstance(node, g.Activation):
            nodes.append(g.Linear(name=node.name, inputs=node.inputs))
        else:
            nodes.append(node)
    net = GraphNet(graph.replace(nodes=tuple(nodes))).double().eval()
    for parameter in net.parameters():
        nn.init.uniform_(parameter, 0.05, 0.1)
    return net


def seen_along(net: GraphNet, axis: int, pixels: Span, size: int) -> Span:
    """Which pixels of the input change the given ones of the output, along one axis."""
    dims = net.architecture.spatial_dims
    sizes = [net.valid_input(1)] * dims
    sizes[axis] = size
    image = torch.rand(1, 1, *sizes, dtype=torch.double, requires_grad=True)
    output = net(image).movedim(2 + axis, 0)
    output[pixels.first : pixels.last + 1].sum().backward()
    places = image.grad.abs().movedim(2 + axis, 0).flatten(1).sum(1).nonzero().flatten()
    return Span(int(places.min()), int(places.max()))


def measured(net: GraphNet) -> tuple[int, int]:
    """Reach of a core on the grid and receptive field, by gradients."""
    reach = field = 0
    stride, margin = net.stride, net.margin
    start = -(-net.halo // stride) * stride + stride
    size = net.valid_input(2 * (start + margin) + 2 * stride)
    for axis in range(net.architecture.spatial_dims):
        core = Span(start, start + stride - 1)
        seen = seen_along(net, axis, core, size).shifted(-margin)
        reach = max(reach, core.first - seen.first, seen.last - core.last)
        for pixel in range(core.first, core.last + 1):
            seen = seen_along(net, axis, Span(pixel, pixel), size)
            field = max(field, seen.last - seen.first + 1)
    return reach, field


@pytest.mark.parametrize("seed", range(40))
def test_the_computed_field_of_a_random_network_is_that_of_its_gradients(seed: int) -> None:
    net = all_positive(at_image_size(draw_graph(seed)))
    assert measured(net) == (net.reach, net.receptive_field)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_the_computed_field_of_a_random_volume_network_is_that_of_its_gradients(seed: int) -> None:
    net = all_positive(at_image_size(draw_graph(seed, dims=3)))
    assert measured(net) == (net.reach, net.receptive_field)


@pytest.mark.parametrize("seed", range(12))
def test_a_tile_of_a_random_network_gives_what_the_whole_image_gives(seed: int) -> None:
    net = shaken_net(at_image_size(draw_graph(seed)), seed)
    stride, halo, margin = net.stride, net.halo, net.margin
    start = halo + stride
    image = torch.randn(1, 1, net.valid_input(1), net.valid_input(2 * start + 2 * margin + stride))
    tile = image[..., stride : stride + net.valid_input(2 * (halo + margin) + stride)].double()
    with torch.inference_mode():
        whole, part = net(image.double()), net(tile)
    difference = whole[..., start : start + stride] - part[..., halo : halo + stride]
    assert difference.abs().max() / whole.std() < 1e-9


@pytest.mark.parametrize(
    ("halo", "shift", "same"),
    [(24, 0, True), (20, 0, False), (24, 2, False)],
    ids=["the halo", "a halo one step too small", "a start off the grid"],
)
def test_a_tile_needs_halo_and_grid(halo: int, shift: int, same: bool) -> None:
    net = shaken_net(small_graph())
    assert (net.stride, net.halo) == (4, 24)
    image = torch.randn(4, 1, 16, 128, dtype=torch.double)
    core = slice(48 + shift, 64 + shift)
    with torch.inference_mode():
        whole = net(image)
        tile = net(image[..., core.start - halo : core.stop + halo])
    difference = (whole[..., core] - tile[..., halo : halo + 16]).abs().max() / whole.std()
    assert (difference < 1e-9) == same
    assert same or difference > 1e-3


@pytest.mark.parametrize("padded", [True, False])
def test_a_unet_as_a_graph_has_the_numbers_of_the_unet(padded: bool) -> None:
    ours = GraphNet(small_graph(padded=padded))
    unet = UNet(Architecture(widths=(2, 2, 2), padded=padded, norm="batch"))
    names = ("stride", "reach", "halo", "margin", "receptive_field", "invents_edges", "exact")
    assert [getattr(ours, name) for name in names] == [getattr(unet, name) for name in names]
    for size in range(60):
        assert ours.output_size(size) == unet.output_size(size)
        assert ours.valid_input(size) == unet.valid_input(size)
    assert ours.levels == unet.levels


def test_a_volume_has_one_grid_along_z_and_one_in_its_planes() -> None:
    net = GraphNet(small_graph(dims=3, steps=((1, 2, 2), (2, 2, 2))))
    plane = GraphNet(small_graph()).grid
    assert (net.stride, net.halo, net.margin, net.exact) == (4, plane.halo, 0, True)
    depth, rows, columns = net.grids
    assert rows == columns == plane
    assert (depth.stride, depth.smallest, depth.halo) == (2, 2, 8)
    assert net.valid_input(5, axis=0) == net.output_size(6, axis=0) == 6
    assert net.valid_input(5) == 8, "what holds along all axes"
    assert net(torch.zeros(1, 1, 6, 8, 12)).shape == (1, 1, 6, 8, 12)


def test_rows_and_columns_share_a_grid_so_that_planes_can_be_turned() -> None:
    rows, columns = GraphNet(small_graph(steps=((1, 2), (2, 2)))).grids
    assert rows == columns
    assert rows.stride == 4


@pytest.mark.parametrize("seed", range(12))
def test_a_tile_of_a_random_volume_network_is_exact_on_the_grid_of_each_axis(seed: int) -> None:
    net = shaken_net(at_image_size(draw_graph(seed, dims=3)), seed)
    grids, cut = net.grids, [slice(None)] * 2
    sizes = [net.valid_input(1, axis) for axis in range(3)]
    for axis, (_, stride, margin, halo) in enumerate(grids):
        start = halo + stride
        long = list(sizes)
        long[axis] = net.valid_input(2 * start + 2 * margin + stride, axis)
        image = torch.randn(1, 1, *long, dtype=torch.double)
        seen = slice(stride, stride + net.valid_input(2 * (halo + margin) + stride, axis))
        others = [slice(None)] * axis
        with torch.inference_mode():
            whole, part = net(image), net(image[(*cut, *others, seen)])
        whole = whole[(*cut, *others, slice(start, start + stride))]
        part = part[(*cut, *others, slice(halo, halo + stride))]
        assert (whole - part).abs().max() / whole.std() < 1e-9


def test_a_network_that_loses_more_along_one_axis_is_cut_along_the_other() -> None:
    sketch = Sketch()
    sketch.convolution(g.IMAGE, 2, (3, 7), padding=None)
    graph = sketch.graph()
    with pytest.raises(ModelError, match="output of another size"):
        measure_graph(graph)
    net = GraphNet(at_image_size(graph))
    assert net.margin == 3
    assert net(torch.zeros(1, 1, 10, 12)).shape == (1, 2, 4, 6)
    assert describe_fit(graph) == (
        "The network's output is cut by up to 2 px at the edges to lie on the pixels of the image."
    )


@pytest.mark.parametrize(
    ("step", "sentence"), [((2, 2), "is enlarged 2 x 2 times"), ((1, 2), "is enlarged 1 x 2 times")]
)
def test_an_output_of_half_the_size_is_enlarged(step: tuple[int, ...], sentence: str) -> None:
    sketch = Sketch()
    x = sketch.convolution(g.IMAGE, 2)
    sketch.add(g.Pooling, x, kind="max", kernel=step, stride=step)
    graph = sketch.graph()
    net = GraphNet(at_image_size(graph))
    assert sentence in describe_fit(graph)
    assert net(torch.zeros(1, 1, 8, 12)).shape == (1, 2, 8, 12)
    assert (net.margin, net.stride) == (0, 2)


def test_nothing_is_added_where_nothing_is_missing() -> None:
    for padded in (True, False):
        graph = small_graph(padded=padded)
        assert at_image_size(graph) is graph
        assert describe_fit(graph) == ""


def test_a_network_that_classifies_images_is_refused() -> None:
    sketch = Sketch()
    sketch.add(g.GlobalAverage, sketch.convolution(g.IMAGE, 2))
    with pytest.raises(ModelError, match="classifies images"):
        at_image_size(sketch.graph())


def test_what_depends_on_all_of_a_tile_is_named() -> None:
    sketch = Sketch()
    x = sketch.norm(sketch.convolution(g.IMAGE, 2), "instance")
    mean = sketch.add(g.GlobalAverage, x)
    x = sketch.add(g.Join, (x, mean), how="multiply")
    x = sketch.add(g.Pooling, x, kind="max", kernel=(2, 2), stride=(2, 2))
    x = sketch.add(g.Resize, x, mode="linear", scale=(2.0, 2.0), align_corners=True)
    sketch.convolution(x, 1, padding_mode="circular")
    assert measure_graph(sketch.graph()).approximate == (
        "instance or group norm",
        "averages over the whole of it",
        "resizing with aligned corners",
        "padding with what stands at the other end",
    )


def test_resizing_unpadded_features_to_the_size_of_others_is_approximate() -> None:
    sketch = Sketch()
    x = sketch.add(g.Pooling, g.IMAGE, kind="max", kernel=(2, 2), stride=(2, 2))
    x = sketch.convolution(x, 1, padding=None)
    sketch.add(g.Resize, (x, g.IMAGE), mode="linear")
    assert measure_graph(sketch.graph()).approximate == ("sizes that do not grow with the image",)


@pytest.mark.parametrize("step", [2**10, 10**9])
def test_a_network_that_shrinks_absurdly_is_refused(step: int) -> None:
    sketch = Sketch()
    x = sketch.add(g.Pooling, g.IMAGE, kind="max", kernel=(2, 2), stride=(step, step))
    sketch.add(g.Resize, (x, g.IMAGE), mode="nearest")
    with pytest.raises(ModelError, match="shrinks the image"):
        measure_graph(sketch.graph())


def test_layers_that_fit_at_no_size_are_refused() -> None:
    sketch = Sketch()
    x = sketch.convolution(g.IMAGE, 1, padding=None)
    sketch.add(g.Join, (x, g.IMAGE), how="add")
    with pytest.raises(ModelError, match="do not fit together at any size"):
        measure_graph(sketch.graph())


def test_odd_sizes_are_computed_though_tiles_use_even_ones() -> None:
    sketch = Sketch()
    x = sketch.add(g.Pooling, g.IMAGE, kind="max", kernel=(2, 2), stride=(2, 2))
    x = sketch.upsampling(x, 1, 2, (0, 0), (2, 2))
    sketch.add(g.FitTo, (x, g.IMAGE))
    net = GraphNet(sketch.graph())
    assert net.valid_input(7) == 8
    assert net(torch.zeros(1, 1, 7, 9)).shape == (1, 1, 7, 9)
    assert sizes_along(net.architecture, 0, 7)["n2"] == 6
