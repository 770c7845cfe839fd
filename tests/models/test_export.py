"""What is written for other programs gives what the model gives, there and here again."""

from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_unet.errors import FileError, ModelError
from napari_unet.models.card import Card
from napari_unet.models.export import CARD_FILE, export_model
from napari_unet.models.formats import CARD_KEY
from napari_unet.models.model import Model
from napari_unet.models.opening import load_model, open_weights
from napari_unet.network.build import build_network
from napari_unet.network.graph import (
    Activation,
    Convolution,
    Dropout,
    GlobalAverage,
    Graph,
    Join,
    Linear,
    Norm,
    Pooling,
    Resize,
    TransposedConvolution,
)
from napari_unet.network.presets import PRESETS
from napari_unet.network.unet import UNet
from napari_unet.network.unet_graph import as_graph
from napari_unet.settings import Architecture, InstanceSettings, Normalization
from tests.graphs import small_graph

OTHER_GRAPH = Graph(
    family="test",
    in_channels=2,
    classes=2,
    nodes=(
        Convolution(
            name="first",
            inputs=("image",),
            in_channels=2,
            out_channels=4,
            kernel=(3, 3),
            padding=((1, 1), (1, 1)),
            padding_mode="reflect",
        ),
        Norm(name="norm", inputs=("first",), kind="group", channels=4, groups=2),
        Activation(name="act", inputs=("norm",), kind="leaky_relu", slope=0.2),
        Pooling(name="down", inputs=("act",), kind="average", kernel=(2, 2), stride=(2, 2)),
        Convolution(
            name="deep", inputs=("down",), in_channels=4, out_channels=4, kernel=(1, 1), groups=2
        ),
        Activation(name="deep_act", inputs=("deep",), kind="silu"),
        GlobalAverage(name="mean", inputs=("deep_act",)),
        Activation(name="gate", inputs=("mean",), kind="sigmoid"),
        Join(name="gated", inputs=("deep_act", "gate"), how="multiply"),
        Dropout(name="drop", inputs=("gated",)),
        TransposedConvolution(
            name="up",
            inputs=("drop",),
            in_channels=4,
            out_channels=3,
            kernel=(3, 3),
            stride=(2, 2),
            crop=((1, 0), (1, 0)),
        ),
        Resize(name="up_too", inputs=("drop", "act"), mode="linear"),
        Join(name="joined", inputs=("up", "up_too", "act"), how="concatenate"),
        Convolution(name="last", inputs=("joined",), in_channels=11, out_channels=2, kernel=(1, 1)),
        Linear(name="scaled", inputs=("last",), factor=2.0, offset=-0.5),
    ),
)
NETWORKS = {
    **{
        name: PRESETS[name].replace(widths=(4,) * len(PRESETS[name].widths), decoder_widths=None)
        for name in PRESETS
    },
    "gates": Architecture(widths=(4, 8, 8), attention=True, residual=True, norm="group"),
    "unpadded": Architecture(
        widths=(4, 6, 8),
        padded=False,
        separable=True,
        residual=True,
        norm="instance",
        upsampling="linear",
        classes=3,
    ),
    "volume": Architecture(widths=(3, 4), spatial_dims=3, norm="batch", upsampling="linear"),
    "thin volume": small_graph(dims=3, steps=((1, 2, 2), (2, 2, 2)), classes=2),
    "graph": OTHER_GRAPH,
}


def make_model(shape, **card) -> Model:
    """Return a network with weights and statistics that no fresh one has."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = build_network(shape)
        with torch.no_grad():
            for key, tensor in net.state_dict().items():
                if tensor.is_floating_point():
                    positive = "var" in key or tensor.ndim == 1
                    tensor.uniform_(0.1, 0.4) if positive else tensor.normal_(0, 0.2)
    outputs = ("foreground", "boundary", "distance")[: shape.classes]
    values = {
        "name": "round things",
        "segments": "Round things",
        "outputs": outputs,
        "input_channels": tuple(f"stain {n}" for n in range(shape.in_channels)),
        "instances": InstanceSettings(threshold=0.4),
        "object_size_px": 12.0,
        "authors": ("Ada Lovelace",),
        "licence": "CC-BY-4.0",
        **card,
    }
    return Model(net.eval(), Card(architecture=shape, **values))


def answers(model: Model, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return images of two sizes and batches, and what the model says of them."""
    net, shape, pairs = model.net, model.card.architecture, []
    for batch, more in ((1, 0), (2, net.stride)):
        wanted = [5, 20, 20 + more] if shape.spatial_dims == 3 else [20, 20 + more]
        sizes = [net.valid_input(size, axis) for axis, size in enumerate(wanted)]
        random = torch.Generator().manual_seed(seed)
        image = torch.rand((batch, shape.in_channels, *sizes), generator=random)
        with torch.inference_mode():
            pairs.append((image, model.activate(net(image))))
    return pairs


