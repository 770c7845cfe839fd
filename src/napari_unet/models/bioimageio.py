"""Reads bioimage.io packages: the weights that can be opened here, and what is done around them.

A package describes a network, often with the same weights in several formats, and how images are
scaled for it. Its formats 0.3 to 0.5 say the same in different words. Read here is only what is
needed, so a package without its cover or test images opens, too; the Python source that may lie
in it is never imported. Where the package has test images, every reading of the weights is tried
on them and the one that gives what it should comes first::

    description -> one input, one output -> weights: state dict, TorchScript, ONNX, Keras
                -> pre- and post-processing -> card
                -> test image through each reading -> the right one first
"""

from __future__ import annotations

import importlib
import math
import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_unet.arrays.normalize import measure, normalize
from napari_unet.errors import ModelError, UnetError
from napari_unet.files.atomic import written_beside
from napari_unet.models.card import DISTANCE, FOREGROUND, Card
from napari_unet.models.library import user_folder
from napari_unet.models.model import Model, assemble
from napari_unet.models.own_card import with_card
from napari_unet.models.package import Package
from napari_unet.models.processing import (
    Postprocessing,
    Step,
    read_postprocessing,
    read_preprocessing,
)
from napari_unet.settings import InstanceSettings, Normalization, checked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from napari_unet.models.found import Found

