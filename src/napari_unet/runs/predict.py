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

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.arrays.axes import guess_axes
from napari_unet.arrays.reading import plane_of
from napari_unet.errors import ImageError
from napari_unet.files.zarrs import Companion, writing
from napari_unet.models.model import check_model
from napari_unet.runs.background import Background
from napari_unet.runs.labelling import each_note_once, find_labels_steps
from napari_unet.runs.outputs import output_array, passing_array
from napari_unet.runs.plane_run import PlaneRun
from napari_unet.runs.progress import Job, Note, Progress, drive
from napari_unet.settings import SegmentSettings, given_or_default

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_unet.models.model import Model
    from napari_unet.runs.batches import Order
    from napari_unet.runs.plane_run import NextPlane
    from napari_unet.runs.progress import Cancel


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
    settings = model.card.complete(settings)
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
        out = output_array(out, (run.classes, *run.planes.out_shape), np.float32)
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
        (:func:`napari_unet.runs.labelling.label_steps`); else only those of one plane are held,
        on disk if they are many.
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
        labels = output_array(out, planes.out_shape, np.int32)
        shape, companion = (run.classes, *planes.out_shape), None
        if keep_probability or probability_out is not None:
            probability = output_array(probability_out, shape, np.float32)
        elif Companion.is_possible_beside(labels):
            companion = Companion(labels, shape, len(planes.spatial))
            probability = companion.array
        else:
            shape = (run.classes, *planes.spatial_shape)
            probability = passing_array(shape, stack)
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
                    yield from each_note_once(background.go_through(steps), told)
                yield run.extra_done()
        unfinished.finish()
        if companion is not None:
            companion.remove()
    is_kept = keep_probability or probability_out is not None
    return Segmentation(labels, probability if is_kept else None, planes.out_axes)


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
