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
)
"""What is raised where the parts of a file are put together and do not fit."""


def too_large(name: str) -> str:
    """Say that there is not memory enough for a file, or for what it says that it holds.

    Parameters
    ----------
    name : str
        Of the file.

    Returns
    -------
    str
        Two sentences.
    """
    return (
        f"There is not enough memory to read {name}. Close other programs or use a computer with "
        "more memory; if the file is a small one, it is damaged: copy or download it again."
    )
