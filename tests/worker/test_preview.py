"""Labels that are shown while a segmentation is still running."""

import threading

import numpy as np
import pytest
import torch

from napari_unet.arrays.axes import plan_planes
from napari_unet.arrays.tiles import plan_tiles
from napari_unet.models.card import Card
from napari_unet.models.model import Model, save_model
from napari_unet.runs import fitted
from napari_unet.runs.predict import predict
from napari_unet.runs.progress import LabelsDone, Note, TileDone
from napari_unet.settings import Architecture, InstanceSettings, SegmentSettings
from napari_unet.worker import jobs, preview, segmenting
from napari_unet.worker.__main__ import Call
from napari_unet.worker.preview import LARGEST_NUMBER, Nearest, Preview, Watched

SETTINGS = InstanceSettings(min_size=1)


@pytest.fixture
def card():
    return Card(name="tiny", architecture=Architecture(widths=(4, 8, 16)))


@pytest.fixture
def model_path(tmp_path, tiny_unet, card):
    torch.set_num_threads(1)
    return str(save_model(Model(tiny_unet, card), tmp_path / "tiny.safetensors"))


@pytest.fixture
def call(tmp_path):
    count = iter(range(100))

    def make(looked_at=lambda: None, **arrays):
        folder = tmp_path / f"call {next(count)}"
        folder.mkdir()
        return Call(arrays, folder, threading.Event().is_set, looked_at)

    return make


def squares(shape, *corners):
    probability = np.zeros((1, *shape), np.float32)
    for corner in corners:
        probability[(0, *(slice(at, at + 6) for at in corner))] = 1
    return probability


def test_what_was_written_is_told_once():
    watched = Watched(np.zeros((1, 3, 10, 20), np.float32))
    watched[:, 2, 0:4, 5:20] = 1
    assert watched.take() == [((2, 3), (0, 4), (5, 20))]
    assert watched.take() == []
    assert watched[0, 2, 3, 19] == 1


def test_parts_get_numbers_of_their_own(card, tmp_path):
    probability = squares((20, 40), (2, 2), (10, 10), (2, 22))
    labels = Preview(card, SETTINGS, probability, "YX", tmp_path / "labels.npy")
    assert labels.label(((0, 20), (0, 20))) == LabelsDone(((0, 20), (0, 20)), 2)
    assert labels.label(((0, 20), (20, 40))) == LabelsDone(((0, 20), (20, 40)), 3)
    assert set(np.unique(labels.labels)) == {0, 1, 2, 3}


def test_numbers_stay_within_16_bits(card, tmp_path):
    labels = Preview(card, SETTINGS, squares((20, 20), (2, 2)), "YX", tmp_path / "labels.npy")
    labels._count = LARGEST_NUMBER - 1
    assert labels.label(((0, 20), (0, 20))).largest == LARGEST_NUMBER
    assert labels.label(((0, 20), (0, 20))).largest == 1


def test_an_object_at_the_edge_of_a_view_is_seen_as_a_whole(card, tmp_path):
    probability = squares((20, 40), (2, 17))
    labels = Preview(card, InstanceSettings(min_size=30), probability, "YX", tmp_path / "l.npy")
    assert labels.label(((0, 20), (0, 20))).largest == 0, "half of it is too small to count"
    assert labels.label(((0, 20), (0, 20)), surroundings_px=8).largest == 1


def test_final_labels_come_in_pieces_that_fit_together(card, tmp_path, monkeypatch):
    monkeypatch.setattr(preview, "PIECE_PX", 100)
    probability = np.zeros((1, 2, 13, 30), np.float32)
    labels = Preview(card, SETTINGS, probability, "ZYX", tmp_path / "labels.npy")
    truth = np.arange(13 * 30, dtype=np.int32).reshape(13, 30)
    told = list(labels.finish((1,), truth))
    np.testing.assert_array_equal(labels.labels[1], truth)
    assert not labels.labels[0].any()
    assert [event.region[1] for event in told] == [(0, 3), (3, 6), (6, 9), (9, 12), (12, 13)]
    assert all(event.region[0] == (1, 2) for event in told)
    assert told[-1].largest == truth.max()


