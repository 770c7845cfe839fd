"""What suits a processor: how large the tiles, how many at once, and what else pays on it.

A CPU is busy with one tile, and its memory is everybody's. A GPU has a memory of its own and
thousands of lanes: small tiles fill it only many at a time, it computes while the next tiles are
read, and what it has computed can stay there until all of a plane is done. Which of that is done
stands in one object, so that all of it also runs, and is tested, on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_unet.network.devices import free_bytes
from napari_unet.network.recording import Record, record_cuda_graph

if TYPE_CHECKING:
    import torch

MIB = 2**20
# For the features of all levels together, and for what a person's computer can spare.
BUDGET_BYTES = {"cpu": 768 * MIB, "cuda": 2048 * MIB, "mps": 1024 * MIB}
# On the CPU, where the result is not in memory either: a large image then takes little of it.
STREAMED_BYTES = 160 * MIB
# Tiles with fewer features than this leave lanes of a GPU idle: several are computed at once.
TOGETHER_BYTES = {"cuda": 1024 * MIB, "mps": 256 * MIB}
# At most this part of a GPU's free memory is for the features, and for a result put together.
FEATURES_SHARE, RESULT_SHARE = 0.5, 0.25


@dataclass(frozen=True)
class DevicePolicy:
    """How tiles are computed on a processor."""

    budget_bytes: int
    """What the features of one tile may take."""
    together_bytes: int = 0
    """Tiles are computed several at once until their features take this; 0: one by one."""
    ahead: int = 0
    """How many batches of tiles are being computed while the next one is read."""
    scales: bool = False
    """Grey values are scaled on the device rather than before they are copied to it."""
    result_bytes: int = 0
    """The largest result that stays on the device until all of it is computed; 0: none does."""
    record: Record | None = None
    """Records a computation that is repeated often, see :mod:`napari_unet.network.recording`."""


def choose_policy(device: torch.device, *, is_streamed: bool = False) -> DevicePolicy:
    """Choose how tiles are computed.

    Parameters
    ----------
    device : torch.device
        Where.
    is_streamed : bool
        The result is written to the disk: little memory is to be taken.

    Returns
    -------
    DevicePolicy
        For an NVIDIA GPU and an Apple GPU alike, but that only the first can record.
    """
    budget = BUDGET_BYTES[device.type]
    if device.type == "cpu":
        return DevicePolicy(STREAMED_BYTES if is_streamed else budget)
    free = free_bytes(device) or 2 * budget
    budget = min(budget, int(FEATURES_SHARE * free))
    return DevicePolicy(
        budget_bytes=budget,
        together_bytes=min(TOGETHER_BYTES[device.type], budget),
        ahead=1,
        scales=True,
        result_bytes=0 if is_streamed else int(RESULT_SHARE * free),
        record=record_cuda_graph if device.type == "cuda" else None,
    )
