from __future__ import annotations

import random
import shutil
import warnings
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from napari_unet.errors import ModelError
from napari_unet.models.torchscript import read_torchscript
from tests.models.foreign_nets import (
    TOLERANCE,
    Foreign,
    Unpadded,
    answer,
    difference,
    image,
    shaken,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning"
)


def saved(net: nn.Module, path: Path, x: torch.Tensor | None = None) -> Path:
    """Script a network, or trace it with an image, and save it."""
    module = torch.jit.script(net) if x is None else torch.jit.trace(net, x, check_trace=False)
    module.save(path)
    return path


@pytest.mark.parametrize("how", ["traced", "scripted"])
@pytest.mark.parametrize("seed", range(4))
def test_a_network_answers_as_torch_does(seed, how, tmp_path):
    net = Foreign(seed)
    x = image(net.shape)
    found = read_torchscript(saved(net, tmp_path / "net.pt", x if how == "traced" else None))[0]
    other = image((1, net.in_channels, *(40, 32, 24)[: net.dims]), 1)
    for given in (x, other):
        with torch.no_grad():
            assert difference(answer(found, given), net(given)) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", range(0, 200, 50))
def test_hundreds_of_networks_answer_as_torch_does(first, tmp_path):
    for seed in range(first, first + 50):
        net = Foreign(seed)
        x = image(net.shape)
        for given in (x, None):
            found = read_torchscript(saved(net, tmp_path / "net.pt", given))[0]
            for shape in (net.shape, (1, net.in_channels, *(40, 32, 24)[: net.dims])):
                other = image(shape, 1)
                with torch.no_grad():
                    assert difference(answer(found, other), net(other)) <= TOLERANCE, seed


class Choosing(nn.Module):
    """Pads by one pixel where sizes differ: a choice for each axis."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, 2, 3, padding=1)
        self.up = nn.ConvTranspose2d(2, 2, 2, stride=2)
        self.last = nn.Conv2d(4, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = self.down(x)
        y = self.up(functional.max_pool2d(skip, 2))
        sides = [0, 0, 0, 0]
        for axis in range(2):
            if skip.shape[-1 - axis] != y.shape[-1 - axis]:
                sides[2 * axis + 1] = 1
        y = functional.pad(y, sides, "replicate")
        return self.last(torch.cat([skip, y], 1))


class Resizing(Choosing):
    """Resizes only where sizes differ."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skip = self.down(x)
        y = self.up(functional.max_pool2d(skip, 2))
        if y.shape[2] != skip.shape[2] or y.shape[3] != skip.shape[3]:
            y = functional.interpolate(y, size=skip.shape[2:], mode="bilinear")
        return self.last(torch.cat([skip, y], 1))


@pytest.mark.parametrize("kind", [Choosing, Resizing])
def test_a_choice_that_depends_on_the_size_is_right_for_every_size(kind, tmp_path):
    net = shaken(kind(), 0)
    found = read_torchscript(saved(net, tmp_path / "net.pt"))[0]
    for shape in ((16, 16), (17, 16), (16, 19), (21, 23)):
        x = image((1, 1, *shape))
        with torch.no_grad():
            assert difference(answer(found, x), net(x)) <= TOLERANCE


@pytest.mark.parametrize("how", ["traced", "scripted"])
def test_a_frozen_network_is_read(how, tmp_path):
    net = Foreign(0)
    x = image(net.shape)
    module = torch.jit.trace(net, x) if how == "traced" else torch.jit.script(net)
    torch.jit.freeze(module).save(tmp_path / "net.pt")
    found = read_torchscript(tmp_path / "net.pt")[0]
    other = image((1, net.in_channels, *(40, 32, 24)[: net.dims]), 1)
    for given in (x, other):
        with torch.no_grad():
            assert difference(answer(found, given), net(given)) <= TOLERANCE


