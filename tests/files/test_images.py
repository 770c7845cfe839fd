"""Images come with their axes and their pixel size, or with a sentence."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_unet.errors import FileError
from napari_unet.files import images
from napari_unet.files.images import read_image, to_micrometres


def grey(*shape: int, dtype: type = np.uint16) -> np.ndarray:
    return (np.arange(np.prod(shape)) % 251).reshape(shape).astype(dtype)


@pytest.mark.parametrize(
    ("axes", "shape"),
    [("YX", (8, 9)), ("ZYX", (3, 8, 9)), ("TCYX", (4, 2, 8, 9)), ("TZCYX", (4, 3, 2, 8, 9))],
)
@pytest.mark.parametrize("kind", ["ome", "imagej"])
def test_axes_written_in_a_tiff_are_read(tmp_path: Path, kind, axes, shape):
    path = tmp_path / "i.tif"
    tifffile.imwrite(path, grey(*shape), metadata={"axes": axes}, **{kind: True})
    image = read_image(path)
    assert image.axes == axes
    np.testing.assert_array_equal(image.array, grey(*shape))


@pytest.mark.parametrize(
    ("unit", "factor"), [("µm", 1), ("nm", 1e-3), ("mm", 1e3), ("Å", 1e-4), ("m", 1e6)]
)
def test_ome_pixel_size_is_converted_to_micrometres(tmp_path: Path, unit, factor):
    path = tmp_path / "i.ome.tif"
    about = {"axes": "ZYX"}
    for axis, size in {"Z": 3.0, "Y": 1.0, "X": 2.0}.items():
        about |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": unit}
    tifffile.imwrite(path, grey(3, 8, 9), metadata=about)
    image = read_image(path)
    assert image.pixel_size_um == pytest.approx((3 * factor, factor, 2 * factor))
    assert image.unit == "um"


@pytest.mark.parametrize(("unit", "factor"), [("micron", 1), ("um", 1), ("nm", 1e-3), ("cm", 1e4)])
def test_imagej_pixel_size_is_converted_to_micrometres(tmp_path: Path, unit, factor):
    path = tmp_path / "i.tif"
    tifffile.imwrite(path, grey(3, 8, 9), imagej=True, resolution=(2, 4),
                     metadata={"axes": "ZYX", "unit": unit, "spacing": 3.0})  # fmt: skip
    assert read_image(path).pixel_size_um == pytest.approx((3 * factor, factor / 4, factor / 2))


def test_imagej_without_a_unit_has_no_pixel_size(tmp_path: Path):
    tifffile.imwrite(tmp_path / "i.tif", grey(8, 9), imagej=True, resolution=(2, 4))
    image = read_image(tmp_path / "i.tif")
    assert (image.pixel_size_um, image.unit) == (None, "pixel")


@pytest.mark.parametrize(
    ("dots_per_cm", "size"),
    [(10_000, 1.0), (40_000, 0.25), (118.11, None), (28.3, None)],
    ids=["1 um", "0.25 um", "300 dpi", "72 dpi"],
)
def test_a_plain_tiff_tells_a_pixel_size_but_a_printers_resolution_is_none(
    tmp_path: Path, dots_per_cm, size
):
    path = tmp_path / "i.tif"
    tifffile.imwrite(path, grey(8, 9), resolution=(dots_per_cm,) * 2, resolutionunit="CENTIMETER")
    expected = None if size is None else pytest.approx((size, size))
    assert read_image(path).pixel_size_um == expected


def test_plain_stacks_and_colours(tmp_path: Path):
    tifffile.imwrite(tmp_path / "z.tif", grey(9, 8, 9), metadata=None)
    assert read_image(tmp_path / "z.tif").axes == "ZYX"
    rgb = grey(8, 9, 3, dtype=np.uint8)
    tifffile.imwrite(tmp_path / "rgb.tif", rgb, photometric="rgb")
    image = read_image(tmp_path / "rgb.tif")
    assert image.axes == "YXC"
    np.testing.assert_array_equal(image.array, rgb)


def test_transparency_is_dropped(tmp_path: Path):
    rgba = grey(8, 9, 4, dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", rgba, photometric="rgb", extrasamples=["unassalpha"])
    Image.fromarray(rgba).save(tmp_path / "a.png")
    for name in ("a.tif", "a.png"):
        image = read_image(tmp_path / name)
        assert image.axes == "YXC"
        np.testing.assert_array_equal(image.array, rgba[..., :3])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_png_keeps_its_bits(tmp_path: Path, dtype):
    values = (grey(8, 9) * 257).astype(dtype)
    Image.fromarray(values).save(tmp_path / "i.png")
    image = read_image(tmp_path / "i.png")
    assert (image.axes, image.array.dtype) == ("YX", dtype)
    np.testing.assert_array_equal(image.array, values)


def test_a_palette_becomes_colours(tmp_path: Path):
    picture = Image.fromarray(grey(8, 9, dtype=np.uint8))
    picture.convert("RGB").quantize(8).save(tmp_path / "p.png")
    assert read_image(tmp_path / "p.png").axes == "YXC"


def test_jpeg_is_read_as_colours_or_grey(tmp_path: Path):
    Image.fromarray(grey(16, 16, 3, dtype=np.uint8)).save(tmp_path / "c.jpg")
    Image.fromarray(grey(16, 16, dtype=np.uint8)).save(tmp_path / "g.jpg")
    assert read_image(tmp_path / "c.jpg").axes == "YXC"
    assert read_image(tmp_path / "g.jpg").axes == "YX"


def test_npy_is_mapped_and_never_unpickled(tmp_path: Path):
    np.save(tmp_path / "i.npy", grey(8, 9))
    image = read_image(tmp_path / "i.npy")
    assert isinstance(image.array, np.memmap)
    assert image.axes == "YX"
    np.save(tmp_path / "evil.npy", np.array([{"run": "me"}], dtype=object), allow_pickle=True)
    with pytest.raises(FileError, match=r"evil\.npy cannot be read"):
        read_image(tmp_path / "evil.npy")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_tells_axes_and_pixel_size(tmp_path: Path, version):
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(tmp_path / "i.zarr", mode="w", zarr_format=2 if version == "0.4" else 3)
    group.create_array("0", data=grey(2, 3, 8, 9))
    multiscales = [
        {
            "axes": [
                {"name": "c", "type": "channel"},
                *({"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"),
            ],
            "datasets": [
                {
                    "path": "0",
                    "coordinateTransformations": [{"type": "scale", "scale": [1, 500, 250, 100]}],
                }
            ],
        }
    ]
    group.attrs.update(
        {"multiscales": multiscales}
        if version == "0.4"
        else {"ome": {"version": version, "multiscales": multiscales}}
    )
    image = read_image(tmp_path / "i.zarr")
    assert image.axes == "CZYX"
    assert image.pixel_size_um == pytest.approx((0.5, 0.25, 0.1))
    np.testing.assert_array_equal(image.array[:], grey(2, 3, 8, 9))
    assert isinstance(image.array, zarr.Array)


def test_a_plain_zarr_array_is_read_where_it_is_used(tmp_path: Path):
    zarr = pytest.importorskip("zarr")
    zarr.create_array(tmp_path / "a.zarr", data=grey(8, 9))
    image = read_image(tmp_path / "a.zarr")
    assert isinstance(image.array, zarr.Array)
    assert image.axes == "YX"


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("missing.tif", None, "There is no file"),
        ("scan.czi", b"ZISRAWFILE", "not of a kind that is read here.*save it as OME-TIFF"),
        ("text.tif", b"no picture at all", "not a TIFF file"),
        ("empty.tif", b"", "not a TIFF file"),
        ("text.png", b"no picture at all", r"text\.png cannot be read"),
        ("text.npy", b"no array at all", r"text\.npy cannot be read"),
    ],
)
def test_what_is_no_image_is_refused_in_a_sentence(tmp_path: Path, name, content, sentence):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError, match=sentence):
        read_image(tmp_path / name)


def test_a_folder_is_refused_in_a_sentence(tmp_path: Path):
    with pytest.raises(FileError, match="is a folder"):
        read_image(tmp_path)


@pytest.mark.parametrize("compression", ["zlib", None])
def test_a_truncated_tiff_is_refused_in_a_sentence(tmp_path: Path, compression):
    path = tmp_path / "i.tif"
    tifffile.imwrite(path, grey(64, 64), compression=compression)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(FileError, match=r"i\.tif cannot be read|not a TIFF file"):
        read_image(path)


def test_lengths_are_converted_and_pixels_are_not():
    assert to_micrometres(250, "nanometer") == pytest.approx(0.25)
    assert to_micrometres(1, "micrometre") == 1
    assert to_micrometres(1, "\\u00B5m") == 1
    assert to_micrometres(1, "pixel") is None
    assert to_micrometres(0, "um") is None


REAL = [
    ("isbi2012_em/images.tif", None),
    ("dsb2018/purple_on_white_256x320_images.tif", None),
    ("ctc_excerpt/Fluo-N2DL-HeLa_images.tif", None),
    ("stacks3d/nuclei_ovule_1135_image.ome.tif", "ZYX"),
]


@pytest.mark.parametrize(("name", "axes"), REAL)
def test_real_images_are_read(data_dir: Path, name, axes):
    image = read_image(data_dir / "images" / name)
    assert len(image.axes) == image.array.ndim
    assert axes is None or image.axes == axes
    assert axes is None or image.pixel_size_um == pytest.approx((0.284, 0.127, 0.127), abs=1e-3)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_large_tiff_is_mapped_unless_it_is_compressed(tmp_path, monkeypatch, compression):
    values = np.arange(3 * 40 * 50, dtype=np.uint16).reshape(3, 40, 50)
    path = tmp_path / "large.ome.tif"
    tifffile.imwrite(path, values, metadata={"axes": "ZYX"}, compression=compression)
    monkeypatch.setattr(images, "LARGEST_READ_BYTES", 1000)
    read = read_image(path)
    assert isinstance(read.array, np.memmap) == (compression is None)
    assert read.axes == "ZYX"
    np.testing.assert_array_equal(read.array, values)
