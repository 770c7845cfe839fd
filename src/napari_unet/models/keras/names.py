"""Finds the network of Keras weights that were saved alone, by the names of their layers.

``save_weights`` keeps no architecture, but names every layer in the order in which they were
computed, those without weights too: ``max_pooling2d_1`` is a pooling and ``concatenate_1`` joins
what was upsampled with what was pooled as the last. What names do not tell is offered in several
readings: the activation of the layers and the order in which channels are joined.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_unet.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_unet.models.hdf5 import Hdf5

_BY_NAME = (
    ("conv2d_transpose", "Conv2DTranspose"),
    ("conv3d_transpose", "Conv3DTranspose"),
    ("separable_conv2d", "SeparableConv2D"),
    ("depthwise_conv2d", "DepthwiseConv2D"),
    ("conv2d", "Conv2D"),
    ("conv3d", "Conv3D"),
    ("max_pooling2d", "MaxPooling2D"),
    ("max_pooling3d", "MaxPooling3D"),
    ("average_pooling2d", "AveragePooling2D"),
    ("average_pooling3d", "AveragePooling3D"),
    ("up_sampling2d", "UpSampling2D"),
    ("up_sampling3d", "UpSampling3D"),
    ("batch_normalization", "BatchNormalization"),
    ("concatenate", "Concatenate"),
    ("spatial_dropout", "Dropout"),
    ("dropout", "Dropout"),
    ("activation", "Activation"),
    ("leaky_re_lu", "LeakyReLU"),
    ("p_re_lu", "PReLU"),
    ("re_lu", "ReLU"),
    ("elu", "ELU"),
    ("input", "InputLayer"),
)
_ACTIVATIONS = {"Activation", "LeakyReLU", "PReLU", "ReLU", "ELU"}
_CONVOLUTIONS = {"Conv2D", "Conv3D", "SeparableConv2D"}
_WRITTEN = {"relu": "ReLU", "elu": "ELU"}
_BY_PART_OF_NAME = (
    ("merge|concat|cat", "Concatenate"),
    ("av.*pool", "AveragePooling{}D"),
    ("pool", "MaxPooling{}D"),
    ("drop", "Dropout"),
    ("up", "UpSampling{}D"),
    ("act|relu", "Activation"),
)


@dataclass(frozen=True, eq=False)
class Reading:
    """A way in which weights may be meant.

    Attributes
    ----------
    config : dict
        The network as Keras would have described it.
    weights : dict of str to list of ndarray
        By layer.
    assumed : dict of str to str
        What was not told, and what was assumed.
    title : str
        A few words that tell it from others.
    """

    config: dict[str, Any]
    weights: dict[str, list[NDArray[Any]]]
    assumed: dict[str, str]
    title: str


@dataclass(frozen=True, eq=False)
class _Part:
    name: str
    kind: str
    weights: list[NDArray[Any]]


def readings_of_names(held: Hdf5) -> list[Reading]:
    """Find the networks that layers of these names and weights can form.

    Parameters
    ----------
    held : Hdf5
        The file.

    Returns
    -------
    list of Reading
        The likeliest first.

    Raises
    ------
    ModelError
        If a layer is of a kind that its name and weights do not tell.
    """
    parts = _parts(held)
    if not any(part.kind in _CONVOLUTIONS for part in parts):
        raise ModelError(
            "The file holds weights without the network they belong to, and no list of its "
            "layers in their order. Ask for a file of model.save."
        )
    functions = ["relu", "elu"]
    if any(part.kind in _ACTIVATIONS for part in parts):
        functions = ["linear"]
    elif _is_starter(parts):
        functions = ["elu", "relu"]
    transposed = any("Transpose" in part.kind for part in parts)
    orders = [True, False] if transposed else [False, True]
    if not any(part.kind == "Concatenate" for part in parts):
        orders = [True]
    return [
        _reading(parts, function, upsampled_first=first)
        for first in orders
        for function in functions
    ]


def _layer_names(held: Hdf5) -> list[str]:
    """Return the names of all layers in their order; long lists are kept in parts."""
    attributes = held.attributes.get("", {})
    names = list(attributes.get("layer_names") or [])
    part = 0
    while f"layer_names{part}" in attributes:
        names += attributes[f"layer_names{part}"]
        part += 1
    return [str(name) for name in names]


def _parts(held: Hdf5) -> list[_Part]:
    """Tell the kinds of all layers."""
    shapes = [array.ndim - 2 for array in held.arrays.values() if array.ndim in {4, 5}]
    dims = shapes[0] if shapes else 2
    return [_part(held, name, dims, at == 0) for at, name in enumerate(_layer_names(held))]


def _part(held: Hdf5, name: str, dims: int, is_first: bool) -> _Part:
    """Tell the kind of a layer by its name, or by its weights."""
    names = held.attributes.get(name, {}).get("weight_names") or []
    weights = [held.arrays[f"{name}/{key}"] for key in names]
    bare = re.sub(r"^[^a-z]+", "", name.lower())
    for start, kind in _BY_NAME:
        if re.fullmatch(start + r"(\d?d)?(_\d+)?", bare):
            return _Part(name, kind, weights)
    if not weights and is_first:
        return _Part(name, "InputLayer", weights)
    if not weights:
        for pattern, kind in _BY_PART_OF_NAME:
            if re.search(pattern, name, re.I):
                return _Part(name, kind.format(dims), weights)
    if len(weights) == 4 and all(w.ndim == 1 for w in weights):
        return _Part(name, "BatchNormalization", weights)
    if weights and weights[0].ndim in {4, 5}:
        dims = weights[0].ndim - 2
        # The last axis of a kernel is out, of a transposed one in; the bias is as long as out.
        square = weights[0].shape[-1] == weights[0].shape[-2]
        is_transposed = (
            re.search("transp|deconv|up", name, re.I)
            if square
            else (len(weights) > 1 and weights[1].shape[0] != weights[0].shape[-1])
        )
        kind = f"Conv{dims}DTranspose" if is_transposed else f"Conv{dims}D"
        return _Part(name, kind, weights)
    raise ModelError(f"the kind of the layer {name} is not known")


def _is_starter(parts: list[_Part]) -> bool:
    """Whether dropout stands between the convolutions of each level, as in one known network.

    That is the U-Net with which many began in the Data Science Bowl of 2018; it has ELU.
    """
    kinds = [part.kind for part in parts]
    blocks = [kinds[at : at + 3] for at in range(len(kinds) - 2) if kinds[at + 1] == "Dropout"]
    between = [block for block in blocks if block[0] in _CONVOLUTIONS and block[0] == block[2]]
    convolutions = sum(kind in _CONVOLUTIONS for kind in kinds)
    return len(between) >= 3 and len(between) >= convolutions // 2 - 1


def _reading(parts: list[_Part], function: str, *, upsampled_first: bool) -> Reading:
    """Connect the layers: one after the other, and joined with what was pooled last."""
    layers: list[dict[str, Any]] = []
    pooled: list[str] = []
    dims = next(p.weights[0].ndim - 2 for p in parts if p.kind in _CONVOLUTIONS)
    first = next(p for p in parts if p.kind in _CONVOLUTIONS)
    before = ""
    last = max(at for at, p in enumerate(parts) if p.kind in _CONVOLUTIONS)
    for at, part in enumerate(parts):
        reads = [before] if before else []
        if part.kind == "InputLayer":
            reads = []
        elif "Pooling" in part.kind:
            pooled.append(before)
        elif part.kind == "Concatenate":
            if not pooled:
                raise ModelError(f"{part.name} joins more than was pooled")
            skip = pooled.pop()
            reads = [before, skip] if upsampled_first else [skip, before]
        layers.append(
            {
                "name": part.name,
                "class_name": part.kind,
                "config": {
                    "name": part.name,
                    **_settings(part, function, is_last=at == last),
                },
                "inbound_nodes": [[[name, 0, 0, {}] for name in reads]] if reads else [],
            }
        )
        before = part.name
    if parts[0].kind != "InputLayer":
        image = {"name": "image", "class_name": "InputLayer", "inbound_nodes": []}
        layers[0]["inbound_nodes"] = [[["image", 0, 0, {}]]]
        layers.insert(0, image)
    shape = [None] * (1 + dims) + [int(first.weights[0].shape[-2])]
    layers[0]["config"] = {"name": layers[0]["name"], "batch_input_shape": shape}
    config = {
        "class_name": "Model",
        "config": {
            "layers": layers,
            "input_layers": [[layers[0]["name"], 0, 0]],
            "output_layers": [[before, 0, 0]],
        },
    }
    told = "the upsampled channels first" if upsampled_first else "the upsampled channels last"
    assumed = {
        "architecture": "The file holds weights alone; the layers' names and order tell the rest.",
        "padding": "Not told by the weights: as many pixels as the image has ('same').",
        "skip order": f"Not told by the weights: {told}, as such networks usually have them.",
        "activation": "Not told by the weights: usual for this number of channels.",
    }
    if function != "linear":
        assumed["activation of the layers"] = f"Not told by the weights: {_WRITTEN[function]}."
    title = f"{_WRITTEN[function]}, {told}" if function != "linear" else told
    weights = {part.name: part.weights for part in parts}
    return Reading(config, {**weights, "image": []}, assumed, title)


def _settings(part: _Part, function: str, *, is_last: bool) -> dict[str, Any]:
    """Return the settings that a layer most likely had."""
    if part.kind in {"Conv2DTranspose", "Conv3DTranspose"}:
        return {
            "padding": "same",
            "strides": 2,
            "use_bias": len(part.weights) > 1,
            "activation": "linear",
        }
    if part.kind in _CONVOLUTIONS | {"DepthwiseConv2D"}:
        classes = part.weights[-1].shape[-1]
        ending = "sigmoid" if classes == 1 else "softmax"
        return {
            "padding": "same",
            "use_bias": part.weights[-1].ndim == 1,
            "activation": ending if is_last else function,
        }
    if "Pooling" in part.kind:
        return {"pool_size": 2, "strides": 2}
    if part.kind.startswith("UpSampling"):
        return {"size": 2}
    if part.kind == "Concatenate":
        return {"axis": -1}
    if part.kind == "Activation":
        return {"activation": "relu"}
    return {}
