"""Which files a command is about: those named, those in a folder, those that belong together."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from napari_unet.errors import FileError
from napari_unet.files.images import PICTURE_SUFFIXES, TIFF_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

IMAGE_SUFFIXES = (*TIFF_SUFFIXES, *PICTURE_SUFFIXES, ".npy", ".zarr")

_ROLE = re.compile(
    r"[ ._-]*(image|img|raw|label|mask|masks|labels|images|gt|truth|seg|instances)$", re.IGNORECASE
)
_TRUTH_ROLES = {"label", "labels", "mask", "masks", "gt", "truth", "seg", "instances"}
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
        probabilities that ``napari-unet segment`` writes. A name that does not exist stays in
        the list, so that it is told where it is read.
    """
    found: dict[Path, None] = {}
    for text in paths:
        path = Path(text).expanduser()
        if _is_image_folder(path):
            own = [file for file in in_folder(path) if not stem(file).endswith(_OUR_RESULTS)]
            found.update(dict.fromkeys(own))
        elif not path.exists() and any(sign in path.name for sign in "*?["):
            matching = sorted(path.parent.glob(path.name))
            shown = [file for file in matching if not file.name.startswith(".")]
            found.update(dict.fromkeys(shown or [path]))
        else:
            found[path] = None
    return list(found)


def in_folder(folder: Path) -> list[Path]:
    """List the image files in a folder, sorted by name, hidden ones left out."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )


def stem(path: Path) -> str:
    """Return the name of a file without its ending; ``.ome.tif`` is one ending."""
    name = path.name
    while Path(name).suffix.lower() in (*IMAGE_SUFFIXES, ".ome"):
        name = Path(name).stem
    return name


def pair_files(images: Path, labels: Path) -> Pairs:
    """Find the labels that belong to each image, by name.

    Parameters
    ----------
    images, labels : Path
        Two folders, the same folder twice, or two files. Names agree up to their ending and a
        last part such as ``_image``, ``_labels`` or ``_mask``.

    Returns
    -------
    Pairs
        Sorted by name.

    Raises
    ------
    FileError
        If a path is missing, nothing fits, or two files claim the same name.
    """
    for path in (images, labels):
        if not path.exists():
            raise FileError(f"There is no file or folder {path}. Check the path.")
    if not _is_image_folder(images) and not _is_image_folder(labels):
        return Pairs([(images, labels)])
    mine, theirs = _listed(images), _listed(labels)
    if images.resolve() == labels.resolve():
        mine = [path for path in mine if _role(path) not in _TRUTH_ROLES]
        theirs = [path for path in theirs if _role(path) in _TRUTH_ROLES]
    image_of, labels_of = _by_name(mine), _by_name(theirs)
    both = sorted(image_of.keys() & labels_of.keys())
    if not both:
        raise FileError(
            f"No image in {images} ({len(mine)} files) has the name of labels in {labels} "
            f"({len(theirs)} files). Name them alike, e.g. a.tif and a.tif or a_labels.tif."
        )
    alone = [files[key] for files in (image_of, labels_of) for key in sorted(files.keys() - both)]
    return Pairs([(image_of[key], labels_of[key]) for key in both], alone)


def _is_image_folder(path: Path) -> bool:
    """Say if a path is a folder of images; a zarr folder is an image itself."""
    return path.is_dir() and path.suffix.lower() != ".zarr"


def _listed(path: Path) -> list[Path]:
    """List the images of a folder, or the one file."""
    return in_folder(path) if _is_image_folder(path) else [path]


def _role(path: Path) -> str | None:
    """Return the last part of a name that says what the file is."""
    match = _ROLE.search(stem(path))
    return match[1].lower() if match else None


def _by_name(paths: Sequence[Path]) -> dict[str, Path]:
    """Key files by their name without what says their role."""
    files: dict[str, Path] = {}
    for path in paths:
        # A file named only "image.tif" keeps its name.
        key = (_ROLE.sub("", stem(path)) or stem(path)).casefold()
        if key in files:
            raise FileError(
                f"{files[key].name} and {path.name} could both belong to {key!r}. "
                "Keep one of them in the folder."
            )
        files[key] = path
    return files
