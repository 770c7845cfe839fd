"""Which vouched pixels a training keeps aside at first to judge, and does not learn from.

Pixels beside each other are alike, so a result judged a few pixels beside what was learnt looks
better than it is. What is kept aside is therefore a block of its own, at least one crop apart from
every pixel that the crops can see meanwhile::

    | learn          | gap | judge          |

1. Of several regions that lie apart (on other planes, or more than two crops away): whole regions,
   as many as come nearest to the wanted share.
2. Of one region of three crops or more along a side: one end. The crops shrink, if they must, to a
   quarter of that side.
3. Otherwise nothing: then there is no verdict, and the person is asked for one more region.

In the end the network learns from these pixels as well (:mod:`napari_unet.runs.rounds`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_unet.runs.places import count_places
from napari_unet.runs.samples import LEAST_PIXELS, grown_box
from napari_unet.runs.verdict import LEAST_PLACES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from napari_unet.runs.samples import Plane

    Mask = NDArray[np.bool_]

LEAST_OBJECTS = 5  # of fewer no verdict can be told, nor of objects in fewer places
LEAST_CROP_PX = 48
FAIR_SHARE = (0.05, 0.8)  # of the vouched pixels that may be kept aside as whole regions


@dataclass(frozen=True, eq=False)
class Split:
    """What is kept aside.

    Attributes
    ----------
    kind : {"regions", "block", "nothing"}
        Whole regions, the end of one, or nothing.
    crop_px : int
        Side of the crops meanwhile, and width of the gap, in pixels.
    masks : tuple of ndarray of bool
        Of each plane, the pixels kept aside.
    """

    kind: Literal["regions", "block", "nothing"]
    crop_px: int
    masks: tuple[Mask, ...]

    @property
    def is_judged(self) -> bool:
        """Whether there is anything to judge the result on."""
        return self.kind != "nothing"


@dataclass(frozen=True, eq=False)
class _Region:
    """Vouched pixels of one plane that lie near each other."""

    plane: int
    mask: Mask
    pixels: int


def hold_out(
    planes: Sequence[Plane],
    share: float,
    crop_px: int,
    fit: Callable[[int], int] = int,
    *,
    margin_px: int = 0,
    semantic: bool = False,
) -> Split:
    """Choose what is kept aside.

    Parameters
    ----------
    planes : sequence of Plane
        What was vouched for.
    share : float
        Wanted share of the vouched pixels, 0..1.
    crop_px : int
        Wanted side of the crops meanwhile, in pixels.
    fit : callable
        Gives the next side of a crop that the network can take.
    margin_px : int
        What the network sees around a crop on each side (of unpadded networks), in pixels.
    semantic : bool
        Whether the labels are classes, not objects.

    Returns
    -------
    Split
        Of the first kind above that leaves enough on both sides: objects and background to learn
        from, and to judge.
    """
    full = fit(crop_px)
    for split in _candidates(planes, share, full, fit):
        is_fair = _is_fair(planes, split.masks, split.crop_px + margin_px)
        if is_fair and _can_tell(planes, split.masks, semantic):
            return split
    return Split("nothing", full, _masks(planes, []))


def objects_in(plane: Plane, mask: Mask) -> int:
    """Count the objects of which half or more lies in a mask.

    Parameters
    ----------
    plane : Plane
        Its truth names the objects.
    mask : ndarray of bool, shape (Y, X)
        Where to count.

    Returns
    -------
    int
        Number of objects.
    """
    inside = np.bincount(plane.truth[mask], minlength=1)[1:]
    whole = np.bincount(plane.truth[plane.vouched], minlength=len(inside) + 1)[1:][: len(inside)]
    return int(np.count_nonzero((inside > 0) & (2 * inside >= whole)))


def _candidates(
    planes: Sequence[Plane], share: float, full: int, fit: Callable[[int], int]
) -> Iterator[Split]:
    """Propose splits from the best to the worst."""
    regions = [r for number, plane in enumerate(planes) for r in _regions(number, plane, full)]
    total = sum(region.pixels for region in regions)
    if len(regions) > 1:
        yield from _whole_regions(planes, regions, share * total, full)
    largest = max(regions, key=lambda region: region.pixels)
    yield from _end_blocks(planes, largest, share * total, full, fit)


def _regions(number: int, plane: Plane, apart_px: int) -> list[_Region]:
    """Regions of a plane between which two crops have room."""
    from scipy import ndimage

    # All regions whose surroundings of one crop meet are one.
    around = ndimage.maximum_filter(plane.vouched, 2 * apart_px + 1, mode="constant")
    names, count = ndimage.label(around, structure=np.ones((3, 3)))
    masks = [plane.vouched & (names == name) for name in range(1, count + 1)]
    return [_Region(number, mask, int(mask.sum())) for mask in masks]


def _whole_regions(
    planes: Sequence[Plane], regions: Sequence[_Region], wanted: float, crop_px: int
) -> Iterator[Split]:
    """Propose sets of regions, each begun with another one."""
    total = sum(region.pixels for region in regions)
    for first in sorted(regions, key=lambda region: abs(region.pixels - wanted)):
        chosen = _nearest_to(wanted, first, regions)
        share = sum(region.pixels for region in chosen) / total
        if FAIR_SHARE[0] <= share <= FAIR_SHARE[1]:
            yield Split("regions", crop_px, _masks(planes, chosen))


def _nearest_to(wanted: float, first: _Region, regions: Sequence[_Region]) -> list[_Region]:
    """Add regions to the first one as long as their pixels come nearer to the wanted number."""
    chosen, pixels = [first], first.pixels
    for region in regions:
        more = pixels + region.pixels
        if region is not first and abs(more - wanted) < abs(pixels - wanted):
            chosen, pixels = [*chosen, region], more
    return chosen


def _end_blocks(
    planes: Sequence[Plane],
    region: _Region,
    wanted: float,
    full: int,
    fit: Callable[[int], int],
) -> Iterator[Split]:
    """Propose the ends of a region, those of its longer side first."""
    box = grown_box(region.mask, 0)
    lengths = [side.stop - side.start for side in box]
    for axis in sorted((0, 1), key=lambda axis: -lengths[axis]):
        crop = fit(min(full, max(LEAST_CROP_PX, lengths[axis] // 4)))
        if lengths[axis] < 3 * crop:
            continue
        counts = region.mask[box].sum(axis=1 - axis)
        for is_far in (True, False):
            cumulated = np.cumsum(counts[::-1] if is_far else counts)
            depth = int(np.searchsorted(cumulated, wanted)) + 1
            depth = min(max(depth, crop), (lengths[axis] - crop) // 2)
            side = box[axis]
            part = (
                slice(side.stop - depth, side.stop)
                if is_far
                else slice(side.start, side.start + depth)
            )
            inside = np.zeros(region.mask.shape, bool)
            inside[(part, slice(None)) if axis == 0 else (slice(None), part)] = True
            end = _Region(region.plane, region.mask & inside, 0)
            yield Split("block", crop, _masks(planes, [end]))


def _can_tell(planes: Sequence[Plane], masks: Sequence[Mask], semantic: bool) -> bool:
    """Whether there is enough to judge: objects, in places that can tell luck from merit."""
    judged = sum(objects_in(p, m) for p, m in zip(planes, masks, strict=True))
    truths = [plane.truth for plane in planes]
    places = count_places(truths, masks, semantic=semantic)
    return places >= LEAST_PLACES and (semantic or judged >= LEAST_OBJECTS)


def _is_fair(planes: Sequence[Plane], masks: Sequence[Mask], gap_px: int) -> bool:
    """Whether there are both objects and background, to judge as to learn from."""
    held = [plane.truth[mask] for plane, mask in zip(planes, masks, strict=True)]
    learnt = [
        plane.truth[plane.vouched & ~plane.cut & ~_near(mask, gap_px)]
        for plane, mask in zip(planes, masks, strict=True)
    ]
    return (
        _has_both(held) and _has_both(learnt) and sum(part.size for part in learnt) >= LEAST_PIXELS
    )


def _has_both(parts: Sequence[NDArray[Any]]) -> bool:
    """Whether there are objects and background."""
    return any((part > 0).any() for part in parts) and any((part == 0).any() for part in parts)


def _near(mask: Mask, distance_px: int) -> Mask:
    """Pixels at most so far from those that are set, along either axis."""
    from scipy import ndimage

    near: Mask = ndimage.maximum_filter(mask, 2 * distance_px + 1, mode="constant")
    return near


def _masks(planes: Sequence[Plane], regions: Sequence[_Region]) -> tuple[Mask, ...]:
    """One mask for each plane."""
    masks = tuple(np.zeros(plane.truth.shape, bool) for plane in planes)
    for region in regions:
        masks[region.plane][region.mask] = True
    return masks
