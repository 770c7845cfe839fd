"""The command line keeps its word: exit statuses, JSON only, errors in a sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_unet import cli
from napari_unet.arrays.metrics import evaluate
from napari_unet.cli.arguments import SAMPLE_NAMES
from napari_unet.files.images import read_image
from napari_unet.files.masks import export_labels
from napari_unet.models import library
from napari_unet.sample_data import SAMPLES

COMMANDS = (
    "demo",
    "open",
    "models",
    "info",
    "segment",
    "finetune",
    "evaluate",
    "export",
    "doctor",
)


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


def test_the_names_of_samples_are_those_there_are() -> None:
    assert tuple(SAMPLES) == SAMPLE_NAMES


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["segmnt"],
        ["segment", "a.tif"],
        ["segment", "a.tif", "--out", "x", "--formt", "png"],
        ["segment", "a.tif", "--out", "x", "--format", "jpg"],
        [
            "finetune",
            "--images",
            "a",
            "--labels",
            "b",
            "--out",
            "c",
            "--seconds",
            "9",
            "--steps",
            "9",
        ],
        ["info"],
    ],
)
def test_wrong_usage_is_2_and_told_on_standard_error(run, arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.status == 2
    assert done.out == ""
    assert "usage:" in done.err


def test_a_setting_out_of_range_names_the_field_and_the_range(run, threshold_model, images) -> None:
    done = run("segment", images, "--model", threshold_model, "--out", "x", "--threshold", "2")
    assert done.status == 2
    assert "threshold" in done.err
    assert "0.99" in done.err
    assert "Traceback" not in done.err


def test_segment_finds_the_objects_and_keeps_the_pixel_size(
    run, threshold_model, images, blobs, tmp_path
) -> None:
    out = tmp_path / "out"
    done = run("segment", images / "a.tif", "--model", threshold_model, "--out", out)
    assert done.status == 0
    assert done.err == ""
    mask = read_image(out / "a_labels.tif")
    assert mask.pixel_size_um == pytest.approx((0.5, 0.5))
    assert evaluate(mask.array, blobs.labels)["iou"] > 0.75
    assert [path.name for path in out.iterdir()] == ["a_labels.tif"]


def test_segment_takes_a_folder_and_writes_every_format(
    run, threshold_model, images, tmp_path
) -> None:
    out = tmp_path / "out"
    formats = ("--format", "ome-tiff", "--format", "imagej-tiff", "--probability")
    done = run("segment", images, "--model", threshold_model, "--out", out, *formats, "--json")
    assert done.status == 0
    assert [Path(image["image"]).name for image in done.json["images"]] == [
        "a.tif",
        "b.ome.tif",
        "c.npy",
    ]
    assert sorted(path.name for path in out.iterdir()) == sorted(
        f"{name}_{rest}"
        for name in "abc"
        for rest in ("labels.tif", "labels.ome.tif", "probability.tif")
    )
    probability = read_image(out / "b_probability.tif")
    assert probability.array.dtype == np.float32
    labels = tifffile.imread(out / "b_labels.tif")
    assert labels.shape == (5, 96, 128)
    foreground = probability.array.reshape(labels.shape) > 0.5
    assert np.all(foreground[labels > 0])
    assert (labels > 0).sum() > 0.9 * foreground.sum()
    assert done.json["images"][1]["objects"] == 5 * labels[0].max()


def test_options_reach_the_segmentation(run, threshold_model, images, tmp_path) -> None:
    common = ("segment", images / "a.tif", "--model", threshold_model, "--json", "--out")
    plain = run(*common, tmp_path / "1").json
    changed = run(
        *common, tmp_path / "2", "--min-size", "400", "--no-split", "--tile-px", "64", "--invert"
    ).json
    assert plain["settings"]["instances"] == {
        "threshold": 0.5,
        "min_size": 20,
        "split": True,
        "fill_holes": False,
    }
    assert changed["settings"]["instances"] == {
        "threshold": 0.5,
        "min_size": 400,
        "split": False,
        "fill_holes": False,
    }
    assert changed["settings"]["tile_px"] == 64
    assert changed["images"][0]["objects"] < plain["images"][0]["objects"]


def test_a_bad_image_is_told_and_the_rest_goes_on(run, threshold_model, images, tmp_path) -> None:
    (images / "bad.tif").write_bytes(b"II*\0 no TIFF")
    out = tmp_path / "out"
    done = run(
        *("segment", images / "none.tif", images / "bad.tif", images / "a.tif"),
        *("--model", threshold_model, "--out", out, "--json"),
    )
    assert done.status == 1
    assert [path.name for path in out.iterdir()] == ["a_labels.tif"]
    assert len(done.json["errors"]) == 2
    assert len(done.json["images"]) == 1
    told = [line for line in done.err.splitlines() if line.startswith("napari-unet:")]
    assert len(told) == 2
    assert "Traceback" not in done.err


def test_two_images_of_one_name_do_not_share_a_mask(run, threshold_model, images, tmp_path) -> None:
    other = tmp_path / "other" / "a.tif"
    other.parent.mkdir()
    other.write_bytes((images / "a.tif").read_bytes())
    done = run(
        "segment", images / "a.tif", other, "--model", threshold_model, "--out", tmp_path / "o"
    )
    assert done.status == 1
    assert "would replace that of" in done.err


def test_a_mask_never_replaces_an_image(run, threshold_model, images) -> None:
    done = run("segment", images, "--model", threshold_model, "--out", images)
    again = run("segment", images, "--model", threshold_model, "--out", images)
    assert done.status == again.status == 0
    names = {path.name for path in images.iterdir()}
    assert names == {
        *("a.tif", "b.ome.tif", "c.npy"),
        *("a_labels.tif", "b_labels.tif", "c_labels.tif"),
    }


def test_evaluate_pairs_by_name_and_pools(run, blobs, tmp_path) -> None:
    for folder, suffix in (("pred", "_labels"), ("truth", "_mask")):
        for name in ("a", "b"):
            labels = blobs.labels.copy()
            if folder == "pred" and name == "b":
                labels[labels == 1] = 0
            export_labels(labels, tmp_path / folder / f"{name}{suffix}.tif")
    export_labels(blobs.labels, tmp_path / "truth" / "lonely.tif")
    done = run("evaluate", tmp_path / "pred", tmp_path / "truth", "--json")
    assert done.status == 0
    count = int(blobs.labels.max())
    assert [scores["ap50"] for scores in done.json["images"].values()] == [1, (count - 1) / count]
    assert done.json["pooled"]["fn"] == 1
    assert "lonely.tif" in done.err
    shown = run("evaluate", tmp_path / "pred", tmp_path / "truth")
    assert "all together" in shown.out


def test_a_stack_is_judged_plane_by_plane_or_as_a_volume(run, blobs, tmp_path) -> None:
    stack = np.stack([blobs.labels, np.roll(blobs.labels, 64, axis=1)])
    first = export_labels(stack, tmp_path / "first.tif")
    other = stack.copy()
    other[1][other[1] > 0] += 100
    second = export_labels(other, tmp_path / "second.tif")
    assert run("evaluate", first, second, "--json").json["pooled"]["ap50"] == 1
    assert run("evaluate", first, second, "--volumes", "--json").json["pooled"]["ap50"] < 1


def test_export_takes_over_axes_and_pixel_size_of_the_image(run, images, blobs, tmp_path) -> None:
    labels = tmp_path / "labels.npy"
    np.save(labels, blobs.labels)
    out = tmp_path / "mask.ome.tif"
    done = run("export", labels, "--out", out, "--image", images / "a.tif")
    assert done.status == 0
    assert read_image(out).pixel_size_um == pytest.approx((0.5, 0.5))
    assert np.array_equal(tifffile.imread(out), blobs.labels)
    again = tmp_path / "binary.tif"
    assert run("export", out, "--out", again, "--kind", "binary").status == 0
    assert set(np.unique(tifffile.imread(again))) == {0, 255}
    assert read_image(again).pixel_size_um == pytest.approx((0.5, 0.5))


def test_export_refuses_grey_values_and_colours(run, images, tmp_path) -> None:
    done = run("export", images / "c.npy", "--out", tmp_path / "x.tif")
    assert done.status == 1
    assert "fractions" in done.err
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((32, 32, 3), np.uint8), photometric="rgb")
    done = run("export", tmp_path / "rgb.tif", "--out", tmp_path / "x.tif")
    assert "colour" in done.err
    assert not (tmp_path / "x.tif").exists()


def test_models_and_info_tell_the_card(run, threshold_model, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(library, "user_folder", lambda: threshold_model.parent)
    assert "bright things" in run("models").out
    (listed,) = [m for m in run("models", "--json").json["models"] if m["name"] == "threshold"]
    assert listed["card"]["segments"] == "bright things"
    assert "bright things" in run("info", "threshold").out
    assert run("info", threshold_model, "--json").json["card"] == listed["card"]


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


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is always a screen")
def test_open_without_a_screen_says_so(run, monkeypatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    done = run("open")
    assert done.status == 1
    assert "no screen" in done.err


def test_progress_is_shown_on_a_terminal_only(monkeypatch, capsys) -> None:
    from napari_unet.cli.output import Console
    from napari_unet.runs.progress import TileDone

    quiet = Console()
    quiet.progress(TileDone(1, 4))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    loud = Console()
    loud.progress(TileDone(1, 4))
    loud.say("result")
    shown = capsys.readouterr()
    assert "tile 1 of 4" in shown.err
    assert shown.err.endswith("\r")
    assert shown.out == "result\n"


def test_main_returns_the_status_for_the_console_script() -> None:
    assert cli.main(["--version"]) == 0
