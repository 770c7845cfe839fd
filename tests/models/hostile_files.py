"""Files that a stranger might send to break in, to read what is not theirs, or to stop a computer.

Each function writes files into a folder and gives the one that is to be opened. The payloads, were
they run, would write a file beside (:data:`MARK`), so that a test can see that they were not.
"""

from __future__ import annotations

import collections
import io
import itertools
import json
import os
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from napari_unet.models.card import Card
from napari_unet.models.model import Model, save_model
from napari_unet.network.graph import IMAGE, Resize
from napari_unet.network.graph_net import GraphNet
from napari_unet.network.unet import UNet
from napari_unet.settings import Architecture
from tests.graphs import Sketch

MARK = "FIRED"

# ------------------------------------------------------------------------------------- pickles


def _call(module: str, name: str, argument: str) -> bytes:
    """Write instructions that call a function with a text and leave the result."""
    return f"c{module}\n{name}\n(V{argument}\ntR".encode()


def _instructions(folder: Path) -> dict[str, bytes]:
    """Write what runs code where Python unpickles it, in the ways that are known."""
    mark = str(folder / MARK)
    shell, python = f"touch {mark}", f"open({mark!r}, 'w').close()"
    popen = f"csubprocess\nPopen\n((lVtouch\naV{mark}\natR".encode()
    return {
        "os.system": _call("os", "system", shell),
        "posix.system": _call("posix", "system", shell),
        "builtins.eval": _call("builtins", "eval", python),
        "builtins.exec": _call("builtins", "exec", python),
        "old name of exec": _call("__builtin__", "exec", python),
        "subprocess.Popen": popen,
        "runpy": _call("runpy", "run_path", mark),
        "timeit": _call("timeit", "timeit", python),
        "torch's own wrapper of exec": _call(
            "torch.jit.unsupported_tensor_ops", "execWrapper", python
        ),
        "torch.load": _call("torch", "load", mark),
        "numpy's wrapper of exec": _call("numpy.testing._private.utils", "runstring", python),
        "pydoc": f"cpydoc\npipepager\n(V\nV{shell}\ntR".encode(),
        "INST": f"(V{shell}\nios\nsystem\n".encode(),
        "OBJ": f"(cos\nsystem\nV{shell}\no".encode(),
        "getattr in two steps": (
            f"cbuiltins\ngetattr\n(cos\n__dict__\nVsystem\ntR(V{shell}\ntR".encode()
        ),
        "a function in a partial": (f"cfunctools\npartial\n(cos\nsystem\nV{shell}\ntR(tR".encode()),
        "a state that sets a function": (
            f"ccollections\nOrderedDict\n)R}}V__reduce__\ncos\nsystem\nsb(V{shell}\ntR".encode()
        ),
        "__import__": _call("builtins", "__import__", "antigravity"),
        "a class of extensions": b"\x80\x02\x82\x01)R",
        "a function of code objects": b"ctypes\nFunctionType\n(cmarshal\nloads\n(Vx\ntR}tR",
    }


def _weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return UNet(Architecture(widths=(2, 3))).state_dict()


class _Raw:
    """Is replaced in a pickle by instructions."""


def _with_weights(instructions: bytes) -> bytes:
    """Put instructions into a checkpoint as torch.save writes it, beside whole weights."""
    buffer = io.BytesIO()
    torch.save({"state_dict": _weights(), "epoch": "@@@"}, buffer)
    result = io.BytesIO()
    with zipfile.ZipFile(buffer) as good, zipfile.ZipFile(result, "w") as bad:
        for name in good.namelist():
            content = good.read(name)
            if name.endswith("data.pkl"):
                place = content.index(b"X\x03\x00\x00\x00@@@")
                content = content[:place] + instructions + content[place + 8 :]
            bad.writestr(name, content)
    return result.getvalue()


def _pickled(how: str, container: str) -> Callable[[Path], Path]:
    """Return what writes instructions in a container: a zip, the old format, a tar, bare."""

    def make(folder: Path) -> Path:
        instructions = _instructions(folder)[how]
        bare = instructions + b"."
        if container == "zip":
            return _file(folder / "net.pth", _with_weights(instructions))
        if container == "old":
            magic = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
            start = magic + pickle.dumps(1001, protocol=2) + pickle.dumps({"little_endian": True})
            return _file(folder / "net.ckpt", start + bare + pickle.dumps([]))
        if container == "tar":
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
                for name in ("storages", "tensors", "pickle"):
                    info = tarfile.TarInfo(name)
                    info.size = len(bare)
                    archive.addfile(info, io.BytesIO(bare))
            return _file(folder / "net.pt", buffer.getvalue())
        return _file(folder / "net.pkl", bare)

    return make


