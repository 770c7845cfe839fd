"""What MONAI's networks have in common: a convolution with norm and activation behind it.

MONAI names them ``<place>.conv``, ``<place>.adn.N`` and ``<place>.adn.A``. An activation without
slopes of its own and a norm that does not scale leave no tensor, and a norm that scales looks
the same whether it measures each channel or groups of them: :class:`Unseen` says how such a file
is read, and :func:`readings` which other ways there are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.models.recognise.layers import Layers
    from napari_unet.models.recognise.wiring import Wiring
    from napari_unet.network.graph import ActivationKind, Sides, Sizes

ACTIVATION = "activation of the layers"
NORM = "kind of norm"
ALIKE = "alike"
"""The word for convolutions of which all have a bias or none has."""

_GROUPS = (8, 4, 16, 32, 2)  # counts of groups that people choose, as far as they divide
_NAMES: dict[str, str] = {
    "relu": "ReLU",
    "leaky_relu": "LeakyReLU",
    "elu": "ELU",
    "gelu": "GELU",
    "silu": "Swish",
}


@dataclass(frozen=True)
class Unseen:
    """What the tensors do not show, alike for all layers of a network."""

    activation: ActivationKind = "relu"
    """Where no slopes are in the file."""
    slope: float = 0.01
    """Of LeakyReLU."""
    affine: Literal["instance", "group"] = "instance"
    """What a norm with weights but without statistics measures."""
    groups: int = 1
    """Of group norm."""
    bare: Literal["instance", "none", "refused"] = "instance"
    """Whether there is a norm where the file has none; refused if it has some elsewhere."""
    slopes: bool = False
    """Whether the slopes of all activations have to be in the file."""
    norm_first: bool = True
    """Whether the norm comes before the activation."""
    title: str = ""
    """What tells this reading from the others."""

    @property
    def activation_name(self) -> str:
        """The activation in words."""
        name = _NAMES[self.activation]
        return f"{name} with slope {self.slope:g}" if self.activation == "leaky_relu" else name


@dataclass(frozen=True)
class Shown:
    """What the tensors do show."""

    slopes: bool
    """Whether activations have slopes in the file: PReLU."""
    affine: bool
    """Whether norms have weights, and no statistics."""
    bare: bool
    """Whether there are no tensors of norms at all."""
    channels: tuple[int, ...]
    """Of the norms."""


def look(layers: Layers) -> Shown:
    """Tell which norms and activations left tensors."""
    norms = layers.of_kind("norm")
    return Shown(
        slopes=bool(layers.of_kind("prelu")),
        affine=any(not norm.has_statistics for norm in norms),
        bare=not norms,
        channels=tuple(norm.channels for norm in norms),
    )


def readings(
    shown: Shown, usual: Unseen, others: Sequence[tuple[ActivationKind, float]]
) -> list[Unseen]:
    """List the ways to read a file, the library's defaults first.

    Parameters
    ----------
    shown : Shown
        What is not to be guessed.
    usual : Unseen
        The defaults of the library.
    others : sequence of tuple of str and float
        Activations (kind and slope) that are worth a try besides.

    Returns
    -------
    list of Unseen
        Each with a title; they differ from the first in one thing.
    """
    norm = "norm of each channel" if shown.affine else "norm without weights"
    parts = [] if shown.slopes else [usual.activation_name]
    parts += [norm] if shown.affine or shown.bare else []
    usual = replace(usual, slopes=shown.slopes, bare=usual.bare if shown.bare else "refused")
    found = [replace(usual, title=", ".join(parts))]
    if shown.bare:
        found.append(replace(usual, bare="none", title="no norm"))
    if not shown.slopes:
        for kind, slope in others:
            other = replace(usual, activation=kind, slope=slope)
            found.append(replace(other, title=other.activation_name))
    if shown.affine:
        found += [
            replace(usual, affine="group", groups=groups, title=f"norm of {groups} groups")
            for groups in _GROUPS
            if all(channels % groups == 0 for channels in shown.channels)
        ]
    return found


def assumptions(shown: Shown, unseen: Unseen, network: str) -> dict[str, str]:
    """Say in sentences what a reading takes for granted."""
    said: dict[str, str] = {}
    if not shown.slopes:
        said[ACTIVATION] = (
            f"{unseen.activation_name}: the weights do not tell. The default of {network} is "
            "tried first."
        )
    if shown.affine:
        said[NORM] = (
            f"Group norm with {unseen.groups} groups: its weights look like those of instance norm."
            if unseen.affine == "group"
            else "Instance norm: group norm has the same weights, but is chosen less often."
        )
    if shown.bare:
        said[NORM] = (
            "None: the file has no tensors of norms."
            if unseen.bare == "none"
            else "Instance norm without weights: it leaves no tensors, as no norm does."
        )
    return said


def norm_first(layers: Layers) -> bool:
    """Say whether norms stand before activations, as far as the order of the file tells."""
    keys = list(layers.tensors)
    if keys == sorted(keys):
        return True
    places = {name: place for place, name in enumerate(layer.name for layer in layers)}
    return all(
        place < places[other]
        for name, place in places.items()
        if name.endswith(".adn.N") and (other := f"{name[:-1]}A") in places
    )


def convolve(
    wiring: Wiring,
    name: str,
    reads: str,
    unseen: Unseen,
    *,
    stride: int | Sizes = 1,
    plain: bool = False,
) -> str:
    """Add MONAI's convolution ``name``; ``plain``: without norm and activation."""
    node = wiring.convolution(f"{name}.conv", reads, stride=stride, bias=ALIKE)
    return node if plain else _norm_and_activate(wiring, f"{name}.adn", node, unseen)


def convolve_up(
    wiring: Wiring,
    name: str,
    reads: str,
    unseen: Unseen,
    *,
    stride: int | Sizes,
    plain: bool = False,
) -> str:
    """Add MONAI's transposed convolution ``name``, which gives ``stride`` times the size."""
    kernel = wiring.kernel(f"{name}.conv", "transposed convolution")
    steps = (stride,) * len(kernel) if isinstance(stride, int) else stride
    crop: Sides = tuple(
        ((size - 1) // 2, (size - 1) // 2 - (step - 1))
        for size, step in zip(kernel, steps, strict=True)
    )
    node = wiring.transposed(f"{name}.conv", reads, stride=stride, crop=crop, bias=ALIKE)
    return node if plain else _norm_and_activate(wiring, f"{name}.adn", node, unseen)


def activate(wiring: Wiring, name: str, reads: str, unseen: Unseen) -> str:
    """Add the activation: with slopes if the file has them under this name."""
    if unseen.slopes:
        return wiring.prelu(name, reads)
    return wiring.activation(unseen.activation, reads, unseen.slope)


def normalise(wiring: Wiring, name: str, reads: str, unseen: Unseen) -> str:
    """Add the norm ``name``."""
    return wiring.norm(name, reads, affine=unseen.affine, groups=unseen.groups, bare=unseen.bare)


def _norm_and_activate(wiring: Wiring, name: str, reads: str, unseen: Unseen) -> str:
    """Add what MONAI puts behind a convolution."""
    if not unseen.norm_first:
        node = activate(wiring, f"{name}.A", reads, unseen)
        return normalise(wiring, f"{name}.N", node, unseen)
    node = normalise(wiring, f"{name}.N", reads, unseen)
    return activate(wiring, f"{name}.A", node, unseen)
