"""What the description of a package tells for the card of its network."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_unet.errors import ModelError, SettingError
from napari_unet.models.assumptions import PACKAGE
from napari_unet.models.bioimageio.postprocessing import Postprocessing, read_postprocessing
from napari_unet.models.bioimageio.preprocessing import read_preprocessing
from napari_unet.models.bioimageio.values import as_dict, dicts, text_of
from napari_unet.models.bioimageio.written_steps import write_preprocessing
from napari_unet.models.card import DISTANCE, FOREGROUND
from napari_unet.models.own_card import with_card
from napari_unet.settings import InstanceSettings, Normalization, checked

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari_unet.models.bioimageio.tensors import Tensor
    from napari_unet.models.found import Found
    from napari_unet.network.graph import Graph
    from napari_unet.settings import Architecture

BOUNDARY = "boundary"
_WORDS = (
    (BOUNDARY, r"bound|border|edge|contour|membrane"),
    (DISTANCE, r"dist"),
    (FOREGROUND, r"foreground|fg|prob|mask|cell|nucle|object|interior"),
)


def finished(found: Found, description: dict[str, Any], tensors: tuple[Tensor, Tensor]) -> Found:
    """Join what the weights tell with what the description tells."""
    (source, target), shape = tensors, found.architecture
    if shape.spatial_dims != len(source.spatial):
        raise ModelError(
            f"The description has {len(source.spatial)} spatial axes, the weights are of a "
            f"network of {shape.spatial_dims}. The package is wrong; choose another one."
        )
    told = {"normalization", "outputs", "activation", "input_channels"}
    assumed = {field: text for field, text in found.assumed.items() if field not in told}
    known = {**found.card, **_card_of(description, source)}
    known["normalization"] = read_preprocessing(
        source.steps, shape.in_channels, source.spatial, assumed
    )
    after = read_postprocessing(target.steps, assumed)
    known["activation"] = activation = _activation(found, after, target, assumed)
    if source.channels and len(source.channels) == shape.in_channels:
        known["input_channels"] = source.channels
    known |= _outputs(target.channels, shape.classes, activation, assumed)
    if after.threshold is not None:
        threshold = after.threshold
        if "activation" in assumed:  # a threshold of the bare answer
            threshold = 1 / (1 + math.exp(-min(max(threshold, -50), 50)))
        known["instances"] = InstanceSettings(threshold=min(max(threshold, 0.01), 0.99))
    if any(rate != 1 for rate in target.rates.values()):
        rates = " x ".join(f"{rate:g}" for rate in target.rates.values())
        assumed["size"] = (
            f"The package's output has {rates} times the pixels of the image; here it is laid on "
            "the pixels of the image."
        )
    return replace(found, card=known, assumed=assumed, tellers=dict.fromkeys(told, PACKAGE))


def with_own_card(found: Found, description: dict[str, Any]) -> Found:
    """Add our card from the description, with all that was assumed when it was written.

    The package is tried before: what its network gives is told by the package alone.
    """
    own = as_dict(as_dict(as_dict(description.get("config")).get("napari_unet")).get("card"))
    steps = [step for one in dicts(description, "inputs") for step in dicts(one, "preprocessing")]
    if not _is_written_as(steps, own.get("normalization"), found.architecture):
        own = {field: value for field, value in own.items() if field != "normalization"}
    return with_card(found, own, kept=("authors", "cite", "licence"))


def _is_written_as(steps: list[dict[str, Any]], rule: object, shape: Architecture | Graph) -> bool:
    """Say whether steps are those that are written for a normalisation of our card."""
    try:
        known = checked(Normalization, rule) if isinstance(rule, dict) else None
    except SettingError:
        return False
    spatial = "zyx"[-shape.spatial_dims :]
    return known is not None and steps == write_preprocessing(known, spatial, shape.in_channels)


def _card_of(description: dict[str, Any], source: Tensor) -> dict[str, Any]:
    """Return what the description tells for the card."""
    training = description.get("training_data")
    if isinstance(training, dict):
        training = training.get("name") or training.get("id")
    card = {
        "name": text_of(description.get("name")),
        "segments": text_of(description.get("description")),
        "licence": text_of(description.get("license")),
        "training_data": text_of(training),
        "created": text_of(description.get("timestamp"))[:10],
        "authors": tuple(text_of(author.get("name")) for author in dicts(description, "authors")),
        "cite": tuple(_citation(cite) for cite in dicts(description, "cite")),
        "pixel_size_um": source.pixel_size_um,
    }
    return {field: value for field, value in card.items() if value}


def _citation(cite: dict[str, Any]) -> str:
    """Write a citation in one line."""
    doi = text_of(cite.get("doi")).removeprefix("https://doi.org/")
    place = f"doi:{doi}" if doi else text_of(cite.get("url"))
    return ", ".join(part for part in (text_of(cite.get("text")), place) if part)


def _activation(
    found: Found, after: Postprocessing, target: Tensor, assumed: dict[str, str]
) -> str:
    """Tell what turns the network's answer into probabilities."""
    is_told = found.is_activated or "activation" not in found.assumed
    own = found.card.get("activation") if is_told else None
    if own not in {"sigmoid", "softmax"}:
        own = None
    if own and after.activation:
        raise ModelError(
            f"The network ends with {own} and the package adds {after.activation}, which cannot be "
            "done here. Choose another package."
        )
    activation = own or after.activation
    if activation:
        return str(activation)
    if target.range == (0.0, 1.0) or (after.threshold is not None and 0 < after.threshold < 1):
        return "none"
    guess = "sigmoid" if found.architecture.classes == 1 else "softmax"
    assumed["activation"] = (
        f"The package gives the network's answer as it is. Assumed: {guess} turns it into "
        "probabilities."
    )
    return guess


def _outputs(
    names: Sequence[str] | None, classes: int, activation: str, assumed: dict[str, str]
) -> dict[str, Any]:
    """Name the outputs by the words in the description, if they tell."""
    if classes == 1:
        return {"outputs": (FOREGROUND,)}
    if names is None or len(names) != classes:
        return {}
    meant = [_meaning(name) for name in names]
    if activation == "softmax":
        if FOREGROUND in meant and meant[0] is None:
            return {"outputs": _unique(["background", *(m or n for m, n in _pairs(meant, names))])}
        return {"outputs": _unique(names), "labels": "semantic"}
    if FOREGROUND not in meant:
        if classes == 2 and not any(meant):
            assumed["outputs"] = (
                f"The package calls its outputs {', '.join(names)}. Assumed: foreground and "
                "boundary."
            )
            return {"outputs": (FOREGROUND, BOUNDARY)}
        meant[0] = FOREGROUND
    return {"outputs": _unique([word or name for word, name in zip(meant, names, strict=True)])}


def _pairs(meant: Sequence[str | None], names: Sequence[str]) -> list[tuple[str | None, str]]:
    """Pair words and names of all outputs but the first."""
    return list(zip(meant[1:], names[1:], strict=True))


def _meaning(name: str) -> str | None:
    """Return the word of ours that a name of an output stands for."""
    return next((word for word, signs in _WORDS if re.search(signs, name.lower())), None)


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    """Add numbers to names that come twice."""
    seen: list[str] = []
    for name in names:
        count = sum(other == name or other.startswith(f"{name} ") for other in seen)
        seen.append(f"{name} {count + 1}" if count else name)
    return tuple(seen)
