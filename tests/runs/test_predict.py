"""Tiled equals whole, plane by plane equals page by page, for every image people open.

The random networks are made so that an error shows: orthogonal weights keep the signal alive down
to the bottom of the U, and what is compared is the logits, in units of their deviation, in
float64. With default weights and probabilities even wrong tiles differ by less than 1e-5.
"""

import threading
import time
from threading import Event

import numpy as np
import pytest
import torch

from napari_unet.arrays.normalize import measure, normalize
from napari_unet.arrays.tiles import Tile
from napari_unet.errors import Cancelled, DeviceError, ImageError, TileSizeError
from napari_unet.files.images import read_image
from napari_unet.models.card import Card
from napari_unet.models.model import Model
from napari_unet.network.unet import UNet
from napari_unet.runs import outputs, overlap_tile
from napari_unet.runs.labelling import find_labels, label_steps
from napari_unet.runs.predict import predict, predict_steps, segment, segment_steps
from napari_unet.runs.progress import Note, TileDone, drive
from napari_unet.runs.tile_choice import default_tile
from napari_unet.settings import Architecture, InstanceSettings, SegmentSettings

SMALL_TILES = SegmentSettings(tile_px=64, device="cpu")

PADDED = Architecture(widths=(4, 6, 8, 10), norm="batch")  # stride 8, halo 48
UNPADDED = Architecture(widths=(4, 6, 8, 10), padded=False)
NEAREST = Architecture(widths=(4, 6, 8), upsampling="nearest", output_kernel=3)
LINEAR = Architecture(widths=(4, 6, 8), upsampling="linear")
VOLUME = Architecture(widths=(3, 4), spatial_dims=3)
UNPADDED_VOLUME = Architecture(widths=(3, 4), spatial_dims=3, padded=False)


class LogitsModel(Model):
    """A model whose answer is the logits."""

    def activate(self, logits):
        return logits


