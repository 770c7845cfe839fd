"""The configuration of a Keras network: JSON that tells layers and what each reads."""

from __future__ import annotations

from typing import Any

from napari_unet.errors import ModelError

_ROW = "Sequential"
NETWORKS = {"Functional", "Model", _ROW}
_MOST_LAYERS = 4096
_CONSTANT = "_CONSTANT_VALUE"
_OPERANDS = {"x", "y", "x1", "x2"}


def layers_of(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the layers of a network; old sequential ones are a list alone."""
    settings = config["config"]
    layers = settings if isinstance(settings, list) else settings["layers"]
    if not isinstance(layers, list) or len(layers) > _MOST_LAYERS:
        raise ValueError("it has too many layers")
    return layers


def config_of(layer: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a layer."""
    settings = layer.get("config")
    return settings if isinstance(settings, dict) else {}


def name_of(layer: dict[str, Any]) -> str:
    """Return the name of a layer."""
    return str(layer.get("name") or config_of(layer).get("name") or "")


def input_shape(config: dict[str, Any], layers: list[dict[str, Any]]) -> list[int | None]:
    """Find the shape (N, *spatial, C) of the input."""
    inputs = [layer for layer in layers if layer["class_name"] == "InputLayer"]
    if config["class_name"] != "Sequential" and len(inputs) != 1:
        names = ", ".join(name_of(layer) for layer in inputs)
        count = {0: "no", 2: "two", 3: "three", 4: "four"}.get(len(inputs), len(inputs))
        raise ModelError(
            f"The network has {count} inputs ({names}), and one image is given to a network "
            "here. Use a network with one input."
        )
    places = [*inputs, *layers, config]
    for layer in places:
        settings = config_of(layer)
        for key in ("batch_input_shape", "batch_shape", "build_input_shape"):
            shape = settings.get(key)
            if isinstance(shape, list) and len(shape) in {4, 5}:
                return [None if size is None else int(size) for size in shape]
        shape = (layer.get("build_config") or {}).get("input_shape")
        if isinstance(shape, list) and len(shape) in {4, 5}:
            return [None if size is None else int(size) for size in shape]
        if layer["class_name"] in NETWORKS and layer is not config:
            return input_shape(layer, layers_of(layer))
    raise ModelError(
        "The network takes no image: its input has neither 4 axes (planes) nor 5 (volumes). Use "
        "a network for images."
    )


Reference = tuple[str, int, int]
"""A layer by its name, which of its calls, and which of its results."""


def references(node: Any) -> list[Reference]:
    """List what a layer reads: names, calls and places, in the order in which they are given."""
    return [argument for argument in arguments(node) if isinstance(argument, tuple)]


def first_calls(config: dict[str, Any], version: int) -> tuple[dict[str, int], dict[str, int]]:
    """Say by which number the first call of each network within a network goes.

    That a network was made counts as a call of it, so that the first one in another network is
    number 1; Keras 3 counts so where it names the outputs alone, and never for sequential ones.

    Parameters
    ----------
    config : dict
        Of the outer network.
    version : int
        Main version of Keras.

    Returns
    -------
    tuple of dict of str to int
        By name: where layers read from them, and where they give an output.
    """
    layers = layers_of(config)
    kinds = {name_of(layer): layer["class_name"] for layer in layers}
    counted = {
        name for name, kind in kinds.items() if kind in NETWORKS and (version < 3 or kind != _ROW)
    }
    nodes = [node for layer in layers for node in layer.get("inbound_nodes") or []]
    read = [reference for node in nodes for reference in references(node)] if version < 3 else []
    between = _lowest(read, counted)
    return between, _lowest(references(config["config"]["output_layers"]), counted)


def _lowest(read: list[Reference], names: set[str]) -> dict[str, int]:
    """Return 1 for each of some layers of which no call 0 is read."""
    numbers = {name: [at for by, at, _ in read if by == name] for name in names}
    return {name: int(min(ats) > 0) for name, ats in numbers.items() if ats}


def arguments(node: Any) -> list[Reference | float]:
    """List what a layer or a function is applied to: other layers, and numbers.

    ``[["conv", 0, 0, {}], ...]`` in Keras 2, tensors among the arguments in Keras 3.
    """
    if isinstance(node, dict):
        if node.get("class_name") == "__keras_tensor__":
            name, at, place = node["config"]["keras_history"]
            return [(str(name), int(at), int(place))]
        return [*arguments(node.get("args")), *_in_keywords(node.get("kwargs"))]
    if isinstance(node, int | float) and not isinstance(node, bool):
        return [float(node)]
    if not isinstance(node, list):
        return []
    if len(node) >= 3 and isinstance(node[0], str) and isinstance(node[1], int):
        more = _in_keywords(node[3] if len(node) > 3 else None)
        if node[0] == _CONSTANT:
            return [*arguments(node[2]), *more]
        return [(node[0], node[1], int(node[2])), *more]
    return [argument for part in node for argument in arguments(part)]


def keywords(node: Any) -> dict[str, Any]:
    """Return the options that a function of Keras 2 is called with."""
    while isinstance(node, list) and node and isinstance(node[0], list):
        node = node[0]
    given = node[3] if isinstance(node, list) and len(node) > 3 else None
    return dict(given) if isinstance(given, dict) else {}


def _in_keywords(given: Any) -> list[Reference | float]:
    """List the layers among named arguments, and the numbers that stand for one."""
    if not isinstance(given, dict):
        return []
    return [
        argument
        for key, value in given.items()
        if isinstance(value, list | dict) or key in _OPERANDS
        for argument in arguments(value)
        if isinstance(argument, tuple) or key in _OPERANDS
    ]
