"""Reads the networks that Keras writes: ``.h5`` and ``.keras``, and ``.h5`` with weights alone.

No TensorFlow is needed and nothing in a file is run. The architecture is JSON, layers and what
each reads; :mod:`napari_unet.models.keras.layers` knows the layers. Layers with code in them
(Lambda) and those of strangers are refused by their name. Where the JSON is missing, the names of
the layers and the shapes of their weights tell the architecture, see
:mod:`napari_unet.models.keras.names`.
"""

from __future__ import annotations

import json
import re
import zipfile
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from napari_unet.errors import ModelError
from napari_unet.models.building.builder import GraphBuilder, all_found
from napari_unet.models.building.features import CHANNEL, Feature, probe_sizes
from napari_unet.models.building.refusals import unsupported
from napari_unet.models.damage import DAMAGED, what_failed
from napari_unet.models.hdf5 import read_hdf5
from napari_unet.models.keras.config import (
    NETWORKS,
    arguments,
    config_of,
    first_calls,
    input_shape,
    keywords,
    layers_of,
    name_of,
    references,
)
from napari_unet.models.keras.layer import Layer
from napari_unet.models.keras.layers import LAYERS
from napari_unet.models.keras.names import Reading, readings_of_names
from napari_unet.models.keras.operations import is_operation, operate
from napari_unet.models.keras.weights import Weights, named, numbered, within

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_unet.models.found import Found

_LARGEST_CONFIG = 64 << 20
_NUMBERED = re.compile(r"(^|/)vars/\d+$")
"""Where Keras 3 keeps weights: numbered, in groups called like the class of the layer."""
_DEEPEST = 10


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
    except (MemoryError, *DAMAGED) as error:
        raise ModelError(what_failed(path.name, error, _damaged(path, error))) from error


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
    return _read_network(config, numbered(read_hdf5(parts[1], path.name)), version)


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
        return _read_network(json.loads(config), named(held, "model_weights/"), number)
    if not held.arrays:
        raise ModelError(f"{path.name} holds no weights. Save the network again with model.save.")
    if any(_NUMBERED.search(place) for place in held.arrays):
        raise ModelError(_weights_alone(path))
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
        replace(
            one,
            assumed={**one.assumed, **reading.assumed},
            is_activated=False,
            title=", ".join(filter(None, (reading.title, one.title))),
        )
        for one in found
    ]


def _read_network(config: dict[str, Any], weights: Weights, version: int) -> list[Found]:
    """Translate the configuration of a network."""
    if not isinstance(config, dict) or config.get("class_name") not in NETWORKS:
        kind = config.get("class_name") if isinstance(config, dict) else "?"
        raise ModelError(
            f"The network is of the kind {kind}, which is defined by somebody's code. Save it as "
            "a functional or sequential network, or as ONNX."
        )
    layers = layers_of(config)
    shape = input_shape(config, layers)
    dims = len(shape) - 2
    first = any(config_of(layer).get("data_format") == "channels_first" for layer in layers)
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
        layers = {name_of(layer): layer for layer in settings["layers"]}
        starts = [reference[0] for reference in references(settings["input_layers"])]
        if len(starts) != len(inputs):
            raise ModelError(
                f"The network has {len(starts)} inputs ({', '.join(starts)}), and one image is "
                "given to a network here. Use a network with one input."
            )
        values: dict[tuple[str, int], list[Feature]] = {
            (name, 0): [feature] for name, feature in zip(starts, inputs, strict=True)
        }
        between, at_end = first_calls(config, self.version)
        waiting = [
            (name, number, node, references(node))
            for name, layer in layers.items()
            for number, node in enumerate(layer.get("inbound_nodes") or [], between.get(name, 0))
            if (name, number) not in values
        ]
        while waiting:
            left = []
            for name, number, node, reads in waiting:
                if not all((source, at) in values for source, at, _ in reads):
                    left.append((name, number, node, reads))
                    continue
                if is_operation(layers[name], node):
                    values[name, number] = [self._operation(layers[name], node, values)]
                    continue
                parts = [values[source, at][place] for source, at, place in reads]
                values[name, number] = self.layer(layers[name], parts, weights, depth)
            if len(left) == len(waiting):
                raise ValueError(f"layer {left[0][0]} reads what is not there")
            waiting = left
        return [
            values[name, at + between.get(name, 0) - at_end.get(name, 0)][place]
            for name, at, place in references(settings["output_layers"])
        ]

    def _sequential(
        self, config: dict[str, Any], inputs: list[Feature], weights: Weights, depth: int
    ) -> list[Feature]:
        """Translate one layer after the other."""
        values = inputs
        for layer in layers_of(config):
            if layer["class_name"] != "InputLayer":
                values = self.layer(layer, values, weights, depth)
        return values

    def _operation(
        self, layer: dict[str, Any], node: Any, values: dict[tuple[str, int], list[Feature]]
    ) -> Feature:
        """Translate a function that stands among the layers."""
        given = [
            argument if isinstance(argument, float) else values[argument[:2]][argument[2]]
            for argument in arguments(node)
        ]
        features = [each for each in given if isinstance(each, Feature)]
        settings = {**keywords(node), **config_of(layer)}
        return operate(self._step(layer, settings, features, []), given)

    def _step(
        self,
        layer: dict[str, Any],
        settings: dict[str, Any],
        inputs: list[Feature],
        held: list[NDArray[Any]],
    ) -> Layer:
        """Put together what is known of a layer."""
        kind, name = layer["class_name"], name_of(layer)
        return Layer(self.builder, self.order, self.version, name, kind, settings, inputs, held)

    def layer(
        self, layer: dict[str, Any], inputs: list[Feature], weights: Weights, depth: int
    ) -> list[Feature]:
        """Translate a layer, or a network in the place of one."""
        kind, name = layer["class_name"], name_of(layer)
        if kind in NETWORKS:
            return self.network(layer, inputs, within(weights, name, kind), depth + 1)
        if kind == "Lambda":
            raise ModelError(
                f"The layer {name} is a Lambda: it carries code, which is never run here. Ask for "
                "a network without it, e.g. as ONNX."
            )
        translate = LAYERS.get(kind.rpartition(">")[2])
        if translate is None:
            raise unsupported(f"the layer {kind}")
        return [translate(self._step(layer, config_of(layer), inputs, weights(name, kind)))]


def _weights_alone(path: Path) -> str:
    """Say what is missing in a file that Keras 3 wrote with ``save_weights``."""
    return (
        f"{path.name} holds the weights of a Keras network without the network, as save_weights "
        "of Keras 3 writes them: which layer reads which is not in it. Ask the sender to run the "
        f"code that builds the network, then model.load_weights({path.name!r}) and "
        'model.save("network.keras"), and to send network.keras.'
    )


def _damaged(path: Path, reason: object) -> str:
    """Say that a file is damaged, and how."""
    return (
        f"{path.name} is no Keras network that can be read, or is damaged ({reason}). Copy or "
        "download it again, or save it again with model.save."
    )
