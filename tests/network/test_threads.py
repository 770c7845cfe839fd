"""Teams of threads that wait are let go, and come back when they are needed."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from napari_unet.network import threads
from napari_unet.runs.background import Background


@pytest.fixture(autouse=True)
def three_threads():
    if sys.platform != "linux" or threads._openmp() is None:
        pytest.skip("torch computes with another library here")
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    threads.release_idle_threads()
    torch.set_num_threads(before)


def count() -> int:
    return len(os.listdir("/proc/self/task"))


def compute() -> float:
    return float(torch.ones(600, 600).add(1).sum())


def test_a_team_is_let_go_and_comes_back_when_it_is_needed() -> None:
    threads.release_idle_threads()
    alone = count()
    total = compute()
    assert count() == alone + 2
    assert threads.release_idle_threads()
    assert count() == alone
    assert compute() == total
    assert count() == alone + 2


def test_only_the_own_team_is_let_go() -> None:
    with ThreadPoolExecutor(1) as other:
        other.submit(compute).result()
        before = count()
        compute()
        threads.release_idle_threads()
        assert count() == before


def test_who_computes_in_the_background_has_no_team_of_its_own() -> None:
    compute()
    before = count()
    with Background() as background:
        for _ in background.run(compute):
            pass
        assert count() == before + 1  # the other thread; its team takes the place of ours


def test_where_torch_computes_with_another_library_nothing_happens(monkeypatch) -> None:
    monkeypatch.setattr(threads, "_openmp", lambda: None)
    assert not threads.release_idle_threads()
