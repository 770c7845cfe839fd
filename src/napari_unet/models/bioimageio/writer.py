"""Writes a model as a package for bioimage.io, format 0.5.

The package holds the network as TorchScript and ONNX, a test image with the answer to it, a
README, a cover and the description. Its network ends with probabilities and takes any size on
its grid; the scaling of grey values is said in the steps of bioimage.io. There is no state dict
in it: that would need Python source, which nobody should have to run.
"""

from __future__ import annotations

import datetime
import hashlib
import io
import re
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import ndimage

from napari_unet.arrays.normalize import measure, normalize
from napari_unet.errors import ModelError
from napari_unet.models import export
from napari_unet.models.bioimageio.written_steps import write_preprocessing
from napari_unet.models.onnx.writer import OPSET

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unet.models.card import Card
    from napari_unet.models.model import Model

FORMAT = "0.5.4"
INPUT, OUTPUT = "image", "probability"
CARD_ENTRY = "napari_unet"
"""Where the description keeps our card: an entry of its ``config``."""

_UNKNOWN = "unknown"
_LONGEST_NAME, _SHORTEST_NAME, _LONGEST_DESCRIPTION = 64, 5, 1024
_TEST_PX = {2: 128, 3: 32}
_BRIGHTEST = 255.0
_PAPER = {
    "text": "Ronneberger, Fischer, Brox (2015): U-Net",
    "doi": "10.1007/978-3-319-24574-4_28",
}
_DOI = re.compile(r"10\.\d{4,}/[^\s,;]+")
_ADDRESS = re.compile(r"https?://[^\s,;]+")
_COVER_PX = 256


def write_package(
    model: Model,
    authors: Sequence[str] = (),
    licence: str | None = None,
    cite: Sequence[str] = (),
    description: str | None = None,
) -> bytes:
    """Write a model as a package for bioimage.io.

    Parameters
    ----------
    model : Model
        Network and card.
    authors : sequence of str
        Instead of the card's.
    licence : str, optional
        Instead of the card's.
    cite : sequence of str
        Instead of the card's.
    description : str, optional
        Instead of the card's.

    Returns
    -------
    bytes
        A zip.

    Raises
    ------
    ModelError
        If nobody says who made the model, what it does or under which licence it may be used.
    """
    card = model.card.replace(
        authors=tuple(authors) or model.card.authors,
        licence=licence or model.card.licence,
        cite=tuple(cite) or model.card.cite,
        segments=description or model.card.segments,
    )
    _check(card)
    image, probability = _test_tensors(model)
    files = {
        "test_input.npy": _npy(image),
        "test_output.npy": _npy(probability),
        "sample_input.tif": _tiff(image),
        "sample_output.tif": _tiff(probability),
        "cover.png": _cover(image, probability),
        "README.md": _readme(model, card).encode(),
        "weights.pt": export.torchscript(model),
    }
    try:
        files["weights.onnx"] = export.onnx(model)
    except ModelError:
        pass  # TorchScript alone will do
    description_text = _yaml(_describe(model, card, files))
    return _zipped({"bioimageio.yaml": description_text.encode(), **files})


def _check(card: Card) -> None:
    """Refuse what bioimage.io would refuse, and say what is missing."""
    missing = {
        "who made the model": not card.authors and "authors=['Your Name'] (--author)",
        "under which licence it may be used": card.licence == _UNKNOWN
        and "licence='CC-BY-4.0' (--licence)",
        "what it does": card.segments == _UNKNOWN and "description='Nuclei in ...' (--description)",
    }
    lacking = {what: remedy for what, remedy in missing.items() if remedy}
    if lacking:
        raise ModelError(
            f"A bioimage.io package says {' and '.join(lacking)}; the card of {card.name!r} does "
            f"not know. Give {' and '.join(map(str, lacking.values()))}."
        )


