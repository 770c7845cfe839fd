"""Networks that are lists of layers, in every run that a U-Net of ours goes through."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_unet.errors import ModelError, SettingError
from napari_unet.models.card import Card
from napari_unet.models.model import Model, assemble, load_model, save_model
from napari_unet.network import graph as g
from napari_unet.network.graph_field import at_image_size
from napari_unet.network.graph_net import GraphNet
from napari_unet.runs import rounds
from napari_unet.runs.finetune import finetune
from napari_unet.runs.predict import predict, segment
from napari_unet.runs.progress import Note
from napari_unet.runs.samples import Sample
from napari_unet.runs.tile_choice import choose_halo, default_tile
from napari_unet.settings import FinetuneSettings, Normalization, SegmentSettings
from tests.graphs import Sketch, draw_graph, shaken_net, small_graph

WHOLE = SegmentSettings(tile_px=4096, device="cpu")


def make_model(graph, seed=0, **options):
    """Make a model whose probabilities are far from 0 and 1, so that differences show."""
    net = shaken_net(graph, seed)
    card = Card(
        name="stranger",
        architecture=graph,
        outputs=tuple(f"output {number}" for number in range(graph.classes)),
        **options,
    )
    return Model(net, card)


def make_image(*shape):
    """Make noise that gets brighter towards one corner, so that no two tiles are alike."""
    noise = np.random.default_rng(0).normal(size=shape)
    return noise + np.linspace(0, 3, shape[-1]) + np.linspace(0, 2, shape[-2])[:, np.newaxis]


def tiled_and_whole(model, image, axes, tile_px, **options):
    """Run with tiles and without, and tell what was said."""
    said = []
    settings = SegmentSettings(tile_px=tile_px, device="cpu", **options)
    tiled = predict(model, image, axes, settings, progress=said.append)
    whole = predict(model, image, axes, WHOLE)
    notes = [event.text for event in said if isinstance(event, Note)]
    return np.abs(tiled - whole).max(), whole.std(), notes


def resized_odd():
    """Return a network that ends at half the size and pads unevenly."""
    sketch = Sketch(channels=1)
    x = sketch.activation(sketch.convolution(g.IMAGE, 4, 4))
    x = sketch.add(g.Pooling, x, kind="max", kernel=(2, 2), stride=(2, 2))
    return at_image_size(sketch.graph(sketch.convolution(sketch.activation(x), 1)))


CASES = {
    "padded": (small_graph(), (131, 90), "YX", 72),
    "unpadded": (small_graph(padded=False), (97, 61), "YX", 72),
    "volume": (small_graph(dims=3), (9, 61, 58), "ZYX", 56),
    "anisotropic volume": (
        small_graph(dims=3, steps=((1, 2, 2), (1, 2, 2))),
        (11, 61, 70),
        "ZYX",
        56,
    ),
    "unpadded volume": (small_graph(dims=3, padded=False), (7, 30, 33), "ZYX", 52),
    "half the size": (resized_odd(), (45, 70), "YX", 24),
    **{
        f"random {seed}": (at_image_size(draw_graph(seed)), (173, 70), "YX", None)
        for seed in (0, 4, 6, 9, 11, 20)
    },
}


@pytest.mark.parametrize(("graph", "shape", "axes", "tile_px"), CASES.values(), ids=CASES)
def test_tiles_give_what_the_whole_gives(graph, shape, axes, tile_px):
    model = make_model(graph)
    net = model.net
    tile_px = tile_px or net.valid_input(2 * (net.halo + net.margin) + 4 * net.stride)
    difference, spread, notes = tiled_and_whole(model, make_image(*shape), axes, tile_px)
    assert spread > 1e-3
    assert difference < 1e-5
    assert notes == []


def test_a_volume_is_not_padded_along_an_axis_that_is_not_pooled():
    graph = small_graph(dims=3, steps=((1, 2, 2), (1, 2, 2)))
    model = make_model(graph, normalization=Normalization(kind="none"))
    image = make_image(5, 24, 32)
    with torch.inference_mode():
        expected = model.activate(model.net(torch.from_numpy(image)[None, None]))[0].numpy()
    assert np.abs(predict(model, image, "ZYX", WHOLE) - expected).max() < 1e-5


def test_a_halo_one_step_too_small_shows_and_is_told():
    model = make_model(small_graph())
    halo = model.net.halo
    image = make_image(131, 90)
    difference, spread, notes = tiled_and_whole(model, image, "YX", 72, halo_px=halo - 4)
    assert difference > 1e-3 * spread
    assert "less than the 24 px this network looks around it" in notes[0]
    enough, _, notes = tiled_and_whole(model, image, "YX", 72, halo_px=halo)
    assert enough < 1e-5
    assert notes == []


def test_with_a_norm_over_the_tile_the_result_is_said_to_be_approximate():
    model = make_model(small_graph(norm="instance"))
    difference, _, notes = tiled_and_whole(model, make_image(131, 90), "YX", 72)
    assert difference > 1e-5
    assert "depends on all it sees at once (instance or group norm)" in notes[0]
    assert "probabilities differ by at least" in notes[1]


def test_the_eight_turns_are_exact_too():
    model = make_model(small_graph())
    image = make_image(131, 90)
    settings = SegmentSettings(tile_px=72, device="cpu", augment=True)
    tiled = predict(model, image, "YX", settings)
    whole = predict(model, image, "YX", settings.replace(tile_px=4096))
    assert np.abs(tiled - whole).max() < 1e-5
    assert np.abs(tiled - predict(model, image, "YX", WHOLE)).max() > 1e-3


def test_an_unpadded_network_that_pads_somewhere_needs_a_halo():
    sketch = Sketch()
    sketch.convolution(sketch.convolution(g.IMAGE, 2, 5), 1, 5, padding=None)
    net = GraphNet(sketch.graph())
    assert (net.margin, net.halo, net.invents_edges) == (2, 4, True)
    assert choose_halo(net, SegmentSettings()) == (2, 2)
    assert choose_halo(GraphNet(small_graph(padded=False)), SegmentSettings()) == (0, 0)


def test_a_network_of_more_features_gets_smaller_tiles():
    tiles = []
    for width in (64, 512):
        sketch = Sketch()
        sketch.convolution(sketch.convolution(g.IMAGE, width, 5), 1)
        tiles.append(default_tile(GraphNet(sketch.graph()), (4096, 4096), (4, 4)))
    assert tiles[1] < tiles[0]


def test_a_network_that_gives_probabilities_is_cut_off_at_0_and_1():
    sketch = Sketch()
    sketch.add(g.Linear, g.IMAGE, factor=3.0, offset=-1.0)
    sketch.convolution("n1", 1, 1)
    net = GraphNet(sketch.graph())
    net.load_state_dict({"n2.weight": torch.ones(1, 1, 1, 1), "n2.bias": torch.zeros(1)})
    card = Card(
        name="values",
        architecture=net.architecture,
        activation="none",
        normalization={"kind": "none"},
    )
    image = np.array([[0.0, 0.4], [0.5, 1.0]], np.float32)
    answer = predict(Model(net, card), image, "YX", WHOLE)
    assert answer[0] == pytest.approx(np.array([[0, 0.2], [0.5, 1]]), abs=1e-6)
    assert segment(Model(net, card), image, "YX").shape == (2, 2)


# ------------------------------------------------------------------------------- saved and loaded


@pytest.mark.parametrize("padded", [True, False])
def test_what_is_saved_comes_back(tmp_path, padded):
    model = make_model(small_graph(padded=padded, classes=2), activation="softmax")
    model.net.float()
    path = save_model(model, tmp_path / "stranger.safetensors")
    loaded = load_model(path)
    assert loaded.card == model.card
    assert isinstance(loaded.net, GraphNet)
    image = make_image(50, 60)
    assert (predict(loaded, image, "YX", WHOLE) == predict(model, image, "YX", WHOLE)).all()


def test_a_network_whose_output_is_of_another_size_is_refused(tmp_path):
    sketch = Sketch()
    sketch.add(g.Pooling, sketch.convolution(g.IMAGE, 1), kind="max", kernel=(2, 2), stride=(2, 2))
    path = save_model(make_model(sketch.graph()), tmp_path / "half.safetensors")
    with pytest.raises(ModelError, match="output of another size than the image"):
        load_model(path)


def test_weights_of_another_network_are_refused(tmp_path):
    model = make_model(small_graph())
    wider = make_model(small_graph(channels=2), input_channels=("a", "b"))
    path = save_model(model, tmp_path / "a.safetensors")
    other = load_model(save_model(wider, tmp_path / "b.safetensors"))
    with pytest.raises(ModelError, match="another architecture"):
        Model(other.net, model.card)
    weights = load_model(path).net.state_dict()
    with pytest.raises(ModelError, match="has the shape"):
        assemble("b", wider.card, weights)
    weights["n1.weight"][0] = torch.nan
    with pytest.raises(ModelError, match="not finite"):
        assemble("a", model.card, weights)
    weights.pop("n1.weight")
    with pytest.raises(ModelError, match="1 missing"):
        assemble("a", model.card, weights)


# ------------------------------------------------------------------------------------ fine-tuning


FEW = FinetuneSettings(steps=25, crop_px=64, batch=2, device="cpu", learning_rate=3e-3)


def fresh(graph, **options):
    """Make a model with the weights that training starts from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = GraphNet(graph).eval()
    return Model(net, Card(name="stranger", architecture=graph, **options))


