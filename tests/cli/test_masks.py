"""``evaluate`` and ``export`` judge and write what are labels, and refuse what are none."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from napari_unet.files.images import read_image
from napari_unet.files.masks import export_labels


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


def test_export_refuses_the_image_of_another_stack(run, images, blobs, tmp_path) -> None:
    labels = export_labels(blobs.labels, tmp_path / "labels.tif")
    done = run("export", labels, "--out", tmp_path / "x.tif", "--image", images / "b.ome.tif")
    assert done.status == 1
    assert "the image is 5 x 96 x 128 (ZYX). Give labels of all its planes" in done.err
    assert not (tmp_path / "x.tif").exists()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (np.full((9, 9), np.nan), "no numbers"),
        (np.full((9, 9), 0.5), "fractions"),
        (np.full((9, 9), -1), "hold -1"),
    ],
)
def test_what_are_no_labels_is_told(run, tmp_path, values, sentence) -> None:
    np.save(tmp_path / "wrong.npy", values)
    np.save(tmp_path / "right.npy", np.ones((9, 9), int))
    done = run("evaluate", tmp_path / "wrong.npy", tmp_path / "right.npy", "--json")
    assert done.status == 1
    assert sentence in done.json["errors"][0]
    assert done.json["errors"][0].count("wrong.npy") == 1
    done = run("export", tmp_path / "wrong.npy", "--out", tmp_path / "x.tif")
    assert done.status == 1
    assert sentence in done.err


def test_a_file_that_cannot_be_read_is_named_once(run, tmp_path) -> None:
    (tmp_path / "zero.tif").touch()
    np.save(tmp_path / "labels.npy", np.ones((9, 9), int))
    done = run("evaluate", tmp_path / "zero.tif", tmp_path / "labels.npy")
    assert done.status == 1
    assert done.err.count("zero.tif") == 1
    assert str(tmp_path / "zero.tif") in done.err
