"""Each kind of layer is written as operations that compute the same."""

from __future__ import annotations

from typing import get_args

import onnx
import onnxruntime
import pytest
import torch

from napari_unet.models.onnx import read_onnx
from napari_unet.models.onnx.writer import OPSET, write_onnx
from napari_unet.network.graph import (
    Activation,
    ActivationKind,
    Convolution,
    Graph,
    Join,
    JoinKind,
    Norm,
    Pooling,
    Resize,
)
from napari_unet.network.graph_net import GraphNet

STEM = Convolution(name="stem", inputs=("image",), in_channels=2, out_channels=4, kernel=(1, 1))
NODES = {
    **{
        f"the activation {kind}": Activation(
            name="last", inputs=("stem",), kind=kind, slope=0.3, channels=4
        )
        for kind in get_args(ActivationKind)
    },
    **{
        f"a {kind} norm, {'with' if affine else 'without'} weights": Norm(
            name="last", inputs=("stem",), kind=kind, channels=4, affine=affine, eps=1e-3, groups=2
        )
        if kind == "group"
        else Norm(name="last", inputs=("stem",), kind=kind, channels=4, affine=affine, eps=1e-3)
        for kind in ("batch", "instance", "group", "layer")
        for affine in (True, False)
    },
    **{
        f"joined: {how}": Join(name="last", inputs=("stem", "stem"), how=how)
        for how in get_args(JoinKind)
    },
    "the largest": Pooling(
        name="last",
        inputs=("stem",),
        kind="max",
        kernel=(3, 3),
        stride=(1, 1),
        padding=((1, 1),) * 2,
    ),
    "the mean": Pooling(
        name="last",
        inputs=("stem",),
        kind="average",
        kernel=(3, 3),
        stride=(1, 1),
        padding=((1, 1),) * 2,
        counts_padding=False,
    ),
    **{
        f"resized: {mode}, corners {'kept' if corners else 'moved'}": Resize(
            name="last", inputs=("stem",), mode=mode, scale=(2.0, 2.0), align_corners=corners
        )
        for mode in ("nearest", "linear", "cubic")
        for corners in (False, True)
        if not (mode == "nearest" and corners)
    },
}


def network(node) -> GraphNet:
    channels = 8 if isinstance(node, Join) and node.how == "concatenate" else 4
    end = Convolution(
        name="end", inputs=("last",), in_channels=channels, out_channels=1, kernel=(1, 1)
    )
    graph = Graph(in_channels=2, nodes=(STEM, node, end))
    torch.manual_seed(0)
    net = GraphNet(graph).eval()
    with torch.no_grad():
        for key, tensor in net.state_dict().items():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5) if "var" in key else tensor.normal_(0, 0.7)
    return net


@pytest.mark.parametrize("name", NODES)
def test_a_layer_computes_the_same_in_onnxruntime_and_is_read_again(name, tmp_path):
    net = network(NODES[name])
    content = write_onnx(net.architecture, net.state_dict(), "none", 16, {})
    session = onnxruntime.InferenceSession(content)
    (tmp_path / "net.onnx").write_bytes(content)
    found = read_onnx(tmp_path / "net.onnx")[-1]
    again = GraphNet(found.architecture).eval()
    again.load_state_dict(found.tensors)
    for size in ((16, 16), (24, 40)):
        image = torch.randn((2, 2, *size), generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            expected = net(image) if "resized" not in name else forced(net, image)
            reread = again(image) if "resized" not in name else forced(again, image)
        given = torch.from_numpy(session.run(None, {"image": image.numpy()})[0])
        torch.testing.assert_close(given, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(reread, expected, atol=1e-5, rtol=1e-5)


def forced(net: GraphNet, image: torch.Tensor) -> torch.Tensor:
    """Compute layer by layer: the result is larger than the image, which no network's may be."""
    features = {"image": image}
    for node in net.architecture.nodes:
        features[node.name] = net.layer(node.name)(*(features[n] for n in node.inputs))
    return features[net.architecture.nodes[-1].name]


def test_what_is_written_is_right_by_the_book():
    net = network(NODES["a layer norm, with weights"])
    model = onnx.load_model_from_string(
        write_onnx(net.architecture, net.state_dict(), "sigmoid", 16, {"who": "we"})
    )
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == OPSET
    assert {entry.key: entry.value for entry in model.metadata_props} == {"who": "we"}
