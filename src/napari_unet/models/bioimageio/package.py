"""A bioimage.io package as files: a folder or a zip, read without trusting it.

A zip may claim to hold more than a disk, lead out of its folder or hold links; a description may
be built to grow without end when it is read. Nothing of that is followed: only the description
and the files it names are read, each once and up to a limit.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
import stat
import zipfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from napari_unet.errors import ModelError
from napari_unet.models.damage import UNREADABLE_ZIP, what_failed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DESCRIPTION = re.compile(r"(?:.*\.)?(?:bioimageio|rdf|model)\.ya?ml", re.IGNORECASE)
"""Names of the file that describes a package."""

LARGEST_DESCRIPTION = 500_000
LARGEST_FILE = 8 * 2**30
_MOST_FILES = 10_000
_MOST_ALIASES = 200
_MOST_DEPTH = 50
_MOST_INFLATED = 200  # times its packed size; weights hardly shrink
_SMALL = 50 * 2**20  # may be packed tightly: a test image of zeros
_CHUNK = 2**20
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


class Package:
    """A folder or a zip with a description in it.

    Parameters
    ----------
    path : Path
        The folder, the zip, or the description in a folder.

    Raises
    ------
    ModelError
        If there is no description, or the archive is damaged or hostile.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._archive: zipfile.ZipFile | None = None
        if path.is_dir():
            names = [entry.name for entry in path.iterdir() if entry.is_file()]
            self._root, self.description = path, self._find(names)
        elif zipfile.is_zipfile(path):
            self._archive = _opened(path)
            self.description = self._find(self._archive.namelist())
        else:
            self._root, self.description = path.parent, path.name
        self._inside = posixpath.dirname(self.description)

    def close(self) -> None:
        """Close the archive."""
        if self._archive is not None:
            self._archive.close()

    def read_description(self) -> dict[str, Any]:
        """Read the description.

        Returns
        -------
        dict
            As it was written.

        Raises
        ------
        ModelError
            If it is too large, no YAML, or built to exhaust the computer.
        """
        content = b"".join(self._chunks(self.description, LARGEST_DESCRIPTION))
        return parse_description(content, posixpath.basename(self.description))

    def holds(self, source: str) -> bool:
        """Say whether the package holds a file that its description names."""
        try:
            name = self._name(source)
            return self._size(name) is not None
        except ModelError:
            return False

    def find(self, source: str, sha256: str) -> str:
        """Return the name of a file in a folder that was renamed, by its checksum.

        Parameters
        ----------
        source : str
            The file as the description names it.
        sha256 : str
            Checksum that the description tells; empty if it does not.

        Returns
        -------
        str
            The name it has now; ``source`` if it is there, or nowhere.
        """
        if self._archive is not None or not sha256 or self.holds(source):
            return source
        suffix = posixpath.splitext(source)[1]
        for path in sorted((self._root / self._inside).glob(f"*{suffix}")) if suffix else ():
            if path.is_file() and self._digest(path.name) == sha256.lower():
                return path.name
        return source

    def fetch(self, source: str, sha256: str | None, folder: Path) -> Path:
        """Give a file of the package, checked, as one that can be opened.

        Parameters
        ----------
        source : str
            The file as the description names it.
        sha256 : str or None
            Checksum that the description tells.
        folder : Path
            Where a file of an archive is unpacked to.

        Returns
        -------
        Path
            The file itself, or its copy in ``folder``.

        Raises
        ------
        ModelError
            If it is not there, lies outside of the package, or is another than described.
        """
        name = self._name(source)
        if self._size(name) is None:
            raise ModelError(
                f"The package {self.path.name} lacks the file {source}, which its description "
                "names. Download the package again."
            )
        target = folder / posixpath.basename(name) if self._archive else self._root / name
        digest = hashlib.sha256()
        with target.open("wb") if self._archive else _nothing() as copy:
            for chunk in self._chunks(name, LARGEST_FILE):
                digest.update(chunk)
                if copy is not None:
                    copy.write(chunk)
        if sha256 and digest.hexdigest() != sha256.lower():
            raise ModelError(
                f"The file {source} of the package {self.path.name} is not the one that its "
                "description means: the checksum (sha256) differs. Download the package again."
            )
        return target

    def _digest(self, name: str) -> str:
        """Return the checksum of a file."""
        digest = hashlib.sha256()
        for chunk in self._chunks(name, LARGEST_FILE):
            digest.update(chunk)
        return digest.hexdigest()

    def _find(self, names: list[str]) -> str:
        """Find the description: the one that lies highest."""
        found = [name for name in names if DESCRIPTION.fullmatch(posixpath.basename(name))]
        if not found:
            raise ModelError(
                f"{self.path.name} holds no bioimageio.yaml or rdf.yaml, so it is no bioimage.io "
                "package. Choose the folder or zip that has one."
            )
        return min(found, key=lambda name: (name.count("/"), "bioimageio" not in name, name))

    def _name(self, source: str) -> str:
        """Return the name within the package; an address stands for a file of its last part."""
        if _URL.match(source):
            source = posixpath.basename(source.split("?")[0].split("#")[0])
        name = posixpath.normpath(posixpath.join(self._inside, source.replace("\\", "/")))
        if name.startswith(("/", "..")) or ":" in name.split("/")[0]:
            raise ModelError(
                f"The description of {self.path.name} names {source}, which lies outside of the "
                "package. Such a package is not opened; get it from another source."
            )
        return name

    def _size(self, name: str) -> int | None:
        """Return the size of a file, None if it is not there."""
        if self._archive is not None:
            try:
                return self._archive.getinfo(name).file_size
            except KeyError:
                return None
        file = self._root / name
        if not file.resolve().is_relative_to(self._root.resolve()):
            raise ModelError(
                f"{name} in {self.path.name} is a link out of the package. Such a package is not "
                "opened; get it from another source."
            )
        return file.stat().st_size if file.is_file() else None

    def _chunks(self, name: str, most: int) -> Iterator[bytes]:
        """Read a file piece by piece, up to a limit."""
        size = self._size(name)
        if size is None or size > most:
            raise ModelError(
                f"{name} in {self.path.name} is larger than anything that belongs there "
                f"({(size or 0) / 1e6:.0f} MB). The package is damaged or not what it says."
            )
        try:
            opened = (
                self._archive.open(name)
                if self._archive is not None
                else (self._root / name).open("rb")
            )
            with opened as file:
                while chunk := file.read(_CHUNK):
                    yield chunk
        except (MemoryError, *UNREADABLE_ZIP) as error:
            damaged = f"{name} in {self.path.name} cannot be read ({error}). Download it again."
            raise ModelError(what_failed(name, error, damaged)) from error


