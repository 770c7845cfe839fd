"""A run that was broken off goes on where it stopped, and ends as if nothing had happened."""

from __future__ import annotations

import errno

import numpy as np
import pytest
import torch

from napari_unet.errors import FileError
from napari_unet.models.card import Card
from napari_unet.models.model import Model
from napari_unet.runs import fitted, restart
from napari_unet.runs.predict import predict, predict_steps, segment, segment_steps
from napari_unet.runs.progress import Note, TileDone
from napari_unet.runs.restart import KEY
from napari_unet.settings import InstanceSettings, Normalization, SegmentSettings

zarr = pytest.importorskip("zarr")

TILES = SegmentSettings(
    tile_px=64, device="cpu", instances=InstanceSettings(threshold=0.45, min_size=5)
)


@pytest.fixture
def model(tiny_unet):
    return Model(tiny_unet, Card(name="tiny", architecture=tiny_unet.architecture))


@pytest.fixture
def image(tmp_path):
    """Return a stack of two planes in a zarr array."""
    random = np.random.default_rng(0)
    stored = zarr.create_array(
        tmp_path / "image.zarr", shape=(2, 130, 150), chunks=(1, 64, 64), dtype="u2"
    )
    stored[:] = random.integers(0, 4000, stored.shape)
    return stored


@pytest.fixture
def out(tmp_path):
    return zarr.create_array(
        tmp_path / "out.zarr", shape=(1, 2, 130, 150), chunks=(1, 1, 64, 64), dtype="f4"
    )


@pytest.fixture
def labels(tmp_path):
    return zarr.create_array(
        tmp_path / "labels.zarr", shape=(2, 130, 150), chunks=(1, 64, 64), dtype="i4"
    )


def break_off(job, tiles):
    """Run a job until so many tiles are done, and drop it as a crash does."""
    done = 0
    while done < tiles:
        done += isinstance(next(job), TileDone)
    job.close()


def notes(said):
    return [event.text for event in said if isinstance(event, Note)]


@pytest.mark.parametrize("tiles", [1, 5, 13])
def test_a_run_goes_on_where_it_stopped(model, image, out, tmp_path, tiles):
    expected = predict(model, image, "ZYX", TILES)
    total = []
    predict(model, image, "ZYX", TILES, progress=total.append)
    (total,) = {event.total for event in total if isinstance(event, TileDone)}
    assert total > 13

    break_off(predict_steps(model, image, "ZYX", TILES, out), tiles)
    again = zarr.open_array(tmp_path / "out.zarr", mode="r+")  # as the next process does
    said = []
    predict(model, image, "ZYX", TILES, out=again, progress=said.append)
    np.testing.assert_array_equal(again[:], expected)
    assert notes(said) == [f"An earlier run stopped here: {tiles} tiles are done already."]
    assert sum(isinstance(event, TileDone) for event in said) == total - tiles
    assert KEY not in zarr.open_array(tmp_path / "out.zarr", mode="r").attrs


def test_what_is_done_is_not_computed_again(model, image, out):
    break_off(predict_steps(model, image, "ZYX", TILES, out), 4)
    out[0, 0, :8, :8] = 7  # what the first tile wrote
    predict(model, image, "ZYX", TILES, out=out)
    assert (out[0, 0, :8, :8] == 7).all()


@pytest.mark.parametrize("what", ["settings", "weights", "image"])
def test_any_other_run_begins_anew_and_says_so(model, image, out, what):
    break_off(predict_steps(model, image, "ZYX", TILES, out), 4)
    settings = TILES
    if what == "settings":
        settings = TILES.replace(invert=True)
    elif what == "weights":
        with torch.no_grad():
            next(model.net.parameters())[0] += 0.5
    else:
        image[0, 5:30, 5:30] = 0
    said = []
    predict(model, image, "ZYX", settings, out=out, progress=said.append)
    np.testing.assert_array_equal(out[:], predict(model, image, "ZYX", settings))
    assert any("computed anew" in text for text in notes(said))


def test_only_the_plane_that_changed_is_computed_again(model, image, out):
    said = []
    predict(model, image[:1], "ZYX", TILES, progress=said.append)
    per_plane = said[-1].total
    break_off(predict_steps(model, image, "ZYX", TILES, out), per_plane + 3)
    image[1] = np.tile(np.arange(150), (130, 1))
    said = []
    predict(model, image, "ZYX", TILES, out=out, progress=said.append)
    assert len(notes(said)) == 2
    assert sum(isinstance(event, TileDone) for event in said) == per_plane
    np.testing.assert_array_equal(out[:], predict(model, image, "ZYX", TILES))


def test_another_threshold_or_device_is_the_same_run(model, image, out):
    break_off(predict_steps(model, image, "ZYX", TILES, out), 4)
    other = TILES.replace(device="auto", instances=InstanceSettings(threshold=0.9))
    said = []
    predict(model, image, "ZYX", other, out=out, progress=said.append)
    assert "An earlier run" in notes(said)[0]


