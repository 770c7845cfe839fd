"""Models of bioimage.io, fetched by their nickname.

A nickname leads to the description of a model; the description names its files. Those that are
needed here, weights and test images, are fetched one by one and packed into a zip::

    nickname -> address -> description -> weights, test images -> zip in the person's folder

Nothing is taken on trust: the description is read as any stranger's, a file of weights must have
the checksum that it names, none may be larger than weights can be, and a server that sends next
to nothing is not waited for. A zip stands in the folder whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
import time
import urllib.request
import zipfile
from http.client import HTTPException
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.parse import urljoin, urlsplit

from napari_unet.errors import ModelError
from napari_unet.files.atomic import written_beside
from napari_unet.models.bioimageio.package import (
    LARGEST_DESCRIPTION,
    LARGEST_FILE,
    Package,
    parse_description,
)
from napari_unet.models.bioimageio.values import as_dict, dicts, text_of
from napari_unet.models.library import user_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NICKNAME = re.compile(r"[a-z]+(-[a-z]+)+(/[\w.]+)?|10\.\d{4,}/\S+")
_KINDS = ("pytorch_state_dict", "torchscript", "onnx", "keras_hdf5", "keras_v3")
_DESCRIPTION = "rdf.yaml"
_LARGEST_LIST = 50 << 20
_LARGEST_TEST_IMAGE = 1 << 30
_AT_ONCE = 1 << 16
_SILENCE_S = 20.0  # without a byte
_FIRST_LOOK_S = 30.0  # from then on a server must keep up with the speed below
_SLOWEST_BYTES_PER_S = 2_000


def fetch(nickname: str) -> Path:
    """Download a model of bioimage.io, or find it where it was downloaded before.

    Parameters
    ----------
    nickname : str
        E.g. ``affable-shark``, or a DOI.

    Returns
    -------
    Path
        The package, a zip in the person's folder; its weights have the right checksum.

    Raises
    ------
    ModelError
        If there is no such model, no connection, or what comes is not what was described.
    """
    if not _NICKNAME.fullmatch(nickname):
        raise ModelError(
            f"{nickname!r} is no nickname of a bioimage.io model. They look like 'affable-shark'; "
            "see https://bioimage.io."
        )
    target = user_folder().parent / "bioimageio" / f"{re.sub(r'[^a-z0-9.-]+', '_', nickname)}.zip"
    if target.is_file():
        return target
    try:
        address = _address(nickname)
        content = b"".join(_received(address, LARGEST_DESCRIPTION))
        description = parse_description(content, nickname)
        with written_beside(target) as beside:
            with zipfile.ZipFile(beside, "w") as archive:
                archive.writestr(_DESCRIPTION, content)
                for source, sha256, most in _files(description):
                    _pack(archive, urljoin(address, source), sha256, most)
            Package(beside).close()
    except (ValueError, ModelError) as error:
        first = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ModelError(
            f"The model {nickname} could not be downloaded from bioimage.io "
            f"({first[:200].rstrip('.')}). Check the name and the connection, or download its "
            "zip on another computer and open that."
        ) from error
    return target


def _address(nickname: str) -> str:
    """Return where the description of a model lies; a DOI is looked up in the list of them."""
    from bioimageio.spec import settings

    if not nickname.startswith("10."):
        return str(settings.collection_http_pattern).format(bioimageio_id=nickname)
    known = as_dict(json.loads(b"".join(_received(str(settings.id_map), _LARGEST_LIST))))
    address = text_of(as_dict(known.get(nickname)).get("source"))
    if not address:
        raise ModelError(f"no model has the DOI {nickname}")
    return address


def _files(description: dict[str, Any]) -> Iterator[tuple[str, str, int]]:
    """Yield the files that are needed: their source, checksum and largest size in bytes."""
    weights = as_dict(description.get("weights"))
    named = set()
    for kind in _KINDS:
        entry = as_dict(weights.get(kind))
        source, sha256 = (text_of(entry.get(field)) for field in ("source", "sha256"))
        if source and source not in named:
            if not sha256:
                raise ModelError(f"the description names no checksum of {source}")
            named.add(source)
            yield source, sha256, LARGEST_FILE
    if not named:
        raise ModelError("its description names no weights that can be opened here")
    for tensor in (*dicts(description, "inputs"), *dicts(description, "outputs")):
        test = as_dict(tensor.get("test_tensor"))
        source = text_of(test.get("source"))
        if source and source not in named:
            named.add(source)
            yield source, text_of(test.get("sha256")), _LARGEST_TEST_IMAGE
    for field in ("test_inputs", "test_outputs"):
        for source in description.get(field) or ():
            if isinstance(source, str) and source not in named:
                named.add(source)
                yield source, "", _LARGEST_TEST_IMAGE


def _pack(archive: zipfile.ZipFile, address: str, sha256: str, most: int) -> None:
    """Download a file into an archive, under the last part of its address."""
    name = posixpath.basename(urlsplit(address).path)
    digest = hashlib.sha256()
    with archive.open(name, "w", force_zip64=True) as part:
        for chunk in _received(address, most):
            digest.update(chunk)
            part.write(chunk)
    if sha256 and digest.hexdigest() != sha256.lower():
        raise ModelError(f"{name} has another checksum (sha256) than its description says")


def _received(address: str, most: int) -> Iterator[bytes]:
    """Download a file piece by piece, no more of it than a limit in bytes."""
    try:
        with _opened(address) as reply:
            yield from _checked(reply, address, most)
    except (OSError, HTTPException) as error:
        if isinstance(error, HTTPError):
            error.close()
        raise ModelError(str(error) or type(error).__name__) from error


def _checked(reply: Any, address: str, most: int) -> Iterator[bytes]:
    """Read an answer; refuse one that is too large, too slow, or not whole."""
    told = reply.headers.get("Content-Length")
    expected = int(told) if told and told.isdecimal() else None
    start, received = time.monotonic(), 0
    if (expected or 0) > most:
        raise ModelError(f"{address} is larger than {most / 1e6:.0f} MB")
    while chunk := reply.read1(_AT_ONCE):
        received += len(chunk)
        if received > most:
            raise ModelError(f"{address} is larger than {most / 1e6:.0f} MB")
        waited = time.monotonic() - start
        if waited > _FIRST_LOOK_S and received < waited * _SLOWEST_BYTES_PER_S:
            raise ModelError("the server sends next to nothing")
        yield chunk
    if expected is not None and received != expected:
        raise ModelError(f"the connection broke off after {received} of {expected} bytes")


def _opened(address: str) -> Any:
    """Ask a server; only of the web, also where it leads to another one."""
    if urlsplit(address).scheme not in {"http", "https"}:
        raise ModelError(f"{address} is no address of the web")
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener.open(address, timeout=_SILENCE_S)