def make_net(architecture, seed=0):
    """Build a network in which errors do not fade on their way to the output."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = UNet(architecture).double().eval()
        for name, weights in net.named_parameters():
            if weights.ndim > 1:
                torch.nn.init.orthogonal_(weights, gain=1.6)
            elif name.endswith("bias"):
                torch.nn.init.normal_(weights, std=0.1)
        for name, buffer in net.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    return net


def make_model(architecture, kind=Model, **card):
    card.setdefault("input_channels", tuple("abcd"[: architecture.in_channels]))
    return kind(make_net(architecture), Card(name="random", architecture=architecture, **card))


def make_image(*shape):
    """Make noise that gets brighter towards one corner, so that no two tiles are alike."""
    noise = np.random.default_rng(0).normal(size=shape)
    return noise + np.linspace(0, 3, shape[-1]) + np.linspace(0, 2, shape[-2])[:, np.newaxis]


def whole(model, image):
    """Run the network once over the whole image, mirrored up to a size it can take."""
    net = model.net
    channels = image[np.newaxis]
    pixels = normalize(channels, measure(channels, model.card.normalization))
    sides = [(0, 0)]
    for size in image.shape:
        least = net.valid_input(size + 2 * net.margin)
        sides.append((net.margin, least - size - net.margin))
    padded = np.pad(pixels, sides, mode="reflect").astype(np.float64)
    with torch.inference_mode():
        logits = net(torch.from_numpy(padded)[None])[0].numpy()
    return logits[(slice(None), *(slice(0, size) for size in image.shape))]


def tiled(model, image, **settings):
    """Run the network tile by tile, as everyone does, but in float64."""
    settings = SegmentSettings(device="cpu", **settings)
    axes = "ZYX"[-image.ndim :]
    out = np.full((model.card.architecture.classes, *image.shape), np.nan)
    return drive(predict_steps(model, image, axes, settings, out))


def worst_difference(model, image, **settings):
    expected = whole(model, image)
    return abs(tiled(model, image, **settings) - expected).max() / expected.std()


# ------------------------------------------------------------------------- tiled equals whole


@pytest.mark.parametrize(
    ("architecture", "shape", "tile_px"),
    [
        pytest.param(PADDED, (203, 150), 112, id="padded, odd size"),
        pytest.param(PADDED, (256, 192), 160, id="padded, on the grid"),
        pytest.param(PADDED, (40, 301), 137, id="padded, one axis short, tile off the grid"),
        pytest.param(PADDED, (150, 131), 128, id="padded, a little larger than the tile"),
        pytest.param(NEAREST, (131, 90), 64, id="padded, nearest upsampling"),
        pytest.param(LINEAR, (131, 90), 64, id="padded, linear upsampling"),
        pytest.param(UNPADDED, (203, 150), 140, id="unpadded, odd size"),
        pytest.param(UNPADDED, (64, 97), 200, id="unpadded, smaller than the tile"),
        pytest.param(VOLUME, (13, 41, 30), 24, id="padded volume"),
        pytest.param(UNPADDED_VOLUME, (13, 22, 17), 30, id="unpadded volume"),
    ],
)
def test_tiles_give_what_the_whole_image_gives(architecture, shape, tile_px):
    model = make_model(architecture, LogitsModel)
    image = make_image(*shape)
    assert worst_difference(model, image, tile_px=tile_px) < 1e-5


@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (2, 3), (7, 9), (63, 65)])
@pytest.mark.parametrize("architecture", [PADDED, UNPADDED], ids=["padded", "unpadded"])
def test_small_images_are_mirrored_to_a_size_the_network_takes(architecture, shape):
    model = make_model(architecture, LogitsModel)
    image = make_image(*shape)
    logits = tiled(model, image)
    assert np.isfinite(logits).all()
    assert logits == pytest.approx(whole(model, image), abs=1e-9)


@pytest.mark.parametrize("architecture", [PADDED, NEAREST, LINEAR, VOLUME])
def test_a_halo_that_is_too_small_shows(architecture):
    model = make_model(architecture, LogitsModel)
    shape = (13, 41, 30) if architecture.spatial_dims == 3 else (203, 150)
    tile_px = 24 if architecture.spatial_dims == 3 else 112
    halo = model.net.halo - model.net.stride
    assert worst_difference(model, make_image(*shape), tile_px=tile_px, halo_px=halo) > 1e-3


def test_tiles_that_start_off_the_grid_show(monkeypatch):
    plan = overlap_tile.plan_tiles

    def plan_off_the_grid(shape, *args):
        return [widened(tile, shape) for tile in plan(shape, *args)]

    def widened(tile, shape, by=4):
        # More halo on both sides: only the grid can be at fault.
        (rows, columns), local = tile.outer, tile.local
        if columns.start == 0 or columns.stop >= shape[1]:
            return tile
        outer = (rows, slice(columns.start - by, columns.stop + by))
        return Tile(outer, tile.core, (local[0], slice(local[1].start + by, local[1].stop + by)))

    model = make_model(PADDED, LogitsModel)
    image = make_image(64, 400)
    assert worst_difference(model, image, tile_px=168) < 1e-5
    monkeypatch.setattr(overlap_tile, "plan_tiles", plan_off_the_grid)
    assert worst_difference(model, image, tile_px=168) > 1e-3


def test_an_unpadded_network_stepped_by_its_whole_output_shows(monkeypatch):
    def plan_without_grid(shape, tile_px, halo, stride, margin, smallest):
        output = tile_px - 2 * margin
        cuts = range(0, shape[0] - output + 1, output)
        return [
            Tile((slice(y, y + tile_px), slice(x, x + tile_px)), (core_y, core_x), (kept, kept))
            for y, core_y in ((y, slice(y, y + output)) for y in cuts)
            for x, core_x in ((x, slice(x, x + output)) for x in cuts)
            for kept in [slice(0, output)]
        ]

    model = make_model(UNPADDED, LogitsModel)
    tile = model.net.valid_input(2 * model.net.margin + 50)
    output = tile - 2 * model.net.margin
    assert output % model.net.stride
    image = make_image(2 * output, 2 * output)
    assert worst_difference(model, image, tile_px=tile) < 1e-5
    monkeypatch.setattr(overlap_tile, "plan_tiles", plan_without_grid)
    assert worst_difference(model, image, tile_px=tile) > 1e-3


def test_in_single_precision_probabilities_agree_too(tiny_unet, blobs):
    model = Model(tiny_unet, Card(name="tiny", architecture=tiny_unet.architecture))
    one_tile = predict(model, blobs.image, settings=SegmentSettings(device="cpu"))
    assert abs(predict(model, blobs.image, settings=SMALL_TILES) - one_tile).max() < 1e-5


def test_the_default_tile_leaves_most_of_the_work_to_the_core():
    for name in ("light-bn", "same-bn", "ronneberger2015"):
        with torch.device("meta"):  # sizes only, no weights
            net = UNet.from_preset(name)
        tile = default_tile(net, (4096, 4096), (net.halo if not net.margin else 0,) * 2)
        core = tile - 2 * max(net.halo if not net.margin else 0, net.margin)
        assert (tile / core) ** 2 < 2.5


# ---------------------------------------------------------------------- any image people open


@pytest.fixture
def tiny(tiny_unet):
    return Model(tiny_unet, Card(name="tiny", architecture=tiny_unet.architecture))


@pytest.mark.parametrize("axes", ["ZYX", "TZYX", "TCYX", "TYXC"])
def test_plane_by_plane_is_each_page_by_itself(tiny, axes):
    length = {"T": 2, "Z": 3, "C": 3, "Y": 70, "X": 50}
    image = make_image(*(length[axis] for axis in axes))
    image *= np.arange(1, image.size // 3500 + 1).repeat(3500).reshape(image.shape)
    lead = "".join(axis for axis in axes if axis in "TZ")
    page_axes = axes[len(lead) :]
    probability = predict(tiny, image, axes, SMALL_TILES)
    labels = segment(tiny, image, axes, SMALL_TILES)

    assert probability.shape == (1, *(length[axis] for axis in lead), 70, 50)
    for index in np.ndindex(*(length[axis] for axis in lead)):
        page = predict(tiny, image[index], page_axes, SMALL_TILES)
        assert (probability[(slice(None), *index)] == page).all()
        assert (labels[index] == segment(tiny, image[index], page_axes, SMALL_TILES)).all()


def test_a_network_for_volumes_sees_volumes():
    model = make_model(Architecture(widths=(3, 4), spatial_dims=3))
    image = make_image(2, 9, 3, 20, 18)
    probability = predict(model, image, "TZCYX", SMALL_TILES)
    one = predict(model, image[1].mean(axis=1), "ZYX", SMALL_TILES)
    assert probability.shape == (1, 2, 9, 20, 18)
    assert probability[:, 1] == pytest.approx(one, abs=1e-6)
    assert predict(model, make_image(3, 20, 18)).shape == (1, 3, 20, 18)


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "uint16", ">u2", "int64", "float16", "float32", "float64"]
)
def test_every_real_dtype_gives_the_same(tiny, dtype):
    values = np.random.default_rng(0).integers(0, 2, (40, 50))
    expected = predict(tiny, values, settings=SMALL_TILES)
    assert predict(tiny, values.astype(dtype), settings=SMALL_TILES) == pytest.approx(expected)


def test_an_offset_makes_no_difference(tiny):
    values = np.random.default_rng(0).integers(0, 3862, (70, 60))
    shifted = (values + 33001).astype(np.uint16)
    expected = predict(tiny, values, settings=SMALL_TILES)
    assert predict(tiny, shifted, settings=SMALL_TILES) == pytest.approx(expected, abs=1e-5)
    assert predict(tiny, values - 9000.5, settings=SMALL_TILES) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("fill", [np.nan, np.inf, 0, -5, 1e30])
def test_constant_and_empty_looking_images_give_probabilities(tiny, fill):
    probability = predict(tiny, np.full((30, 20), fill), settings=SMALL_TILES)
    assert ((probability >= 0) & (probability <= 1)).all()


def test_one_broken_pixel_spoils_nothing_far_away(tiny):
    image = make_image(120, 120)
    broken = image.copy()
    broken[0, 0] = np.nan
    far = (slice(None), slice(60, None), slice(60, None))
    expected = predict(tiny, image, settings=SMALL_TILES)[far]
    assert predict(tiny, broken, settings=SMALL_TILES)[far] == pytest.approx(expected, abs=1e-2)


class OnDisk:
    """An array that is read and written by slices only, and remembers which."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.largest_read, self.times_written = 0, np.zeros(array.shape, int)

    def __getitem__(self, index):
        part = self.array[index].copy()
        self.largest_read = max(self.largest_read, part.size)
        return part

    def __setitem__(self, index, values):
        self.array[index] = values
        self.times_written[index] += 1


