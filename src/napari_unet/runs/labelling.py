"""From probabilities to labels, plane by plane, wherever they lie; needs no network.

What an object is stands in :mod:`napari_unet.arrays.instances`; here are the planes of an image,
the kind of labels that a card names, and memory that runs out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.arrays.axes import plan_planes
from napari_unet.arrays.blocks import (
    BLOCK_PX,
    count_processors,
    cut_blocks,
    plan_blocks,
    write_unit,
)
from napari_unet.arrays.instances import find_classes, find_instances_steps
from napari_unet.arrays.reading import plane_of
from napari_unet.errors import DeviceError
from napari_unet.runs.background import Background
from napari_unet.runs.outputs import output_array
from napari_unet.runs.progress import Job, Note, Progress, TileDone

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_unet.models.card import Card
    from napari_unet.settings import InstanceSettings


def label_steps(
    card: Card, probability: Any, axes: str, settings: InstanceSettings, out: Any = None
) -> Job[Any]:
    """Find objects anew in probabilities that were kept; needs no network.

    Parameters
    ----------
    card : Card
        Of the model that gave the probabilities.
    probability : array-like, shape (classes, *axes), range 0..1
        As in :class:`Segmentation`.
    axes : str
        Axes without C, e.g. ``"ZYX"``.
    settings : InstanceSettings
        Threshold, smallest object, splitting.
    out : array, optional
        Where to write the labels, e.g. a zarr array.

    Returns
    -------
    ndarray of int32, shape (*axes)
        Or ``out``.

    Yields
    ------
    Progress
        A TileDone after each plane.
    """
    planes = plan_planes(probability.shape[1:], axes, card.architecture.spatial_dims)
    labels = output_array(out, planes.out_shape, np.int32)
    told: set[Note] = set()
    with Background() as background:
        for done, index in enumerate(planes.indices(), start=1):
            plane, target = (plane_of(array, planes, index) for array in (probability, labels))
            steps = find_labels_steps(card, plane, settings, target)
            yield from each_note_once(background.go_through(steps), told)
            yield TileDone(done, planes.count)
    return labels


def find_labels(card: Card, probability: Any, settings: InstanceSettings) -> NDArray[np.int32]:
    """Find the labels of one plane, or of a part of it, of the kind the card names.

    Parameters
    ----------
    card : Card
        Of the model that gave the probabilities.
    probability : ndarray of float32, shape (classes, *spatial), range 0..1
        One plane or volume.
    settings : InstanceSettings
        Threshold, smallest object, splitting; without meaning for classes.

    Returns
    -------
    ndarray of int32, shape (*spatial)
        Objects 1..n, or classes; 0 is background.
    """
    labels = np.empty(probability.shape[1:], np.int32)
    for _ in find_labels_steps(card, probability, settings, labels):
        pass
    return labels


def find_labels_steps(
    card: Card,
    probability: Any,
    settings: InstanceSettings,
    labels: Any,
    *,
    block_px: int = BLOCK_PX,
) -> Job[None]:
    """Find the labels of one plane piece by piece, wherever they lie.

    Parameters
    ----------
    card, probability, settings : object
        As for :func:`find_labels`.
    labels : array of int32, shape (*spatial)
        Where they are written; numpy, memory map or zarr.
    block_px : int
        Pixels of a piece at most. What is begun of a piece goes on after a cancel.

    Yields
    ------
    Progress
        After each piece; a Note where memory ran out, and smaller pieces are gone through.

    Raises
    ------
    DeviceError
        If memory does not suffice for small pieces either.
    """
    unit = write_unit(labels)
    block = plan_blocks(labels.shape, block_px, unit)
    if card.labels == "semantic":
        for window in cut_blocks(labels.shape, block):
            part = np.asarray(probability[(slice(None), *window)])
            labels[window] = find_classes(part, card.activation)
            yield Progress()
        return
    is_written_apart = isinstance(labels, np.ndarray) or unit is not None
    threads = count_processors() if is_written_apart else 1
    how: dict[str, Any] = {"block": block, "threads": threads}
    try:
        for step in find_instances_steps(probability, card.outputs, settings, labels, **how):
            yield Note(step) if isinstance(step, str) else Progress()
    except MemoryError as error:
        raise DeviceError(
            "Memory of this computer ran out while objects were being found, also piece by piece. "
            "Close other programs, or write to a zarr file, of which only parts are in memory."
        ) from error


def each_note_once(job: Job[None], told: set[Note]) -> Job[None]:
    """Leave out what was said of an earlier plane.

    Parameters
    ----------
    job : generator
        Goes through one plane.
    told : set of Note
        What was said; grows.

    Yields
    ------
    Progress
        All else that the job says.
    """
    for event in job:
        if event not in told:
            yield event
        if isinstance(event, Note):
            told.add(event)
