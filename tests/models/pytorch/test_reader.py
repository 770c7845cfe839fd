"""Files of PyTorch weights: read as data, whole, or refused in a sentence."""

from __future__ import annotations

import argparse
import collections
import enum
import io
import os
import pathlib
import pickle
import random
import types
import warnings
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from napari_unet.errors import ModelError
from napari_unet.models.pytorch import read_state_dict, read_tensors
from napari_unet.network.unet import UNet

fired: list[str] = []


def fire(word: str = "fired") -> str:
    """Leave a trace; a pickle in these tests wants it to be called."""
    fired.append(word)
    return word


class Payload:
    """Calls something when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


class Colour(enum.Enum):
    RED = 1


class Config:
    """A stranger's settings."""

    def __init__(self) -> None:
        self.rate = 0.1
        self.path = pathlib.PurePosixPath("/data")


@pytest.fixture
def weights(tiny_unet: UNet) -> dict[str, torch.Tensor]:
    return tiny_unet.state_dict()


def assert_same(tensors: dict[str, torch.Tensor], weights: dict[str, torch.Tensor]) -> None:
    assert list(tensors) == list(weights)
    for key, tensor in weights.items():
        assert torch.equal(tensors[key].float(), tensor.float()), key


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 2020"])
def test_a_plain_state_dict_is_read_in_its_order(
    weights: dict[str, torch.Tensor], tmp_path: Path, zipped: bool
) -> None:
    path = tmp_path / "net.pth"
    torch.save(weights, path, _use_new_zipfile_serialization=zipped)
    ((sentence, tensors),) = read_tensors(path)
    assert sentence == ""
    assert_same(tensors, weights)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 2020"])
def test_every_protocol_of_pickle_is_read(
    weights: dict[str, torch.Tensor], tmp_path: Path, zipped: bool, protocol: int
) -> None:
    path = tmp_path / "net.pth"
    content = {"state_dict": weights, "best": np.float64(0.5), "where": Path("runs")}
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    ((_, tensors),) = read_tensors(path)
    assert_same(tensors, weights)


@pytest.mark.parametrize(
    "keys",
    [
        ["state_dict"], ["model"], ["net"], ["model_state_dict"], ["network"], ["params"],
        ["module"], ["generator"], ["checkpoint", "model", "weights"],
    ],
    ids=".".join,
)  # fmt: skip
def test_weights_are_found_beside_all_that_checkpoints_keep(
    weights: dict[str, torch.Tensor], tmp_path: Path, keys: list[str]
) -> None:
    optimiser = torch.optim.Adam([torch.nn.Parameter(torch.ones(3, 3, 3, 3))])
    content: Any = weights
    for key in reversed(keys):
        content = {
            key: content,
            "epoch": 7,
            "optimizer_state_dict": optimiser.state_dict(),
            "best": np.float32(0.9),
            "scores": np.ones((2, 3)),
            "args": argparse.Namespace(lr=0.1, colour=Colour.RED, path=Path("a")),
            "config": Config(),
            "seen": collections.Counter("abc"),
            "by name": collections.defaultdict(list, {"a": [1]}),
            "simple": types.SimpleNamespace(a=1),
            "device": torch.device("cpu"),
            "size": torch.Size([1, 2]),
            "kind": torch.float32,
            "schedule": partial(max, 1),
            "sets": {1, 2},
            "frozen": frozenset([3]),
            "random": torch.get_rng_state(),
        }
    path = tmp_path / "checkpoint.ckpt"
    torch.save(content, path)
    ((_, tensors),) = read_tensors(path)
    assert_same(tensors, weights)
    assert read_state_dict(path)[0].architecture is not None


def test_weights_are_found_in_lists(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.ones(3, 3, 3, 3))], momentum=0.9)
    for content in ((weights, optimiser.state_dict(), 3), {"models": [weights]}):
        torch.save(content, path)
        ((_, tensors),) = read_tensors(path)
        assert_same(tensors, weights)
    other = {key: tensor + 1 for key, tensor in weights.items()}
    torch.save({"models": [weights, other]}, path)
    assert "models.0 was taken, not models.1" in read_state_dict(path)[0].assumed["weights"]
    torch.save([{key: tensor.clone() for key, tensor in other.items()} for _ in range(9)], path)
    assert "not 1, 2, 3, 4, 5 and 3 more" in read_state_dict(path)[0].assumed["weights"]