def test_one_plane_is_read_at_a_time_and_each_pixel_written_once(tiny):
    image, out = OnDisk(make_image(5, 100, 90)), OnDisk(np.zeros((1, 5, 100, 90), np.float32))
    assert predict(tiny, image, "ZYX", SMALL_TILES, out=out) is out
    assert image.largest_read == 100 * 90
    assert (out.times_written == 1).all()
    assert (out.array == predict(tiny, image.array, "ZYX", SMALL_TILES)).all()


def test_a_large_plane_is_never_read_or_written_as_a_whole(tiny):
    image, labels = OnDisk(make_image(1100, 1000)), OnDisk(np.zeros((1100, 1000), np.int32))
    out = OnDisk(np.zeros((1, 1100, 1000), np.float32))
    settings = SegmentSettings(tile_px=400, device="cpu")
    predict(tiny, image, "YX", settings, out=out)
    np.testing.assert_array_equal(out.array, predict(tiny, image.array, "YX", settings))
    drive(label_steps(tiny.card, out, "YX", settings.instances, labels))
    np.testing.assert_array_equal(labels.array, segment(tiny, image.array, "YX", settings))
    assert max(image.largest_read, out.largest_read, labels.largest_read) < 1100 * 1000


def test_probabilities_that_are_too_many_for_memory_are_on_disk(tiny, monkeypatch):
    image = make_image(2, 150, 140)
    expected = segment(tiny, image, "ZYX", SMALL_TILES)
    used, scratch = [], outputs.ScratchArray
    monkeypatch.setattr(outputs, "IN_MEMORY_BYTES", 100)
    monkeypatch.setattr(outputs, "ScratchArray", lambda *args: used.append(args) or scratch(*args))
    np.testing.assert_array_equal(segment(tiny, image, "ZYX", SMALL_TILES), expected)
    assert used == [((1, 150, 140), np.float32)]  # for one plane at a time


