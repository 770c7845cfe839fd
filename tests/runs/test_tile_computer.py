"""What is done on a GPU, done on a CPU by a policy: batches, results put together, recordings."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_unet.arrays.normalize import measure
from napari_unet.models.card import Card
from napari_unet.models.model import Model
from napari_unet.network.policy import DevicePolicy
from napari_unet.network.recording import REPEATS
from napari_unet.network.unet import UNet
from napari_unet.runs import overlap_tile
from napari_unet.runs.background import Background
from napari_unet.runs.overlap_tile import OverlapTile
from napari_unet.runs.predict import predict, segment
from napari_unet.runs.progress import Note, TileDone, drive
from napari_unet.runs.tile_computer import Plane, TileComputer
from napari_unet.settings import Architecture, SegmentSettings

CPU = SegmentSettings(device="cpu")
TILED = {"padded": 64, "unpadded": 70, "volume": 24, "group norm": 64}
NETS = {
    "padded": {"norm": "batch"},
    "unpadded": {"padded": False},
    "volume": {"widths": (3, 4), "spatial_dims": 3},
    "group norm": {"norm": "group"},
}
SHAPES = {"padded": (150, 131), "unpadded": (97, 61), "volume": (9, 41, 30), "group norm": (64, 64)}


class Recorder:
    """Stands in for CUDA's recordings: the same memory is used for each replay."""

    def __init__(self):
        self.made = self.replayed = 0

    def __call__(self, compute, example):
        seen, self.made = example.clone(), self.made + 1

        def replay(tiles):
            self.replayed += 1
            seen.copy_(tiles)
            return compute(seen).clone()

        return replay


def gpu_like(**options):
    """Return the policy of a small GPU that computes with a CPU's digits."""
    usual = {
        "budget_bytes": 2**30,
        "together_bytes": 8 * 2**20,
        "ahead": 1,
        "scales": True,
        "result_bytes": 2**30,
    }
    return DevicePolicy(**{**usual, **options})


def make_model(**options):
    """Make a model in which errors do not fade on their way to the output."""
    torch.manual_seed(0)
    net = UNet(Architecture(**{"widths": (4, 6, 8), **options})).eval()
    for parameter in net.parameters():
        if parameter.ndim > 1:
            torch.nn.init.orthogonal_(parameter, 1.6)
    return Model(net, Card(name="t", architecture=net.architecture))


def make_image(*shape):
    """Make noise that gets brighter towards one corner, so that no two tiles are alike."""
    noise = np.random.default_rng(0).normal(size=shape)
    bright = noise + np.linspace(0, 3, shape[-1]) + np.linspace(0, 2, shape[-2])[:, np.newaxis]
    return (100 * (bright + 5)).astype(np.uint16)


class Run:
    """Some planes run together, and how often each pixel was written."""

    def __init__(self, model, images, settings, policy, **options):
        self.said, self.boxes = [], []
        self.out = [np.full(image.shape, np.nan, np.float32) for image in images]
        self.times_written = [np.zeros(image.shape, int) for image in images]
        with Background() as background:
            self.tiling = OverlapTile(
                model, images[0].shape, settings, background, policy=lambda *_, **__: policy
            )
            planes = [self.plane(model, image, n) for n, image in enumerate(images)]
            drive(self.tiling.run(planes, **options), self.said.append)

    def plane(self, model, image, number):
        channels = image[np.newaxis]

        def write(box, values):
            self.boxes.append(box)
            self.out[number][box] = values[0]
            self.times_written[number][box] += 1

        return Plane(channels, measure(channels, model.card.normalization), write)

    @property
    def notes(self):
        return [event.text for event in self.said if isinstance(event, Note)]


@pytest.fixture
def batch_sizes(monkeypatch):
    """Note how many tiles the network sees at once."""
    sizes, answer = [], TileComputer._answer

    def noted(self, seen, kept, at_once):
        sizes.append(len(seen))
        return answer(self, seen, kept, at_once)

    monkeypatch.setattr(TileComputer, "_answer", noted)
    return sizes


@pytest.mark.parametrize("augment", [False, True], ids=["upright", "turned"])
@pytest.mark.parametrize("kind", NETS)
def test_batches_put_together_and_replayed_give_what_the_whole_gives(kind, augment):
    model, image = make_model(**NETS[kind]), make_image(*SHAPES[kind])
    settings = CPU.replace(augment=augment)
    whole = predict(model, image, "ZYX"[-image.ndim :], settings)[0]
    recorder = Recorder()
    policy = gpu_like(record=recorder)
    if kind == "group norm":  # which has no tiles, so several planes go together
        images = [image] * 40
        run = Run(model, images, settings, policy)
        assert run.tiling.planes_at_once > 1
    else:
        settings = settings.replace(tile_px=TILED[kind])
        run = Run(model, [image] * 8, settings, policy)
        assert len(run.tiling.tiles) > 1
    assert whole.std() > 0.01
    for out, times in zip(run.out, run.times_written, strict=True):
        assert (times == 1).all()
        assert abs(out - whole).max() < 1e-5
    assert run.said[-1].done == run.said[-1].total
    assert run.notes == []


def test_tiles_are_computed_several_at_once_and_only_what_is_alike(batch_sizes):
    model, image = make_model(), make_image(300, 260)
    settings = CPU.replace(tile_px=64)
    run = Run(model, [image], settings, gpu_like(result_bytes=0))
    assert max(batch_sizes) > 4
    assert sum(batch_sizes) == len(run.tiling.tiles)
    alone = Run(model, [image], settings, gpu_like(together_bytes=0))
    assert abs(run.out[0] - alone.out[0]).max() < 1e-6


