"""Names are freed of what wrappers put before them, and of what is no layer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch

from napari_unet.errors import ModelError
from napari_unet.models.recognise.reparametrised import put_together

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_NO_LAYERS = re.compile(
    r"(^|\.)(total_ops|total_params)$|^(n_averaged|global_step|epoch)$"
    r"|^(\w*(loss|criterion|metric)\w*)\."
)
"""What profilers, averaging and losses leave beside the layers."""
_COPIES = re.compile(r"\.all_modules\.\d+\.|^decoder\.encoder\.|\.decoder\.encoder\.")
"""Second names that nnU-Net gives to layers that have one already."""
_COARSE = re.compile(r"^(?P<list>(.*\.)?decoder\.seg_layers)\.(?P<number>\d+)\.")
"""Heads of nnU-Net: the last one gives the answer, the others serve training alone."""
_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
_AVERAGED = ("ema", "swa", "averaged", "teacher", "shadow")
_MOST_PREFIXES = 5
_MOST_TENSORS = 20_000
_LONGEST_NAME = 1_000
_SPATIAL_FROM = 3


def cleaned(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors of the layers, real numbers as float32.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        A state dict.

    Returns
    -------
    dict of str to Tensor
        In the same order; weights that are stored as parts are put together.

    Raises
    ------
    ModelError
        If a weight is no finite real number, or names or tensors are too many or too long.
    """
    check_names(tensors)
    result: dict[str, torch.Tensor] = {}
    for key, tensor in tensors.items():
        if _NO_LAYERS.search(key):
            continue
        if tensor.is_complex() or tensor.is_quantized or tensor.layout != torch.strided:
            raise ModelError(
                f"Tensor {key} holds numbers of a kind that cannot be computed with here "
                f"({tensor.dtype}). Ask for the weights in float32."
            )
        if tensor.is_floating_point():
            tensor = tensor.detach().float()
            if not bool(torch.isfinite(tensor).all()):
                raise ModelError(
                    f"Tensor {key} holds values that are not finite numbers, so the network "
                    "cannot give an answer. Ask for an earlier version of the weights."
                )
        name = ".".join(part for part in key.split(".") if part not in _WRAPPERS)
        result[name] = tensor
    return put_together(_of_nnunet(result))


def check_names(names: Collection[str]) -> None:
    """Refuse more tensors, or longer names, than any network has.

    Parameters
    ----------
    names : collection of str
        Of all tensors.

    Raises
    ------
    ModelError
        If they would take minutes to look at.
    """
    if len(names) > _MOST_TENSORS:
        raise ModelError(
            f"The file holds {len(names)} tensors, more than any U-Net has (at most "
            f"{_MOST_TENSORS}). Ask for the weights of a U-Net alone."
        )
    longest = max(map(len, names), default=0)
    if longest > _LONGEST_NAME:
        raise ModelError(
            f"The name of a tensor has {longest} letters, more than any network gives (at most "
            f"{_LONGEST_NAME}). The file is damaged or no file of weights."
        )


def _of_nnunet(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Leave out what nnU-Net keeps twice, and its heads that serve training alone."""
    heads = [(key, match) for key in tensors if (match := _COARSE.match(key))]
    if not heads:
        return tensors
    last = max(int(match["number"]) for _, match in heads)
    coarse = {key for key, match in heads if int(match["number"]) < last}
    return {
        key: tensor
        for key, tensor in tensors.items()
        if key not in coarse and not _COPIES.search(key)
    }


def versions(tensors: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """Return the tensors under their names, and again without each prefix that all share.

    Parameters
    ----------
    tensors : dict of str to Tensor
        A cleaned state dict.

    Returns
    -------
    list of dict of str to Tensor
        As named first. What stands beside the prefix that has all convolutions is left out,
        unless it is a norm, and so are averaged weights beside the weights themselves.
    """
    result = [tensors]
    for _ in range(_MOST_PREFIXES):
        inner = _unwrapped(result[-1])
        if inner is None:
            break
        result.append(inner)
    return result


def is_averaged(name: str) -> bool:
    """Say whether a name is that of weights averaged over a training.

    Parameters
    ----------
    name : str
        First part of a tensor's name, or the key that its dict has.

    Returns
    -------
    bool
        True for ``ema``, ``model_ema``, ``swa_model`` and the like.
    """
    words = re.split(r"[\W_]+", name.lower())
    return any(word.startswith(_AVERAGED) for word in words)


def _unwrapped(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor] | None:
    """Take off the first part of the names if all convolutions share it."""
    firsts = [
        key.partition(".")[0]
        for key, tensor in tensors.items()
        if tensor.ndim >= _SPATIAL_FROM and "." in key
    ]
    own = [first for first in dict.fromkeys(firsts) if not is_averaged(first)]
    own = own or list(dict.fromkeys(firsts))[:1]
    if len(own) != 1 or any(t.ndim >= _SPATIAL_FROM and "." not in k for k, t in tensors.items()):
        return None
    start = f"{own[0]}."
    inner = {key[len(start) :]: t for key, t in tensors.items() if key.startswith(start)}
    beside = [key for key in tensors if not key.startswith(start)]
    if any(key.endswith("running_mean") and not is_averaged(key) for key in beside):
        return None  # a norm of the image itself: what is left out would be missing
    return inner if all("." in key for key in inner) else None
