from __future__ import annotations

import contextlib
import io
import logging
import random
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from napari_unet.errors import ModelError
from napari_unet.models.onnx import read_onnx
from tests.models.foreign_nets import (
    TOLERANCE,
    Foreign,
    Unpadded,
    answer,
    difference,
    image,
    shaken,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore")

onnxruntime.set_default_logger_severity(4)


def exported(net: nn.Module, path: Path, x: torch.Tensor, opset: int, *, free: bool) -> Path:
    """Export a network with the exporter of old."""
    axes = {2 + axis: f"s{axis}" for axis in range(x.ndim - 2)}
    with contextlib.redirect_stdout(io.StringIO()):
        torch.onnx.export(
            net,
            (x,),
            path,
            dynamo=False,
            opset_version=opset,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": axes, "y": axes} if free else None,
        )
    return path


def exported_anew(net: nn.Module, path: Path, x: torch.Tensor, opset: int, *, free: bool) -> Path:
    """Export a network with the exporter of today."""
    pytest.importorskip("onnxscript")
    axes = {2 + axis: torch.export.Dim.DYNAMIC for axis in range(x.ndim - 2)}
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            torch.onnx.export(
                net,
                (x,),
                path,
                dynamo=True,
                opset_version=opset,
                dynamic_shapes=(axes,) if free else None,
                external_data=False,
                verbose=False,
            )
    finally:
        logging.disable(logging.NOTSET)
    return path


def run(path: Path, x: torch.Tensor) -> torch.Tensor:
    """Compute with onnxruntime."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


def check(seed: int, folder: Path, export: Callable[..., Path], opsets: tuple[int, ...]) -> bool:
    """Compare a network drawn by chance with onnxruntime, and with torch at another size."""
    net, chance = Foreign(seed), random.Random(seed)
    x, free = image(net.shape), chance.random() < 0.6
    try:
        path = export(net, folder / "net.onnx", x, chance.choice(opsets), free=free)
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, ValueError, TypeError):
        return False  # the exporter does not know one of the layers
    refusal = ""
    try:
        found = read_onnx(path)[0]
    except ModelError as error:
        refusal = str(error)
    if refusal:
        # Written for an odd size by old exporters: it interpolates by another rule than torch.
        assert "asymmetric" in refusal
        return False
    try:
        original = run(path, x)
    except onnxruntime.capi.onnxruntime_pybind11_state.Fail:
        return False  # the exporter wrote what onnxruntime does not take
    assert difference(answer(found, x), original) <= TOLERANCE, seed
    with torch.no_grad():
        if difference(original, net(x)) > TOLERANCE:
            return False  # opset 9 has no linear interpolation as torch has it
    x = image((1, net.in_channels, *(40, 32, 24)[: net.dims]), 1)
    with torch.no_grad():
        assert difference(answer(found, x), net(x)) <= TOLERANCE, seed
    return True


@pytest.mark.parametrize("seed", range(6))
def test_a_network_answers_as_onnxruntime_does(seed, tmp_path):
    check(seed, tmp_path, exported, (11, 13, 17, 20))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", range(0, 200, 50))
def test_hundreds_of_networks_answer_as_onnxruntime_does(first, tmp_path):
    seeds = range(first, first + 50)
    assert sum(check(seed, tmp_path, exported, (9, 11, 13, 16, 17, 20)) for seed in seeds) > 10


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", range(0, 30, 10))
def test_networks_of_the_new_exporter_answer_as_onnxruntime_does(first, tmp_path):
    seeds = range(first, first + 10)
    assert sum(check(seed, tmp_path, exported_anew, (18, 20, 22)) for seed in seeds) > 5


@pytest.mark.parametrize("dims", [2, 3])
def test_skips_that_are_cut_axis_by_axis_fit_at_any_size(dims, tmp_path):
    net = shaken(Unpadded(dims), 0)
    x = image((1, 1, *(36, 40, 44)[:dims]))
    found = read_onnx(exported(net, tmp_path / "net.onnx", x, 17, free=True))[0]
    for sizes in ((36, 36, 36), (40, 37, 45), (42, 43, 36)):
        other = image((1, 1, *sizes[:dims]), 1)
        with torch.no_grad():
            assert difference(answer(found, other), net(other)) <= TOLERANCE


def written(
    path: Path,
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    shape: list[int | str],
    *,
    opset: int = 13,
    outputs: tuple[str, ...] = ("y",),
) -> Path:
    """Write a graph."""
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    """Draw weights."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_channels_last_with_transpositions_and_same_padding_is_read(tmp_path):
    # As tf2onnx writes a Keras network: the image is (N, Y, X, C), the layers are not.
    nodes = [
        helper.make_node("Transpose", ["x"], ["a"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["a", "w1", "b1"], ["c"], auto_pad="SAME_UPPER"),
        helper.make_node("Relu", ["c"], ["skip"]),
        helper.make_node(
            "MaxPool", ["skip"], ["p"], kernel_shape=[2, 2], strides=[2, 2], auto_pad="VALID"
        ),
        helper.make_node("Transpose", ["p"], ["last"], perm=[0, 2, 3, 1]),
        helper.make_node("Mul", ["last", "factors"], ["m"]),
        helper.make_node("Transpose", ["m"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "ConvTranspose", ["first", "w2"], ["u"], strides=[2, 2], auto_pad="SAME_UPPER"
        ),
        helper.make_node("Transpose", ["u"], ["ul"], perm=[0, 2, 3, 1]),
        helper.make_node("Transpose", ["skip"], ["sl"], perm=[0, 2, 3, 1]),
        helper.make_node("Concat", ["ul", "sl"], ["j"], axis=3),
        helper.make_node("Transpose", ["j"], ["jf"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["jf", "w3"], ["z"], kernel_shape=[2, 2], auto_pad="SAME_LOWER"),
        helper.make_node("Transpose", ["z"], ["zl"], perm=[0, 2, 3, 1]),
        helper.make_node("Softmax", ["zl"], ["y"], axis=-1),
    ]
    held = {
        "w1": weights(4, 2, 3, 3),
        "b1": weights(4),
        "w2": weights(4, 3, 3, 3),
        "factors": weights(1, 1, 1, 4),
        "w3": weights(3, 7, 2, 2),
    }
    path = written(tmp_path / "net.onnx", nodes, held, ["n", "y", "x", 2])
    found = read_onnx(path)[0]
    x = image((1, 2, 16, 24))
    expected = run(path, x.permute(0, 2, 3, 1).contiguous()).permute(0, 3, 1, 2)
    assert found.card["activation"] == "softmax"
    assert difference(answer(found, x), expected) <= TOLERANCE


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("how", ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])
@pytest.mark.parametrize("rule", ["floor", "round_prefer_floor", "ceil"])
def test_resizing_is_that_of_onnxruntime_or_refused(mode, how, rule, tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node(
            "Resize",
            ["a", "", "scales"],
            ["b"],
            mode=mode,
            coordinate_transformation_mode=how,
            nearest_mode=rule,
        ),
        helper.make_node("Conv", ["b", "w"], ["y"]),
    ]
    held = {"w": weights(2, 2, 1, 1), "scales": np.array([1, 1, 2, 3], np.float32)}
    path = written(tmp_path / "net.onnx", nodes, held, [1, 2, "y", "x"])
    x = image((1, 2, 9, 8))
    expected = run(path, x)
    repeats = (how, rule) == ("asymmetric", "floor") or (
        how.endswith("half_pixel") and rule == "round_prefer_floor"
    )
    if mode == "nearest" and not repeats:
        with pytest.raises(ModelError, match="resizing"):
            read_onnx(path)
    else:
        assert difference(answer(read_onnx(path)[0], x), expected) <= TOLERANCE


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space_keeps_its_order(mode, tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("DepthToSpace", ["a"], ["y"], blocksize=2, mode=mode),
    ]
    path = written(tmp_path / "net.onnx", nodes, {"w": weights(8, 1, 3, 3)}, [1, 1, "y", "x"])
    x = image((1, 1, 8, 9))
    assert difference(answer(read_onnx(path)[0], x), run(path, x)) <= TOLERANCE


def test_a_file_for_one_size_becomes_a_network_for_any(tmp_path):
    net = shaken(nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Upsample(scale_factor=2)), 0)
    path = exported(net, tmp_path / "net.onnx", image((1, 1, 64, 64)), 17, free=False)
    x = image((1, 1, 19, 22))
    with torch.no_grad():
        assert difference(answer(read_onnx(path)[0], x), net(x)) <= TOLERANCE


def test_every_output_that_is_an_image_is_offered(tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Sigmoid", ["a"], ["y"]),
        helper.make_node("Tanh", ["a"], ["z"]),
    ]
    held = {"w": weights(1, 1, 3, 3)}
    path = written(tmp_path / "net.onnx", nodes, held, [1, 1, "y", "x"], outputs=("y", "z"))
    found = read_onnx(path)
    assert [one.title for one in found] == ["output y", "output z"]
    assert [one.card["activation"] for one in found] == ["sigmoid", "none"]


def test_two_inputs_are_refused_in_a_sentence(tmp_path):
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 8, 8]) for name in "ab"]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["y"])], "net", inputs, [output])
    path = tmp_path / "net.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(ModelError, match=r"has two inputs \(a, b\)"):
        read_onnx(path)


