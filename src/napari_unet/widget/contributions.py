"""What the manifest offers napari: the dock, the reader of weights, the mask writer, the samples.

There is one dock per viewer. napari opens a widget under two different names, one for its menu
and one for ``add_plugin_dock_widget``, and would make two docks of them; whatever way is taken
here, the dock that is already there is shown.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QDockWidget, QWidget

from napari_unet.errors import UnetError

if TYPE_CHECKING:
    from napari.viewer import Viewer

    from napari_unet.widget.dock import UnetDock

DOCK_NAME = "U-Net (U-Net)"
"""The name under which napari's Plugins menu looks for the dock: widget (plugin)."""

OUR_ENDINGS = {".safetensors", ".pth", ".pt", ".ckpt", ".onnx", ".keras"}
"""Nothing but weights is called so."""
SHARED = {".zip", ".h5", ".hdf5", ".yaml", ".yml", ""}
"""Many things are called so; what is empty or damaged may be anybody's."""

LayerData = tuple[Any, dict[str, Any], str]


# The dock


def find_dock(viewer: Viewer) -> UnetDock | None:
    """Return the dock of a viewer, shown or hidden, or None if it has none.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer, or the proxy that napari hands to plugins.

    Returns
    -------
    UnetDock or None
        The widget inside napari's dock.
    """
    from napari_unet.widget.dock import UnetDock

    docks = viewer.window.dock_widgets.values()
    return next((widget for widget in docks if isinstance(widget, UnetDock)), None)


def open_dock(viewer: Viewer) -> UnetDock:
    """Show the dock of a viewer and bring it to the front; make it if there is none.

    Parameters
    ----------
    viewer : napari.Viewer
        The viewer.

    Returns
    -------
    UnetDock
        Always the same one for the same viewer, until it is closed.
    """
    from napari_unet.widget.dock import UnetDock

    dock = find_dock(viewer)
    if dock is None:
        dock = UnetDock(viewer)
        viewer.window.add_dock_widget(dock, name=DOCK_NAME, area="right")
    _bring_to_front(dock)
    return dock


def show_dock() -> None:
    """Show the dock in the viewer in use: the entry in Layers > Segment."""
    import napari

    viewer = napari.current_viewer()
    if viewer is None:
        raise UnetError("There is no napari window to show the dock in. Open napari first.")
    open_dock(viewer)


class OneDock(QWidget):
    """The widget of the manifest: makes the dock of a viewer, once.

    Where the viewer has a dock already, that one is shown and napari gets an empty widget in its
    place, which leaves again at once.
    """

    def __new__(cls, napari_viewer: Viewer) -> UnetDock | QWidget:
        """Return the new dock, or the empty widget."""
        from napari_unet.widget.dock import UnetDock

        # napari hands plugins a proxy, whose layers are proxies, too: other objects than those its
        # events tell of. Only public attributes are used, so the viewer itself will do.
        napari_viewer = getattr(napari_viewer, "__wrapped__", napari_viewer)
        dock = find_dock(napari_viewer)
        if dock is None:
            return UnetDock(napari_viewer)
        placeholder = QWidget()
        timer = QTimer(placeholder, singleShot=True)
        timer.timeout.connect(lambda: _leave(placeholder, napari_viewer, dock))
        timer.start(0)
        return placeholder

    def __init__(self, napari_viewer: Viewer) -> None:
        """Tell napari by the signature that the viewer is wanted; never called."""


def _leave(placeholder: QWidget, viewer: Viewer, dock: UnetDock) -> None:
    """Take the empty widget out of the window and show the dock instead."""
    if isinstance(placeholder.parent(), QDockWidget):
        viewer.window.remove_dock_widget(placeholder)
    placeholder.deleteLater()
    _bring_to_front(dock)


def _bring_to_front(dock: UnetDock) -> None:
    """Show and raise napari's frame around the dock, which may be hidden or behind a tab."""
    frame = dock.parent()
    if isinstance(frame, QDockWidget):
        frame.show()
        frame.raise_()


# Reader: weights dropped onto the window


def get_model_reader(path: str | Sequence[str]) -> Callable[..., list[tuple[None]]] | None:
    """Tell napari whether a dropped file is for us, by its content.

    Parameters
    ----------
    path : str or list of str
        One file, or several dropped together.

    Returns
    -------
    callable or None
        The reader; None for images, archives and tables, which are for other readers. What was
        meant to be weights and cannot be opened is taken, so that the dock says why.
    """
    paths = [path] if isinstance(path, str | os.PathLike) else list(path)
    return read_model if paths and all(map(is_for_us, paths)) else None


