"""Which labels are too small to be objects: told by the objects that a person vouched for.

After little learning a network sees crumbs where there is nothing. How large an object is, the
labels tell: below a part of what nearly all of them have, nothing is one. The more objects were
vouched for, the nearer to them that bound may lie, as their smallest are known the better::

    whole objects             4      10     20     100
    bound / a small object    0.22   0.33   0.40   0.48

A small object is one that 5 in 100 are smaller than. Only objects that lie in the checked areas as
a whole count. The labels alone are asked, not what a network makes of them, so the bound knows
nothing of how any model does on what is kept aside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_unet.settings import LARGEST_MIN_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_unet.runs.samples import Plane

SMALL_OBJECT = 5  # so many in 100 are smaller
LARGEST_SHARE = 0.5  # of a small object, with any number of them
HALF_OF_IT_OBJECTS = 5  # so many make the share half of that


def fit_smallest(planes: Sequence[Plane], usual: int) -> int:
    """Say from which size on a label is an object.

    Parameters
    ----------
    planes : sequence of Plane
        What was vouched for: objects.
    usual : int
        The bound so far, in pixels of the planes.

    Returns
    -------
    int
        The bound in pixels of the planes, at the scale the network sees; the usual one if no whole
        object is vouched for, or only specks of a pixel or two.
    """
    sizes = np.concatenate([np.zeros(0, np.intp), *(_whole_objects(plane) for plane in planes)])
    if not len(sizes):
        return usual
    share = LARGEST_SHARE * len(sizes) / (len(sizes) + HALF_OF_IT_OBJECTS)
    least = round(share * float(np.percentile(sizes, SMALL_OBJECT)))
    return min(LARGEST_MIN_SIZE, least) or usual


def _whole_objects(plane: Plane) -> NDArray[np.intp]:
    """Pixels of each object of which nothing lies outside of what was vouched for."""
    known = plane.vouched & ~plane.cut
    whole = np.bincount(plane.truth.ravel())
    inside = np.bincount(plane.truth[known], minlength=len(whole))
    sizes: NDArray[np.intp] = whole[1:][(inside == whole)[1:] & (whole > 0)[1:]]
    return sizes
