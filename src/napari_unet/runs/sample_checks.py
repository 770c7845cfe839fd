"""Which samples cannot teach anything, or something wrong, and what to say of the others.

All of it is told before a training begins, each in a sentence with what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_unet.errors import ImageError, LabelsError, ModelError, described
from napari_unet.runs.samples import LEAST_PIXELS, Sample, grown_box, vouched_in

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from napari_unet.models.card import Card

SPECK_PX = 2  # no object is that small ...
MOST_CHANNELS_LAST = 4  # of (Y, X, C): more are pixels
LEAST_PIECES = 10  # of labels that look like classes ...
PIECES_OF_A_CLASS = 5  # ... so many of one number
MOST_SPECKS = 10  # ... but for slips of the brush; if half of the objects are, they are none


def check_samples(
    samples: Sequence[Sample], card: Card, channels: tuple[int, ...] | None = None
) -> None:
    """Refuse samples that cannot teach anything, or something wrong.

    Parameters
    ----------
    samples : sequence of Sample
        Planes with labels.
    card : Card
        Of the model that is to learn.
    channels : tuple of int, optional
        Those of each image that the network sees, counted from 0; all if not given.

    Raises
    ------
    ModelError
        If the model looks at volumes.
    ImageError
        If an image is no plane with channels.
    LabelsError
        If these are no samples, an array does not fit its image, labels are no labels or of other
        classes than the model's, or too little is vouched for, or only background, or only
        objects, or objects that no image shows, or numbers that change from pixel to pixel.
    """
    if card.architecture.spatial_dims != 2:
        raise ModelError(
            f"{card.name} looks at volumes (ZYX); only models for planes can be fine-tuned so "
            "far. Choose a 2D model: it labels a z-stack plane by plane."
        )
    _check_are_samples(samples)
    for sample in samples:
        check_sample(sample, card, channels)
    parts = [_vouched_labels(sample) for sample in samples]
    vouched = sum(part.size for part in parts)
    if vouched == 0:
        raise LabelsError(
            "Nothing is vouched for, so there is nothing to learn from. Mark a region whose "
            "labels are right, or a whole plane."
        )
    objects = sum(int(np.count_nonzero(part)) for part in parts)
    if objects in (0, vouched):
        only, missing = ("background", "objects") if objects == 0 else ("objects", "background")
        raise LabelsError(
            f"Only {only} is vouched for; a network needs to see both. Mark a region that has "
            f"{missing}, too."
            if only == "background"
            else f"Only {only} are vouched for; a network needs to see both. Mark a region around "
            f"them: what is 0 in it counts as {missing}."
        )
    if vouched < LEAST_PIXELS:
        raise LabelsError(
            f"Only {vouched} pixels are vouched for, at least {LEAST_PIXELS} are needed (20 x 20). "
            "Mark a larger region."
        )
    if card.labels == "instance":
        _check_are_objects(samples)


def remarks_on(samples: Sequence[Sample], card: Card) -> list[str]:
    """Say what the person should know before the training, though it can go on.

    Parameters
    ----------
    samples : sequence of Sample
        Planes with labels, which :func:`check_samples` has let through.
    card : Card
        Of the model that is to learn.

    Returns
    -------
    list of str
        One sentence or two each.
    """
    if card.labels == "instance":
        return [text for sample in samples if (text := _remark_on_numbers(sample))]
    if len(card.outputs) < 2:
        return []
    known = np.unique(np.concatenate([_vouched_labels(sample) for sample in samples]))
    return [
        f"The class {name} ({number}) is nowhere in the checked areas: the network may forget it. "
        "Check a region that has it, too."
        for number, name in enumerate(card.outputs)
        if number not in known
    ]


def _vouched_labels(sample: Sample) -> NDArray[np.integer[Any]]:
    """Labels of the pixels that are vouched for, flat."""
    return np.asarray(sample.labels)[vouched_in(sample)]


def _check_shows_something(sample: Sample, channels: tuple[int, ...] | None) -> None:
    """Refuse objects on an image of one grey value: it is another one's, or empty."""
    if not _vouched_labels(sample).any():
        return
    image = np.asarray(sample.image)
    if channels and all(0 <= channel < len(image) for channel in channels):
        image = image[list(channels)]
    values = image if image.dtype.kind in "biu" else image[np.isfinite(image)]
    if values.size and values.min() < values.max():
        return
    holds = f"the grey value {values.flat[0]:g} everywhere" if values.size else "no grey values"
    raise LabelsError(
        f"{sample.name or 'The image of a sample'} has {holds}, so the objects vouched for cannot "
        "be seen in it. Choose the image, and the channel, they were drawn on."
    )


