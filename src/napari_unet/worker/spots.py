"""Where a person should look next, in probabilities that were kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.arrays.stability import Stability, measure_stability
from napari_unet.arrays.uncertainty import (
    EXTENT,
    PIXELS,
    SPLIT,
    Spot,
    most_telling,
    most_uncertain,
)
from napari_unet.worker.kept import foreground

if TYPE_CHECKING:
    from napari_unet.settings import InstanceSettings
    from napari_unet.worker.kept import Kept
    from napari_unet.worker.protocol import Array

REASONS = {
    PIXELS: "the network is not sure whether there is anything",
    EXTENT: "the network is not sure how far these objects reach",
    SPLIT: "the network is not sure where one object ends and the next begins",
}
PLANES_KEPT = 6

Key = tuple[str, tuple[int, ...], str]


class _Measured:
    """The stability of the planes that were looked into last."""

    def __init__(self) -> None:
        self._planes: dict[Key, Stability] = {}

    def get(self, kept: Kept, index: tuple[int, ...], settings: InstanceSettings) -> Stability:
        """Return the stability of a plane, measured once."""
        name = str(getattr(kept.probability, "filename", id(kept.probability)))
        key = (name, index, settings.model_dump_json())
        measured = self._planes.pop(key, None)
        if measured is None:
            plane: tuple[Any, ...] = (slice(None), *index)
            maps = np.asarray(kept.probability[plane])
            measured = measure_stability(maps, kept.card.outputs, settings)
        self._planes[key] = measured
        while len(self._planes) > PLANES_KEPT:
            self._planes.pop(next(iter(self._planes)))
        return measured


_measured = _Measured()


def find_spot(kept: Kept, settings: InstanceSettings, vouched: Array | None) -> Spot | None:
    """Find the place that would teach most.

    Parameters
    ----------
    kept : Kept
        Probabilities of an earlier segmentation.
    settings : InstanceSettings
        As objects are found in them.
    vouched : ndarray of bool, shape of one map, or None
        What is vouched for, or was looked at.

    Returns
    -------
    Spot or None
        By pixels and objects; by pixels alone where labels are classes, or objects go through
        planes. None if everything is vouched for.
    """
    probability = foreground(kept)
    if kept.card.labels == "semantic" or kept.card.architecture.spatial_dims != 2:
        position = most_uncertain(probability, vouched)
        return None if position is None else Spot(position, PIXELS)
    return most_telling(probability, lambda index: _measured.get(kept, index, settings), vouched)
