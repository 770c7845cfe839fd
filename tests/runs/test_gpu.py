"""The real thing: on a GPU the result is that of the CPU, whatever is done on the way.

Run by ``pytest -m gpu`` where there is an NVIDIA or Apple GPU.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_unet.models.card import Card
from napari_unet.models.model import Model
from napari_unet.network.devices import choose_device, device_name, free_bytes
from napari_unet.network.grey_values import SCALED_THERE
from napari_unet.network.inference import InferenceNet
from napari_unet.network.policy import choose_policy
from napari_unet.network.recording import record_cuda_graph
from napari_unet.network.transfers import Assembly, Transfers
from napari_unet.network.unet import UNet
from napari_unet.runs import overlap_tile
from napari_unet.runs.predict import predict, segment
from napari_unet.runs.progress import Note
from napari_unet.settings import Architecture, SegmentSettings

pytestmark = pytest.mark.gpu

HALF, SINGLE = 5e-3, 2e-3  # a GPU may compute float32 with fewer digits (TF32)
NETS = {
    "padded": ({"norm": "batch"}, (700, 613), 128),
    "unpadded": ({"padded": False}, (397, 361), 150),
    "volume": ({"widths": (4, 6), "spatial_dims": 3}, (19, 101, 90), 40),
}


@pytest.fixture
def gpu():
    """Return the GPU of this computer."""
    device = choose_device("auto")
    if device.type == "cpu":
        pytest.skip("no GPU in this computer")
    return device


@pytest.fixture
def all_digits(monkeypatch):
    """Let the GPU compute float32 with all its digits."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def make_model(**options):
    torch.manual_seed(0)
    net = UNet(Architecture(**{"widths": (4, 6, 8), **options})).eval()
    for parameter in net.parameters():
        if parameter.ndim > 1:
            torch.nn.init.orthogonal_(parameter, 1.6)
    return Model(net, Card(name="t", architecture=net.architecture))


def make_image(*shape, dtype="uint16"):
    bright = np.random.default_rng(0).normal(size=shape) + np.linspace(0, 3, shape[-1])
    return (20 * (bright + 5)).clip(0, 250).astype(dtype)


@pytest.mark.parametrize("augment", [False, True], ids=["upright", "turned"])
@pytest.mark.parametrize("kind", NETS)
def test_tiles_on_a_gpu_give_what_the_whole_gives_on_the_cpu(kind, augment, gpu, all_digits):
    options, shape, tile_px = NETS[kind]
    model, image = make_model(**options), make_image(*shape)
    axes = "ZYX"[-len(shape) :]
    settings = SegmentSettings(device="cpu", augment=augment)
    whole = predict(model, image, axes, settings)
    assert whole.std() > 0.01
    settings = settings.replace(device=gpu.type, tile_px=tile_px)
    said = []
    for precision, worst in (("float32", 1e-5), ("half", HALF)):
        tiled = predict(
            model, image, axes, settings.replace(precision=precision), progress=said.append
        )
        assert abs(tiled - whole).max() < worst
    assert [event.text for event in said if isinstance(event, Note)] == []


def test_many_small_planes_give_the_same_labels_as_one_by_one(gpu):
    model, stack = make_model(), make_image(60, 96, 80)
    settings = SegmentSettings(device=gpu.type, precision="float32")
    together = segment(model, stack, "ZYX", settings)
    alone = [segment(model, plane, "YX", settings) for plane in stack]
    assert np.mean(together == np.stack(alone)) > 0.999


@pytest.mark.parametrize("dtype", [*SCALED_THERE, "int32", "float64"])
def test_every_kind_of_grey_values_is_scaled_as_on_the_cpu(dtype, gpu):
    model, image = make_model(), make_image(200, 190, dtype=dtype)
    settings = SegmentSettings(device="cpu", precision="float32")
    on_cpu = predict(model, image, "YX", settings)
    on_gpu = predict(model, image, "YX", settings.replace(device=gpu.type))
    assert abs(on_gpu - on_cpu).max() < SINGLE


def test_a_recording_gives_what_was_recorded_for_other_tiles(gpu):
    if gpu.type != "cuda":
        pytest.skip("only CUDA records")
    net = InferenceNet(make_model(norm="batch").net, gpu, torch.float16)
    kept = (slice(8, 120), slice(8, 120))
    tiles = [torch.randn(2, 1, 128, 128, device=gpu) for _ in range(3)]
    expected = [net(tile, kept) for tile in tiles]
    replay = record_cuda_graph(lambda tile: net(tile, kept), tiles[0])
    answers = [replay(tile) for tile in tiles]  # each in memory of its own
    for answer, right in zip(answers, expected, strict=True):
        torch.testing.assert_close(answer, right, atol=1e-2, rtol=1e-2)


def test_what_is_copied_beside_the_computing_arrives_whole(gpu):
    transfers = Transfers(gpu)
    tiles = [np.random.default_rng(n).random((1, 512, 512), np.float32) for n in range(24)]
    arriving = []
    result = Assembly(1, (512, 24 * 512), gpu)
    for number, tile in enumerate(tiles):
        there = transfers.upload([tile])
        for _ in range(20):
            there = there * 1.0 + 0.0
        arriving.append(transfers.download(there[0]))
        core = (slice(0, 512), slice(512 * number, 512 * (number + 1)))
        result.put(core, there[0])
        result.add(core)
    for tile, values in zip(tiles, arriving, strict=True):
        np.testing.assert_array_equal(values.wait(), tile)
    whole = np.concatenate([values for _, values in result.take(transfers)], axis=1)
    np.testing.assert_array_equal(whole, np.concatenate(tiles, axis=2))


def test_the_memory_of_the_gpu_is_known(gpu):
    assert free_bytes(gpu) > 0
    assert device_name(gpu)
    assert choose_policy(gpu).together_bytes > 0


def test_memory_that_really_runs_out_is_told_in_a_line_and_the_result_is_whole(gpu, monkeypatch):
    if gpu.type != "cuda":
        pytest.skip("only CUDA lets its memory be limited")
    model, image = make_model(widths=(16, 32, 64)), make_image(1500, 1400)
    expected = predict(model, image, "YX", SegmentSettings(device="cpu"))
    huge = choose_policy(gpu)
    monkeypatch.setattr(overlap_tile, "choose_policy", lambda *_, **__: huge)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(gpu).total_memory
    torch.cuda.set_per_process_memory_fraction(250 * 2**20 / total)
    said = []
    try:
        settings = SegmentSettings(device="cuda")
        probability = predict(model, image, "YX", settings, progress=said.append)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    (note,) = (event.text for event in said if isinstance(event, Note))
    assert note.startswith("Memory of the GPU ran out with")
    assert abs(probability - expected).max() < HALF