def test_a_region_of_a_plane_is_labelled_alone(tiny, blobs):
    probability = predict(tiny, blobs.image, settings=SMALL_TILES)
    window = (slice(None), slice(10, 60), slice(20, 90))
    part = find_labels(tiny.card, probability[window], InstanceSettings(threshold=0.45))
    assert part.shape == (50, 70)
    assert part.max() > 0


def test_dask_zarr_and_memory_maps_give_what_numpy_gives(tiny, tmp_path):
    dask = pytest.importorskip("dask.array")
    zarr = pytest.importorskip("zarr")
    image = (make_image(3, 60, 70) * 100).astype(np.int16)
    np.save(tmp_path / "image.npy", image)
    chunks = (1, 32, 32)
    stored = zarr.create_array(
        tmp_path / "image.zarr", shape=image.shape, chunks=chunks, dtype="i2"
    )
    stored[:] = image
    kinds = [np.load(tmp_path / "image.npy", mmap_mode="r"), stored, dask.from_array(image, chunks)]
    expected = segment(tiny, image, "ZYX", SMALL_TILES)
    for kind in kinds:
        assert (segment(tiny, kind, "ZYX", SMALL_TILES) == expected).all()

    out = zarr.create_array(tmp_path / "out.zarr", shape=image.shape, chunks=chunks, dtype="i4")
    segment(tiny, stored, "ZYX", SMALL_TILES, out=out)
    assert (out[:] == expected).all()


