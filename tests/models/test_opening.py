"""Weights of any format open whole, with a card that says what was assumed; or not at all."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import napari_unet
from napari_unet.errors import ModelError
from napari_unet.models import formats, opening
from napari_unet.models.card import Card
from napari_unet.models.found import Found
from napari_unet.models.model import Model, save_model
from napari_unet.models.opening import load_model, open_weights, read_weights
from napari_unet.network.unet import UNet
from napari_unet.settings import Architecture, Normalization

SHAPE = Architecture(widths=(3, 4))


def found(shape: Architecture = SHAPE, title: str = "", **card: object) -> Found:
    """Make what a reader hands over."""
    torch.manual_seed(0)
    return Found(shape, UNet(shape).state_dict(), card=dict(card), title=title)


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that says what the reader of a file finds, or does, and the file."""

    def give(what: object) -> Path:
        def read(path: Path):
            return what() if callable(what) else what

        monkeypatch.setattr(opening, "_reader", lambda _: read)
        path = tmp_path / "my_net.pth"
        torch.save({"a": torch.ones(1)}, path)
        return path

    return give


def test_a_model_of_ours_opens_as_it_was_saved(tmp_path: Path) -> None:
    model = Model(UNet(SHAPE), Card(name="mine", architecture=SHAPE))
    path = save_model(model, tmp_path / "mine.safetensors")
    (opened,) = open_weights(path)
    assert opened.card == model.card
    assert napari_unet.load_model(path).card == model.card
    renamed = path.rename(tmp_path / "mine.pth")
    assert load_model(renamed).card == model.card, "the ending does not matter"


def test_the_card_tells_the_source_and_every_assumption(reader) -> None:
    path = reader([found()])
    (model,) = open_weights(path)
    card = model.card
    assert (card.name, card.segments) == ("my net", "unknown")
    assert card.source == "my_net.pth, PyTorch weights"
    assert card.source_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert {"normalization", "activation", "outputs", "labels", "input_channels"} <= set(
        card.assumed
    )
    assert "percentiles 1 to 99.8" in card.assumed["normalization"]


def test_what_the_file_tells_is_not_assumed(reader) -> None:
    path = reader(
        [found(name="cells", normalization=Normalization(kind="min-max"), activation="none")]
    )
    card = load_model(path).card
    assert (card.name, card.normalization.kind, card.activation) == ("cells", "min-max", "none")
    assert not {"normalization", "activation"} & set(card.assumed)


@pytest.mark.parametrize(
    ("classes", "known", "outputs", "activation", "labels"),
    [
        (1, {}, ("foreground",), "sigmoid", "instance"),
        (2, {}, ("background", "foreground"), "softmax", "instance"),
        (2, {"activation": "sigmoid"}, ("foreground", "output 2"), "sigmoid", "instance"),
        (3, {}, ("background", "class 1", "class 2"), "softmax", "semantic"),
        (2, {"outputs": ("a", "b")}, ("a", "b"), "softmax", "semantic"),
    ],
)
def test_outputs_are_given_the_meaning_they_most_often_have(
    reader, classes, known, outputs, activation, labels
) -> None:
    card = load_model(reader([found(Architecture(widths=(3, 4), classes=classes), **known)])).card
    assert (card.outputs, card.activation, card.labels) == (outputs, activation, labels)


def test_each_reading_is_a_model_with_weights_of_its_own(reader) -> None:
    shared = found(title="one")
    other = Found(SHAPE.replace(skip_first=True), shared.tensors, title="two")
    path = reader([shared, other])
    first, second = open_weights(path)
    assert second.card.architecture.skip_first
    with torch.no_grad():
        next(first.net.parameters()).zero_()
    assert next(second.net.parameters()).abs().sum() > 0
    assert [reading.title for reading in read_weights(path)] == ["one", "two"]
    assert load_model(f"{path}#2").card == second.card
    assert load_model(path, reading=1).card == second.card
    for wrong in (2, -1):
        with pytest.raises(ModelError, match="2 ways"):
            load_model(path, reading=wrong)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.popitem(), "1 missing"),
        (lambda t: t.update(extra=torch.ones(1)), "1 not known"),
        (lambda t: t.update({k: v[..., :1] for k, v in t.items() if v.ndim == 4}), "the shape"),
        (lambda t: t.update({k: v / 0 for k, v in t.items()}), "not finite"),
        (lambda t: t.update({k: v.int() for k, v in t.items()}), "of type"),
    ],
)
def test_weights_that_fit_in_part_only_are_refused(reader, change, sentence) -> None:
    given = found()
    change(given.tensors)
    with pytest.raises(ModelError, match=f"my_net.pth.*{sentence}|{sentence}.*my_net.pth"):
        open_weights(reader([given]))


