"""The scripts of benchmarks/ run, and compare what can be compared."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow


def run(script: str, *options: str) -> str:
    """Run a script of benchmarks/ and return what it printed."""
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / script, *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_ways_to_run_a_network_give_the_same_but_for_the_blended_ones(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    options = ("--nets", "light-bn", "--sizes", "512", "--runs", "1", "--json", str(figures))
    table = run("inference.py", *options)
    (measured,) = json.loads(figures.read_text(encoding="utf-8"))["tables"]
    errors = {row["name"]: row["max_error"] for row in measured["rows"]}
    assert errors["whole image, as it is"] == 0
    assert 0 < errors["whole image, same levers"] < 1e-4
    assert 0 < errors["this engine"] < 1e-4
    blended = [error for name, error in errors.items() if name.startswith("MONAI")]
    assert all(error > 1e-2 for error in blended)
    assert "| this engine |" in table


def test_the_labels_benchmark_finds_the_nuclei_that_it_made(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    run("labels.py", "--quick", "--runs", "1", "--json", str(figures))
    measured = json.loads(figures.read_text(encoding="utf-8"))
    found = measured["objects"]["labels from foreground and distance"]
    assert found == pytest.approx(measured["nuclei"], rel=0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux tells about a process")
def test_the_memory_benchmark_sees_the_memory_of_a_run() -> None:
    measured = json.loads(run("memory.py", "--case", "whole", "--side", "512"))
    features = 2 * 8 * 512**2 * 4 / 2**20  # two feature maps of the top level, MiB
    assert features < measured["MiB"] < 100 * features
