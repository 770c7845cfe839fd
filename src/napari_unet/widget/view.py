"""What of an image the person is looking at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_unet.widget.layers import layer_array, shown_index

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image

    from napari_unet.worker.protocol import Region

SETTLE_MS = 60


def shown_region(viewer: ViewerModel, image: Image, axes: str) -> Region:
    """Return the part of an image that is in view.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        The viewer.
    image : napari.layers.Image
        A layer of it.
    axes : str
        The axes of its array, e.g. "TCYX".

    Returns
    -------
    Region
        A start and a stop in pixels for each axis but C: one plane of the slider axes, the box
        that holds the view of the others; all of an axis that is not seen from above.
    """
    sizes = dict(zip(axes, layer_array(image).shape, strict=True))
    spans = {axis: (0, size) for axis, size in sizes.items()}
    if viewer.dims.ndisplay == 2 and set(viewer.dims.displayed[-2:]) == _last_two(viewer):
        for axis, index in zip(axes, shown_index(viewer, image), strict=False):
            spans[axis] = (index, index + 1)
        corners = np.array(image.corner_pixels, dtype=float)
        if image.multiscale:
            corners *= np.asarray(image.downsample_factors[image.data_level])
        for axis, (low, high) in zip("YX", corners[:, -2:].T, strict=True):
            start = int(np.clip(low, 0, sizes[axis] - 1))
            spans[axis] = (start, int(np.clip(high + 1, start + 1, sizes[axis])))
    return tuple(spans[axis] for axis in axes if axis != "C")


def camera_of(viewer: ViewerModel) -> Any:
    """Return the camera of a viewer: napari 0.9 moved it."""
    return getattr(viewer, "scene", viewer).camera


class ViewFollower(QObject):
    """Tells, a few times a second at most, that the person went to look elsewhere.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        The viewer to follow, until :meth:`close`.
    """

    moved = Signal()

    def __init__(self, viewer: ViewerModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._settle = QTimer(self, singleShot=True, interval=SETTLE_MS)
        self._settle.timeout.connect(self.moved)
        camera = camera_of(viewer)
        self._events = [
            camera.events.center,
            camera.events.zoom,
            viewer.dims.events.current_step,
        ]
        for event in self._events:
            event.connect(self._on_event)

    def close(self) -> None:
        """Follow no longer."""
        self._settle.stop()
        for event in self._events:
            event.disconnect(self._on_event)
        self.deleteLater()

    def _on_event(self, event: Any = None) -> None:
        if not self._settle.isActive():
            self._settle.start()


def _last_two(viewer: ViewerModel) -> set[int]:
    """Return the axes that are rows and columns unless the person rolled them."""
    return {viewer.dims.ndim - 2, viewer.dims.ndim - 1}
