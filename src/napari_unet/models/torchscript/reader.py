"""Reads the network in a TorchScript file, traced or scripted, without letting torch open it.

A TorchScript file is a zip of weights, of a pickle that says which module holds which weight,
and of code in a small part of Python. ``torch.jit.load`` would compile that code and run parts of
it (``__setstate__``). Here the pickle is read as data (:mod:`napari_unet.models.pickles`), and
the code is followed as text (:mod:`napari_unet.models.torchscript.interpreter`): each call of a
known operation becomes a layer, each other call is refused by its name.
"""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_unet.errors import ModelError
from napari_unet.models.assumptions import OUR_CARD
from napari_unet.models.building.builder import GraphBuilder, all_found
from napari_unet.models.building.features import Feature, probe_sizes
from napari_unet.models.card import Card
from napari_unet.models.damage import DAMAGED, what_failed
from napari_unet.models.found import Found
from napari_unet.models.own_card import each_with_card
from napari_unet.models.own_file import parse_card
from napari_unet.models.pickles import Made
from napari_unet.models.torchscript.archive import CARD, MOST_CARD, Archive, traced_shape
from napari_unet.models.torchscript.code import Script, parse_code
from napari_unet.models.torchscript.interpreter import Interpreter
from napari_unet.models.torchscript.operations import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MOST_TRIALS = 8
_OF_ONE_PROCESSOR = "ops.prim.ConstantMKLDNNTensor"
_TRIAL_PX = 1024
_DEEPEST = 20  # modules in modules
_CONVOLUTIONS = (
    "torch.conv2d",
    "torch.conv3d",
    "torch._convolution",
    "torch.convolution",
    "torch._convolution_mode",
)


def read_torchscript(path: Path) -> list[Found]:
    """Read the network in a TorchScript file.

    Parameters
    ----------
    path : Path
        A file of ``torch.jit.save``.

    Returns
    -------
    list of Found
        One for each result that is an image.

    Raises
    ------
    ModelError
        If the file is damaged, has several inputs, or an operation that is not known.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            parts = Archive(archive)
            card = parts.read(CARD, MOST_CARD).decode() if CARD in parts else None
            try:
                return each_with_card(_read(path, parts), card)
            except ModelError:
                own = None if card is None else _pooled_to_a_grid(path, parts, card)
                if own is None:
                    raise
                return [own]
    except (MemoryError, *DAMAGED) as error:
        raise ModelError(what_failed(path.name, error, _damaged(path, error))) from error


def _read(path: Path, archive: Archive) -> list[Found]:
    """Read the modules and follow their code."""
    code = archive.code()
    if any(_OF_ONE_PROCESSOR in text for text in code.values()):
        raise ModelError(
            f"{path.name} was optimised for one kind of processor, and its weights are not in it "
            "as such. Save the network before torch.jit.optimize_for_inference."
        )
    script = parse_code(code)
    module = archive.objects("data.pkl")
    constants = archive.objects("constants.pkl") if "constants.pkl" in archive else ()
    if not isinstance(module, Made) or script.method(module.by, "forward") is None:
        raise ModelError(
            f"{path.name} holds no module with code for its forward pass. Save it again with "
            "torch.jit.save."
        )
    count = len(script.inputs(module.by))
    if count != 1:
        word = {0: "no", 2: "two", 3: "three", 4: "four"}.get(count, str(count))
        raise ModelError(
            f"The network in {path.name} cannot be used: it has {word} inputs, and one image is "
            "given to a network here. Use a network with one input."
        )
    traced = traced_shape(archive)
    if traced is not None:
        dims, channels = len(traced) - 2, traced[1]
    else:
        dims, channels = _kind_of_image(script, module, constants)
    interpreter = _interpreter(script, constants, probe_sizes(dims), channels)
    try:
        return _follow(interpreter, module)
    except ModelError:
        if traced is None or interpreter.asked_sizes:
            raise
        # Sizes that were computed when it was traced are fixed in it: they are of that image.
        sizes = probe_sizes(dims, traced[2:])
        return _follow(_interpreter(script, constants, sizes, channels), module)


def _pooled_to_a_grid(path: Path, archive: Archive, text: str) -> Found | None:
    """Read a network of ours with pyramid pooling, which is no list of layers, by its card."""
    try:
        card = parse_card(path, text)
    except ModelError:
        return None
    if not getattr(card.architecture, "pyramid_pooling", False):
        return None
    module = archive.objects("data.pkl")
    network = module.state.get("network") if isinstance(module, Made) else None
    known = {field: getattr(card, field) for field in Card.model_fields}
    tensors = dict(_named_tensors(network, "", 0))
    return Found(
        architecture=known.pop("architecture"),
        tensors=tensors,
        card=known,
        assumed=known.pop("assumed"),
        tellers=dict.fromkeys(Card.model_fields, OUR_CARD),
        is_activated=card.activation != "none",
    )


def _named_tensors(module: Any, prefix: str, depth: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Give the weights of a module and of those in it, by the names of its state dict."""
    if isinstance(module, Made) and isinstance(module.state, dict) and depth < _DEEPEST:
        for name, value in module.state.items():
            if isinstance(value, torch.Tensor):
                yield f"{prefix}{name}", value
            yield from _named_tensors(value, f"{prefix}{name}.", depth + 1)


