"""From the network's probabilities to labels: one number per object, or one per class.

Pixels above the threshold belong to objects; connected ones form a blob. Blobs are cut apart in
:mod:`napari_unet.arrays.splitting`, and images of any size are gone through block by block in
:mod:`napari_unet.arrays.search`, with the same result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.arrays.blocks import count_processors
from napari_unet.arrays.search import find_objects_by_blocks
from napari_unet.errors import ModelError
from napari_unet.settings import InstanceSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Probability = NDArray[np.floating[Any]]
    Labels = NDArray[np.int32]

SPLITTING = ("distance", "boundary")
"""Outputs that tell touching objects apart."""


def find_instances(
    probability: Probability, outputs: tuple[str, ...], settings: InstanceSettings | None = None
) -> Labels:
    """Find objects in the network's output.

    Parameters
    ----------
    probability : ndarray of float, shape (K, Y, X) or (K, Z, Y, X), range 0..1
        One map per output.
    outputs : tuple of str
        Names of the outputs. Without one called foreground, everything that is not the first
        output (the background) is foreground; a single output is the foreground, whatever its
        name.
    settings : InstanceSettings, optional
        Threshold, smallest object, whether to split what touches and to fill holes.

    Returns
    -------
    ndarray of int32, shape (Y, X) or (Z, Y, X)
        Labels 1..n without a gap, in the order of their first pixels; 0 is background. Objects
        touch at most along edges of pixels: what meets only at a corner is two objects.

    Raises
    ------
    ModelError
        If the number of maps is not the number of outputs.
    """
    labels = np.empty(probability.shape[1:], np.int32)
    for _ in find_instances_steps(
        probability, outputs, settings or InstanceSettings(), labels, threads=count_processors()
    ):
        pass
    return labels


def find_instances_steps(
    probability: Any,
    outputs: tuple[str, ...],
    settings: InstanceSettings,
    out: Any,
    *,
    block: Sequence[int] | None = None,
    threads: int = 1,
) -> Iterator[tuple[int, int] | str]:
    """Find objects block by block, in arrays that need not be in memory.

    Parameters
    ----------
    probability : array-like of float, shape (K, Y, X) or (K, Z, Y, X), range 0..1
        As in :func:`find_instances`; read in windows.
    outputs : tuple of str
        Names of the outputs.
    settings : InstanceSettings
        Threshold, smallest object, splitting.
    out : array of int32, shape (Y, X) or (Z, Y, X)
        Where the labels are written, e.g. a zarr array.
    block : sequence of int, optional
        Size of a block, whole chunks of ``out``; chosen if not given.
    threads : int
        How many blocks are worked on at a time; more than one only where ``out`` is in memory or
        zarr.

    Yields
    ------
    tuple of int, or str
        Pieces of work done, and how many there will be, as far as is known; a line to be read if
        memory ran out. The result is that of :func:`find_instances`, whatever the blocks.

    Raises
    ------
    ModelError
        If the number of maps is not the number of outputs.
    """
    maps = probability.shape[0]  # a zarr array has no length
    if maps != len(outputs):
        raise ModelError(
            f"The network gave {maps} maps, its card names {len(outputs)} outputs "
            f"({', '.join(outputs)}). Use the card that belongs to the weights."
        )

    def read(window: tuple[slice, ...]) -> tuple[Probability, Probability | None]:
        """Read foreground and depth."""
        return _foreground(probability, outputs, window), _depth(probability, outputs, window)

    yield from find_objects_by_blocks(read, out, settings, block=block, threads=threads)


def find_classes(probability: Probability, activation: str = "softmax") -> Labels:
    """Give each pixel its class.

    Parameters
    ----------
    probability : ndarray of float, shape (K, Y, X) or (K, Z, Y, X), range 0..1
        One map per class, the background first. A single map is the probability of class 1.
    activation : {"sigmoid", "softmax"}
        What made the probabilities: it matters for a single map only, which a softmax cannot
        give.

    Returns
    -------
    ndarray of int32, shape (Y, X) or (Z, Y, X)
        Index of the most probable class, 0 is background.

    Raises
    ------
    ModelError
        If a single map is said to come from a softmax.
    """
    if len(probability) > 1:
        classes: Labels = np.argmax(probability, axis=0).astype(np.int32)
        return classes
    if activation == "softmax":
        raise ModelError(
            "A softmax over one class is 1 everywhere. Give the network two classes, background "
            "and foreground, or a sigmoid."
        )
    above: Labels = (probability[0] > 0.5).astype(np.int32)
    return above


def gives_depth(outputs: tuple[str, ...]) -> bool:
    """Tell whether a network says how deep inside an object each pixel is.

    Parameters
    ----------
    outputs : tuple of str
        Names of its outputs.

    Returns
    -------
    bool
        If not, objects that touch are split at their necks.
    """
    return any(name in SPLITTING for name in outputs)


def _foreground(
    probability: Any, outputs: tuple[str, ...], window: tuple[slice, ...]
) -> Probability:
    """Read the probability that a pixel belongs to any object."""
    if "foreground" not in outputs and len(outputs) > 1:
        foreground: Probability = 1 - np.asarray(probability[(0, *window)])
        return foreground
    index = outputs.index("foreground") if "foreground" in outputs else 0
    return np.asarray(probability[(index, *window)])


def _depth(
    probability: Any, outputs: tuple[str, ...], window: tuple[slice, ...]
) -> Probability | None:
    """Read how deep inside an object each pixel is, if the network says so."""
    if "distance" in outputs:
        return np.asarray(probability[(outputs.index("distance"), *window)])
    if "boundary" in outputs:
        depth: Probability = 1 - np.asarray(probability[(outputs.index("boundary"), *window)])
        return depth
    return None