def test_channels_are_chosen_repeated_and_inverted():
    model = make_model(Architecture(widths=(4, 6), in_channels=2))
    image = make_image(3, 40, 30)
    chosen = predict(model, image, "CYX", SMALL_TILES.replace(channels=(2, 0)))
    assert (chosen == predict(model, image[[2, 0]], "CYX", SMALL_TILES)).all()
    inverted = predict(model, -image, "CYX", SMALL_TILES.replace(channels=(2, 0), invert=True))
    assert np.corrcoef(inverted.ravel(), chosen.ravel())[0, 1] > 0.9


@pytest.mark.parametrize(
    ("image", "axes", "sentence"),
    [
        pytest.param(np.zeros((9, 9), complex), None, r"complex.*np\.abs", id="complex"),
        pytest.param([["a", "b"]], None, "type <U1", id="text"),
        pytest.param([[1, 2], [3]], None, "cannot be read as an array", id="ragged"),
        pytest.param(np.zeros(9), None, "cannot be guessed", id="one axis"),
        pytest.param(np.zeros((0, 9)), "YX", "empty", id="no pixels"),
        pytest.param(np.zeros((9, 9)), "ZYX", "name 3 axes", id="axes"),
    ],
)
def test_what_is_no_image_is_told_in_a_sentence(tiny, image, axes, sentence):
    with pytest.raises(ImageError, match=sentence):
        predict(tiny, image, axes)


def test_a_network_that_does_not_fit_the_image_is_told_in_a_sentence(tiny):
    with pytest.raises(ImageError, match="1 channel, the network 3 inputs"):
        predict(make_model(Architecture(widths=(4, 6), in_channels=3)), np.zeros((9, 9)))
    with pytest.raises(ImageError, match="looks at volumes"):
        predict(make_model(VOLUME), np.zeros((9, 9)))
    with pytest.raises(ImageError, match="given as out has shape"):
        predict(tiny, np.zeros((9, 9)), out=np.zeros((9, 9)))
    with pytest.raises(TileSizeError, match="Choose at least 208 px"):
        predict(
            make_model(Architecture(widths=(2,) * 5)),
            np.zeros((300, 300)),
            settings=SegmentSettings(tile_px=128),
        )


# ------------------------------------------------------------------------------ labels, progress


def test_labels_found_anew_are_those_of_the_run(tiny, blobs, run_to_end):
    stack = np.stack([blobs.image, blobs.image[::-1]])
    instances = InstanceSettings(threshold=0.45, min_size=5)
    settings = SMALL_TILES.replace(instances=instances)
    _, run = run_to_end(segment_steps(tiny, stack, "ZYX", settings))
    progress, labels = run_to_end(label_steps(tiny.card, run.probability, "ZYX", instances))

    assert run.axes == "ZYX"
    assert run.labels.dtype == np.int32
    assert run.labels.max() > 0
    assert (labels == run.labels).all()
    assert progress[-1] == TileDone(2, 2)
    assert (run.probability == predict(tiny, stack, "ZYX", settings)).all()


def test_classes_are_the_most_probable_of_a_softmax():
    model = make_model(
        Architecture(widths=(4, 6), classes=3),
        outputs=("background", "membrane", "glia"),
        activation="softmax",
        labels="semantic",
    )
    image = make_image(50, 40)
    probability = predict(model, image, settings=SMALL_TILES)
    assert probability.sum(axis=0) == pytest.approx(np.ones((50, 40)), abs=1e-5)
    assert (segment(model, image, settings=SMALL_TILES) == probability.argmax(axis=0)).all()


def test_without_settings_objects_are_found_as_the_card_says(tiny_unet, blobs):
    found = {}
    for threshold in (0.05, 0.95):
        instances = InstanceSettings(threshold=threshold, min_size=0, split=False)
        card = Card(name="tiny", architecture=tiny_unet.architecture, instances=instances)
        found[threshold] = (segment(Model(tiny_unet, card), blobs.image) > 0).sum()
    assert found[0.05] > found[0.95]


def test_progress_counts_tiles_over_all_planes(tiny, run_to_end):
    image = make_image(3, 100, 64)
    progress, _ = run_to_end(predict_steps(tiny, image, "ZYX", SMALL_TILES))
    done = [event.done for event in progress if isinstance(event, TileDone)]
    (total,) = {event.total for event in progress if isinstance(event, TileDone)}
    assert done == list(range(1, total + 1))
    assert total % 3 == 0
    progress, _ = run_to_end(segment_steps(tiny, image, "ZYX", SMALL_TILES))
    assert progress[-1] == TileDone(total + 3, total + 3)


