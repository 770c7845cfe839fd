"""Labels are judged at the size of the image, where the person sees them."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.arrays import metrics
from napari_unet.models.card import Card
from napari_unet.models.model import Model
from napari_unet.runs.evaluate import evaluate
from napari_unet.runs.judged import at_image_size, truth_in
from napari_unet.runs.predict import segment
from napari_unet.runs.samples import Sample, prepare_plane
from napari_unet.settings import InstanceSettings, SegmentSettings

INSTANCES = InstanceSettings(min_size=4)
SCALED = [11.0, 33.0]  # objects of the image; the network knows 20 px


@pytest.fixture
def model(tiny_unet) -> Model:
    """A network with random weights: its labels are arbitrary, and that is enough to compare."""
    card = Card(
        name="tiny", architecture=tiny_unet.architecture, instances=INSTANCES, object_size_px=20
    )
    return Model(tiny_unet, card)


@pytest.fixture
def mask(blobs) -> np.ndarray:
    """Where the blobs are vouched for."""
    where = np.zeros(blobs.labels.shape, bool)
    where[41:93, 57:122] = True
    return where


@pytest.mark.parametrize("object_size_px", [11.0, 33.0])
def test_a_part_of_a_scaled_image_is_judged_by_the_labels_that_the_person_sees(
    model, blobs, object_size_px
):
    """Found in the image as the network sees it, they would be others."""
    settings = SegmentSettings(instances=INSTANCES, object_size_px=object_size_px)
    mask = np.zeros(blobs.labels.shape, bool)
    mask[41:93, 57:122] = True
    labels = segment(model, blobs.image, "YX", settings)
    assert len(np.unique(labels[mask])) > 2, "else there is nothing to compare"
    scores = evaluate(model, [Sample(blobs.image[np.newaxis], blobs.labels, mask)], settings)
    whole = metrics.evaluate(labels, blobs.labels, mask)
    assert scores.iou == pytest.approx(whole["iou"], abs=0.002)
    for name in ("tp", "fp", "fn", "merged", "split"):  # a label is cut where the halo ends
        assert scores.as_dict()[name] == pytest.approx(whole[name], abs=1)


@pytest.mark.parametrize("object_size_px", [20.0, *SCALED])
def test_truth_and_probability_lie_on_the_pixels_of_the_image(model, blobs, mask, object_size_px):
    settings = SegmentSettings(object_size_px=object_size_px)
    sample = Sample(blobs.image[np.newaxis], blobs.labels, mask)
    plane = prepare_plane(sample, model.card, settings, model.net.halo, model.net.stride)
    assert plane is not None
    assert (plane.original is None) == (object_size_px == 20)
    area = tuple(slice(0, length) for length in plane.truth.shape)
    truth, where = truth_in(plane, area, plane.vouched)
    # All that is vouched for is judged, but for a row at its end.
    assert mask.sum() - max(mask.shape) <= where.sum() <= mask.sum()
    assert len(np.unique(truth[where])) == len(np.unique(blobs.labels[mask]))
    share = (blobs.labels[mask] > 0).mean()
    assert (truth[where] > 0).mean() == pytest.approx(share, abs=0.02)
    rows = np.arange(plane.truth.shape[0], dtype=np.float32)[np.newaxis, :, np.newaxis]
    ramp = np.broadcast_to(rows, (1, *plane.truth.shape))
    scaled = at_image_size(plane, area, ramp)
    assert scaled.shape[1:] == truth.shape
    assert scaled.max() <= rows.max()
    assert np.all(np.diff(scaled[0, :, 0]) >= 0)


@pytest.mark.parametrize("object_size_px", SCALED)
def test_half_of_what_is_vouched_for_is_half_in_the_image(model, blobs, mask, object_size_px):
    settings = SegmentSettings(object_size_px=object_size_px)
    sample = Sample(blobs.image[np.newaxis], blobs.labels, mask)
    plane = prepare_plane(sample, model.card, settings, model.net.halo, model.net.stride)
    assert plane is not None
    middle = int(np.flatnonzero(plane.vouched.any(axis=1)).mean())
    upper = plane.vouched.copy()
    upper[middle:] = False
    area = tuple(slice(0, length) for length in plane.truth.shape)
    (_, whole), (_, half) = (truth_in(plane, area, each) for each in (plane.vouched, upper))
    assert not (half & ~whole).any()
    assert half.sum() == pytest.approx(upper.sum() / plane.vouched.sum() * whole.sum(), rel=0.03)
