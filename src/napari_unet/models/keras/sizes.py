"""What Keras does to sizes: pooling, upsampling, padding, cropping."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from napari_unet.models.building.features import BATCH, CHANNEL, Feature
from napari_unet.models.building.refusals import unsupported
from napari_unet.models.keras.layer import Layer, Translate, sides_of

if TYPE_CHECKING:
    from collections.abc import Callable


def _pooling(kind: Literal["max", "average"]) -> Callable[[Layer], Feature]:
    def pool(layer: Layer) -> Feature:
        window = layer.each("pool_size", 2)
        stride = layer.each("strides", 0) if layer.settings.get("strides") else window
        sides = sides_of(layer, window, stride, [1] * layer.builder.dims)
        pooled = layer.builder.pooling(
            layer.image,
            kind,
            window,
            stride=stride,
            padding=sides,
            counts_padding=False,
            name=layer.name,
        )
        return pooled.reordered(layer.order)

    return pool


def _global_average(layer: Layer) -> Feature:
    mean = layer.builder.global_average(layer.image, layer.name)
    kept = bool(layer.settings.get("keepdims"))
    return mean.reordered(layer.order if kept else (BATCH, CHANNEL))


def _upsampling(layer: Layer) -> Feature:
    mode = layer.settings.get("interpolation", "nearest")
    factors = layer.each("size", 2)
    if mode not in {"nearest", "bilinear"}:
        raise unsupported(f"upsampling of the kind {mode}")
    resized = layer.builder.resize(
        layer.image,
        "nearest" if mode == "nearest" else "linear",
        scale=[float(f) for f in factors],
        name=layer.name,
    )
    return resized.reordered(layer.order)


def _padded(sign: int, key: str) -> Callable[[Layer], Feature]:
    def pad(layer: Layer) -> Feature:
        given = layer.settings.get(key, 1)
        dims = layer.builder.dims
        pairs = [given] * dims if isinstance(given, int) else list(given)
        sides = [pair if isinstance(pair, list | tuple) else [pair, pair] for pair in pairs]
        if len(sides) != dims:
            raise unsupported(f"the layer {layer.kind}")
        padded = layer.builder.pad_by(
            layer.image,
            [sign * int(side[0]) for side in sides],
            [sign * int(side[1]) for side in sides],
            name=layer.name,
        )
        return padded.reordered(layer.order)

    return pad


def _reshaped(layer: Layer) -> Feature:
    shape = [1, *(int(size) for size in layer.settings["target_shape"])]
    target = np.tile(np.array(shape, np.int64), (len(layer.builder.alive), 1))
    return layer.builder.reshape(layer.x, target)


def _permuted(layer: Layer) -> Feature:
    order = layer.x.order
    return layer.x.reordered((order[0], *(order[int(axis)] for axis in layer.settings["dims"])))


SIZES: dict[str, Translate] = {
    **dict.fromkeys(("MaxPooling2D", "MaxPooling3D", "MaxPool2D", "MaxPool3D"), _pooling("max")),
    **dict.fromkeys(
        ("AveragePooling2D", "AveragePooling3D", "AvgPool2D", "AvgPool3D"), _pooling("average")
    ),
    **dict.fromkeys(("GlobalAveragePooling2D", "GlobalAveragePooling3D"), _global_average),
    **dict.fromkeys(("UpSampling2D", "UpSampling3D"), _upsampling),
    **dict.fromkeys(("ZeroPadding2D", "ZeroPadding3D"), _padded(1, "padding")),
    **dict.fromkeys(("Cropping2D", "Cropping3D"), _padded(-1, "cropping")),
    "Reshape": _reshaped,
    "Permute": _permuted,
}
