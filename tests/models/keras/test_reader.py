from __future__ import annotations

import io
import json
import random
import zipfile
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
import torch
from torch.nn import functional

from napari_unet.errors import ModelError
from napari_unet.models.hdf5 import read_hdf5
from napari_unet.models.keras import read_keras
from tests.models.foreign_nets import TOLERANCE, answer, difference, image
from tests.models.mutations import mutations

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Arrays = list[np.ndarray]


class Written:
    """A network of Keras: its configuration, its weights, and what it computes.

    Each layer is computed here as Keras computes it, channels last, with plain arithmetic of
    torch.
    """

    def __init__(self, dims: int, channels: int, seed: int, *, version: int = 2) -> None:
        self.dims, self.version = dims, version
        self.random = np.random.default_rng(seed)
        self.layers: list[dict[str, Any]] = []
        self.weights: dict[str, tuple[list[str], Arrays]] = {}
        self.steps: list[tuple[str, list[str], Callable[..., torch.Tensor]]] = []
        self.channels = {"image": channels}
        shape = [None] * (dims + 1) + [channels]
        key = "batch_input_shape" if version == 2 else "batch_shape"
        self._note("image", "InputLayer", {key: shape}, [])

    def add(
        self,
        kind: str,
        reads: list[str],
        channels: int,
        compute: Callable[..., torch.Tensor],
        weights: dict[str, np.ndarray] | None = None,
        **settings: Any,
    ) -> str:
        """Add a layer; return its name."""
        count = sum(layer["class_name"] == kind for layer in self.layers)
        name = f"{kind.lower()}_{count + 1}"
        self._note(name, kind, settings, reads)
        if weights:
            self.weights[name] = (list(weights), list(weights.values()))
        self.steps.append((name, reads, compute))
        self.channels[name] = channels
        return name

    def _note(self, name: str, kind: str, settings: dict[str, Any], reads: list[str]) -> None:
        nodes: list[Any] = [[[read, 0, 0, {}] for read in reads]] if reads else []
        if self.version == 3 and reads:
            tensors = [
                {"class_name": "__keras_tensor__", "config": {"keras_history": [read, 0, 0]}}
                for read in reads
            ]
            nodes = [{"args": [tensors] if len(reads) > 1 else tensors, "kwargs": {}}]
        config = {"name": name, "data_format": "channels_last", **settings}
        self.layers.append(
            {"class_name": kind, "name": name, "config": config, "inbound_nodes": nodes}
        )

    def drawn(self, *shape: int) -> np.ndarray:
        """Draw weights."""
        spread = 1.2 / max(np.prod(shape[:-1]), 1) ** 0.5 if len(shape) > 1 else 0.3
        return self.random.normal(0, spread, shape).astype(np.float32)

    def run(self, x: torch.Tensor) -> torch.Tensor:
        """Compute with an image (N, C, *spatial); give the same order."""
        values = {"image": x.movedim(1, -1)}
        for name, reads, compute in self.steps:
            values[name] = compute(*(values[read] for read in reads))
        return values[self.steps[-1][0]].movedim(-1, 1)

    @property
    def config(self) -> dict[str, Any]:
        last = self.layers[-1]["name"]
        return {
            "class_name": "Model" if self.version == 2 else "Functional",
            "config": {
                "name": "net",
                "layers": self.layers,
                "input_layers": [["image", 0, 0]],
                "output_layers": [[last, 0, 0]],
            },
        }

    def save_h5(self, path: Path, *, alone: bool = False) -> Path:
        """Write the layout of ``model.save`` of Keras 2, or of ``save_weights``."""
        with h5py.File(path, "w") as file:
            if not alone:
                file.attrs["model_config"] = json.dumps(self.config).encode()
                file.attrs["keras_version"] = b"2.3.1"
            group = file if alone else file.create_group("model_weights")
            names = [layer["name"] for layer in self.layers]
            group.attrs["layer_names"] = [name.encode() for name in names]
            for name in names:
                kinds, arrays = self.weights.get(name, ([], []))
                keys = [f"{name}/{kind}:0" for kind in kinds]
                held = group.create_group(name)
                held.attrs["weight_names"] = [key.encode() for key in keys]
                for key, array in zip(keys, arrays, strict=True):
                    held[key] = array
        return path

    def save_keras(self, path: Path, *, names: bool = True) -> Path:
        """Write the layout of Keras 3; without names, that of its first versions."""
        content = io.BytesIO()
        counts: dict[str, int] = {}
        with h5py.File(content, "w") as file:
            for layer in self.layers:
                snake = SNAKES.get(layer["class_name"], layer["class_name"].lower())
                number = counts[snake] = counts.get(snake, -1) + 1
                group = file.create_group(f"layers/{snake}{f'_{number}' if number else ''}/vars")
                if names:
                    group.attrs["name"] = layer["name"]
                for place, array in enumerate(self.weights.get(layer["name"], ([], []))[1]):
                    group[str(place)] = array
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("metadata.json", "{}")
            archive.writestr("config.json", json.dumps(self.config))
            archive.writestr("model.weights.h5", content.getvalue())
        return path


