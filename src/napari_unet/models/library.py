"""The models a person has: the bundled ones, those in their own folder, files opened lately.

A model of ours is one safetensors file: tensors, and in the metadata of its header the card as
JSON. Weights from elsewhere are told by their content and read only when they are opened, see
:mod:`napari_unet.models.opening`. Everything here reads the headers only, so that listing models
is fast and needs no torch.

A model is named by its file, or by a name of the list. Where a file can be read in several ways,
``weights.pth#2`` is the second one.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from platformdirs import user_data_path

from napari_unet.errors import FileError, ModelError, described, shortened
from napari_unet.files.atomic import written_beside
from napari_unet.files.paths import as_path, is_there
from napari_unet.models.formats import OWN, Format, refusal, sniff
from napari_unet.models.own_file import SUFFIX, read_card

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from napari_unet.models.card import Card

Origin = Literal["bundled", "user", "recent"]
REPORT_SUFFIX = ".json"

_BUNDLED = Path(__file__).parent.parent / "resources"
_FIRST = "nuclei"  # of the bundled models: what most people come for
_RECENT_FILE = "recent.json"
_MOST_RECENT = 12
_MOST_READINGS = 99
_LONGEST_NAME = 80
_NOT_IN_FILE_NAMES = re.compile(r'[<>:"/\\|?*\x00-\x1f]+')


@dataclass(frozen=True)
class Entry:
    """One model in the list.

    ``name`` is what :func:`find_model` takes, unique within the list: the name of the file, of
    our own ones without its ending; of a file opened lately its path. Of weights from elsewhere
    there is no ``card`` before they are opened; ``format`` says what they are.
    """

    name: str
    path: Path
    card: Card | None
    origin: Origin
    format: Format
    reading: int = 0

    @property
    def reference(self) -> str:
        """What names the model and its reading: a path, and e.g. #2."""
        return with_reading(self.path, self.reading)


def user_folder() -> Path:
    """Return the folder of the person's own models; it may not exist yet."""
    return user_data_path("napari-unet-interactive", appauthor=False) / "models"


def list_models() -> list[Entry]:
    """List the models that can be used, the bundled ones first.

    Returns
    -------
    list of Entry
        Damaged files are left out; :func:`list_damaged` tells them.
    """
    return [entry for entry in _entries() if isinstance(entry, Entry)]


def list_damaged() -> list[tuple[Path, str]]:
    """List the files in the models' folders that cannot be used, each with the reason."""
    return [entry for entry in _entries() if not isinstance(entry, Entry)]


def find_model(name_or_path: str | Path) -> Path:
    """Find a model by its name in the list or by its path.

    Parameters
    ----------
    name_or_path : str or Path
        A name, e.g. ``"nuclei"``, or a file. A name of the list wins over a file in the current
        folder; write ``./nuclei`` for the file.

    Returns
    -------
    Path
        An existing file or folder; it has not been opened yet.

    Raises
    ------
    ModelError
        If there is neither such a name nor such a file.
    """
    return find_reading(name_or_path)[0]


def find_reading(name_or_path: str | Path) -> tuple[Path, int]:
    """Find a model and which of its readings is meant.

    Parameters
    ----------
    name_or_path : str or Path
        As for :func:`find_model`; ``#2`` at its end is the second reading.

    Returns
    -------
    path : Path
        An existing file or folder.
    reading : int
        Counted from 0; the first where none is named.

    Raises
    ------
    ModelError
        If there is neither such a name nor such a file.
    """
    if not isinstance(name_or_path, str | Path):
        raise ModelError(
            f"The name of a model or the path of its file was expected, {described(name_or_path)} "
            "was given. Give e.g. 'nuclei'."
        )
    wanted = str(name_or_path)
    stem, _, number = wanted.rpartition("#")
    wishes = [(wanted, 0)]
    if stem and number.isdecimal() and 0 < int(number) <= _MOST_READINGS:
        wishes.append((stem, int(number) - 1))
    for wish, reading in wishes:
        for name, path, _ in _files():
            if name == wish:
                return path, reading
        if _is_a_file(wish):
            return Path(wish).expanduser(), reading
    known = ", ".join(name for name, _, _ in _files()) or "none"
    raise ModelError(
        f"There is no model and no file {shortened(wanted)!r}. Installed models: {known}. "
        "Give one of these names or the path of a weights file."
    )


