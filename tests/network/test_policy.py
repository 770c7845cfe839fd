"""What is done on a processor follows from its kind and its free memory."""

from __future__ import annotations

import pytest
import torch

from napari_unet.network import policy
from napari_unet.network.policy import BUDGET_BYTES, STREAMED_BYTES, choose_policy

GIB = 2**30


def test_a_cpu_computes_one_tile_at_a_time_and_keeps_nothing() -> None:
    chosen = choose_policy(torch.device("cpu"))
    assert chosen.budget_bytes == BUDGET_BYTES["cpu"]
    assert not (chosen.together_bytes)
    assert not (chosen.ahead)
    assert not (chosen.result_bytes)
    assert not (chosen.scales)
    assert chosen.record is None
    assert choose_policy(torch.device("cpu"), is_streamed=True).budget_bytes == STREAMED_BYTES


@pytest.mark.parametrize("kind", ["cuda", "mps"])
@pytest.mark.parametrize("free", [GIB // 4, 4 * GIB, 80 * GIB, None])
def test_a_gpu_computes_several_ahead_within_its_free_memory(
    kind: str, free: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy, "free_bytes", lambda _: free)
    chosen = choose_policy(torch.device(kind))
    assert 0 < chosen.together_bytes <= chosen.budget_bytes <= BUDGET_BYTES[kind]
    assert chosen.ahead == 1
    assert chosen.scales
    assert (chosen.record is not None) == (kind == "cuda")
    if free:
        assert chosen.budget_bytes + chosen.result_bytes < free
    assert choose_policy(torch.device(kind), is_streamed=True).result_bytes == 0
