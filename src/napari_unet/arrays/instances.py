r"""From the network's probabilities to labels: one number per object, or one per class.

Pixels above the threshold belong to objects. Where the network also says how deep inside an
object a pixel is (distance) or where objects end (boundary), that cuts apart what touches::

    foreground      ___/‾‾‾‾‾‾‾‾‾\___     above the threshold: one blob
    distance        ___/‾\_____/‾\___     above the seed level, with a peak: two seeds
    labels          ...11111122222...     the seeds grow until they meet (watershed)

A blob without a seed is an object of its own, so small or faint objects are not lost; a blob
with one seed needs no watershed, which keeps large images fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.errors import ModelError
from napari_unet.settings import InstanceSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]
    Probability = NDArray[np.floating[Any]]
    Labels = NDArray[np.int32]

SEED_LEVEL = 0.5  # of the relative depth in an object: see arrays.targets
SEED_PEAK = 0.65  # a seed must reach it somewhere: a shallow one is a dent in another's slope
SMOOTHING_PX = 1.0  # of the measured depth, so that a rough edge is no cause to split
SPLIT_DEPTH_PX = 0.75  # how much deeper than the neck between them two parts must be
GREY_STEPS = 255  # the watershed is faster on bytes and differs in a few pixels in 100,000


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
        Labels 1..n without a gap, 0 is background. Objects touch at most along edges of pixels:
        what meets only at a corner is two objects.

    Raises
    ------
    ModelError
        If the number of maps is not the number of outputs.
    """
    settings = settings or InstanceSettings()
    if len(probability) != len(outputs):
        raise ModelError(
            f"The network gave {len(probability)} maps, its card names {len(outputs)} outputs "
            f"({', '.join(outputs)}). Use the card that belongs to the weights."
        )
    mask = _foreground(probability, outputs) > settings.threshold
    if settings.split:
        depth, seeds = _depth_and_seeds(probability, outputs, mask)
        labels = _grow(mask, depth, seeds)
    else:
        labels = _components(mask)
    if settings.fill_holes:
        labels = fill_holes(labels)
    return _keep_large(labels, settings.min_size)


def fill_holes(labels: Labels) -> Labels:
    """Give background that lies inside a single object to that object.

    Parameters
    ----------
    labels : ndarray of int32, shape (Y, X) or (Z, Y, X)
        Labels, 0 is background.

    Returns
    -------
    ndarray of int32, same shape
        A gap between several objects stays, and so does what reaches the border of the image.
    """
    gaps = _components(labels == 0)
    count = int(gaps.max(initial=0)) + 1
    least = np.full(count, np.iinfo(np.int32).max, np.int32)
    most = np.zeros(count, np.int32)
    for axis in range(labels.ndim):
        ahead = (slice(None),) * axis + (slice(1, None),)
        behind = (slice(None),) * axis + (slice(None, -1),)
        for gap_side, object_side in ((ahead, behind), (behind, ahead)):
            meets = (gaps[gap_side] > 0) & (labels[object_side] > 0)
            gap, neighbour = gaps[gap_side][meets], labels[object_side][meets]
            np.minimum.at(least, gap, neighbour)
            np.maximum.at(most, gap, neighbour)
        ends = np.unique(np.take(gaps, [0, -1], axis=axis))
        most[ends], least[ends] = 0, -1  # open to the border
    owner = np.where(least == most, most, 0)
    owner[0] = 0
    return np.where(gaps > 0, owner[gaps], labels)


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


def _foreground(probability: Probability, outputs: tuple[str, ...]) -> Probability:
    """Probability that a pixel belongs to any object."""
    if "foreground" not in outputs and len(outputs) > 1:
        foreground: Probability = 1 - probability[0]
    else:
        foreground = probability[outputs.index("foreground") if "foreground" in outputs else 0]
    return foreground


def _depth_and_seeds(
    probability: Probability, outputs: tuple[str, ...], mask: Mask
) -> tuple[NDArray[np.uint8], Labels]:
    """How deep inside an object each pixel is, as bytes, and the middles of the objects."""
    if "distance" in outputs:
        depth = probability[outputs.index("distance")]
    elif "boundary" in outputs:
        depth = 1 - probability[outputs.index("boundary")]
    else:
        return _measured_depth(mask)
    return _as_bytes(depth), _seeds(depth, mask)


def _seeds(depth: Probability, mask: Mask) -> Labels:
    """Find the places of enough depth that reach a peak; others are left to their blob."""
    places = _components(mask & (depth > SEED_LEVEL))
    has_peak = np.zeros(places.max(initial=0) + 1, bool)
    has_peak[places[depth > SEED_PEAK]] = True
    return np.where(has_peak[places], places, 0)


def _measured_depth(mask: Mask) -> tuple[NDArray[np.uint8], Labels]:
    """Depth measured in the blobs themselves, with a seed at each marked maximum."""
    import edt
    from scipy import ndimage
    from skimage.morphology import reconstruction

    if not mask.any() or mask.all():
        return mask.astype(np.uint8), _components(mask)
    depth = edt.edt(np.ascontiguousarray(mask), black_border=False)
    depth = np.where(mask, ndimage.gaussian_filter(depth, SMOOTHING_PX), 0)
    lowered = reconstruction(np.maximum(depth - SPLIT_DEPTH_PX, 0), depth, method="dilation")
    seeds = _components(mask & (depth - lowered > SPLIT_DEPTH_PX / 2))
    return _as_bytes(depth / depth.max()), seeds


def _grow(mask: Mask, depth: NDArray[np.uint8], seeds: Labels) -> Labels:
    """Cut blobs with several seeds where the seeds meet; all other blobs stay whole."""
    from skimage.segmentation import watershed

    blobs = _components(mask)
    blob_of_seed = np.zeros(seeds.max(initial=0) + 1, np.int32)
    blob_of_seed[seeds.ravel()] = blobs.ravel()
    crowded = np.bincount(blob_of_seed[1:], minlength=blobs.max(initial=0) + 1) > 1
    crowded[0] = False
    if not crowded.any():
        return blobs
    inside = crowded[blobs]
    parts = watershed(GREY_STEPS - depth, np.where(inside, seeds, 0), mask=inside)
    return np.where(inside, parts + blobs.max(), blobs).astype(np.int32, copy=False)


def _keep_large(labels: Labels, min_size: int) -> Labels:
    """Drop small objects and number the others 1..n."""
    kept = _sizes(labels) >= max(min_size, 1)
    kept[0] = False
    numbers = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    return numbers[labels]


def _sizes(labels: Labels) -> NDArray[np.intp]:
    """Count the pixels of each label, the background's first."""
    return np.bincount(labels.ravel(), minlength=1)


def _components(mask: Mask) -> Labels:
    """Give each group of connected pixels (no diagonals) its number."""
    from scipy import ndimage

    labels = np.zeros(mask.shape, np.int32)
    ndimage.label(mask, output=labels)
    return labels


def _as_bytes(values: Probability) -> NDArray[np.uint8]:
    """Turn 0..1 into 0..255."""
    return np.rint(np.clip(values, 0, 1) * GREY_STEPS).astype(np.uint8)
