"""Which files a command is about: those named, those in a folder, those that belong together."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from napari_unet.errors import FileError
from napari_unet.files.images import PICTURE_SUFFIXES, TIFF_SUFFIXES
from napari_unet.files.paths import is_there

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

IMAGE_SUFFIXES = (*TIFF_SUFFIXES, *PICTURE_SUFFIXES, ".npy", ".zarr")

_ROLE = re.compile(
    r"[ ._-]*(image|img|raw|label|mask|masks|labels|images|gt|truth|seg|instances|checked)$",
    re.IGNORECASE,
)
_TRUTH_ROLES = {"label", "labels", "mask", "masks", "gt", "truth", "seg", "instances", "checked"}
_OUR_RESULTS = ("_labels", "_probability")


@dataclass(frozen=True)
class Pairs:
    """Images with their labels, and the files that stayed alone."""

    pairs: list[tuple[Path, Path]]
    alone: list[Path] = field(default_factory=list)


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """List image files; a folder stands for the images in it.

    Parameters
    ----------
    paths : iterable of str or Path
        Files, folders, or patterns such as ``*.tif`` that the shell has left as they were.

    Returns
    -------
    list of Path
        In the given order, each once; of a folder, sorted by name and without the masks and
        probabilities that ``napari-unet segment`` writes. A name that does not exist and a
        folder without images stay in the list, so that they are told where they are read.
    """
    found: dict[Path, None] = {}
    for text in paths:
        path = Path(text).expanduser()
        if _is_image_folder(path):
            found.update(dict.fromkeys(_own_images(path) or [path]))
        elif not os.path.exists(path) and any(sign in path.name for sign in "*?["):
            matching = sorted(path.parent.glob(path.name))
            shown = [file for file in matching if not file.name.startswith(".")]
            found.update(dict.fromkeys(shown or [path]))
        else:
            found[path] = None
    return list(found)


def in_folder(folder: Path) -> list[Path]:
    """List the image files in a folder, sorted by name, hidden ones left out.

    Raises
    ------
    FileError
        If the folder may not be read.
    """
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise FileError(
            f"The folder {folder} cannot be read: {error.strerror}. Check that you may read it."
        ) from error
    return [
        path
        for path in paths
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]


def stem(path: Path) -> str:
    """Return the name of a file without its ending; ``.ome.tif`` is one ending."""
    name = path.name
    while Path(name).suffix.lower() in (*IMAGE_SUFFIXES, ".ome"):
        name = Path(name).stem
    return name


def pair_files(first: Path, labels: Path, *, both_labels: bool = False) -> Pairs:
    """Find the labels that belong to each image, by name.

    Parameters
    ----------
    first, labels : Path
        Two folders, the same folder twice, or two files. Names agree up to their ending and
        last parts such as ``_image``, ``_labels`` or ``_mask``; where a folder holds images and
        labels of one name, that part decides.
    both_labels : bool
        The first are labels, too, instead of images.

    Returns
    -------
    Pairs
        Sorted by name.

    Raises
    ------
    FileError
        If a path is missing, nothing fits, or two files claim the same name.
    """
    for path in (first, labels):
        if not is_there(path):
            raise FileError(f"There is no file or folder {path}. Check the path.")
    if not _is_image_folder(first) and not _is_image_folder(labels):
        return Pairs([(first, labels)])
    mine = _by_name(_listed(first), are_labels=both_labels)
    theirs = _by_name(_listed(labels), are_labels=True)
    both = sorted(key for key in mine.keys() & theirs.keys() if mine[key] != theirs[key])
    if not both:
        raise FileError(
            f"No file in {first} ({len(mine)} names) belongs to a file in {labels} "
            f"({len(theirs)} names). Name them alike, e.g. a.tif and a.tif or a_labels.tif."
        )
    used = {path for key in both for path in (mine[key], theirs[key])}
    alone = sorted({*mine.values(), *theirs.values()} - used)
    return Pairs([(mine[key], theirs[key]) for key in both], alone)


def _is_image_folder(path: Path) -> bool:
    """Say if a path is a folder of images; a zarr folder is an image itself."""
    return os.path.isdir(path) and path.suffix.lower() != ".zarr"


def _own_images(folder: Path) -> list[Path]:
    """List the images of a folder without our results; none where it may not be read."""
    try:
        return [path for path in in_folder(folder) if not stem(path).endswith(_OUR_RESULTS)]
    except FileError:
        return []


def _listed(path: Path) -> list[Path]:
    """List the images of a folder, or the one file."""
    return in_folder(path) if _is_image_folder(path) else [path]


def _role(path: Path) -> str | None:
    """Return the last part of a name that says what the file is."""
    match = _ROLE.search(stem(path))
    return match[1].lower() if match else None


def _without_roles(name: str) -> str:
    """Strip what says a file's role, e.g. of ``a_image_labels``; a bare ``image`` stays."""
    shorter = _ROLE.sub("", name)
    return _without_roles(shorter) if shorter and shorter != name else name


def _by_name(paths: Sequence[Path], *, are_labels: bool) -> dict[str, Path]:
    """Key files by their name without what says their role."""
    groups: dict[str, list[Path]] = {}
    for path in paths:
        groups.setdefault(_without_roles(stem(path)).casefold(), []).append(path)
    return {key: _chosen(group, are_labels=are_labels) for key, group in groups.items()}


def _chosen(group: Sequence[Path], *, are_labels: bool) -> Path:
    """Choose the image or the labels among files of one name."""
    fitting = [path for path in group if (_role(path) in _TRUTH_ROLES) == are_labels]
    candidates = group if len(group) == 1 else fitting
    if len(candidates) != 1:
        names = " and ".join(path.name for path in candidates or group)
        kind = "labels" if are_labels else "images"
        raise FileError(f"{names} could all be the {kind} of one name. Keep one in the folder.")
    return candidates[0]