def _hook(folder: Path) -> Path:
    """Hide a call among the hooks of a tensor."""
    torch.save(collections.OrderedDict(w=torch.ones(3, 1, 3, 3)), folder / "good.pth")
    call = _call("os", "system", f"touch {folder / MARK}")
    with (
        zipfile.ZipFile(folder / "good.pth") as good,
        zipfile.ZipFile(folder / "x.pth", "w") as bad,
    ):
        for name in good.namelist():
            content = good.read(name)
            if name.endswith("data.pkl"):
                content = content.replace(
                    b"ccollections\nOrderedDict\n", call + b"0ccollections\nOrderedDict\n"
                )
            bad.writestr(name, content)
    (folder / "good.pth").unlink()
    return folder / "x.pth"


def _endless_memo(folder: Path) -> Path:
    """Write a pickle in which each list holds the one before ten times."""
    content = b"]q\x00" + b"".join(b"](" + b"h%c" % n * 10 + b"eq%c" % (n + 1) for n in range(100))
    return _file(folder / "net.pth", content + b".")


def _long_number(folder: Path) -> Path:
    """Write a pickle with a number of ten million digits."""
    return _file(folder / "net.pth", b"I" + b"9" * 10_000_000 + b"\n.")


def _announced(folder: Path) -> Path:
    """Write a pickle that announces a text of many GB."""
    return _file(folder / "net.pth", b"\x80\x04\x8d" + struct.pack("<Q", 1 << 40) + b"x.")


def _deep(folder: Path) -> Path:
    """Write a pickle of a million tuples in tuples."""
    return _file(folder / "net.pth", b"\x80\x02" + b")" + b"\x85" * 1_000_000 + b".")


def _named(names: Iterable[str], *shapes: tuple[int, ...]) -> Callable[[Path], Path]:
    """Return what saves a state dict of these names, whose shapes come in turn."""

    def make(folder: Path) -> Path:
        tensors = zip(names, itertools.cycle(shapes), strict=False)
        torch.save({name: torch.ones(shape) for name, shape in tensors}, folder / "net.pth")
        return folder / "net.pth"

    return make


def _twice(folder: Path) -> Path:
    """Write an archive in which another network hides under the same name."""
    torch.save(_weights(), folder / "good.pth")
    with (
        zipfile.ZipFile(folder / "good.pth") as good,
        zipfile.ZipFile(folder / "net.pth", "w") as bad,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # of the name
        for name in good.namelist():
            for _ in range(1 + name.endswith("data.pkl")):
                bad.writestr(name, good.read(name))
    (folder / "good.pth").unlink()
    return folder / "net.pth"


def _overlapping(folder: Path) -> Path:
    """Write an archive whose thousand entries are one and the same, a large one packed."""
    with zipfile.ZipFile(folder / "net.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(50 << 20))
    content = (folder / "net.pth").read_bytes()
    start, end = content.rfind(b"PK\x01\x02"), content.rfind(b"PK\x05\x06")
    entries = content[start:end]
    for number in range(1000):
        name = b"archive/data/%04d" % number
        head = content[start : start + 28] + struct.pack("<H", len(name))
        entries += head + content[start + 30 : start + 46] + name
    tail = content[end : end + 8] + struct.pack("<HHI", 1001, 1001, len(entries))
    return _file(folder / "net.pth", content[:start] + entries + tail + content[end + 16 :])


# --------------------------------------------------------------------------------- TorchScript


def _script(body: str, extra: str = "") -> Callable[[Path], Path]:
    """Return what writes a TorchScript file with a forward pass."""

    def make(folder: Path) -> Path:
        net = torch.nn.Conv2d(1, 1, 3)
        torch.jit.script(net).save(folder / "good.pt")
        target = folder / "net.pt"
        with zipfile.ZipFile(folder / "good.pt") as good, zipfile.ZipFile(target, "w") as bad:
            for name in good.namelist():
                content = good.read(name)
                if name.endswith(".py"):
                    text = content.decode()
                    start = text.index("  def forward(")
                    head = text[start : text.index("\n", text.index("->", start)) + 1]
                    lines = "".join(f"    {line}\n" for line in body.splitlines())
                    content = (text[:start] + head + lines + extra).encode()
                bad.writestr(name, content)
        (folder / "good.pt").unlink()
        return target

    return make


WIDER = "x = torch.cat([x, x], 1)\n" * 50
DEEP_CODE = "(" * 5000 + "1" + ")" * 5000

# ---------------------------------------------------------------------------------------- ONNX


def _onnx(change: Callable[[Any, Path], None]) -> Callable[[Path], Path]:
    """Return what writes an ONNX file that is changed before it is saved."""

    def make(folder: Path) -> Path:
        kernel = numpy_helper.from_array(np.ones((1, 1, 3, 3), np.float32), "w")
        graph = helper.make_graph(
            [helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[3, 3])],
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, "h", "w"])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, "h", "w"])],
            [kernel],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        change(model, folder)
        return _file(folder / "net.onnx", model.SerializeToString())

    return make


