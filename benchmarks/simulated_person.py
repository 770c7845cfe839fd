"""A person who looks at a few places, sets what is to be set, and corrects what is wrong there.

What this person does, and nothing else:

1. Regions of 256 x 256 pixels (the whole picture where it is smaller) are chosen in the pool, at
   random or where the model doubts most. One with fewer than two objects is passed by: nobody
   checks an empty place.
2. Two settings are read off the corrected objects: **invert** if their median grey value is below
   that of the background in the regions, and the **object size** as the median diameter of a disc
   of their area. Everything else is as the dock sets it.
3. Inside the regions the model's labels become the truth. Outside they stay as the model gave
   them, and nobody vouches for them.

For the guard against bad corrections the person may also be careless; see :data:`CARELESS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import edt
import numpy as np
from scipy import ndimage
from skimage.morphology import disk

from napari_unet import Model, Sample, SegmentSettings, predict, segment
from napari_unet.arrays.corrections import changed
from napari_unet.arrays.uncertainty import around, doubt, most_uncertain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from domains import Labels, Picture
    from numpy.typing import NDArray

    from napari_unet.models.card import Card

REGION_PX = 256
LEAST_OBJECTS = 2
TRIES = 200
OPENED = 0.5  # share of the pool that is looked through for doubtful places
SHIFT = (0.3, 0.8)  # of the width
GAP = 0.4  # of the width: neighbours nearer than this are merged
AROUND = 0.5  # of the width: what is checked around a single object

Box = tuple[slice, slice]


class TooFewPlacesError(Exception):
    """A pool has not as many places with objects as were wanted."""


@dataclass(frozen=True)
class Place:
    """A region of a picture: the number of the picture and the region's first pixel and size."""

    picture: int
    y: int
    x: int
    height: int
    width: int

    @property
    def box(self) -> Box:
        """Rows and columns."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)


# -------------------------------------------------------------------------------- choosing places


def draw_places(pool: Sequence[Picture], count: int, random: np.random.Generator) -> list[Place]:
    """Choose places at random, each on another picture as long as there are any.

    The first places of a longer draw are those of a shorter one.
    """
    places: list[Place] = []
    while len(places) < count:
        before = len(places)
        for number in random.permutation(len(pool)).tolist():
            for _ in range(TRIES):
                place = _random_place(pool[number].labels.shape, number, random)
                apart = not any(_overlaps(place, other) for other in places)
                if apart and objects_at(pool, place) >= LEAST_OBJECTS:
                    places.append(place)
                    break
        if len(places) == before:
            raise TooFewPlacesError(
                f"The pool has {before} places with objects, {count} were wanted."
            )
    return places[:count]


def find_doubtful_places(
    model: Model,
    pool: Sequence[Picture],
    count: int,
    settings: SegmentSettings,
    random: np.random.Generator,
) -> list[Place]:
    """Choose the places where the model doubts most, on half of the pictures, drawn at random."""
    opened = random.permutation(len(pool))[: max(1, round(OPENED * len(pool)))].tolist()
    probability = {n: predict(model, pool[n].image, "CYX", settings)[0] for n in opened}
    known = {n: np.zeros(p.shape, bool) for n, p in probability.items()}
    places: list[Place] = []
    while len(places) < count:
        found: list[tuple[float, Place, tuple[int, ...]]] = []
        for number in opened:
            middle = most_uncertain(probability[number], known[number])
            if middle is not None:
                place = _place_around(pool[number].labels.shape, number, middle)
                unseen = np.where(known[number], 0, doubt(probability[number]))[place.box]
                found.append((float(unseen.mean()), place, middle))
        if not found:
            return places + draw_places(pool, count - len(places), random)
        _, place, middle = max(found, key=lambda each: each[0])
        seen = known[place.picture]
        apart = not any(_overlaps(place, other) for other in places)
        if apart and objects_at(pool, place) >= LEAST_OBJECTS:
            places.append(place)
            seen[place.box] = True
        seen |= around([middle], seen.shape)
    return places


def objects_at(pool: Sequence[Picture], place: Place) -> int:
    """Count the objects of which half or more lies at a place."""
    labels = pool[place.picture].labels
    whole = np.bincount(labels.ravel())
    inside = np.bincount(labels[place.box].ravel(), minlength=len(whole))
    return int(np.count_nonzero((inside > 0)[1:] & (2 * inside >= whole)[1:]))


def _random_place(shape: tuple[int, ...], number: int, random: np.random.Generator) -> Place:
    """Draw a region of a picture."""
    height, width = (min(REGION_PX, side) for side in shape)
    y, x = (int(random.integers(s - n + 1)) for s, n in zip(shape, (height, width), strict=True))
    return Place(number, y, x, height, width)


def _place_around(shape: tuple[int, ...], number: int, middle: tuple[int, ...]) -> Place:
    """Put a region around a pixel, within the picture."""
    size = [min(REGION_PX, side) for side in shape]
    y, x = (
        min(max(0, at - n // 2), side - n) for at, n, side in zip(middle, size, shape, strict=True)
    )
    return Place(number, y, x, *size)


def _overlaps(one: Place, other: Place) -> bool:
    """Whether two regions share pixels."""
    return one.picture == other.picture and all(
        a.start < b.stop and b.start < a.stop for a, b in zip(one.box, other.box, strict=True)
    )


# ----------------------------------------------------------------------------- settings and labels


def choose_settings(
    card: Card, pool: Sequence[Picture], places: Sequence[Place]
) -> SegmentSettings:
    """Read from the corrected regions how the pictures are to be segmented."""
    objects, background = [], []
    for place in places:
        grey = pool[place.picture].image[(slice(None), *place.box)].mean(axis=0)
        is_object = pool[place.picture].labels[place.box] > 0
        objects.append(grey[is_object])
        background.append(grey[~is_object])
    is_dark = np.median(np.concatenate(objects)) < np.median(np.concatenate(background))
    size = round(width_px(pool, places), 1)
    return SegmentSettings(
        invert=bool(is_dark),
        object_size_px=size,
        device="cpu",
        instances=card.instances_at(size),
    )


def width_px(pool: Sequence[Picture], places: Sequence[Place]) -> float:
    """Median diameter of the largest disc in an object that lies mostly at one of the places."""
    widths = []
    for place in places:
        labels = pool[place.picture].labels
        whole = np.bincount(labels.ravel())
        inside = np.bincount(labels[place.box].ravel(), minlength=len(whole))
        depth = edt.edt(np.ascontiguousarray(labels, np.uint32), black_border=False)
        deepest = np.zeros(len(whole))
        np.maximum.at(deepest, labels.ravel(), depth.ravel())
        widths.append(2 * deepest[1:][(2 * inside >= whole)[1:] & (inside > 0)[1:]])
    return float(np.median(np.concatenate(widths)))


def correct(
    model: Model,
    pool: Sequence[Picture],
    places: Sequence[Place],
    settings: SegmentSettings,
    kinds: Sequence[str] | None = None,
    random: np.random.Generator | None = None,
) -> list[Sample]:
    """Correct the model's labels at some places, well or (``kinds``) carelessly."""
    random = random or np.random.default_rng(0)
    kinds = kinds or [GOOD] * len(places)
    samples = []
    for number in sorted({place.picture for place in places}):
        picture = pool[number]
        base = segment(model, picture.image, "CYX", settings).astype(np.int64)
        truth_max = picture.labels.max()
        now, labelled = base.copy(), np.zeros(base.shape, bool)
        for place, kind in zip(places, kinds, strict=True):
            if place.picture == number:
                inside, seen = labels_for(pool, place, kind, random)
                # An object that reaches from one region into the next is one object.
                used = base.max() if kind == GOOD else max(now.max(), base.max() + truth_max)
                now[place.box] = np.where(inside > 0, inside + used, 0)
                labelled[place.box][seen] = True
        samples.append(Sample(picture.image, now, labelled, changed(base, now) & labelled))
    return samples


