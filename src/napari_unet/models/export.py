"""Write a model for other programs: PyTorch, TorchScript, ONNX, bioimage.io.

TorchScript and ONNX files end with probabilities: the activation of the card belongs to them, so
that nobody has to know it. A state dict is in a checkpoint: plain tensors by name, and the card as
a text beside them. Each takes any batch and every size the network takes, not only the one it was
written at; that is tried before the file is kept. How grey values are scaled stands in the card,
which travels in the file, so that each opens here as it was.
"""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import nn
from torch.nn import functional

from napari_unet.errors import FileError, ModelError
from napari_unet.files.atomic import written_beside
from napari_unet.files.paths import as_path
from napari_unet.models.formats import CARD_KEY
from napari_unet.models.model import Model, check_model, check_weights, save_model
from napari_unet.models.original_names import under_original_names
from napari_unet.models.own_file import SUFFIX
from napari_unet.network.graph import FitTo
from napari_unet.network.graph_net import GraphNet
from napari_unet.network.graph_rules import sides_to_fit, sizes_along
from napari_unet.network.unet_graph import as_graph

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_unet.network.graph import Sides

ModelFormat = Literal["safetensors", "state-dict", "torchscript", "onnx", "bioimageio"]
"""Ours; tensors by name; the network with its code; ONNX; a package for bioimage.io."""

SUFFIXES: dict[str, ModelFormat] = {
    SUFFIX: "safetensors",
    ".pth": "state-dict",
    ".pt": "torchscript",
    ".torchscript": "torchscript",
    ".onnx": "onnx",
    ".zip": "bioimageio",
}
"""The format that the name of a file means, unless one is given."""

CARD_FILE = f"{CARD_KEY}.json"
"""Where a TorchScript file keeps the card: one of its extra files."""

_SAME = 1e-4
_LEAST_PX = 32


def export_model(
    model: Model,
    path: str | Path,
    format: str | None = None,
    *,
    authors: Sequence[str] = (),
    licence: str | None = None,
    cite: Sequence[str] = (),
    description: str | None = None,
) -> Path:
    """Write a model for another program, beside its place first and then renamed.

    Parameters
    ----------
    model : Model
        Network and card; its weights may be on any device.
    path : str or Path
        The file; one that is there is replaced.
    format : {"safetensors", "state-dict", "torchscript", "onnx", "bioimageio"}, optional
        If not given, what the name ends in says it: ``.safetensors``, ``.pth``, ``.pt``,
        ``.onnx``, ``.zip``.
    authors : sequence of str
        For a bioimage.io package: who made the model. The card's, if not given.
    licence : str, optional
        For a bioimage.io package: the SPDX name, e.g. ``CC-BY-4.0``. The card's, if not given.
    cite : sequence of str
        For a bioimage.io package: what to cite, each a text with a DOI or an address in it. The
        card's, if not given.
    description : str, optional
        For a bioimage.io package: what the model does, in a sentence. The card's, if not given.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    FileError
        If the ending means no format, or the file cannot be written.
    ModelError
        If it is no model, no answer can come of its weights, the format cannot hold its network,
        or a package lacks what bioimage.io asks for.
    """
    check_model(model)
    target = as_path(path, "the file of a model")
    chosen = format or model_format(target)
    if chosen not in get_args(ModelFormat):
        known = ", ".join(get_args(ModelFormat))
        raise FileError(f"There is no format {chosen!r} of models. Choose one of {known}.")
    if chosen == "safetensors":
        return save_model(model, target)
    check_weights(target.name, model.net.state_dict())
    if chosen == "bioimageio":
        from napari_unet.models.bioimageio.writer import write_package

        content = write_package(model, authors, licence, cite, description)
    else:
        content = {"state-dict": state_dict, "torchscript": torchscript, "onnx": onnx}[chosen](
            model
        )
    with written_beside(target) as beside:
        beside.write_bytes(content)
    return target


def model_format(path: Path) -> ModelFormat:
    """Return the format that the name of a file means.

    Parameters
    ----------
    path : Path
        Where a model is to be written.

    Returns
    -------
    str
        One of :data:`ModelFormat`.

    Raises
    ------
    FileError
        If the ending means none.
    """
    found = SUFFIXES.get(path.suffix.lower())
    if found is None:
        known = ", ".join(SUFFIXES)
        ending = f"ends in {path.suffix}" if path.suffix else "has no ending"
        raise FileError(
            f"{path.name} {ending}, which means no format of models. Choose one of {known}, or "
            "name the format."
        )
    return found


def state_dict(model: Model) -> bytes:
    """Write the tensors of a network by name, as ``torch.load(..., weights_only=True)`` reads.

    Parameters
    ----------
    model : Model
        Its tensors stand under ``state_dict``, its card as JSON beside them. Weights that came
        from elsewhere have the names that they had there.

    Returns
    -------
    bytes
        The file.
    """
    named = under_original_names(model.net.state_dict(), model.card.original_names)
    tensors = {key: value.detach().cpu().clone() for key, value in named.items()}
    buffer = io.BytesIO()
    torch.save({"state_dict": tensors, CARD_KEY: model.card.model_dump_json()}, buffer)
    return buffer.getvalue()


