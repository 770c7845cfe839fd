"""The private copy gives what the network gives: folded, in strips, and of any box alone.

Weights are orthogonal and batch norm has seen something, so that an error shows; what is compared
is the logits, in units of their deviation, in float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from napari_unet.network import folding, inference
from napari_unet.network.blocks import Block
from napari_unet.network.folding import ColumnsTogether, PairwiseMaxPool, folded_copy
from napari_unet.network.graph_inference import GraphInferenceNet
from napari_unet.network.inference import InferenceNet
from napari_unet.network.parts import NobodyWaits
from napari_unet.network.unet import UNet
from napari_unet.settings import Architecture
from tests.graphs import shaken_net, small_graph

CPU = torch.device("cpu")
LIGHT = {"norm": "batch", "relu_after_upsampling": True, "output_kernel": 3}
VARIANTS: dict[str, dict[str, Any]] = {
    "batch norm": {"norm": "batch"},
    "batch norm on the way up, too": {"widths": (8, 6, 10), **LIGHT},
    "no padding": {"padded": False},
    "no padding, 3x3 output": {"padded": False, "output_kernel": 3},
    "nearest upsampling": {"upsampling": "nearest", "output_kernel": 3},
    "linear upsampling": {"upsampling": "linear"},
    "no padding, nearest upsampling": {"upsampling": "nearest", "padded": False},
    "no padding, linear upsampling": {"upsampling": "linear", "padded": False},
    "everything": {
        "separable": True,
        "attention": True,
        "residual": True,
        "convolutions": 3,
        "norm": "batch",
        "bias": False,
        "in_channels": 3,
        "classes": 4,
        "dropout": 0.3,
        "skip_first": True,
    },
    "volume": {"widths": (3, 4), "spatial_dims": 3, **LIGHT},
    "volume without padding": {"widths": (3, 4), "spatial_dims": 3, "padded": False},
    "instance norm": {"norm": "instance"},
    "group norm": {"norm": "group"},
    "pyramid pooling": {"pyramid_pooling": True},
}


def make_net(**options: Any) -> UNet:
    """Build a network in which errors do not fade on their way to the output."""
    torch.manual_seed(0)
    net = UNet(Architecture(**{"widths": (4, 6, 8), **options})).double().eval()
    for name, weights in net.named_parameters():
        if weights.ndim > 1:
            torch.nn.init.orthogonal_(weights, gain=1.6)
        elif name.endswith("bias"):
            torch.nn.init.normal_(weights, std=0.1)
    for name, buffer in net.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
        elif name.endswith("running_mean"):
            buffer.normal_()
    return net


def make_image(net: UNet) -> torch.Tensor:
    wanted = (26, 34, 42) if net.architecture.spatial_dims == 3 else (90, 122)
    sizes = [net.valid_input(size + 2 * net.margin) for size in wanted]
    return torch.randn(1, net.architecture.in_channels, *sizes, dtype=torch.double)


def whole(net: UNet, image: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = net(image)
    return logits


@pytest.mark.parametrize("strip_bytes", [1, 30_000, None], ids=["thin", "thick", "no strips"])
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_any_box_is_that_of_the_whole_network(
    options: dict[str, Any], strip_bytes: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "LEAST_ROWS", 2)
    net = make_net(**options)
    image = make_image(net)
    expected = whole(net, image)
    compute = InferenceNet(net, CPU, strip_bytes=strip_bytes)
    sizes = expected.shape[2:]
    for kept in (
        None,
        [slice(0, size) for size in sizes],
        [slice(size // 3, 2 * size // 3) for size in sizes],
        [slice(5, size // 2) for size in sizes],
        [slice(size - 1, size) for size in sizes],
    ):
        logits = compute(image, kept)
        reference = expected if kept is None else expected[(..., *kept)]
        assert logits.shape == reference.shape
        assert (logits - reference).abs().max() < 1e-9 * expected.std()


def test_strips_that_do_not_look_beyond_their_rows_show(monkeypatch: pytest.MonkeyPatch) -> None:
    net = make_net(norm="batch")
    image = make_image(net)
    expected = whole(net, image)
    monkeypatch.setattr(inference, "LEAST_ROWS", 8)
    compute = InferenceNet(net, CPU, strip_bytes=1)
    assert (compute(image) - expected).abs().max() < 1e-9
    reads = Block.reads
    for lost in (1, 2):
        monkeypatch.setattr(
            Block,
            "reads",
            lambda self, span, lost=lost: inference.Span(
                reads(self, span).first + lost, reads(self, span).last - lost
            ),
        )
        assert (compute(image) - expected).abs().max() > 1e-3 * expected.std()


def test_a_second_image_does_not_see_the_memory_of_the_first() -> None:
    net = make_net(norm="batch")
    compute = InferenceNet(net, CPU, strip_bytes=1)
    for image in (make_image(net), make_image(net)[..., :64], make_image(net)):
        first = compute(image).clone()
        kept = compute(image)
        compute(torch.rand_like(image))
        assert torch.equal(kept, first)
        assert torch.equal(kept.isfinite(), torch.ones_like(kept, dtype=torch.bool))


def test_the_copy_is_folded_and_the_network_left_alone() -> None:
    net = make_net(widths=(8, 6, 10), dropout=0.3, **LIGHT).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    copy = folded_copy(net)
    kinds = {type(layer).__name__ for layer in copy.modules()}
    assert not kinds & {"BatchNorm2d", "Dropout"}
    assert net.training
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    image = make_image(net)
    difference = whole(copy, image) - whole(net.eval(), image)
    assert difference.abs().max() < 1e-9


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("columns", [2, 8])
@pytest.mark.parametrize("kind", [torch.nn.Conv2d, torch.nn.Conv3d])
def test_columns_computed_together_are_those_computed_one_by_one(
    kind: Any, columns: int, padding: int
) -> None:
    plain = kind(3, 2, 3, padding=padding).double()
    together = ColumnsTogether(plain, columns)
    for width in (18, 24, 25):
        x = torch.randn(2, 3, *(7,) * (plain.weight.ndim - 3), width, dtype=torch.double)
        torch.testing.assert_close(together(x), plain(x))


@pytest.mark.parametrize("capability", ["AVX512", "AVX2", "DEFAULT"])
def test_every_kind_of_processor_gives_the_same(
    capability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    net = make_net(widths=(8, 6, 10), **LIGHT)
    image = make_image(net)
    compute = InferenceNet(net, CPU)
    has_together = any(isinstance(layer, ColumnsTogether) for layer in compute._net.modules())
    assert has_together == (capability in folding.LANES)
    assert (compute(image) - whole(net, image)).abs().max() < 1e-9


@pytest.mark.parametrize("shape", [(2, 3, 8, 12), (1, 2, 4, 6, 8)])
def test_the_largest_of_pairs_of_pairs_is_the_largest_of_the_window(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    pool = torch.nn.MaxPool2d(2) if x.ndim == 4 else torch.nn.MaxPool3d(2)
    assert torch.equal(PairwiseMaxPool()(x), pool(x))
    last = x.movedim(1, -1).contiguous().movedim(-1, 1)
    assert torch.equal(PairwiseMaxPool()(last), pool(x))


def test_a_batch_gives_what_each_of_it_gives() -> None:
    net = make_net(norm="batch")
    images = make_image(net).repeat(3, 1, 1, 1) * torch.tensor([1.0, 2, 3]).view(3, 1, 1, 1)
    compute = InferenceNet(net, CPU, strip_bytes=1)
    together = compute(images, [slice(3, 40), slice(8, 70)])
    for image, logits in zip(images, together, strict=True):
        torch.testing.assert_close(compute(image[None], [slice(3, 40), slice(8, 70)])[0], logits)


def test_half_precision_is_near_and_comes_back_as_single() -> None:
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this processor has no bfloat16")
    net = UNet(Architecture(widths=(8, 16, 32), norm="batch")).eval()
    image = torch.randn(1, 1, 64, 64)
    half = InferenceNet(net, CPU, torch.bfloat16)(image)
    assert half.dtype == torch.float32
    difference = half.sigmoid() - whole(net, image).sigmoid()
    assert 0 < difference.abs().max() < 0.05


@pytest.mark.parametrize("kind", ["U-Net", "list of layers"])
def test_it_ends_before_the_next_layer_once_nobody_waits(kind: str) -> None:
    asked: list[bool] = []

    def is_left() -> bool:
        asked.append(len(asked) >= 5)
        return asked[-1]

    net = make_net() if kind == "U-Net" else shaken_net(small_graph(), 0)
    made = InferenceNet if isinstance(net, UNet) else GraphInferenceNet
    copy = made(net, CPU)  # type: ignore[arg-type]  # each its own kind
    copy.end_when(is_left)
    with pytest.raises(NobodyWaits):
        copy(torch.zeros(1, 1, 64, 64))
    assert asked == [False] * 5 + [True]


def test_memory_of_features_is_taken_once_and_large_enough() -> None:
    memory = inference.Memory()
    like = torch.zeros(1, 3, 1, 1)
    small = memory.take("skip 0", like, (4, 5))
    assert small.shape == (1, 3, 4, 5)
    assert small.is_contiguous(memory_format=torch.channels_last)
    large = memory.take("skip 0", like, (8, 5))
    assert memory.take("skip 0", like, (4, 5)).data_ptr() == large.data_ptr()
    assert memory.take("skip 1", like, (4, 5)).data_ptr() != large.data_ptr()
    assert np.shares_memory(large.numpy(), memory.take("skip 0", like, (8, 5)).numpy())