SNAKES = {
    "Conv2D": "conv2d",
    "Conv3D": "conv3d",
    "Conv2DTranspose": "conv2d_transpose",
    "Conv3DTranspose": "conv3d_transpose",
    "BatchNormalization": "batch_normalization",
    "InputLayer": "input_layer",
    "PReLU": "p_re_lu",
    "DepthwiseConv2D": "depthwise_conv2d",
    "SeparableConv2D": "separable_conv2d",
}
ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "linear": lambda x: x,
    "relu": torch.relu,
    "elu": functional.elu,
    "selu": torch.selu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": functional.softplus,
    "swish": functional.silu,
    "gelu": functional.gelu,
    "hard_sigmoid": lambda x: torch.clip(0.2 * x + 0.5, 0, 1),
    "softmax": lambda x: torch.softmax(x, -1),
}
CONVOLVE = {2: functional.conv2d, 3: functional.conv3d}
LARGEST = {2: functional.max_pool2d, 3: functional.max_pool3d}


def pads(sizes: tuple[int, ...], kernel: tuple[int, ...], step: int, spread: int) -> list[int]:
    """Say what TensorFlow pads with padding "same", in the order of torch."""
    sides = []
    for size, width in zip(sizes, kernel, strict=True):
        total = max((-(-size // step) - 1) * step + (width - 1) * spread + 1 - size, 0)
        sides.append((total // 2, total - total // 2))
    return [side for pair in reversed(sides) for side in pair]


def convolved(
    x: torch.Tensor,
    kernel: np.ndarray,
    bias: np.ndarray | None,
    *,
    step: int = 1,
    spread: int = 1,
    groups: int = 1,
) -> torch.Tensor:
    """Convolve channels last; kernel (*kernel, in, out)."""
    x = x.movedim(-1, 1)
    dims = x.ndim - 2
    x = functional.pad(x, pads(tuple(x.shape[2:]), kernel.shape[:dims], step, spread))
    weight = torch.from_numpy(kernel).permute(-1, -2, *range(dims)).contiguous()
    shift = None if bias is None else torch.from_numpy(bias)
    y = CONVOLVE[dims](x, weight, shift, stride=step, dilation=spread, groups=groups)
    return y.movedim(1, -1)


def spread_out(x: torch.Tensor, kernel: np.ndarray, bias: np.ndarray, step: int) -> torch.Tensor:
    """Transpose the convolution with padding "same": pixel by pixel, as its gradient."""
    x = x.movedim(-1, 1)
    dims, sizes = x.ndim - 2, tuple(int(size) * step for size in x.shape[2:])
    weight = torch.from_numpy(kernel).permute(-1, -2, *range(dims)).contiguous()
    image_of = torch.zeros((1, weight.shape[1], *sizes), requires_grad=True)
    padded = functional.pad(image_of, pads(sizes, kernel.shape[:dims], step, 1))
    (y,) = torch.autograd.grad(CONVOLVE[dims](padded, weight, stride=step), image_of, x)
    return y.movedim(1, -1) + torch.from_numpy(bias)


def add_convolution(net: Written, reads: str, out: int, chance: random.Random, act: str) -> str:
    """Add a convolution of a kind."""
    dims, channels = net.dims, net.channels[reads]
    size, spread, biased = chance.choice([1, 2, 3, 5]), chance.choice([1, 1, 2]), chance.random()
    kernel, shift = net.drawn(*[size] * dims, channels, out), net.drawn(out)
    bias = shift if biased < 0.8 else None
    held = {"kernel": kernel} | ({} if bias is None else {"bias": bias})
    return net.add(
        f"Conv{dims}D",
        [reads],
        out,
        lambda x: ACTIVATIONS[act](convolved(x, kernel, bias, spread=spread)),
        held,
        padding="same",
        kernel_size=[size] * dims,
        dilation_rate=[spread] * dims,
        use_bias=bias is not None,
        activation=act,
    )


def add_norm(net: Written, reads: str, chance: random.Random) -> str:
    """Add a batch norm, with or without scale and centre."""
    count = net.channels[reads]
    scale, centre = chance.random() < 0.7, chance.random() < 0.7
    gamma, beta, mean = net.drawn(count) + 1, net.drawn(count), net.drawn(count)
    variance = np.abs(net.drawn(count)) + np.float32(0.5)
    held = {"gamma": gamma} if scale else {}
    held |= {"beta": beta} if centre else {}

    def compute(x: torch.Tensor) -> torch.Tensor:
        y = (x - torch.from_numpy(mean)) / torch.sqrt(torch.from_numpy(variance) + 1e-3)
        y = y * torch.from_numpy(gamma) if scale else y
        return y + torch.from_numpy(beta) if centre else y

    return net.add(
        "BatchNormalization",
        [reads],
        count,
        compute,
        held | {"moving_mean": mean, "moving_variance": variance},
        axis=-1,
        epsilon=1e-3,
        scale=scale,
        center=centre,
    )


def pooled(x: torch.Tensor, kind: str) -> torch.Tensor:
    """Pool by two, channels last."""
    x = x.movedim(-1, 1)
    dims = x.ndim - 2
    if kind == "Max":
        return LARGEST[dims](x, 2).movedim(1, -1)
    return functional.interpolate(x, scale_factor=0.5, mode="area").movedim(1, -1)


def unet(seed: int, *, version: int = 2) -> Written:
    """Draw a U-Net."""
    chance = random.Random(seed)
    dims = chance.choice([2, 2, 2, 3])
    net = Written(dims, chance.randint(1, 3), seed, version=version)
    usual = set(ACTIVATIONS) - {"softmax"}
    usual -= {"hard_sigmoid"} if version == 3 else set()
    act = chance.choice(sorted(usual))
    width, depth = chance.choice([2, 4]), chance.randint(1, 2)
    at, skips = "image", []
    if chance.random() < 0.3:
        at = net.add(
            "Rescaling", [at], net.channels[at], lambda x: x * 0.5 + 0.1, scale=0.5, offset=0.1
        )

    def block(at: str, out: int) -> str:
        for _ in range(chance.randint(1, 2)):
            at = add_convolution(net, at, out, chance, act)
            if chance.random() < 0.4:
                at = add_norm(net, at, chance)
            if chance.random() < 0.2:
                at = net.add("Dropout", [at], out, lambda x: x, rate=0.3)
            kind = chance.random()
            if kind < 0.15:
                at = net.add(
                    "LeakyReLU", [at], out, lambda x: functional.leaky_relu(x, 0.2), alpha=0.2
                )
            elif kind < 0.3:
                slope = net.drawn(*[1] * dims, out)
                at = net.add(
                    "PReLU",
                    [at],
                    out,
                    lambda x, s=slope: torch.where(x > 0, x, x * torch.from_numpy(s)),
                    {"alpha": slope},
                    shared_axes=[*range(1, dims + 1)],
                )
            elif kind < 0.45:
                at = net.add(
                    "ReLU", [at], out, lambda x: torch.clip(x, 0, 3), max_value=3.0, threshold=0.0
                )
        return at

    for level in range(depth):
        at = block(at, width << level)
        skips.append(at)
        kind = chance.choice(["Max", "Average"])
        at = net.add(
            f"{kind}Pooling{dims}D",
            [at],
            net.channels[at],
            lambda x, k=kind: pooled(x, k),
            pool_size=[2] * dims,
            strides=None,
            padding=chance.choice(["same", "valid"]),
        )
    at = block(at, width << depth)
    for level in reversed(range(depth)):
        out, channels = width << level, net.channels[at]
        kind = chance.random()
        if kind < 0.6:
            size = chance.choice([2, 3, 4])
            kernel, bias = net.drawn(*[size] * dims, out, channels), net.drawn(out)
            at = net.add(
                f"Conv{dims}DTranspose",
                [at],
                out,
                lambda x, k=kernel, b=bias: ACTIVATIONS[act](spread_out(x, k, b, 2)),
                {"kernel": kernel, "bias": bias},
                padding="same",
                strides=[2] * dims,
                activation=act,
            )
        else:
            smooth = kind > 0.8 and dims == 2
            mode = "bilinear" if smooth else "nearest"
            at = net.add(
                f"UpSampling{dims}D",
                [at],
                channels,
                lambda x, m=mode: functional.interpolate(
                    x.movedim(-1, 1), scale_factor=2, mode=m
                ).movedim(1, -1),
                size=[2] * dims,
                interpolation=mode,
            )
        pair = [at, skips[level]] if chance.random() < 0.5 else [skips[level], at]
        at = net.add(
            "Concatenate",
            pair,
            sum(net.channels[name] for name in pair),
            lambda *x: torch.cat(x, -1),
            axis=chance.choice([-1, dims + 1]),
        )
        at = block(at, out)
    classes = chance.randint(1, 3)
    ending = chance.choice(["sigmoid", "softmax", "linear"])
    kernel, bias = net.drawn(*[1] * dims, net.channels[at], classes), net.drawn(classes)
    net.add(
        f"Conv{dims}D",
        [at],
        classes,
        lambda x: ACTIVATIONS[ending](convolved(x, kernel, bias)),
        {"kernel": kernel, "bias": bias},
        padding="valid",
        activation=ending,
    )
    return net


def check(net: Written, path: Path) -> None:
    """Compare what is read with what is computed here."""
    x = image((1, net.channels["image"], *(16, 24, 8)[: net.dims]))
    assert difference(answer(read_keras(path)[0], x), net.run(x)) <= TOLERANCE


@pytest.mark.parametrize("seed", range(3))
def test_a_network_of_keras_2_answers_as_its_layers_say(seed, tmp_path):
    net = unet(seed)
    check(net, net.save_h5(tmp_path / "net.h5"))


@pytest.mark.parametrize("names", [True, False])
@pytest.mark.parametrize("seed", range(2))
def test_a_network_of_keras_3_answers_as_its_layers_say(seed, names, tmp_path):
    net = unet(seed, version=3)
    check(net, net.save_keras(tmp_path / "net.keras", names=names))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", range(0, 200, 50))
def test_hundreds_of_networks_answer_as_their_layers_say(first, tmp_path):
    for seed in range(first, first + 50):
        if seed % 2:
            net = unet(seed)
            check(net, net.save_h5(tmp_path / "net.h5"))
        else:
            net = unet(seed, version=3)
            check(net, net.save_keras(tmp_path / "net.keras", names=bool(seed % 4)))


@pytest.mark.parametrize("size", [2, 3])
def test_a_convolution_with_stride_pads_as_tensorflow_does(size, tmp_path):
    net = Written(2, 2, 0)
    kernel, bias = net.drawn(size, size, 2, 3), net.drawn(3)
    net.add(
        "Conv2D",
        ["image"],
        3,
        lambda x: convolved(x, kernel, bias, step=2),
        {"kernel": kernel, "bias": bias},
        padding="same",
        strides=[2, 2],
    )
    check(net, net.save_h5(tmp_path / "net.h5"))


def test_separable_and_depthwise_convolutions_keep_their_order(tmp_path):
    net = Written(2, 3, 0)
    depthwise, bias = net.drawn(3, 3, 3, 2), net.drawn(6)

    def by_channel(x: torch.Tensor, kernel: np.ndarray) -> torch.Tensor:
        each = [convolved(x[..., c : c + 1], kernel[:, :, c : c + 1], None) for c in range(3)]
        return torch.cat(each, -1)

    at = net.add(
        "SeparableConv2D",
        ["image"],
        3,
        lambda x: convolved(by_channel(x, depthwise), pointwise, last),
        {"d": depthwise, "p": (pointwise := net.drawn(1, 1, 6, 3)), "b": (last := net.drawn(3))},
        padding="same",
        depth_multiplier=2,
    )
    net.add(
        "DepthwiseConv2D",
        [at],
        6,
        lambda x: by_channel(x, depthwise) + torch.from_numpy(bias),
        {"d": depthwise, "b": bias},
        padding="same",
        depth_multiplier=2,
    )
    check(net, net.save_h5(tmp_path / "net.h5"))


def starter(*, activation: str, dropout: bool, upsampled_first: bool) -> Written:
    """Build a small U-Net whose layers have the names that Keras gives them."""
    net = Written(2, 1, 5)
    numbers: dict[str, int] = {}

    def named(stem: str) -> str:
        numbers[stem] = numbers.get(stem, 0) + 1
        old, layer = net.layers[-1]["name"], net.layers[-1]
        name = f"{stem}_{numbers[stem]}"
        layer["name"] = layer["config"]["name"] = name
        net.channels[name] = net.channels[old]
        if old in net.weights:
            net.weights[name] = net.weights.pop(old)
        last, reads, compute = net.steps.pop()
        assert last == old
        net.steps.append((name, reads, compute))
        return name

    def convolution(at: str, out: int, size: int, act: str) -> str:
        kernel, bias = net.drawn(size, size, net.channels[at], out), net.drawn(out)
        net.add(
            "Conv2D",
            [at],
            out,
            lambda x: ACTIVATIONS[act](convolved(x, kernel, bias)),
            {"kernel": kernel, "bias": bias},
            padding="same",
            activation=act,
        )
        return named("conv2d")

    def block(at: str, out: int) -> str:
        at = convolution(at, out, 3, activation)
        if dropout:
            net.add("Dropout", [at], out, lambda x: x, rate=0.1)
            at = named("dropout")
        return convolution(at, out, 3, activation)

    at, skips = "image", []
    for level in range(2):
        at = block(at, 4 << level)
        skips.append(at)
        net.add("AveragePooling2D", [at], 4 << level, lambda x: pooled(x, "Average"))
        at = named("average_pooling2d")
    at = block(at, 16)
    for level in (1, 0):
        out = 4 << level
        kernel, bias = net.drawn(2, 2, out, net.channels[at]), net.drawn(out)
        net.add(
            "Conv2DTranspose",
            [at],
            out,
            lambda x, k=kernel, b=bias: spread_out(x, k, b, 2),
            {"kernel": kernel, "bias": bias},
            strides=[2, 2],
            padding="same",
        )
        at = named("conv2d_transpose")
        pair = [at, skips[level]] if upsampled_first else [skips[level], at]
        net.add("Concatenate", pair, 2 * out, lambda *x: torch.cat(x, -1), axis=3)
        at = block(named("concatenate"), out)
    convolution(at, 1, 1, "sigmoid")
    return net


@pytest.mark.parametrize("activation", ["relu", "elu"])
@pytest.mark.parametrize("dropout", [True, False])
@pytest.mark.parametrize("upsampled_first", [True, False])
def test_of_weights_alone_one_reading_is_the_network(
    activation, dropout, upsampled_first, tmp_path
):
    net = starter(activation=activation, dropout=dropout, upsampled_first=upsampled_first)
    found = read_keras(net.save_h5(tmp_path / "net.h5", alone=True))
    x = image((1, 1, 16, 24))
    right = [one for one in found if difference(answer(one, x), net.run(x)) <= TOLERANCE]
    assert len(right) == 1
    assert ("ELU" in right[0].title) == (activation == "elu")
    assert len({one.title for one in found}) == len(found) == 4
    assert all("skip order" in one.assumed for one in found)
    # With dropout between convolutions it is the well-known one, which has ELU.
    assert found[0].title.startswith("ELU" if dropout else "ReLU")


@pytest.mark.parametrize("first", [0, 1])
def test_a_network_within_a_network_is_read(first, tmp_path):
    """Keras 2 counts that a network was made as a call of it, so that the first one is 1."""
    inner = Written(2, 4, 3)
    kernel, bias = inner.drawn(3, 3, 4, 2), inner.drawn(2)
    inner.add("Conv2D", ["image"], 2, lambda x: x, {"kernel": kernel, "bias": bias}, padding="same")
    net = Written(2, 1, 4)
    at = add_convolution(net, "image", 4, random.Random(0), "relu")
    held = {"conv2d_1/kernel": kernel, "conv2d_1/bias": bias}
    name = net.add("Model", [at], 2, lambda x: convolved(x, kernel, bias), held)
    net.layers[-1]["config"] = inner.config["config"] | {"name": name}
    net.add("ReLU", [name], 2, torch.relu)
    net.layers[-1]["inbound_nodes"][0][0][1] = first
    check(net, net.save_h5(tmp_path / "net.h5"))


def test_a_lambda_layer_is_refused_because_it_carries_code(tmp_path):
    net = Written(2, 1, 0)
    add_convolution(net, "image", 1, random.Random(0), "relu")
    net.add("Lambda", ["conv2d_1"], 1, lambda x: x, function=["4wEAAAA=", None, None])
    with pytest.raises(ModelError, match="carries code"):
        read_keras(net.save_h5(tmp_path / "net.h5"))


def test_a_layer_that_is_not_known_is_refused_by_its_name(tmp_path):
    net = Written(2, 1, 0)
    net.add("TimeDistributed", ["image"], 1, lambda x: x)
    with pytest.raises(ModelError, match="TimeDistributed"):
        read_keras(net.save_h5(tmp_path / "net.h5"))


def test_two_inputs_are_refused_in_a_sentence(tmp_path):
    net = Written(2, 1, 0)
    net._note("second", "InputLayer", {"batch_input_shape": [None, None, None, 1]}, [])
    net.add("Add", ["image", "second"], 1, lambda x, y: x + y)
    with pytest.raises(ModelError, match=r"has two inputs \(image, second\)"):
        read_keras(net.save_h5(tmp_path / "net.h5"))


@pytest.mark.parametrize("name", ["full_model.h5", "weights_only.h5"])
def test_the_pancreas_net_gives_its_reference_mask(name, data_dir):
    folder = data_dir / "weights" / "keras_pancreas_phc"
    x = np.load(folder / "example_input.npy").astype(np.float32).reshape(1, 1, 576, 720)
    x = torch.from_numpy((x - x.min()) / (x.max() - x.min()))
    expected = np.load(folder / "example_result.npy").reshape(1, 1, 576, 720) > 0
    assert ((answer(read_keras(folder / name)[0], x) > 0.5).numpy() == expected).all()


def test_hdf5_that_unpacks_to_very_much_is_refused(tmp_path):
    path = tmp_path / "bomb.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (1 << 20, 1 << 10), "f4", chunks=(1 << 10, 1 << 10))
    with pytest.raises(ModelError, match="far larger"):
        read_keras(path)


def test_hdf5_that_refers_to_other_files_is_refused(tmp_path):
    for number, kind in enumerate(("link", "raw")):
        path = tmp_path / f"{number}.h5"
        with h5py.File(path, "w") as file:
            if kind == "link":
                file["a"] = h5py.ExternalLink("/etc/hostname", "/")
            else:
                file.create_dataset("a", (4,), "u1", external=[("/etc/hostname", 0, 4)])
        with pytest.raises(ModelError, match="refers to other"):
            read_keras(path)


def test_a_process_that_breaks_off_is_told(monkeypatch):
    monkeypatch.setattr("napari_unet.models.hdf5._CODE", "import os; os.abort()")
    with pytest.raises(ModelError, match="broke off"):
        read_hdf5(b"", "net.h5")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("ending", ["h5", "keras"])
def test_damaged_files_are_refused_or_read_and_nothing_else(ending, tmp_path):
    net = unet(7)
    if ending == "h5":
        good = net.save_h5(tmp_path / "good.h5").read_bytes()
    else:
        good = unet(7, version=3).save_keras(tmp_path / "good.keras").read_bytes()
    bad = tmp_path / f"bad.{ending}"
    refused = 0
    for seed in range(mutations(200)):
        chance = random.Random(seed)
        changed = bytearray(good)
        kind = chance.choice(["cut", "flip", "set", "insert"])
        for _ in range(1 if kind == "cut" else chance.choice([1, 10, 100])):
            at = chance.randrange(len(changed))
            if kind == "cut":
                del changed[at:]
            elif kind == "flip":
                changed[at] ^= 1 << chance.randrange(8)
            elif kind == "set":
                changed[at] = chance.randrange(256)
            else:
                changed[at:at] = b"\xff"
        bad.write_bytes(changed)
        try:
            assert read_keras(bad)
        except ModelError:
            refused += 1
    assert refused > 50
