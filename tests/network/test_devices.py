"""Choosing a processor, and the sentences about one that cannot be used."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from napari_unet.errors import DeviceError
from napari_unet.network import devices
from napari_unet.network.devices import (
    choose_device,
    describe_device,
    device_problem,
    is_out_of_memory,
)


@pytest.fixture
def computer(monkeypatch: pytest.MonkeyPatch):
    """Return a function that makes this look like another computer."""

    def become(
        cuda: bool = False, mps: bool = False, build: str | None = None, driver: bool = False
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.version, "cuda", build)
        monkeypatch.setattr(torch.version, "hip", None)
        monkeypatch.setattr(devices, "_has_nvidia_driver", lambda: driver)
        monkeypatch.setattr(devices.sys, "platform", "linux")

    return become


def test_auto_takes_the_fastest_processor_there_is(computer) -> None:
    for there, chosen in [
        ({"cuda": True, "mps": True}, "cuda"),
        ({"mps": True}, "mps"),
        ({}, "cpu"),
    ]:
        computer(**there)
        assert choose_device("auto") == torch.device(chosen)
        assert choose_device("cpu") == torch.device("cpu")


def test_a_gpu_that_is_asked_for_but_missing_is_an_error_with_its_reason(computer) -> None:
    computer(driver=True)
    with pytest.raises(DeviceError, match=r"'cuda' cannot be used: .* pip install .*'auto' or"):
        choose_device("cuda")
    computer(cuda=True)
    with pytest.raises(DeviceError, match="GPU of another kind"):
        choose_device("mps")


def test_the_problem_is_none_with_a_gpu_and_else_says_what_would_mend_it(
    computer, monkeypatch: pytest.MonkeyPatch
) -> None:
    computer(cuda=True)
    assert device_problem() is None
    computer(build="12.6")
    assert "driver is missing or too old" in device_problem()
    computer(driver=True)
    assert f"{devices.sys.executable} -m pip install" in device_problem()
    assert "--index-url https://download.pytorch.org/whl/" in device_problem()
    computer()
    assert "no GPU was found" in device_problem()
    monkeypatch.setattr(devices.sys, "platform", "darwin")
    monkeypatch.setattr(devices.platform, "machine", lambda: "arm64")
    assert "macOS 14" in device_problem()


def test_the_traces_of_a_driver_are_looked_for_without_asking_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(devices.sys, "platform", "linux")
    monkeypatch.setattr(devices, "NVIDIA_TRACES", (str(tmp_path / "version"),))
    assert not devices._has_nvidia_driver()
    (tmp_path / "version").touch()
    assert devices._has_nvidia_driver()


def test_processors_are_described_as_people_know_them(monkeypatch: pytest.MonkeyPatch) -> None:
    card = SimpleNamespace(name="NVIDIA RTX A4000", total_memory=16.9e9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert describe_device(torch.device("cuda")) == "GPU NVIDIA RTX A4000 (16 GB)"
    assert describe_device(torch.device("mps")) == "GPU of this Mac (Metal)"
    assert describe_device(torch.device("cpu")) == "CPU (1 thread)"


def test_running_out_of_memory_is_told_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as too_much:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(too_much.value)
    assert is_out_of_memory(torch.cuda.OutOfMemoryError("CUDA out of memory."))
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"))
    assert is_out_of_memory(RuntimeError("could not create a primitive"))
    assert is_out_of_memory(RuntimeError("could not create a memory object"))
    assert is_out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error"))
    assert is_out_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("size mismatch"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_the_free_memory_of_this_computer_is_read_where_the_system_tells_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "meminfo"
    monkeypatch.setattr(devices, "MEMORY_INFO", info)
    cpu = torch.device("cpu")
    assert devices.free_bytes(cpu) is None
    info.write_text("MemTotal:  100 kB\nMemFree:  5 kB\nMemAvailable:    40 kB\n")
    assert devices.free_bytes(cpu) == 40 * 1024
    for nonsense in ("", "MemAvailable:\n", "MemAvailable: many kB\n"):
        info.write_text(nonsense)
        assert devices.free_bytes(cpu) is None


def test_a_gpu_counts_what_torch_keeps_as_free(monkeypatch: pytest.MonkeyPatch) -> None:
    card = SimpleNamespace(name="NVIDIA RTX A4000", total_memory=16.9e9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (5000, 9000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 700)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 200)
    assert devices.free_bytes(torch.device("cuda")) == 5500
    assert devices.device_name(torch.device("cuda")) == "NVIDIA RTX A4000 16 GB"
    assert devices.device_name(torch.device("mps")) == "mps"
