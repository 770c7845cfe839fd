"""From napari's layers to arrays with named axes, and from arrays back to labels layers.

A layer knows its data, not which axis is which: :func:`possible_axes` lists the readings that
fit and :func:`guess_layer_axes` picks one the person can change. Labels lie exactly on their
image: the same scale, position, units and axis labels, minus the channel axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.arrays.axes import guess_axes, labels_axes

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer

METADATA_KEY = "napari-unet"
"""Where a labels layer keeps what we know of it (axes, image, model) in ``layer.metadata``."""


@dataclass(frozen=True)
class Placement:
    """Where labels lie in the viewer, as keyword arguments of ``add_labels``.

    ``axes`` names the axes of the labels layer; it contains a ``C`` of length one if the image
    has channels between other axes, so that the labels show at every channel.
    """

    axes: str
    kwargs: dict[str, Any]


def layer_array(layer: Image | Labels) -> Any:
    """Return the full-resolution data of a layer: a numpy, dask or zarr array."""
    return layer.data[0] if layer.multiscale else layer.data


def possible_axes(layer: Image) -> list[str]:
    """List the readings of an image layer's axes, from most to least usual.

    Returns
    -------
    list of str
        E.g. ``["ZYX", "TYX", "CYX"]``; an RGB layer ends in ``"C"``. Empty if it has more axes
        than have names.
    """
    lead = layer.ndim - 2
    letters = "TZ" if layer.rgb else "TZC"
    orders = {
        1: ["Z", "T", "C"],
        2: ["TZ", "ZC", "CZ", "TC", "CT"],
        3: ["TZC", "TCZ", "CTZ"],
    }.get(lead, ["".join(c) for c in combinations(letters, lead)])
    tail = "YXC" if layer.rgb else "YX"
    if not lead:
        return [tail]
    return [order + tail for order in orders if set(order) <= set(letters)]


def guess_layer_axes(layer: Image) -> str | None:
    """Name a layer's axes by the best evidence there is; None if there are too many.

    That is, in this order: what the person chose, the axis labels, the file. Without any, a
    third axis is planes, however short: napari shows it as a slider, and planes taken for
    channels would go unlabelled, while channels taken for planes are all labelled.
    """
    fitting = possible_axes(layer)
    if not fitting:
        return None
    noted = str(layer.metadata.get(METADATA_KEY, {}).get("axes", ""))
    labelled = "".join(str(label)[:1].upper() for label in layer.axis_labels)
    labelled += "C" if layer.rgb else ""
    for known in (noted, labelled, _axes_of_file(layer)):
        if known in fitting:
            return known
    if layer.ndim == 3:
        return fitting[0]
    guessed = guess_axes(layer_array(layer).shape, rgb=bool(layer.rgb))
    return guessed if guessed in fitting else fitting[0]


def note_axes(layer: Image, axes: str) -> None:
    """Keep with a layer what the person chose as its axes."""
    noted = {**layer.metadata.get(METADATA_KEY, {}), "axes": axes}
    layer.metadata = {**layer.metadata, METADATA_KEY: noted}


def place_labels(layer: Image, axes: str) -> Placement:
    """Say where labels of an image layer belong.

    Parameters
    ----------
    layer : napari.layers.Image
        The image that was segmented.
    axes : str
        Its axes, e.g. ``"TCYX"``.

    Returns
    -------
    Placement
        Without the channel axis where napari's trailing-axis rule allows it.
    """
    layer_axes = axes[:-1] if layer.rgb else axes
    c = layer_axes.find("C")
    keep = [i for i in range(layer.ndim) if c != 0 or i != 0]
    scale, translate = np.array(layer.scale)[keep], np.array(layer.translate)[keep]
    if c > 0:  # one label plane stretched over all channels
        channels = layer_array(layer).shape[c]
        translate[c] += scale[c] * (channels - 1) / 2
        scale[c] *= channels
    kwargs = {
        "scale": scale,
        "translate": translate,
        "rotate": np.array(layer.rotate)[np.ix_(keep, keep)] if len(keep) > 1 else 0,
        "shear": _shear_matrix(layer)[np.ix_(keep, keep)],
        "affine": _drop_from_affine(layer, keep),
        "units": [layer.units[i] for i in keep],
        "axis_labels": [layer.axis_labels[i] for i in keep],
    }
    return Placement("".join(layer_axes[i] for i in keep), kwargs)


def to_layer_shape(labels: np.ndarray, placement: Placement) -> np.ndarray:
    """View labels (axes without C) as the array of the labels layer."""
    c = placement.axes.find("C")
    return labels if c < 0 else np.expand_dims(labels, c)


def from_layer_shape(layer: Labels) -> tuple[np.ndarray, str]:
    """Return a labels layer's data without the singleton channel axis, and its axes."""
    data = np.asarray(layer_array(layer))
    axes = labels_layer_axes(layer)
    c = axes.find("C")
    return (data, axes) if c < 0 else (np.squeeze(data, c), labels_axes(axes))


