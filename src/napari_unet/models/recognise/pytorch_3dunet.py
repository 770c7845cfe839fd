"""The networks of wolny/pytorch-3dunet: UNet2D, UNet3D, ResidualUNet3D and ResidualUNetSE3D.

The library spells the layers of a convolution with letters: ``gcr`` is group norm, convolution,
ReLU. A norm before the convolution has as many channels as that reads, one behind it as many as
it gives; where these are equal everywhere, as in residual networks, the order of the file tells.
The letter of the activation is not in the file, nor which side of a norm behind it stands on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_unet.models.assumptions import YOU, Assumption, check_told, with_told
from napari_unet.models.found import Found
from napari_unet.models.recognise.layers import Layers
from napari_unet.models.recognise.questions import QUESTIONS
from napari_unet.models.recognise.wiring import Wiring
from napari_unet.network.graph import IMAGE
from napari_unet.settings import Normalization

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from napari_unet.network.graph import ActivationKind

FAMILY = "a network of pytorch-3dunet"
_SPREAD = "upsampling.upsample.conv_transposed"
_SPREAD_BEFORE = "upsampling.upsample"  # in versions before 2021
_LAYERS, _UP = "layers", "up"
_GROUPS = (8, 16, 4, 32, 2)  # the library's default, then what people choose instead
_NORMS = ("groupnorm", "batchnorm")
_LETTERS: dict[str, tuple[ActivationKind, float, str]] = {
    "r": ("relu", 0.0, "ReLU"),
    "l": ("leaky_relu", 0.01, "LeakyReLU with slope 0.01"),
    "L": ("leaky_relu", 0.1, "LeakyReLU with slope 0.1"),  # of the versions before 2024
    "e": ("elu", 1.0, "ELU"),
}
_PLACES = {
    "norm-activation": ("cna", "norm behind the convolution, then activation"),
    "activation-norm": ("can", "activation behind the convolution, then norm"),
    "norm-first": ("nca", "norm before the convolution, activation behind it"),
}
"""How layers may follow each other, ``a`` for any activation."""
_TOPICS = {question.name: question.topic for question in QUESTIONS}
_AFTER_RESIDUAL = 0.1  # slope of LeakyReLU behind the sum, whatever it is elsewhere


@dataclass(frozen=True)
class _Order:
    """The layers of a convolution, spelt as the library does, ``n`` for a norm."""

    letters: str
    groups: int
    """Of group norm; a norm of fewer channels has one."""

    @property
    def activation(self) -> str:
        """The letter of the activation."""
        return next(letter for letter in self.letters if letter in _LETTERS)

    @property
    def place(self) -> str:
        """How the layers follow each other, by the name that a person tells; empty: no norm."""
        spelt = self.letters.replace(self.activation, "a")
        return next((name for name, (letters, _) in _PLACES.items() if letters == spelt), "")

    def placed(self, place: str) -> _Order:
        """Return the same with its layers in another order; empty: as they are."""
        if not place:
            return self
        return _Order(_PLACES[place][0].replace("a", self.activation), self.groups)

    def activated(self, kind: str) -> _Order:
        """Return the same with another activation, its slope as the library has it now."""
        if kind == _LETTERS[self.activation][0]:
            return self
        letter = next(letter for letter, (name, *_) in _LETTERS.items() if name == kind)
        return _Order(self.letters.replace(self.activation, letter), self.groups)

    @property
    def linear(self) -> _Order:
        """The same without an activation."""
        letters = "".join(letter for letter in self.letters if letter not in _LETTERS)
        return _Order(letters, self.groups)


def recognise_pytorch_3dunet(layers: Layers) -> list[Found] | None:
    """Recognise a network of pytorch-3dunet.

    Parameters
    ----------
    layers : Layers
        What the file holds.

    Returns
    -------
    list of Found or None
        The likeliest order of layers first; None if the names are not those of this library.

    Raises
    ------
    ModelError
        If they are, but tensors are missing, left over or of another shape.
    """
    block = r"encoders\.0\.basic_module\.(SingleConv1|conv1|conv2)\."
    if not layers.has_keys(block, r"decoders\.0\.", r"final_conv\."):
        return None
    first = _first(layers)
    layers = _with_kernels(layers, Wiring(layers, FAMILY, first).spatial_dims)
    places = _norm_places(layers)
    return [_found(layers, first, order, places) for order in _orders(layers, places)]


def _found(
    layers: Layers, first: str, order: _Order, places: list[str], told: Collection[str] = ()
) -> Found:
    """Wire the network in one order of its layers; a person may have told parts of it."""
    wiring = Wiring(layers, FAMILY, first)
    _wire(wiring, order, _upsampling(layers))
    asked = _asked(order, places)

    def reread(values: Mapping[str, str]) -> Found:
        """Read it as a person says."""
        mine = check_told(values, asked)
        changed = order.placed(mine.get("order", order.place))
        changed = changed.activated(mine.get("activation", _LETTERS[order.activation][0]))
        return _found(layers, first, changed, places, {*told, *values})

    topics = {one.topic: _said(one) for one in asked}
    mine = {one.topic for one in asked if one.name in told}
    return Found(
        architecture=wiring.graph(),
        tensors=wiring.tensors,
        card={
            "normalization": Normalization(kind="mean-std"),
            "activation": "sigmoid",
            "told": {topic: f"{said}." for topic, said in topics.items() if topic in mine},
        },
        assumed={
            **_assumed(layers, order),
            **{
                topic: f"{said}: the weights do not tell."
                for topic, said in topics.items()
                if topic not in mine
            },
        },
        title=_title(order),
        assumptions=with_told(asked, told, YOU),
        reread=reread,
    )


def _asked(order: _Order, places: list[str]) -> list[Assumption]:
    """List what a person may tell of the layers of a convolution."""
    kinds = {kind: words for kind, _, words in (_LETTERS[letter] for letter in "rle")}
    kind, _, words = _LETTERS[order.activation]
    activation = Assumption(
        name="activation",
        topic=_TOPICS["activation"],
        value=kind,
        choices={**kinds, kind: words},
    )
    if len(places) < 2:
        return [activation]
    place = Assumption(
        name="order",
        topic=_TOPICS["order"],
        value=order.place,
        choices={place: _PLACES[place][1] for place in places},
    )
    return [activation, place]


def _said(asked: Assumption) -> str:
    """Say how a point is read."""
    words = asked.choices[asked.value]
    return words[0].upper() + words[1:]


def _with_kernels(layers: Layers, axes: int) -> Layers:
    """Write the fully connected layers of squeeze and excitation as convolutions of one pixel."""
    return Layers(
        {
            key: tensor.reshape(*tensor.shape, *(1,) * axes)
            if key.endswith((".fc1.weight", ".fc2.weight")) and tensor.ndim == 2
            else tensor
            for key, tensor in layers.tensors.items()
        }
    )


def _first(layers: Layers) -> str:
    """Name the convolution that reads the image."""
    start = "encoders.0.basic_module."
    names = ("SingleConv1.conv", "conv1", "conv1.conv", "conv2.conv")
    return start + next((name for name in names if start + name in layers), names[0])


def _orders(layers: Layers, places: list[str]) -> list[_Order]:
    """List the orders of layers that fit, the likeliest first."""
    is_residual = "SingleConv" not in _first(layers)
    groups = _groups(layers)
    if not places:
        return [_Order(f"c{letter}", groups) for letter in _LETTERS]
    # Residual networks have the library's default behind a norm: ELU.
    letters = "erlL" if is_residual and places[0] != "norm-first" else "rlLe"
    return [_Order(f"cn{letter}", groups).placed(place) for letter in letters for place in places]


def _groups(layers: Layers) -> int:
    """Return the library's number of groups, or the next that divides the channels of all norms."""
    norms = [layer.channels for layer in layers.of_kind("norm")]
    fitting = (
        groups
        for groups in _GROUPS
        if all(channels % groups == 0 for channels in norms if channels >= groups)
    )
    return next(fitting, 1)