def _beside(location: str) -> Callable[[Any, Path], None]:
    """Return what puts the weights into another file."""

    def change(model: Any, folder: Path) -> None:
        if location == "link":
            (folder / "link").symlink_to("/etc/passwd")
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.append(onnx.StringStringEntryProto(key="location", value=location))

    return change


def _huge_constant(model: Any, _: Path) -> None:
    """Compute a constant of a terabyte."""
    shape = numpy_helper.from_array(np.array([1 << 20, 1 << 20]), "s")
    model.graph.initializer.append(shape)
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["s"], ["c"]))


def _doubling(model: Any, _: Path) -> None:
    """Double a constant forty times."""
    model.graph.initializer.append(numpy_helper.from_array(np.ones(2, np.float32), "c0"))
    for n in range(40):
        node = helper.make_node("Concat", [f"c{n}"] * 2, [f"c{n + 1}"], axis=0)
        model.graph.node.insert(n, node)


def _endless_function(model: Any, _: Path) -> None:
    """Let a function call itself."""
    body = [helper.make_node("f", ["a"], ["b"], domain="own")] * 2
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    model.functions.append(helper.make_function("own", "f", ["a"], ["b"], body, opsets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.graph.node.insert(0, helper.make_node("f", ["x"], ["z"], domain="own"))


def _endless_loop(model: Any, _: Path) -> None:
    """Loop for ever."""
    body = helper.make_graph([], "body", [], [])
    model.graph.node.insert(0, helper.make_node("Loop", ["", ""], ["z"], body=body))


def _wider(model: Any, _: Path) -> None:
    names = [model.graph.input[0].name, *(f"wider_{n}" for n in range(50))]
    for one, other in itertools.pairwise(names):
        model.graph.node.append(helper.make_node("Concat", [one, one], [other], axis=1))
    model.graph.output[0].name = names[-1]


def _huge_shape(model: Any, _: Path) -> None:
    """Say that the weights are larger than any computer."""
    model.graph.initializer[0].dims[:] = [1 << 30, 1 << 30, 3, 3]


# ---------------------------------------------------------------------------------------- HDF5


def _h5(write: Callable[[Any, Path], None]) -> Callable[[Path], Path]:
    """Return what writes an HDF5 file that looks like one of Keras."""

    def make(folder: Path) -> Path:
        with h5py.File(folder / "net.h5", "w") as file:
            file.attrs["layer_names"] = np.array([b"c"])
            layer = file.create_group("c")
            layer.attrs["weight_names"] = np.array([b"c/kernel:0"])
            write(file, folder)
        return folder / "net.h5"

    return make


def _outside(file: Any, _: Path) -> None:
    file["c"]["c/kernel:0"] = h5py.ExternalLink("/etc/passwd", "/")


def _raw_outside(file: Any, _: Path) -> None:
    place = [("/etc/passwd", 0, 36)]
    file["c"].create_dataset("c/kernel:0", (1, 3, 3, 1), "f4", external=place)


def _soft_circle(file: Any, _: Path) -> None:
    file["c"]["c"] = h5py.SoftLink("/c")


def _hard_circle(file: Any, _: Path) -> None:
    for name in "abcd":
        file["c"][name] = file["c"]


def _huge(file: Any, _: Path) -> None:
    file["c"].create_dataset("c/kernel:0", (1 << 15, 1 << 15, 64, 64), "f4", chunks=(64,) * 4)


def _huge_chunk(file: Any, _: Path) -> None:
    """Write a small array that lies in a chunk of many GB."""
    chunk = (1 << 15, 1 << 14, 1, 1)
    file["c"].create_dataset(
        "c/kernel:0", (1, 1, 1, 1), "f4", chunks=chunk, maxshape=(None,) * 4, compression="gzip"
    )


def _virtual(file: Any, _: Path) -> None:
    layout = h5py.VirtualLayout((1, 3, 3, 1), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (1, 3, 3, 1))
    file["c"].create_virtual_dataset("c/kernel:0", layout)


def _deep_groups(file: Any, _: Path) -> None:
    group = file["c"]
    for _ in range(500):
        group = group.create_group("g")


# --------------------------------------------------------------------------------------- Keras


def keras_config(layer: dict[str, Any]) -> dict[str, Any]:
    """Describe a network of one layer."""
    start = {
        "class_name": "InputLayer",
        "name": "i",
        "config": {"name": "i", "batch_input_shape": [None, None, None, 1]},
        "inbound_nodes": [],
    }
    layers = [start, {"name": "l", "inbound_nodes": [[["i", 0, 0, {}]]], **layer}]
    config = {"layers": layers, "input_layers": [["i", 0, 0]], "output_layers": [["l", 0, 0]]}
    return {"class_name": "Functional", "config": config}


def _keras(config: Any) -> Callable[[Path], Path]:
    """Return what writes a ``.keras`` file of this configuration."""

    def make(folder: Path) -> Path:
        with h5py.File(folder / "made", "w") as file:
            file.create_group("layers")
        with zipfile.ZipFile(folder / "net.keras", "w") as archive:
            text = config if isinstance(config, str) else json.dumps(config)
            archive.writestr("config.json", text)
            archive.writestr("metadata.json", json.dumps({"keras_version": "3.0.0"}))
            archive.writestr("model.weights.h5", (folder / "made").read_bytes())
        (folder / "made").unlink()
        return folder / "net.keras"

    return make


def _layer(kind: str, **settings: Any) -> dict[str, Any]:
    return keras_config({"class_name": kind, "config": {"name": "l", **settings}})


# --------------------------------------------------------------------------------- safetensors


def _safetensors(
    header: Any, size: int = 72, *, length: int | None = None
) -> Callable[[Path], Path]:
    """Return what writes a safetensors file with this header."""

    def make(folder: Path) -> Path:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        start = struct.pack("<Q", len(text) if length is None else length)
        return _file(folder / "net.safetensors", start + text + bytes(size))

    return make


def _entry(start: int, stop: int, shape: list[int] | None = None) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape or [1, 1, 3, 3], "data_offsets": [start, stop]}


# ------------------------------------------------------------------------------------ packages


def _own(stride: int, layers: int) -> Callable[[Path], Path]:
    """Return what writes our own format with a card of very many layers."""

    def make(folder: Path) -> Path:
        sketch, x = Sketch(), IMAGE
        for _ in range(stride.bit_length() - 1):
            x = sketch.convolution(x, 1, (2, 3), stride=(2, 2))
        for _ in range(layers):
            x = sketch.activation(x)
        for _ in range(stride.bit_length() - 1):
            x = sketch.add(Resize, x, mode="linear", scale=(2.0, 2.0))
        net = GraphNet(sketch.graph())
        card = Card(name="net", architecture=net.architecture, outputs=("foreground",))
        return save_model(Model(net, card), folder / "net.safetensors")

    return make


def _package(text: str, files: dict[str, bytes] | None = None) -> Callable[[Path], Path]:
    """Return what writes a bioimage.io package as a zip."""

    def make(folder: Path) -> Path:
        with zipfile.ZipFile(folder / "net.zip", "w") as archive:
            archive.writestr("bioimageio.yaml", text)
            for name, content in (files or {}).items():
                archive.writestr(name, content)
        return folder / "net.zip"

    return make


def _linked_folder(folder: Path) -> Path:
    package = folder / "net"
    package.mkdir()
    (package / "bioimageio.yaml").write_text(_DESCRIPTION.format(source="weights.onnx"))
    (package / "weights.onnx").symlink_to("/etc/passwd")
    return package


def _linked_description(folder: Path) -> Path:
    package = folder / "net"
    package.mkdir()
    (package / "bioimageio.yaml").symlink_to("/etc/passwd")
    return package


_DESCRIPTION = """format_version: 0.5.4
type: model
name: x
inputs:
- id: a
  axes: &axes
  - {{type: batch}}
  - {{type: channel}}
  - {{type: space, id: y}}
  - {{type: space, id: x}}
outputs:
- {{id: b, axes: *axes}}
weights: {{onnx: {{source: {source}}}}}
"""
_BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n}, *a{n}]\n" for n in range(40))