def test_an_operation_that_is_not_known_is_refused_by_its_name(tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("CumSum", ["a", "axis"], ["y"]),
    ]
    held = {"w": weights(1, 1, 3, 3), "axis": np.array(1, np.int64)}
    path = written(tmp_path / "net.onnx", nodes, held, [1, 1, "y", "x"])
    with pytest.raises(ModelError, match="not supported: CumSum"):
        read_onnx(path)


def beside(tmp_path: Path, location: str) -> Path:
    """Write a network whose weights lie in another file."""
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    path = written(tmp_path / "net.onnx", nodes, {"w": weights(1, 1, 3, 3)}, [1, 1, "y", "x"])
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    path.write_bytes(model.SerializeToString())
    return path


def test_weights_beside_the_file_are_read_and_their_lack_is_told(tmp_path):
    path = beside(tmp_path, "net.data")
    with pytest.raises(ModelError, match=r"net\.data, which is missing"):
        read_onnx(path)
    (tmp_path / "net.data").write_bytes(weights(1, 1, 3, 3).tobytes()[:-1])
    with pytest.raises(ModelError, match="too short"):
        read_onnx(path)
    (tmp_path / "net.data").write_bytes(weights(1, 1, 3, 3).tobytes())
    tensors = read_onnx(path)[0].tensors
    assert np.array_equal(tensors["conv.weight"].numpy(), weights(1, 1, 3, 3))


