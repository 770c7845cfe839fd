"""Masks are read back by tifffile and Pillow, not by our own reader."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_unet.errors import FileError, LabelsError, SettingError
from napari_unet.files.images import ImageFile, read_image
from napari_unet.files.masks import (
    LARGEST_PIXEL_UM,
    SMALLEST_PIXEL_UM,
    check_mask,
    check_pixel_size,
    export_labels,
)


def labels_of(*shape: int, objects: int = 7) -> np.ndarray:
    """Return labels in which every number up to `objects` and the background occur."""
    return (np.arange(np.prod(shape)) % (objects + 1)).reshape(shape).astype(np.int32)


SHAPES = [
    pytest.param("YX", (20, 30), id="plane"),
    pytest.param("ZYX", (5, 20, 30), id="z-stack"),
    pytest.param("TYX", (4, 20, 30), id="time series"),
    pytest.param("TZYX", (3, 5, 20, 30), id="z-stack over time"),
]
SIZES = {"YX": (0.25, 0.5), "ZYX": (2.0, 0.25, 0.5), "TYX": (0.25, 0.5), "TZYX": (2.0, 0.25, 0.5)}


@pytest.mark.parametrize(("axes", "shape"), SHAPES)
def test_ome_tiff_keeps_numbers_axes_and_pixel_size(tmp_path: Path, axes, shape):
    labels = labels_of(*shape)
    path = export_labels(labels, tmp_path / "m.ome.tif", axes=axes, pixel_size_um=SIZES[axes])
    with tifffile.TiffFile(path) as tif:
        assert tif.is_ome
        assert tif.series[0].axes == axes
        np.testing.assert_array_equal(tif.asarray(), labels)
        assert tif.asarray().dtype == np.uint16
        about = tifffile.xml2dict(tif.ome_metadata)["OME"]["Image"]["Pixels"]
    assert (about["PhysicalSizeY"], about["PhysicalSizeX"]) == (0.25, 0.5)
    assert about["PhysicalSizeXUnit"] == about["PhysicalSizeYUnit"] == "µm"
    assert about.get("PhysicalSizeZ") == (2.0 if "Z" in axes else None)


@pytest.mark.parametrize(("axes", "shape"), SHAPES)
def test_imagej_tiff_keeps_numbers_axes_and_pixel_size(tmp_path: Path, axes, shape):
    labels = labels_of(*shape)
    path = export_labels(labels, tmp_path / "m.tif", axes=axes, pixel_size_um=SIZES[axes])
    with tifffile.TiffFile(path) as tif:
        assert tif.is_imagej
        assert tif.series[0].axes == axes
        np.testing.assert_array_equal(tif.asarray(), labels)
        tags = tif.pages[0].tags
        x, y = tags["XResolution"].value, tags["YResolution"].value
        assert (y[1] / y[0], x[1] / x[0]) == (0.25, 0.5)
        assert tif.imagej_metadata["unit"] == "um"
        assert tif.imagej_metadata.get("spacing") == (2.0 if "Z" in axes else None)


@pytest.mark.parametrize("name", ["m.ome.tif", "m.tif"])
@pytest.mark.parametrize(("axes", "shape"), SHAPES)
def test_our_own_reader_gives_back_what_was_written(tmp_path: Path, name, axes, shape):
    labels = labels_of(*shape)
    back = read_image(export_labels(labels, tmp_path / name, axes=axes, pixel_size_um=SIZES[axes]))
    np.testing.assert_array_equal(back.array, labels)
    assert back.axes == axes
    assert back.pixel_size_um == pytest.approx(SIZES[axes])
    assert back.unit == "um"


def test_without_a_pixel_size_none_is_invented(tmp_path: Path):
    for name in ("m.ome.tif", "m.tif"):
        back = read_image(export_labels(labels_of(8, 9), tmp_path / name))
        assert back.pixel_size_um is None
        assert back.unit == "pixel"


def test_one_number_is_the_pixel_size_of_all_spatial_axes(tmp_path: Path):
    path = export_labels(labels_of(3, 8, 9), tmp_path / "m.ome.tif", pixel_size_um=0.32)
    assert read_image(path).pixel_size_um == (0.32, 0.32, 0.32)


def test_more_objects_than_16_bits_go_into_ome_tiff_only(tmp_path: Path):
    labels = labels_of(300, 300, objects=70_000)
    for name in ("m.ome.tif", "plain.tif"):
        with tifffile.TiffFile(export_labels(labels, tmp_path / name)) as tif:
            assert tif.is_ome
            assert tif.asarray().dtype == np.uint32
            np.testing.assert_array_equal(tif.asarray(), labels)
    for name, format in (("imagej.tif", "imagej-tiff"), ("mask.png", "png")):
        with pytest.raises(LabelsError, match=r"70000.*65535.*Use ome-tiff"):
            export_labels(labels, tmp_path / name, format=format)
        assert not (tmp_path / name).exists()


@pytest.mark.parametrize(("objects", "mode"), [(200, "L"), (40_000, "I;16")])
def test_png_has_8_bits_or_16_as_the_objects_need(tmp_path: Path, objects, mode):
    labels = labels_of(201, 205, objects=objects)
    with Image.open(export_labels(labels, tmp_path / "m.png")) as picture:
        assert picture.mode == mode
        np.testing.assert_array_equal(np.asarray(picture), labels)


@pytest.mark.parametrize("name", ["m.ome.tif", "m.tif", "m.png"])
def test_kinds_of_mask(tmp_path: Path, name):
    labels = labels_of(9, 10)

    def written(kind: str) -> np.ndarray:
        return np.asarray(read_image(export_labels(labels, tmp_path / name, kind=kind)).array)

    np.testing.assert_array_equal(written("instance"), labels)
    semantic = written("semantic")
    assert semantic.dtype == np.uint8
    np.testing.assert_array_equal(semantic, labels)
    np.testing.assert_array_equal(written("binary"), np.where(labels > 0, 255, 0))


def test_axes_and_pixel_size_come_from_the_image(tmp_path: Path):
    image = ImageFile(np.zeros((4, 2, 8, 9)), "TCYX", (0.1, 0.2), "um", tmp_path / "i.tif")
    back = read_image(export_labels(labels_of(4, 8, 9), tmp_path / "m.ome.tif", image=image))
    assert (back.axes, back.pixel_size_um) == ("TYX", (0.1, 0.2))


def test_the_image_may_be_a_file_or_an_array(tmp_path: Path):
    source = tmp_path / "image.tif"
    tifffile.imwrite(source, np.zeros((8, 9), np.uint8), imagej=True, resolution=(4, 4),
                     metadata={"unit": "um"})  # fmt: skip
    back = read_image(export_labels(labels_of(8, 9), tmp_path / "m.ome.tif", image=source))
    assert back.pixel_size_um == (0.25, 0.25)
    export_labels(labels_of(8, 9), tmp_path / "rgb.tif", image=np.zeros((8, 9, 3), np.uint8))


def test_labels_of_another_image_are_refused(tmp_path: Path):
    image = ImageFile(np.zeros((4, 8, 9)), "ZYX", None, "pixel", tmp_path / "i.tif")
    for other in (image, np.zeros((4, 8, 9))):
        with pytest.raises(LabelsError, match="labels are 4 x 8 x 10, the image is 4 x 8 x 9"):
            export_labels(labels_of(4, 8, 10), tmp_path / "m.tif", image=other)
    assert not list(tmp_path.iterdir())


def test_a_stack_as_png_says_to_use_ome_tiff(tmp_path: Path):
    with pytest.raises(FileError, match=r"a stack \(ZYX\).*Use OME-TIFF"):
        export_labels(labels_of(3, 8, 9), tmp_path / "m.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("labels", "options", "error", "sentence"),
    [
        (np.zeros((4, 4)), {}, LabelsError, "not a probability"),
        (np.full((4, 4), -1), {}, LabelsError, "hold -1"),
        (np.zeros(4, int), {}, LabelsError, "Give at least Y and X"),
        (np.zeros((0, 4), int), {}, LabelsError, "no image"),
        (np.zeros((4, 4), int), {"pixel_size_um": (1, 2, 3)}, SettingError, "one for each of Y, X"),
        (np.zeros((4, 4), int), {"pixel_size_um": 0}, SettingError, "positive"),
        (np.zeros((4, 4), int), {"format": "gif"}, SettingError, "Choose imagej-tiff"),
        (np.zeros((4, 4), int), {"format": "png"}, SettingError, "End it in .png"),
        (np.zeros((4, 4), int), {"kind": "outline"}, SettingError, "Choose instance"),
        (np.zeros((2, 4, 4), int), {"axes": "CYX"}, LabelsError, "labels have none"),
        (np.zeros((2, 4, 4), int), {"axes": "YX"}, LabelsError, "Name each axis"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(
    tmp_path: Path, labels, options, error, sentence
):
    with pytest.raises(error, match=sentence):
        export_labels(labels, tmp_path / "m.tif", **options)
    assert not list(tmp_path.iterdir())


def test_a_name_without_a_known_ending_is_refused(tmp_path: Path):
    with pytest.raises(SettingError, match=r"End it in \.ome\.tif, \.tif or \.png"):
        export_labels(labels_of(4, 4), tmp_path / "mask.jpg")


def test_a_failing_writer_leaves_the_old_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    target = tmp_path / "m.ome.tif"
    export_labels(labels_of(8, 9), target)
    before = target.read_bytes()

    def full_disk(path: Path, *_args: object, **_kwargs: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tifffile, "imwrite", full_disk)
    with pytest.raises(FileError, match="No space left on device"):
        export_labels(labels_of(8, 9, objects=3), target)
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("labels", "shape", "axes", "fits"),
    [
        pytest.param((8, 9), (8, 9), "YX", True, id="a plane"),
        pytest.param((8, 9), (3, 8, 9), "CYX", True, id="channels"),
        pytest.param((8, 9), (8, 9, 3), "YXC", True, id="colours"),
        pytest.param((8, 9), (1, 8, 9), "ZYX", True, id="a stack of one plane"),
        pytest.param((8, 9), (3, 8, 9), "ZYX", False, id="one plane of a stack"),
        pytest.param((8, 9), (3, 8, 9), "TYX", False, id="one plane of a series"),
        pytest.param((3, 8, 9), (3, 8, 9), "CYX", True, id="planes that were taken for channels"),
        pytest.param((3, 8, 9), (3, 2, 8, 9), "TCYX", True, id="a series with channels"),
        pytest.param((3, 8, 9), (8, 9), "YX", False, id="a stack for a plane"),
    ],
)
def test_labels_fit_an_image_axis_by_axis(tmp_path: Path, labels, shape, axes, fits):
    image = ImageFile(np.zeros(shape), axes, None, "pixel", tmp_path / "i.tif")
    if fits:
        export_labels(labels_of(*labels), tmp_path / "m.tif", image=image)
    else:
        with pytest.raises(LabelsError, match=rf"the image is .* \({axes}\)\. Give"):
            export_labels(labels_of(*labels), tmp_path / "m.tif", image=image)
    assert (tmp_path / "m.tif").exists() == fits


def test_a_mask_is_checked_before_any_work(tmp_path: Path):
    check_mask(tmp_path / "m.png", None, "YX")
    check_mask(tmp_path / "m.ome.tif", "ome-tiff", "TZYX")
    with pytest.raises(FileError, match=r"a stack \(ZYX\).*Use OME-TIFF"):
        check_mask(tmp_path / "m.png", None, "ZYX")
    with pytest.raises(SettingError, match=r"'m\.jpg' does not tell a format"):
        check_mask(tmp_path / "m.jpg")
    with pytest.raises(SettingError, match="does not fit the format png"):
        check_mask(tmp_path / "m.tif", "png")
    with pytest.raises(FileError, match="None was given"):
        check_mask(None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [0, -1, float("nan"), float("inf"), 1e-12, 1e12, "x", (1, 2, 3)])
def test_a_pixel_size_that_is_none_is_refused_before_any_work(size):
    with pytest.raises(SettingError, match="one positive number, or one for each of Y, X"):
        check_pixel_size(size)
    check_pixel_size(None)
    check_pixel_size((0.1, 0.2))


@pytest.mark.parametrize("size", [SMALLEST_PIXEL_UM, LARGEST_PIXEL_UM])
@pytest.mark.parametrize("name", ["m.tif", "m.ome.tif"])
def test_the_smallest_and_the_largest_pixel_can_be_written(tmp_path: Path, name, size):
    path = export_labels(labels_of(8, 9), tmp_path / name, pixel_size_um=size)
    assert read_image(path).pixel_size_um == pytest.approx((size, size), rel=1e-5)
