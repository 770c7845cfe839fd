"""What all tests share: small networks, images with known truth, real data, driving a job.

Heavy packages are imported inside the fixtures, so that a test of one function stays quick.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import hypothesis
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import numpy as np

    from napari_unet.network.unet import UNet

ROOT = Path(__file__).resolve().parents[1]
DATA_VARIABLE = "NAPARI_UNET_TEST_DATA"
REQUIRE_VARIABLE = "NAPARI_UNET_REQUIRE_DATA"
WINDOW_FIXTURES = {"qtbot", "qapp", "make_napari_viewer", "make_napari_viewer_proxy"}

# Small networks on several threads collapse when the machine is busy; set before torch is there.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A dialog that a test leaves behind is an error.
os.environ.setdefault("NAPARI_STRICT_QT", "1")
# What a test lets the dock remember must not reach the next run, nor the person's own napari.
os.environ["NAPARI_CONFIG"] = str(Path(tempfile.mkdtemp(prefix="napari-config-")) / "settings.yaml")
# The same examples in each run, so that a failure is the change's; to look for new ones:
# pytest --hypothesis-profile=explore
hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.register_profile("explore", deadline=None, print_blob=True)
hypothesis.settings.load_profile("same")


class Blobs(NamedTuple):
    """An image of round objects and the truth about them."""

    image: np.ndarray
    """float32, shape (Y, X): grey values with noise."""
    labels: np.ndarray
    """int32, shape (Y, X): 1..n, 0 is background; some objects touch."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a window where there is none; Qt would end the whole run."""
    if sys.platform != "linux" or {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
        return
    no_screen = pytest.mark.skip(reason="no screen here: `make test` brings one (Xvfb)")
    for item in items:
        if WINDOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(no_screen)


@pytest.fixture(autouse=True, scope="session")
def own_user_folder(tmp_path_factory: pytest.TempPathFactory) -> Generator[Path]:
    """Keep the models and settings of the person who runs the tests out of them."""
    folder = tmp_path_factory.mktemp("user")
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "LOCALAPPDATA"):
            patch.setenv(variable, str(folder))
        yield folder


@pytest.fixture
def tiny_unet() -> UNet:
    """Return a 2D U-Net of two poolings and four channels, always with the same weights."""
    import torch

    from napari_unet.network.unet import UNet
    from napari_unet.settings import Architecture

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return UNet(Architecture(widths=(4, 8, 16))).eval()


@pytest.fixture
def blobs() -> Blobs:
    """Return 14 discs on 96 x 128 pixels, some touching, brighter than a noisy background."""
    import numpy as np

    random = np.random.default_rng(0)
    y, x = np.mgrid[:96, :128]
    labels = np.zeros(y.shape, np.int32)
    for row in range(3):
        for column in range(5 if row != 1 else 4):
            number = int(labels.max()) + 1
            centre_y, centre_x = 18 + 30 * row, 14 + 25 * column
            radius = 13 if (row + column) % 2 else 11
            inside = (y - centre_y) ** 2 + (x - centre_x) ** 2 <= radius**2
            labels[inside & (labels == 0)] = number
    image = 100 + 60 * (labels > 0) + 15 * random.standard_normal(labels.shape)
    return Blobs(image.astype(np.float32), labels)


@pytest.fixture
def wide_blobs(blobs: Blobs) -> Blobs:
    """Return the discs twice, side by side: enough for a training to keep some aside."""
    import numpy as np

    mirrored = blobs.labels[:, ::-1]
    others = np.where(mirrored, mirrored + blobs.labels.max(), 0)
    return Blobs(
        np.concatenate([blobs.image, blobs.image[:, ::-1]], axis=1),
        np.concatenate([blobs.labels, others], axis=1),
    )


@pytest.fixture
def run_to_end() -> Callable[[Generator[Any, None, Any]], tuple[list[Any], Any]]:
    """Return a function that drives a job to its end: (what it reported, its result)."""

    def run(job: Generator[Any, None, Any]) -> tuple[list[Any], Any]:
        progress = []
        while True:
            try:
                progress.append(next(job))
            except StopIteration as end:
                return progress, end.value

    return run


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder of real images; skip where it is not, unless it is required."""
    folder = Path(os.environ.get(DATA_VARIABLE, ROOT.parent / "shared" / "data"))
    if (folder / "images").is_dir():
        return folder
    sentence = f"no real images at {folder}; set {DATA_VARIABLE} to the folder that has `images`"
    if os.environ.get(REQUIRE_VARIABLE, "0") not in {"", "0"}:
        pytest.fail(f"{sentence} ({REQUIRE_VARIABLE} is set, so this is a failure)")
    pytest.skip(sentence)
