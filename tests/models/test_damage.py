from __future__ import annotations

import errno
import importlib
import subprocess
from pathlib import Path

import pytest

from napari_unet.errors import ModelError
from napari_unet.models.hdf5 import read_hdf5

READERS = {
    "onnx": ("read_onnx", "onnx.load_model_from_string"),
    "keras": ("read_keras", "zipfile.is_zipfile"),
    "torchscript": ("read_torchscript", "zipfile.ZipFile"),
    "pytorch": ("read_state_dict", "napari_unet.models.pytorch.reader.read_saved"),
}


LACKS = [
    MemoryError(),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to ..."),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    OSError("Can't read data (memory allocation failed for raw data chunk)"),
]


@pytest.mark.parametrize("error", LACKS, ids=["python", "torch", "system", "hdf5"])
@pytest.mark.parametrize("name", READERS)
def test_a_lack_of_memory_is_not_called_damage(name, error, tmp_path: Path, monkeypatch):
    function, inner = READERS[name]
    read = getattr(importlib.import_module(f"napari_unet.models.{name}"), function)

    def exhaust(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(inner, exhaust)
    (tmp_path / "net").write_bytes(b"anything")
    with pytest.raises(ModelError, match=r"not enough memory to read net\. Close other programs"):
        read(tmp_path / "net")


def test_a_reader_that_the_system_ended_for_want_of_memory_is_not_called_damage(monkeypatch):
    ended = subprocess.CompletedProcess([], -9, stdout=b"", stderr=b"")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
    with pytest.raises(ModelError, match=r"not enough memory to read net\.h5"):
        read_hdf5(b"anything", "net.h5")