def torchscript(model: Model) -> bytes:
    """Write a network with its code, as ``torch.jit.load`` reads; the card is an extra file.

    Parameters
    ----------
    model : Model
        Any.

    Returns
    -------
    bytes
        The file: takes (N, C, *spatial), gives probabilities (N, classes, *spatial).

    Raises
    ------
    ModelError
        If what is written is not the network at another size.
    """
    net = _WithActivation(model)
    example, other = (image_for(model, steps) for steps in (0, 2))
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        # Tracing is on its way out, and warns of each size that our checks compare; the result
        # is tried at another size below.
        warnings.simplefilter("ignore")
        traced: Any = torch.jit.trace(net, example, check_trace=False)  # type: ignore[no-untyped-call]  # torch: no types
        try:
            difference = float((traced(other) - probabilities(model, other)).abs().max())
        except RuntimeError:
            difference = float("inf")
        buffer = io.BytesIO()
        extra = {CARD_FILE: model.card.model_dump_json()}
        torch.jit.save(traced, buffer, _extra_files=extra)
    if not difference <= _SAME:
        raise ModelError(
            "The network cannot be written as TorchScript: at another size the result would be "
            "another one. Save it as ONNX or a state dict."
        )
    return buffer.getvalue()


def onnx(model: Model) -> bytes:
    """Write a network as ONNX; the card stands in the metadata.

    Parameters
    ----------
    model : Model
        Any.

    Returns
    -------
    bytes
        The file: takes (N, C, *spatial), gives probabilities (N, classes, *spatial).

    Raises
    ------
    ModelError
        If a layer has no counterpart in ONNX.
    """
    from napari_unet.models.onnx.writer import write_onnx

    graph, tensors = as_graph(model.net)
    card = model.card
    metadata = {
        "description": f"{card.name}: {card.segments}. {size_rule(model)}",
        CARD_KEY: card.model_dump_json(),
    }
    size = model.net.valid_input(_LEAST_PX)
    return write_onnx(graph, tensors, card.activation, size, metadata)


def probabilities(model: Model, pixels: torch.Tensor) -> torch.Tensor:
    """Compute what the written networks compute.

    Parameters
    ----------
    model : Model
        Any.
    pixels : Tensor of float32, shape (N, C, *spatial)
        Scaled grey values.

    Returns
    -------
    Tensor, shape (N, classes, *spatial)
        On the device of the network.
    """
    logits = model.net(pixels.to(next(model.net.parameters()).device))
    return _activated(logits, model.card.activation)


def size_rule(model: Model) -> str:
    """Say which sizes a network takes.

    Parameters
    ----------
    model : Model
        Any.

    Returns
    -------
    str
        A sentence.
    """
    grids = model.net.grids
    rules = [f"{grid.smallest} px or a multiple of {grid.stride} px more" for grid in grids]
    if len(set(rules)) == 1:
        return f"Sizes: {rules[0]}, along each axis."
    named = zip(rules, "zyx"[-len(rules) :], strict=True)
    return f"Sizes: {'; '.join(f'{rule} along {axis}' for rule, axis in named)}."


def image_for(model: Model, steps: int = 0) -> torch.Tensor:
    """Make an image of random values that a network takes.

    Parameters
    ----------
    model : Model
        Any.
    steps : int
        How many steps of the network's grid it is larger along the last axis than it need be;
        half of them along the others.

    Returns
    -------
    Tensor of float32, shape (1, C, *spatial)
        On the device of the network, always the same.
    """
    net, last = model.net, model.card.architecture.spatial_dims - 1
    sizes = [
        net.valid_input(_LEAST_PX, axis) + grid.stride * (steps if axis == last else steps // 2)
        for axis, grid in enumerate(net.grids)
    ]
    random = torch.Generator().manual_seed(0)
    image = torch.rand((1, model.card.architecture.in_channels, *sizes), generator=random)
    return image.to(next(net.parameters()).device)


class _WithActivation(nn.Module):
    """A network that gives probabilities."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.network: nn.Module = _traceable(model)
        self._activation = model.card.activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Give probabilities (N, classes, *spatial)."""
        return _activated(self.network(x), self._activation)


class _Fitted(nn.Module):
    """Cuts off, or adds, so many pixels: written as one operation of fixed numbers."""

    def __init__(self, sides: Sides, mode: str) -> None:
        super().__init__()
        self._sides = [side for pair in reversed(sides) for side in pair]
        self._mode = {"zeros": "constant"}.get(mode, mode)

    def forward(self, x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        """Change the sizes of features (N, C, *spatial)."""
        return functional.pad(x, self._sides, mode=self._mode) if any(self._sides) else x


def _traceable(model: Model) -> nn.Module:
    """Return a network in which sizes are nowhere compared with each other.

    How many pixels are cut or added to make features fit is the same for all sizes.
    """
    net = model.net
    if getattr(net.architecture, "pyramid_pooling", False):
        return net
    graph, tensors = as_graph(net)
    size = net.valid_input(_LEAST_PX)
    axes = [sizes_along(graph, axis, size) for axis in range(graph.spatial_dims)]
    traceable = GraphNet(graph)
    traceable.load_state_dict(tensors)
    for node in graph.nodes:
        if isinstance(node, FitTo):
            own, wanted = node.inputs
            sides = tuple(sides_to_fit(node, sizes[own], sizes[wanted]) for sizes in axes)
            traceable._modules[node.name] = _Fitted(sides, node.mode)
    return traceable.to(next(net.parameters()).device).eval()


def _activated(logits: torch.Tensor, activation: str) -> torch.Tensor:
    """End a network as the files do; what gives values by itself is left as it is."""
    if activation == "softmax":
        return torch.softmax(logits, dim=1)
    return torch.sigmoid(logits) if activation == "sigmoid" else logits
