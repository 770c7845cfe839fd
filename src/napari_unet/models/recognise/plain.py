"""Plain U-Nets of anybody: found from shapes and order, whatever the tensors are called."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from napari_unet.models.assumptions import YOU, with_told
from napari_unet.models.recognise.answering import answered, open_questions, sentences
from napari_unet.models.recognise.choosing import first_reading, likeliest
from napari_unet.models.recognise.lacking import oddities, refuse_partial
from napari_unet.models.recognise.layers import natural_order
from napari_unet.models.recognise.modules import rearranged
from napari_unet.models.recognise.network import Network
from napari_unet.models.recognise.questions import QUESTIONS
from napari_unet.models.recognise.readings import find_family
from napari_unet.models.recognise.refusing import (
    first_damage,
    refuse_gaps,
    refuse_several_heads,
)
from napari_unet.models.recognise.search import Search
from napari_unet.models.recognise.squeezing import with_linear_as_pointwise
from napari_unet.models.recognise.units import make_units

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from napari_unet.models.found import Found
    from napari_unet.models.recognise.layers import Layer, Layers
    from napari_unet.models.recognise.readings import Family, Reading
    from napari_unet.models.recognise.steps import Step

_FEWEST_UNITS = 4
_BY_NAME = (
    "The file does not hold its layers in the order of the modules: they are put in order by their "
    "names and shapes. Compare the answer on an image with that of the original."
)
_UNKNOWN_KINDS = ("linear", "other")


def recognise_plain(layers: Layers) -> list[Found] | None:
    """Recognise a U-Net from the shapes and the order of its tensors.

    Parameters
    ----------
    layers : Layers
        All layers of a file.

    Returns
    -------
    list of Found or None
        The readings that fit, the likeliest first; None if the tensors are no U-Net's.

    Raises
    ------
    ModelError
        If they are, but some are missing.
    """
    layers = with_linear_as_pointwise(layers)
    if layers.spatial_dims not in (2, 3) or any(layer.kind in _UNKNOWN_KINDS for layer in layers):
        return None
    if first_damage(layers):
        return None
    refuse_gaps(layers)
    refuse_several_heads(layers)
    steps = find_steps(layers)
    if steps is None:
        return None
    network = Network(steps, layers.spatial_dims)
    read = {layer for unit in network.units for layer in unit.layers}
    if any(layer not in read for layer in layers):
        return None
    family = find_family(layers)
    refuse_partial(network, family)
    first = first_reading(network, family)
    found = [
        _found(network, family, reading, title) for title, reading in likeliest(network, first)
    ]
    return [_with_order(one) for one in found] if layers.are_shuffled else found


def _with_order(found: Found) -> Found:
    """Say that the layers of a file in no order were put in order by their names."""
    reread = found.reread
    return replace(
        found,
        assumed={**found.assumed, "order of the layers": _BY_NAME},
        reread=reread and (lambda values: _with_order(reread(values))),
    )


def find_steps(layers: Layers) -> list[Step] | None:
    """Put layers together to a U-Net.

    Parameters
    ----------
    layers : Layers
        Convolutions, norms and slopes.

    Returns
    -------
    list of Step or None
        In the order in which they are computed; None if they are no U-Net's.
    """
    of_file = list(layers)
    by_name = sorted(layers, key=lambda layer: natural_order(layer.name))
    orders = [by_name, of_file] if layers.are_shuffled else [of_file, by_name]
    steps = _assemble(orders[0])
    if steps is None and by_name != of_file:
        steps = _assemble(orders[1])
    return steps and rearranged(steps)


def _assemble(layers: Iterable[Layer]) -> list[Step] | None:
    """Put layers together to a U-Net, in the order in which they are given if that fits."""
    units, rest = make_units(layers)
    return None if rest or len(units) < _FEWEST_UNITS else Search(units).run()


def _found(
    network: Network,
    family: Family | None,
    reading: Reading,
    title: str,
    told: Mapping[str, str] | None = None,
) -> Found:
    """Draw a network as it is read; a person may tell more of it, over what was told before."""
    told_by_family = dict(family.card) if family else {}
    if network.classes == 1 and told_by_family.get("activation") == "softmax":
        del told_by_family["activation"]  # of one class alone it would say 1 everywhere
    card = dict(told_by_family)
    topics = {question.topic: question for question in QUESTIONS if question.name in (told or {})}
    card["told"] = {topic: question.told(network, reading) for topic, question in topics.items()}
    assumed = {
        topic: text for topic, text in sentences(network, reading).items() if topic not in topics
    }
    assumed |= oddities(network)
    if "activation" not in card:
        card["activation"] = "sigmoid" if network.classes == 1 else "softmax"
        assumed["activation"] = (
            f"{card['activation'].capitalize()} turns the answer into probabilities. The "
            "tensors do not tell."
        )

    def reread(values: Mapping[str, str]) -> Found:
        """Read it as a person says."""
        changed = answered(network, reading, values)
        return _found(network, family, changed, title, {**(told or {}), **values})

    asked = [question.asked(network, reading) for question in open_questions(network, reading)]
    return replace(
        network.draw(reading),
        card=card,
        assumed=assumed,
        tellers=dict.fromkeys(told_by_family, family.name) if family else {},
        title=title,
        assumptions=with_told(asked, told or (), YOU),
        reread=reread,
    )
