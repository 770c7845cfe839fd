"""Files that want to break in, or are broken: refused in a sentence; nothing in them is run."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from napari_unet.errors import ModelError
from napari_unet.models.card import Card
from napari_unet.models.model import Model, save_model
from napari_unet.models.opening import load_model, open_weights
from napari_unet.network.unet import UNet
from napari_unet.settings import Architecture
from tests.models.mutations import mutations

FIRED: list[str] = []


def fire(*_: object) -> str:
    """What a hostile file calls, if it is let to."""
    FIRED.append("!")
    return "fired"


class Payload:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return fire, ("pickle",)


class Whole(torch.nn.Module):
    """A network that somebody saves as a whole, with its code by reference."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 1, 3)


@pytest.fixture(autouse=True)
def nothing_fires():
    FIRED.clear()
    yield
    assert not FIRED, "code from a file was run"


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return UNet(Architecture(widths=(3, 4))).state_dict()


def saved(content: object, *, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def torchscript_with_setstate() -> bytes:
    """Write what torch.jit.save writes, with a __setstate__ that would run on loading."""
    code = (
        "class M(Module):\n  __parameters__ = []\n  __buffers__ = []\n"
        "  def forward(self, x: Tensor) -> Tensor:\n    return x\n"
        "  def __setstate__(self, s: Tensor) -> NoneType:\n    print('fired')\n"
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("m/data.pkl", pickle.dumps(Payload(), protocol=2))
        archive.writestr("m/constants.pkl", pickle.dumps(Payload(), protocol=2))
        archive.writestr("m/code/__torch__.py", code)
        archive.writestr("m/version", "3\n")
    return buffer.getvalue()


LAMBDA = {
    "class_name": "Functional",
    "config": {
        "name": "m",
        "layers": [
            {
                "class_name": "InputLayer",
                "name": "i",
                "config": {"name": "i", "batch_input_shape": [None, None, None, 1]},
                "inbound_nodes": [],
            },
            {
                "class_name": "Lambda",
                "name": "l",
                "config": {"name": "l", "function": ["4wEAAAAAAAAA", None, None]},
                "inbound_nodes": [[["i", 0, 0, {}]]],
            },
        ],
        "input_layers": [["i", 0, 0]],
        "output_layers": [["l", 0, 0]],
    },
}


def keras_h5_with_lambda(path: Path) -> bytes:
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(LAMBDA)
        file.attrs["keras_version"] = "2.3.1"
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = np.array([b"l"])
        weights.create_group("l").attrs["weight_names"] = np.array([], "S1")
    return path.read_bytes()


def keras_zip_with_lambda(path: Path) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(path, "w") as file:
        file.create_group("layers")
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("config.json", json.dumps(LAMBDA))
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.0.0"}))
        archive.writestr("model.weights.h5", path.read_bytes())
    return buffer.getvalue()


def zip_bomb(name: str) -> bytes:
    """Write a zip of 200 kB that says it holds 200 MB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("a/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr(name, bytes(200_000_000))
    return buffer.getvalue()


def h5_bomb(path: Path) -> bytes:
    """Write an HDF5 of a few kB whose weights would be 64 GB."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array([b"c"])
        layer = file.create_group("c")
        layer.attrs["weight_names"] = np.array([b"c/kernel:0"])
        layer.create_dataset(
            "c/kernel:0", shape=(4096, 4096, 1024), dtype="f4", chunks=(64, 64, 64)
        )
    return path.read_bytes()


HOSTILE: dict[str, Callable[[Path], bytes]] = {
    "whole module.pth": lambda _: saved(Whole()),
    "whole module, old.pth": lambda _: saved(Whole(), legacy=True),
    "payload.pth": lambda _: saved({**tensors(), "x": Payload()}),
    "payload alone.pth": lambda _: saved(Payload()),
    "payload, old.pth": lambda _: saved({**tensors(), "x": Payload()}, legacy=True),
    "payload.ckpt": lambda _: saved({"state_dict": tensors(), "callbacks": Payload()}),
    "plain pickle.pkl": lambda _: pickle.dumps({"weights": Payload()}),
    "text pickle.pth": lambda _: pickle.dumps(Payload(), protocol=0),
    "joblib.pkl": lambda _: zlib.compress(pickle.dumps(Payload())),
    "os.system.pth": lambda _: b"cos\nsystem\n(S'touch /tmp/napari_unet_fired'\ntR.",
    "script.pt": lambda _: torchscript_with_setstate(),
    "lambda.h5": lambda folder: keras_h5_with_lambda(folder / "made"),
    "lambda.keras": lambda folder: keras_zip_with_lambda(folder / "made"),
    "bomb.pth": lambda _: zip_bomb("a/data/0"),
    "bomb.zip": lambda _: zip_bomb("bioimageio.yaml"),
    "bomb.keras": lambda _: zip_bomb("config.json"),
    "bomb.h5": lambda folder: h5_bomb(folder / "made"),
    "long header.safetensors": lambda _: struct.pack("<Q", 1 << 60) + b"{}",
    "deep header.safetensors": lambda _: struct.pack("<Q", 100_000) + b"{" + b"[" * 99_999,
    "deep.yaml": lambda _: b"format_version: 0.5.4\nweights: " + b"[" * 50_000,
    "aliases.yaml": lambda _: (
        b"format_version: 0.5.4\ntype: model\na: &a [x,x,x,x,x,x,x,x,x]\n"
        + b"".join(
            b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 9)) for c in range(98, 120)
        )
        + b"weights: *w\n"
    ),
    "entity.yaml": lambda _: (
        b"format_version: 0.5.4\ntype: model\n"
        b"weights: !!python/object/apply:tests.models.test_hostile.fire [1]\n"
    ),
    "elsewhere.yaml": lambda _: (
        b"format_version: 0.5.4\ntype: model\nname: x\n"
        b"weights: {onnx: {source: ../../../../etc/passwd}}\n"
    ),
    "page.pth": lambda _: b"<!DOCTYPE html><html><body>Sign in</body></html>",
    "pointer.pth": lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:a\nsize 9\n",
    "empty.pth": lambda _: b"",
    "picture.pth": lambda _: b"\x89PNG\r\n\x1a\n" + bytes(100),
    "archive.zip": lambda _: zip_bomb("pictures/a.tif"),
}