def _norm_places(layers: Layers) -> list[str]:
    """List how norm, convolution and activation may follow each other; empty: no norms."""
    behind = ["norm-activation", "activation-norm"]
    norms = [layer for layer in layers.of_kind("norm") if layer.name.endswith(_NORMS)]
    pairs = {f"{norm.parent}.conv": norm for norm in norms}
    for convolution in layers.of_kind("convolution"):
        norm = pairs.get(convolution.name)
        if norm is not None and len({*convolution.sizes}) > 1:
            return ["norm-first"] if norm.channels == convolution.sizes[1] else behind
    if not norms:
        return []
    keys = list(layers.tensors)
    if keys == sorted(keys):
        return ["norm-first", *behind]  # such an order tells nothing; the library's default first
    names = [layer.name for layer in layers]
    convolution_name = f"{norms[0].parent}.conv"
    if convolution_name not in layers:
        return behind
    is_first = names.index(norms[0].name) < names.index(convolution_name)
    return ["norm-first"] if is_first else behind


def _title(order: _Order) -> str:
    """Tell an order from the others."""
    name = _LETTERS[order.activation][2]
    return f"{name} before the norm" if order.place == "activation-norm" else name


def _assumed(layers: Layers, order: _Order) -> dict[str, str]:
    """Say what is taken for granted beside the layers of a convolution."""
    said = {
        "activation": (
            "Sigmoid, the library's default for its answer; it may as well be softmax, if "
            "classes exclude each other."
        ),
        "normalization": "Zero mean and unit variance, customary with this library.",
        "pooling": "The largest of 2 pixels along each axis, the library's default.",
    }
    if any(layer.name.endswith("groupnorm") for layer in layers):
        said["kind of norm"] = (
            f"{order.groups} groups of channels, 1 where channels are fewer; the library's "
            f"default is {_GROUPS[0]}."
        )
    return said


