"""Whether memory is at hand, or has to be fetched from the system.

The C library of Linux gives blocks of more than 32 MiB back to the system at once, and the next
block is then cleared page by page as it is first touched: for a large network that can take longer
than computing. Other allocators, and a process that was told to, keep them. Nothing is set here,
as that would hold for all of the person's process; what computes asks, and does what suits.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from importlib.util import find_spec

import numpy as np

PROBES = 16


def is_at_hand(size: int) -> bool:
    """Find out whether a block of memory can be had without fetching it from the system.

    Parameters
    ----------
    size : int
        Bytes of the block.

    Returns
    -------
    bool
        Whether most of it was in this process already; not so where the system cannot count the
        page faults of a thread.
    """
    if find_spec("resource") is None:
        return False
    import resource

    if not hasattr(resource, "RUSAGE_THREAD"):
        return False
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    np.empty(max(size, PROBES), np.uint8)[:: max(size // PROBES, 1)] = 0
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before < PROBES // 2


def return_memory() -> bool:
    """Give the memory that is free now back to the system, e.g. when a run is over.

    Returns
    -------
    bool
        Whether there was any.
    """
    is_glibc = sys.platform == "linux" and platform.libc_ver()[0] == "glibc"
    return is_glibc and bool(ctypes.CDLL(None).malloc_trim(0))