def free_name(wanted: str, also_taken: Collection[str] = ()) -> str:
    """Return a name that no model has yet: ``nuclei 2`` after ``nuclei``, then ``nuclei 3``.

    Parameters
    ----------
    wanted : str
        Any text; what cannot stand in a file name is replaced, a number at its end is counted on.
    also_taken : collection of str
        Names of what is not in the list.

    Returns
    -------
    str
        ``wanted`` itself if it is free.
    """
    name = _NOT_IN_FILE_NAMES.sub(" ", wanted)[:_LONGEST_NAME].strip(" .") or "model"
    taken = {path.stem.casefold() for _, path, _ in _files()}
    taken |= {other.casefold() for other in also_taken}
    if name.casefold() not in taken:
        return name
    stem = re.sub(r" \d{1,6}$", "", name)
    number = 2
    while f"{stem} {number}".casefold() in taken:
        number += 1
    return f"{stem} {number}"


def with_reading(path: Path, reading: int) -> str:
    """Name one reading of a file, as :func:`find_reading` takes it."""
    return f"{path}#{reading + 1}" if reading else str(path)


def recent_models() -> list[tuple[Path, int]]:
    """List the files opened lately with the reading chosen, the last one first.

    Returns
    -------
    list of (Path, int)
        They may be gone meanwhile.
    """
    try:
        noted = json.loads(_recent_file().read_text(encoding="utf-8"))
        return [(Path(str(path)), int(reading)) for path, reading in noted][:_MOST_RECENT]
    except (OSError, ValueError, TypeError, RecursionError):
        return []


def remember_model(path: Path, reading: int = 0) -> None:
    """Note a file that was opened; those in the two folders are known anyway.

    Parameters
    ----------
    path : Path
        The file or folder.
    reading : int
        The reading chosen, counted from 0.
    """
    path = path.absolute()
    if path.parent in (_BUNDLED, user_folder()):
        return
    noted = [(path, reading), *(item for item in recent_models() if item[0] != path)]
    _note_recent(noted[:_MOST_RECENT])


def forget_model(path: Path) -> None:
    """Take a file off those opened lately; the file stays.

    Parameters
    ----------
    path : Path
        The file or folder.
    """
    _note_recent([item for item in recent_models() if item[0] != path])


def is_own_file(path: Path) -> bool:
    """Say whether a file lies in the person's folder, so that it may be renamed and removed.

    Parameters
    ----------
    path : Path
        The file or folder of a model.

    Returns
    -------
    bool
        False for the bundled models and for files elsewhere.
    """
    return path.absolute().parent.resolve() == user_folder().resolve()


def is_bundled(path: Path) -> bool:
    """Say whether a file came with the plugin."""
    return path.absolute().parent.resolve() == _BUNDLED.resolve()


def report_path(model: Path) -> Path:
    """Return where the report of the run that made a model lies: beside it.

    Parameters
    ----------
    model : Path
        The file of the model.

    Returns
    -------
    Path
        There is none beside a model that was not retrained.
    """
    return model.with_suffix(REPORT_SUFFIX)


def rename_model(path: Path, name: str) -> Path:
    """Give a file in the person's folder another name; its content stays.

    Parameters
    ----------
    path : Path
        The file or folder of the model.
    name : str
        The new name, without ending.

    Returns
    -------
    Path
        The renamed file.

    Raises
    ------
    ModelError
        If it is not in the person's folder, or there is a model of that name.
    FileError
        If the system refuses.
    """
    _refuse_others_files(path, "renamed")
    wanted = _NOT_IN_FILE_NAMES.sub(" ", name)[:_LONGEST_NAME].strip(" .")
    if not wanted:
        raise ModelError(f"{name!r} is no name of a model. Give at least one letter.")
    target = path.with_name(wanted + ("" if path.is_dir() else path.suffix))
    if target == path:
        return path
    is_same = target.name.casefold() == path.name.casefold()  # only small and capital letters
    if not is_same and free_name(wanted) != wanted:
        raise ModelError(f"There is a model {wanted!r} already. Choose another name.")
    try:
        path.rename(target)
        if report_path(path).exists():
            report_path(path).rename(report_path(target))
    except OSError as error:
        raise FileError(f"{path.name} cannot be renamed: {error.strerror}.") from error
    return target


