"""A checkpoint with several sets of weights of one network: a person may choose another one.

Trainings often keep an average of the weights beside the weights themselves, in a dict of its own
or under a prefix, now and then with the dots taken out of the names. Of such a set each tensor
takes the place of its likes among the weights; what is not averaged stays.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING

from napari_unet.models.assumptions import YOU, Assumption, check_told
from napari_unet.models.pytorch.sets import which_was_taken
from napari_unet.models.recognise import recognise
from napari_unet.models.recognise.names import is_averaged

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import torch

    from napari_unet.models.found import Found

Tensors = dict[str, "torch.Tensor"]
NAME = "weights"
_PREFIXES = ("module", "model", "net", "network", "online_model", "_orig_mod")
_WEIGHTS_FROM = 3
"""Axes of the weight of a convolution, at least."""


def with_other_sets(
    found: list[Found], mine: str, tensors: Tensors, others: list[tuple[str, Tensors]]
) -> list[Found]:
    """Let a person choose another set of weights of the same network.

    Parameters
    ----------
    found : list of Found
        The readings of the set that was taken.
    mine : str
        Where in the file that set is.
    tensors : dict of str to Tensor
        That set.
    others : list of (str, dict of str to Tensor)
        Where the others are, and they.

    Returns
    -------
    list of Found
        The same readings; where other sets fit, these are a question that can be answered.
    """
    inner = [
        (first, {key: tensor for key, tensor in tensors.items() if key.startswith(f"{first}.")})
        for first in dict.fromkeys(key.partition(".")[0] for key in tensors)
        if is_averaged(first)
    ]
    own = {key: tensor for key, tensor in tensors.items() if not is_averaged(key.partition(".")[0])}
    sets = {
        name: replaced
        for name, other in (*inner, *others)
        if (replaced := _replaced(own or tensors, other)) is not None
    }
    mine = mine or "itself"
    if not sets:
        for one in found if inner else ():
            one.assumed.setdefault(NAME, which_was_taken(mine, [name for name, _ in inner]))
        return found
    return [
        _choosable(one, {mine: tensors, **sets}, mine, number) for number, one in enumerate(found)
    ]


def _choosable(
    found: Found,
    sets: Mapping[str, Tensors],
    taken: str,
    number: int,
    told: Mapping[str, str] | None = None,
) -> Found:
    """Add the question which set is meant; ``told`` is what a person has said so far."""
    said = dict(told or {})
    asked = Assumption(
        name=NAME,
        topic=NAME,
        value=taken,
        choices={
            name: f"averaged weights ({name})" if is_averaged(name) else f"weights ({name})"
            for name in sets
        },
        told_by=YOU if NAME in said else "",
    )
    sentence = which_was_taken(taken, [name for name in sets if name != taken])
    assumed = {key: why for key, why in found.assumed.items() if key != NAME}
    card = found.card
    if NAME in said:
        card = {**card, "told": {**card.get("told", {}), NAME: sentence}}
    else:
        assumed = {NAME: sentence, **assumed}

    def reread(values: Mapping[str, str]) -> Found:
        """Read it as a person says."""
        check_told({NAME: values.get(NAME, taken)}, [asked])
        all_said = {**said, **values}
        chosen = all_said.get(NAME, taken)
        of_network = {name: value for name, value in all_said.items() if name != NAME}
        one = recognise(sets[chosen])[number]
        if of_network and one.reread is not None:
            one = one.reread(of_network)
        return _choosable(one, sets, chosen, number, all_said)

    return replace(
        found,
        card=card,
        assumed=assumed,
        assumptions=(asked, *found.assumptions),
        reread=reread,
    )


def _replaced(tensors: Tensors, other: Tensors) -> Tensors | None:
    """Put the tensors of another set in the place of their likes; None if weights are missing."""
    wrappers = {*_PREFIXES, *_shared_starts(tensors), *_shared_starts(other)}
    by_name = {_plain(key, wrappers): tensor for key, tensor in other.items()}
    result = dict(tensors)
    for key, tensor in tensors.items():
        like = by_name.get(_plain(key, wrappers))
        if like is not None and like.shape == tensor.shape:
            result[key] = like
        elif tensor.ndim >= _WEIGHTS_FROM:
            return None
    return result


def _shared_starts(tensors: Tensors) -> list[str]:
    """Return the parts with which the names of all convolutions start, the outermost first."""
    names = [key.split(".")[:-1] for key, tensor in tensors.items() if tensor.ndim >= _WEIGHTS_FROM]
    return [
        parts[0]
        for parts in takewhile(lambda parts: len(set(parts)) == 1, zip(*names, strict=False))
    ]


def _plain(key: str, wrappers: Collection[str]) -> str:
    """Return a name without what wrappers put before it, and without its dots."""
    parts = key.split(".")
    while len(parts) > 1 and (is_averaged(parts[0]) or parts[0] in wrappers):
        parts = parts[1:]
    return "".join(parts)
