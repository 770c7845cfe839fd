"""Threads that wait for work make those that work slower.

torch on Linux computes with GNU's OpenMP, which keeps a team of threads for each thread that has
ever computed. Where there are more of them than processors, even if most are idle, all wait for
each other with the help of the system instead of looking for a moment themselves, and a training
step takes a fifth longer. So who hands the computing over to another thread lets its own team go
first; it comes back by itself when it is needed.

How long threads look before they wait is a matter of milliseconds by default: as long as another
program has the processor of one, all others burn theirs, and a training beside a busy program
hardly moves. Some microseconds cost little on a quiet machine and are much better on a busy one.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from pathlib import Path

HARD_PAUSE = 2  # omp_pause_hard: all of the team's resources are given back
LOOKS = "GOMP_SPINCOUNT"  # how often GNU's OpenMP looks for work before a thread waits
FEW = "1000"  # some microseconds; by default it is milliseconds
WAITING = (LOOKS, "OMP_WAIT_POLICY")  # what tells OpenMP how to wait


def wait_with_the_system() -> None:
    """Let threads that wait give their processors to others almost at once.

    To be called before torch is imported, or it has no effect. What the person has set in the
    environment stays. What it costs and gives is measured by ``benchmarks/busy.py``.
    """
    if not any(name in os.environ for name in WAITING):
        os.environ[LOOKS] = FEW


def release_idle_threads() -> bool:
    """Let the team of the calling thread go, until it computes again.

    Returns
    -------
    bool
        Whether this torch computes with a library that can do so.
    """
    library = _openmp()
    return library is not None and library.omp_pause_resource_all(HARD_PAUSE) == 0


@cache
def _openmp() -> ctypes.CDLL | None:
    """Return GNU's OpenMP as torch has brought it along, if it has."""
    if sys.platform != "linux":
        return None
    import torch

    for path in (Path(torch.__file__).parent / "lib").glob("libgomp*.so*"):
        try:
            library = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD)
        except OSError:  # it is there, and another one is used
            continue
        if hasattr(library, "omp_pause_resource_all"):  # since OpenMP 5.0
            return library
    return None
