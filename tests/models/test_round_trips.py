"""Networks of others, opened here and written again, compute the same in every program."""

from __future__ import annotations

import copy
import functools
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from napari_unet.models.export import export_model
from napari_unet.models.model import Model
from napari_unet.models.opening import load_model, open_weights
from tests.models.recognise.nets import Brain, Milesial, shaken
from tests.models.recognise.test_smp import make_torchvision_importable
from tests.models.recognise.test_torch_em import TorchEm
from tests.models.recognise.test_unet3d import UNet3D

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(600)]

TOLERANCE = 1e-5
PACKAGE = {"authors": ["Ada Lovelace"], "licence": "MIT", "description": "Labels round things."}
OF_A_PACKAGE = {
    *("architecture", "source", "source_sha256", "original_names"),
    *("segments", "authors", "licence", "cite"),
}
PLAIN_TORCH = """
import sys, torch
net = torch.jit.load(sys.argv[1]).eval()
with torch.inference_mode():
    torch.save([net(image) for image in torch.load(sys.argv[2])], sys.argv[3])
assert not [name for name in sys.modules if name.startswith("napari")]
"""


@functools.cache
def operators() -> object:
    """Keep what makes torchvision importable."""
    return make_torchvision_importable()


def smp() -> nn.Module:
    operators()
    library = pytest.importorskip("segmentation_models_pytorch")
    return library.Unet("resnet18", encoder_weights=None, in_channels=3, classes=2)


def monai(kind: str, **options: object) -> nn.Module:
    nets = pytest.importorskip("monai.networks.nets")
    return getattr(nets, kind)(in_channels=1, out_channels=1, **options)


NETS: dict[str, Callable[[], nn.Module]] = {
    "milesial, 3 classes": lambda: Milesial(3, 3, bilinear=True, base=4),
    "brain": lambda: Brain(3, 1, 4),
    "smp": smp,
    "monai BasicUNet": lambda: monai("BasicUNet", spatial_dims=2, features=(4, 4, 8, 8, 16, 4)),
    "monai UNet in 3D": lambda: monai(
        "UNet", spatial_dims=3, channels=(4, 8, 16), strides=(2, 2), num_res_units=2
    ),
    "monai DynUNet": lambda: monai(
        "DynUNet",
        spatial_dims=2,
        kernel_size=[3, 3, 3],
        strides=[1, 2, 2],
        upsample_kernel_size=[2, 2],
        filters=[4, 8, 16],
        norm_name="instance",
    ),
}

PACKED: dict[str, Callable[[], nn.Module]] = {
    **NETS,
    "torch-em": lambda: TorchEm(classes=2),
    "torch-em in 3D": lambda: TorchEm(3, classes=2),
    "pytorch-3dunet": UNet3D,
    "monai AttentionUnet": lambda: monai(
        "AttentionUnet", spatial_dims=2, channels=(4, 8, 16), strides=(2, 2)
    ),
}


def opened(name: str, folder: Path) -> Model:
    """Open a state dict in the reading that computes what the original computes."""
    net = shaken(PACKED[name]()).eval()
    torch.save(net.state_dict(), folder / "theirs.pth")
    image = images(open_weights(folder / "theirs.pth")[0])[0]
    with torch.inference_mode():
        expected = net(image)
        for model in open_weights(folder / "theirs.pth"):
            given = model.net(image)
            if given.shape == expected.shape and torch.allclose(given, expected, atol=1e-4):
                return model
    pytest.fail("no reading computes what the original computes")


def images(model: Model) -> list[torch.Tensor]:
    """Make images of two sizes."""
    shape, random = model.card.architecture, torch.Generator().manual_seed(3)
    sizes = [[64] * shape.spatial_dims, [64] * (shape.spatial_dims - 1) + [128]]
    if shape.spatial_dims == 3:
        sizes = [[16, 32, 32], [32, 32, 48]]
    return [torch.rand((1, shape.in_channels, *size), generator=random) for size in sizes]


def said(model: Model, image: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model.activate(model.net(image))


def meant(model: Model, image: torch.Tensor) -> torch.Tensor:
    """Compute in double precision: in single, torch itself errs by 1.1e-5 on some processors."""
    net = copy.deepcopy(model.net).double()
    with torch.inference_mode():
        return model.activate(net(image.double()))


@pytest.mark.parametrize("name", NETS)
def test_networks_of_others_are_the_same_in_onnxruntime(name, tmp_path):
    import onnxruntime

    model = opened(name, tmp_path)
    session = onnxruntime.InferenceSession(export_model(model, tmp_path / "net.onnx"))
    for image in images(model):
        given = torch.from_numpy(session.run(None, {"image": image.numpy()})[0])
        torch.testing.assert_close(given.double(), meant(model, image), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", NETS)
def test_networks_of_others_are_the_same_in_plain_torch(name, tmp_path):
    model = opened(name, tmp_path)
    script = export_model(model, tmp_path / "net.pt")
    torch.save(images(model), tmp_path / "images.pth")
    places = [str(tmp_path / name) for name in ("images.pth", "answers.pth")]
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PLAIN_TORCH, str(script), *places], check=True
    )
    answers = torch.load(tmp_path / "answers.pth")
    for image, given in zip(images(model), answers, strict=True):
        torch.testing.assert_close(given, said(model, image), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", NETS)
def test_networks_of_others_open_again_as_they_were(name, tmp_path):
    model = opened(name, tmp_path)
    for file in ("net.safetensors", "net.pth", "net.pt", "net.onnx"):
        again = load_model(export_model(model, tmp_path / file))
        for image in images(model):
            torch.testing.assert_close(
                said(again, image), said(model, image), atol=TOLERANCE, rtol=0
            )


@pytest.mark.parametrize("name", PACKED)
def test_packages_of_networks_of_others_open_again_as_they_were(name, tmp_path):
    model = opened(name, tmp_path)
    again = load_model(export_model(model, tmp_path / "net.zip", **PACKAGE))
    for image in images(model):
        torch.testing.assert_close(said(again, image), said(model, image), atol=TOLERANCE, rtol=0)
    assert again.card.model_dump(exclude=OF_A_PACKAGE) == model.card.model_dump(
        exclude=OF_A_PACKAGE
    )


@pytest.mark.parametrize("name", ["smp", "monai UNet in 3D"])
def test_packages_of_networks_of_others_pass_the_official_tests(name, tmp_path):
    from bioimageio.core import test_model as run_package

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = export_model(
            opened(name, tmp_path),
            tmp_path / "net.zip",
            authors=["Ada Lovelace"],
            licence="MIT",
            cite=["Our paper, doi:10.1000/xyz123"],
            description="Labels round things.",
        )
        for weights in ("torchscript", "onnx"):
            summary = run_package(path, weight_format=weights)
            assert summary.status == "passed", summary.format()
