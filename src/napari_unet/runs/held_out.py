"""Which vouched pixels each of two checks keeps aside to judge, and does not learn from.

Pixels beside each other are alike, so a result judged a few pixels beside what was learnt looks
better than it is. What a check keeps aside is therefore a block of its own, at least one crop apart
from every pixel that its training crops can see::

    check 1    | learn          | gap | judge          |
    check 2    | judge          | gap | learn          |

1. Several regions that lie apart (on other planes, or more than two crops away): whole regions, in
   each check others, as many as come nearest to the wanted share.
2. One region of three crops or more along a side: its two ends. The crops of the checks shrink, if
   they must, to a quarter of that side.
3. Otherwise nothing: then there is no verdict, and the person is asked for one more region.

So with few labels, too, most of them judge, and none of them judges what it has taught.
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
FAIR_SHARE = (0.05, 0.8)  # of the vouched pixels that a check may take away as whole regions


@dataclass(frozen=True, eq=False)
class Split:
    """What is kept aside.

    Attributes
    ----------
    kind : {"regions", "block", "nothing"}
        Whole regions, the ends of one, or nothing.
    crop_px : int
        Side of the crops of the checks, and width of the gap, in pixels.
    checks : tuple of tuple of ndarray of bool
        For each check, of each plane, the pixels kept aside; no check if there is nothing.
    """

    kind: Literal["regions", "block", "nothing"]
    crop_px: int
    checks: tuple[tuple[Mask, ...], ...]

    @property
    def is_judged(self) -> bool:
        """Whether there is anything to judge the result on."""
        return bool(self.checks)

    @property
    def masks(self) -> tuple[Mask, ...]:
        """Of each plane, the pixels that one of the checks keeps aside."""
        return tuple(np.logical_or.reduce(each) for each in zip(*self.checks, strict=True))


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
        Wanted share of the vouched pixels for each check, 0..1.
    crop_px : int
        Wanted side of the crops of the checks, in pixels.
    fit : callable
        Gives the next side of a crop that the network can take.
    margin_px : int
        What the network sees around a crop on each side (of unpadded networks), in pixels.
    semantic : bool
        Whether the labels are classes, not objects.

    Returns
    -------
    Split
        Of the first kind above that leaves enough on both sides of each check: objects and
        background to learn from, and to judge.
    """
    full = fit(crop_px)
    for split in _candidates(planes, share, full, fit):
        gap = split.crop_px + margin_px
        is_fair = all(_is_fair(planes, masks, gap) for masks in split.checks)
        if is_fair and _can_tell(planes, split.masks, semantic):
            return split
    return Split("nothing", full, ())


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
    """Propose pairs of sets of regions, each pair begun with another region."""
    total = sum(region.pixels for region in regions)
    for first in sorted(regions, key=lambda region: abs(region.pixels - wanted)):
        one = _nearest_to(wanted, first, regions)
        rest = [region for region in regions if region not in one]
        if not rest:
            continue
        second = min(rest, key=lambda region: abs(region.pixels - wanted))
        other = _nearest_to(wanted, second, rest)
        shares = [sum(region.pixels for region in chosen) / total for chosen in (one, other)]
        if all(FAIR_SHARE[0] <= share <= FAIR_SHARE[1] for share in shares):
            yield Split("regions", crop_px, (_masks(planes, one), _masks(planes, other)))


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
    """Propose the two ends of a region, those of its longer side first."""
    box = grown_box(region.mask, 0)
    lengths = [side.stop - side.start for side in box]
    for axis in sorted((0, 1), key=lambda axis: -lengths[axis]):
        crop = fit(min(full, max(LEAST_CROP_PX, lengths[axis] // 4)))
        if lengths[axis] < 3 * crop:
            continue
        counts = region.mask[box].sum(axis=1 - axis)
        checks = []
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
            checks.append(_masks(planes, [_Region(region.plane, region.mask & inside, 0)]))
        yield Split("block", crop, tuple(checks))


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