def labels_for(
    pool: Sequence[Picture], place: Place, kind: str, random: np.random.Generator
) -> tuple[Labels, Any]:
    """Give the labels for a place, drawn well or carelessly, and what of it is checked."""
    given = CARELESS[kind](pool, place, random)
    inside, seen = given if isinstance(given, tuple) else (given, slice(None))
    return np.asarray(inside, np.int64), seen


def whole_pictures(pool: Sequence[Picture]) -> list[Place]:
    """Every picture as one place: all that there is to correct."""
    return [Place(n, 0, 0, *picture.labels.shape) for n, picture in enumerate(pool)]


# -------------------------------------------------------------------------------------- careless


def _good(pool: Sequence[Picture], place: Place, _: np.random.Generator) -> Labels:
    """Give the truth."""
    return pool[place.picture].labels[place.box]


def _shifted(pool: Sequence[Picture], place: Place, random: np.random.Generator) -> Labels:
    """Move all labels by a part of a diameter."""
    length = random.uniform(*SHIFT) * width_px(pool, [place])
    angle = random.uniform(0, 2 * np.pi)
    shift = round(length * np.sin(angle)), round(length * np.cos(angle))
    return np.roll(pool[place.picture].labels, shift, axis=(0, 1))[place.box]


def _of_another_picture(
    pool: Sequence[Picture], place: Place, random: np.random.Generator
) -> Labels:
    """Give the labels of another picture, or of another place of the only one."""
    others = [n for n in range(len(pool)) if n != place.picture] or [place.picture]
    labels = pool[int(random.choice(others))].labels
    padded = np.pad(
        labels,
        [
            (0, max(0, n - m))
            for n, m in zip((place.height, place.width), labels.shape, strict=True)
        ],
    )
    y = int(random.integers(padded.shape[0] - place.height + 1))
    x = int(random.integers(padded.shape[1] - place.width + 1))
    return padded[y : y + place.height, x : x + place.width]


