"""What goes wrong with a file that is damaged, whichever library or reader stumbles over it."""

from __future__ import annotations

import zipfile
import zlib

UNREADABLE_ZIP = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,  # a password; and, as NotImplementedError, a compression nobody knows
    zipfile.BadZipFile,
    zlib.error,
)
"""What is raised where an archive is opened or a part of it is read."""

DAMAGED = (
    *UNREADABLE_ZIP,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    MemoryError,  # a size that was flipped asks for more than there is
)
"""What is raised where the parts of a file are put together and do not fit."""
