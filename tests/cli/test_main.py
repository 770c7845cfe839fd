"""The command line keeps its word: exit statuses, JSON only, errors in a sentence."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from napari_unet import cli
from napari_unet.models import library

COMMANDS = (
    "demo",
    "open",
    "models",
    "info",
    "segment",
    "finetune",
    "evaluate",
    "export",
    "convert",
    "doctor",
)


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help_is_there_for_every_command(run, arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.status == 0
    assert "usage: napari-unet" in done.out


def test_help_imports_neither_torch_nor_napari_nor_numpy() -> None:
    code = (
        "import sys; from napari_unet.cli import main; main(['segment', '--help']);"
        "heavy = {'torch', 'napari', 'numpy', 'skimage'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    "arguments",
    [
        ("info", "no-such-model"),
        ("segment", "a.tif", "--model", "no-such-model", "--out", "x"),
        ("export", "none.tif", "--out", "x.tif"),
        ("evaluate", "none", "none"),
        ("finetune", "--images", "none", "--labels", "none", "--out", "x"),
    ],
)
def test_an_error_is_one_or_two_lines_and_with_json_it_is_in_the_object(
    run, arguments, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*arguments, "--json")
    assert done.status == 1
    assert 1 <= len(done.err.splitlines()) <= 2
    assert done.err.startswith("napari-unet: ")
    assert done.json["errors"] == [done.err.strip().removeprefix("napari-unet: ")]
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback(run) -> None:
    done = run("info", "no-such-model", "--debug")
    assert done.status == 1
    assert "Traceback" in done.err


def test_a_defect_is_told_as_one(run, monkeypatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(library, "list_models", fail)
    done = run("models", "--json")
    assert done.status == 1
    assert "should not have happened (ZeroDivisionError" in done.err
    assert "Traceback" not in done.err


def test_ctrl_c_is_told_in_one_line(run, monkeypatch) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(library, "list_models", interrupt)
    done = run("models")
    assert done.status == 1
    assert done.err.startswith("napari-unet: Interrupted")


def test_what_libraries_print_does_not_spoil_the_json(run, monkeypatch) -> None:
    def chatty() -> list[object]:
        sys.stdout.write("hello from a library\n")
        return []

    monkeypatch.setattr(library, "list_models", chatty)
    done = run("models", "--json")
    assert done.json["models"] == []
    assert "hello" in done.err


def test_a_reader_that_goes_away_is_no_error() -> None:
    code = "import sys; from napari_unet.cli import main; sys.exit(main(['models', '--json']))"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_main_returns_the_status_for_the_console_script() -> None:
    assert cli.main(["--version"]) == 0
