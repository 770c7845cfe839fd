"""The order of the tiles, what is read of an image, and memory that runs out anywhere."""

import re
from datetime import date

import numpy as np
import pytest
import torch

from napari_unet.arrays.normalize import measure
from napari_unet.errors import DeviceError
from napari_unet.models.card import Card
from napari_unet.models.model import Model
from napari_unet.network.graph import IMAGE, Join, Pooling
from napari_unet.network.inference import InferenceNet
from napari_unet.network.policy import DevicePolicy
from napari_unet.network.transfers import Arriving, Transfers
from napari_unet.network.unet import UNet
from napari_unet.runs import difference, fitted, overlap_tile, tile_computer
from napari_unet.runs.background import Background
from napari_unet.runs.fitted import remember
from napari_unet.runs.overlap_tile import OverlapTile
from napari_unet.runs.predict import predict
from napari_unet.runs.progress import Note, TileDone, drive
from napari_unet.runs.tile_choice import default_tile, feature_bytes
from napari_unet.runs.tile_computer import Plane, TileComputer
from napari_unet.settings import Architecture, SegmentSettings
from tests.graphs import Sketch, shaken_net

SMALL_TILES = SegmentSettings(tile_px=64, device="cpu")


@pytest.fixture
def tiny(tiny_unet):
    return Model(tiny_unet, Card(name="tiny", architecture=tiny_unet.architecture))


def make_image(*shape):
    """Make noise that gets brighter towards one corner, so that no two tiles are alike."""
    noise = np.random.default_rng(0).normal(size=shape)
    return noise + np.linspace(0, 3, shape[-1]) + np.linspace(0, 2, shape[-2])[:, np.newaxis]


class Run:
    """One plane run tile by tile, and what was read, asked and written on the way."""

    def __init__(self, model, image, settings=SMALL_TILES, policy=None, *, order=None, skip=()):
        self.said, self.reads = [], []
        channels, self._array = image[np.newaxis], image[np.newaxis]
        self.shape = channels.shape
        self.out = np.full((model.card.architecture.classes, *image.shape), np.nan)
        self.times_written = np.zeros(image.shape, int)
        with Background() as background:
            choose = None if policy is None else lambda *_, **__: policy
            self.tiling = OverlapTile(model, image.shape, settings, background, policy=choose)
            statistics = measure(channels, model.card.normalization)
            plane = Plane(self, statistics, self.write, skip)
            drive(self.tiling.run([plane], order), self.said.append)

    def __getitem__(self, index):
        part = self._array[index]
        self.reads.append(part.size)
        return part

    def write(self, core, values):
        self.out[(slice(None), *core)] = values
        self.times_written[core] += 1

    @property
    def notes(self):
        return [event.text for event in self.said if isinstance(event, Note)]


# ------------------------------------------------------------------------- order, skipping, reading


def test_the_next_tile_is_asked_for_each_time(tiny):
    image, asked = make_image(150, 140), []

    def last_first(remaining):
        asked.append(len(remaining))
        return remaining[-1]

    run = Run(tiny, image, order=last_first)
    count = len(run.tiling.tiles)
    assert asked == list(range(count, 0, -1))
    assert (run.out == Run(tiny, image).out).all()
    assert (run.times_written == 1).all()
    done = [event for event in run.said if isinstance(event, TileDone)]
    assert done == [TileDone(number, count) for number in range(1, count + 1)]


def test_tiles_that_are_done_are_not_computed_again(tiny):
    image = make_image(150, 140)
    whole = Run(tiny, image)
    run = Run(tiny, image, skip={0, 3, 4})
    for index, tile in enumerate(run.tiling.tiles):
        assert (run.times_written[tile.core] == (index not in {0, 3, 4})).all()
    written = run.times_written == 1
    assert (run.out[0][written] == whole.out[0][written]).all()
    assert run.said[-1] == TileDone(len(run.tiling.tiles), len(run.tiling.tiles))
    nothing = Run(tiny, image, skip=range(len(run.tiling.tiles)))
    assert nothing.said == []
    assert nothing.reads == []


def test_of_an_image_on_disk_only_the_tile_is_read(tiny):
    run = Run(tiny, make_image(301, 333))
    assert max(run.reads) <= 64 * 64
    assert len(run.reads) == len(run.tiling.tiles)


