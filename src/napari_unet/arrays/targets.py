"""What the network is asked to give for an image whose labels are known.

Each output channel of a model has a name (see :class:`napari_unet.models.card.Card`), and each
name is a map made from the labels. One row through two touching objects::

    labels        0 0 1 1 1 1 1 2 2 2 0
    foreground    0 0 1 1 1 1 1 1 1 1 0
    boundary      0 1 1 0 0 0 1 1 0 1 1      one pixel to either side of every edge
    distance      0 0 ⅓ ⅔ 1 ⅔ ⅓ ½ 1 ½ 0      depth in the object over its greatest depth

The distance falls to near 0 between objects that touch and is 1 in the middle of each, however
large it is, so one level cuts all of them apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.errors import LabelsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Labels = NDArray[np.integer[Any]]
    Map = NDArray[np.float32]

REACH_SIGMAS = 6.0  # beyond it the separation weight is under 2e-8 of w0, less than float32 keeps


def make_targets(labels: Labels, outputs: tuple[str, ...]) -> Map:
    """Turn labels into the maps that a network of these outputs should give.

    Parameters
    ----------
    labels : ndarray of int, shape (Y, X) or (Z, Y, X)
        Instance labels where ``outputs`` names foreground, boundary or distance; otherwise
        class labels. 0 is background.
    outputs : tuple of str
        Names of the output channels. Names other than foreground, boundary and distance are
        classes: such a map is 1 where the label is the index of the output.

    Returns
    -------
    ndarray of float32, shape (len(outputs), *labels.shape), range 0..1
        One map per output.

    Raises
    ------
    LabelsError
        If the labels are neither a plane nor a volume, are not whole numbers, or hold
        negative ones.
    """
    labels = _checked(labels)
    maps = [_make_map(labels, name, index) for index, name in enumerate(outputs)]
    return np.stack(maps).astype(np.float32, copy=False)


def separation_weights(
    labels: Labels, w0: float = 10.0, sigma_px: float = 5.0, *, balance: bool = False
) -> Map:
    """Weigh the pixels so that the network learns the narrow gaps between objects.

    The weight map of the paper [1]_, equation 2: ``w = wc + w0 exp(-(d1 + d2)^2 / 2 sigma^2)``,
    where d1 and d2 are the distances to the nearest and the second nearest object, in pixels. A
    pixel inside an object has d1 = 0, so objects that touch without a gap get their weight along
    the common edge.

    Parameters
    ----------
    labels : ndarray of int, shape (Y, X) or (Z, Y, X)
        Instance labels, 0 is background.
    w0 : float
        Weight added where two objects touch.
    sigma_px : float
        How far from the gap the weight reaches, in pixels.
    balance : bool
        Whether wc makes objects and background count the same in sum (its mean over all pixels
        is 1); if not, wc is 1.

    Returns
    -------
    ndarray of float32, same shape as ``labels``
        Weight of each pixel.

    Raises
    ------
    LabelsError
        As for :func:`make_targets`.

    References
    ----------
    .. [1] Ronneberger, Fischer, Brox (2015), U-Net: Convolutional Networks for Biomedical Image
       Segmentation, doi:10.1007/978-3-319-24574-4_28.
    """
    labels = _checked(labels)
    reach = REACH_SIGMAS * sigma_px
    nearest, second = _two_nearest(labels, reach)
    gap = w0 * np.exp(-((nearest + second) ** 2) / (2 * sigma_px**2))
    base = _class_weights(labels > 0) if balance else np.float32(1)
    weights: Map = (base + gap).astype(np.float32, copy=False)
    return weights


def _checked(labels: Labels) -> Labels:
    """Labels as an array, refused if they cannot be labels."""
    labels = np.asarray(labels)
    if labels.dtype == bool:
        labels = labels.astype(np.uint8)
    if labels.ndim not in (2, 3) or not np.issubdtype(labels.dtype, np.integer):
        raise LabelsError(
            f"Labels of shape {labels.shape} and type {labels.dtype} are no plane or volume of "
            "whole numbers. Give an integer array of shape (Y, X) or (Z, Y, X)."
        )
    if labels.size and labels.min() < 0:
        raise LabelsError(
            f"Labels hold {labels.min()}, but only 0 (background) and positive numbers mean "
            "something. Set negative labels to 0."
        )
    return labels


def _make_map(labels: Labels, name: str, index: int) -> NDArray[Any]:
    """Make the map of one output."""
    if name == "foreground":
        return labels > 0
    if name == "boundary":
        return _boundary(labels)
    if name == "distance":
        return _relative_depth(labels)
    belongs: NDArray[np.bool_] = labels == index
    return belongs


def _boundary(labels: Labels) -> NDArray[np.bool_]:
    """Pixels that have a neighbour (no diagonals) of another label."""
    edge = np.zeros(labels.shape, bool)
    for axis in range(labels.ndim):
        ahead = (slice(None),) * axis + (slice(1, None),)
        behind = (slice(None),) * axis + (slice(None, -1),)
        differs = labels[ahead] != labels[behind]
        edge[ahead] |= differs
        edge[behind] |= differs
    return edge


def _relative_depth(labels: Labels) -> Map:
    """Distance to the edge of the own object over the greatest one in it; 0 in the background."""
    import edt

    # edt works on C-ordered arrays; an object cut by the image border goes on behind it
    ids, compact = np.unique(labels, return_inverse=True)
    compact = np.ascontiguousarray(compact.reshape(labels.shape), np.uint32)
    depth: Map = edt.edt(compact if ids[:1] == 0 else compact + 1, black_border=False)
    depth[np.isinf(depth)] = 1  # an image that is all one object has no edge
    greatest = np.zeros(len(ids), np.float32)
    np.maximum.at(greatest, compact.ravel(), depth.ravel())
    depth /= np.maximum(greatest, 1)[compact]
    depth[labels == 0] = 0
    return depth


def _two_nearest(labels: Labels, reach: float) -> tuple[Map, Map]:
    """Distance to the nearest and second nearest object, infinite beyond the reach."""
    from scipy import ndimage

    nearest = np.full(labels.shape, np.inf, np.float32)
    second = nearest.copy()
    for value, window in _windows(labels, int(np.ceil(reach))):
        distance = ndimage.distance_transform_edt(labels[window] != value).astype(np.float32)
        near, next_near = nearest[window], second[window]
        np.minimum(next_near, np.maximum(near, distance), out=next_near)
        np.minimum(near, distance, out=near)
    return nearest, second


def _windows(labels: Labels, margin: int) -> Iterator[tuple[int, tuple[slice, ...]]]:
    """Each label with its bounding box, grown by the margin and clipped to the image."""
    from scipy import ndimage

    ids, compact = np.unique(labels, return_inverse=True)
    compact = compact.reshape(labels.shape) + (0 if ids[:1] == 0 else 1)
    boxes = ndimage.find_objects(compact)
    for value, box in zip(ids[ids > 0].tolist(), boxes, strict=True):
        yield (
            value,
            tuple(
                slice(max(0, side.start - margin), min(size, side.stop + margin))
                for side, size in zip(box, labels.shape, strict=True)
            ),
        )


def _class_weights(foreground: NDArray[np.bool_]) -> Map:
    """Weights that make objects and background count the same in sum, with mean 1."""
    share = float(foreground.mean()) if foreground.size else 0.0
    if share in (0.0, 1.0):
        return np.ones(foreground.shape, np.float32)
    return np.where(foreground, 0.5 / share, 0.5 / (1 - share)).astype(np.float32)