def cross_entropy(model, blobs):
    """How far the probabilities are from the labels of the blobs."""
    foreground = np.clip(predict(model, blobs.image, "YX", WHOLE)[0], 1e-6, 1 - 1e-6)
    truth = blobs.labels > 0
    return -np.log(np.where(truth, foreground, 1 - foreground)).mean()


def gives_probabilities():
    """Return a network with a sigmoid of its own at the end."""
    sketch = Sketch()
    x = sketch.activation(sketch.norm(sketch.convolution(g.IMAGE, 4)))
    return sketch.graph(sketch.activation(sketch.convolution(x, 1), "sigmoid"))


@pytest.mark.parametrize(
    ("graph", "options"),
    [
        (small_graph(), {}),
        (small_graph(padded=False), {}),
        (small_graph(norm="instance"), {}),
        (gives_probabilities(), {"activation": "none"}),
    ],
    ids=["padded", "unpadded", "instance norm", "probabilities"],
)
def test_a_few_steps_lower_the_loss(graph, options, blobs, monkeypatch):
    monkeypatch.setattr(rounds, "cautious_share", lambda _: 1.0)  # a few objects count in full
    model = fresh(graph, **options)
    before, weights = cross_entropy(model, blobs), model.net.state_dict()
    kept = {key: value.clone() for key, value in weights.items()}
    result = finetune(model, [Sample(blobs.image[np.newaxis], blobs.labels)], FEW)
    assert cross_entropy(result.model, blobs) < before - 0.02
    assert all((value == kept[key]).all() for key, value in weights.items())
    assert result.model.card.parent == "stranger"


