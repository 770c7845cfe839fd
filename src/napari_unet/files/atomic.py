"""Write a file whole or not at all: beside its place first, then renamed onto it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from napari_unet.errors import FileError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def written_beside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a path beside ``path`` to write to; rename it once the block has ended well.

    If the block raises, what was written is removed and a file that already stood at ``path``
    stays as it was.

    Parameters
    ----------
    path : str or path
        Where the file belongs. Its folder is made if it is not there.

    Yields
    ------
    pathlib.Path
        In the same folder, so that renaming cannot fail halfway.

    Raises
    ------
    FileError
        If the system refuses: no right, no room, or ``path`` is a folder.
    """
    target = Path(path)
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        os.replace(beside, target)
    except OSError as error:
        raise FileError(_refused(target, error)) from error
    finally:
        _remove(beside)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Try whether a file could be written, before hours of work hang on it.

    Parameters
    ----------
    path : str or path
        Where the file will belong; one that stands there already stays as it is.

    Raises
    ------
    FileError
        If the system refuses.
    """
    target = Path(path)
    beside = target.with_name(f".{target.name}.{os.getpid()}.try")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside.touch()
    except OSError as error:
        raise FileError(_refused(target, error)) from error
    finally:
        _remove(beside)
    if target.is_dir():
        raise FileError(f"{target} is a folder. Choose the name of a file.")


def _refused(target: Path, error: OSError) -> str:
    """Say that the system refuses a file."""
    reason = error.strerror or str(error)
    return f"{target} cannot be written: {reason}. Choose another folder or name."


def _remove(path: Path) -> None:
    """Remove a file if it is there; a folder without rights has nothing of ours."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return
