from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from napari_unet.errors import ModelError

READERS = {
    "onnx": ("read_onnx", "onnx.load_model_from_string"),
    "keras": ("read_keras", "zipfile.is_zipfile"),
    "torchscript": ("read_torchscript", "zipfile.ZipFile"),
    "pytorch": ("read_state_dict", "napari_unet.models.pytorch.reader.read_saved"),
}


@pytest.mark.parametrize("name", READERS)
def test_a_lack_of_memory_is_not_called_damage(name, tmp_path: Path, monkeypatch):
    function, inner = READERS[name]
    read = getattr(importlib.import_module(f"napari_unet.models.{name}"), function)

    def exhaust(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(inner, exhaust)
    (tmp_path / "net").write_bytes(b"anything")
    with pytest.raises(ModelError, match=r"not enough memory to read net\. Close other programs"):
        read(tmp_path / "net")