def is_for_us(path: str | os.PathLike[str]) -> bool:
    """Say whether a file or folder is a network, or a file that only weights are called like.

    Parameters
    ----------
    path : str or path
        What was dropped.

    Returns
    -------
    bool
        True for what the dock can open or say something about.
    """
    from napari_unet.errors import ModelError
    from napari_unet.models.formats import sniff

    try:
        found = sniff(os.fspath(path))
    except ModelError:
        return False
    suffix = os.path.splitext(os.fspath(path))[1].lower()
    return found.opens or suffix in OUR_ENDINGS or (found.is_weights and suffix not in SHARED)


def read_model(path: str | Sequence[str]) -> list[tuple[None]]:
    """Hand weights to the dock, whose process opens them; of several, the last ones.

    Parameters
    ----------
    path : str or list of str
        The file or folder.

    Returns
    -------
    list of tuple
        ``[(None,)]``: napari adds no layer.
    """
    import napari

    viewer = napari.current_viewer()
    if viewer is None:
        raise UnetError("Weights are loaded into the dock. Open napari first.")
    chosen = path if isinstance(path, str | os.PathLike) else path[-1]
    open_dock(viewer).load_model_file(os.fspath(chosen))
    return [(None,)]


# Writer: napari's Save dialog


def write_mask(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """Save a labels layer as a mask that keeps pixel size and axes.

    Parameters
    ----------
    path : str
        Ends in ``.ome.tif``, ``.tif`` or ``.png``.
    data : array of int or list of array
        The labels; of a multiscale layer the full resolution is written.
    meta : dict
        The layer's attributes: scale, units, axis labels, metadata.

    Returns
    -------
    list of str
        The file that was written.
    """
    import numpy as np

    from napari_unet.arrays.axes import labels_axes
    from napari_unet.files.masks import export_labels

    labels = np.asarray(data[0] if isinstance(data, list | tuple) else data)
    axes = _layer_axes(labels.ndim, meta)
    sizes = _pixel_size_um(axes, meta)
    if "C" in axes:
        labels, axes = np.take(labels, 0, axis=axes.index("C")), labels_axes(axes)
    return [str(export_labels(labels, path, axes=axes, pixel_size_um=sizes))]


def _layer_axes(ndim: int, meta: Mapping[str, Any]) -> str:
    """Name a layer's axes: as the dock noted them, as its axis labels say, else T Z Y X."""
    from napari_unet.widget.layers import METADATA_KEY

    noted = str(meta.get("metadata", {}).get(METADATA_KEY, {}).get("axes", ""))
    named = "".join(str(label)[:1].upper() for label in meta.get("axis_labels", ()))
    for axes in (noted, named):
        if (
            len(axes) == ndim == len(set(axes))
            and axes.endswith("YX")
            and set(axes) <= set("TZCYX")
        ):
            return axes
    return "TZCYX"[-ndim:] if ndim > 4 else "TZYX"[-ndim:]


def _pixel_size_um(axes: str, meta: Mapping[str, Any]) -> list[float] | None:
    """Convert the scale of the spatial axes to micrometres; None where it is in pixels."""
    import pint

    registry = pint.get_application_registry()
    sizes = []
    for axis, scale, unit in zip(axes, meta.get("scale", ()), meta.get("units", ()), strict=False):
        if axis in "ZYX":
            try:
                sizes.append(float(registry.Quantity(float(scale), str(unit)).m_as("micrometer")))
            except pint.errors.PintError:  # "pixel" is no length
                return None
    return sizes or None


# Samples


def sample_nuclei() -> list[LayerData]:
    """Return the generated fluorescence image of nuclei, as a layer.

    Returns
    -------
    list of tuple
        One napari layer: data, attributes, type.
    """
    return _sample_layers("nuclei")


def sample_tissue() -> list[LayerData]:
    """Return the generated image of stained tissue, as a layer.

    Returns
    -------
    list of tuple
        One napari layer: data, attributes, type.
    """
    return _sample_layers("tissue")


def _sample_layers(name: str) -> list[LayerData]:
    """Make the image layer of a sample, with its pixel size."""
    from napari_unet.sample_data import sample

    made = sample(name)
    rgb = made.axes.endswith("YXC")
    attributes: dict[str, Any] = {
        "name": name,
        "rgb": rgb,
        "axis_labels": tuple(made.axes.lower().removesuffix("c") if rgb else made.axes.lower()),
    }
    if made.pixel_size_um is not None:
        lead = len(attributes["axis_labels"]) - len(made.pixel_size_um)
        attributes["scale"] = (1.0,) * lead + tuple(made.pixel_size_um)
        attributes["units"] = ("pixel",) * lead + ("um",) * len(made.pixel_size_um)
    return [(made.image, attributes, "image")]