# --------------------------------------------------------------------------------------- other


def _file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _pipe(folder: Path) -> Path:
    os.mkfifo(folder / "net.pth")
    return folder / "net.pth"


def _linked(target: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "net.pth").symlink_to(target)
        return folder / "net.pth"

    return make


def _circle(folder: Path) -> Path:
    (folder / "net.pth").symlink_to("net.pth")
    return folder / "net.pth"


HOSTILE: dict[str, Callable[[Path], Path]] = {
    **{
        f"pickle, {container}: {how}": _pickled(how, container)
        for how in _instructions(Path())
        for container in ("zip", "old", "tar", "bare")
    },
    "pickle: a call among the hooks of a tensor": _hook,
    "pickle: lists in lists that grow": _endless_memo,
    "pickle: a long number": _long_number,
    "pickle: a text that is announced": _announced,
    "pickle: tuples in tuples": _deep,
    "pickle: names of a million letters": _named(
        [f"{'a.' * 500_000}{n}.weight" for n in range(9)], (4, 4, 3, 3)
    ),
    "pickle: forty thousand norms": _named([f"n{n}.weight" for n in range(40_000)], (4,)),
    "pickle: convolutions that fit in very many ways": _named(
        [f"x{n}.weight" for n in range(60)], (8, 8, 3, 3), (8, 16, 3, 3)
    ),
    "zip: two pickles of one name": _twice,
    "zip: parts that overlap": _overlapping,
    "script: an endless loop": _script("while True:\n  x = input\nreturn input"),
    "script: a loop without end": _script(
        "for i in range(999999999999999):\n  x = i\nreturn input"
    ),
    "script: loops in loops": _script(
        "for i in range(9999):\n  for j in range(9999):\n    x = torch.add(i, j)\nreturn input"
    ),
    "script: a file is read": _script('x = torch.from_file("/etc/passwd", False, 36)\nreturn x'),
    "script: a file is written": _script(
        'ops.aten.save(input, "/tmp/napari_unet_FIRED")\nreturn input'
    ),
    "script: it calls itself": _script("return (self).forward(input)"),
    "script: a list that doubles": _script(
        "a = [1, 1]\n" + "a = torch.add(a, a)\n" * 60 + "return input"
    ),
    "script: a list that is multiplied": _script("a = torch.mul([1], 999999999999)\nreturn input"),
    "script: a number that grows": _script(
        "a = 9\n" + "a = torch.mul(a, a)\n" * 60 + "return torch.add(input, a)"
    ),
    "script: a power": _script("a = torch.pow(9, 999999999)\nreturn input"),
    "script: channels that double": _script(f"x = input\n{WIDER}return x"),
    "script: a very long program": _script("x = input\n" * 400_000 + "return x"),
    "script: deep brackets": _script(f"a = {DEEP_CODE}\nreturn input"),
    "script: Python": _script(
        "__import__('os').system('touch /tmp/napari_unet_FIRED')\nreturn input"
    ),
    "script: a format that pads": _script('a = torch.format("{:999999999999}", 1)\nreturn input'),
    "onnx: weights outside": _onnx(_beside("../../../../../../etc/passwd")),
    "onnx: weights at the root": _onnx(_beside("/etc/passwd")),
    "onnx: weights behind a link": _onnx(_beside("link")),
    "onnx: weights that are a folder": _onnx(_beside(".")),
    "onnx: a device": _onnx(_beside("/dev/zero")),
    "onnx: a huge constant": _onnx(_huge_constant),
    "onnx: a constant that doubles": _onnx(_doubling),
    "onnx: a function that calls itself": _onnx(_endless_function),
    "onnx: an endless loop": _onnx(_endless_loop),
    "onnx: channels that double": _onnx(_wider),
    "onnx: a huge shape": _onnx(_huge_shape),
    "h5: a link to another file": _h5(_outside),
    "h5: numbers in another file": _h5(_raw_outside),
    "h5: numbers of another file": _h5(_virtual),
    "h5: a soft link in a circle": _h5(_soft_circle),
    "h5: groups in a circle": _h5(_hard_circle),
    "h5: deep groups": _h5(_deep_groups),
    "h5: a huge shape": _h5(_huge),
    "h5: a huge chunk": _h5(_huge_chunk),
    "keras: a Lambda with code": _keras(
        _layer("Lambda", function=["4wEAAAAAAAAAAAAAAAA=", None, None])
    ),
    "keras: a Lambda of Keras 3": _keras(
        _layer("Lambda", function={"class_name": "__lambda__", "config": {"code": "4wEAAAAAAA=="}})
    ),
    "keras: a class of Python": _keras(
        keras_config({"class_name": "system", "module": "os", "config": {"name": "l"}})
    ),
    "keras: a function of a module": _keras(
        keras_config(
            {
                "class_name": "TFOpLambda",
                "config": {"name": "l", "function": "io.read_file"},
                "inbound_nodes": [["i", 0, 0, {"name": "/etc/passwd"}]],
            }
        )
    ),
    "keras: an activation of Python": _keras(_layer("Activation", activation="os>system")),
    "keras: deep JSON": _keras("[" * 100_000 + "]" * 100_000),
    "keras: a network in itself": _keras(
        keras_config({"class_name": "Functional", "config": {"layers": [], "input_layers": []}})
    ),
    "keras: a layer that reads itself": _keras(
        keras_config({"class_name": "ReLU", "config": {}, "inbound_nodes": [[["l", 0, 0, {}]]]})
    ),
    "safetensors: offsets that overlap": _safetensors({"a": _entry(0, 36), "b": _entry(18, 54)}),
    "safetensors: an endless header": _safetensors({}, length=1 << 62),
    "safetensors: a header beyond the file": _safetensors({"a": _entry(0, 36)}, length=10**7),
    "safetensors: numbers beyond the file": _safetensors({"a": _entry(0, 1 << 40)}),
    "safetensors: a shape that lies": _safetensors({"a": _entry(0, 36, [1 << 30, 1 << 30, 3, 3])}),
    "safetensors: one name twice": _safetensors(
        b'{"a":'
        + json.dumps(_entry(0, 36)).encode()
        + b',"a":'
        + json.dumps(_entry(36, 72)).encode()
        + b"}"
    ),
    "safetensors: deep JSON": _safetensors(b'{"__metadata__":' + b"[" * 100_000 + b"}"),
    "safetensors: a card of deep JSON": _safetensors(
        {"__metadata__": {"napari_unet_card": "[" * 100_000}, "a": _entry(0, 36)}, 36
    ),
    "safetensors: very many tensors": _safetensors(
        {f"t{n}": _entry(0, 0, [0]) for n in range(100_000)}
    ),
    "own: very many layers on very many levels": _own(512, 3000),
    "package: a file outside": _package(_DESCRIPTION.format(source="../../../etc/passwd")),
    "package: a file at the root": _package(_DESCRIPTION.format(source="/etc/passwd")),
    "package: a file of this computer": _package(_DESCRIPTION.format(source="file:///etc/passwd")),
    "package: a zip that leads out": _package(
        _DESCRIPTION.format(source="../FIRED"), {"../FIRED": b"x"}
    ),
    "package: a zip that leads to the root": _package(
        _DESCRIPTION.format(source="/tmp/napari_unet_FIRED"), {"/tmp/napari_unet_FIRED": b"x"}
    ),
    "package: references that grow": _package("format_version: 0.5.4\ntype: model\n" + _BOMB),
    "package: an object of Python": _package(
        "format_version: 0.5.4\n"
        "x: !!python/object/apply:os.system ['touch /tmp/napari_unet_FIRED']\n"
    ),
    "package: a name of Python": _package("format_version: 0.5.4\nx: !!python/name:os.system\n"),
    "package: a long number": _package(f"format_version: 0.5.4\nx: {'9' * 400_000}\n"),
    "package: a link to another file": _linked_folder,
    "package: a description elsewhere": _linked_description,
    "a pipe in place of a file": _pipe,
    "a device in place of a file": _linked("/dev/zero"),
    "a link in a circle": _circle,
}
"""What they are, and what writes them."""
