"""Images and labels find each other by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_unet.cli.files import find_images, pair_files, stem
from napari_unet.errors import FileError


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.tif", "a"),
        ("a.ome.tif", "a"),
        ("a.OME.TIFF", "a"),
        ("plate.well.1.tif", "plate.well.1"),
        ("x.png.npy", "x"),
        ("y.zarr", "y"),
    ],
)
def test_a_stem_is_the_name_without_its_image_endings(name: str, expected: str) -> None:
    assert stem(Path(name)) == expected


@pytest.mark.parametrize(
    ("image", "labels"),
    [
        ("a.tif", "a.png"),
        ("a_image.tif", "a_labels.tif"),
        ("a.ome.tif", "a_mask.tif"),
        ("A-img.png", "a.masks.npy"),
        ("a_raw.tif", "a_gt.tif"),
        ("a_image_labels.tif", "a_labels.tif"),
        ("image.tif", "image_labels.tif"),
        ("nuclei_label_image.tif", "nuclei_label_masks.tif"),
    ],
)
def test_names_agree_up_to_what_says_their_role(tmp_path: Path, image: str, labels: str) -> None:
    touch(tmp_path / "i", image, "other.tif")
    touch(tmp_path / "l", labels)
    found = pair_files(tmp_path / "i", tmp_path / "l")
    assert [(a.name, b.name) for a, b in found.pairs] == [(image, labels)]
    assert [path.name for path in found.alone] == ["other.tif"]


def test_images_and_labels_may_share_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a.tif", "a_labels.tif", "b_image.tif", "b_mask.tif", "c.tif", "notes.txt")
    found = pair_files(tmp_path, tmp_path)
    assert [(a.name, b.name) for a, b in found.pairs] == [
        ("a.tif", "a_labels.tif"),
        ("b_image.tif", "b_mask.tif"),
    ]
    assert [path.name for path in found.alone] == ["c.tif"]


def test_a_folder_of_truth_may_hold_the_images_too(tmp_path: Path) -> None:
    pred = touch(tmp_path / "p", "a_images_labels.tif", "b_image_labels.tif")
    truth = touch(tmp_path / "t", "a_images.tif", "a_labels.tif", "b_image.tif", "b_mask.tif")
    found = pair_files(pred, truth, both_labels=True)
    assert [(a.name, b.name) for a, b in found.pairs] == [
        ("a_images_labels.tif", "a_labels.tif"),
        ("b_image_labels.tif", "b_mask.tif"),
    ]
    assert found.alone == []


def test_two_files_are_a_pair_whatever_their_names(tmp_path: Path) -> None:
    touch(tmp_path, "x.tif", "y.tif")
    assert pair_files(tmp_path / "x.tif", tmp_path / "y.tif").pairs == [
        (tmp_path / "x.tif", tmp_path / "y.tif")
    ]


def test_what_cannot_be_paired_is_told(tmp_path: Path) -> None:
    images = touch(tmp_path / "i", "a.tif")
    with pytest.raises(FileError, match="no file or folder"):
        pair_files(images, tmp_path / "none")
    with pytest.raises(FileError, match="Name them alike"):
        pair_files(images, touch(tmp_path / "l", "b.tif"))
    with pytest.raises(FileError, match="could all be the labels"):
        pair_files(images, touch(tmp_path / "m", "a_mask.tif", "a_labels.tif"))


def test_a_folder_stands_for_its_images_without_our_own_results(tmp_path: Path) -> None:
    folder = touch(tmp_path / "i", "b.tif", "a.png", "a_labels.tif", "a_probability.tif", ".c.tif")
    touch(folder, "notes.txt")
    touch(folder / "z.zarr", "zarr.json")
    assert [path.name for path in find_images([folder])] == ["a.png", "b.tif", "z.zarr"]
    assert find_images([folder / "*.tif"])[0].name == "a_labels.tif"
    assert find_images([folder / "b.tif", folder / "b.tif"]) == [folder / "b.tif"]
    assert find_images(["none.tif"]) == [Path("none.tif")]


def test_a_folder_that_may_not_be_read_is_told(tmp_path: Path, monkeypatch) -> None:
    closed, labels = touch(tmp_path / "closed", "a.tif"), touch(tmp_path / "labels", "a.tif")
    real = Path.iterdir

    def refuse(path: Path):
        if path == closed:
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(FileError, match=r"folder .*closed cannot be read: Permission denied"):
        pair_files(closed, labels)
    assert find_images([closed, labels]) == [closed, labels / "a.tif"], "told where it is read"


def test_an_empty_folder_stays_in_the_list_to_be_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert find_images([tmp_path / "empty"]) == [tmp_path / "empty"]
