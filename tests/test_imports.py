"""What is not needed is not loaded; each check runs in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "napari", "qtpy", "skimage", "scipy", "tifffile", "pydantic")


def loaded_after(code: str, *packages: str) -> set[str]:
    """Run code in a new interpreter and return which of the packages it has loaded."""
    probe = f"import sys\n{code}\nprint([p for p in {packages!r} if p in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", probe],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return set(eval(done.stdout.splitlines()[-1]))


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_after("import napari_unet", *HEAVY) == set()


def test_importing_the_command_line_loads_nothing_heavy():
    assert loaded_after("import napari_unet.cli", "torch", "napari", "qtpy", "skimage") == set()


@pytest.mark.parametrize(
    "module",
    [
        "arrays.axes",
        "arrays.corrections",
        "arrays.instances",
        "arrays.metrics",
        "arrays.normalize",
        "arrays.targets",
        "arrays.tiles",
        "arrays.uncertainty",
        "files.images",
        "files.masks",
        "models.card",
        "models.description",
        "models.formats",
        "models.hdf5",
        "models.library",
        "settings",
        "worker.protocol",
    ],
)
def test_rooms_without_torch_and_napari(module: str):
    assert loaded_after(f"import napari_unet.{module}", "torch", "napari", "qtpy") == set()


def test_the_dock_and_what_the_manifest_names_load_no_torch(qtbot):
    code = "import napari_unet.widget.dock, napari_unet.widget.contributions"
    assert loaded_after(code, "torch", "napari", "qtpy") <= {"napari", "qtpy"}


def test_the_probe_notices_what_is_loaded():
    assert loaded_after("import torch", "torch", "napari") == {"torch"}