BOUNDARY = "boundary"

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
_LETTERS = {"batch": "b", "channel": "c", "index": "i", "time": "t"}
_MICROMETRES = {"nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3}
_MOST_TESTED_PIXELS = 2**22
_AGREES = 1e-3  # of the largest value; weights in other formats differ by rounding
_FAR_OFF = 0.1  # beyond that it is another network
_NICKNAME = re.compile(r"[a-z]+(-[a-z]+)+(/[\w.]+)?|10\.\d{4,}/\S+")
_WORDS = (
    (BOUNDARY, r"bound|border|edge|contour|membrane"),
    (DISTANCE, r"dist"),
    (FOREGROUND, r"foreground|fg|prob|mask|cell|nucle|object|interior"),
)


@dataclass(frozen=True)
class _Tensor:
    """An input or output of a network, as the description tells it."""

    name: str
    axes: str
    """One letter each, e.g. ``bcyx``."""
    channels: tuple[str, ...] | None
    steps: tuple[Step, ...]
    rates: dict[str, float]
    """Pixels of an output per pixel of the input, by axis; empty of an input."""
    pixel_size_um: float | None
    test: str | None
    range: tuple[float | None, float | None]

    @property
    def spatial(self) -> str:
        """Its spatial axes, in order."""
        return "".join(axis for axis in self.axes if axis in "zyx")


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
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            return _read(package, Path(folder))
    finally:
        package.close()


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


def _read(package: Package, folder: Path) -> list[Found]:
    """Read a package; files of an archive are unpacked into the folder."""
    description = package.read_description()
    _check_kind(description, package.path.name)
    tensors = _tensors(description)
    image, wanted = (_test_image(package, folder, tensor) for tensor in tensors)
    closest: tuple[float, list[Found]] = (_FAR_OFF, [])
    reasons: list[str] = []
    for kind, found in _weights(package, description, folder, reasons):
        readings = [_finished(one, description, tensors) for one in found]
        differences = []
        for reading in readings:
            difference = _difference(reading, image, wanted, tensors[1].steps)
            if difference is not None and difference <= _AGREES:
                return [_confirmed(reading)]
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
            closest = min(known), [_doubtful(reading, min(known))]
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


def _tensors(description: dict[str, Any]) -> tuple[_Tensor, _Tensor]:
    """Read the one input and the one output."""
    inputs, outputs = (_dicts(description, field) for field in ("inputs", "outputs"))
    if (len(inputs), len(outputs)) != (1, 1):
        raise ModelError(
            f"The network has {_count(inputs, 'input')} and {_count(outputs, 'output')}; only one "
            "image in and one out can be used here. Choose another package."
        )
    tests = [_first(description.get(field)) for field in ("test_inputs", "test_outputs")]
    source = _tensor(inputs[0], None, tests[0])
    target = _tensor(outputs[0], inputs[0], tests[1])
    for tensor in (source, target):
        # Keras keeps the channels last; its reader knows.
        plain = {f"bc{tensor.spatial}", f"b{tensor.spatial}c", f"b{tensor.spatial}"}
        if tensor.spatial not in {"yx", "zyx"} or tensor.axes not in plain:
            raise ModelError(
                f"The network's tensor {tensor.name} has the axes {tensor.axes.upper()}; images "
                "of Y and X or Z, Y and X with channels can be used here. Choose another package."
            )
    return source, target


def _tensor(tensor: dict[str, Any], reference: dict[str, Any] | None, test: str | None) -> _Tensor:
    """Read the description of a tensor, in the words of any format."""
    axes = tensor.get("axes")
    data = tensor.get("data")
    kind = "preprocessing" if reference is None else "postprocessing"
    own: dict[str, Any] = {
        "name": str(tensor.get("id") or tensor.get("name") or "image"),
        "steps": tuple(_step(step) for step in _dicts(tensor, kind)),
        "test": _text(_as_dict(tensor.get("test_tensor")).get("source")) or test,
        "range": _range(data.get("range") if isinstance(data, dict) else tensor.get("data_range")),
    }
    if isinstance(axes, str):  # formats 0.3 and 0.4
        shape = tensor.get("shape")
        scales = shape.get("scale") if isinstance(shape, dict) else None
        rates = {}
        if reference is not None and isinstance(scales, list) and len(scales) == len(axes):
            rates = {axis: _size(scale, 1.0) for axis, scale in zip(axes, scales, strict=True)}
        if reference is not None and isinstance(shape, list):
            rates = _fixed_rates(axes, shape, reference.get("shape"))
        return _Tensor(axes=axes, channels=None, rates=rates, pixel_size_um=None, **own)
    axes = [_as_dict(axis) for axis in axes] if isinstance(axes, list) else []
    letters = "".join(_letter(axis) for axis in axes)
    names = next((axis.get("channel_names") for axis in axes if _letter(axis) == "c"), None)
    before = {} if reference is None else _scales(reference)
    rates = {
        letter: before.get(letter, 1.0) / scale
        for letter, scale in _scales(tensor).items()
        if reference is not None
    }
    return _Tensor(
        axes=letters,
        channels=tuple(map(str, names)) if isinstance(names, list) else None,
        rates=rates,
        pixel_size_um=_pixel_size_um(axes),
        **own,
    )


def _first(names: Any) -> str | None:
    """Return the one name in a list."""
    return names[0] if isinstance(names, list) and names and isinstance(names[0], str) else None


def _step(step: dict[str, Any]) -> Step:
    """Read an operation; its options may be left out."""
    return Step(str(step.get("id") or step.get("name")), _as_dict(step.get("kwargs")))


def _letter(axis: dict[str, Any]) -> str:
    """Return the letter of an axis of format 0.5."""
    kind = str(axis.get("type"))
    return _LETTERS.get(kind) or str(axis.get("id") or "x")


def _scales(tensor: dict[str, Any]) -> dict[str, float]:
    """Return the pixel sizes of a tensor of format 0.5, by axis."""
    axes = tensor.get("axes")
    if not isinstance(axes, list):
        return {}
    spatial = [axis for axis in map(_as_dict, axes) if axis.get("type") == "space"]
    return {_letter(axis): _size(axis.get("scale"), 1.0) for axis in spatial}


def _fixed_rates(axes: str, shape: list[Any], reference: Any) -> dict[str, float]:
    """Compare the fixed sizes of an output with those of the input."""
    if not isinstance(reference, list) or not len(reference) == len(shape) == len(axes):
        return {}
    sizes = zip(axes, shape, reference, strict=True)
    return {a: _size(out, 1.0) / _size(into, 1.0) for a, out, into in sizes if a in "zyx"}


def _pixel_size_um(axes: list[dict[str, Any]]) -> float | None:
    """Return the size of a pixel along Y, if the description tells it with its unit."""
    for axis in axes:
        if _letter(axis) == "y" and axis.get("unit") in _MICROMETRES:
            return _size(axis.get("scale"), 1.0) * _MICROMETRES[axis["unit"]]
    return None


def _range(given: Any) -> tuple[float | None, float | None]:
    """Read the range of values; endless ones are None."""
    if not isinstance(given, list | tuple) or len(given) != 2:
        return (None, None)
    low, high = (_finite(bound) for bound in given)
    return low, high


def _card_of(description: dict[str, Any], source: _Tensor) -> dict[str, Any]:
    """Return what the description tells for the card."""
    training = description.get("training_data")
    if isinstance(training, dict):
        training = training.get("name") or training.get("id")
    card = {
        "name": _text(description.get("name")),
        "segments": _text(description.get("description")),
        "licence": _text(description.get("license")),
        "training_data": _text(training),
        "created": _text(description.get("timestamp"))[:10],
        "authors": tuple(_text(author.get("name")) for author in _dicts(description, "authors")),
        "cite": tuple(_citation(cite) for cite in _dicts(description, "cite")),
        "pixel_size_um": source.pixel_size_um,
    }
    return {field: value for field, value in card.items() if value}


def _citation(cite: dict[str, Any]) -> str:
    """Write a citation in one line."""
    doi = _text(cite.get("doi")).removeprefix("https://doi.org/")
    place = f"doi:{doi}" if doi else _text(cite.get("url"))
    return ", ".join(part for part in (_text(cite.get("text")), place) if part)


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
        source, sha256 = (_text(entries[kind].get(field)) for field in ("source", "sha256"))
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


def _finished(found: Found, description: dict[str, Any], tensors: tuple[_Tensor, _Tensor]) -> Found:
    """Join what the weights tell with what the description tells."""
    (source, target), shape = tensors, found.architecture
    if shape.spatial_dims != len(source.spatial):
        raise ModelError(
            f"The description has {len(source.spatial)} spatial axes, the weights are of a "
            f"network of {shape.spatial_dims}. The package is wrong; choose another one."
        )
    told = {"normalization", "outputs", "activation", "input_channels"}
    assumed = {field: text for field, text in found.assumed.items() if field not in told}
    known = {**found.card, **_card_of(description, source)}
    known["normalization"] = read_preprocessing(
        source.steps, shape.in_channels, source.spatial, assumed
    )
    after = read_postprocessing(target.steps, assumed)
    known["activation"] = activation = _activation(found, after, target, assumed)
    if source.channels and len(source.channels) == shape.in_channels:
        known["input_channels"] = source.channels
    known |= _outputs(target.channels, shape.classes, activation, assumed)
    if after.threshold is not None:
        threshold = after.threshold
        if "activation" in assumed:  # a threshold of the bare answer
            threshold = 1 / (1 + math.exp(-min(max(threshold, -50), 50)))
        known["instances"] = InstanceSettings(threshold=min(max(threshold, 0.01), 0.99))
    if any(rate != 1 for rate in target.rates.values()):
        rates = " x ".join(f"{rate:g}" for rate in target.rates.values())
        assumed["size"] = (
            f"The package's output has {rates} times the pixels of the image; here it is laid on "
            "the pixels of the image."
        )
    own = _as_dict(_as_dict(_as_dict(description.get("config")).get("napari_unet")).get("card"))
    read = replace(found, card=known, assumed=assumed)
    return with_card(read, own, kept=("normalization", "authors", "cite", "licence"))


def _activation(
    found: Found, after: Postprocessing, target: _Tensor, assumed: dict[str, str]
) -> str:
    """Tell what turns the network's answer into probabilities."""
    own = found.card.get("activation") if "activation" not in found.assumed else None
    if own not in {"sigmoid", "softmax"}:
        own = None
    if own and after.activation:
        raise ModelError(
            f"The network ends with {own} and the package adds {after.activation}, which cannot be "
            "done here. Choose another package."
        )
    activation = own or after.activation
    if activation:
        return str(activation)
    if target.range == (0.0, 1.0) or (after.threshold is not None and 0 < after.threshold < 1):
        return "none"
    guess = "sigmoid" if found.architecture.classes == 1 else "softmax"
    assumed["activation"] = (
        f"The package gives the network's answer as it is. Assumed: {guess} turns it into "
        "probabilities."
    )
    return guess


def _outputs(
    names: Sequence[str] | None, classes: int, activation: str, assumed: dict[str, str]
) -> dict[str, Any]:
    """Name the outputs by the words in the description, if they tell."""
    if classes == 1:
        return {"outputs": (FOREGROUND,)}
    if names is None or len(names) != classes:
        return {}
    meant = [_meaning(name) for name in names]
    if activation == "softmax":
        if FOREGROUND in meant and meant[0] is None:
            return {"outputs": _unique(["background", *(m or n for m, n in _pairs(meant, names))])}
        return {"outputs": _unique(names), "labels": "semantic"}
    if FOREGROUND not in meant:
        if classes == 2 and not any(meant):
            assumed["outputs"] = (
                f"The package calls its outputs {', '.join(names)}. Assumed: foreground and "
                "boundary."
            )
            return {"outputs": (FOREGROUND, BOUNDARY)}
        meant[0] = FOREGROUND
    return {"outputs": _unique([word or name for word, name in zip(meant, names, strict=True)])}


def _pairs(meant: Sequence[str | None], names: Sequence[str]) -> list[tuple[str | None, str]]:
    """Pair words and names of all outputs but the first."""
    return list(zip(meant[1:], names[1:], strict=True))


def _meaning(name: str) -> str | None:
    """Return the word of ours that a name of an output stands for."""
    return next((word for word, signs in _WORDS if re.search(signs, name.lower())), None)


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    """Add numbers to names that come twice."""
    seen: list[str] = []
    for name in names:
        count = sum(other == name or other.startswith(f"{name} ") for other in seen)
        seen.append(f"{name} {count + 1}" if count else name)
    return tuple(seen)


def _test_image(package: Package, folder: Path, tensor: _Tensor) -> NDArray[Any] | None:
    """Read a test tensor as (N, C, *spatial); None if there is none that could be read."""
    source = tensor.test
    if source is None or not source.endswith(".npy") or not package.holds(source):
        return None
    try:
        values = np.load(package.fetch(source, None, folder), mmap_mode="r", allow_pickle=False)
        values = np.array(values) if values.nbytes < 2**30 else None
    except (ValueError, OSError, EOFError, SyntaxError, MemoryError):
        return None
    if values is None or values.ndim != len(tensor.axes) or values.dtype.kind not in "biuf":
        return None
    if "c" not in tensor.axes:
        return np.expand_dims(values, 1)
    return np.moveaxis(values, tensor.axes.index("c"), 1)


def _difference(
    found: Found,
    image: NDArray[Any] | None,
    wanted: NDArray[Any] | None,
    steps: Sequence[Step],
) -> float | None:
    """Compute the package's test image: the largest difference, as a share of the largest value.

    None if there is no test image, or this reading does not take images of that size; of a mask,
    the share of pixels that differ.
    """
    if image is None or wanted is None or image[0, 0].size > _MOST_TESTED_PIXELS:
        return None
    try:
        model = _assembled(found)
    except UnetError:
        return math.inf  # the tensors do not fit this reading
    rule = model.card.normalization
    pixels = np.stack([normalize(plane, measure(plane, rule)) for plane in image])
    try:
        with torch.inference_mode():
            answer = model.net(torch.from_numpy(pixels))
            if "activation" not in found.assumed:
                answer = model.activate(answer)
    except (UnetError, RuntimeError):
        return None
    given = _laid_on(answer.numpy(), wanted.shape)
    if given is None:
        return None
    threshold = read_postprocessing(steps, {}).threshold
    if threshold is not None:
        return float(np.mean((given > threshold) != (wanted > 0.5)))
    largest = max(float(np.abs(wanted).max()), 1e-6)
    return float(np.abs(given - wanted.astype(np.float64)).max()) / largest


def _laid_on(given: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any] | None:
    """Bring an answer to the size of the test output: every second pixel, or the middle."""
    if given.ndim != len(shape) or given.shape[:2] != shape[:2]:
        return None
    if all(size % other == 0 for size, other in zip(given.shape, shape, strict=True)):
        steps = [size // other for size, other in zip(given.shape, shape, strict=True)]
        return given[tuple(slice(None, None, step) for step in steps)]
    for axis, (size, other) in enumerate(zip(given.shape, shape, strict=True)):
        if size < other:
            return None
        given = given.take(range((size - other) // 2, (size - other) // 2 + other), axis)
    return given


def _assembled(found: Found) -> Model:
    """Build the network of a reading, with copies of its weights."""
    shape = found.architecture
    normalization = found.card.get("normalization", Normalization())
    card = checked(
        Card,
        {
            "name": "test",
            "architecture": shape,
            "normalization": normalization,
            "activation": found.card.get("activation", "sigmoid"),
            "input_channels": tuple(f"channel {n}" for n in range(shape.in_channels)),
            "outputs": tuple(f"output {n}" for n in range(shape.classes)),
        },
    )
    tensors = {key: tensor.detach().clone() for key, tensor in found.tensors.items()}
    return assemble("the package", card, tensors)


def _confirmed(found: Found) -> Found:
    """Take out what needs no assuming any more: the network gives what it should."""
    fields = {*Card.model_fields, "post-processing", "weights", "size"}
    assumed = {field: text for field, text in found.assumed.items() if field in fields}
    return replace(found, assumed=assumed, title="")


def _doubtful(found: Found, difference: float) -> Found:
    """Tell in the card that the network does not quite give what it should."""
    text = (
        f"The answer to the package's own test image differs by up to {difference:.2g} of the "
        "largest value from what it should be."
    )
    return replace(found, assumed={**found.assumed, "test image": text})


def _dicts(holder: dict[str, Any], field: str) -> list[dict[str, Any]]:
    """Return the entries of a list that are mappings."""
    entries = holder.get(field)
    return (
        [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    )


def _as_dict(value: Any) -> dict[str, Any]:
    """Return a mapping, or an empty one in place of anything else."""
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    """Return a text of one line; empty in place of what is none."""
    return " ".join(str(value).split()) if isinstance(value, str | int | float) else ""


def _size(value: Any, default: float) -> float:
    """Return a number above 0, or the default."""
    number = _finite(value)
    return number if number is not None and number > 0 else default


def _finite(value: Any) -> float | None:
    """Return a finite number, or None."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _count(items: Sequence[object], name: str) -> str:
    """Count things in words."""
    return f"{len(items)} {name}{'s' * (len(items) != 1)}"
