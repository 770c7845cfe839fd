"""Segment an image: probabilities by overlap-tile, then labels.

One way for every image, whatever its axes and wherever its pixels lie (numpy, dask, zarr)::

    for each plane:     read -> pick channels -> measure the whole plane -> (scale)
        for each tile:  cut -> normalize -> network -> activate -> write the core, once
        labels:         threshold -> split -> drop small objects

Only one plane is in memory beside the result, and with ``out=`` the result need not be either.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.arrays.axes import Planes, guess_axes, plan_planes
from napari_unet.arrays.channels import check_channels, pick_channels
from napari_unet.arrays.instances import find_classes, find_instances
from napari_unet.arrays.normalize import Statistics, check_grey_values, measure
from napari_unet.errors import DeviceError, ImageError
from napari_unet.runs.background import Background
from napari_unet.runs.overlap_tile import OverlapTile, Write
from napari_unet.runs.progress import Job, TileDone, drive
from napari_unet.runs.zoom import choose_zoom, resize, zoomed_shape
from napari_unet.settings import InstanceSettings, SegmentSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_unet.models.card import Card
    from napari_unet.models.model import Model
    from napari_unet.runs.progress import Cancel, Progress


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
        Real numbers of any dtype; a numpy, dask or zarr array is read plane by plane.
    axes : str, optional
        E.g. ``"TZCYX"``; guessed from the shape if not given, see
        :func:`napari_unet.arrays.axes.guess_axes`.
    settings : SegmentSettings, optional
        Channels, tile, halo, device.
    out : array, optional
        Where to write, e.g. a zarr array or a memory map; after a cancel it is written in part.
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
    settings = settings or SegmentSettings()
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
        Real numbers of any dtype; a numpy, dask or zarr array is read plane by plane.
    axes : str, optional
        E.g. ``"TZCYX"``; guessed from the shape if not given.
    settings : SegmentSettings, optional
        Channels, tile, halo, device, and how objects are found; if not given, objects are found
        as the model's card suggests.
    out : array, optional
        Where to write the labels, e.g. a zarr array or a memory map.
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
    settings = settings or SegmentSettings(instances=model.card.instances)
    job = segment_steps(model, image, axes, settings, out, keep_probability=False)
    return drive(job, progress, cancel).labels


def predict_steps(
    model: Model, image: Any, axes: str, settings: SegmentSettings, out: Any = None
) -> Job[Any]:
    """Compute probabilities as a job; see :func:`predict`.

    Yields
    ------
    Progress
        A TileDone after each tile, counted over all planes; Notes where a result is
        approximate or memory ran out.
    """
    with Background() as background:
        run = _Run(model, image, axes, settings, background)
        out = _output(out, (run.classes, *run.planes.out_shape), np.float32)
        yield from run.tiling.notes()
        for index in run.planes.indices():
            yield from run.plane(index, _writer(out, run.planes, index))
    return out


def segment_steps(
    model: Model,
    image: Any,
    axes: str,
    settings: SegmentSettings,
    out: Any = None,
    *,
    keep_probability: bool = True,
) -> Job[Segmentation]:
    """Compute probabilities and labels as a job; see :func:`segment`.

    Parameters
    ----------
    model, image, axes, settings, out : object
        As for :func:`segment`.
    keep_probability : bool
        Return the probabilities of all planes too, to try another threshold without the network
        (:func:`label_steps`); else only those of one plane are held in memory.

    Yields
    ------
    Progress
        As :func:`predict_steps`; finding the objects of a plane counts as one more tile.
    """
    with Background() as background:
        run = _Run(model, image, axes, settings, background, extra=1)
        planes = run.planes
        labels = _output(out, planes.out_shape, np.int32)
        shape = planes.out_shape if keep_probability else planes.spatial_shape
        probability = _output(None, (run.classes, *shape), np.float32)
        yield from run.tiling.notes()
        for index in planes.indices():
            where = planes.out_index(index)
            plane = probability[(slice(None), *where)] if keep_probability else probability
            yield from run.plane(index, _writer(plane))
            labels[where] = yield from background.run(
                find_labels, model.card, plane, settings.instances
            )
            yield run.extra_done()
    return Segmentation(labels, probability if keep_probability else None, planes.out_axes)


def label_steps(
    card: Card, probability: Any, axes: str, settings: InstanceSettings
) -> Job[NDArray[np.int32]]:
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

    Yields
    ------
    Progress
        A TileDone after each plane.
    """
    planes = plan_planes(probability.shape[1:], axes, card.architecture.spatial_dims)
    labels = np.empty(planes.out_shape, np.int32)
    with Background() as background:
        for done, index in enumerate(planes.indices(), start=1):
            where = planes.out_index(index)
            plane = np.asarray(probability[(slice(None), *where)])
            labels[where] = yield from background.run(find_labels, card, plane, settings)
            yield TileDone(done, planes.count)
    return labels


