"""The manifest that is installed is the one at the root, and all it names is there."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import npe2
import pytest

ROOT = Path(__file__).resolve().parents[1]
NAME = "napari-unet-interactive"
MENU = re.compile(r"napari/(file|layers)/[a-z_]+")


@pytest.fixture(scope="module")
def manifest() -> npe2.PluginManifest:
    """Return the manifest as npe2 finds it in the installed package."""
    found = [result.manifest for result in npe2.PluginManifest.discover()]
    ours = [manifest for manifest in found if manifest is not None and manifest.name == NAME]
    assert len(ours) == 1, f"npe2 does not find {NAME} once. {REINSTALL}"
    return ours[0]


REINSTALL = (
    "Install again with `pip install -e .`: `git clean -X` removes the link to the manifest, and "
    "on a system without links an edit of the root file needs a new copy."
)


def test_the_installed_manifest_is_the_one_at_the_root():
    import napari_unet

    installed = Path(napari_unet.__file__).with_name("napari.yaml")
    assert installed.is_file(), REINSTALL
    assert installed.read_bytes() == (ROOT / "napari.yaml").read_bytes(), REINSTALL


def test_every_command_names_something_that_is_there(manifest: npe2.PluginManifest):
    for command in manifest.contributions.commands:
        module, _, name = command.python_name.partition(":")
        assert callable(getattr(importlib.import_module(module), name)), command.id


def test_every_contribution_names_a_command(manifest: npe2.PluginManifest):
    offers = manifest.contributions
    ids = {command.id for command in offers.commands}
    used = [*offers.widgets, *offers.readers, *offers.writers, *offers.sample_data]
    used += [item for items in offers.menus.values() for item in items]
    assert {item.command for item in used} <= ids


def test_the_menu_is_one_that_napari_fills(manifest: npe2.PluginManifest):
    menus = importlib.import_module("napari._app_model.constants._menus")
    for menu in manifest.contributions.menus:
        assert MENU.fullmatch(menu)
        assert menus.is_menu_contributable(menu)


def test_settings_agree_with_our_own(manifest: npe2.PluginManifest):
    from typing import get_args

    from napari_unet.settings import Device, FinetuneSettings

    groups = {key: group.properties for key, group in manifest.contributions.configurations.items()}
    assert groups["compute"]["device"].enum == list(get_args(Device))
    seconds = groups["retrain"]["seconds"]
    assert seconds.default == FinetuneSettings().seconds
    assert FinetuneSettings(seconds=seconds.maximum)


def test_npe2_finds_nothing_to_complain_about(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "npe2", "validate", NAME],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def copy_of_the_checkout(folder: Path) -> Path:
    """Copy what a build needs, with a link in the package as an editable install leaves it."""
    for name in ("pyproject.toml", "hatch_build.py", "napari.yaml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, folder / name)
    shutil.copy2(ROOT / ".gitignore", folder / ".gitignore")
    shutil.copytree(
        ROOT / "src",
        folder / "src",
        ignore=shutil.ignore_patterns("__pycache__", "napari.yaml"),
    )
    return folder


def build(folder: Path, *options: str) -> Path:
    """Build in a folder and return what came out."""
    command = [sys.executable, "-m", "build", "--no-isolation", *options, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "dist"


@pytest.mark.slow
@pytest.mark.parametrize("linked", [True, False], ids=["tree with the link", "tree without it"])
def test_a_wheel_holds_the_manifest_once(tmp_path: Path, linked):
    tree = copy_of_the_checkout(tmp_path)
    if linked:
        try:
            os.symlink("../../napari.yaml", tree / "src" / "napari_unet" / "napari.yaml")
        except OSError:
            pytest.skip("this system makes no links")
    (wheel,) = build(tree, "--wheel").glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
        assert names.count("napari_unet/napari.yaml") == 1
        assert packed.read("napari_unet/napari.yaml") == (ROOT / "napari.yaml").read_bytes()
        assert "napari_unet/py.typed" in names
        assert all(name.startswith(("napari_unet/", "napari_unet_interactive-")) for name in names)


@pytest.mark.slow
def test_a_wheel_built_from_the_sdist_holds_the_manifest(tmp_path: Path):
    built = build(copy_of_the_checkout(tmp_path))  # the sdist, and from it the wheel
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        assert packed.read("napari_unet/napari.yaml") == (ROOT / "napari.yaml").read_bytes()


def test_where_links_are_refused_the_manifest_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("hatchling")
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise OSError("a required privilege is not held by the client")

    source, target = tmp_path / "napari.yaml", tmp_path / "package.yaml"
    source.write_text("name: x")
    target.write_text("old")
    monkeypatch.setattr(os, "symlink", refuse)
    monkeypatch.setattr(Path, "symlink_to", refuse)
    hook.link_or_copy(source, target)
    assert target.read_text() == "name: x"
    assert not target.is_symlink()