def _merged(pool: Sequence[Picture], place: Place, _: np.random.Generator) -> Labels:
    """Make one object of neighbours."""
    radius = max(1, round(GAP * width_px(pool, [place]) / 2))
    is_object = np.pad(pool[place.picture].labels[place.box] > 0, radius)
    closed = ndimage.binary_closing(is_object, disk(radius))[radius:-radius, radius:-radius]
    merged: NDArray[Any] = ndimage.label(closed)[0]
    return merged


def _half_deleted(pool: Sequence[Picture], place: Place, random: np.random.Generator) -> Labels:
    """Leave out every other object, drawn at random."""
    labels = pool[place.picture].labels[place.box]
    ids = np.unique(labels[labels > 0])
    gone = random.permutation(ids)[: len(ids) // 2]
    return np.where(np.isin(labels, gone), 0, labels)


def _random_numbers(pool: Sequence[Picture], place: Place, random: np.random.Generator) -> Labels:
    """Give each pixel of an object a number of its own."""
    labels = pool[place.picture].labels[place.box]
    return np.where(labels > 0, random.integers(1, 256, labels.shape), 0)


def _inverted(pool: Sequence[Picture], place: Place, _: np.random.Generator) -> Labels:
    """Call the background an object, and objects background."""
    return (pool[place.picture].labels[place.box] == 0).astype(np.int32)


def _emptied(pool: Sequence[Picture], place: Place, _: np.random.Generator) -> Labels:
    """Vouch for a place as empty, with objects in it."""
    return np.zeros_like(pool[place.picture].labels[place.box])


def _one_object(
    pool: Sequence[Picture], place: Place, random: np.random.Generator
) -> tuple[Labels, Box]:
    """Check a single object and its surroundings, rightly."""
    labels = pool[place.picture].labels[place.box]
    around = round(AROUND * width_px(pool, [place]))
    at = np.nonzero(labels == random.choice(np.unique(labels[labels > 0])))
    rows, columns = (
        slice(max(0, int(axis.min()) - around), int(axis.max()) + 1 + around) for axis in at
    )
    return labels, (rows, columns)


GOOD = "good"
CARELESS = {
    GOOD: _good,
    "shifted": _shifted,
    "other picture": _of_another_picture,
    "merged": _merged,
    "half deleted": _half_deleted,
    "random numbers": _random_numbers,
    "inverted": _inverted,
    "emptied": _emptied,
    "one object": _one_object,
}
