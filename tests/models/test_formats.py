"""A file is told by what is in it, whatever it is called."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.numpy import save

from napari_unet.errors import ModelError
from napari_unet.models.formats import CARD_KEY, LFS_POINTER, sniff
from napari_unet.models.opening import load_model


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"x" * 40)
    return buffer.getvalue()


def torch_file(*, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(3)}, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def onnx_file() -> bytes:
    import onnx

    graph = onnx.helper.make_graph([], "g", [], [])
    return onnx.helper.make_model(graph, producer_name="test").SerializeToString()


def hdf5_file(tmp_path: Path, *, keras: bool) -> bytes:
    path = tmp_path / "made.h5"
    with h5py.File(path, "w") as file:
        file["values"] = np.zeros(4)
        if keras:
            file.attrs["layer_names"] = ["conv"]
    return path.read_bytes()


def tarred(*names: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    return buffer.getvalue()


YAML = (
    b"# made by a program\nname: cells\nweights:\n  onnx: {}\nformat_version: 0.5.4\ntype: model\n"
)
CONTENTS = {
    "ours": (save({"a": np.ones(2)}, {CARD_KEY: "{}"}), "own"),
    "safetensors": (save({"a": np.ones(2)}), "safetensors"),
    "half a header": (save({"a": np.ones(2)})[:30], "refused"),
    "torch": (torch_file(), "pytorch"),
    "old torch": (torch_file(legacy=True), "pytorch"),
    "oldest torch": (tarred("sys_info", "pickle", "storages", "tensors"), "pytorch"),
    "pickle": (pickle.dumps({"a": 1}), "pytorch"),
    "pickle that calls a class": (b"(S'touch fired'\nios\nsystem\n.", "refused"),
    "pickle that calls an object": (b"(cos\nsystem\nS'touch fired'\no.", "refused"),
    "pickle that refers": (b"Pos.system\n.", "refused"),
    "text pickle": (pickle.dumps({"a": 1}, protocol=0), "pytorch"),
    "script": (zipped("net/data.pkl", "net/constants.pkl", "net/code/a.py"), "torchscript"),
    "onnx": (onnx_file(), "onnx"),
    "keras zip": (zipped("config.json", "metadata.json", "model.weights.h5"), "keras"),
    "package": (zipped("bioimageio.yaml", "weights.onnx"), "bioimageio"),
    "packed folder": (zipped("cells/rdf.yaml", "cells/weights.pt"), "bioimageio"),
    "description": (YAML, "bioimageio"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:a\nsize 9\n", "refused"),
    "page": (b"\n<!DOCTYPE html><html><body>404</body></html>", "refused"),
    "empty": (b"", "refused"),
    "half a zip": (torch_file()[:300], "refused"),
    "text zip": (torch_file().replace(b"\0", b"\xef\xbf\xbd")[:-60], "refused"),
    "saved model": (zipped("net/saved_model.pb", "net/variables/x"), "refused"),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(60), "refused"),
    "keras json": (json.dumps({"class_name": "Functional", "config": {}}).encode(), "refused"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(20), "other"),
    "tiff": (b"II*\0" + bytes(20), "other"),
    "arrays": (zipped("a.npy", "b.npy"), "other"),
    "images": (zipped("a.tif", "b.tif"), "other"),
    "office": (zipped("[Content_Types].xml", "word/document.xml"), "other"),
    "tar": (tarred("a.txt"), "other"),
    "gzip": (b"\x1f\x8b" + bytes(20), "other"),
    "table": (b"name,area\ncell,12\n", "other"),
    "settings": (b"name: x\nchannels: [conda-forge]\n", "other"),
    "noise": (bytes(range(256)) * 4, "other"),
    "zeros": (bytes(500), "other"),
    "a few bytes": (b"1234567", "other"),
}


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("ending", ["", ".safetensors", ".pth", ".h5"])
def test_a_file_is_told_by_its_content_and_not_by_its_ending(name, ending, tmp_path: Path) -> None:
    content, kind = CONTENTS[name]
    path = tmp_path / f"file{ending}"
    path.write_bytes(content)
    found = sniff(path)
    assert found.kind == kind
    assert found.opens or found.advice.endswith(".")


def test_hdf5_is_told_by_the_names_that_keras_writes(tmp_path: Path) -> None:
    for keras, kind in ((True, "keras"), (False, "other")):
        path = tmp_path / "file.bin"
        path.write_bytes(hdf5_file(tmp_path, keras=keras))
        assert sniff(path).kind == kind
        path.write_bytes(bytes(512) + hdf5_file(tmp_path, keras=keras))
        assert sniff(path).kind == kind, "an HDF5 file may begin later"


def test_weights_of_keras_3_alone_are_told_by_their_groups(tmp_path: Path) -> None:
    path = tmp_path / "net.weights.h5"
    with h5py.File(path, "w") as file:
        for layer in ("conv2d", "conv2d_1"):
            file.create_dataset(f"layers/{layer}/vars/0", data=np.ones((3, 3, 1, 4), np.float32))
    assert sniff(path).kind == "keras"
    with pytest.raises(
        ModelError, match=r'save_weights of Keras 3 .* model\.save\("network\.keras"\)'
    ):
        load_model(path)


def test_folders_are_told_by_what_is_in_them(tmp_path: Path) -> None:
    assert sniff(tmp_path).kind == "other"
    (tmp_path / "bioimageio.yaml").write_bytes(b"type: dataset\n")
    assert sniff(tmp_path).kind == "other", "a description of something else"
    (tmp_path / "bioimageio.yaml").write_bytes(YAML)
    assert sniff(tmp_path).kind == "bioimageio"
    saved = tmp_path / "saved"
    saved.mkdir()
    (saved / "saved_model.pb").write_bytes(b"\x08\x01")
    assert "SavedModel" in sniff(saved).text


def test_the_first_bytes_may_look_like_another_format(tmp_path: Path) -> None:
    firsts = set()
    for length in range(0, 1200, 8):
        path = tmp_path / "own"
        path.write_bytes(save({"a": np.ones(2)}, {CARD_KEY: "x" * length}))
        firsts.add(path.read_bytes()[0])
        assert sniff(path).kind == "own"
    assert {0x80, 0x08} & firsts


def test_what_is_not_there_or_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no weights file"):
        sniff(tmp_path / "none.pth")
    with pytest.raises(ModelError):
        sniff(tmp_path / "a\0b")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.pth")
        assert sniff(tmp_path / "pipe.pth").kind == "other"


def test_no_mutation_of_a_file_ends_in_anything_but_an_answer(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    path = tmp_path / "file"
    for content, _ in CONTENTS.values():
        for _ in range(12):
            mutated = bytearray(content[: random.integers(0, len(content) + 1)])
            for at in random.integers(0, max(1, len(mutated)), 8 if mutated else 0):
                mutated[at] = random.integers(0, 256)
            path.write_bytes(mutated)
            sniff(path)


def test_the_shared_files_are_what_their_list_says(data_dir: Path) -> None:
    weights = data_dir / "weights"
    kinds = {
        "bioimageio_nuclei_broad/weights.onnx": "onnx",
        "bioimageio_nuclei_broad/weights_torchscript.pt": "torchscript",
        "bioimageio_nuclei_broad/unet2d_nuclei_broad.no_source.zip": "bioimageio",
        "bioimageio_nuclei_broad/derived_checkpoint_dataparallel.pth": "pytorch",
        "bioimageio_nuclei_broad": "bioimageio",
        "keras_pancreas_phc/full_model.h5": "keras",
        "keras_pancreas_phc/weights_only.h5": "keras",
        "must_be_refused/text_mangled_zip.pt": "refused",
    }
    assert {name: sniff(weights / name).kind for name in kinds} == kinds
    assert sniff(weights / "must_be_refused/git_lfs_pointer.pth") is LFS_POINTER
    assert "as if it were text" in sniff(weights / "must_be_refused/text_mangled_zip.pt").text
