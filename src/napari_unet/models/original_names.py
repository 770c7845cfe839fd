"""What the tensors of a network were called where it came from, so that they can go back there.

A stranger's weights run here under our names. Where each layer of the file is one layer of ours,
tensor by tensor the same, the card remembers the names of the file, and a state dict is written
with them: it loads into the network it came from, also after it has learned here.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from napari_unet.errors import ModelError
from napari_unet.models.recognise.names import cleaned

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_unet.models.found import Found

_COUNTER = "num_batches_tracked"
_OF_SEVERAL_CARDS = "module."  # which torch.nn.DataParallel puts before all names

Layers = dict[str, dict[str, torch.Tensor]]
"""Tensors by the layer they belong to and their name in it."""


def with_original_names(found: Found, tensors: Mapping[str, torch.Tensor]) -> Found:
    """Note in the card what tensors were called in their file, if each is one of ours.

    Parameters
    ----------
    found : Found
        A network that was recognised in a file.
    tensors : mapping of str to Tensor
        The state dict in the file.

    Returns
    -------
    Found
        Unchanged where tensors were put together, left out, or are not told apart by their values.
    """
    names = _original_names(found.tensors, tensors)
    reread = found.reread
    if reread is not None:
        read_again = reread
        found = replace(found, reread=lambda told: with_original_names(read_again(told), tensors))
    return replace(found, card={**found.card, "original_names": names}) if names else found


def under_original_names(
    tensors: Mapping[str, torch.Tensor], names: Mapping[str, str]
) -> dict[str, torch.Tensor]:
    """Call tensors what they were called in the file they came from.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        The state dict of a network of ours.
    names : mapping of str to str
        Names in the file, by ours; empty where they are not known.

    Returns
    -------
    dict of str to Tensor
        In the order of the file. Under our names, if not all of the others are known.
    """
    known = {key for key in tensors if not key.endswith(_COUNTER)} <= names.keys() <= tensors.keys()
    return {name: tensors[key] for key, name in names.items()} if known else dict(tensors)


def under_own_names(
    tensors: Mapping[str, torch.Tensor], names: Mapping[str, str]
) -> dict[str, torch.Tensor]:
    """Call tensors of a file that was written here what they are called here.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        A state dict, by either names.
    names : mapping of str to str
        Names in the file, by ours.

    Returns
    -------
    dict of str to Tensor
        Counters that the file had no use for are 0.
    """
    if not names or set(tensors) != set(names.values()):
        return dict(tensors)
    own = {key: tensors[name] for key, name in names.items()}
    for key in list(own):
        counter = f"{key.rpartition('.')[0]}.{_COUNTER}"
        if key.endswith("running_mean"):
            own.setdefault(counter, torch.zeros((), dtype=torch.int64))
    return own


def _original_names(
    own: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]
) -> dict[str, str]:
    """Find the name in the file of each tensor of ours; empty if that is not one to one."""
    try:
        given = cleaned(tensors)
    except ModelError:
        return {}
    if not given.keys() <= tensors.keys():  # weights that are computed from others
        return {}
    ours, theirs = _by_content(_layers(own)), _by_content(_layers(given))
    if ours.keys() != theirs.keys() or any(len(v) > 1 for v in (*ours.values(), *theirs.values())):
        return {}
    layer_of = {theirs[content][0]: ours[content][0] for content in theirs}
    shared = all(key.startswith(_OF_SEVERAL_CARDS) for key in given)
    names = {}
    for key in given:
        layer, _, leaf = key.rpartition(".")
        names[f"{layer_of[layer]}.{leaf}"] = key.removeprefix(_OF_SEVERAL_CARDS) if shared else key
    return names if names.keys() <= own.keys() else {}


def _layers(tensors: Mapping[str, torch.Tensor]) -> Layers:
    """Gather tensors by layer."""
    layers: Layers = defaultdict(dict)
    for key, tensor in tensors.items():
        layer, _, leaf = key.rpartition(".")
        layers[layer][leaf] = tensor
    return layers


def _by_content(layers: Layers) -> dict[str, list[str]]:
    """Digest each layer: the names, shapes and values of its tensors, but for counters."""
    found: dict[str, list[str]] = defaultdict(list)
    for layer, tensors in layers.items():
        digest = hashlib.sha256()
        for leaf in sorted(set(tensors) - {_COUNTER}):
            values = tensors[leaf].detach().float().contiguous()
            digest.update(f"{leaf} {tuple(values.shape)}".encode())
            digest.update(values.numpy().tobytes())
        found[digest.hexdigest()].append(layer)
    return found
