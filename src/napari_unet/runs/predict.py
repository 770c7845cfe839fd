"""Segment an image: probabilities by overlap-tile, then labels.

One way for every image, whatever its axes and wherever its pixels lie (numpy, dask, zarr)::

    for each plane:      read block by block -> pick channels -> measure -> (scale)
        for each tile:   read -> normalize -> network -> activate -> write the core, once
        for each block:  threshold -> split -> drop small objects -> number

A plane is never in memory as a whole unless it is given or asked for as a numpy array; with
``out=`` a zarr array a run that was broken off goes on where it stopped, see
:mod:`napari_unet.runs.restart`.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.arrays.axes import guess_axes, plan_planes
from napari_unet.arrays.blocks import count_processors, cut_blocks, plan_blocks, write_unit
from napari_unet.arrays.instances import find_classes, find_instances_steps
from napari_unet.arrays.reading import plane_of
from napari_unet.errors import DeviceError, ImageError
from napari_unet.files.scratch import ScratchArray
from napari_unet.files.zarrs import Companion, writing
from napari_unet.models.model import check_model
from napari_unet.runs.background import Background
from napari_unet.runs.plane_run import PlaneRun
from napari_unet.runs.progress import Job, Note, Progress, TileDone, drive
from napari_unet.settings import InstanceSettings, SegmentSettings, given_or_default

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_unet.models.card import Card
    from napari_unet.models.model import Model
    from napari_unet.runs.batches import Order
    from napari_unet.runs.plane_run import NextPlane
    from napari_unet.runs.progress import Cancel

IN_MEMORY_BYTES = 256 * 2**20
"""Probabilities of a plane that nobody keeps are held on disk if they are more."""


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What :func:`segment_steps` returns."""

    labels: Any
    """int32, one length per axis of ``axes``; 0 is background."""
    probability: Any
    """float32 (classes, *labels.shape), 0..1; None if it was not to be kept."""
    axes: str
    """Axes of the labels: those of the image without C."""


def predict(
    model: Model,
    image: Any,
    axes: str | None = None,
    settings: SegmentSettings | None = None,
    *,
    out: Any = None,
    progress: Callable[[Progress], None] | None = None,
    cancel: Cancel | None = None,
) -> Any:
    """Compute the network's probabilities for an image.

    Parameters
    ----------
    model : Model
        See :func:`napari_unet.models.model.load_model`.
    image : array-like
        Real numbers of any dtype; a numpy, dask or zarr array is read tile by tile.
    axes : str, optional
        E.g. ``"TZCYX"``; guessed from the shape if not given, see
        :func:`napari_unet.arrays.axes.guess_axes`.
    settings : SegmentSettings, optional
        Channels, tile, halo, device.
    out : array, optional
        Where to write, e.g. a zarr array or a memory map; after a cancel it is written in part.
        The same run with the same zarr array then goes on where it stopped.
    progress : callable, optional
        Called with each :class:`napari_unet.runs.progress.Progress`.
    cancel : threading.Event or callable returning bool, optional
        Asked several times a second.

    Returns
    -------
    ndarray of float32, shape (classes, *axes without C), range 0..1
        Or ``out``.

    Raises
    ------
    ImageError
        If the axes, channels or values do not fit the model.
    TileSizeError
        If the tile is too small.
    Cancelled
        If ``cancel`` became true.

    References
    ----------
    .. [1] Ronneberger et al. (2015), U-Net, doi:10.1007/978-3-319-24574-4_28, Fig. 2.
    """
    image, axes = _as_image(model, image, axes)
    settings = given_or_default(settings, SegmentSettings())
    return drive(predict_steps(model, image, axes, settings, out), progress, cancel)


def segment(
    model: Model,
    image: Any,
    axes: str | None = None,
    settings: SegmentSettings | None = None,
    *,
    out: Any = None,
    progress: Callable[[Progress], None] | None = None,
    cancel: Cancel | None = None,
) -> Any:
    """Find the objects (or classes) of an image.

    Parameters
    ----------
    model : Model
        See :func:`napari_unet.models.model.load_model`.
    image : array-like
        Real numbers of any dtype; a numpy, dask or zarr array is read tile by tile.
    axes : str, optional
        E.g. ``"TZCYX"``; guessed from the shape if not given.
    settings : SegmentSettings, optional
        Channels, tile, halo, device, and how objects are found; if not given, objects are found
        as the model's card suggests.
    out : array, optional
        Where to write the labels, e.g. a zarr array or a memory map. Beside a zarr array stands
        what was computed so far, until it is complete: the same run goes on where it stopped.
    progress : callable, optional
        Called with each :class:`napari_unet.runs.progress.Progress`.
    cancel : threading.Event or callable returning bool, optional
        Asked several times a second.

    Returns
    -------
    ndarray of int32, shape (*axes without C)
        0 is background; objects are numbered from 1 in each plane. Or ``out``.

    Raises
    ------
    ImageError
        If the axes, channels or values do not fit the model.
    TileSizeError
        If the tile is too small.
    Cancelled
        If ``cancel`` became true.
    """
    image, axes = _as_image(model, image, axes)
    settings = given_or_default(settings, SegmentSettings(instances=model.card.instances))
    job = segment_steps(model, image, axes, settings, out, keep_probability=False)
    return drive(job, progress, cancel).labels


