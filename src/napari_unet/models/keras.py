"""Reads the networks that Keras writes: ``.h5`` and ``.keras``, and ``.h5`` with weights alone.

No TensorFlow is needed and nothing in a file is run. The architecture is JSON, layers and what
each reads; :mod:`napari_unet.models.keras_layers` knows the layers. Layers with code in them
(Lambda) and those of strangers are refused by their name. Where the JSON is missing, the names of
the layers and the shapes of their weights tell the architecture, see
:mod:`napari_unet.models.keras_names`.
"""

from __future__ import annotations

import json
import re
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_unet.errors import ModelError
from napari_unet.models.damage import DAMAGED
from napari_unet.models.graph_builder import (
    CHANNEL,
    Feature,
    GraphBuilder,
    all_found,
    probe_sizes,
    unsupported,
)
from napari_unet.models.hdf5 import Hdf5, read_hdf5
from napari_unet.models.keras_layers import LAYERS, Layer
from napari_unet.models.keras_names import Reading, readings_of_names

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_unet.models.found import Found

    Weights = Callable[[str, str], list[NDArray[Any]]]

_LARGEST_CONFIG = 64 << 20
_MOST_LAYERS = 4096
_DEEPEST = 10
_NETWORKS = {"Functional", "Model", "Sequential"}
_FOLDERS = ("layers", "_layer_checkpoint_dependencies", "_self_tracked_trackables", "_layers")


def read_keras(path: Path) -> list[Found]:
    """Read the network in a file of Keras.

    Parameters
    ----------
    path : Path
        ``.h5`` or ``.keras``, or ``.h5`` with weights alone.

    Returns
    -------
    list of Found
        Of weights alone, one for each way in which they may be meant.

    Raises
    ------
    ModelError
        If the file is damaged, has several inputs, or a layer that is not known.
    """
    try:
        if zipfile.is_zipfile(path):
            return _read_archive(path)
        return _read_hdf5(path)
    except DAMAGED as error:
        raise ModelError(_damaged(path, error)) from error


def _read_archive(path: Path) -> list[Found]:
    """Read a ``.keras`` file: a zip of configuration and weights."""
    with zipfile.ZipFile(path) as archive:
        infos = {info.filename: info for info in archive.infolist()}
        parts = []
        for name, limit in (("config.json", _LARGEST_CONFIG), ("model.weights.h5", 1 << 40)):
            info = infos.get(name)
            if info is None:
                raise ModelError(
                    f"{path.name} holds no {name}, so it is no complete Keras network. Save it "
                    "again with model.save."
                )
            if info.file_size > limit or info.file_size > info.compress_size * 1100 + 1024:
                raise ValueError(f"{name} is too large")
            parts.append(archive.read(info))
    config = json.loads(parts[0])
    version = 3
    return _read_network(config, _numbered(read_hdf5(parts[1], path.name)), version)


def _read_hdf5(path: Path) -> list[Found]:
    """Read an ``.h5`` file, with or without the configuration of the network."""
    held = read_hdf5(path.read_bytes(), path.name)
    top = held.attributes.get("", {})
    config = top.get("model_config")
    if isinstance(config, str):
        version = str(
            top.get(
                "keras_version", held.attributes.get("model_weights", {}).get("keras_version", "2")
            )
        )
        number = int(version[0]) if version[:1].isdigit() else 2
        return _read_network(json.loads(config), _named(held, "model_weights/"), number)
    if not held.arrays:
        raise ModelError(f"{path.name} holds no weights. Save the network again with model.save.")
    found = []
    refused: ModelError | None = None
    for reading in readings_of_names(held):
        try:
            found += _read_reading(reading)
        except ModelError as error:
            refused = refused or error
    if not found:
        raise ModelError(
            f"{path.name} holds weights without the network they belong to, and it is not told "
            f"by their names ({refused or 'no layers are named'}). Ask for a file of model.save."
        )
    return found


def _read_reading(reading: Reading) -> list[Found]:
    """Read weights alone, in one way in which they may be meant."""
    found = _read_network(reading.config, lambda name, _: reading.weights[name], 2)
    return [
        type(one)(
            one.architecture,
            one.tensors,
            one.card,
            {**one.assumed, **reading.assumed},
            ", ".join(filter(None, (reading.title, one.title))),
        )
        for one in found
    ]


def _read_network(config: dict[str, Any], weights: Weights, version: int) -> list[Found]:
    """Translate the configuration of a network."""
    if not isinstance(config, dict) or config.get("class_name") not in _NETWORKS:
        kind = config.get("class_name") if isinstance(config, dict) else "?"
        raise ModelError(
            f"The network is of the kind {kind}, which is defined by somebody's code. Save it as "
            "a functional or sequential network, or as ONNX."
        )
    layers = _layers_of(config)
    shape = _input_shape(config, layers)
    dims = len(shape) - 2
    first = any(_config(layer).get("data_format") == "channels_first" for layer in layers)
    channels = shape[1] if first else shape[-1]
    builder = GraphBuilder(dims, int(channels or 0), probe_sizes(dims))
    order = builder.image.order if first else (0, *range(2, 2 + dims), CHANNEL)
    reader = _Reader(builder, order, version)
    outputs = reader.network(config, [builder.image.reordered(order)], weights, 0)
    images = [(f"output {place}", feature) for place, feature in enumerate(outputs, 1)]
    return all_found(builder, images, "Keras")


