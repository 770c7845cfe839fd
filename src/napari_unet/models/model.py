"""A model is a network and its card; one safetensors file holds both.

The file holds the tensors of the network's state dict and, in the metadata of its header, the
card as JSON and a checksum over card and tensors. Loading compares everything before it builds
anything: a file that differs from its network in one key, one shape or one bit is refused, so a
model is never loaded in part and never runs with random weights in silence.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from napari_unet.errors import ModelError, UnetError, described
from napari_unet.files.atomic import written_beside
from napari_unet.models.card import Card
from napari_unet.models.formats import CARD_KEY
from napari_unet.models.library import find_model, free_name, user_folder
from napari_unet.models.own_file import (
    CHECKSUM_KEY,
    FORMAT,
    FORMAT_KEY,
    SUFFIX,
    damaged,
    read_header,
    weights_path,
)
from napari_unet.network.build import Network, build_network
from napari_unet.network.graph_net import GraphNet

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_NAMED_KEYS = 3
_VARIANCE = "running_var"
_FEWEST_AXES = 4  # of the weights of a convolution in planes


class Model:
    """A network and its card.

    Parameters
    ----------
    net : UNet or GraphNet
        Takes float32 (N, C, *spatial) and gives logits (N, classes, *spatial).
    card : Card
        What the network eats and gives.

    Raises
    ------
    ModelError
        If these are no network and card, or the card describes another architecture than the
        network has.
    """

    def __init__(self, net: Network, card: Card) -> None:
        if not hasattr(net, "architecture") or not isinstance(card, Card):
            raise ModelError(
                f"A UNet and its Card were expected, {described(net)} and {described(card)} were "
                "given. Give Model(net, card); for a saved one use load_model."
            )
        if net.architecture != card.architecture:
            raise ModelError(
                f"The card {card.name!r} describes another architecture than the network has. "
                "Make the card with architecture=net.architecture."
            )
        self.net = net
        self.card = card

    def activate(self, logits: torch.Tensor) -> torch.Tensor:
        """Turn logits (N, classes, *spatial) into probabilities 0..1, as the card says."""
        if self.card.activation == "softmax":
            return torch.softmax(logits, dim=1)
        if self.card.activation == "none":
            return logits.clamp(0, 1)
        return torch.sigmoid(logits)


def check_model(model: object) -> None:
    """Refuse what is no model, e.g. the name of one.

    Parameters
    ----------
    model : object
        What somebody gave as a model.

    Raises
    ------
    ModelError
        If it is none.
    """
    if not isinstance(model, Model):
        raise ModelError(
            f"A model was expected, {described(model)} was given. Load one: load_model('nuclei')."
        )


def load_model(name_or_path: str | Path) -> Model:
    """Load a model; no code from the file is run.

    Parameters
    ----------
    name_or_path : str or Path
        A name of :func:`napari_unet.models.library.list_models`, e.g. ``"nuclei"``, or a
        safetensors file with a card.

    Returns
    -------
    Model
        On the CPU, float32, ready for inference (``net.eval()``). Half-precision weights are
        widened.

    Raises
    ------
    ModelError
        If the file is missing, damaged, of another format, newer than this version, or its
        tensors are not exactly those of the network its card describes.
    """
    path = find_model(name_or_path)
    header = read_header(path)
    expected = _build_empty(path.name, header.card).state_dict()
    tensors = _read_tensors(path, expected)
    if header.checksum not in (None, _checksum(header.card_json, tensors)):
        raise ModelError(damaged(path, "its checksum differs"))
    return assemble(path.name, header.card, tensors)


def assemble(name: str, card: Card, tensors: Mapping[str, torch.Tensor]) -> Model:
    """Put a network and its weights together, all of them or none.

    Parameters
    ----------
    name : str
        Of the file, for the sentences.
    card : Card
        Describes the network.
    tensors : mapping of str to Tensor
        Its state dict; the model keeps the tensors themselves where their type is right.

    Returns
    -------
    Model
        On the CPU, float32, ready for inference.

    Raises
    ------
    ModelError
        If the tensors are not exactly those of the network, not finite, or such that no answer
        can come of them.
    """
    net = _build_empty(name, card)
    expected = net.state_dict()
    _refuse_other_keys(name, tensors, expected)
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    _refuse_other_shapes(name, shapes, expected)
    _refuse_other_kinds(name, tensors, expected)
    widened = {key: tensors[key].to(expected[key].dtype) for key in expected}
    check_weights(name, widened)
    net.load_state_dict(widened, assign=True)
    return Model(net.requires_grad_(True).eval(), card)


def check_weights(name: str, tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse weights of which no answer can come, whether they are read or written.

    Parameters
    ----------
    name : str
        Of the file.
    tensors : mapping of str to Tensor
        A state dict.

    Raises
    ------
    ModelError
        If a weight is infinite or not a number, a variance is negative, or no convolution has a
        weight other than 0.
    """
    for key, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(
                f"Tensor {key} of {name} holds values that are not finite numbers, so the "
                "network cannot give an answer. Use an earlier version of the model."
            )
        if key.endswith(_VARIANCE) and bool((tensor < 0).any()):
            raise ModelError(
                f"Tensor {key} of {name} holds variances below 0, which none can be, so the "
                "network cannot give an answer. Use an undamaged copy of the file."
            )
    kernels = [tensor for tensor in tensors.values() if tensor.ndim >= _FEWEST_AXES]
    if kernels and not any(bool(kernel.any()) for kernel in kernels):
        raise ModelError(
            f"All weights of the convolutions in {name} are 0: the network was never trained, or "
            "the file is damaged. Use another copy of it."
        )


