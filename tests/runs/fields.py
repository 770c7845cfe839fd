"""Fields of discs, for the tests of what is learned from them."""

from __future__ import annotations

import numpy as np

from napari_unet.models.card import Card
from napari_unet.runs.samples import Plane
from napari_unet.settings import Architecture

CARD = Card(name="tiny", architecture=Architecture(widths=(4, 8, 16)))


def discs(shape, spacing=24, radius=8) -> np.ndarray:
    """Discs in rows and columns, each with a number of its own."""
    y, x = np.indices(shape)
    row, column = y // spacing, x // spacing
    inside = (y % spacing - spacing // 2) ** 2 + (x % spacing - spacing // 2) ** 2 <= radius**2
    return np.where(inside, 1 + row * 1000 + column, 0).astype(np.int32)


def box(shape, y0, x0, y1, x1) -> np.ndarray:
    """A mask that is set in a box."""
    mask = np.zeros(shape, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def plane_of(labels, vouched, changed=None) -> Plane:
    """A plane of noise with these labels."""
    image = np.random.default_rng(0).random((1, *labels.shape), np.float32)
    nothing = np.zeros(labels.shape, bool)
    changed = nothing if changed is None else changed
    return Plane(image, labels, vouched, changed, nothing)
