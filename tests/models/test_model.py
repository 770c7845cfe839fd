"""Saved weights come back bit by bit, or not at all."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from napari_unet.errors import FileError, ModelError
from napari_unet.models import formats, library, own_file
from napari_unet.models.card import Card
from napari_unet.models.model import Model, assemble, load_model, save_in_library, save_model
from napari_unet.network.unet import UNet
from napari_unet.settings import Architecture

ARCHITECTURE = Architecture(widths=(3, 4), classes=2, norm="batch")


def make_model(architecture: Architecture = ARCHITECTURE, name: str = "test") -> Model:
    """Return a net with weights and statistics that no fresh net has."""
    torch.manual_seed(1)
    net = UNet(architecture)
    outputs = ("foreground", "distance")[: architecture.classes]
    with torch.no_grad():
        for tensor in net.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.1, 1.0)
    return Model(net.eval(), Card(name=name, architecture=architecture, outputs=outputs))


def same_weights(one: Model, two: Model) -> bool:
    mine, theirs = one.net.state_dict(), two.net.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_model(make_model(), tmp_path / "test.safetensors")


def rewrite(path: Path, tensors: dict[str, torch.Tensor], **metadata: str) -> Path:
    """Write a file as another program might: our card, other tensors, no checksum."""
    card = make_model().card.model_dump_json()
    save_file(tensors, path, {formats.CARD_KEY: card, **metadata})
    return path


def test_a_loaded_model_gives_the_same_bits_and_the_same_card(saved: Path) -> None:
    model, loaded = make_model(), load_model(saved)
    image = torch.rand(1, 1, 24, 32)
    with torch.inference_mode():
        assert torch.equal(model.net(image), loaded.net(image))
    assert loaded.card == model.card
    assert not loaded.net.training
    assert all(weight.requires_grad for weight in loaded.net.parameters())
    assert not any(tensor.is_meta for tensor in loaded.net.state_dict().values())


def test_a_loaded_model_can_be_trained_on(saved: Path) -> None:
    net = load_model(saved).net.train()
    before = [weight.clone() for weight in net.parameters()]
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    net(torch.rand(2, 1, 16, 16)).square().mean().backward()
    optimiser.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


@pytest.mark.parametrize("name", ["ronneberger2015", "light-bn", "three-level"])
def test_presets_survive_a_round_trip(name: str, tmp_path: Path) -> None:
    architecture = UNet.from_preset(name, classes=2).architecture
    narrow = architecture.replace(widths=tuple(4 for _ in architecture.widths))
    if architecture.decoder_widths is not None:
        narrow = narrow.replace(
            decoder_widths=tuple(tuple(4 for _ in level) for level in architecture.decoder_widths)
        )
    model = make_model(narrow)
    assert same_weights(load_model(save_model(model, tmp_path / "preset")), model)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_widened(kind: torch.dtype, tmp_path: Path) -> None:
    tensors = {
        key: tensor.to(kind) if tensor.is_floating_point() else tensor
        for key, tensor in make_model().net.state_dict().items()
    }
    loaded = load_model(rewrite(tmp_path / "half.safetensors", tensors))
    for key, tensor in loaded.net.state_dict().items():
        assert tensor.dtype in (torch.float32, torch.int64)
        assert torch.equal(tensor, tensors[key].to(tensor.dtype))


def test_saving_in_half_precision_halves_the_file(tmp_path: Path) -> None:
    model = make_model(Architecture(widths=(16, 32)))
    full = save_model(model, tmp_path / "full")
    half = save_model(model, tmp_path / "half", half=True)
    assert half.stat().st_size < 0.6 * full.stat().st_size
    weights, rounded = model.net.state_dict(), load_model(half).net.state_dict()
    assert all(torch.allclose(weights[k], rounded[k], rtol=1e-3) for k in weights)


def test_weights_that_lie_scattered_in_memory_are_saved_in_order(tmp_path: Path) -> None:
    model = make_model()
    torch.nn.Module.to(model.net, memory_format=torch.channels_last)
    assert same_weights(load_model(save_model(model, tmp_path / "m")), model)


def test_every_single_flipped_bit_and_every_cut_is_refused_or_harmless(saved: Path) -> None:
    model, content = load_model(saved), saved.read_bytes()
    random = torch.Generator().manual_seed(0)
    harmless = 0
    for trial in range(300):
        damaged = bytearray(content)
        # Every other flip hits the header, where a flip can do more than change a number.
        reach = len(content) if trial % 2 else 1200
        at = int(torch.randint(reach, (), generator=random))
        if trial % 4 == 0:
            damaged = damaged[:at]
        else:
            damaged[at] ^= 1 << int(torch.randint(8, (), generator=random))
        saved.write_bytes(damaged)
        try:
            loaded = load_model(saved)
        except ModelError:
            continue
        harmless += 1
        assert same_weights(loaded, model)
        assert loaded.card == model.card
    assert harmless < 20


def test_a_card_changed_by_hand_is_refused(saved: Path) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content.replace(b'\\"threshold\\":0.5', b'\\"threshold\\":0.9', 1))
    assert saved.read_bytes() != content
    with pytest.raises(ModelError, match="checksum"):
        load_model(saved)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.pop(next(iter(t))), "1 missing"),
        (lambda t: t.update(extra=torch.ones(2)), r"1 not known \(extra\)"),
        (lambda t: t.update({next(iter(t)): torch.ones(3, 7, 3, 3)}), r"shape \(3, 7, 3, 3\)"),
        (lambda t: t.update({k: v.long() for k, v in t.items()}), "of type torch.int64"),
        (lambda t: t.update({k: v.char() for k, v in t.items()}), "Quantised weights"),
        (lambda t: t[next(iter(t))].view(-1)[0].fill_(float("nan")), "not finite"),
    ],
)
def test_weights_of_another_network_are_refused_in_words(change, sentence, tmp_path: Path) -> None:
    tensors = {key: tensor.clone() for key, tensor in make_model().net.state_dict().items()}
    change(tensors)
    path = rewrite(tmp_path / "other.safetensors", tensors)
    with pytest.raises(ModelError, match=sentence):
        load_model(path)


def test_a_file_of_a_newer_version_asks_for_an_update(tmp_path: Path) -> None:
    tensors = make_model().net.state_dict()
    path = rewrite(tmp_path / "new.safetensors", tensors, **{own_file.FORMAT_KEY: "2"})
    with pytest.raises(ModelError, match=r"newer version.*pip install --upgrade"):
        load_model(path)


def test_a_card_with_an_unknown_field_is_refused(tmp_path: Path) -> None:
    card = make_model().card.model_dump()
    path = tmp_path / "new.safetensors"
    metadata = {formats.CARD_KEY: json.dumps({**card, "colour": "red"})}
    save_file(make_model().net.state_dict(), path, metadata)
    with pytest.raises(ModelError, match=r"colour.*update the plugin"):
        load_model(path)


def test_a_header_that_claims_more_than_the_file_holds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "short.safetensors"
    path.write_bytes(struct.pack("<Q", 90_000_000) + b'{"a":')
    with pytest.raises(ModelError, match="damaged or incomplete"):
        load_model(path)


def test_a_card_of_an_impossible_network_is_refused(tmp_path: Path) -> None:
    card = make_model().card.model_dump(mode="json")
    card["architecture"]["widths"] = [3, 10**12]
    path = tmp_path / "huge.safetensors"
    tensors = make_model().net.state_dict()
    save_file(tensors, path, {formats.CARD_KEY: json.dumps(card)})
    with pytest.raises(ModelError):
        load_model(path)


def test_a_card_that_does_not_fit_its_network_makes_no_model() -> None:
    model = make_model()
    wrong = Card(name="x", architecture=Architecture(widths=(5, 6)))
    with pytest.raises(ModelError, match="another architecture"):
        Model(model.net, wrong)


def test_a_failed_save_leaves_the_old_file_and_no_other(saved: Path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    content = saved.read_bytes()
    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(FileError, match="No space left"):
        save_model(make_model(name="other"), saved)
    assert saved.read_bytes() == content
    assert list(saved.parent.iterdir()) == [saved]


def test_weights_of_which_no_answer_can_come_are_refused() -> None:
    model = make_model()
    tensors = model.net.state_dict()
    assemble("net.pth", model.card, tensors)
    variance = next(key for key in tensors if key.endswith("running_var"))
    below = {**tensors, variance: tensors[variance] - 2}
    with pytest.raises(ModelError, match="holds variances below 0"):
        assemble("net.pth", model.card, below)
    no_kernels = {key: t * 0 if t.ndim > 2 else t for key, t in tensors.items()}
    with pytest.raises(ModelError, match="All weights of the convolutions"):
        assemble("net.pth", model.card, no_kernels)


def test_a_foreign_ending_is_refused_and_a_missing_one_added(tmp_path: Path) -> None:
    assert save_model(make_model(), tmp_path / "sub" / "mine").name == "mine.safetensors"
    with pytest.raises(FileError, match=r"mine\.safetensors"):
        save_model(make_model(), tmp_path / "mine.pth")


def test_a_model_with_a_broken_weight_is_not_saved(tmp_path: Path) -> None:
    model = make_model()
    with torch.no_grad():
        next(model.net.parameters()).fill_(float("inf"))
    with pytest.raises(ModelError, match="not finite"):
        save_model(model, tmp_path / "broken")
    assert list(tmp_path.iterdir()) == []


def test_a_model_of_nothing_but_zeros_is_not_saved(tmp_path: Path) -> None:
    model = make_model()
    with torch.no_grad():
        for parameter in model.net.parameters():
            parameter.zero_()
    with pytest.raises(ModelError, match="All weights"):
        save_model(model, tmp_path / "empty")
    assert list(tmp_path.iterdir()) == []


def test_models_in_the_library_never_replace_each_other(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(library, "user_folder", lambda: tmp_path)
    monkeypatch.setattr("napari_unet.models.model.user_folder", lambda: tmp_path)
    first = save_in_library(make_model(name="my cells"))
    second = save_in_library(load_model("my cells"))
    third = save_in_library(load_model(second))
    assert [path.stem for path in (first, second, third)] == [
        "my cells",
        "my cells 2",
        "my cells 3",
    ]
    assert load_model("my cells 3").card.name == "my cells 3"


def test_softmax_and_sigmoid_follow_the_card() -> None:
    model = make_model()
    logits = torch.randn(1, 2, 4, 4)
    soft = Model(model.net, model.card.replace(activation="softmax"))
    assert torch.allclose(soft.activate(logits).sum(1), torch.ones(1, 4, 4))
    assert torch.equal(model.activate(logits), torch.sigmoid(logits))
