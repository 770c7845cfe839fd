"""Start napari with the dock open: what ``napari-unet open`` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_unet.files.images import ImageFile, read_image
from napari_unet.models.library import find_reading, with_reading

if TYPE_CHECKING:
    from napari.viewer import Viewer
    from numpy.typing import NDArray


def open_viewer(
    images: Sequence[str | Path] = (), model: str | None = None, sample: str | None = None
) -> Viewer:
    """Open a napari window with images, a sample and the dock.

    Parameters
    ----------
    images : sequence of str or Path
        Image files.
    model : str, optional
        Name or file of the model that the dock starts with.
    sample : str, optional
        Name of one of :data:`napari_unet.sample_data.SAMPLES`.

    Returns
    -------
    napari.Viewer
        Shown; :func:`run` waits until it is closed.

    Raises
    ------
    UnetError
        If a file cannot be read, before a window opens.
    """
    from napari_unet.sample_data import sample as make_sample

    weights = with_reading(*find_reading(model)) if model is not None else None
    read = [read_image(path) for path in images]
    made = make_sample(sample) if sample is not None else None
    import napari

    from napari_unet.widget.contributions import open_dock

    viewer = napari.Viewer()
    for image in read:
        add_image(viewer, image, image.path.name)
    if made is not None:
        size = made.pixel_size_um
        file = ImageFile(made.image, made.axes, size, "um" if size else "pixel", Path(made.name))
        add_image(viewer, file, made.name)
    dock = open_dock(viewer)
    if weights is not None:
        dock.load_model_file(weights)
    return viewer


def show_results(image: ImageFile, labels: Mapping[str, NDArray[Any]]) -> Viewer:
    """Open a napari window with an image and several labels over it, and the dock.

    Parameters
    ----------
    image : ImageFile
        The image.
    labels : mapping of str to ndarray of int
        Name and labels of each layer; the last one is visible.

    Returns
    -------
    napari.Viewer
        Shown.
    """
    import napari

    from napari_unet.widget.contributions import open_dock

    viewer = napari.Viewer()
    add_image(viewer, image, image.path.name)
    for number, (name, array) in enumerate(labels.items(), start=1):
        is_last = number == len(labels)
        viewer.add_labels(array, name=name, visible=is_last, **_calibration(image, image.axes))
    open_dock(viewer)
    return viewer


def run() -> None:
    """Wait until the windows are closed."""
    import napari

    napari.run()


def add_image(viewer: Viewer, image: ImageFile, name: str) -> None:
    """Add an image with its axes and pixel size; colours as colours, channels as a slider.

    Parameters
    ----------
    viewer : napari.Viewer
        Where to.
    image : ImageFile
        What.
    name : str
        Of the layer.
    """
    is_rgb = image.axes.endswith("YXC")
    axes = image.axes[:-1] if is_rgb else image.axes
    viewer.add_image(image.array, name=name, rgb=is_rgb, **_calibration(image, axes))


def _calibration(image: ImageFile, axes: str) -> dict[str, Any]:
    """Return the layer attributes that say axes and pixel size."""
    spatial = [axis for axis in image.axes if axis in "ZYX"]
    sizes = dict(zip(spatial, image.pixel_size_um or (), strict=False))
    return {
        "axis_labels": tuple(axes.lower()),
        "scale": tuple(sizes.get(axis, 1.0) for axis in axes),
        "units": tuple("um" if axis in sizes else "pixel" for axis in axes),
    }
