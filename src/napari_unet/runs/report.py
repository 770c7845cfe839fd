"""The report of a run: what was done, with what, and what came of it, as one JSON file.

Its settings can be taken for another run: ``napari-unet finetune --settings report.json``.
"""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_unet.errors import FileError, SettingError
from napari_unet.files.atomic import written_beside
from napari_unet.files.paths import as_path
from napari_unet.settings import FinetuneSettings, SegmentSettings, checked

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
    source = as_path(path, "a report")
    try:
        report = json.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(
            f"{source} cannot be read: {error.strerror}. Choose a .json file written beside a "
            "model."
        ) from error
    except (ValueError, RecursionError) as error:
        raise FileError(
            f"{source} is not a report: it is not JSON ({error}). Choose a .json file written "
            "beside a model."
        ) from error
    if not isinstance(report, dict):
        raise FileError(f"{source} holds no report. Choose a .json file written beside a model.")
    return report


def read_settings(
    path: str | os.PathLike[str],
) -> tuple[FinetuneSettings | None, SegmentSettings | None]:
    """Read the settings of a run from its report, to run with them again.

    Parameters
    ----------
    path : str or path
        A report of a fine-tuning (written beside its model), or what a command printed with
        ``--json``.

    Returns
    -------
    finetune : FinetuneSettings or None
        How the network learned; None if the run did not train.
    segment : SegmentSettings or None
        How images were given to the network and objects were found.

    Raises
    ------
    FileError
        If there is no such file, or it holds no settings, or such as this version does not know.
    """
    report = read_report(path)
    if isinstance(report.get("report"), dict):  # as `finetune --json` prints it
        report = report["report"]
    finetune, segment = report.get("settings"), report.get("segment")
    if "segment" not in report:  # as `segment --json` prints it
        finetune, segment = None, finetune
    if finetune is None and segment is None:
        raise FileError(
            f"{path} holds no settings of a run. Choose a .json file written beside a model."
        )
    try:
        return (
            None if finetune is None else checked(FinetuneSettings, finetune),
            None if segment is None else checked(SegmentSettings, segment),
        )
    except SettingError as error:
        raise FileError(
            f"The settings in {path} do not fit this version: {error} Mend them there, or give "
            "them as options."
        ) from error
