"""What goes wrong with a file that is damaged, whichever library or reader stumbles over it."""

from __future__ import annotations

import errno
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

_NO_MEMORY = ("out of memory", "allocate memory", "not enough memory", "memory allocation failed")
"""Words of libraries that were given no memory, and raise what they raise for damage, too."""


def lacks_memory(error: BaseException) -> bool:
    """Say whether something was raised for a lack of memory.

    Parameters
    ----------
    error : BaseException
        What was raised while a file was read.

    Returns
    -------
    bool
        False where the file may be damaged.
    """
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return any(word in str(error).lower() for word in _NO_MEMORY)


def what_failed(name: str, error: BaseException, damaged: str) -> str:
    """Tell a lack of memory from damage.

    Parameters
    ----------
    name : str
        Of the file.
    error : BaseException
        What was raised while it was read: MemoryError or one of :data:`DAMAGED`.
    damaged : str
        What is said of a damaged file.

    Returns
    -------
    str
        That, or :func:`too_large`.
    """
    return too_large(name) if lacks_memory(error) else damaged


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
