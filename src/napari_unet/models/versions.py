"""The versions of a model: each retraining is kept, with what it learned from and how well it does.

A version that was taken lies with the person's models; one that was not is set aside, in a folder
beside them, until somebody wants it. Beside each lies the report of its run.

Which version came from which is told by the cards alone: each holds the history of its model, so
a version keeps its place whatever its file is called::

    nuclei --+-- step 1: nuclei 2 ----- step 2: nuclei 3
             |
             +-- step 3: nuclei 4 (set aside)

The model a history begins with has none of its own; it is known by the checksum of its weights.
A version whose file was removed lives on in the histories of those that came from it.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from napari_unet.errors import FileError, ModelError
from napari_unet.models.library import free_name, list_models, report_path, user_folder
from napari_unet.models.own_file import SUFFIX, read_card

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from napari_unet.models.card import Card, Learned

Steps = tuple[str, ...]
"""When each step of a history was made: no two versions of a model have the same."""

_AT_ONCE = 1 << 20
_HEADER_LENGTH_BYTES = 8


@dataclass(frozen=True)
class Version:
    """One model of a family.

    Attributes
    ----------
    name : str
        As it is called now; if its file was removed, as it was called.
    parent : str or None
        Likewise, of the version that learned; None for the model all began with.
    path : Path or None
        None if its file was removed.
    learned : Learned or None
        What it learned and what came of it; None for the model all began with.
    is_set_aside : bool
        Whether it was not taken, so that it is not in the list of models.
    steps : tuple of str
        When each step on the way to it was made: its own key, and its parent's without the last.
    """

    name: str
    parent: str | None
    path: Path | None
    learned: Learned | None
    is_set_aside: bool
    steps: Steps


@dataclass(frozen=True)
class _File:
    """A model that is there."""

    name: str
    path: Path
    card: Card
    is_set_aside: bool


def set_aside_folder() -> Path:
    """Return the folder of the versions that were not taken; it may not exist yet."""
    return user_folder().parent / "versions"


def parent_of(path: Path, card: Card) -> Version | None:
    """Find the version that a model learned from.

    Parameters
    ----------
    path : Path
        The file of the model.
    card : Card
        Its card.

    Returns
    -------
    Version or None
        None if nothing was learned on the way to the model; without a path if it was removed.
    """
    made = steps_of(card)
    if not made:
        return None
    versions = {version.steps: version for version in list_versions(path, card)}
    return versions[made[:-1]]


def free_place(name: str, *, is_taken: bool) -> Path:
    """Return where a new version belongs.

    Parameters
    ----------
    name : str
        The wanted name; it is counted on if a model or a version has it.
    is_taken : bool
        Whether it goes with the person's models, or aside.

    Returns
    -------
    Path
        A file that is not there yet.
    """
    free = free_name(name, {path.stem for path in _weights_set_aside()})
    return (user_folder() if is_taken else set_aside_folder()) / f"{free}{SUFFIX}"


def list_versions(path: Path, card: Card) -> list[Version]:
    """List all versions of the family of a model, oldest first.

    Parameters
    ----------
    path : Path
        The file of the model.
    card : Card
        Its card.

    Returns
    -------
    list of Version
        The model all began with comes first; with it alone, nothing was learned yet.
    """
    files = {file.path: file for file in (*_library(), *_set_aside())}
    files.setdefault(path, _File(card.name, path, card, is_set_aside=False))
    root, root_weights = _root(files[path])
    family = [file for file in files.values() if _belongs(file.card, root, root_weights)]
    names: dict[Steps, str] = {steps_of(file.card): file.name for file in family}
    steps: dict[Steps, Learned] = {}
    for file in family:
        history = file.card.history
        for end, learned in enumerate(history, start=1):
            so_far = steps_of(file.card)[:end]
            steps[so_far] = learned
            if end < len(history):
                names.setdefault(so_far, history[end].parent)
    begin = _beginning(files.values(), root, root_weights)
    names[()] = root if begin is None else begin.name
    there = {steps_of(file.card): file for file in family}
    versions = [
        Version(
            names[made],
            names[made[:-1]],
            there[made].path if made in there else None,
            steps[made],
            made in there and there[made].is_set_aside,
            made,
        )
        for made in sorted(steps, key=lambda made: made[-1])
    ]
    first = Version(names[()], None, None if begin is None else begin.path, None, False, ())
    return [first, *versions]


def steps_of(card: Card) -> Steps:
    """Return what tells a version from all others of its family.

    Parameters
    ----------
    card : Card
        Of the version.

    Returns
    -------
    tuple of str
        When each step of its history was made.
    """
    return tuple(learned.created for learned in card.history)


def take_back(path: Path) -> Path:
    """Put a version that was set aside with the person's models.

    Parameters
    ----------
    path : Path
        Its file; one that is not set aside stays where it is.

    Returns
    -------
    Path
        Where it is now.

    Raises
    ------
    FileError
        If the system refuses.
    """
    if path.parent != set_aside_folder():
        return path
    target = user_folder() / path.name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if report_path(path).exists():
            os.replace(report_path(path), report_path(target))
        os.replace(path, target)
    except OSError as error:
        raise FileError(
            f"{path.name} cannot be put with your models: {error.strerror}. Your models are in "
            f"{target.parent}; see whether files can be written there."
        ) from error
    return target


def delete_set_aside(path: Path) -> None:
    """Delete a version that was set aside, with its report.

    Parameters
    ----------
    path : Path
        Its file.

    Raises
    ------
    FileError
        If it is not set aside, or the system refuses.
    """
    if path.parent != set_aside_folder():
        raise FileError(f"{path} is not set aside, so it is not deleted. Remove it as a model.")
    try:
        path.unlink(missing_ok=True)
        report_path(path).unlink(missing_ok=True)
    except OSError as error:
        raise FileError(f"{path.name} cannot be deleted: {error.strerror}.") from error


def weights_checksum(path: Path) -> str:
    """Digest the weights in a file, whatever its card says.

    Parameters
    ----------
    path : Path
        A model; of our own files the tensors are digested, of others the whole file.

    Returns
    -------
    str
        SHA-256, in hexadecimal digits; empty for a folder.
    """
    if path.is_dir():
        return ""
    stat = path.stat()
    return _weights_checksum(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=128)
def _weights_checksum(path: Path, _changed_ns: int, _bytes: int) -> str:
    """Digest a file as long as it stays the same."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        if path.suffix == SUFFIX:
            header = int.from_bytes(file.read(_HEADER_LENGTH_BYTES), "little")
            file.seek(_HEADER_LENGTH_BYTES + header)
        while chunk := file.read(_AT_ONCE):
            digest.update(chunk)
    return digest.hexdigest()