def test_a_run_is_cancelled_within_a_second_even_inside_a_tile(tiny):
    release, image = Event(), make_image(40, 40)
    tiny.net.down[0].register_forward_hook(lambda *_: release.wait(20) and None)
    started = time.monotonic()
    with pytest.raises(Cancelled):
        segment(tiny, image, settings=SMALL_TILES, cancel=lambda: True)
    assert time.monotonic() - started < 1
    release.set()


def test_after_a_cancel_no_further_tile_is_computed(tiny):
    seen = []
    tiny.net.down[0].register_forward_hook(lambda *_: seen.append(1))
    job = predict_steps(tiny, make_image(300, 300), "YX", SMALL_TILES)
    while not isinstance(next(job), TileDone):
        pass
    job.close()
    assert len(seen) == 1


def test_after_a_cancel_a_tile_ends_before_its_next_layer(tiny):
    begun, release, seen = Event(), Event(), []

    def wait_for_the_cancel(*_):
        begun.set()
        release.wait(20)

    tiny.net.output.register_forward_pre_hook(lambda *_: seen.append(1))
    predict(tiny, make_image(60, 60))
    tiny.net.down[0].register_forward_pre_hook(wait_for_the_cancel)
    job = predict_steps(tiny, make_image(60, 60), "YX", SegmentSettings(device="cpu"))
    while not begun.is_set():
        next(job)
    job.close()
    release.set()
    for thread in threading.enumerate():
        if thread.name.startswith("napari-unet"):
            thread.join(20)
    assert len(seen) == 1


def test_a_run_ends_at_once_when_a_function_that_was_given_fails(tiny):
    failure, computed = ZeroDivisionError(), []
    tiny.net.down[0].register_forward_hook(lambda *_: computed.append(1))

    def fail(event):
        if isinstance(event, TileDone):
            raise failure

    with pytest.raises(ZeroDivisionError):
        predict(tiny, make_image(300, 300), settings=SMALL_TILES, progress=fail)
    names = {thread.name for thread in threading.enumerate() if thread.is_alive()}
    deadline = time.monotonic() + 10
    while any(name.startswith("napari-unet") for name in names) and time.monotonic() < deadline:
        time.sleep(0.01)
        names = {thread.name for thread in threading.enumerate()}
    assert not any(name.startswith("napari-unet") for name in names), "the failure holds the job"
    assert len(computed) == 1


@pytest.mark.parametrize("times", [1, 2])
def test_memory_that_runs_out_while_an_image_is_measured_is_told(tiny, times):
    class Tight:
        """An array that cannot be read so many times."""

        def __init__(self, array):
            self.array, self.shape, self.dtype, self.left = array, array.shape, array.dtype, times

        def __getitem__(self, index):
            self.left -= 1
            if self.left >= 0:
                raise MemoryError
            return self.array[index]

    image, said = make_image(60, 60), []
    if times == 2:
        with pytest.raises(DeviceError, match=r"ran out while the image was being measured"):
            predict(tiny, Tight(image))
        return
    probability = predict(tiny, Tight(image), progress=said.append)
    assert (probability == predict(tiny, image)).all()
    assert [event.text for event in said if isinstance(event, Note)] == [
        "Memory ran out while the image was being measured; once more."
    ]


def test_memory_that_runs_out_once_while_a_tile_is_written_costs_nothing(tiny):
    class Tight:
        """An array that cannot be written to the second time."""

        def __init__(self, shape):
            self.array, self.shape, self.writes = np.zeros(shape), shape, 0
            self.dtype = self.array.dtype

        def __setitem__(self, index, values):
            self.writes += 1
            if self.writes == 2:
                raise MemoryError
            self.array[index] = values

    image = make_image(100, 100)
    out = Tight((1, 100, 100))
    predict(tiny, image, settings=SMALL_TILES, out=out)
    assert out.array == pytest.approx(predict(tiny, image), abs=1e-5)


