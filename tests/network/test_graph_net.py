"""Each layer of a graph against plain torch, and the network that is built of them."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torch.nn import functional

from napari_unet.errors import ImageError, ModelError, SettingError, TileSizeError
from napari_unet.network import graph as g
from napari_unet.network.build import build_network
from napari_unet.network.graph_field import at_image_size
from napari_unet.network.graph_inference import GraphInferenceNet, peak_numbers
from napari_unet.network.graph_net import GraphNet
from napari_unet.network.unet import UNet
from napari_unet.settings import Architecture
from tests.graphs import Sketch, draw_graph, shaken_net, small_graph

if TYPE_CHECKING:
    from collections.abc import Callable

CPU = torch.device("cpu")
IMAGE = (g.IMAGE,)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def one_layer(node: g.Node, channels: int, classes: int, dims: int = 2) -> GraphNet:
    """Build a network of a single layer."""
    return GraphNet(
        g.Graph(in_channels=channels, classes=classes, nodes=(node,), spatial_dims=dims)
    )


def compare(node: g.Node, layer: nn.Module, *shape: int) -> None:
    """Check that a node computes what a layer of torch computes, with the same weights."""
    image = noise(*shape)
    expected = layer.eval()(image)
    net = one_layer(node, shape[1], expected.shape[1], len(shape) - 2).eval()
    net.load_state_dict({f"{node.name}.{key}": value for key, value in layer.state_dict().items()})
    torch.testing.assert_close(net(image), expected)


# ------------------------------------------------------------------------------- single layers


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_convolution_is_that_of_torch(mode: str, dims: int) -> None:
    kernel, stride, pads = (3, 5, 1)[:dims], (2, 1, 1)[:dims], (1, 4, 0)[:dims]
    dilation = (1, 2, 1)[:dims]
    convolution = {2: nn.Conv2d, 3: nn.Conv3d}[dims]
    layer = convolution(
        4, 6, kernel, stride, pads, dilation, groups=2, bias=False, padding_mode=mode
    )
    node = g.Convolution(
        name="n",
        inputs=IMAGE,
        in_channels=4,
        out_channels=6,
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        padding=tuple((pad, pad) for pad in pads),
        padding_mode=mode,
        groups=2,
        bias=False,
    )
    compare(node, layer, 2, 4, *(9, 12, 7)[:dims])


def test_a_convolution_pads_each_side_by_itself() -> None:
    node = g.Convolution(
        name="n",
        inputs=IMAGE,
        in_channels=1,
        out_channels=2,
        kernel=(2, 2),
        padding=((0, 1), (1, 0)),
    )
    net, image = one_layer(node, 1, 2), noise(1, 1, 5, 6)
    weights = net.state_dict()
    expected = functional.conv2d(
        functional.pad(image, (1, 0, 0, 1)), weights["n.weight"], weights["n.bias"]
    )
    torch.testing.assert_close(net(image), expected)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "more"),
    [
        ((2, 2), (2, 2), 0, 0),
        ((3, 3), (2, 2), 1, 1),
        ((4, 4), (2, 2), 1, 0),
        ((2, 2), (2, 2), 0, 1),
        ((3, 2), (1, 2), 0, 0),
        ((1, 1), (2, 2), 0, 1),
    ],
)
def test_a_transposed_convolution_is_that_of_torch(
    kernel: tuple[int, int], stride: tuple[int, int], padding: int, more: int
) -> None:
    layer = nn.ConvTranspose2d(4, 6, kernel, stride, padding, more, groups=2)
    node = g.TransposedConvolution(
        name="n",
        inputs=IMAGE,
        in_channels=4,
        out_channels=6,
        kernel=kernel,
        stride=stride,
        crop=((padding, padding - more),) * 2,
        groups=2,
    )
    compare(node, layer, 2, 4, 5, 6)


def test_a_transposed_convolution_can_be_cut_anywhere() -> None:
    whole = nn.ConvTranspose2d(1, 1, 3, 2)
    node = g.TransposedConvolution(
        name="n",
        inputs=IMAGE,
        in_channels=1,
        out_channels=1,
        kernel=(3, 3),
        stride=(2, 2),
        crop=((0, 3), (-1, 0)),
    )
    net, image = one_layer(node, 1, 1), noise(1, 1, 5, 6)
    net.load_state_dict({f"n.{key}": value for key, value in whole.state_dict().items()})
    answer, expected = net(image), whole(image)
    torch.testing.assert_close(answer[..., 1:], expected[:, :, :-3])
    torch.testing.assert_close(answer[..., 0], whole.bias.expand(1, 1, 8))


@pytest.mark.parametrize(
    ("kind", "layer"),
    [
        ("batch", nn.BatchNorm2d(6, eps=1e-3)),
        ("batch", nn.BatchNorm2d(6, affine=False)),
        ("instance", nn.InstanceNorm2d(6, affine=True)),
        ("instance", nn.InstanceNorm2d(6)),
        ("group", nn.GroupNorm(3, 6)),
    ],
)
def test_a_norm_is_that_of_torch(kind: str, layer: nn.Module) -> None:
    for tensor in layer.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    affine = layer.weight is not None
    node = g.Norm(
        name="n", inputs=IMAGE, kind=kind, channels=6, eps=layer.eps, affine=affine, groups=3
    )
    compare(node, layer, 2, 6, 5, 4)


@pytest.mark.parametrize(
    ("kind", "layer"),
    [
        ("relu", nn.ReLU()),
        ("leaky_relu", nn.LeakyReLU(0.2)),
        ("elu", nn.ELU(0.2)),
        ("selu", nn.SELU()),
        ("celu", nn.CELU(0.2)),
        ("gelu", nn.GELU()),
        ("silu", nn.SiLU()),
        ("mish", nn.Mish()),
        ("softplus", nn.Softplus()),
        ("hardswish", nn.Hardswish()),
        ("hardsigmoid", nn.Hardsigmoid()),
        ("relu6", nn.ReLU6()),
        ("sigmoid", nn.Sigmoid()),
        ("tanh", nn.Tanh()),
        ("softmax", nn.Softmax(dim=1)),
        ("prelu", nn.PReLU(3)),
    ],
)
def test_an_activation_is_that_of_torch(kind: str, layer: nn.Module) -> None:
    node = g.Activation(name="n", inputs=IMAGE, kind=kind, slope=0.2, channels=3)
    compare(node, layer, 2, 3, 6, 5)


@pytest.mark.parametrize(
    ("kind", "counts", "layer"),
    [
        ("max", True, nn.MaxPool2d((3, 2), (2, 1), (1, 0))),
        ("average", True, nn.AvgPool2d((3, 2), (2, 1), (1, 0))),
        ("average", False, nn.AvgPool2d((3, 2), (2, 1), (1, 0), count_include_pad=False)),
    ],
)
def test_a_pooling_is_that_of_torch(kind: str, counts: bool, layer: nn.Module) -> None:
    options = {"kernel": (3, 2), "stride": (2, 1), "padding": ((1, 1), (0, 0))}
    node = g.Pooling(name="n", inputs=IMAGE, kind=kind, counts_padding=counts, **options)
    compare(node, layer, 2, 3, 9, 8)


def test_a_pooling_pads_each_side_by_itself() -> None:
    image = noise(1, 2, 4, 4) - 5
    options = {"kernel": (2, 2), "stride": (2, 2), "padding": ((0, 0), (1, 1))}
    answers = {
        kind: one_layer(g.Pooling(name="n", inputs=IMAGE, kind=kind, **options, **more), 2, 2)
        for kind, more in (("max", {}), ("average", {"counts_padding": False}))
    }
    assert (answers["max"](image)[..., 0] == image[..., 0].unflatten(-1, (2, 2)).amax(-1)).all()
    uneven = options | {"padding": ((0, 0), (1, 0)), "kernel": (2, 3)}
    node = g.Pooling(name="n", inputs=IMAGE, kind="average", counts_padding=False, **uneven)
    first = one_layer(node, 2, 2)(image)[..., 0]
    torch.testing.assert_close(first, image[..., :2].mean(-1).unflatten(-1, (2, 2)).mean(-1))
    node = g.Pooling(name="n", inputs=IMAGE, kind="max", **uneven)
    first = one_layer(node, 2, 2)(image)[..., 0]
    assert (first == image[..., :2].amax(-1).unflatten(-1, (2, 2)).amax(-1)).all()


@pytest.mark.parametrize(
    ("options", "layer"),
    [
        ({"mode": "nearest"}, nn.Upsample(scale_factor=(2, 3))),
        ({"mode": "linear"}, nn.Upsample(scale_factor=(2, 3), mode="bilinear")),
        ({"mode": "cubic"}, nn.Upsample(scale_factor=(2, 3), mode="bicubic")),
        (
            {"mode": "linear", "align_corners": True},
            nn.Upsample(scale_factor=(2, 3), mode="bilinear", align_corners=True),
        ),
    ],
)
def test_a_resize_is_that_of_torch(options: dict[str, object], layer: nn.Module) -> None:
    compare(g.Resize(name="n", inputs=IMAGE, scale=(2.0, 3.0), **options), layer, 2, 3, 5, 4)


def test_a_resize_takes_the_size_of_its_second_input() -> None:
    sketch = Sketch(channels=2)
    x = sketch.add(g.Pooling, g.IMAGE, kind="max", kernel=(3, 3), stride=(3, 3))
    sketch.add(g.Resize, (x, g.IMAGE), mode="linear")
    image = noise(1, 2, 7, 10)
    expected = functional.interpolate(functional.max_pool2d(image, 3), (7, 10), mode="bilinear")
    torch.testing.assert_close(GraphNet(sketch.graph())(image), expected)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_pixel_shuffle_turns_channels_into_pixels(dims: int) -> None:
    node = g.PixelShuffle(name="n", inputs=IMAGE, factor=2)
    image = noise(1, 3 * 2**dims, *(4, 5, 3)[:dims])
    answer = one_layer(node, 3 * 2**dims, 3, dims)(image)
    if dims == 2:
        assert (answer == functional.pixel_shuffle(image, 2)).all()
    for channel in range(3):
        for place in range(2**dims):
            steps = [place >> (dims - 1 - axis) & 1 for axis in range(dims)]
            part = answer[(0, channel, *(slice(step, None, 2) for step in steps))]
            assert (part == image[0, channel * 2**dims + place]).all()


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_a_pad_adds_and_cuts(mode: str) -> None:
    ours = "zeros" if mode == "constant" else mode
    node = g.Pad(name="n", inputs=IMAGE, sides=((2, -1), (0, 3)), mode=ours)
    image = noise(1, 2, 6, 7)
    expected = functional.pad(image, (0, 3, 2, 0), mode=mode)[:, :, :-1]
    assert (one_layer(node, 2, 2)(image) == expected).all()


@pytest.mark.parametrize(
    ("where", "kernel", "rows"),
    [("centre", 4, (1, -2)), ("end", 4, (0, -3)), ("centre", 3, (1, -1)), ("end", 3, (0, -2))],
)
def test_a_fit_crops_and_pads_with_the_odd_pixel_last(
    where: str, kernel: int, rows: tuple[int, int]
) -> None:
    image = noise(1, 1, 9, 9)
    sketch = Sketch()
    small = sketch.convolution(g.IMAGE, 1, kernel, padding=None)
    sketch.add(g.FitTo, (g.IMAGE, small), where=where)
    part = image[..., rows[0] : rows[1], rows[0] : rows[1]]
    assert (GraphNet(sketch.graph())(image) == part).all()
    back = Sketch()
    small = back.add(g.Pad, g.IMAGE, sides=((-rows[0], rows[1]),) * 2)
    back.add(g.FitTo, (small, g.IMAGE), where=where)
    expected = torch.zeros_like(image)
    expected[..., rows[0] : rows[1], rows[0] : rows[1]] = part
    assert (GraphNet(back.graph())(image) == expected).all()


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("add", lambda x, mean: x + mean),
        ("subtract", lambda x, mean: x - mean),
        ("multiply", lambda x, mean: x * mean),
        ("maximum", torch.maximum),
        ("concatenate", lambda x, mean: torch.cat([x, mean.expand_as(x)], 1)),
    ],
)
def test_a_join_repeats_a_single_pixel(how: str, expected: Callable[..., torch.Tensor]) -> None:
    sketch = Sketch(channels=2)
    mean = sketch.add(g.GlobalAverage, g.IMAGE)
    sketch.add(g.Join, (g.IMAGE, mean), how=how)
    image = noise(2, 2, 4, 5)
    answer = GraphNet(sketch.graph())(image)
    torch.testing.assert_close(answer, expected(image, image.mean((2, 3), keepdim=True)))


def test_scaling_and_choosing_channels() -> None:
    sketch = Sketch(channels=3)
    x = sketch.add(g.Linear, g.IMAGE, factor=2.0, offset=-1.0)
    x = sketch.add(g.Linear, x, channels=3)
    sketch.add(g.Channels, x, first=1, count=2)
    net, image = GraphNet(sketch.graph()), noise(1, 3, 4, 4)
    net.load_state_dict({"n2.weight": torch.arange(3.0), "n2.bias": torch.ones(3)})
    expected = (2 * image - 1) * torch.arange(3.0).view(1, 3, 1, 1) + 1
    torch.testing.assert_close(net(image), expected[:, 1:])


@pytest.mark.parametrize("whole_channels", [True, False])
def test_dropout_acts_in_training_only(whole_channels: bool) -> None:
    node = g.Dropout(name="n", inputs=IMAGE, share=0.5, whole_channels=whole_channels)
    net, image = one_layer(node, 64, 64), torch.ones(1, 64, 4, 4)
    assert (net.eval()(image) == image).all()
    dropped = (net.train()(image) == 0).float().mean((2, 3))
    assert 0.2 < dropped.mean() < 0.8
    assert bool(((dropped == 0) | (dropped == 1)).all()) == whole_channels


def test_batch_norm_follows_in_training_and_stays_in_evaluation() -> None:
    net, image = GraphNet(small_graph()), noise(4, 1, 8, 8) + 3
    before = copy.deepcopy(net.state_dict())
    net.eval()(image)
    assert all((value == before[key]).all() for key, value in net.state_dict().items())
    net.train()(image)
    changed = {key for key, value in net.state_dict().items() if (value != before[key]).any()}
    assert changed == {key for key in before if "running" in key or "tracked" in key}


# ------------------------------------------------------------------------------ whole networks


def test_each_kind_of_network_is_built_from_its_description() -> None:
    graph, architecture = small_graph(), Architecture(widths=(2, 2))
    assert isinstance(build_network(graph), GraphNet)
    assert isinstance(build_network(architecture), UNet)
    assert build_network(graph).architecture == graph


def test_names_of_layers_may_be_names_that_torch_uses() -> None:
    names = ("train", "stride", "forward", "field", "state_dict", "_frozen")
    nodes, before = [], g.IMAGE
    for name in names:
        options = {"in_channels": 1, "out_channels": 1, "kernel": (1, 1)}
        nodes.append(g.Convolution(name=name, inputs=(before,), **options))
        before = name
    net = GraphNet(g.Graph(nodes=tuple(nodes)))
    assert {key.split(".")[0] for key in net.state_dict()} == set(names)
    net.freeze_levels(1)
    assert (net.train().stride, net(noise(1, 1, 3, 3)).shape) == (1, (1, 1, 3, 3))
    with pytest.raises(ModelError, match="torch keeps for itself"):
        one_layer(g.Dropout(name="training", inputs=IMAGE), 1, 1)


@pytest.mark.parametrize("shape", [(1, 2, 8, 8), (1, 8, 8), (1, 1, 8, 8, 8)])
def test_other_channels_and_axes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="batches of 1 channels and 2 spatial axes"):
        GraphNet(small_graph())(torch.zeros(shape))


def test_a_size_that_does_not_fit_is_refused_with_one_that_does() -> None:
    with pytest.raises(TileSizeError, match=r"multiple of 4 px more than 4, e\.g\. 12 x 8"):
        GraphNet(small_graph())(torch.zeros(1, 1, 10, 8))


CONVOLUTION = {"in_channels": 1, "out_channels": 4, "kernel": (3, 3)}


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (g.Convolution(name="n", inputs=IMAGE, **CONVOLUTION | {"in_channels": 2}), "expects 2"),
        (g.Convolution(name="n", inputs=IMAGE, **CONVOLUTION, groups=3), "3 groups"),
        (g.Convolution(name="n", inputs=IMAGE, **CONVOLUTION, padding=((1, 1),)), "1 sizes for 2"),
        (g.Norm(name="n", inputs=IMAGE, kind="batch", channels=3), "expects 3 channels"),
        (g.Pad(name="n", inputs=IMAGE, sides=((0, 10**9),) * 2), "pads or cuts"),
        (g.PixelShuffle(name="n", inputs=IMAGE, factor=2), "4 pixels out of 1"),
        (g.Channels(name="n", inputs=IMAGE, first=1, count=1), "takes channels 1 to 1 of 1"),
        (g.Resize(name="n", inputs=IMAGE), "has no factor"),
        (g.Resize(name="n", inputs=IMAGE, scale=(10.0**9, 1.0)), "enlarges"),
        (g.FitTo(name="n", inputs=IMAGE), "reads 1 layers"),
        (g.Dropout(name="n", inputs=(*IMAGE, *IMAGE)), "reads 2 layers"),
        (
            g.Convolution(name="n", inputs=IMAGE, **CONVOLUTION | {"kernel": (30_000, 30_000)}),
            "weights, more than",
        ),
    ],
)
def test_layers_that_do_not_fit_are_refused(node: g.Node, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        one_layer(node, 1, 4)


def test_another_number_of_outputs_than_said_is_refused() -> None:
    with pytest.raises(ModelError, match="gives 4 channels and is said to give 2"):
        one_layer(g.Convolution(name="n", inputs=IMAGE, **CONVOLUTION), 1, 2)


def test_features_beyond_all_memory_are_refused_before_any_is_there() -> None:
    sketch = Sketch()
    x = g.IMAGE
    for _ in range(60):
        x = sketch.add(g.Join, (x, x), how="concatenate")
    sketch.convolution(sketch.add(g.Channels, x, first=0, count=1), 1)
    net = GraphNet(sketch.graph())
    with pytest.raises(ModelError, match="GiB"):
        net.check_runs()


def test_frozen_levels_keep_weights_and_statistics() -> None:
    net = GraphNet(small_graph())
    net.freeze_levels(2)
    net.train()
    frozen = {name for name, parameter in net.named_parameters() if not parameter.requires_grad}
    # Two convolutions with a norm each, on two levels.
    assert len(frozen) == 2 * 2 * 3
    before = copy.deepcopy(net.state_dict())
    net(noise(2, 1, 16, 16))
    followed = {key for key, value in net.state_dict().items() if (value != before[key]).any()}
    assert followed
    assert not {key.split(".")[0] for key in followed} & {key.split(".")[0] for key in frozen}
    net.freeze_levels(0)
    assert all(parameter.requires_grad for parameter in net.parameters())
    with pytest.raises(SettingError, match="Choose 0 to 3"):
        net.freeze_levels(4)


# ----------------------------------------------------------------------------------- inference


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_what_is_computed_for_a_core_is_that_of_the_whole(
    seed: int, exact: bool, dims: int
) -> None:
    net = shaken_net(at_image_size(draw_graph(seed, dims, exact=exact)), seed)
    assert net.exact or not exact
    compute = GraphInferenceNet(net, CPU)
    image = noise(1, 1, *(net.valid_input(20 + 8 * axis) for axis in range(dims))).double()
    with torch.inference_mode():
        expected = net(image)
    sizes = expected.shape[2:]
    for kept in (
        None,
        tuple(slice(0, size) for size in sizes),
        tuple(slice(size // 3, size // 2 + 1) for size in sizes),
        (slice(0, 1), *(slice(size // 2, size) for size in sizes[1:])),
    ):
        part = expected if kept is None else expected[(slice(None), slice(None), *kept)]
        difference = (compute(image, kept) - part).abs().max() / expected.std()
        assert difference < 1e-10


def test_norms_and_dropout_are_not_computed() -> None:
    sketch = Sketch()
    x = sketch.norm(sketch.convolution(g.IMAGE, 4, bias=False))
    x = sketch.add(g.Dropout, sketch.activation(x))
    x = sketch.norm(sketch.upsampling(x, 2, 2, (0, 0), (2, 2)))
    sketch.add(g.Pooling, x, kind="max", kernel=(2, 2), stride=(2, 2))
    net = shaken_net(sketch.graph())
    compute = GraphInferenceNet(net, CPU)
    ops = [node.op for node in compute._net.architecture.nodes]
    assert ops == ["convolution", "activation", "transposed_convolution", "pooling"]
    image = noise(1, 1, 8, 8).double()
    torch.testing.assert_close(compute(image), net(image).detach())


def test_a_norm_of_features_that_others_read_stays() -> None:
    sketch = Sketch()
    x = sketch.convolution(g.IMAGE, 1)
    sketch.add(g.Join, (x, sketch.activation(sketch.norm(x))), how="add")
    net, image = shaken_net(sketch.graph()), noise(1, 1, 8, 8).double()
    torch.testing.assert_close(GraphInferenceNet(net, CPU)(image), net(image).detach())


def test_the_network_and_the_image_stay_as_they_are() -> None:
    sketch = Sketch()
    sketch.convolution(sketch.activation(g.IMAGE), 1)
    net, image = GraphNet(sketch.graph()).train(), noise(1, 1, 8, 8)
    before, pixels = copy.deepcopy(net.state_dict()), image.clone()
    GraphInferenceNet(net, CPU, torch.bfloat16)(image)
    GraphInferenceNet(net, CPU)(image)
    assert net.training
    assert (image == pixels).all()
    assert all((value == before[key]).all() for key, value in net.state_dict().items())


def test_features_are_counted_while_they_are_kept() -> None:
    sketch = Sketch()
    x = sketch.activation(sketch.norm(sketch.convolution(g.IMAGE, 8)))
    x = sketch.add(g.Pooling, x, kind="max", kernel=(2, 2), stride=(2, 2))
    sketch.convolution(x, 2)
    # The eight channels beside the pooled ones, a quarter as many.
    assert peak_numbers(GraphNet(sketch.graph())) == 8 + 8 / 4