def find_labels(
    card: Card, probability: NDArray[Any], settings: InstanceSettings
) -> NDArray[np.int32]:
    """Find the labels of one plane, of the kind the card names.

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
    if card.labels == "semantic":
        return find_classes(probability, card.activation)
    return find_instances(probability, card.outputs, settings)


class _Run:
    """A model, an image and settings that fit each other, gone through plane by plane."""

    def __init__(
        self,
        model: Model,
        image: Any,
        axes: str,
        settings: SegmentSettings,
        background: Background,
        extra: int = 0,
    ) -> None:
        architecture = model.card.architecture
        check_grey_values(image.dtype)
        self.planes = plan_planes(image.shape, axes, architecture.spatial_dims)
        check_channels(self.planes.channels, settings.channels, architecture.in_channels)
        self.classes = architecture.classes
        zoom = choose_zoom(model.card, settings)
        self._seen_shape = zoomed_shape(self.planes.spatial_shape, zoom)
        self.tiling = OverlapTile(model, self._seen_shape, settings, background)
        self._model, self._image, self._settings = model, image, settings
        self._background, self._extra = background, extra
        self._planes_done = 0

    def plane(self, index: tuple[int, ...], write: Write) -> Job[None]:
        """Run the network over one plane; tiles are counted over all planes."""
        channels, statistics = yield from self._background.run(self._read, index)
        shape = self.planes.spatial_shape
        if self._seen_shape == shape:
            yield from self._tiles(channels, statistics, write)
        else:
            channels = yield from self._background.run(resize, channels, self._seen_shape)
            seen = np.empty((self.classes, *self._seen_shape), np.float32)
            yield from self._tiles(channels, statistics, _writer(seen))
            values = yield from self._background.run(resize, seen, shape)
            write(tuple(slice(0, size) for size in shape), values)
        self._planes_done += 1

    def _tiles(self, channels: NDArray[Any], statistics: Statistics, write: Write) -> Job[None]:
        """Run the network over what it is to see of a plane."""
        for event in self.tiling.run(channels, statistics, write):
            yield self._count(event.done) if isinstance(event, TileDone) else event

    def extra_done(self) -> TileDone:
        """Count what was done with the last plane beside its tiles."""
        return self._count(0)

    def _read(self, index: tuple[int, ...]) -> tuple[NDArray[Any], Statistics]:
        """Read the channels the network wants of a plane, and measure them."""
        card = self._model.card
        channels = pick_channels(
            self.planes.read(self._image, index),
            self._settings.channels,
            card.architecture.in_channels,
        )
        return channels, measure(channels, card.normalization)

    def _count(self, tiles_done: int) -> TileDone:
        """Say how many pieces of work are done, and of how many."""
        per_plane = len(self.tiling.tiles) + self._extra
        return TileDone(self._planes_done * per_plane + tiles_done, self.planes.count * per_plane)


def _writer(out: Any, planes: Planes | None = None, index: tuple[int, ...] = ()) -> Write:
    """Return what writes a core to its place: in a plane, or in a stack of planes."""

    def write(core: tuple[slice, ...], values: NDArray[Any]) -> None:
        out[(slice(None), *(planes.out_index(index, core) if planes else core))] = values

    return write


def _as_image(model: Model, image: Any, axes: str | None) -> tuple[Any, str]:
    """Return an image that can be read by slices, and its axes."""
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
    is_read_only = isinstance(out, np.ndarray) and not out.flags.writeable
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
