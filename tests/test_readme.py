"""What the README shows must run, and what it names must exist."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the code blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_the_python_of_the_readme_runs_and_learning_helps(tmp_path) -> None:
    code = "\n".join(blocks("python"))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    scores = dict(re.findall(r"^(before|after): ([\d.]+)", done.stdout, re.MULTILINE))
    assert float(scores["after"]) > float(scores["before"])
    assert {p.name for p in tmp_path.iterdir()} >= {"tissue.safetensors", "tissue.ome.tif"}


def test_every_command_of_the_readme_exists() -> None:
    from napari_unet.cli.arguments import build_parser

    help_text = build_parser().format_help()
    named = re.findall(r"napari-unet ([a-z]+)\b", " ".join(blocks("sh")))
    assert named
    for command in named:
        assert re.search(rf"^    {command}\b", help_text, re.MULTILINE), command


def test_every_file_the_readme_points_to_exists() -> None:
    local = [t for t in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in t]
    missing = [target for target in local if not (ROOT / target).exists()]
    assert not missing


def test_every_make_target_of_the_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"\bmake ([a-z]+)", README)) - {"s"}:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
