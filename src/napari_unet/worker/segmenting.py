"""Segmentation in the computing process: where the person looks comes first.

What takes long and can wait is done later: whether this run was computed before is first seen by
all that is known without reading the image, and only then by its pixels.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from napari_unet.arrays.axes import plan_planes
from napari_unet.arrays.blocks import BLOCK_PX
from napari_unet.runs.background import Background
from napari_unet.runs.labelling import find_labels_steps
from napari_unet.runs.predict import predict_steps
from napari_unet.runs.progress import Job, Note, Progress, TileDone
from napari_unet.runs.zoom import choose_zoom, zoomed_shape
from napari_unet.worker.channel import LABELS_FILE
from napari_unet.worker.kept import describe_probability, new_probability
from napari_unet.worker.preview import SURROUNDINGS_PX, Nearest, Preview, Watched

if TYPE_CHECKING:
    from napari_unet.arrays.axes import Planes
    from napari_unet.models.model import Model
    from napari_unet.settings import InstanceSettings, SegmentSettings
    from napari_unet.worker.__main__ import Call
    from napari_unet.worker.kept import Kept, Recent
    from napari_unet.worker.protocol import Array, Region

    Values = dict[str, Any]

R = TypeVar("R")

LIVE_TILE_PX = 848
"""Larger tiles are faster in all, but the first labels of a large image come later."""
LIVE_FROM_PX = 1536**2
"""Smaller planes are done so soon that the fastest tiles are best."""
DROPPABLE_PX = 2**18
"""Pixels of a block, where the search is dropped when the slider moves on: what is begun of it
goes on beside the next search."""


def segment(
    call: Call,
    model: Model,
    reference: str,
    axes: str,
    settings: SegmentSettings,
    view: Region | None,
    recent: Recent,
) -> Job[Values]:
    """Label an image; its probabilities are kept under a token.

    Parameters
    ----------
    call : Call
        Has the image.
    model : Model
        The model.
    reference : str
        What changes with its file.
    axes : str
        Of the image.
    settings : SegmentSettings
        How it is done.
    view : Region or None
        Where the person looks, as long as nothing else is said.
    recent : Recent
        Knows the run before this one, and this one afterwards.

    Returns
    -------
    dict
        The labels, the probabilities with their token and axes, seconds and notes.

    Yields
    ------
    Progress
        Also a LabelsDone for each part that can be looked at.
    """
    started = time.monotonic()
    image = call.arrays["image"]
    planes = plan_planes(image.shape, axes, model.card.architecture.spatial_dims)
    token = call.folder / "probability.npy"
    with Background() as background:
        run = recent.describe(reference, image, axes, settings)
        probability = yield from background.run(recent.open_again, run, image, token)
        is_new = probability is None
        if probability is None:
            shape = (model.card.architecture.classes, *planes.out_shape)
            probability = new_probability(token, shape)
        preview = Preview(
            model.card,
            settings.instances,
            probability,
            planes.out_axes,
            call.folder / LABELS_FILE,
        )
        count = _Count(planes, [] if is_new else recent.caveats)
        if is_new:
            watched = Watched(probability)
            nearest = Nearest(planes, lambda: call.looked_at() or view)
            tiles = predict_steps(
                model,
                image,
                axes,
                _with_live_tiles(settings, model, planes),
                watched,
                order=nearest.tile,
                next_plane=nearest.plane,
                around=nearest.seen(),
            )
            yield from count.tiles(_shown(tiles, watched, preview))
        yield from count.planes(_found(preview, probability, settings.instances))
        if is_new:
            yield from background.run(recent.keep, run, image, token, count.caveats)
    describe_probability(token, model.card, planes.out_axes)
    return {
        "labels": preview.labels,
        "probability": probability,
        "token": token,
        "axes": planes.out_axes,
        "seconds": time.monotonic() - started,
        "notes": count.notes,
    }


def label_again(
    call: Call, kept: Kept, settings: InstanceSettings, view: Region | None
) -> Job[Values]:
    """Find objects again in probabilities that were kept, what the person sees first.

    Parameters
    ----------
    call : Call
        Has the folder of the result.
    kept : Kept
        The probabilities.
    settings : InstanceSettings
        How objects are found now.
    view : Region or None
        Where the person looks.

    Returns
    -------
    dict
        The labels.

    Yields
    ------
    Progress
        Also a LabelsDone for each part that can be looked at.
    """
    preview = Preview(kept.card, settings, kept.probability, kept.axes, call.folder / LABELS_FILE)
    if view is not None:
        with Background() as background:
            yield (yield from background.run(preview.label, view, SURROUNDINGS_PX))
    yield from _found(preview, kept.probability, settings, DROPPABLE_PX)
    return {"labels": preview.labels}


class _Count:
    """Counts the tiles of all planes and the search for objects as one piece of work."""

    def __init__(self, planes: Planes, caveats: list[str]) -> None:
        self.notes, self.caveats = list(caveats), list(caveats)
        self._tiles = 0
        self._planes = planes.count

    def tiles(self, job: Job[R]) -> Job[R]:
        """Pass on the progress of the network."""
        return (yield from self._relay(job, 0))

    def planes(self, job: Job[R]) -> Job[R]:
        """Pass on the progress of the search for objects."""
        return (yield from self._relay(job, self._tiles))

    def _relay(self, job: Job[R], before: int) -> Job[R]:
        result = _Result(job)
        for event in result:
            if isinstance(event, Note):
                self.notes.append(event.text)
                if event.is_caveat:
                    self.caveats.append(event.text)
            if isinstance(event, TileDone):
                self._tiles = self._tiles or event.total
                event = TileDone(before + event.done, self._tiles + self._planes)
            yield event
        return result.value


class _Result(Generic[R]):
    """Goes through the progress of a job and keeps what it returns."""

    value: R

    def __init__(self, job: Job[R]) -> None:
        self._job = job

    def __iter__(self) -> Job[None]:
        """Yield the progress."""
        self.value = yield from self._job


def _with_live_tiles(settings: SegmentSettings, model: Model, planes: Planes) -> SegmentSettings:
    """Choose tiles after each of which a person sees something new, unless they were chosen."""
    seen = zoomed_shape(planes.spatial_shape, choose_zoom(model.card, settings))
    is_large = math.prod(seen) > LIVE_FROM_PX
    if settings.tile_px is not None or not is_large or 6 * model.net.halo > LIVE_TILE_PX:
        return settings
    return settings.replace(tile_px=LIVE_TILE_PX)


def _shown(tiles: Job[Any], watched: Watched, preview: Preview) -> Job[None]:
    """Run a network and label each tile as it is done, unless it is the whole image."""
    with Background() as background:
        for event in tiles:
            yield event
            for region in watched.take():
                if not preview.is_all(region):
                    yield (yield from background.run(preview.label, region))


def _found(
    preview: Preview, probability: Array, settings: InstanceSettings, block_px: int = BLOCK_PX
) -> Job[None]:
    """Find the objects of each plane as a whole and show them."""
    planes = preview.planes
    told: set[Progress] = set()
    with Background() as background:
        for done, index in enumerate(planes.indices(), start=1):
            plane = probability[(slice(None), *planes.out_index(index))]
            labels = np.empty(planes.spatial_shape, np.int32)
            how = preview.card, plane, settings, labels
            steps = find_labels_steps(*how, block_px=block_px)
            for event in background.go_through(steps):
                if not (isinstance(event, Note) and event in told):
                    yield event
                told.add(event)
            yield from preview.finish(index, labels)
            yield TileDone(done, planes.count)