def _upsampling(layers: Layers) -> str:
    """Name the transposed convolution of each stage up; empty: sizes are interpolated."""
    names = (_SPREAD, _SPREAD_BEFORE)
    return next(
        (name for name in names if any(layer.name.endswith(f".{name}") for layer in layers)), ""
    )


def _wire(wiring: Wiring, order: _Order, upsampling: str) -> None:
    """Add all layers."""
    node, skips, level = IMAGE, [], 0
    while level == 0 or _has_block(wiring, f"encoders.{level}.basic_module"):
        node = wiring.pooling(node) if level else node
        node = _block(wiring, f"encoders.{level}.basic_module", node, order)
        skips.append(node)
        level += 1
    skips.pop()
    for up in range(len(skips)):
        node = _join(wiring, f"decoders.{up}", node, skips.pop(), upsampling)
        node = _block(wiring, f"decoders.{up}.basic_module", node, order)
    wiring.convolution("final_conv", node)


def _has_block(wiring: Wiring, name: str) -> bool:
    """Say whether there is a block of that name."""
    return wiring.has(f"{name}.SingleConv1.conv") or wiring.has(f"{name}.conv2.conv")


def _join(wiring: Wiring, name: str, reads: str, skip: str, upsampling: str) -> str:
    """Enlarge to the size of the skip; add it in residual networks, else put it in front."""
    if upsampling:
        kernel = wiring.kernel(f"{name}.{upsampling}", "transposed convolution")
        # Cut by one pixel on both sides; older versions then add what doubles the size.
        before = upsampling == _SPREAD_BEFORE
        crop = tuple((1, size - 3 if before else 1) for size in kernel)
        node = wiring.transposed(f"{name}.{upsampling}", reads, stride=2, crop=crop, bias=_UP)
        node = node if before else wiring.resize(node, mode="nearest", like=skip)
    else:
        node = wiring.resize(reads, mode="nearest", like=skip)
    block = f"{name}.basic_module"
    if wiring.has(f"{block}.SingleConv1.conv"):
        return wiring.concatenate(skip, node)
    return wiring.join("add", skip, node)


def _block(wiring: Wiring, name: str, reads: str, order: _Order) -> str:
    """Add two convolutions, or a residual block."""
    if wiring.has(f"{name}.SingleConv1.conv"):
        node = _single(wiring, f"{name}.SingleConv1", reads, order)
        return _single(wiring, f"{name}.SingleConv2", node, order)
    if wiring.has(f"{name}.conv1.conv"):
        reads = _single(wiring, f"{name}.conv1", reads, order)
    elif wiring.has(f"{name}.conv1"):
        reads = wiring.convolution(f"{name}.conv1", reads)
    node = _single(wiring, f"{name}.conv2", reads, order)
    node = wiring.join("add", _single(wiring, f"{name}.conv3", node, order.linear), reads)
    kind, slope, _ = _LETTERS[order.activation]
    node = wiring.activation(kind, node, _AFTER_RESIDUAL if kind == "leaky_relu" else slope)
    return _excite(wiring, f"{name}.se_module", node)


def _single(wiring: Wiring, name: str, reads: str, order: _Order) -> str:
    """Add a convolution with its norm and activation, in the order that is spelt."""
    node = reads
    for letter in order.letters:
        if letter == "c":
            node = wiring.convolution(f"{name}.conv", node, bias=_LAYERS)
        elif letter == "n":
            kind = next((norm for norm in _NORMS if wiring.has(f"{name}.{norm}")), _NORMS[0])
            groups = order.groups if wiring.channels(node) >= order.groups else 1
            node = wiring.norm(f"{name}.{kind}", node, affine="group", groups=groups)
        else:
            kind_, slope, _ = _LETTERS[letter]
            node = wiring.activation(kind_, node, slope)
    return node


def _excite(wiring: Wiring, name: str, reads: str) -> str:
    """Weight channels, pixels or the stronger of both, if the file has such attention."""
    both = wiring.has(f"{name}.cSE.fc1")
    channels = f"{name}.cSE" if both else name
    pixels = f"{name}.sSE" if both else name
    parts = []
    if wiring.has(f"{channels}.fc1"):
        squeezed = wiring.convolution(f"{channels}.fc1", wiring.global_average(reads))
        squeezed = wiring.convolution(f"{channels}.fc2", wiring.activation("relu", squeezed))
        parts.append(wiring.join("multiply", reads, wiring.activation("sigmoid", squeezed)))
    if wiring.has(f"{pixels}.conv"):
        gate = wiring.activation("sigmoid", wiring.convolution(f"{pixels}.conv", reads))
        parts.append(wiring.join("multiply", reads, gate))
    return wiring.join("maximum", *parts) if len(parts) > 1 else parts[0] if parts else reads