def test_small_planes_are_computed_together(batch_sizes, monkeypatch):
    monkeypatch.setattr(overlap_tile, "choose_policy", lambda *_, **__: gpu_like())
    model, stack = make_model(), make_image(23, 60, 52)
    together = predict(model, stack, "ZYX", CPU)
    assert max(batch_sizes) > 8
    assert len(batch_sizes) < 6
    monkeypatch.setattr(overlap_tile, "choose_policy", lambda *_, **__: DevicePolicy(2**30))
    one_by_one = predict(model, stack, "ZYX", CPU)
    assert abs(together - one_by_one).max() < 1e-6
    labels = segment(model, stack, "ZYX", CPU)
    monkeypatch.setattr(overlap_tile, "choose_policy", lambda *_, **__: gpu_like())
    assert (segment(model, stack, "ZYX", CPU) == labels).all()


def test_a_person_who_watches_sees_tile_by_tile_in_the_order_asked_for(batch_sizes):
    model, image, asked = make_model(), make_image(150, 131), []

    def last_first(remaining):
        asked.append(len(remaining))
        return remaining[-1]

    settings = CPU.replace(tile_px=64)
    run = Run(model, [image], settings, gpu_like(), order=last_first)
    tiles = run.tiling.tiles
    assert run.boxes[0] == tiles[-1].core
    assert sorted(map(str, run.boxes)) == sorted(str(tile.core) for tile in tiles)
    assert len(asked) == len(tiles)
    assert max(batch_sizes) > 1


def test_a_result_on_the_device_is_written_once_in_strips(monkeypatch):
    monkeypatch.setattr("napari_unet.network.transfers.STRIP_BYTES", 4 * 131 * 40)
    model, image = make_model(), make_image(150, 131)
    run = Run(model, [image], CPU.replace(tile_px=64), gpu_like())
    strips = slice(0, 40), slice(40, 80), slice(80, 120), slice(120, 150)
    assert run.boxes == [(strip, slice(0, 131)) for strip in strips]
    done = [event for event in run.said if isinstance(event, TileDone)]
    assert done[-1] == TileDone(len(run.tiling.tiles), len(run.tiling.tiles))


# ------------------------------------------------------------------------------ memory runs out


@pytest.mark.parametrize("result_bytes", [0, 2**30], ids=["tile by tile", "put together"])
def test_fewer_tiles_at_once_are_tried_before_smaller_ones(result_bytes, monkeypatch):
    model, image, tried = make_model(widths=(4, 6)), make_image(150, 131), []
    start = TileComputer.start

    def refuse(self, pieces, kept, at_once=1, into=None):
        tile = pieces[0].tile.outer[-1]
        tried.append((len(pieces), tile.stop - tile.start))
        if len(tried) > 1 and (len(pieces) > 1 or tried[-1][1] > 64):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return start(self, pieces, kept, at_once, into)

    policy = gpu_like(result_bytes=result_bytes)
    settings = CPU.replace(tile_px=120)
    expected = Run(model, [image], settings, DevicePolicy(2**30)).out[0]
    monkeypatch.setattr(TileComputer, "start", refuse)
    run = Run(model, [image] * 4, settings, policy)
    counts = [count for count, _ in tried[1:]]
    sides = [side for _, side in tried[1:]]
    assert counts[0] > 2
    assert counts == sorted(counts, reverse=True)
    assert {side for count, side in tried if count > 1} == {max(sides)}  # first the batch
    assert sides[-1] <= 64
    (note,) = run.notes
    assert note.split(";")[0].endswith("px at once")
    assert "going on with a tile of" in note
    assert (run.times_written[0] == 1).all()
    assert abs(run.out[0] - expected).max() < 1e-5


def test_without_room_for_the_result_it_is_written_tile_by_tile(monkeypatch):
    def refuse(self, shape):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(TileComputer, "assemble", refuse)
    model, image = make_model(), make_image(150, 131)
    run = Run(model, [image], CPU.replace(tile_px=64), gpu_like())
    assert run.notes == []
    assert {str(box) for box in run.boxes} == {str(tile.core) for tile in run.tiling.tiles}
    assert (run.times_written[0] == 1).all()


# ----------------------------------------------------------------------------------- recordings


def test_what_is_repeated_is_recorded_and_what_is_not_is_not():
    recorder = Recorder()
    model = make_model(widths=(4, 6))
    policy = gpu_like(record=recorder, together_bytes=0)
    run = Run(model, [make_image(600, 131)], CPU.replace(tile_px=64), policy)
    assert recorder.made > 0
    assert REPEATS < recorder.replayed < len(run.tiling.tiles) - REPEATS
    small = Recorder()
    Run(model, [make_image(131, 131)], CPU.replace(tile_px=64), gpu_like(record=small))
    assert small.made == 0


def test_what_cannot_be_recorded_is_computed_step_by_step_and_told_once():
    def refuse(compute, example):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    model, image = make_model(widths=(4, 6)), make_image(600, 131)
    settings = CPU.replace(tile_px=64)
    run = Run(model, [image], settings, gpu_like(record=refuse, together_bytes=0))
    (note,) = run.notes
    assert "(operation not permitted when stream is capturing)" in note
    assert (run.times_written[0] == 1).all()
    plain = Run(model, [image], settings, DevicePolicy(2**30))
    assert abs(run.out[0] - plain.out[0]).max() < 1e-6