@dataclass(eq=False)
class _Reader:
    """Walks through layers in the order in which they can be computed."""

    builder: GraphBuilder
    order: tuple[int, ...]
    version: int

    def network(
        self, config: dict[str, Any], inputs: list[Feature], weights: Weights, depth: int
    ) -> list[Feature]:
        """Translate a network; give its outputs."""
        if depth > _DEEPEST:
            raise unsupported("networks in networks in networks")
        if config["class_name"] == "Sequential":
            return self._sequential(config, inputs, weights, depth)
        settings = config["config"]
        layers = {_name(layer): layer for layer in settings["layers"]}
        starts = [reference[0] for reference in _references(settings["input_layers"])]
        if len(starts) != len(inputs):
            raise ModelError(
                f"The network has {len(starts)} inputs ({', '.join(starts)}), and one image is "
                "given to a network here. Use a network with one input."
            )
        values: dict[tuple[str, int], list[Feature]] = {
            (name, 0): [feature] for name, feature in zip(starts, inputs, strict=True)
        }
        waiting = [
            (name, number, _references(node))
            for name, layer in layers.items()
            for number, node in enumerate(layer.get("inbound_nodes") or [])
            if (name, number) not in values
        ]
        while waiting:
            left = []
            for name, number, reads in waiting:
                if not all((source, at) in values for source, at, _ in reads):
                    left.append((name, number, reads))
                    continue
                parts = [values[source, at][place] for source, at, place in reads]
                values[name, number] = self.layer(layers[name], parts, weights, depth)
            if len(left) == len(waiting):
                raise ValueError(f"layer {left[0][0]} reads what is not there")
            waiting = left
        return [
            values[name, at][place] for name, at, place in _references(settings["output_layers"])
        ]

    def _sequential(
        self, config: dict[str, Any], inputs: list[Feature], weights: Weights, depth: int
    ) -> list[Feature]:
        """Translate one layer after the other."""
        values = inputs
        for layer in _layers_of(config):
            if layer["class_name"] != "InputLayer":
                values = self.layer(layer, values, weights, depth)
        return values

    def layer(
        self, layer: dict[str, Any], inputs: list[Feature], weights: Weights, depth: int
    ) -> list[Feature]:
        """Translate a layer, or a network in the place of one."""
        kind, name = layer["class_name"], _name(layer)
        if kind in _NETWORKS:
            return self.network(layer, inputs, _within(weights, name, kind), depth + 1)
        if kind == "Lambda":
            raise ModelError(
                f"The layer {name} is a Lambda: it carries code, which is never run here. Ask for "
                "a network without it, e.g. as ONNX."
            )
        translate = LAYERS.get(kind.rpartition(">")[2])
        if translate is None:
            raise unsupported(f"the layer {kind}")
        settings = _config(layer)
        held = weights(name, kind)
        step = Layer(self.builder, self.order, self.version, name, kind, settings, inputs, held)
        return [translate(step)]


# ------------------------------------------------------------------------------------- weights


def _named(held: Hdf5, prefix: str) -> Weights:
    """Find weights in the layout of ``.h5``: groups called like the layers."""

    def weights(name: str, _: str) -> list[NDArray[Any]]:
        # In a network within a network the group is that of the outer layer.
        outer, _, inner = name.partition("\0")
        names = _weight_names(held, f"{prefix}{outer}")
        if inner:
            last = inner.rpartition("\0")[2]
            names = [n for n in names if last in n.split("/")[:-1]]
        return [held.arrays[f"{prefix}{outer}/{n}"] for n in names]

    return weights


def _weight_names(held: Hdf5, group: str) -> list[str]:
    """Return the names of weights in their order; very long lists are kept in parts."""
    attributes = held.attributes.get(group, {})
    names = list(attributes.get("weight_names") or [])
    part = 0
    while f"weight_names{part}" in attributes:
        names += attributes[f"weight_names{part}"]
        part += 1
    return [str(name) for name in names]


def _within(weights: Weights, name: str, kind: str) -> Weights:
    """Find the weights of layers in a network that stands in the place of a layer."""
    return lambda inner, inner_kind: weights(f"{name}\0{inner}", f"{kind}\0{inner_kind}")


