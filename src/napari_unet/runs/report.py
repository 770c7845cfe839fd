"""The report of a run: what was done, with what, and what came of it, as one JSON file."""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_unet.errors import FileError
from napari_unet.files.atomic import written_beside

if TYPE_CHECKING:
    import os

DISTRIBUTION = "napari-unet-interactive"


def versions() -> dict[str, str]:
    """Name the versions of what computed.

    Returns
    -------
    dict of str to str
        Of this package, Python, torch and numpy.
    """
    try:
        own = version(DISTRIBUTION)
    except PackageNotFoundError:  # run from a source tree that is not installed
        own = "unknown"
    return {
        "napari_unet": own,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }


def write_report(path: str | os.PathLike[str], report: dict[str, Any]) -> Path:
    """Write a report, whole or not at all.

    Parameters
    ----------
    path : str or path
        The JSON file; one that is there is replaced.
    report : dict
        Plain values, as in :class:`napari_unet.runs.finetune.FinetuneResult`.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    FileError
        If it cannot be written.
    """
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
    with written_beside(path) as beside:
        beside.write_text(text + "\n", encoding="utf-8")
    return Path(path)


def read_report(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a report back.

    Parameters
    ----------
    path : str or path
        A file written by :func:`write_report`.

    Returns
    -------
    dict
        As it was written.

    Raises
    ------
    FileError
        If there is no such file, or it holds something else.
    """
    try:
        report = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileError(f"{path} cannot be read as a report ({error}). Choose another.") from error
    if not isinstance(report, dict):
        raise FileError(f"{path} holds no report. Choose a .json file written beside a model.")
    return report
