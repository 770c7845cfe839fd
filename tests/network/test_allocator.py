"""Memory that is at hand is told from memory that has to be fetched, and is given back."""

from __future__ import annotations

import ctypes
import json
import platform
import subprocess
import sys

import pytest

from napari_unet.network import allocator

MEASURE = """
import ctypes, json
import numpy as np
from napari_unet.network.allocator import is_at_hand, return_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

def use(mib):
    np.empty(mib * 2**20, np.uint8).fill(1)

before, size = resident(), 200 * 2**20
use(200)
told = {"fetched": is_at_hand(size)}
for option, value in ((-4, 0), (-1, 2**30)):  # M_MMAP_MAX, M_TRIM_THRESHOLD
    assert ctypes.CDLL(None).mallopt(option, value)
use(200)
told |= {"kept": is_at_hand(size), "more": is_at_hand(3 * size), "MiB kept": resident() - before}
told |= {"returned": return_memory(), "MiB left": resident() - before, "again": is_at_hand(size)}
print(json.dumps(told))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="Only glibc can be told.")
def test_memory_at_hand_is_told_from_memory_that_is_fetched_and_is_given_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True
    )
    told = json.loads(done.stdout)
    assert told["MiB kept"] > 150
    assert told["MiB left"] < 50
    del told["MiB kept"], told["MiB left"]
    assert told == {
        "fetched": False,
        "kept": True,
        "more": False,
        "returned": True,
        "again": False,
    }


def test_where_the_system_cannot_be_asked_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    monkeypatch.setattr(allocator, "find_spec", lambda name: None)
    monkeypatch.setattr(ctypes, "CDLL", None)
    assert not allocator.is_at_hand(1)
    assert not allocator.return_memory()