def save_model(model: Model, path: str | Path, *, half: bool = False) -> Path:
    """Save a model as one safetensors file, written beside and renamed.

    Parameters
    ----------
    model : Model
        Network and card; its weights may be on any device.
    path : str or Path
        Ends in ``.safetensors``; the ending is added if there is none.
    half : bool
        Store the weights as float16: half the size, rounded to three digits.

    Returns
    -------
    Path
        The file; one that was there is replaced.

    Raises
    ------
    FileError
        If the ending is another one or the file cannot be written.
    ModelError
        If it is no model, a weight is not a finite number, or no answer can come of the weights.
    """
    check_model(model)
    target = weights_path(path)
    tensors = {key: _storable(tensor, half=half) for key, tensor in model.net.state_dict().items()}
    check_weights(target.name, tensors)
    card_json = model.card.model_dump_json()
    metadata = {
        FORMAT_KEY: str(FORMAT),
        CARD_KEY: card_json,
        CHECKSUM_KEY: _checksum(card_json, tensors),
    }
    content = save(tensors, metadata)
    with written_beside(target) as beside:
        beside.write_bytes(content)
    return target


def save_in_library(model: Model, name: str | None = None) -> Path:
    """Save a model in the person's folder under a name that is still free.

    Parameters
    ----------
    model : Model
        Network and card.
    name : str, optional
        Wanted name; the card's, if not given. ``nuclei`` becomes ``nuclei 2`` if it is taken.

    Returns
    -------
    Path
        The new file; its stem is the name in the list of models and in the card.

    Raises
    ------
    FileError
        If the folder cannot be written to.
    """
    chosen = free_name(name or model.card.name)
    renamed = Model(model.net, model.card.replace(name=chosen))
    return save_model(renamed, user_folder() / f"{chosen}{SUFFIX}")


def _build_empty(name: str, card: Card) -> Network:
    """Build the network of a card without memory for its weights."""
    try:
        with torch.device("meta"):
            net = build_network(card.architecture)
        if isinstance(net, GraphNet):
            net.check_runs()
        return net
    except UnetError as error:
        raise ModelError(
            f"The network that the card of {name} describes cannot be built: {error}"
        ) from error


def _read_tensors(path: Path, expected: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Read the tensors of a file once their keys and shapes are known to fit."""
    try:
        with safe_open(path, framework="pt") as file:
            found = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}
            _refuse_other_keys(path.name, found, expected)
            _refuse_other_shapes(path.name, found, expected)
            return {key: file.get_tensor(key).clone() for key in found}
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(damaged(path, error)) from error


def _refuse_other_keys(name: str, found: Iterable[str], expected: Iterable[str]) -> None:
    """Raise unless a file holds exactly the tensors of the network."""
    missing, unexpected = set(expected) - set(found), set(found) - set(expected)
    if missing or unexpected:
        parts = [
            f"{len(keys)} {word} ({_some(keys)})"
            for keys, word in ((missing, "missing"), (unexpected, "not known"))
            if keys
        ]
        raise ModelError(
            f"The tensors in {name} are not those of the network on its card: "
            f"{', '.join(parts)}. The weights belong to another network."
        )


def _refuse_other_shapes(
    name: str, found: Mapping[str, tuple[int, ...]], expected: Mapping[str, torch.Tensor]
) -> None:
    """Raise if a tensor has another shape than in the network."""
    for key, tensor in expected.items():
        if found[key] != tuple(tensor.shape):
            raise ModelError(
                f"Tensor {key} in {name} has the shape {found[key]}, the network has "
                f"{tuple(tensor.shape)}. The weights belong to another network."
            )


def _refuse_other_kinds(
    name: str, tensors: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> None:
    """Raise if a tensor holds whole numbers where the network has real ones, or the reverse."""
    for key, tensor in expected.items():
        found = tensors[key].dtype
        if found.is_floating_point != tensor.is_floating_point():
            why = (
                "Quantised weights cannot be read; export float weights."
                if found in (torch.int8, torch.uint8)
                else "The weights belong to another network."
            )
            raise ModelError(
                f"Tensor {key} in {name} is of type {found}, the network has {tensor.dtype}. {why}"
            )


def _some(keys: Iterable[str]) -> str:
    """Name the first few of some keys."""
    names = sorted(keys)
    more = ", ..." if len(names) > _NAMED_KEYS else ""
    return ", ".join(names[:_NAMED_KEYS]) + more


def _storable(tensor: torch.Tensor, *, half: bool) -> torch.Tensor:
    """Copy a tensor to the CPU in the order of its axes, on its own memory."""
    tensor = tensor.detach().cpu()
    if half and tensor.is_floating_point():
        tensor = tensor.half()
    return tensor.clone(memory_format=torch.contiguous_format)


def _checksum(card_json: str, tensors: Mapping[str, torch.Tensor]) -> str:
    """Digest card and tensors, in the order of the keys."""
    digest = hashlib.sha256(card_json.encode())
    for key in sorted(tensors):
        tensor = tensors[key]
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
