"""Paths as people give them: text or a path, ``~`` for the own folder; what is none is told."""

from __future__ import annotations

import os
from pathlib import Path

from napari_unet.errors import FileError, described, shortened


def as_path(given: object, what: str = "a file") -> Path:
    """Take a path that somebody gave.

    Parameters
    ----------
    given : str or path
        ``~`` at its start is the person's own folder.
    what : str
        What the path is of, for the sentence, e.g. "an image".

    Returns
    -------
    pathlib.Path
        It may not exist.

    Raises
    ------
    FileError
        If it is no path at all, empty, or names a person this computer does not know.
    """
    text = os.fspath(given) if isinstance(given, str | os.PathLike) else None
    if not isinstance(text, str):
        raise FileError(
            f"The path of {what} was expected, {described(given)} was given. Give text or a Path."
        )
    if not text or "\0" in text:
        raise FileError(f"{text!r} is no path of {what}. Give the name of a file.")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise FileError(f"{text} cannot be found: {error} Write the whole path.") from error


def is_there(path: Path) -> bool:
    """Say whether there is a file or folder.

    Parameters
    ----------
    path : Path
        What to look for.

    Returns
    -------
    bool
        False if it is missing.

    Raises
    ------
    FileError
        If the system does not let us look, or cannot have such a name.
    """
    try:
        return path.exists()
    except OSError as error:
        raise FileError(
            f"{shortened(str(path))} cannot be looked at: {error.strerror}. Check the path, and "
            "that you may read its folder."
        ) from error
