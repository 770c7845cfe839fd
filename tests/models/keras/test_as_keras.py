"""Networks that Keras itself has built and saved give here what they give there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from napari_unet.errors import ModelError
from napari_unet.models.keras import read_keras
from napari_unet.network.build import build_network

if TYPE_CHECKING:
    from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("KERAS_HOME", tempfile.mkdtemp(prefix="keras-"))
keras = pytest.importorskip("keras")

pytestmark = pytest.mark.filterwarnings("ignore")

layers = keras.layers
TOLERANCE = 1e-5


def pair(x: Any, channels: int, activation: Any, norm: Any) -> Any:
    for _ in range(2):
        x = layers.Conv2D(channels, 3, padding="same", use_bias=norm is None)(x)
        x = x if norm is None else norm()(x)
        x = layers.Activation(activation)(x) if isinstance(activation, str) else activation()(x)
    return x


def unet(
    activation: Any = "relu",
    norm: Any = None,
    down: Any = lambda: layers.MaxPooling2D(2),
    floor: Callable[[Any], Any] = lambda x: x,
    up: Any = lambda: layers.Conv2DTranspose(4, 2, strides=2, padding="same"),
    gate: Callable[[Any, Any], Any] = lambda skip, _: skip,
    last: str = "linear",
    classes: int = 2,
) -> Any:
    """Build a U-Net of two levels, one of its parts as asked for."""
    image = layers.Input((None, None, 3))
    skip = pair(image, 4, activation, norm)
    deep = floor(pair(down()(skip), 8, activation, norm))
    raised = up()(deep)
    x = layers.Concatenate()([raised, gate(skip, raised)])
    x = pair(x, 4, activation, norm)
    return keras.Model(image, layers.Conv2D(classes, 1, activation=last)(x))


def attention(skip: Any, raised: Any) -> Any:
    both = layers.Add()([layers.Conv2D(4, 1)(raised), layers.Conv2D(4, 1)(skip)])
    weight = layers.Conv2D(1, 1, activation="sigmoid")(layers.Activation("relu")(both))
    return layers.Multiply()([skip, weight])


def squeeze(x: Any) -> Any:
    mean = layers.Reshape((1, 1, 8))(layers.GlobalAveragePooling2D()(x))
    weight = layers.Dense(8, activation="sigmoid")(layers.Dense(4, activation="relu")(mean))
    return layers.Multiply()([x, weight])


def nested(x: Any) -> Any:
    image = layers.Input((None, None, 8))
    inner = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(image))
    return keras.Model(image, inner)(x)


def in_a_row(x: Any) -> Any:
    convolution = layers.Conv2D(8, 3, padding="same")
    return keras.Sequential([convolution, layers.LeakyReLU(), layers.Dropout(0.2)])(x)


def functions(x: Any) -> Any:
    mean = keras.ops.mean(x, axis=(1, 2), keepdims=True)
    curved = keras.ops.leaky_relu(1 - x, negative_slope=0.1)
    return (2 * x - curved) / 3 + keras.ops.maximum(x, 0.1) * mean


def smallest(x: Any) -> Any:
    return layers.Minimum()([x, layers.Conv2D(8, 1)(x)])


def shifted(x: Any) -> Any:
    """Shift by a pixel: pad at one end, cut at the other."""
    return layers.Cropping2D(((0, 1), (1, 0)))(layers.ZeroPadding2D(((1, 0), (0, 1)))(x))


def separable(x: Any) -> Any:
    x = layers.SeparableConv2D(8, 3, padding="same", depth_multiplier=2)(x)
    return layers.DepthwiseConv2D(3, padding="same", dilation_rate=2)(x)


NETS: dict[str, dict[str, Any]] = {
    "batch norm": {"norm": layers.BatchNormalization},
    "layer norm": {"norm": layers.LayerNormalization},
    "group norm": {"norm": lambda: layers.GroupNormalization(2)},
    "instance norm": {"norm": lambda: layers.GroupNormalization(-1)},
    **{word: {"activation": word} for word in ("elu", "selu", "gelu", "swish", "mish", "tanh")},
    "hard sigmoid": {"activation": "hard_sigmoid"},
    "leaky ReLU, a word": {"activation": "leaky_relu"},
    "leaky ReLU": {"activation": layers.LeakyReLU},
    "PReLU": {"activation": lambda: layers.PReLU(shared_axes=[1, 2])},
    "ELU": {"activation": lambda: layers.ELU(0.7)},
    "ReLU6": {"activation": lambda: layers.ReLU(6.0)},
    **{
        f"transposed, {size}": {
            "up": lambda size=size: layers.Conv2DTranspose(4, size, strides=2, padding="same")
        }
        for size in (2, 3, 4)
    },
    "nearest": {"up": lambda: layers.UpSampling2D(2)},
    "bilinear": {"up": lambda: layers.UpSampling2D(2, interpolation="bilinear")},
    "average pooling": {"down": lambda: layers.AveragePooling2D(2)},
    "strides": {"down": lambda: layers.Conv2D(4, 3, strides=2, padding="same")},
    "dropout": {"floor": lambda x: layers.SpatialDropout2D(0.3)(layers.Dropout(0.3)(x))},
    "noise": {"floor": lambda x: layers.GaussianDropout(0.3)(layers.GaussianNoise(0.3)(x))},
    "attention": {"gate": attention},
    "squeeze and excitation": {"floor": squeeze},
    "a network in it": {"floor": nested},
    "a sequence in it": {"floor": in_a_row},
    "functions": {"floor": functions},
    "the smallest": {"floor": smallest},
    "shifted": {"floor": shifted},
    "separable": {"floor": separable},
    "softmax": {"last": "softmax", "classes": 3},
    "sigmoid": {"last": "sigmoid", "classes": 1},
}


def shaken(net: Any) -> Any:
    """Give each weight a value of its own; no fresh one has them."""
    random = np.random.default_rng(0)
    for variable in net.weights:
        if "seed" in variable.path:
            continue
        share = np.prod(variable.shape[:-1]) ** -0.5 if len(variable.shape) > 1 else 0.3
        values = random.normal(0, share, variable.shape)
        variable.assign(np.abs(values) + 0.5 if "variance" in variable.path else values)
    return net


def answer(path: Path, image: np.ndarray) -> np.ndarray:
    """Compute with the reading that takes values as they are."""
    found = read_keras(path)[-1]
    net = build_network(found.architecture).eval()
    net.load_state_dict(found.tensors)
    with torch.no_grad():
        logits = net(torch.from_numpy(image).permute(0, 3, 1, 2))
        if found.card["activation"] == "softmax":
            logits = logits.softmax(1)
        elif found.card["activation"] == "sigmoid":
            logits = logits.sigmoid()
    return logits.permute(0, 2, 3, 1).numpy()


def check(net: Any, path: Path) -> None:
    """Save a network with weights of its own, and compare what is read with what Keras gives."""
    net = shaken(net)
    image = np.random.default_rng(1).normal(size=(1, 24, 32, 3)).astype(np.float32)
    expected = keras.ops.convert_to_numpy(net(image, training=False))
    scale = np.abs(expected).max()
    assert expected.std() > 1e-3 * scale > 0
    net.save(path)
    assert np.abs(answer(path, image) - expected).max() <= TOLERANCE * scale


@pytest.mark.parametrize("name", NETS)
def test_a_network_answers_as_it_does_in_keras(name, tmp_path):
    check(unet(**NETS[name]), tmp_path / ("net.keras" if len(name) % 2 else "net.h5"))


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_a_network_that_ends_in_another_one_answers_as_it_does_in_keras(suffix, tmp_path):
    image = layers.Input((None, None, 3))
    row = keras.Sequential([layers.Conv2D(3, 3, padding="same"), layers.ReLU()])
    scaled = row(row(layers.Rescaling(2.0, -1.0)(image)))
    net = unet()
    check(keras.Model(image, net(scaled)), tmp_path / f"once{suffix}")
    inner = layers.Input((None, None, 3))
    same = keras.Model(inner, layers.Conv2D(3, 3, padding="same", activation="relu")(inner))
    check(keras.Model(image, same(same(scaled))), tmp_path / f"twice{suffix}")
    check(keras.Model(image, row(scaled)), tmp_path / f"row{suffix}")


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_numbers_that_features_are_computed_with_are_not_left_out(suffix, tmp_path):
    """In HDF5 nothing but the number tells ``2 * x`` from the layer that multiplies features."""
    net = unet(floor=lambda x: 1 - (2 * x + 0.5))
    check(net, tmp_path / f"net{suffix}")


@pytest.mark.parametrize(
    ("floor", "sentence"),
    [
        (lambda x: layers.Lambda(lambda y: 2 * y)(x), "Lambda: it carries code"),
        (lambda x: keras.ops.max(x, axis=-1, keepdims=True), "function max"),
        (lambda x: layers.PReLU()(x), "differ from pixel to pixel"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_name(floor, sentence, tmp_path):
    image = layers.Input((16, 16, 3))
    net = keras.Model(image, layers.Conv2D(1, 1)(floor(layers.Conv2D(4, 3)(image))))
    net.save(tmp_path / "net.keras")
    with pytest.raises(ModelError, match=sentence):
        read_keras(tmp_path / "net.keras")


def test_weights_alone_are_refused_with_what_the_sender_can_do(tmp_path: Path) -> None:
    unet().save_weights(tmp_path / "mine.weights.h5")
    with pytest.raises(ModelError, match="without the network, as save_weights of Keras 3") as told:
        read_keras(tmp_path / "mine.weights.h5")
    assert "model.load_weights('mine.weights.h5') and model.save(" in str(told.value)