def _test_tensors(model: Model) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Make an image, always the same, and compute the answer to it; both (1, C, *spatial)."""
    net, shape = model.net, model.card.architecture
    sizes = [
        net.valid_input(max(_least_size(model, axis), _TEST_PX[shape.spatial_dims]), axis)
        for axis in range(shape.spatial_dims)
    ]
    random = np.random.default_rng(0)
    noise = random.standard_normal((shape.in_channels, *sizes))
    smooth = ndimage.gaussian_filter(noise, (0, *(3,) * shape.spatial_dims))
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    image = (np.round(smooth * _BRIGHTEST)).astype(np.float32)
    pixels = torch.from_numpy(normalize(image, measure(image, model.card.normalization)))[None]
    with torch.inference_mode():
        probability = export.probabilities(model, pixels)
    return image[None], probability.cpu().numpy()


def _least_size(model: Model, axis: int) -> int:
    """Return the smallest size along an axis of which something is left without the halo."""
    net, grid = model.net, model.net.grids[axis]
    return int(net.valid_input(2 * max(grid.halo, net.margin) + grid.stride, axis))


def _describe(model: Model, card: Card, files: dict[str, bytes]) -> dict[str, Any]:
    """Write the description."""
    shape = card.architecture
    weights: dict[str, dict[str, Any]] = {
        "torchscript": {"source": "weights.pt", "pytorch_version": _torch_version()},
        "onnx": {"source": "weights.onnx", "opset_version": OPSET, "parent": "torchscript"},
    }
    spatial = "zyx"[-shape.spatial_dims :]
    return {
        "format_version": FORMAT,
        "type": "model",
        "name": _name(card.name),
        "description": card.segments[:_LONGEST_DESCRIPTION],
        "authors": [{"name": author.replace("/", " ")} for author in card.authors],
        "cite": [_citation(text) for text in card.cite] or [_PAPER],
        "license": card.licence,
        "documentation": "README.md",
        "covers": ["cover.png"],
        "tags": [
            *("segmentation", "unet", "napari", f"{shape.spatial_dims}d", "pytorch"),
            *("instance-segmentation" if card.labels == "instance" else "semantic-segmentation",),
        ],
        "timestamp": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "inputs": [
            {
                "id": INPUT,
                "description": "grey values as they were taken",
                "axes": [
                    {"type": "batch"},
                    {"type": "channel", "channel_names": _identifiers(card.input_channels)},
                    *(
                        _axis(name, card, _free_size(model, axis))
                        for axis, name in enumerate(spatial)
                    ),
                ],
                "data": {"type": "float32", "range": [None, None]},
                "test_tensor": _file("test_input.npy", files),
                "sample_tensor": _file("sample_input.tif", files),
                "preprocessing": write_preprocessing(
                    card.normalization, spatial, shape.in_channels
                ),
            }
        ],
        "outputs": [
            {
                "id": OUTPUT,
                "description": f"probabilities of {', '.join(card.outputs)}",
                "axes": [
                    {"type": "batch"},
                    {"type": "channel", "channel_names": _identifiers(card.outputs)},
                    *(
                        _axis(name, card, **_output_size(model, axis, name))
                        for axis, name in enumerate(spatial)
                    ),
                ],
                "data": {"type": "float32", "range": [0.0, 1.0]},
                "test_tensor": _file("test_output.npy", files),
                "sample_tensor": _file("sample_output.tif", files),
                "postprocessing": [{"id": "ensure_dtype", "kwargs": {"dtype": "float32"}}],
            }
        ],
        "weights": {
            kind: {**entry, **_file(entry["source"], files)}
            for kind, entry in weights.items()
            if entry["source"] in files
        },
        "config": {CARD_ENTRY: {"card": _own_card(card)}},
    }


def _own_card(card: Card) -> dict[str, Any]:
    """Return what our card knows beyond the description."""
    return card.model_dump(mode="json", exclude={"architecture", "activation"})


def _free_size(model: Model, axis: int) -> dict[str, int]:
    """Say which sizes the network takes along an axis."""
    return {"min": _least_size(model, axis), "step": model.net.grids[axis].stride}


def _output_size(model: Model, axis: int, name: str) -> dict[str, Any]:
    """Say how large the output is, and how far from its edges it is not right yet."""
    margin, halo = model.net.margin, model.net.grids[axis].halo
    size = {"tensor_id": INPUT, "axis_id": name}
    if margin:
        return {"size": {**size, "offset": -2 * margin}}
    return {"size": size, "halo": halo} if halo else {"size": size}


def _axis(axis: str, card: Card, size: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Describe a spatial axis."""
    described = {"type": "space", "id": axis, "size": size, **more}
    if card.pixel_size_um is not None and axis != "z":
        described |= {"unit": "micrometer", "scale": card.pixel_size_um}
    return described


