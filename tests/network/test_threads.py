"""Teams of threads that wait are let go, and come back when they are needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from napari_unet.network import threads
from napari_unet.runs.background import Background

TRAIN = """
from napari_unet.cli import main
main(["demo", "--seconds", "40", "--out", {out!r}])
"""
OTHER = """
import torch
torch.set_num_threads(2 * {processors})
net = torch.nn.Sequential(*[torch.nn.Conv2d(32, 32, 3, padding=1) for _ in range(8)])
while True:
    net(torch.ones(4, 32, 128, 128)).sum().backward()
"""


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


def test_threads_wait_with_the_system(monkeypatch) -> None:
    for name in threads.WAITING:
        monkeypatch.delenv(name, raising=False)
    threads.wait_with_the_system()
    assert os.environ.pop(threads.LOOKS) == threads.FEW


@pytest.mark.parametrize("name", threads.WAITING)
def test_what_a_person_has_set_stays(monkeypatch, name: str) -> None:
    for each in threads.WAITING:
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, "5")
    before = dict(os.environ)
    threads.wait_with_the_system()
    assert dict(os.environ) == before


@pytest.mark.slow
def test_a_training_moves_beside_a_program_that_uses_every_processor(tmp_path) -> None:
    plain = {
        name: value
        for name, value in os.environ.items()
        if name not in {*threads.WAITING, "OMP_NUM_THREADS"}
    }
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER.format(processors=os.cpu_count())], env=plain
    )
    try:
        subprocess.run(
            [sys.executable, "-c", TRAIN.format(out=str(tmp_path))], env=plain, check=True
        )
    finally:
        other.kill()
        other.wait()
    training = json.loads((tmp_path / "report.json").read_text())["training"]
    assert training["steps"] >= 3  # it was none
    assert training["curve"]
