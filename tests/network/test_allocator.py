"""The memory of a process is kept and given back, where the C library can be told."""

from __future__ import annotations

import subprocess
import sys

import pytest

from napari_unet.network import allocator

MEASURE = """
import numpy as np
from napari_unet.network.allocator import keep_memory, return_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

def use(mib):
    np.empty(mib * 2**20, np.uint8).fill(1)

before = resident()
use(200)
print(resident() - before)
assert keep_memory()
use(200)
print(resident() - before)
assert return_memory()
print(resident() - before)
"""


def test_memory_is_kept_once_asked_for_and_given_back_when_told() -> None:
    if not allocator._is_glibc():
        pytest.skip("only glibc can be told")
    out = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True
    ).stdout
    plain, kept, returned = map(float, out.split())
    assert plain < 50
    assert kept > 150
    assert returned < 50


def test_where_the_c_library_cannot_be_told_nothing_happens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    assert not allocator.keep_memory()
    assert not allocator.return_memory()
