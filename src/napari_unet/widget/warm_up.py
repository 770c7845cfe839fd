"""Pay for napari's first labels and shapes layer before the person waits for them.

The first layer of each kind imports pandas, lets numba compile and draws line patterns: seconds
in which the window would stand still in the middle of the loop. All of it happens in a thread
while the person looks for the button; what is made for it is thrown away and no viewer ever sees
it.
"""

from __future__ import annotations

from functools import cache
from threading import Thread

import numpy as np

SIDE_PX = 16


@cache
def warm_up() -> Thread:
    """Start warming up in the background, once a session; returns the thread that does it."""
    thread = Thread(target=_make_layers, name="napari-unet-warm-up", daemon=True)
    thread.start()
    return thread


def _make_layers() -> None:
    """Make a layer of each kind the loop will need, and use what is compiled on first use."""
    import pandas  # noqa: F401 - napari imports it with its first layer
    from napari.layers import Labels, Shapes
    from napari.utils.colormaps import DirectLabelColormap
    from vispy.scene import visuals

    for dtype in (np.int32, np.uint16, np.uint8):
        labels = Labels(np.eye(SIDE_PX, dtype=dtype))
        labels.fill((0, 0), 2)
    difference = Labels(np.eye(SIDE_PX, dtype=np.int32))  # of two models: colours one by one
    difference.colormap = DirectLabelColormap(color_dict={None: "transparent", 1: "green"})
    corners = np.array([[1, 1], [1, 9], [9, 9], [9, 1]], dtype=float)
    Shapes([corners], shape_type="rectangle", face_color="transparent")
    visuals.Polygon(corners, border_method="agg")  # what outlines the brush and the polygon tool
    visuals.Ellipse(center=(0, 0), border_method="agg")
    visuals.Volume(np.zeros((2, 2, 2), dtype=np.float32))