def predict_steps(
    model: Model,
    image: Any,
    axes: str,
    settings: SegmentSettings,
    out: Any = None,
    *,
    order: Order | None = None,
    next_plane: NextPlane | None = None,
    around: tuple[slice, ...] | None = None,
) -> Job[Any]:
    """Compute probabilities as a job; see :func:`predict`.

    Parameters
    ----------
    model, image, axes, settings, out : object
        As for :func:`predict`.
    order : callable, optional
        Picks the next of the tiles that remain of a plane, see
        :class:`napari_unet.runs.overlap_tile.OverlapTile`.
    next_plane : callable, optional
        Picks the next of the planes that remain; in the order of the array if not given.
    around : tuple of slice, optional
        A part (*spatial) of the planes that is wanted first: tiles are laid so that few cover it.

    Yields
    ------
    Progress
        A TileDone after each tile, counted over all planes; Notes where a result is
        approximate or memory ran out.
    """
    with Background() as background:
        run = PlaneRun(model, image, axes, settings, background, out, around=around)
        out = _output(out, (run.classes, *run.planes.out_shape), np.float32)
        yield from run.tiling.notes()
        unfinished = yield from run.unfinished(out)
        remaining = list(run.planes.indices())
        while remaining:
            at_once = 1 if order else run.planes_at_once
            indices = [next_plane(remaining)] if next_plane else remaining[:at_once]
            remaining = [index for index in remaining if index not in indices]
            outs = [plane_of(out, run.planes, index) for index in indices]
            yield from run.go_over(indices, outs, order, unfinished)
        unfinished.finish()
    return out