def test_a_network_optimised_for_a_processor_is_refused_with_what_to_do(tmp_path):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 1, 3)).eval()
    torch.jit.save(torch.jit.optimize_for_inference(torch.jit.script(net)), tmp_path / "net.pt")
    with zipfile.ZipFile(tmp_path / "net.pt") as archive:
        code = b"".join(archive.read(n) for n in archive.namelist() if n.endswith(".py"))
    if b"MKLDNN" not in code:
        pytest.skip("this torch was built without MKLDNN")
    with pytest.raises(ModelError, match=r"before torch\.jit\.optimize_for_inference"):
        read_torchscript(tmp_path / "net.pt")


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("how", ["traced", "scripted"])
def test_skips_that_are_cut_axis_by_axis_fit_at_any_size(how, dims, tmp_path):
    net = shaken(Unpadded(dims), 0)
    x = image((1, 1, *(36, 40, 44)[:dims]))
    found = read_torchscript(saved(net, tmp_path / "net.pt", x if how == "traced" else None))[0]
    for sizes in ((36, 36, 36), (40, 37, 45), (42, 43, 36)):
        other = image((1, 1, *sizes[:dims]), 1)
        with torch.no_grad():
            assert difference(answer(found, other), net(other)) <= TOLERANCE


@pytest.mark.parametrize("how", ["traced", "scripted"])
@pytest.mark.parametrize("name", ["BasicUNet", "UNet", "DynUNet"])
def test_the_networks_of_monai_are_read(name, how, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from monai.networks import nets

        if name == "BasicUNet":
            net = nets.BasicUNet(2, 1, 2, features=(4, 4, 8, 8, 8, 4))
        elif name == "UNet":
            net = nets.UNet(2, 1, 2, (4, 8, 8), (2, 2), num_res_units=2)
        else:
            net = nets.DynUNet(2, 1, 2, [3, 3, 3], [1, 2, 2], [2, 2])
        shaken(net, 1)
        x = image((1, 1, 32, 48))
        path = saved(net, tmp_path / "net.pt", x if how == "traced" else None)
    found = read_torchscript(path)[0]
    with torch.no_grad():
        assert difference(answer(found, x), net(x)) <= TOLERANCE


class TwoInputs(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y


class Sorting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 1, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cumsum(self.first(x), 1)


class Waking(nn.Module):
    """Does something when it is loaded by torch."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 1, 3)

    @torch.jit.export
    def __getstate__(self) -> tuple[torch.Tensor, bool]:
        return (torch.zeros(1), self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]) -> None:
        self.training = state[1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.first(x)


def test_two_inputs_are_refused_in_a_sentence(tmp_path):
    path = saved(TwoInputs(), tmp_path / "net.pt")
    with pytest.raises(ModelError, match="it has two inputs"):
        read_torchscript(path)


def test_an_operation_that_is_not_known_is_refused_by_its_name(tmp_path):
    path = saved(Sorting(), tmp_path / "net.pt")
    with pytest.raises(ModelError, match=r"torch\.cumsum"):
        read_torchscript(path)


def test_code_that_runs_when_a_file_is_opened_is_refused(tmp_path):
    path = saved(Waking(), tmp_path / "net.pt")
    with pytest.raises(ModelError, match="__setstate__"):
        read_torchscript(path)


def test_torch_never_opens_the_file(tmp_path, monkeypatch):
    path = saved(nn.Conv2d(1, 2, 3), tmp_path / "net.pt")

    def fail(*_, **__):
        raise AssertionError("the file was opened by torch")

    monkeypatch.setattr(torch.jit, "load", fail)
    monkeypatch.setattr(torch, "load", fail)
    assert read_torchscript(path)


def test_a_sigmoid_at_the_end_stands_in_the_card(tmp_path):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sigmoid())
    found = read_torchscript(saved(net, tmp_path / "net.pt"))
    assert [one.card["activation"] for one in found] == ["sigmoid"]


def test_without_an_activation_both_readings_are_offered(tmp_path):
    found = read_torchscript(saved(nn.Conv2d(1, 2, 3), tmp_path / "net.pt"))
    assert [one.card["activation"] for one in found] == ["softmax", "none"]
    assert all("activation" in one.assumed for one in found)


def test_the_nuclei_model_gives_its_reference_output(data_dir):
    folder = data_dir / "weights" / "bioimageio_nuclei_broad"
    found = read_torchscript(folder / "weights_torchscript.pt")[0]
    x = np.load(folder / "test_input.npy").astype(np.float32)
    x = torch.from_numpy((x - x.mean()) / (x.std() + 1e-6))
    expected = torch.from_numpy(np.load(folder / "test_output.npy"))
    assert found.card["activation"] == "sigmoid"
    assert difference(answer(found, x).sigmoid(), expected) <= TOLERANCE


def test_the_model_of_two_inputs_is_refused(data_dir):
    folder = data_dir / "weights" / "bioimageio_multi_tensor"
    with pytest.raises(ModelError, match="two inputs"):
        read_torchscript(folder / "weights_torchscript_traced.pt")


def mutated(content: bytes, seed: int) -> bytes:
    """Cut, flip or insert bytes."""
    chance = random.Random(seed)
    changed = bytearray(content)
    kind = chance.choice(["cut", "flip", "flip", "set", "insert", "delete"])
    at = chance.randrange(len(changed))
    if kind == "cut":
        del changed[at:]
    elif kind == "insert":
        changed[at:at] = bytes(chance.randrange(256) for _ in range(8))
    elif kind == "delete":
        del changed[at : at + chance.choice([1, 8, 100])]
    else:
        for _ in range(chance.choice([1, 3, 30])):
            at = chance.randrange(len(changed))
            changed[at] = chance.randrange(256) if kind == "set" else changed[at] ^ 1
    return bytes(changed)


def rewritten(path: Path, target: Path, seed: int) -> Path:
    """Damage one part of the archive and pack it again, so that its checksum is right."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        names = [name for name in old.namelist() if not name.endswith(".debug_pkl")]
        chosen = random.Random(seed).choice(
            [name for name in names if name.endswith((".py", ".pkl"))]
        )
        for name in names:
            content = old.read(name)
            new.writestr(name, mutated(content, seed) if name == chosen else content)
    return target


@pytest.mark.slow
@pytest.mark.parametrize("inside", [False, True])
def test_damaged_files_are_refused_or_read_and_nothing_else(inside, tmp_path):
    good = saved(Foreign(3), tmp_path / "good.pt")
    bad = tmp_path / "bad.pt"
    refused = 0
    for seed in range(300):
        if inside:
            rewritten(good, bad, seed)
        else:
            bad.write_bytes(mutated(good.read_bytes(), seed))
        try:
            assert read_torchscript(bad)
        except ModelError:
            refused += 1
    assert refused > 100


def test_an_archive_that_unpacks_to_very_much_is_refused(tmp_path):
    good = saved(nn.Conv2d(1, 2, 3), tmp_path / "good.pt")
    bad = tmp_path / "bad.pt"
    with zipfile.ZipFile(good) as old:
        name = next(name for name in old.namelist() if name.endswith("data.pkl"))
        with zipfile.ZipFile(bad, "w", zipfile.ZIP_DEFLATED) as new:
            for entry in old.namelist():
                content = b"\x80\x02" + bytes(100 << 20) if entry == name else old.read(entry)
                new.writestr(entry, content)
    with pytest.raises(ModelError, match="too large"):
        read_torchscript(bad)


def test_what_is_no_archive_is_refused(tmp_path):
    path = tmp_path / "net.pt"
    path.write_bytes(b"no archive")
    with pytest.raises(ModelError, match="damaged"):
        read_torchscript(path)
    shutil.make_archive(str(tmp_path / "empty"), "zip", tmp_path)
    with pytest.raises(ModelError, match="no list of weights"):
        read_torchscript(tmp_path / "empty.zip")