def test_the_next_tile_is_read_while_one_is_computed(tiny, monkeypatch):
    image, events = make_image(150, 140), []
    start, finish = TileComputer.start, TileComputer.finish

    def noted(name, function):
        def call(self, *args):
            events.append(name)
            return function(self, *args)

        return call

    expected = Run(tiny, image).out
    ahead = DevicePolicy(budget_bytes=2**30, ahead=1)
    monkeypatch.setattr(TileComputer, "start", noted("start", start))
    monkeypatch.setattr(TileComputer, "finish", noted("finish", finish))
    run = Run(tiny, image, policy=ahead)
    count = len(run.tiling.tiles)
    assert events == ["start", *["start", "finish"] * (count - 1), "finish"]
    assert (run.out == expected).all()
    assert [event.done for event in run.said if isinstance(event, TileDone)] == [
        *range(1, count + 1)
    ]

    def run_out_once(self, *args):
        monkeypatch.setattr(TileComputer, "finish", finish)
        raise MemoryError

    monkeypatch.setattr(TileComputer, "finish", run_out_once)
    run = Run(tiny, image, policy=ahead)
    assert len(run.notes) == 1
    assert (run.times_written == 1).all()
    assert run.out == pytest.approx(expected, abs=1e-5)


# -------------------------------------------------------------------------------- turned eight ways


@pytest.mark.parametrize(
    ("options", "shape", "tile_px"),
    [
        ({}, (131, 90), 64),
        ({"padded": False}, (97, 61), 70),
        ({"upsampling": "nearest"}, (131, 60), 80),
        ({"widths": (3, 4), "spatial_dims": 3}, (9, 41, 30), 24),
    ],
    ids=["padded", "unpadded", "nearest upsampling", "volume"],
)
def test_tiles_turned_eight_ways_give_what_the_whole_gives(options, shape, tile_px):
    torch.manual_seed(0)
    net = UNet(Architecture(**{"widths": (4, 6, 8), **options})).double().eval()
    for parameter in net.parameters():
        if parameter.ndim > 1:
            torch.nn.init.orthogonal_(parameter, 1.6)
    model = Model(net, Card(name="t", architecture=net.architecture))
    image = make_image(*shape)
    settings = SegmentSettings(augment=True, device="cpu")
    whole = Run(model, image, settings).out
    tiled = Run(model, image, settings.replace(tile_px=tile_px))
    assert len(tiled.tiling.tiles) > 1
    assert whole.std() > 0.03
    assert abs(tiled.out - whole).max() < 1e-9
    assert abs(Run(model, image, SegmentSettings(device="cpu")).out - whole).max() > 1e-3


@pytest.mark.parametrize("quarters", [0, 1])
def test_the_average_of_all_turns_turns_with_the_image(tiny, quarters):
    image = make_image(64, 96)
    settings = SegmentSettings(augment=True, device="cpu")
    upright = Run(tiny, image, settings).out[0]
    turned = Run(tiny, np.rot90(image, quarters)[:, ::-1], settings).out[0]
    assert np.rot90(turned[:, ::-1], -quarters) == pytest.approx(upright, abs=1e-6)


# ------------------------------------------------------------------------------ approximate results


def test_how_much_a_small_halo_costs_is_measured(tiny):
    image = make_image(150, 140)
    exact = Run(tiny, image).out
    net = tiny.net
    run = Run(tiny, image, SMALL_TILES.replace(halo_px=4))
    (note,) = run.notes
    said = float(note.split("at least ")[1].split(" ")[0])
    actual = abs(run.out - exact).max()
    assert net.halo > 4
    assert actual / 10 < said <= actual * 1.05
    assert note.startswith("Three tiles were computed once more")
    assert len(run.reads) == len(run.tiling.tiles) + 3
    assert isinstance(run.said[-1], TileDone)
    assert Run(tiny, image, SMALL_TILES.replace(halo_px=net.halo)).notes == []


def test_a_blank_corner_does_not_hide_what_a_small_halo_costs(tiny):
    image, settings = make_image(150, 140), SMALL_TILES.replace(halo_px=4)
    image[:90, :90] = 0
    first = Run(tiny, image, settings).tiling.tiles[0].core
    run = Run(tiny, image, settings)
    said = float(run.notes[0].split("at least ")[1].split(" ")[0])
    assert image[first].max() == 0
    assert said > abs(run.out - Run(tiny, image).out).max() / 10