def segment_steps(
    model: Model,
    image: Any,
    axes: str,
    settings: SegmentSettings,
    out: Any = None,
    *,
    keep_probability: bool = True,
    probability_out: Any = None,
    order: Order | None = None,
) -> Job[Segmentation]:
    """Compute probabilities and labels as a job; see :func:`segment`.

    Parameters
    ----------
    model, image, axes, settings, out : object
        As for :func:`segment`.
    keep_probability : bool
        Return the probabilities of all planes too, to try another threshold without the network
        (:func:`label_steps`); else only those of one plane are held, on disk if they are many.
    probability_out : array, optional
        Where to write the probabilities, e.g. a zarr array; they are kept then.
    order : callable, optional
        As for :func:`predict_steps`.

    Yields
    ------
    Progress
        As :func:`predict_steps`; finding the objects of a plane counts as one more tile.
    """
    with Background() as background, ExitStack() as stack:
        run = PlaneRun(model, image, axes, settings, background, out, extra=1)
        planes = run.planes
        labels = _output(out, planes.out_shape, np.int32)
        shape, companion = (run.classes, *planes.out_shape), None
        if keep_probability or probability_out is not None:
            probability = _output(probability_out, shape, np.float32)
        elif Companion.is_possible_beside(labels):
            companion = Companion(labels, shape, len(planes.spatial))
            probability = companion.array
        else:
            shape = (run.classes, *planes.spatial_shape)
            probability = _one_plane(shape, stack)
        yield from run.tiling.notes()
        unfinished = yield from run.unfinished(probability)
        told: set[Note] = set()
        is_stack = len(shape) == 1 + len(planes.out_shape)
        remaining = list(planes.indices())
        while remaining:
            at_once = run.planes_at_once if is_stack and order is None else 1
            indices, remaining = remaining[:at_once], remaining[at_once:]
            outs = [
                plane_of(probability, planes, index) if is_stack else probability
                for index in indices
            ]
            yield from run.go_over(indices, outs, order, unfinished)
            for index, plane in zip(indices, outs, strict=True):
                target = plane_of(labels, planes, index)
                steps = find_labels_steps(model.card, plane, settings.instances, target)
                with writing(labels):
                    yield from _each_note_once(background.go_through(steps), told)
                yield run.extra_done()
        unfinished.finish()
        if companion is not None:
            companion.remove()
    is_kept = keep_probability or probability_out is not None
    return Segmentation(labels, probability if is_kept else None, planes.out_axes)


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
    labels = _output(out, planes.out_shape, np.int32)
    told: set[Note] = set()
    with Background() as background:
        for done, index in enumerate(planes.indices(), start=1):
            plane, target = (plane_of(array, planes, index) for array in (probability, labels))
            steps = find_labels_steps(card, plane, settings, target)
            yield from _each_note_once(background.go_through(steps), told)
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
    card: Card, probability: Any, settings: InstanceSettings, labels: Any
) -> Job[None]:
    """Find the labels of one plane piece by piece, wherever they lie.

    Parameters
    ----------
    card, probability, settings : object
        As for :func:`find_labels`.
    labels : array of int32, shape (*spatial)
        Where they are written; numpy, memory map or zarr.

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
    if card.labels == "semantic":
        for window in cut_blocks(labels.shape, plan_blocks(labels.shape, chunks=unit)):
            part = np.asarray(probability[(slice(None), *window)])
            labels[window] = find_classes(part, card.activation)
            yield Progress()
        return
    is_written_apart = isinstance(labels, np.ndarray) or unit is not None
    threads = count_processors() if is_written_apart else 1
    try:
        steps = find_instances_steps(probability, card.outputs, settings, labels, threads=threads)
        for step in steps:
            yield Note(step) if isinstance(step, str) else Progress()
    except MemoryError as error:
        raise DeviceError(
            "Memory of this computer ran out while objects were being found, also piece by piece. "
            "Close other programs, or write to a zarr file, of which only parts are in memory."
        ) from error


def _each_note_once(job: Job[None], told: set[Note]) -> Job[None]:
    """Leave out what was said of an earlier plane."""
    for event in job:
        if event not in told:
            yield event
        if isinstance(event, Note):
            told.add(event)


def _one_plane(shape: tuple[int, ...], stack: ExitStack) -> Any:
    """Return an array for the probabilities of one plane: in memory, or on disk if it is large."""
    if math.prod(shape) * np.dtype(np.float32).itemsize <= IN_MEMORY_BYTES:
        return np.empty(shape, np.float32)
    return stack.enter_context(ScratchArray(shape, np.float32))


def _as_image(model: Model, image: Any, axes: str | None) -> tuple[Any, str]:
    """Return an image that can be read by slices, and its axes; refuse what is no model."""
    check_model(model)
    if not isinstance(getattr(image, "dtype", None), np.dtype):
        try:
            image = np.asarray(image)
        except ValueError as error:
            raise ImageError(
                f"The image cannot be read as an array ({error}). Give a numpy, dask or zarr array."
            ) from error
    if axes is None:
        is_volume = model.card.architecture.spatial_dims == 3 and len(image.shape) == 3
        axes = "ZYX" if is_volume else guess_axes(image.shape)
    return image, axes


def _output(out: Any, shape: tuple[int, ...], dtype: type[np.generic]) -> Any:
    """Return an array to write to: the one that was given if it fits, else a new one."""
    if out is None:
        try:
            return np.empty(shape, dtype)
        except MemoryError as error:
            size = math.prod(shape) * np.dtype(dtype).itemsize / 2**30
            raise DeviceError(
                f"The result takes {size:.1f} GiB, more than this computer has free. Give out=, "
                "e.g. a zarr array, or segment fewer planes."
            ) from error
    if not hasattr(out, "shape") or not hasattr(out, "dtype"):
        raise ImageError(
            f"The result cannot be written to {type(out).__name__}. Give a numpy or zarr array."
        )
    flags = getattr(out, "flags", None)  # numpy's; zarr says it itself
    is_read_only = getattr(out, "read_only", False) or not getattr(flags, "writeable", True)
    kind, least = (np.floating, 2) if np.issubdtype(dtype, np.floating) else (np.integer, 4)
    if is_read_only or not np.issubdtype(out.dtype, kind) or out.dtype.itemsize < least:
        state = "read-only " if is_read_only else ""
        raise ImageError(
            f"The array given as out is {state}{out.dtype}, which cannot hold the result. Make it "
            f"a writable {np.dtype(dtype)}."
        )
    if tuple(out.shape) != shape:
        raise ImageError(
            f"The array given as out has shape {tuple(out.shape)}, the result has {shape}. Make "
            "it of that shape."
        )
    return out
