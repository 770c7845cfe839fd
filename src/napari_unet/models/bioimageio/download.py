"""Models of bioimage.io, fetched by their nickname."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from napari_unet.errors import ModelError
from napari_unet.files.atomic import written_beside
from napari_unet.models.library import user_folder

_NICKNAME = re.compile(r"[a-z]+(-[a-z]+)+(/[\w.]+)?|10\.\d{4,}/\S+")


def fetch(nickname: str) -> Path:
    """Download a model of bioimage.io, or find it where it was downloaded before.

    Parameters
    ----------
    nickname : str
        E.g. ``affable-shark``, or a DOI.

    Returns
    -------
    Path
        The package, a zip in the person's folder; every file in it has the right checksum.

    Raises
    ------
    ModelError
        If there is no such model, or no connection.
    """
    if not _NICKNAME.fullmatch(nickname):
        raise ModelError(
            f"{nickname!r} is no nickname of a bioimage.io model. They look like 'affable-shark'; "
            "see https://bioimage.io."
        )
    target = user_folder().parent / "bioimageio" / f"{re.sub(r'[^a-z0-9.-]+', '_', nickname)}.zip"
    if target.is_file():
        return target
    from bioimageio.spec import save_bioimageio_package

    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder) / "model.zip"
        try:
            save_bioimageio_package(nickname, output_path=packed)
            content = packed.read_bytes()
        except Exception as error:
            first = next(iter(str(error).splitlines()), type(error).__name__)
            raise ModelError(
                f"The model {nickname} could not be downloaded from bioimage.io ({first[:200]}). "
                "Check the name and the connection, or download its zip on another computer and "
                "open that."
            ) from error
    with written_beside(target) as beside:
        beside.write_bytes(content)
    return target