def parse_description(content: bytes, name: str) -> dict[str, Any]:
    """Read a description without following what would grow without end.

    Parameters
    ----------
    content : bytes
        YAML.
    name : str
        What to call it in a sentence.

    Returns
    -------
    dict
        Numbers may be texts: YAML 1.1 takes 1e-6 for one.

    Raises
    ------
    ModelError
        If it is no YAML, no mapping, or refers to itself over and over.
    """
    import yaml

    try:
        description = yaml.load(content, _bounded_loader())
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError, TypeError) as error:
        reason = str(getattr(error, "problem", None) or error).splitlines()
        raise ModelError(
            f"{name} cannot be read as YAML ({reason[0] if reason else type(error).__name__}). "
            "The package is damaged; download it again."
        ) from error
    if not isinstance(description, dict):
        raise ModelError(f"{name} describes nothing. The package is damaged; download it again.")
    return description


def _bounded_loader() -> Any:
    """Make the safe loader of YAML count what it follows; dates stay texts."""
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml tells no types
        aliases = depth = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            self.aliases += self.check_event(yaml.AliasEvent)
            self.depth += 1
            if self.aliases > _MOST_ALIASES or self.depth > _MOST_DEPTH:
                raise yaml.YAMLError("it refers to itself over and over")
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

        def flatten_mapping(self, node: Any) -> None:
            super().flatten_mapping(node)
            if len(node.value) > _MOST_FILES:
                raise yaml.YAMLError("it refers to itself over and over")

    timestamp = "tag:yaml.org,2002:timestamp"
    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != timestamp]
        for first, resolvers in Loader.yaml_implicit_resolvers.items()
    }
    return Loader


def _opened(path: Path) -> zipfile.ZipFile:
    """Open a zip; refuse one that is made to do harm."""
    try:
        archive = zipfile.ZipFile(path)
    except (MemoryError, *UNREADABLE_ZIP) as error:
        damaged = f"{path.name} is damaged or incomplete ({error}). Download it again."
        raise ModelError(what_failed(path.name, error, damaged)) from error
    problem = _problem(archive.infolist())
    if problem:
        archive.close()
        raise ModelError(
            f"{path.name} {problem}. Such a package is not opened; get it from another source."
        )
    return archive


def _problem(files: list[zipfile.ZipInfo]) -> str | None:
    """Say what is wrong with the files of a zip."""
    if len(files) > _MOST_FILES:
        return f"holds {len(files)} files, more than any package has"
    for file in files:
        parts = file.filename.replace("\\", "/").split("/")
        if ".." in parts or file.filename.startswith(("/", "\\")) or ":" in parts[0]:
            return f"holds a file that leads out of it ({file.filename!r})"
        if stat.S_ISLNK(file.external_attr >> 16):
            return f"holds a link ({file.filename!r})"
        if file.file_size > max(_SMALL, _MOST_INFLATED * file.compress_size):
            return (
                f"holds a file that would grow to {file.file_size / 1e9:.1f} GB when unpacked "
                f"({file.filename!r})"
            )
        if file.flag_bits & 1:
            return "is locked with a password"
    return None


@contextmanager
def _nothing() -> Iterator[None]:
    """Stand for a file that is not written."""
    yield None
