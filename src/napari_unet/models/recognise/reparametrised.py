"""Weights that are stored as parts are put together: weight norm, spectral norm, pruning."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

_WEIGHT_NORM = (
    ("weight_v", "weight_g"),
    ("parametrizations.weight.original1", "parametrizations.weight.original0"),
)
"""Direction and length."""
_SPECTRAL_NORM = (
    ("weight_orig", "weight_u", "weight_v"),
    (
        "parametrizations.weight.original",
        "parametrizations.weight.0._u",
        "parametrizations.weight.0._v",
    ),
)
"""The weight, and the vectors that measure how much it stretches: of its outputs, its inputs."""
_PRUNED = (("weight_orig", "weight_mask"), ("bias_orig", "bias_mask"))
"""The values, and 1 where they count."""


def put_together(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Compute the weights that are stored as parts, as PyTorch does where nothing is learned.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        A state dict.

    Returns
    -------
    dict of str to Tensor
        In the same order; other tensors are as they were.
    """
    result = dict(tensors)
    for key in tensors:
        for whole, out, into in _SPECTRAL_NORM:
            start = key.removesuffix(whole)
            if start != key and {f"{start}{out}", f"{start}{into}"} <= tensors.keys():
                parts = (tensors[key], tensors[f"{start}{out}"], tensors[f"{start}{into}"])
                _replace(result, (whole, out, into), start, _unstretched(*parts))
        for whole, mask in _PRUNED:
            start = key.removesuffix(whole)
            counts = result.get(f"{start}{mask}")
            if start != key and counts is not None and counts.shape == tensors[key].shape:
                name = whole.removesuffix("_orig")
                _replace(result, (whole, mask), start, tensors[key] * counts, name)
        for direction, length in _WEIGHT_NORM:
            start = key.removesuffix(direction)
            other = result.get(f"{start}{length}")
            if start != key and other is not None and other.ndim == tensors[key].ndim:
                axes = tuple(axis for axis in range(other.ndim) if other.shape[axis] == 1)
                norm = torch.linalg.vector_norm(tensors[key], dim=axes, keepdim=True)
                _replace(result, (direction, length), start, tensors[key] * (other / norm))
    return result


def _replace(
    tensors: dict[str, torch.Tensor],
    parts: tuple[str, ...],
    start: str,
    weight: torch.Tensor,
    name: str = "weight",
) -> None:
    """Put a weight at the place of its first part, and leave out the parts."""
    names = {f"{start}{part}" for part in parts}
    before = list(tensors.items())
    tensors.clear()
    for key, tensor in before:
        if key == f"{start}{parts[0]}":
            tensors[f"{start}{name}"] = weight
        elif key not in names:
            tensors[key] = tensor


def _unstretched(weight: torch.Tensor, out: torch.Tensor, into: torch.Tensor) -> torch.Tensor:
    """Divide a weight by how much it stretches, as measured by vectors out and in.

    Outputs stand on the first axis, of transposed convolutions on the second one. Where both
    sizes fit, that is right by which the vectors of a trained network measure more.
    """
    stretches = []
    for axis in (0, 1):
        matrix = weight.movedim(axis, 0).flatten(1) if axis < weight.ndim else weight
        if (out.numel(), into.numel()) == tuple(matrix.shape):
            stretches.append(out.flatten() @ matrix @ into.flatten())
    return weight / max(stretches, key=abs) if stretches else weight