def remove_model(path: Path) -> None:
    """Delete a file in the person's folder for good.

    Parameters
    ----------
    path : Path
        The file or folder of the model.

    Raises
    ------
    ModelError
        If it is not in the person's folder.
    FileError
        If the system refuses.
    """
    _refuse_others_files(path, "removed")
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
            report_path(path).unlink(missing_ok=True)
    except OSError as error:
        raise FileError(f"{path.name} cannot be removed: {error.strerror}.") from error


def misfit(card: Card, axes: str, channels: int) -> str | None:
    """Say why a model does not fit an image.

    Parameters
    ----------
    card : Card
        Of the model.
    axes : str
        Axes of the image, e.g. "ZYX".
    channels : int
        Channels of the image, and other images that could stand in for one.

    Returns
    -------
    str or None
        A few words, e.g. "needs a z axis"; None if it fits.
    """
    wanted = card.architecture.in_channels
    if card.architecture.spatial_dims == 3 and "Z" not in axes:
        return "needs a z axis"
    if wanted > channels:
        return f"needs {wanted} channels, the image has {channels}"
    return None


def _recent_file() -> Path:
    """Return where the files opened lately are noted."""
    return user_folder().parent / _RECENT_FILE


def _note_recent(noted: list[tuple[Path, int]]) -> None:
    """Note the files opened lately; where nothing can be written they are forgotten."""
    with contextlib.suppress(FileError), written_beside(_recent_file()) as beside:
        text = json.dumps([[str(path), reading] for path, reading in noted], indent=1)
        beside.write_text(text, encoding="utf-8")


def _refuse_others_files(path: Path, done: str) -> None:
    """Raise if a file is not the person's to change from here."""
    if not is_own_file(path):
        raise ModelError(
            f"{path} is not in your folder of models, so it is not {done} from here. "
            f"Your folder is {user_folder()}."
        )


def _is_a_file(name: str) -> bool:
    """Say if a text is the path of a file or folder; what cannot be a path is none."""
    try:
        return bool(name) and is_there(as_path(name))
    except FileError:
        return False


def _files() -> Iterator[tuple[str, Path, Literal["bundled", "user"]]]:
    """Yield name, path and origin of each file in the two folders, unread."""
    seen: set[str] = set()
    for path in sorted(_weights_in(_BUNDLED, f"*{SUFFIX}"), key=lambda path: path.stem != _FIRST):
        seen.add(path.stem)
        yield path.stem, path, "bundled"
    for path in _weights_in(user_folder(), "*"):
        plain = path.stem if path.suffix == SUFFIX else path.name
        name = plain if plain not in seen else f"{plain} (yours)"
        seen.add(name)
        yield name, path, "user"


def _weights_in(folder: Path, pattern: str) -> list[Path]:
    """List the files in a folder; none where it is missing or may not be read."""
    try:
        found = folder.glob(pattern)
        return sorted(p for p in found if p.name[0] != "." and p.suffix != REPORT_SUFFIX)
    except OSError:
        return []


def _entries() -> Iterator[Entry | tuple[Path, str]]:
    """Yield each model, or the path and the reason why it is none."""
    listed = set()
    for name, path, origin in _files():
        listed.add(path)
        found = _look_at(name, path, origin)
        if found is not None:
            yield found
    for path, reading in recent_models():
        if path not in listed and is_there(path):
            found = _look_at(str(path), path, "recent", reading)
            if isinstance(found, Entry):
                yield found


def _look_at(
    name: str, path: Path, origin: Origin, reading: int = 0
) -> Entry | tuple[Path, str] | None:
    """Tell what a file in the list is; None for what was never meant to be a model."""
    try:
        found = sniff(path)
        if found is OWN:
            return Entry(name, path, read_card(path), origin, found)
    except ModelError as error:
        return path, str(error)
    if found.opens:
        return Entry(name, path, None, origin, found, reading)
    if found.is_weights or path.suffix == SUFFIX:
        return path, refusal(path, found)
    return None
