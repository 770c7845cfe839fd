"""The configuration of a Keras network: JSON that tells layers and what each reads."""

from __future__ import annotations

from typing import Any

from napari_unet.errors import ModelError

NETWORKS = {"Functional", "Model", "Sequential"}
_MOST_LAYERS = 4096


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


def references(node: Any) -> list[tuple[str, int, int]]:
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
            for reference in references(
                list(node[key].values()) if isinstance(node.get(key), dict) else node.get(key)
            )
        ]
    if not isinstance(node, list):
        return []
    if len(node) >= 3 and isinstance(node[0], str) and isinstance(node[1], int):
        extra = node[3] if len(node) > 3 and isinstance(node[3], dict) else {}
        more = [reference for value in extra.values() for reference in references(value)]
        return [(node[0], node[1], int(node[2])), *more]
    return [reference for part in node for reference in references(part)]
