"""``segment`` writes a mask for each image, and a bad image does not stop the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from napari_unet.arrays.metrics import evaluate
from napari_unet.files.images import read_image
from napari_unet.models.model import load_model
from napari_unet.runs import fitted


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
        *common,
        tmp_path / "2",
        "--min-size",
        "400",
        "--no-split",
        "--tile-px",
        "64",
        "--invert",
        "--split-level",
        "0.4",
    ).json
    assert plain["settings"]["instances"] == {
        "threshold": 0.5,
        "min_size": 20,
        "split": True,
        "split_level": 0.5,
        "fill_holes": False,
    }
    assert changed["settings"]["instances"] == {
        "threshold": 0.5,
        "min_size": 400,
        "split": False,
        "split_level": 0.4,
        "fill_holes": False,
    }
    assert changed["settings"]["tile_px"] == 64
    assert changed["images"][0]["objects"] < plain["images"][0]["objects"]


def test_the_smallest_object_follows_the_object_size_unless_it_is_told(
    run, images, tmp_path
) -> None:
    common = ("segment", images / "a.tif", "--model", "nuclei", "--json", "--object-size-px")
    for more, smallest in (((), 30 * 4), (("--min-size", "7"), 7)):
        done = run(*common, "37.6", *more, "--out", tmp_path / str(smallest)).json
        assert done["settings"]["instances"]["min_size"] == smallest


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


def test_a_file_that_cannot_be_read_is_named_once(run, threshold_model, images, tmp_path) -> None:
    (images / "bad.tif").write_bytes(b"no TIFF")
    (tmp_path / "empty").mkdir()
    wrong = (images / "bad.tif", images / "none.tif", tmp_path / "empty")
    done = run("segment", *wrong, "--model", threshold_model, "--out", tmp_path / "out")
    assert done.status == 1
    told = done.err.splitlines()
    assert len(told) == 3
    for path, line in zip(wrong, told, strict=True):
        assert line.count(str(path)) == line.count(path.name) == 1


def test_a_run_is_replayed_from_what_it_printed(run, threshold_model, images, tmp_path) -> None:
    common = ("segment", images / "a.tif", "--model", threshold_model, "--json", "--out", tmp_path)
    first = run(*common, "--threshold", "0.7", "--min-size", "33")
    (tmp_path / "first.json").write_text(first.out)
    again = run(*common, "--settings", tmp_path / "first.json", "--min-size", "44").json
    assert again["settings"]["instances"]["threshold"] == 0.7
    assert again["settings"]["instances"]["min_size"] == 44, "the command line comes first"


def test_small_tiles_after_a_lack_of_memory_are_told_until_they_are_forgotten(
    run, threshold_model, images, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(fitted, "_of_this_process", {})
    monkeypatch.setattr(fitted, "user_state_path", lambda *_, **__: tmp_path / "state")
    net = load_model(threshold_model).net
    fitted.remember(net, torch.device("cpu"), torch.float32, 48, 1)
    common = ("segment", images / "a.tif", images / "c.npy", "--model", threshold_model)
    small = run(*common, "--out", tmp_path / "1", "--device", "cpu")
    assert "Beginning with a tile of" in small.err
    assert "--forget-tiles" in small.err
    large = run(*common, "--out", tmp_path / "2", "--device", "cpu", "--forget-tiles")
    assert (large.status, large.err) == (0, "")
    assert run(*common, "--out", tmp_path / "3", "--device", "cpu").err == ""