def test_frozen_levels_stay_while_the_rest_learns(blobs):
    model = fresh(small_graph())
    sample = Sample(blobs.image[np.newaxis], blobs.labels)
    result = finetune(model, [sample], FEW.replace(steps=3, frozen_levels=1))
    old, new = model.net.state_dict(), result.model.net.state_dict()
    changed = {key.split(".")[0] for key in old if (old[key] != new[key]).any()}
    frozen = [name for name, level in model.net._down.items() if level == 0]
    assert changed
    assert not changed & set(frozen)
    with pytest.raises(SettingError, match="the network has 3"):
        finetune(model, [sample], FEW.replace(frozen_levels=4))


@pytest.mark.parametrize("batch_norm", ["adapt", "keep"])
def test_batch_norm_follows_the_new_images_if_wanted(batch_norm, blobs):
    model = fresh(small_graph())
    settings = FEW.replace(steps=2, batch_norm=batch_norm)
    result = finetune(model, [Sample(blobs.image[np.newaxis], blobs.labels)], settings)
    old, new = model.net.state_dict(), result.model.net.state_dict()
    means = [key for key in old if key.endswith("running_mean")]
    assert means
    follows = [bool((old[key] != new[key]).any()) for key in means]
    assert follows == [batch_norm == "adapt"] * len(means)