def _interpreter(script: Script, constants: Any, sizes: np.ndarray, channels: int) -> Interpreter:
    """Prepare to follow code for some sizes of image."""
    builder = GraphBuilder(sizes.shape[1], channels, sizes)
    return Interpreter(script, builder, constants, OPERATIONS)


def _follow(interpreter: Interpreter, module: Made) -> list[Found]:
    """Follow the forward pass."""
    builder = interpreter.builder
    images = _images(interpreter.run(module, builder.image))
    if not images:
        raise ModelError(
            "The network gives no image. Use a network for segmentation, which gives a value for "
            "each pixel."
        )
    return all_found(builder, images, "TorchScript")


def _images(result: Any) -> list[tuple[str, Feature]]:
    """Collect the features in a result, with their places in it."""
    if isinstance(result, Feature):
        return [("", result)]
    if isinstance(result, dict):
        return [(f"output {key}", v) for key, v in result.items() if isinstance(v, Feature)]
    if isinstance(result, list | tuple):
        return [
            (f"output {place}", v) for place, v in enumerate(result, 1) if isinstance(v, Feature)
        ]
    return []


def _tensors_of(module: Any, seen: set[int]) -> list[torch.Tensor]:
    """Collect the weights of a module and of those in it."""
    if isinstance(module, torch.Tensor):
        return [module]
    if not isinstance(module, Made) or id(module) in seen or not isinstance(module.state, dict):
        return []
    seen.add(id(module))
    return [t for value in module.state.values() for t in _tensors_of(value, seen)]


def _kind_of_image(script: Script, module: Made, constants: Any) -> tuple[int, int]:
    """Find axes and channels: those of the first kernel that the image reaches."""
    frozen = [w for w in constants if isinstance(w, torch.Tensor)]  # by torch.jit.freeze
    kernels = [w for w in (*_tensors_of(module, set()), *frozen) if w.ndim in {4, 5}]
    if not kernels:
        raise ModelError(
            "The file holds no weights of convolutions. Use the file of a network for images."
        )
    axes = [kernel.ndim - 2 for kernel in kernels]
    dims = max(set(axes), key=axes.count)
    candidates = dict.fromkeys(int(kernel.shape[1]) for kernel in kernels)
    for channels in [*candidates][:_MOST_TRIALS]:
        builder = GraphBuilder(dims, channels, np.full((1, dims), _TRIAL_PX, np.int64))
        operations = {**OPERATIONS, **dict.fromkeys(_CONVOLUTIONS, _reach)}
        try:
            Interpreter(script, builder, constants, operations).run(module, builder.image)
        except _Reached as reached:
            return dims, reached.channels
        except ModelError:
            continue
    return dims, next(iter(candidates))


class _Reached(Exception):  # no error: it ends a search
    """The first convolution was reached."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels


def _reach(_: Interpreter, arguments: list[Any], named: dict[str, Any]) -> Any:
    """Stand in for a convolution: end with the number of channels that it reads."""
    groups = arguments[8] if len(arguments) > 8 else named.get("groups", 1)
    if len(arguments) == 7:
        groups = arguments[6]
    raise _Reached(int(arguments[1].shape[1]) * int(groups))


def _damaged(path: Path, reason: object) -> str:
    """Say that a file is damaged, and how."""
    return (
        f"{path.name} is no TorchScript file that can be read, or is damaged ({reason}). Copy or "
        "download it again, or save it again with torch.jit.save."
    )