def _library() -> Iterator[_File]:
    """Yield the models of the list that have a card."""
    for entry in list_models():
        if entry.card is not None:
            yield _File(entry.name, entry.path, entry.card, is_set_aside=False)


def _set_aside() -> Iterator[_File]:
    """Yield what was set aside; damaged files are left out."""
    for path in _weights_set_aside():
        try:
            yield _File(path.stem, path, read_card(path), is_set_aside=True)
        except ModelError:
            continue


def _weights_set_aside() -> list[Path]:
    return sorted(path for path in set_aside_folder().glob(f"*{SUFFIX}") if path.name[0] != ".")


def _root(file: _File) -> tuple[str, str]:
    """Return name and checksum of the model a family began with."""
    history = file.card.history
    if history:
        return history[0].parent, history[0].parent_weights
    return file.name, weights_checksum(file.path) if file.path.exists() else ""


def _belongs(card: Card, name: str, weights: str) -> bool:
    """Tell whether a version came from a model, by its checksum, else by its name."""
    if not card.history:
        return False
    first = card.history[0]
    if first.parent_weights and weights:
        return first.parent_weights == weights
    return first.parent == name


def _beginning(files: Iterable[_File], name: str, weights: str) -> _File | None:
    """Find the model a family began with among those without a history."""
    bare = [file for file in files if not file.card.history]
    named = [file for file in bare if name in (file.name, file.card.name)]
    if not weights:
        return named[0] if named else None
    others = [file for file in bare if file not in named]  # it was renamed: all are digested
    return next((f for f in (*named, *others) if weights_checksum(f.path) == weights), None)
