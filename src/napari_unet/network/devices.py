"""Which processor computes, and what stands in the way of a faster one."""

from __future__ import annotations

import gc
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from napari_unet.errors import DeviceError

if TYPE_CHECKING:
    from napari_unet.settings import Device, Precision

GIB = 2**30
CUDA_INDEX = "https://download.pytorch.org/whl/cu126"
# Words that drivers and allocators use when memory runs out.
MEMORY_WORDS = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "alloc_failed",
    "bad_alloc",
    "could not create a primitive",  # oneDNN
    "could not create a memory object",
    "cudnn_status_not_supported",  # cuDNN: no method needs as little room as there is
    "unable to find an engine",
)
MEMORY_INFO = Path("/proc/meminfo")  # of Linux
NVIDIA_TRACES = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg")


def choose_device(wanted: Device = "auto") -> torch.device:
    """Choose the processor that computes.

    Parameters
    ----------
    wanted : {"auto", "cpu", "cuda", "mps"}
        A processor, or ``auto``: an NVIDIA (or ROCm) GPU, else an Apple GPU, else the CPU.

    Returns
    -------
    torch.device
        The processor.

    Raises
    ------
    DeviceError
        If a GPU is asked for that is not there.
    """
    usable = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wanted == "auto":
        return torch.device(next(kind for kind, is_there in usable.items() if is_there))
    if not usable[wanted]:
        reason = device_problem() or "this computer has a GPU of another kind."
        raise DeviceError(
            f"Device {wanted!r} cannot be used: {reason} Choose 'auto' or 'cpu' to go on without."
        )
    return torch.device(wanted)


def choose_dtype(
    wanted: Precision, device: torch.device, given: torch.dtype = torch.float32
) -> torch.dtype:
    """Choose the numbers a network computes with.

    Parameters
    ----------
    wanted : {"auto", "float32", "half"}
        ``auto``: half precision on an NVIDIA GPU, which is made for it, else all digits.
    device : torch.device
        Where it computes.
    given : torch.dtype
        The numbers of the network as it is.

    Returns
    -------
    torch.dtype
        Half precision is float16 on a GPU, and bfloat16 on a CPU, which computes with no other.

    Raises
    ------
    DeviceError
        If half precision is asked for and this processor has none.
    """
    is_half = wanted == "half" or (wanted == "auto" and device.type == "cuda")
    if not is_half or given == torch.float64:
        return given
    if device.type != "cpu":
        return torch.float16
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        raise DeviceError(
            "This processor cannot compute with half precision. Choose precision 'auto' or "
            "'float32'."
        )
    return torch.bfloat16


def describe_device(device: torch.device) -> str:
    """Name a processor as people know it.

    Parameters
    ----------
    device : torch.device
        As given by :func:`choose_device`.

    Returns
    -------
    str
        For example ``GPU NVIDIA RTX A4000 (16 GB)`` or ``CPU (8 threads)``.
    """
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"GPU {properties.name} ({round(properties.total_memory / GIB)} GB)"
    if device.type == "mps":
        return "GPU of this Mac (Metal)"
    threads = torch.get_num_threads()
    return f"CPU ({threads} thread{'s' if threads > 1 else ''})"


def device_name(device: torch.device) -> str:
    """Name a processor in short: another name wherever it has another memory.

    Parameters
    ----------
    device : torch.device
        As given by :func:`choose_device`.

    Returns
    -------
    str
        For example ``NVIDIA RTX A4000 16 GB``, ``mps`` or ``cpu``.
    """
    if device.type != "cuda":
        return device.type
    properties = torch.cuda.get_device_properties(device)
    return f"{properties.name} {round(properties.total_memory / GIB)} GB"


def free_bytes(device: torch.device) -> int | None:
    """Ask how much memory is free where a processor computes.

    Parameters
    ----------
    device : torch.device
        As given by :func:`choose_device`.

    Returns
    -------
    int or None
        What torch keeps for later counts as free; None where nobody tells, e.g. for the CPU on
        other systems than Linux.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    try:
        lines = MEMORY_INFO.read_text(encoding="ascii").splitlines()
        available = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(available.split()[1]) * 1024
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def device_problem() -> str | None:
    """Say why no GPU is used, and what would mend it.

    Returns
    -------
    str or None
        Sentences for the user; None if there is a GPU and torch uses it.
    """
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        return None
    if torch.version.cuda is not None or torch.version.hip is not None:
        return (
            "this torch could use a GPU but finds none: there is no GPU in this computer, or "
            "its driver is missing or too old. With an NVIDIA GPU, install the newest driver "
            "from https://www.nvidia.com/drivers and start again."
        )
    if _has_nvidia_driver():
        return (
            "there is an NVIDIA GPU, but the installed torch is the build for CPUs. Mend it by: "
            f"{sys.executable} -m pip install --force-reinstall torch --index-url {CUDA_INDEX}"
        )
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return (
            "torch cannot use the GPU of this Mac; it needs macOS 14 or newer and a Python for "
            "Apple processors."
        )
    return "no GPU was found in this computer; the CPU computes."


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory ran out, on the GPU or in the computer.

    Parameters
    ----------
    error : BaseException
        What was raised while computing.

    Returns
    -------
    bool
        True if a smaller tile or batch may help.
    """
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    message = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in message for word in MEMORY_WORDS)


def free_memory(device: torch.device) -> None:
    """Give back what torch keeps for later.

    Parameters
    ----------
    device : torch.device
        Where memory ran out.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def _has_nvidia_driver() -> bool:
    """Look for the traces an NVIDIA driver leaves, without asking it."""
    if sys.platform == "win32":
        return (Path("C:/Windows/System32") / "nvcuda.dll").exists()
    return any(Path(trace).exists() for trace in NVIDIA_TRACES)