def _check_are_objects(samples: Sequence[Sample]) -> None:
    """Refuse numbers that change from pixel to pixel: grey values, probabilities, mixed-up ids."""
    of_each = [(_part_sizes(sample), sample.name) for sample in samples]
    together = np.concatenate([sizes for sizes, _ in of_each])
    for sizes, name in (*of_each, (together, "")):
        specks = int(np.count_nonzero(sizes <= SPECK_PX))
        if specks > MOST_SPECKS and 2 * specks > len(sizes):
            where = f" in {name}" if name else ""
            raise LabelsError(
                f"{specks} of the {len(sizes)} objects vouched for{where} are of {SPECK_PX} pixels "
                "or fewer, as if their numbers were mixed up, or grey values. Give labels: all "
                "pixels of an object have one number, and background is 0."
            )


def _remark_on_numbers(sample: Sample) -> str | None:
    """Say that the numbers look like those of classes: few of them, for many pieces."""
    from skimage.measure import label

    vouched = vouched_in(sample)
    if not vouched.any():
        return None
    box = grown_box(vouched, 0)
    known = np.where(vouched[box], np.asarray(sample.labels)[box], 0)
    numbers = int(np.count_nonzero(np.unique(known)))
    pieces = int(label(known, background=0, connectivity=1).max())
    if pieces < LEAST_PIECES or pieces < PIECES_OF_A_CLASS * numbers:
        return None
    where = f" in {sample.name}" if sample.name else ""
    return (
        f"The labels{where} have {numbers} {'number' if numbers == 1 else 'numbers'} for {pieces} "
        "pieces, as classes have. Each piece is taken for one object: where several objects touch "
        "under one number, give each of them its own."
    )


def _part_sizes(sample: Sample) -> NDArray[np.intp]:
    """Pixels of each connected part of each object that reaches into the checked area."""
    from skimage.measure import label

    parts = label(np.asarray(sample.labels), background=0, connectivity=1)
    inside = np.unique(parts[vouched_in(sample)])
    sizes: NDArray[np.intp] = np.bincount(parts.ravel())[inside[inside > 0]]
    return sizes


def _check_are_samples(samples: object) -> None:
    """Refuse what is no list of samples."""
    if not isinstance(samples, list | tuple):
        raise LabelsError(
            f"A list of samples was expected, {described(samples)} was given. Give "
            "[Sample(image, labels)]."
        )
    for sample in samples:
        if not isinstance(sample, Sample):
            raise LabelsError(
                f"Samples were expected, the list holds {described(sample)}. Give "
                "[Sample(image, labels)]."
            )


def check_sample(sample: Sample, card: Card, channels: tuple[int, ...] | None = None) -> None:
    """Refuse a sample whose arrays do not belong together, or that shows or says nothing.

    Parameters
    ----------
    sample : Sample
        One plane.
    card : Card
        Of the model that is to learn.
    channels : tuple of int, optional
        Those that the network sees, counted from 0; all if not given.

    Raises
    ------
    ImageError, LabelsError
        As :func:`check_samples`.
    """
    shape = tuple(np.shape(sample.image))
    if len(shape) != 3 or 0 in shape:
        how = "image[np.newaxis]" if len(shape) == 2 else "its channels first"
        raise ImageError(
            f"The image of a sample has the shape {shape}, a plane with channels (C, Y, X) was "
            f"expected. Give {how}."
        )
    size = shape[1:]
    if shape[:2] == np.shape(sample.labels) and shape[2] <= MOST_CHANNELS_LAST:
        raise ImageError(
            f"The image of a sample has the shape {shape}, as if its channels came last; (C, Y, X) "
            "was expected. Give np.moveaxis(image, -1, 0)."
        )
    for name in ("labels", "labelled", "changed"):
        array = getattr(sample, name)
        if array is None and name != "labels":
            continue
        if tuple(np.shape(array)) != size:
            raise LabelsError(
                f"{name} of a sample has the shape {tuple(np.shape(array))}, its image {size}. "
                "Give a plane (Y, X) of the same size."
            )
        if name != "labels" and not _is_yes_or_no(np.asarray(array)):
            raise LabelsError(
                f"{name} of a sample holds values that are no numbers. Give True, or another "
                "number than 0, where it is meant, elsewhere 0."
            )
    labels = np.asarray(sample.labels)
    lowest = labels.min(initial=0) if labels.dtype.kind in "biu" else None
    if lowest is None or lowest < 0:
        found = f"are of type {labels.dtype}" if lowest is None else f"hold numbers from {lowest}"
        raise LabelsError(
            f"The labels of a sample {found}, whole numbers from 0 were expected. Give labels: 0 "
            "is background, objects are 1 and up."
        )
    classes = max(2, len(card.outputs))
    largest = int(_vouched_labels(sample).max(initial=0))
    if card.labels == "semantic" and largest >= classes:
        raise LabelsError(
            f"The labels hold the number {largest}, but {card.name} knows the classes 0 to "
            f"{classes - 1} ({', '.join(card.outputs)}). Use the numbers of its classes, or a "
            "model that tells objects apart."
        )
    _check_shows_something(sample, channels)


def _is_yes_or_no(mask: NDArray[Any]) -> bool:
    """Tell whether each value of a mask says yes or no."""
    return mask.dtype.kind in "biu" or (mask.dtype.kind == "f" and not np.isnan(mask).any())