def test_the_tile_in_view_comes_first_then_outwards():
    tiles = plan_tiles((256, 256), 64, 8, 8)
    planes = plan_planes((256, 256), "YX")
    pick = Nearest(planes, lambda: ((200, 240), (8, 40))).tile
    first = pick(tiles)
    assert first.core[0].stop > 200
    assert first.core[1].start < 40
    rest, distances = list(tiles), []
    while rest:
        tile = pick(rest)
        rest.remove(tile)
        down = max(0, 200 - tile.core[0].stop)
        right = max(0, tile.core[1].start - 40)
        distances.append(np.hypot(down, right))
    assert distances == sorted(distances)
    assert distances[-1] > 150
    assert Nearest(planes, lambda: None).tile(tiles) is tiles[0]


def test_the_plane_in_view_comes_first_then_its_neighbours():
    planes = plan_planes((5, 64, 64), "ZYX")
    pick = Nearest(planes, lambda: ((3, 4), (0, 64), (0, 64))).plane
    rest, order = list(planes.indices()), []
    while rest:
        order.append(pick(rest))
        rest.remove(order[-1])
    assert order == [(3,), (2,), (4,), (1,), (0,)]
    assert Nearest(planes, lambda: None).plane([(2,), (1,)]) == (2,)


def test_a_stack_is_shown_plane_by_plane_from_the_one_in_view(call, model_path):
    stack = np.random.default_rng(0).normal(size=(3, 64, 64)).astype(np.float32)
    chosen = SegmentSettings(instances=SETTINGS).model_dump(mode="json")
    view = ((1, 2), (0, 64), (0, 64))
    job = jobs.segment(call(image=stack), model=model_path, axes="ZYX", settings=chosen, view=view)
    shown = [event.region[0] for event in job if isinstance(event, LabelsDone)]
    assert shown == [(1, 2), (0, 1), (2, 3), (0, 1), (1, 2), (2, 3)], "at last the final labels"


def test_a_run_shows_the_view_first_and_follows_the_person(call, model_path, tiny_unet, run_to_end):
    image = np.random.default_rng(0).normal(size=(400, 400)).astype(np.float32)
    chosen = SegmentSettings(tile_px=112, instances=SETTINGS).model_dump(mode="json")
    places = {"now": ((300, 400), (300, 400))}
    request = call(lambda: places["now"], image=image)
    shown = []
    job = jobs.segment(request, model=model_path, axes="YX", settings=chosen)
    while True:
        try:
            event = next(job)
        except StopIteration as end:
            result = end.value
            break
        if isinstance(event, LabelsDone):
            shown.append(event.region)
            if len(shown) == 2:
                places["now"] = ((0, 100), (0, 100))
    in_first_view = [region for region in shown if min(region[0][0], region[1][0]) >= 290]
    assert shown[:2] == in_first_view[:2]
    assert max(shown[2][0][0], shown[2][1][0]) < 100
    labels = np.load(request.folder / "labels.npy")
    np.testing.assert_array_equal(labels, result["labels"])


def test_the_view_is_told_first_when_the_threshold_moves(call, model_path, run_to_end):
    image = np.random.default_rng(0).normal(size=(128, 160)).astype(np.float32)
    chosen = SegmentSettings(instances=SETTINGS).model_dump(mode="json")
    _, result = run_to_end(
        jobs.segment(call(image=image), model=model_path, axes="YX", settings=chosen)
    )
    view = ((40, 60), (50, 90))
    told, again = run_to_end(
        jobs.label(call(), token=str(result["token"]), settings=SETTINGS.model_dump(), view=view)
    )
    events = [event for event in told if isinstance(event, LabelsDone | TileDone)]
    assert events[0].region == view
    assert isinstance(events[-1], TileDone)
    np.testing.assert_array_equal(again["labels"], result["labels"])