@pytest.mark.parametrize(
    "prefix", ["module.", "model.", "net.", "_orig_mod.", "module.unet.", "model._orig_mod.net."]
)
def test_prefixes_of_wrappers_are_taken_off(tiny_unet: UNet, tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "net.pth"
    plain = tiny_unet.state_dict()
    wrapped = {f"{prefix}{key}": tensor for key, tensor in plain.items()}
    wrapped["criterion.weight"] = torch.ones(2)
    torch.save({"state_dict": wrapped}, path)
    found = read_state_dict(path)[0]
    assert found.architecture == tiny_unet.architecture
    for key, tensor in plain.items():
        assert torch.equal(found.tensors[key], tensor)


def test_averaged_weights_are_taken_only_where_there_are_no_others(
    weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "net.pth"
    other = {key: tensor + 1 for key, tensor in weights.items()}
    torch.save({"ema_state_dict": other, "state_dict": weights}, path)
    sentence, tensors = read_tensors(path)[0]
    assert_same(tensors, weights)
    assert "several sets" in sentence
    torch.save({"ema": other}, path)
    found = read_state_dict(path)[0]
    assert "averaged" in found.assumed["weights"]
    torch.save(
        {f"model.{k}": v for k, v in weights.items()} | {f"ema.{k}": v for k, v in other.items()},
        path,
    )
    found = read_state_dict(path)[0]
    assert torch.equal(found.tensors["output.bias"], weights["output.bias"])


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(
    weights: dict[str, torch.Tensor], tmp_path: Path, kind: torch.dtype
) -> None:
    path = tmp_path / "net.pth"
    torch.save({key: tensor.to(kind) for key, tensor in weights.items()}, path)
    found = read_state_dict(path)[0]
    for key, tensor in weights.items():
        assert torch.equal(found.tensors[key], tensor.to(kind).float())


def test_views_of_one_storage_and_parameters_are_read(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    storage = torch.arange(1000.0)
    views = {
        "a.weight": storage[100:172].view(2, 4, 3, 3),
        "b.weight": torch.nn.Parameter(storage.view(10, 100)[:, ::2].T[:5, None, None]),
        "c.weight": torch.randn(4, 2, 3, 3).to(memory_format=torch.channels_last),
    }
    for zipped in (True, False):
        torch.save(views, path, _use_new_zipfile_serialization=zipped)
        assert_same(read_tensors(path)[0][1], views)


def test_arrays_in_a_plain_pickle_are_read(
    weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "net.pkl"
    for protocol in (2, 4, 5):
        arrays = {key: tensor.numpy() for key, tensor in weights.items()}
        path.write_bytes(pickle.dumps(arrays, protocol))
        assert_same(read_tensors(path)[0][1], weights)
        path.write_bytes(pickle.dumps(weights, protocol))
        assert_same(read_tensors(path)[0][1], weights)


def test_safetensors_of_others_are_read_in_natural_order(tiny_unet: UNet, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_file(tiny_unet.state_dict(), path)
    found = read_state_dict(path)[0]
    assert found.architecture == tiny_unet.architecture


HARM = [
    (os.system, "true"),
    (eval, "1"),
    (exec, "pass"),
    (fire, "x"),
    (open, "/tmp/x", "w"),
    (os.remove, "/nowhere"),
    (print, "x"),
    (partial, os.system, "true"),
    (pathlib.Path.touch, Path("x")),
    (__import__, "os"),
    (pickle.loads, b"N."),
    (torch.load, "x"),
    (io.open, "x"),
]


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 2020"])
@pytest.mark.parametrize("call", HARM, ids=lambda call: getattr(call[0], "__name__", "partial"))
def test_a_pickle_that_runs_code_is_refused_and_nothing_runs(
    weights: dict[str, torch.Tensor], tmp_path: Path, call: tuple[Any, ...], zipped: bool
) -> None:
    path = tmp_path / "net.pth"
    content = {"state_dict": weights, "extra": Payload(*call)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    fired.clear()
    with pytest.raises(ModelError, match=r"program rather than weights.*It was not run"):
        read_state_dict(path)
    assert not fired
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(ModelError, match="program rather than weights"):
        read_state_dict(path)
    assert not fired


def test_a_function_that_is_fetched_in_two_steps_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(b"cposix\nsystem\n(S'true'\ntR.")
    with pytest.raises(ModelError, match=r"it calls posix\.system"):
        read_state_dict(path)
    path.write_bytes(b"c__builtin__\ngetattr\n(cnt\nstat\nS'system'\ntR(S'true'\ntR.")
    with pytest.raises(ModelError, match=r"program"):
        read_state_dict(path)
    path.write_bytes(b"(S'true'\nios\nsystem\n.")
    with pytest.raises(ModelError, match=r"program"):
        read_state_dict(path)


def test_a_payload_that_is_ordered_to_fire_does_so_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save({"a": Payload(fire, "x")}, path)
    fired.clear()
    torch.load(path, weights_only=False)
    assert fired == ["x"], "the tests above would prove nothing"


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 2020"])
def test_a_whole_pickled_network_is_refused_with_how_to_save_it(
    tiny_unet: UNet, tmp_path: Path, zipped: bool
) -> None:
    path = tmp_path / "net.pt"
    for content in (tiny_unet, {"model": tiny_unet, "epoch": 3}, torch.nn.DataParallel(tiny_unet)):
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(ModelError, match="whole pickled network") as caught:
            read_state_dict(path)
        assert "torch.save(model.state_dict()" in str(caught.value)


def test_an_optimiser_alone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    parameter = torch.nn.Parameter(torch.ones(3, 3, 3, 3))
    optimiser = torch.optim.Adam([parameter])
    parameter.sum().backward()
    optimiser.step()
    for content in (optimiser.state_dict(), {"optimizer": optimiser.state_dict(), "epoch": 1}):
        torch.save(content, path)
        with pytest.raises(ModelError, match=r"optimiser|no weights"):
            read_state_dict(path)


@pytest.mark.parametrize("content", [{}, [], None, 3, "text", {"a": 1}, {"a": torch.ones(3)}])
def test_what_holds_no_weights_is_refused(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "net.pth"
    torch.save(content, path)
    with pytest.raises(ModelError, match="holds no weights"):
        read_state_dict(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04", b"\x80\x02", b"not a pickle", bytes(600), b"<!DOCTYPE html><html>"],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"net\.pth"):
        read_state_dict(path)


def test_weights_that_are_not_finite_are_refused(
    weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "net.pth"
    weights["output.bias"] = torch.tensor([float("nan")])
    torch.save(weights, path)
    with pytest.raises(ModelError, match=r"output\.bias holds values that are not finite"):
        read_state_dict(path)


def test_a_zip_that_would_unpack_to_far_more_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/data.pkl", b"N.")
        archive.writestr("net/data/0", bytes(50_000_000))
    with pytest.raises(ModelError, match="far more than fits"):
        read_state_dict(path)


def test_a_tensor_that_reaches_beyond_its_numbers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    small = torch.ones(2, 2, 3, 3)
    torch.save({"a.weight": small}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in entries if name.endswith("data.pkl"))
    shape = b"(K\x02K\x02K\x03K\x03t"
    assert shape in entries[name]
    entries[name] = entries[name].replace(shape, b"(K\x7fK\x02K\x03K\x03t", 1)
    with zipfile.ZipFile(path, "w") as archive:
        for entry, content in entries.items():
            archive.writestr(entry, content)
    with pytest.raises(ModelError, match="beyond its numbers"):
        read_state_dict(path)


def test_deeply_nested_and_endless_pickles_are_refused_quickly(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    deep = b"\x80\x02" + b")" + b"\x85" * 300_000 + b"."
    path.write_bytes(deep)
    with pytest.raises(ModelError):
        read_state_dict(path)
    path.write_bytes(b"\x80\x02}" + b")" + b"\x85" * 300_000 + b"Ns.")
    with pytest.raises(ModelError):
        read_state_dict(path)
    itself = b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s."
    path.write_bytes(itself)
    with pytest.raises(ModelError):
        read_state_dict(path)


@pytest.mark.parametrize("name", ["derived_state_dict", "derived_checkpoint_dataparallel"])
def test_the_nuclei_net_of_bioimage_io_gives_its_reference_output(
    data_dir: Path, name: str
) -> None:
    from napari_unet.network.build import build_network

    folder = data_dir / "weights" / "bioimageio_nuclei_broad"
    found = read_state_dict(folder / f"{name}.pth")[0]
    net = build_network(found.architecture)
    net.load_state_dict(found.tensors)
    image = np.load(folder / "test_input.npy")
    image = (image - image.mean()) / (image.std() + 1e-6)
    with torch.no_grad():
        answer = torch.sigmoid(net.eval()(torch.from_numpy(image))).numpy()
    assert np.abs(answer - np.load(folder / "test_output.npy")).max() < 1e-5
    assert found.card["normalization"].kind == "mean-std"


def mutations(content: bytes, count: int, seed: int) -> list[bytes]:
    """Cut, flip, overwrite and repeat parts of a file by chance."""
    chance = random.Random(seed)
    results = []
    for _ in range(count):
        changed = bytearray(content)
        kind = chance.randrange(5)
        if kind == 0:
            del changed[chance.randrange(len(changed)) :]
        elif kind == 1:
            for _ in range(chance.randint(1, 4)):
                changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        elif kind == 2:
            at = chance.randrange(len(changed))
            changed[at : at + 16] = chance.randbytes(16)
        elif kind == 3:
            at, size = chance.randrange(len(changed)), chance.randrange(1, 200)
            changed[at:at] = changed[at : at + size]
        else:
            at = chance.randrange(min(3000, len(changed)))
            changed[at] = chance.randrange(256)
        results.append(bytes(changed))
    return results


@pytest.mark.slow
@pytest.mark.parametrize("form", ["zip", "before 2020", "pickle", "safetensors"])
def test_damaged_files_give_a_sentence_or_the_right_tensors_of_a_whole_network(
    tmp_path: Path, form: str
) -> None:
    net = UNet.from_preset("light-bn", widths=(2, 4))
    weights, path = net.state_dict(), tmp_path / "net.pth"
    if form == "safetensors":
        save_file(weights, path)
    elif form == "pickle":
        path.write_bytes(pickle.dumps(weights))
    else:
        torch.save({"state_dict": weights}, path, _use_new_zipfile_serialization=form == "zip")
    content = path.read_bytes()
    opened = 0
    for changed in mutations(content, 1500, seed=1):
        path.write_bytes(changed)
        try:
            found = read_state_dict(path)[0]
        except ModelError:
            continue
        opened += 1
        expected = net.state_dict() if found.architecture == net.architecture else None
        if expected is not None and form == "zip":  # the others have no checksum
            for key, tensor in expected.items():
                if not key.endswith("num_batches_tracked"):
                    assert torch.equal(found.tensors[key], tensor), key
    assert opened < 1500


def test_quantised_and_sparse_weights_are_refused_by_their_name(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    kernel = torch.ones(2, 1, 3, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quantised tensors are on their way out of torch
        quantised = torch.quantize_per_tensor(kernel, 0.1, 0, torch.qint8)
        for zipped in (True, False):
            for tensor, reason in (
                (quantised, "Quantised weights cannot be read; export float weights"),
                (kernel.to_sparse(), "Sparse weights cannot be read"),
            ):
                torch.save({"conv.weight": tensor}, path, _use_new_zipfile_serialization=zipped)
                with pytest.raises(ModelError, match=reason):
                    read_state_dict(path)