def test_a_halo_that_is_too_small_along_one_axis_only_is_told():
    sketch = Sketch(dims=3)
    x = sketch.convolution(IMAGE, 3, (9, 3, 3))
    below = sketch.add(Pooling, x, kind="max", kernel=(1, 2, 2), stride=(1, 2, 2))
    below = sketch.upsampling(sketch.convolution(below, 3, (1, 3, 3)), 3, 2, (0, 0), (1, 2, 2))
    joined = sketch.add(Join, (x, below), how="concatenate")
    net = shaken_net(sketch.graph(sketch.convolution(joined, 1, 1)))
    model = Model(net, Card(name="flat", architecture=net.architecture))
    assert [(grid.stride, grid.halo) for grid in net.grids] == [(1, 4), (2, 4), (2, 4)]

    def told(halo_px, *shape):
        settings = SegmentSettings(tile_px=16, halo_px=halo_px, device="cpu")
        with Background() as background:
            return [note.text for note in OverlapTile(model, shape, settings, background).notes()]

    (note,) = told(3, 40, 50, 60)
    assert note.startswith("A halo of 3 px is less than the 4 px this network looks around it")
    assert told(4, 40, 50, 60) == []
    assert told(3, 16, 50, 60) == [], "an axis that is not cut needs no halo"


def test_two_tiles_are_measured_once_each(tiny):
    run = Run(tiny, make_image(40, 100), SMALL_TILES.replace(halo_px=4))
    assert len(run.tiling.tiles) == 2
    assert run.notes[0].startswith("Two tiles were computed once more")


@pytest.mark.parametrize("measured_before", [0, 1])
def test_without_memory_for_measuring_nothing_is_measured(tiny, monkeypatch, measured_before):
    image, settings = make_image(150, 140), SMALL_TILES.replace(halo_px=4)
    measured, calls = difference.measure_difference, []

    def refused(*args):
        calls.append(1)
        if len(calls) > measured_before:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return measured(*args)

    expected = Run(tiny, image, settings)
    monkeypatch.setattr(difference, "measure_difference", refused)
    run = Run(tiny, image, settings)
    assert (run.out == expected.out).all()
    assert (run.times_written == 1).all()
    assert len(run.tiling.tiles) == len(expected.tiling.tiles)
    assert len(calls) == measured_before + 1
    assert [note.split(" were")[0].split(" was")[0] for note in run.notes] == (
        ["One tile"] if measured_before else []
    )


# --------------------------------------------------------------------------------------- precision


def test_half_precision_is_near(tiny):
    image = make_image(150, 140)
    try:
        half = Run(tiny, image, SMALL_TILES.replace(precision="half"))
    except DeviceError:
        pytest.skip("this processor has no bfloat16")
    difference = abs(half.out - Run(tiny, image).out)
    assert 0 < difference.max() < 0.05
    (line,) = half.notes
    most, mean = map(float, re.findall(r"(\d[\d.e-]*)(?: there| on average)", line))
    assert 0 < mean < most <= difference.max() * 1.05
    assert mean == pytest.approx(difference.mean(), rel=0.5)


def test_what_half_precision_costs_is_measured_where_there_is_more_than_background(tiny):
    image = np.zeros((150, 140))
    image[70:75, 40:50] = 5
    image[100:105, 20:120] = -3
    settings = SMALL_TILES.replace(tile_px=140)
    try:
        half = Run(tiny, image, settings.replace(precision="half"))
    except DeviceError:
        pytest.skip("this processor has no bfloat16")
    said = float(half.notes[0].split("up to ")[1].split(" ")[0])
    assert said > abs(half.out - Run(tiny, image, settings).out).max() / 2


@pytest.mark.parametrize("padded", [True, False])
def test_half_precision_is_measured_on_all_of_a_tile(padded):
    torch.manual_seed(0)
    net = UNet(Architecture(widths=(4, 6), padded=padded)).eval()
    model = Model(net, Card(name="tiny", architecture=net.architecture))
    try:
        run = Run(model, make_image(90, 37), SMALL_TILES.replace(precision="half"))
    except DeviceError:
        pytest.skip("this processor has no bfloat16")
    rows, columns = map(int, re.findall(r"^(\d+) x (\d+) px were computed", run.notes[0])[0])
    assert 24 <= rows <= 64 - 2 * net.margin, "not only one step of the grid"
    assert columns == 37, "not the mirrored part"


def test_what_half_precision_costs_is_told_once_and_not_where_all_digits_are_used(tiny):
    image, said = make_image(3, 50, 40), []
    for precision in ("half", "float32"):
        settings = SMALL_TILES.replace(precision=precision)
        try:
            predict(tiny, image, "ZYX", settings, progress=said.append)
        except DeviceError:
            pytest.skip("this processor has no bfloat16")
    (line,) = (event.text for event in said if isinstance(event, Note))
    assert "with half precision probabilities differ" in line