def test_the_same_run_is_not_computed_twice(call, model_path, run_to_end, monkeypatch):
    image = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    ran = []
    plain = segmenting.predict_steps

    def counted(*args, **kwargs):
        ran.append(1)
        return plain(*args, **kwargs)

    monkeypatch.setattr(segmenting, "predict_steps", counted)

    def segment(image, **changes):
        chosen = SegmentSettings(**changes).model_dump(mode="json")
        request = call(image=image)
        job = jobs.segment(request, model=model_path, axes="YX", settings=chosen)
        return run_to_end(job)[1]

    first = segment(image, instances=InstanceSettings(threshold=0.4))
    again = segment(image, instances=InstanceSettings(threshold=0.6))
    assert len(ran) == 1
    assert again["token"] != first["token"]
    np.testing.assert_array_equal(again["probability"], first["probability"])
    other = image.copy()
    other[3, 4] += 1
    segment(other)
    assert len(ran) == 2, "one pixel is another image"
    segment(other, invert=True)
    assert len(ran) == 3, "other settings are another run"
    first["token"].unlink()
    segment(image)
    assert len(ran) == 4, "only the last run is kept"


def test_what_a_result_is_said_to_be_is_said_again_where_it_is_used_again(
    call, model_path, run_to_end, monkeypatch, tmp_path
):
    monkeypatch.setattr(fitted, "_of_this_process", {})
    monkeypatch.setattr(fitted, "user_state_path", lambda *_, **__: tmp_path / "state")
    image = np.random.default_rng(0).normal(size=(96, 96)).astype(np.float32)
    chosen = SegmentSettings(tile_px=48, halo_px=4).model_dump(mode="json")
    ran = []
    plain = segmenting.predict_steps

    def told(*args, **kwargs):
        ran.append(1)
        yield Note("Memory ran out.")
        return (yield from plain(*args, **kwargs))

    monkeypatch.setattr(segmenting, "predict_steps", told)

    def notes():
        job = jobs.segment(call(image=image), model=model_path, axes="YX", settings=chosen)
        return run_to_end(job)[1]["notes"]

    first, *caveats = notes()
    assert first == "Memory ran out."
    assert "approximate" in caveats[0]
    assert "differ by at least" in caveats[1]
    assert notes() == caveats
    assert notes() == caveats
    assert len(ran) == 1
    run_to_end(jobs.forget_tiles(call()))
    notes()
    assert len(ran) == 2, "with larger tiles the result may be another one"


def test_few_tiles_cover_the_view_and_all_cover_the_image_once(call, model_path, tiny_unet):
    image = np.random.default_rng(0).normal(size=(600, 700)).astype(np.float32)
    tile_px = 2 * tiny_unet.halo + 200
    chosen = SegmentSettings(tile_px=tile_px, instances=SETTINGS).model_dump(mode="json")
    view = ((210, 390), (250, 430))
    job = jobs.segment(call(image=image), model=model_path, axes="YX", settings=chosen, view=view)
    shown, seen = [], np.zeros(image.shape, int)
    while not seen.all():
        event = next(job)
        if isinstance(event, LabelsDone):
            shown.append(event.region)
            seen[tuple(slice(*span) for span in event.region)] += 1
    y, x = shown[0]
    assert y[0] <= 210 < 390 <= y[1]
    assert x[0] <= 250 < 430 <= x[1]
    assert seen.max() == 1


def test_a_scaled_image_is_shown_tile_by_tile_and_its_labels_are_those_of_the_run(
    call, tmp_path, tiny_unet, run_to_end
):
    path = tmp_path / "scaled.safetensors"
    card = Card(name="t", architecture=tiny_unet.architecture, object_size_px=20)
    save_model(Model(tiny_unet, card), path)
    image = np.random.default_rng(0).normal(size=(500, 520)).astype(np.float32)
    settings = SegmentSettings(
        tile_px=2 * tiny_unet.halo + 96, object_size_px=40, instances=SETTINGS
    )
    parameters = {"model": str(path), "axes": "YX", "settings": settings.model_dump(mode="json")}
    view = ((400, 500), (420, 520))
    told, result = run_to_end(jobs.segment(call(image=image), **parameters, view=view))
    shown = [event.region for event in told if isinstance(event, LabelsDone)]
    assert len(shown) > 4
    for (start, stop), (low, high) in zip(shown[0], view, strict=True):
        assert low - 20 <= start < stop <= high
    expected = predict(jobs._models.get(str(path)), image, "YX", settings)
    np.testing.assert_allclose(result["probability"], expected, atol=1e-5)
