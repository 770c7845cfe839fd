"""Reads bioimage.io packages: the weights that can be opened here, and what is done around them.

A package describes a network, often with the same weights in several formats, and how images are
scaled for it. Its formats 0.3 to 0.5 say the same in different words. Read here is only what is
needed, so a package without its cover or test images opens, too; the Python source that may lie
in it is never imported. Where the package has test images, every reading of the weights is tried
on them and the one that gives what it should comes first::

    description -> one input, one output -> weights: state dict, TorchScript, ONNX, Keras
                -> pre- and post-processing -> card
                -> test image through each reading -> the right one first
                -> our card, if the package is one of ours
"""

from __future__ import annotations

import importlib
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_unet.errors import ModelError
from napari_unet.models.bioimageio.cards import finished, with_own_card
from napari_unet.models.bioimageio.package import Package
from napari_unet.models.bioimageio.tensors import tensors_of
from napari_unet.models.bioimageio.trial import confirmed, difference_of, doubtful, read_test_image
from napari_unet.models.bioimageio.values import text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_unet.models.found import Found

# Entries of a package that can be opened, in the order in which they are tried, with their
# reader. A state dict first: it may become one of our own networks, the fastest to compute.
_READERS = {
    "pytorch_state_dict": ("pytorch", "read_state_dict"),
    "torchscript": ("torchscript", "read_torchscript"),
    "onnx": ("onnx", "read_onnx"),
    "keras_hdf5": ("keras", "read_keras"),
    "keras_v3": ("keras", "read_keras"),
}

_FORMATS = (3, 4, 5)
_AGREES = 1e-3  # of the largest value; weights in other formats differ by rounding
_FAR_OFF = 0.1  # beyond that it is another network


def read_bioimageio(path: Path) -> list[Found]:
    """Read a bioimage.io package.

    Parameters
    ----------
    path : Path
        A folder with its ``bioimageio.yaml`` or ``rdf.yaml``, a ``.zip``, or the yaml itself.

    Returns
    -------
    list of Found
        One for each way to read the weights; the one that gives the package's own test output
        comes first.

    Raises
    ------
    ModelError
        If the package is damaged or hostile, its network has several inputs or outputs, or none
        of its weights can be opened.
    """
    package = Package(Path(path))
    try:
        description = package.read_description()
        _check_kind(description, package.path.name)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            found = _read(package, description, Path(folder))
        return [with_own_card(one, description) for one in found]
    finally:
        package.close()


def _read(package: Package, description: dict[str, Any], folder: Path) -> list[Found]:
    """Read the weights of a package; files of an archive are unpacked into the folder."""
    tensors = tensors_of(description)
    image, wanted = (read_test_image(package, folder, tensor) for tensor in tensors)
    closest: tuple[float, list[Found]] = (_FAR_OFF, [])
    reasons: list[str] = []
    for kind, found in _weights(package, description, folder, reasons):
        readings = [finished(one, description, tensors) for one in found]
        differences = []
        for reading in readings:
            difference = difference_of(reading, image, wanted, tensors[1].steps)
            if difference is not None and difference <= _AGREES:
                return [confirmed(reading)]
            differences.append(difference)
        known = [difference for difference in differences if difference is not None]
        if not known:
            return readings
        reasons.append(
            f"{kind}: its answer to the package's test image differs by {min(known):.2g} of the "
            "largest value from what it should be"
        )
        if min(known) < closest[0]:
            reading = readings[differences.index(min(known))]
            closest = min(known), [doubtful(reading, min(known))]
    if closest[1]:
        return closest[1]
    raise ModelError(
        f"None of the weights in {package.path.name} can be used ({'; '.join(reasons)}). Ask its "
        "makers for an ONNX file, or choose another package."
    )


def _check_kind(description: dict[str, Any], name: str) -> None:
    """Refuse what is no model, or of a format that is not known."""
    kind = description.get("type", "model")
    if kind != "model":
        raise ModelError(
            f"{name} is a {kind} of bioimage.io, not a model. Choose the package of a model."
        )
    version = str(description.get("format_version", ""))
    parts = re.match(r"0\.(\d+)", version)
    if parts is None or int(parts[1]) not in _FORMATS:
        raise ModelError(
            f"{name} is in format {version or 'unknown'} of bioimage.io; known are 0.3 to 0.5. "
            "Update this plugin, or download the package in another version."
        )


def _weights(
    package: Package, description: dict[str, Any], folder: Path, reasons: list[str]
) -> Iterator[tuple[str, list[Found]]]:
    """Yield what each entry of weights holds; add the reason where one cannot be opened."""
    entries = description.get("weights")
    if not isinstance(entries, dict) or not entries:
        raise ModelError(
            f"The description of {package.path.name} names no weights. Download the package again."
        )
    for kind in entries:
        if kind not in _READERS:
            reasons.append(f"{kind}: this format is not opened here")
    for kind in (kind for kind in _READERS if isinstance(entries.get(kind), dict)):
        source, sha256 = (text_of(entries[kind].get(field)) for field in ("source", "sha256"))
        source = package.find(source, sha256)
        if not package.holds(source):
            place = "lies elsewhere" if "://" in source else "is not in the package"
            reasons.append(f"{kind}: {source or 'its file'} {place}")
            continue
        path = package.fetch(source, sha256, folder)
        module, function = _READERS[kind]
        try:
            reader: Callable[[Path], list[Found]] = getattr(
                importlib.import_module(f"napari_unet.models.{module}"), function
            )
            found = reader(path)
        except ModelError as error:
            reasons.append(f"{kind}: {error}")
        else:
            yield kind, found