def test_numbers_too_large_for_half_precision_are_computed_with_all_digits(tiny, monkeypatch):
    image, used = make_image(40, 40), []

    class Overflowing(InferenceNet):
        def __call__(self, x, kept=None):
            used.append(self.dtype)
            logits = super().__call__(x, kept)
            return logits / 0 if self.dtype == torch.float16 else logits

    expected = Run(tiny, image).out
    monkeypatch.setattr(overlap_tile, "choose_dtype", lambda *_: torch.float16)
    monkeypatch.setattr(tile_computer, "InferenceNet", Overflowing)
    assert (Run(tiny, image).out == expected).all()
    assert used == [torch.float16, torch.float32]


# --------------------------------------------------------------------------------- size of the tile


def test_the_default_tile_keeps_to_the_budget_and_throws_little_away():
    for name in ("light-bn", "same-bn", "ronneberger2015"):
        with torch.device("meta"):  # sizes only, no weights
            net = UNet.from_preset(name)
        lost = net.margin or net.halo
        for size in (300, 1024, 2048, 4096, 30000):
            tile = default_tile(net, (size, size), (0 if net.margin else net.halo,) * 2)
            least = 6 * lost + net.stride
            assert min(tile, size) ** 2 * feature_bytes(net) <= 768 * 2**20 or tile <= least
            assert tile >= min(size, least)


# ------------------------------------------------------------------------------ memory runs out


def refuse_above(net, pixels):
    """Let a network run out of memory with more than so many pixels at once."""

    def check(_, inputs):
        if inputs[0].numel() > pixels:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    net.down[0].register_forward_pre_hook(check)


def test_smaller_tiles_are_used_when_memory_runs_out(tiny):
    image = make_image(2, 150, 140)
    expected = predict(tiny, image, "ZYX")
    refuse_above(tiny.net, 80 * 80)
    said = []
    probability = predict(tiny, image, "ZYX", progress=said.append)
    assert probability == pytest.approx(expected, abs=1e-5)
    assert [event.text for event in said if isinstance(event, Note)] == [
        "Memory of this computer ran out with a tile of 152 px; going on with a tile of 76 px.",
    ]
    assert said[-1].done == said[-1].total


def test_tiles_are_said_to_be_approximate_where_memory_ran_out_with_the_whole():
    torch.manual_seed(0)
    net = UNet(Architecture(widths=(4, 6), norm="instance")).eval()
    model = Model(net, Card(name="whole", architecture=net.architecture))
    image, said = make_image(150, 140), []
    refuse_above(net, 80 * 80)
    predict(model, image, "YX", SegmentSettings(device="cpu"), progress=said.append)
    ran_out, approximate, measured = (e.text for e in said if isinstance(e, Note))
    assert ran_out.startswith("Memory of this computer ran out")
    assert "so with tiles the result is approximate" in approximate
    assert "probabilities differ by at least" in measured


def test_the_cpu_takes_over_when_no_tile_fits_on_the_gpu(tiny, monkeypatch):
    def on_device(net, device, *options):
        if device.type == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return InferenceNet(net, device, *options)

    image, said = make_image(150, 140), []
    expected = predict(tiny, image, settings=SegmentSettings(device="cpu"))
    monkeypatch.setattr(overlap_tile, "choose_device", torch.device)
    monkeypatch.setattr(overlap_tile, "choose_policy", lambda *_, **__: DevicePolicy(2**30))
    monkeypatch.setattr(fitted, "device_name", str)
    monkeypatch.setattr(fitted, "free_bytes", lambda _: None)
    monkeypatch.setattr(tile_computer, "InferenceNet", on_device)
    settings = SegmentSettings(device="cuda")
    monkeypatch.setattr(TileComputer, "transfers", Transfers(torch.device("cpu")))
    probability = predict(tiny, image, settings=settings, progress=said.append)
    assert probability == pytest.approx(expected, abs=1e-6)
    assert [event.text for event in said if isinstance(event, Note)] == [
        "Memory of the GPU ran out with a tile of 152 px; going on with the CPU, which is slower.",
    ]
    assert fitted.recall(tiny.net, torch.device("cuda"), torch.float16).tile_px == 52


def test_memory_that_never_suffices_is_told_in_a_sentence(tiny):
    refuse_above(tiny.net, 10)
    with pytest.raises(DeviceError, match=r"Memory of this computer ran out"):
        predict(tiny, make_image(70, 70))


def test_any_other_error_of_torch_is_a_defect_and_stays_what_it_is(tiny):
    def fail(*_):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    tiny.net.down[0].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        predict(tiny, make_image(20, 20))