@pytest.mark.parametrize("location", ["../net.data", "/etc/hostname", "link/net.data"])
def test_weights_outside_of_the_folder_are_not_read(location, tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "net.data").write_bytes(weights(1, 1, 3, 3).tobytes())
    (inside / "link").symlink_to(tmp_path)
    with pytest.raises(ModelError, match="outside of its folder"):
        read_onnx(beside(inside, location))


def test_a_constant_of_a_size_that_no_memory_has_is_refused(tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("ConstantOfShape", ["shape"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    held = {"w": weights(1, 1, 3, 3), "shape": np.array([1 << 20, 1 << 20], np.int64)}
    path = written(tmp_path / "net.onnx", nodes, held, [1, 1, "y", "x"])
    with pytest.raises(ModelError, match="very large"):
        read_onnx(path)


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    held = {"w": np.full((1, 1, 3, 3), np.nan, np.float32)}
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    path = written(tmp_path / "net.onnx", nodes, held, [1, 1, "y", "x"])
    with pytest.raises(ModelError, match="not finite"):
        read_onnx(path)


def test_the_nuclei_model_gives_its_reference_output(data_dir):
    folder = data_dir / "weights" / "bioimageio_nuclei_broad"
    found = read_onnx(folder / "weights.onnx")[0]
    x = np.load(folder / "test_input.npy").astype(np.float32)
    x = torch.from_numpy((x - x.mean()) / (x.std() + 1e-6))
    expected = torch.from_numpy(np.load(folder / "test_output.npy"))
    assert found.card["activation"] == "sigmoid"
    assert difference(answer(found, x).sigmoid(), expected) <= TOLERANCE


@pytest.mark.slow
def test_damaged_files_are_refused_or_read_and_nothing_else(tmp_path):
    net = shaken(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), 0)
    net = nn.Sequential(net, nn.MaxPool2d(2), nn.Upsample(scale_factor=2), nn.Conv2d(4, 1, 1))
    path = exported(net.eval(), tmp_path / "good.onnx", image((1, 1, 16, 16)), 13, free=True)
    good = path.read_bytes()
    bad = tmp_path / "bad.onnx"
    refused = 0
    for seed in range(600):
        chance = random.Random(seed)
        changed = bytearray(good)
        kind = chance.choice(["cut", "flip", "set", "insert", "delete"])
        for _ in range(1 if kind == "cut" else chance.choice([1, 3, 30])):
            at = chance.randrange(len(changed))
            if kind == "cut":
                del changed[at:]
            elif kind == "flip":
                changed[at] ^= 1 << chance.randrange(8)
            elif kind == "set":
                changed[at] = chance.randrange(256)
            elif kind == "insert":
                changed[at:at] = bytes(chance.randrange(256) for _ in range(4))
            else:
                del changed[at : at + 4]
        bad.write_bytes(changed)
        try:
            assert read_onnx(bad)
        except ModelError:
            refused += 1
    assert refused > 200