def test_the_payload_fires_where_pickle_is_let_to():
    pickle.loads(pickle.dumps(Payload()))
    assert FIRED == ["!"]
    FIRED.clear()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(HOSTILE[name](tmp_path))
    with pytest.raises(ModelError) as refused:
        open_weights(path)
    sentence = str(refused.value)
    assert name in sentence or path.stem in sentence
    assert sentence.endswith((".", "?", ")"))
    assert "Traceback" not in sentence


def test_a_whole_module_is_refused_with_what_the_sender_can_do(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(saved(Whole()))
    with pytest.raises(ModelError, match="state_dict"):
        load_model(path)


def test_the_shared_files_that_must_be_refused_are_told_apart(data_dir: Path) -> None:
    folder = data_dir / "weights" / "must_be_refused"
    with pytest.raises(ModelError, match=r"Git LFS pointer.*git lfs pull"):
        load_model(folder / "git_lfs_pointer.pth")
    with pytest.raises(ModelError, match=r"as if it were text.*download it again"):
        load_model(folder / "text_mangled_zip.pt")


def originals(folder: Path, name: str) -> bytes:
    """Make a small good file of some format."""
    from napari_unet.models.export import export_model

    torch.manual_seed(0)
    net = UNet(Architecture(widths=(2, 3), norm="batch")).eval()
    known = {"segments": "cells", "licence": "CC0-1.0", "authors": ("Ada",)}
    model = Model(net, Card(name="small", architecture=net.architecture, **known))
    path = folder / name
    formats = {"a.onnx": "onnx", "a.pt": "torchscript", "a.zip": "bioimageio"}
    if name == "own.safetensors":
        save_model(model, path)
    elif name == "foreign.safetensors":
        save_file(net.state_dict(), path)
    elif name in formats:
        export_model(model, path, formats[name])
    else:
        path.write_bytes(saved({"state_dict": net.state_dict()}, legacy=name == "old.pth"))
    return path.read_bytes()


def mutated(content: bytes, random: np.random.Generator) -> bytes:
    """Damage a file in one of the ways that happen, or that somebody might try."""
    made = bytearray(content)
    kind = random.integers(0, 5)
    if kind == 0:
        return bytes(made[: random.integers(0, len(made))])
    if kind == 1:  # near the start, where the structure is
        at = random.integers(0, min(len(made), 300), 4)
        made[at[0]] ^= 1 << int(random.integers(0, 8))
    elif kind == 2:
        for at in random.integers(0, len(made), random.integers(1, 30)):
            made[at] = random.integers(0, 256)
    elif kind == 3:
        start = int(random.integers(0, len(made)))
        del made[start : start + int(random.integers(1, 200))]
    else:
        start = int(random.integers(0, len(made)))
        made[start : start + 16] = bytes([int(random.choice([0, 255, 127]))]) * 16
    return bytes(made)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    ["own.safetensors", "foreign.safetensors", "zip.pth", "old.pth", "a.onnx", "a.pt", "a.zip"],
)
def test_a_damaged_file_opens_whole_or_is_refused(name: str, tmp_path: Path) -> None:
    content = originals(tmp_path, name)
    whole = {key: tuple(t.shape) for key, t in load_model(tmp_path / name).net.state_dict().items()}
    random = np.random.default_rng(0)
    path = tmp_path / f"mutated{Path(name).suffix}"
    refused = 0
    count = mutations(500 if name != "a.zip" else 125)  # each of these is unpacked and tried
    for _ in range(count):
        path.write_bytes(mutated(content, random))
        try:
            model = load_model(path)
        except ModelError:
            refused += 1
            continue
        state = model.net.state_dict()
        assert all(bool(torch.isfinite(tensor).all()) for tensor in state.values())
        assert len(state) >= len(whole) - 8, "a network is never opened in part"
    assert refused > count // 3


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["full_model.h5", "weights_only.h5"])
def test_a_damaged_keras_file_opens_whole_or_is_refused(data_dir, name, tmp_path: Path) -> None:
    content = (data_dir / "weights" / "keras_pancreas_phc" / name).read_bytes()
    random = np.random.default_rng(1)
    path = tmp_path / name
    for _ in range(mutations(150)):
        path.write_bytes(mutated(content, random))
        try:
            model = load_model(path)
        except ModelError:
            continue
        assert sum(weight.numel() for weight in model.net.parameters()) == 481_745