@pytest.mark.parametrize(
    "error",
    [ValueError("x" * 500), KeyError("a"), RecursionError(), RuntimeError("b\nc"), OSError()],
)
def test_whatever_a_reader_stumbles_on_is_told_in_a_sentence(reader, error) -> None:
    def fail():
        raise error

    with pytest.raises(ModelError, match=r"my_net.pth is PyTorch weights and cannot be read") as at:
        open_weights(reader(fail))
    assert len(str(at.value)) < 400


@pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt()])
def test_a_lack_of_memory_and_ctrl_c_are_passed_on(reader, error) -> None:
    def fail():
        raise error

    with pytest.raises(type(error)):
        open_weights(reader(fail))


def test_a_card_that_contradicts_its_network_is_refused(reader) -> None:
    with pytest.raises(ModelError, match="cannot be described"):
        open_weights(reader([found(outputs=("a", "b", "c"))]))


def test_what_is_no_weights_is_refused_before_a_reader_sees_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(opening, "_reader", lambda _: pytest.fail("it was read"))
    path = tmp_path / "net.pth"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:a\nsize 9\n")
    with pytest.raises(ModelError, match=r"Git LFS pointer.*git lfs pull"):
        load_model(path)
    path.write_bytes(b"<html>")
    with pytest.raises(ModelError, match="web page"):
        load_model(path)


def test_an_unknown_name_tells_the_known_ones() -> None:
    with pytest.raises(ModelError, match="Installed models"):
        load_model("no such model")


def test_a_nickname_is_fetched_only_if_there_is_no_such_file(tmp_path, monkeypatch) -> None:
    from napari_unet.models import bioimageio

    path = save_model(
        Model(UNet(SHAPE), Card(name="mine", architecture=SHAPE)), tmp_path / "x.safetensors"
    )
    asked = []

    def fetch(nickname: str) -> Path:
        asked.append(nickname)
        return path

    monkeypatch.setattr(bioimageio, "fetch", fetch)
    assert load_model("affable-shark").card.name == "mine"
    assert asked == ["affable-shark"]
    with pytest.raises(ModelError):
        load_model("Nuclei of 2018")
    assert len(asked) == 1


def test_every_format_that_opens_has_a_reader() -> None:
    kinds = {
        value.kind
        for value in vars(formats).values()
        if isinstance(value, formats.Format) and value.opens
    }
    assert kinds - {"own"} == set(opening._READERS)
    for kind in kinds - {"own"}:
        assert callable(opening._reader(formats.Format(kind, "a test")))


def test_a_state_dict_of_the_plain_unet_opens_from_each_container(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = UNet(Architecture(widths=(4, 8, 16), norm="batch")).eval()
    image = torch.randn(1, 1, 44, 44)  # fits a network without padding, too
    tensors = net.state_dict()
    torch.save(tensors, tmp_path / "a.pth")
    torch.save({"epoch": 3, "state_dict": tensors}, tmp_path / "b.ckpt")
    save_file(tensors, tmp_path / "c.safetensors")
    for name in ("a.pth", "b.ckpt", "c.safetensors"):
        with torch.inference_mode():
            outputs = [model.net(image) for model in open_weights(tmp_path / name)]
            alike = [out for out in outputs if out.shape == image.shape]
            assert min(float((out - net(image)).abs().max()) for out in alike) < 1e-5


REFERENCE = "bioimageio_nuclei_broad"


@pytest.mark.parametrize(
    "name",
    [
        "weights_torchscript.pt",
        "weights.onnx",
        "derived_state_dict.pth",
        "derived_checkpoint_dataparallel.pth",
        "unet2d_nuclei_broad.no_source.zip",
        "bioimageio.yaml",
        ".",
    ],
)
@pytest.mark.slow
def test_the_nuclei_network_gives_its_reference_output_from_each_format(data_dir, name) -> None:
    folder = data_dir / "weights" / REFERENCE
    image = torch.from_numpy(np.load(folder / "test_input.npy")).float()
    wanted = np.load(folder / "test_output.npy")
    with torch.inference_mode():
        standard = (image - image.mean()) / (image.std(correction=0) + 1e-6)
        models = open_weights(folder / name)
        answers = [model.activate(model.net(standard)).numpy() for model in models]
    assert min(np.abs(answer - wanted).max() for answer in answers) < 1e-5