@pytest.mark.parametrize("tiles", [3, 11])
def test_labels_go_on_too_and_nothing_else_stays(model, image, labels, tmp_path, tiles):
    expected = segment(model, image, "ZYX", TILES)
    before = sorted(tmp_path.iterdir())
    job = segment_steps(model, image, "ZYX", TILES, labels, keep_probability=False)
    break_off(job, tiles)
    assert sorted(tmp_path.iterdir()) != before
    said = []
    assert segment(model, image, "ZYX", TILES, out=labels, progress=said.append) is labels
    assert "An earlier run" in notes(said)[0]
    np.testing.assert_array_equal(labels[:], expected)
    assert expected.max() > 3
    assert sorted(tmp_path.iterdir()) == before


def test_what_an_earlier_run_left_damaged_is_made_anew(model, image, labels, tmp_path):
    break_off(segment_steps(model, image, "ZYX", TILES, labels, keep_probability=False), 3)
    (tmp_path / ".labels.zarr.probability" / "zarr.json").write_text("{")
    segment(model, image, "ZYX", TILES, out=labels)
    np.testing.assert_array_equal(labels[:], segment(model, image, "ZYX", TILES))


def test_a_scaled_plane_is_done_or_not_as_a_whole(tiny_unet, image, out):
    card = Card(name="tiny", architecture=tiny_unet.architecture, object_size_px=10)
    model, settings = Model(tiny_unet, card), TILES.replace(object_size_px=14)
    expected = predict(model, image, "ZYX", settings)
    job = predict_steps(model, image, "ZYX", settings, out)
    while KEY not in out.attrs:
        next(job)
    job.close()
    said = []
    predict(model, image, "ZYX", settings, out=out, progress=said.append)
    assert "1 tiles" in notes(said)[0]
    np.testing.assert_array_equal(out[:], expected)


def test_attributes_of_the_output_stay(model, image, out):
    out.attrs["mine"] = [1, 2]
    predict(model, image, "ZYX", TILES, out=out)
    assert dict(out.attrs) == {"mine": [1, 2]}


def run_out_of_memory_above(net, side):
    """Let a network run out of memory with larger tiles; return what ends that."""

    def check(_, inputs):
        if inputs[0].shape[-1] > side:
            raise MemoryError

    return net.down[0].register_forward_pre_hook(check)


@pytest.mark.parametrize("process", ["the same", "another"])
def test_a_run_goes_on_after_memory_ran_out(model, image, out, process):
    expected = predict(model, image, "ZYX", TILES)
    settings, seen = TILES.replace(tile_px=140), []
    refusing = run_out_of_memory_above(model.net, 70)
    break_off(predict_steps(model, image, "ZYX", settings, out), 60)
    refusing.remove()
    if process == "another":
        fitted._of_this_process.clear()
        fitted._file().unlink()
    said = []
    model.net.down[0].register_forward_pre_hook(lambda *_: seen.append(1))
    predict(model, image, "ZYX", settings, out=out, progress=said.append)
    assert out[:] == pytest.approx(expected, abs=1e-5)
    (planned,) = {event.total for event in said if isinstance(event, TileDone)}
    (line,) = (note for note in notes(said) if note.startswith("An earlier run stopped here: "))
    told = int(line.split(": ")[1].split(" ")[0])
    assert told > 0
    assert len(seen) == planned - told


@pytest.mark.parametrize("kind", ["none", "percentile", "mean-std"])
def test_no_change_of_the_image_is_too_small_to_be_seen(tiny_unet, image, out, kind):
    rule = Normalization(kind=kind)
    model = Model(
        tiny_unet, Card(name="tiny", architecture=tiny_unet.architecture, normalization=rule)
    )
    break_off(predict_steps(model, image, "ZYX", TILES, out), 4)
    image[0, 35:37, 33:38] = image[0, 35:37, 33:38][::-1]  # the statistics stay the same
    said = []
    predict(model, image, "ZYX", TILES, out=out, progress=said.append)
    assert "computed anew" in notes(said)[1]
    np.testing.assert_array_equal(out[:], predict(model, image, "ZYX", TILES))


def test_what_is_done_is_written_once_a_second_and_when_the_run_is_broken_off(
    model, image, out, monkeypatch
):
    now, saves, save = [0.0], [], restart.Unfinished.save

    def counted(self):
        saves.append(now[0])
        save(self)

    monkeypatch.setattr(restart.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(restart.Unfinished, "save", counted)
    job = predict_steps(model, image, "ZYX", TILES, out)
    for tile in range(12):
        now[0] = 0.25 * tile
        while not isinstance(next(job), TileDone):
            pass
    assert saves == [0, 1, 2]
    job.close()
    assert saves == [0, 1, 2, 2.75]
    (plane,) = out.attrs[KEY]["planes"].values()
    assert len(plane["tiles"]) == 12


@pytest.mark.parametrize("what", ["probabilities", "what is done", "labels"])
def test_a_full_disk_is_told_in_a_sentence(model, image, out, labels, monkeypatch, what):
    store, is_record = type(out.store), what == "what is done"
    root = (labels if what == "labels" else out).store.root
    original = store.set

    async def full(self, key, *args, **options):
        if self.root == root and key.endswith("zarr.json") == is_record:
            raise OSError(errno.ENOSPC, "No space left on device")
        await original(self, key, *args, **options)

    monkeypatch.setattr(store, "set", full)
    function, target = (segment, labels) if what == "labels" else (predict, out)
    with pytest.raises(FileError, match=r"\.zarr cannot be written: No space left on device"):
        function(model, image, "ZYX", TILES, out=target)