def test_the_model_is_left_as_it_was(tiny):
    image = make_image(40, 40)
    expected = predict(tiny, image)
    tiny.net.train()
    assert (predict(tiny, image) == expected).all()
    assert tiny.net.training


def notes(model, image, settings):
    said = []
    predict(model, image, settings=settings, progress=said.append)
    return [event.text for event in said if isinstance(event, Note)]


def test_what_is_only_approximate_is_said_once(tiny):
    image = make_image(150, 150)
    whole_tile = make_model(Architecture(widths=(4, 6, 8), norm="instance"))
    assert notes(tiny, image, SMALL_TILES) == []
    for model, settings in ((tiny, SMALL_TILES.replace(halo_px=8)), (whole_tile, SMALL_TILES)):
        note, measured = notes(model, image, settings)
        assert "approximate" in note
        assert "differ by at least 0." in measured
    assert notes(whole_tile, image, SegmentSettings(device="cpu")) == []
    assert predict(whole_tile, np.zeros((1, 1))).shape == (1, 1, 1)


# ---------------------------------------------------------------------------------- real images


@pytest.mark.slow
def test_every_real_image_is_segmented(tiny, data_dir):
    images = [
        path
        for path in sorted(data_dir.glob("images/*/*.*"))
        if path.suffix in {".tif", ".jpg"} and "labels" not in path.name
    ]
    assert len({path.parent for path in images}) == 10
    for path in images:
        image = read_image(path)
        few = tuple(slice(0, 3 if axis in "TZ" else 700) for axis in image.axes)
        array = image.array[few]
        labels = segment(tiny, array, image.axes)
        lengths = zip(array.shape, image.axes, strict=True)
        assert labels.shape == tuple(length for length, axis in lengths if axis != "C"), path
        assert labels.dtype == np.int32


@pytest.mark.parametrize("upsampling", ["nearest", "linear"])
def test_an_unpadded_network_that_resizes_on_the_way_up_is_tiled_exactly(upsampling):
    """Resizing does not know what lies beyond a tile's edge, so margin alone is not enough."""
    torch.manual_seed(0)
    net = UNet.from_preset("ronneberger2015", widths=(2, 3, 4, 4, 4), upsampling=upsampling)
    for parameter in net.parameters():
        if parameter.ndim > 1:
            torch.nn.init.orthogonal_(parameter, 1.6)
    net = net.double().eval()
    names = tuple(f"class {i}" for i in range(net.architecture.classes))
    model = Model(net, Card(name="t", architecture=net.architecture, outputs=names))
    image = np.random.default_rng(0).normal(size=(301, 417))
    whole = predict(model, image, "YX", SegmentSettings(tile_px=1024))
    tiled = predict(model, image, "YX", SegmentSettings(tile_px=400))
    assert np.abs(whole - whole.mean()).max() > 0.1
    np.testing.assert_allclose(tiled, whole, atol=1e-5)


@pytest.mark.parametrize(
    "out",
    [np.zeros((40, 50), np.uint8), np.zeros((40, 50), np.float32), [1]],
    ids=["too narrow", "floats", "a list"],
)
def test_what_cannot_hold_the_labels_is_refused_before_computing(tiny_unet, out):
    model = Model(tiny_unet, Card(name="t", architecture=tiny_unet.architecture))
    with pytest.raises(ImageError, match=r"out|written"):
        segment(model, np.zeros((40, 50)), "YX", out=out)


def test_a_read_only_result_is_refused_before_anything_is_computed(tiny_unet, tmp_path):
    zarr = pytest.importorskip("zarr")
    zarr.create_array(str(tmp_path / "labels.zarr"), shape=(64, 64), dtype="int32", chunks=(32, 32))
    closed = zarr.open_array(str(tmp_path / "labels.zarr"), mode="r")
    model = Model(tiny_unet, Card(name="tiny", architecture=tiny_unet.architecture))
    done = []
    with pytest.raises(ImageError, match="read-only"):
        segment(model, np.zeros((64, 64), np.uint8), out=closed, progress=done.append)
    assert not done