def labels_layer_axes(layer: Labels) -> str:
    """Name the axes of a labels layer: as we made it, else as its shape suggests."""
    known = layer.metadata.get(METADATA_KEY, {}).get("axes", "")
    return known if len(known) == layer.ndim else "TZYX"[-layer.ndim :]


def shown_index(viewer: ViewerModel, layer: Layer) -> tuple[int, ...]:
    """Return the data index of the plane of a layer that the viewer shows, one per slider axis."""
    point = layer.world_to_data(viewer.dims.point[-layer.ndim :])
    shape = layer_array(layer).shape
    return tuple(
        int(np.clip(round(float(p)), 0, n - 1))
        for p, n in zip(point[: layer.ndim - 2], shape, strict=False)
    )


def plane_problem(viewer: ViewerModel) -> str | None:
    """Say why the viewer shows no plane along y and x, or None if it shows one."""
    dims = viewer.dims
    if dims.ndisplay != 2:
        return "The viewer is in 3D. Go back to 2D (Ctrl+Y), so that there is one plane to check."
    if set(dims.displayed) != {dims.ndim - 2, dims.ndim - 1}:
        return (
            "The viewer shows a cut along another axis. Roll the axes (Ctrl+E) until y and x are "
            "in view, so that there is one plane to check."
        )
    return None


def pixel_size(layer: Layer) -> tuple[tuple[float, ...], str]:
    """Return a layer's pixel size along its last axes (Z, Y, X or Y, X) and their unit.

    Returns
    -------
    tuple of (tuple of float, str)
        In micrometres with unit ``"um"`` where the layer has a length unit, else unitless with
        ``"pixel"``.
    """
    spatial = labels_layer_axes(layer)[-3:] if layer.ndim > 2 else "YX"
    count = 3 if spatial == "ZYX" else 2
    sizes = []
    for scale, unit in zip(layer.scale[-count:], layer.units[-count:], strict=True):
        try:
            sizes.append(float((float(scale) * unit).to("micrometer").magnitude))
        except (TypeError, ValueError):  # the unit is not a length, e.g. "pixel"
            return tuple(float(s) for s in layer.scale[-count:]), "pixel"
    return tuple(sizes), "um"


def _axes_of_file(layer: Image) -> str:
    """Read the axes from a layer's TIFF file, if they stand in it; napari leaves them unread."""
    path = str(layer.source.path or "")
    if not path.lower().endswith((".tif", ".tiff")):
        return ""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tif:
            if not (tif.is_ome or tif.is_imagej or tif.is_shaped):  # there are just pages
                return ""
            series = tif.series[0]
            is_same = tuple(series.shape) == tuple(layer_array(layer).shape)
            return str(series.axes).replace("S", "C") if is_same else ""
    except (OSError, ValueError, tifffile.TiffFileError):  # napari could open it, by some means
        return ""


def _shear_matrix(layer: Layer) -> np.ndarray:
    """Return the shear of a layer as an upper triangular matrix."""
    shear = np.asarray(layer.shear, dtype=float)
    if shear.ndim == 2:
        return shear
    matrix = np.eye(layer.ndim)
    matrix[np.triu_indices(layer.ndim, 1)] = shear
    return matrix


def _drop_from_affine(layer: Layer, keep: list[int]) -> np.ndarray:
    """Return the layer's affine restricted to the kept axes."""
    matrix = np.asarray(layer.affine.affine_matrix)
    rows = [*keep, layer.ndim]
    return matrix[np.ix_(rows, rows)]