def _numbered(held: Hdf5) -> Weights:
    """Find weights in the layout of ``.keras``: numbered, in groups called like the class.

    The group of a layer tells the layer's name; in older files it does not, and groups are counted
    in the order of the layers.
    """
    children: dict[str, list[str]] = {}
    for path in held.attributes:
        parent, _, last = path.rpartition("/")
        children.setdefault(parent, []).append(last)
    seen: dict[tuple[str, str], dict[str, int]] = {}
    known: dict[tuple[str, str], str] = {}

    def group_of(parent: str, name: str, kind: str) -> str:
        for folder in _FOLDERS:
            base = f"{parent}/{folder}".lstrip("/")
            for child in children.get(base, []):
                told = held.attributes.get(f"{base}/{child}/vars", {}).get("name")
                if told == name:
                    return f"{base}/{child}"
        if (parent, name) not in known:
            snake = _snake(kind)
            counts = seen.setdefault((parent, snake), {})
            counts[name] = len(counts)
            number = counts[name]
            wanted = f"{snake}_{number}" if number else snake
            base = next(
                (b for f in _FOLDERS if (b := f"{parent}/{f}".lstrip("/")) in children), parent
            )
            known[parent, name] = f"{base}/{wanted}"
        return known[parent, name]

    def weights(name: str, kind: str) -> list[NDArray[Any]]:
        group = ""
        for part, part_kind in zip(name.split("\0"), kind.split("\0"), strict=True):
            group = group_of(group, part, part_kind)
        found: list[NDArray[Any]] = []
        while f"{group}/vars/{len(found)}" in held.arrays:
            found.append(held.arrays[f"{group}/vars/{len(found)}"])
        return found

    return weights


def _snake(kind: str) -> str:
    """Write a class's name as Keras writes it: ``conv2d_transpose``."""
    name = re.sub(r"\W+", "", kind.rpartition(">")[2])
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


# ------------------------------------------------------------------------------- configuration


def _layers_of(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the layers of a network; old sequential ones are a list alone."""
    settings = config["config"]
    layers = settings if isinstance(settings, list) else settings["layers"]
    if not isinstance(layers, list) or len(layers) > _MOST_LAYERS:
        raise ValueError("it has too many layers")
    return layers


def _config(layer: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a layer."""
    settings = layer.get("config")
    return settings if isinstance(settings, dict) else {}


def _name(layer: dict[str, Any]) -> str:
    """Return the name of a layer."""
    return str(layer.get("name") or _config(layer).get("name") or "")


def _input_shape(config: dict[str, Any], layers: list[dict[str, Any]]) -> list[int | None]:
    """Find the shape (N, *spatial, C) of the input."""
    inputs = [layer for layer in layers if layer["class_name"] == "InputLayer"]
    if config["class_name"] != "Sequential" and len(inputs) != 1:
        names = ", ".join(_name(layer) for layer in inputs)
        count = {0: "no", 2: "two", 3: "three", 4: "four"}.get(len(inputs), len(inputs))
        raise ModelError(
            f"The network has {count} inputs ({names}), and one image is given to a network "
            "here. Use a network with one input."
        )
    places = [*inputs, *layers, config]
    for layer in places:
        settings = _config(layer)
        for key in ("batch_input_shape", "batch_shape", "build_input_shape"):
            shape = settings.get(key)
            if isinstance(shape, list) and len(shape) in {4, 5}:
                return [None if size is None else int(size) for size in shape]
        shape = (layer.get("build_config") or {}).get("input_shape")
        if isinstance(shape, list) and len(shape) in {4, 5}:
            return [None if size is None else int(size) for size in shape]
        if layer["class_name"] in _NETWORKS and layer is not config:
            return _input_shape(layer, _layers_of(layer))
    raise ModelError(
        "The network takes no image: its input has neither 4 axes (planes) nor 5 (volumes). Use "
        "a network for images."
    )


def _references(node: Any) -> list[tuple[str, int, int]]:
    """List what a layer reads: names, calls and places, in the order in which they are given.

    ``[["conv", 0, 0, {}], ...]`` in Keras 2, tensors among the arguments in Keras 3.
    """
    if isinstance(node, dict):
        if node.get("class_name") == "__keras_tensor__":
            name, at, place = node["config"]["keras_history"]
            return [(str(name), int(at), int(place))]
        return [
            reference
            for key in ("args", "kwargs")
            for reference in _references(
                list(node[key].values()) if isinstance(node.get(key), dict) else node.get(key)
            )
        ]
    if not isinstance(node, list):
        return []
    if len(node) >= 3 and isinstance(node[0], str) and isinstance(node[1], int):
        extra = node[3] if len(node) > 3 and isinstance(node[3], dict) else {}
        more = [reference for value in extra.values() for reference in _references(value)]
        return [(node[0], node[1], int(node[2])), *more]
    return [reference for part in node for reference in _references(part)]


def _damaged(path: Path, reason: object) -> str:
    """Say that a file is damaged, and how."""
    return (
        f"{path.name} is no Keras network that can be read, or is damaged ({reason}). Copy or "
        "download it again, or save it again with model.save."
    )