def said(model: Model, image: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model.activate(model.net(image))


def in_onnxruntime(path: Path, image: torch.Tensor) -> torch.Tensor:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path.read_bytes(), options)
    return torch.from_numpy(session.run(None, {"image": image.numpy()})[0])


def in_torchscript(path: Path, image: torch.Tensor) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is on its way out
        net = torch.jit.load(path)
    with torch.inference_mode():
        return net(image)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_gives_the_same_probabilities_at_any_size(name, activation, tmp_path) -> None:
    model = make_model(NETWORKS[name], activation=activation)
    path = export_model(model, tmp_path / "net.onnx")
    again = load_model(path)
    for image, expected in answers(model):
        torch.testing.assert_close(in_onnxruntime(path, image), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(said(again, image), expected, atol=1e-5, rtol=0)
    # Nothing of the card is lost, nothing assumed.
    same = {"architecture", "source", "source_sha256", "assumed"}
    assert again.card.model_dump(exclude=same) == model.card.model_dump(exclude=same)
    assert again.card.assumed == {}


@pytest.mark.parametrize("name", NETWORKS)
def test_torchscript_gives_the_same_probabilities_at_any_size(name, tmp_path) -> None:
    model = make_model(NETWORKS[name])
    path = export_model(model, tmp_path / "net.pt")
    again = load_model(path)
    for image, expected in answers(model):
        torch.testing.assert_close(in_torchscript(path, image), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(said(again, image), expected, atol=1e-5, rtol=0)
    assert again.card.assumed == {}
    assert again.card.instances == model.card.instances
    with zipfile.ZipFile(path) as archive:
        (card,) = [name for name in archive.namelist() if name.endswith(CARD_FILE)]
        assert json.loads(archive.read(card))["name"] == "round things"


@pytest.mark.parametrize("name", NETWORKS)
def test_a_state_dict_is_plain_tensors_that_load_into_the_network(name, tmp_path) -> None:
    model = make_model(NETWORKS[name])
    path = export_model(model, tmp_path / "net.pth")
    content = torch.load(path, weights_only=True)
    assert set(content) == {"state_dict", CARD_KEY}
    net = build_network(NETWORKS[name]).eval()
    net.load_state_dict(content["state_dict"])
    for image, expected in answers(model):
        assert torch.equal(said(Model(net, model.card), image), expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_state_dict_opens_again_as_it_was(name, tmp_path) -> None:
    assumed = {"skip order": "Nothing told it."}
    model = make_model(NETWORKS[name], assumed=assumed, source="theirs.pth, PyTorch weights")
    (again,) = open_weights(export_model(model, tmp_path / "net.pth"))
    assert again.card == model.card
    for image, expected in answers(model):
        assert torch.equal(said(again, image), expected)


def exported(model: Model, path: Path, **changed) -> Path:
    """Write a model as a state dict of which something is then changed."""
    content = torch.load(export_model(model, path), weights_only=True)
    torch.save({**content, **changed}, path)
    return path


def test_a_state_dict_that_is_not_that_of_its_card_is_refused(tmp_path) -> None:
    model = make_model(NETWORKS["three-level"])
    tensors = dict(model.net.state_dict())
    first, *_ = tensors
    path = tmp_path / "net.pth"
    for weights, reason in (
        ({key: tensors[key] for key in tensors if key != first}, "1 missing"),
        ({**tensors, "more": torch.ones(2)}, "1 not known"),
        ({**tensors, first: tensors[first][:1]}, "has the shape"),
        ({**tensors, first: "text"}, "not the weights"),
        ([1], "not the weights"),
    ):
        with pytest.raises(ModelError, match=reason):
            load_model(exported(model, path, state_dict=weights))


@pytest.mark.parametrize("card", ["", "[]", "{}", '{"name": "x", "architecture": {"widths": -1}}'])
def test_a_state_dict_with_a_card_that_cannot_be_read_is_refused(card, tmp_path) -> None:
    model = make_model(NETWORKS["three-level"])
    with pytest.raises(ModelError, match="card"):
        load_model(exported(model, tmp_path / "net.pth", **{CARD_KEY: card}))


@pytest.mark.parametrize("name", ["light-bn", "unpadded", "volume", "gates"])
def test_a_unet_said_layer_by_layer_is_the_same_network(name) -> None:
    model = make_model(NETWORKS[name])
    graph, tensors = as_graph(model.net)
    net = build_network(graph).eval()
    net.load_state_dict(tensors)
    for image, _ in answers(model):
        assert torch.equal(net(image), model.net(image))
    assert (net.stride, net.halo, net.margin) == (
        model.net.stride,
        model.net.halo,
        model.net.margin,
    )


def test_what_the_network_gives_by_itself_is_not_activated(tmp_path) -> None:
    model = make_model(NETWORKS["three-level"], activation="none")
    image, _ = answers(model)[0]
    values = in_onnxruntime(export_model(model, tmp_path / "net.onnx"), image)
    torch.testing.assert_close(values, model.net(image).detach(), atol=1e-5, rtol=1e-5)


def test_pyramid_pooling_is_refused_as_onnx_and_written_as_torchscript(tmp_path) -> None:
    model = make_model(Architecture(widths=(4, 8), pyramid_pooling=True))
    with pytest.raises(ModelError, match="pyramid pooling"):
        export_model(model, tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["net.pt", "net.zip"])
def test_pyramid_pooling_opens_again_as_it_was_where_it_can_be_written(name, tmp_path) -> None:
    model = make_model(Architecture(widths=(4, 8), pyramid_pooling=True, norm="batch"))
    again = load_model(export_model(model, tmp_path / name))
    assert again.card.architecture == model.card.architecture
    for image, expected in answers(model):
        torch.testing.assert_close(said(again, image), expected, atol=0, rtol=0)


def test_the_file_that_stood_there_stays_if_writing_fails(tmp_path) -> None:
    path = tmp_path / "net.onnx"
    path.write_text("precious")
    with pytest.raises(ModelError):
        export_model(make_model(Architecture(widths=(4, 8), pyramid_pooling=True)), path)
    assert path.read_text() == "precious"


@pytest.mark.parametrize(("name", "sentence"), [("net.foo", "ends in .foo"), ("net", "no ending")])
def test_an_ending_that_means_no_format_is_told(name, sentence, tmp_path) -> None:
    with pytest.raises(FileError, match=rf"{sentence}.*\.onnx"):
        export_model(make_model(NETWORKS["three-level"]), tmp_path / name)


def test_a_format_that_does_not_exist_is_told(tmp_path) -> None:
    with pytest.raises(FileError, match=r"no format 'keras'.*torchscript"):
        export_model(make_model(NETWORKS["three-level"]), tmp_path / "net", "keras")


def test_what_is_no_model_is_not_written(tmp_path) -> None:
    with pytest.raises(ModelError, match="A model was expected"):
        export_model("nuclei", tmp_path / "net.onnx")


@pytest.mark.parametrize("name", ["net.safetensors", "net.pth", "net.pt", "net.onnx", "net.zip"])
def test_weights_that_would_be_refused_when_opened_are_not_written(name, tmp_path) -> None:
    model = make_model(NETWORKS["volume"])
    with torch.no_grad():
        for parameter in model.net.parameters():
            parameter.zero_()
    with pytest.raises(ModelError, match=f"All weights of the convolutions in {name} are 0"):
        export_model(model, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_onnx_says_its_opset_and_carries_the_card(tmp_path) -> None:
    import onnx

    path = export_model(make_model(NETWORKS["light-bn"]), tmp_path / "net.onnx")
    file = onnx.load(path)
    onnx.checker.check_model(file, full_check=True)
    assert [entry.version for entry in file.opset_import] == [17]
    properties = {entry.key: entry.value for entry in file.metadata_props}
    assert json.loads(properties[CARD_KEY])["segments"] == "Round things"
    shape = [d.dim_param or d.dim_value for d in file.graph.input[0].type.tensor_type.shape.dim]
    assert shape == ["batch", 1, "y", "x"]


@pytest.mark.parametrize(
    ("missing", "remedy"),
    [
        ({"authors": ()}, "--author"),
        ({"licence": "unknown"}, "--licence"),
        ({"segments": "unknown"}, "--description"),
    ],
)
def test_a_package_asks_for_what_the_card_does_not_know(missing, remedy, tmp_path) -> None:
    with pytest.raises(ModelError, match=remedy):
        export_model(make_model(NETWORKS["three-level"], **missing), tmp_path / "net.zip")


NORMALIZATIONS = {
    "percentile": Normalization(low=2, high=99),
    "joint": Normalization(kind="mean-std", joint=True),
    "min-max": Normalization(kind="min-max", gain=2, shift=-1, clip=(-1, 1)),
    "divide": Normalization(kind="divide", divisor=200, limits=(10, 220)),
    "fixed": Normalization(kind="fixed", offsets=(100, 120), scales=(20, 30)),
    "none": Normalization(kind="none", gain=0.01),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NORMALIZATIONS)
@pytest.mark.filterwarnings("ignore")  # the library's and torch.jit's
def test_the_official_library_finds_the_package_right_and_runs_it(name, tmp_path) -> None:
    from bioimageio.core import test_model as run_package
    from bioimageio.spec import InvalidDescr, load_description

    shape = NETWORKS["graph"] if name == "joint" else Architecture(widths=(4, 8, 8), in_channels=2)
    model = make_model(shape, normalization=NORMALIZATIONS[name])
    path = export_model(model, tmp_path / "net.zip")
    found = load_description(path, perform_io_checks=True)
    assert not isinstance(found, InvalidDescr), found.validation_summary.format()
    warned = [entry.msg for part in found.validation_summary.details for entry in part.warnings]
    # Nobody but its makers can know somebody's name on GitHub.
    assert [text for text in warned if "github_user" not in text] == []
    for weights in ("torchscript", "onnx"):
        summary = run_package(path, weight_format=weights)
        assert summary.status == "passed", summary.format()
    again = load_model(path)
    for image, expected in answers(model):
        torch.testing.assert_close(said(again, image), expected, atol=1e-5, rtol=0)
    assert again.card.assumed == {}
    assert again.card.instances == model.card.instances


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unpadded", "volume", "thin volume", "ronneberger2015"])
@pytest.mark.filterwarnings("ignore")
def test_packages_of_other_networks_pass_the_official_tests(name, tmp_path) -> None:
    from bioimageio.core import test_model as run_package

    path = export_model(make_model(NETWORKS[name], pixel_size_um=0.5), tmp_path / "net.zip")
    for weights in ("torchscript", "onnx"):
        summary = run_package(path, weight_format=weights)
        assert summary.status == "passed", summary.format()
    assert load_model(path).card.pixel_size_um == 0.5


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_a_package_holds_what_its_description_names(tmp_path) -> None:
    import yaml

    path = export_model(
        make_model(NETWORKS["three-level"]),
        tmp_path / "net.zip",
        authors=["Emmy Noether"],
        cite=["Our paper, doi:10.1000/xyz123"],
        licence="MIT",
    )
    with zipfile.ZipFile(path) as archive:
        description = yaml.safe_load(archive.read("bioimageio.yaml"))
        image = np.load(archive.open("test_input.npy"))
        assert {"weights.pt", "weights.onnx", "README.md", "cover.png"} <= set(archive.namelist())
    assert image.dtype == np.float32
    assert description["authors"] == [{"name": "Emmy Noether"}]
    assert description["cite"] == [{"text": "Our paper", "doi": "10.1000/xyz123"}]
    assert description["license"] == "MIT"
    assert "pytorch_state_dict" not in description["weights"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.parametrize("name", ["net.pth", "net.pt", "net.onnx", "net.zip"])
@pytest.mark.parametrize("activation", ["sigmoid", "softmax", "none"])
def test_a_file_opens_again_with_what_was_assumed_of_its_network(
    activation, name, tmp_path
) -> None:
    assumed = {"activation": "The tensors do not tell.", "skip order": "Upsampled first."}
    model = make_model(
        NETWORKS["three-level"], activation=activation, assumed=assumed, authors=["Ada"]
    )
    readings = open_weights(export_model(model, tmp_path / name, licence="MIT"))
    assert len(readings) == 1
    again = readings[0]
    assert (again.card.activation, again.card.assumed) == (activation, assumed)
    assert again.card.normalization == model.card.normalization
    image, _ = answers(model)[0]
    torch.testing.assert_close(said(again, image), said(model, image), atol=1e-5, rtol=0)


def test_a_unet_of_ours_stays_one_in_our_own_format(tmp_path) -> None:
    model = make_model(NETWORKS["light-bn"])
    assert isinstance(load_model(export_model(model, tmp_path / "net.safetensors")).net, UNet)
