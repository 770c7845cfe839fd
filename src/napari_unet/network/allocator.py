"""Keep the memory that tiles give back, instead of asking the system for it anew.

The C library of Linux gives blocks of more than 32 MiB back to the system at once, and the next
block is then cleared page by page as it is first touched: for a large network that can take longer
than computing. The setting holds for the whole process, so it is for a process of our own (the
dock's worker, the command line), never for the person's.
"""

from __future__ import annotations

import ctypes
import platform
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
KEPT_BYTES = 2**30


def keep_memory() -> bool:
    """Let this process keep freed memory of up to 1 GiB for itself.

    Returns
    -------
    bool
        Whether that could be set: only with glibc on Linux.
    """
    if not _is_glibc():
        return False
    library = ctypes.CDLL(None)
    kinds = (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD)
    return all(library.mallopt(kind, KEPT_BYTES) for kind in kinds)


def return_memory() -> bool:
    """Give the memory that is free now back to the system, e.g. when a run is over.

    Returns
    -------
    bool
        Whether there was any.
    """
    return _is_glibc() and bool(ctypes.CDLL(None).malloc_trim(0))


def _is_glibc() -> bool:
    """Say whether this is the C library that can be told."""
    return sys.platform == "linux" and platform.libc_ver()[0] == "glibc"