def test_what_is_done_when_memory_runs_out_stays_done(tiny):
    image, seen = make_image(203, 150), []

    def run_out_at_the_third(_, inputs):
        seen.append(inputs[0].shape[-1])
        if len(seen) == 3:
            raise MemoryError

    expected = Run(tiny, image).out
    tiny.net.down[0].register_forward_pre_hook(run_out_at_the_third)
    run = Run(tiny, image, SMALL_TILES.replace(tile_px=112))
    assert run.notes == [
        "Memory of this computer ran out with a tile of 100 px; going on with a tile of 52 px."
    ]
    assert seen[:3] == [seen[0]] * 3
    assert max(seen[3:]) <= 52
    assert (run.times_written == 1).all()
    assert run.out == pytest.approx(expected, abs=1e-5)
    assert run.said[-1].done == run.said[-1].total


def test_the_tile_that_fitted_is_remembered_for_this_network_and_device(tiny):
    image = make_image(203, 150)
    refuse_above(tiny.net, 80 * 80)
    assert len(Run(tiny, image, SegmentSettings(device="cpu")).notes) > 0
    again = Run(tiny, image, SegmentSettings(device="cpu"))
    assert again.notes == []
    assert (again.times_written == 1).all()
    (line,) = (note.text for note in again.tiling.notes())
    today = date.today().isoformat()
    told = f"Beginning with a tile of 72 px, as memory ran out with more on {today}."
    assert line.startswith(told)
    assert "--forget-tiles" in line
    fitted.forget()
    anew = Run(tiny, image[:70, :70], SegmentSettings(device="cpu"))
    assert list(anew.tiling.notes()) == []
    other = UNet(tiny.net.architecture.replace(widths=(4, 6)))
    other_model = Model(other, Card(name="other", architecture=other.architecture))
    assert len(Run(other_model, image, SegmentSettings(device="cpu")).tiling.tiles) == 1


def test_a_remembered_tile_keeps_at_least_as_much_as_a_halo(tiny):
    net = tiny.net
    smallest = net.valid_input(net.stride + 2 * net.halo)
    remember(net, torch.device("cpu"), torch.float32, smallest, 1)
    tiles = Run(tiny, make_image(203, 150), SegmentSettings(device="cpu")).tiling.tiles
    sides = [part.stop - part.start for tile in tiles for part in tile.outer]
    assert len(tiles) > 1
    assert max(sides) >= 3 * net.halo > smallest


def test_a_remembered_tile_larger_than_the_image_is_not_told(tiny):
    remember(tiny.net, torch.device("cpu"), torch.float32, 100, 1)
    for side, count in ((90, 0), (130, 1)):
        run = Run(tiny, make_image(side, 80), SegmentSettings(device="cpu"))
        assert len(list(run.tiling.notes())) == count


@pytest.mark.parametrize(
    "stage",
    ["building the copy", "moving to the device", "computing", "activating", "copying back"],
)
def test_memory_may_run_out_at_every_stage(tiny, stage, monkeypatch):
    image, left = make_image(150, 140), [1]
    expected = Run(tiny, image).out

    def fail_once(function):
        def call(*args, **options):
            if left.pop() if left else 0:
                raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
            return function(*args, **options)

        return call

    owner, name = {
        "building the copy": (tile_computer, "InferenceNet"),
        "moving to the device": (Transfers, "upload"),
        "computing": (InferenceNet, "_compute"),
        "activating": (Model, "activate"),
        "copying back": (Arriving, "wait"),
    }[stage]
    monkeypatch.setattr(owner, name, fail_once(getattr(owner, name)))
    run = Run(tiny, image)
    assert left == []
    assert len(run.notes) == 1
    assert (run.times_written == 1).all()
    assert run.out == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("at_tile", [1, 3])
def test_progress_never_goes_back_and_ends_at_its_total_when_memory_runs_out(tiny, at_tile):
    image, seen = make_image(3, 140, 150), []

    def run_out(_, inputs):
        seen.append(inputs[0].shape[-1])
        if len(seen) >= at_tile and inputs[0].shape[-1] > 60:
            raise MemoryError

    tiny.net.down[0].register_forward_pre_hook(run_out)
    said = []
    predict(tiny, image, "ZYX", SMALL_TILES.replace(tile_px=112), progress=said.append)
    done = [event for event in said if isinstance(event, TileDone)]
    counts = [event.done for event in done]
    (total,) = {event.total for event in done}
    assert total > 100 if at_tile == 1 else len(done) > 10 * total  # what was told first stays
    assert counts == sorted(counts)
    assert counts[0] > 0
    assert counts.index(total) == len(counts) - 1
