"""How far a model goes from what it knew to what it has learned, where nothing can judge it.

A network that has learned from a handful of objects finds those, and may have forgotten what it
knew of all others. The weights between the old and the new ones find nearly as much of the new, and
forget less [1]_. Where the labels are enough to judge the new weights, they show whether that was
needed; where they are too few, the new weights count the more the more objects taught them::

    objects vouched for     2     5     10     20
    share of the new      1/6   1/3    1/2    2/3

Of classes, places with something in them (:mod:`napari_unet.runs.places`) count instead.

References
----------
.. [1] Wortsman et al. (2022), Robust fine-tuning of zero-shot models, arXiv:2109.01903.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    State = dict[str, Tensor]

HALF_WAY_OBJECTS = 10  # so many objects take a model half of the way


def cautious_share(objects: int) -> float:
    """Return how much of new weights to take that nothing can judge.

    Parameters
    ----------
    objects : int
        That were vouched for.

    Returns
    -------
    float
        Share of the new weights, 0..1.
    """
    return max(objects, 1) / (max(objects, 1) + HALF_WAY_OBJECTS)


def mixed(old: State, new: State, share: float) -> State:
    """Mix the weights of two networks, and what their batch norms have measured.

    Parameters
    ----------
    old, new : dict of str to Tensor
        State dicts of networks of one architecture, on one device; both stay as they are.
    share : float
        Of the new one, 0..1.

    Returns
    -------
    dict of str to Tensor
        A state dict like them; what is alike in both stays exactly so, and what is no fraction (a
        count) is the new one's.
    """
    return {
        name: torch.lerp(old[name], value, share) if value.is_floating_point() else value
        for name, value in new.items()
    }
