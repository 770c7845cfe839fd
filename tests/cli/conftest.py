"""A network whose answer is known, and the command line run in this process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_unet.cli import main


@pytest.fixture(scope="session")
def threshold_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a model that calls a pixel foreground if it is in the brighter half of grey values."""
    import torch

    from napari_unet.models.card import Card
    from napari_unet.models.model import Model, save_model
    from napari_unet.network.unet import UNet
    from napari_unet.settings import Architecture, Normalization

    net = UNet(Architecture(widths=(1, 1)))
    with torch.no_grad():
        for weight in net.parameters():
            weight.zero_()
        pass_on = (net.down[0].units[0], net.down[0].units[1], net.up[0].block.units[1])
        for unit in pass_on:
            unit.convolution.weight[0, 0, 1, 1] = 1
        net.up[0].block.units[0].convolution.weight[0, 1, 1, 1] = 1
        net.output.weight.fill_(40)
        net.output.bias.fill_(-20)
    card = Card(
        name="threshold",
        segments="bright things",
        architecture=net.architecture,
        normalization=Normalization(kind="min-max"),
    )
    folder = tmp_path_factory.mktemp("models")
    return save_model(Model(net, card), folder / "threshold.safetensors")


class Ran:
    """What a command said and how it ended."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def json(self) -> dict:
        """Standard output as the one JSON object that it must be."""
        return json.loads(self.out, parse_constant=pytest.fail)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]):
    """Return a function that runs a command; the file descriptors are watched, too."""

    def run(*arguments: object) -> Ran:
        capfd.readouterr()
        status = main([str(argument) for argument in arguments])
        return Ran(status, *capfd.readouterr())

    return run


@pytest.fixture
def images(tmp_path: Path, blobs) -> Path:
    """Write three images: calibrated, a stack, a picture."""
    folder = tmp_path / "images"
    folder.mkdir()
    grey = np.clip(blobs.image, 0, 65535).astype(np.uint16)
    tifffile.imwrite(
        folder / "a.tif", grey, imagej=True, resolution=(2, 2), metadata={"unit": "um"}
    )
    tifffile.imwrite(folder / "b.ome.tif", np.stack([grey] * 5), ome=True, metadata={"axes": "ZYX"})
    np.save(folder / "c.npy", blobs.image)
    return folder