def _identifiers(names: Sequence[str]) -> list[str]:
    """Turn names into what bioimage.io takes for identifiers, each another one."""
    plain = [re.sub(r"\W+", "_", name).strip("_").lower() or "channel" for name in names]
    return [f"{n}_{i + 1}" if plain.count(n) > 1 else n for i, n in enumerate(plain)]


def _file(name: str, files: dict[str, bytes]) -> dict[str, str]:
    """Name a file with its checksum."""
    return {"source": name, "sha256": hashlib.sha256(files[name]).hexdigest()}


def _citation(text: str) -> dict[str, str]:
    """Write a citation; the DOI or address is taken from its text."""
    doi, address = _DOI.search(text), _ADDRESS.search(text)
    if doi:
        rest = text.replace(doi[0], "").replace("https://doi.org/", "").replace("doi:", "")
        return {"text": rest.strip(" ,;") or doi[0], "doi": doi[0].rstrip(".")}
    if address:
        return {"text": text.replace(address[0], "").strip(" ,;") or text, "url": address[0]}
    return {"text": text, "doi": str(_PAPER["doi"])}


def _name(name: str) -> str:
    """Turn a name into one that bioimage.io takes."""
    plain = " ".join(re.sub(r"[^A-Za-z0-9_+\- ()]", " ", name).split())[:_LONGEST_NAME].strip()
    return plain if len(plain) >= _SHORTEST_NAME else f"{plain} U-Net".strip()


def _torch_version() -> str:
    """Return the version of torch without what was built into it."""
    return str(torch.__version__).split("+")[0]


def _readme(model: Model, card: Card) -> str:
    """Write the documentation."""
    lines = [
        f"# {card.name}",
        "",
        f"{card.segments}",
        "",
        f"- Input: {', '.join(card.input_channels)}; grey values as they were taken.",
        f"- Output: probabilities of {', '.join(card.outputs)}, 0 to 1.",
        f"- {export.size_rule(model)}",
        f"- Typical diameter of the objects: {_with_unit(card.object_size_px, 'px')}.",
        f"- Pixel size: {_with_unit(card.pixel_size_um, 'micrometres')}.",
        f"- Trained on: {card.training_data}.",
        f"- Objects are found above a probability of {card.instances.threshold:g}.",
        "",
        "Both files of weights hold the same network and end with probabilities. To use it in "
        "napari: `napari-unet open --model <this package>`.",
        "",
        "# Validation",
        "",
    ]
    scores = [f"- {name}: {value:g}" for name, value in card.scores.items()]
    advice = (
        "Segment images that were not used for training, correct the labels by hand and compare: "
        "`napari-unet evaluate PREDICTED TRUTH` gives precision, IoU and Dice."
    )
    return "\n".join([*lines, *(scores or ["No scores are known."]), "", advice, ""])


def _with_unit(value: float | None, unit: str) -> str:
    """Say a size."""
    return _UNKNOWN if value is None else f"{value:g} {unit}"


def _cover(image: NDArray[np.float32], probability: NDArray[np.float32]) -> bytes:
    """Draw the test image beside its answer, two squares."""
    from PIL import Image

    halves = []
    for values in (image[0, 0], probability[0, -1]):
        plane = values if values.ndim == 2 else values[len(values) // 2]
        grey = Image.fromarray(np.uint8(255 * (plane - plane.min()) / (np.ptp(plane) or 1)))
        halves.append(np.asarray(grey.resize((_COVER_PX, _COVER_PX))))
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(halves, axis=1)).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


def _npy(values: NDArray[Any]) -> bytes:
    """Write an array as NumPy does."""
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def _tiff(values: NDArray[Any]) -> bytes:
    """Write an array as TIFF, for people to look at."""
    import tifffile

    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, photometric="minisblack")
    return buffer.getvalue()


def _yaml(description: dict[str, Any]) -> str:
    """Write the description as YAML."""
    import yaml

    text: str = yaml.safe_dump(description, sort_keys=False, allow_unicode=True, width=100)
    return text


def _zipped(files: dict[str, bytes]) -> bytes:
    """Pack files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()
