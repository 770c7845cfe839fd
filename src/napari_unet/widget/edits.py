"""What the person changed in a labels layer since it was made.

napari tells of a stroke by a ``paint`` event, but of undo and redo not at all. So the event
only marks where something may have changed; whether it did is the difference to a copy of the
labels as they were, and which strokes still stand is told by :mod:`napari_unet.widget.strokes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_unet.arrays.corrections import changed, count_changes, renamed_as
from napari_unet.widget.strokes import Strokes

if TYPE_CHECKING:
    from napari.layers import Labels

RECOUNT_MS = 150


class Edits(QObject):
    """Follows the corrections of one labels layer.

    Parameters
    ----------
    layer : napari.layers.Labels
        The layer to follow.
    base : ndarray of int, shape of the layer, optional
        The uncorrected labels, kept without a copy; by default a copy of the layer's present ones.

    Attributes
    ----------
    base : ndarray of int
        The labels as they were.
    """

    count_changed = Signal(int)

    def __init__(
        self, layer: Labels, base: np.ndarray | None = None, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self.layer = layer
        self.count = 0
        self._recount = QTimer(self, singleShot=True, interval=RECOUNT_MS)
        self._recount.timeout.connect(self._count)
        layer.events.paint.connect(self._on_paint)
        layer.events.set_data.connect(self._on_set_data)
        layer.events.data.connect(self._on_data)
        self.restart(base)

    def restart(self, base: np.ndarray | None = None) -> None:
        """Take given labels, or else a copy of the layer's present ones, as uncorrected.

        Parameters
        ----------
        base : ndarray of int, shape of the layer, optional
            Kept as it is, without a copy; must not change from here on.
        """
        self.base = np.array(self.layer.data) if base is None else base
        self._strokes = Strokes(self.base.shape)
        self._planes: set[tuple[int, ...]] = set()  # where something may differ from the base
        self._set_count(0)

    def resume(self, touched: np.ndarray) -> None:
        """Go on with strokes of an earlier time; what was changed since is looked for."""
        self._strokes = Strokes(touched.shape, touched)
        self._on_data()
        self._count()

    def adopt(self, older: Edits) -> None:
        """Take over what was painted in an older labelling of the same image."""
        self._strokes.adopt(older._strokes)
        self._planes |= older._planes
        self._recount.start()

    def touched_planes(self) -> set[tuple[int, ...]]:
        """Return the planes (indices of the slider axes) where the person painted."""
        return self._strokes.planes

    @property
    def touched(self) -> np.ndarray:
        """Pixels the person painted over and did not undo: bool, shape of the layer."""
        return self._strokes.touched

    def close(self) -> None:
        """Stop following the layer."""
        self._recount.stop()
        self.layer.events.paint.disconnect(self._on_paint)
        self.layer.events.set_data.disconnect(self._on_set_data)
        self.layer.events.data.disconnect(self._on_data)

    def any(self) -> bool:
        """Tell whether the labels differ from what they were, counted now."""
        self._count()
        return self.count > 0 or not np.array_equal(self.base, self.layer.data)

    def changed(self, plane: tuple[int, ...]) -> np.ndarray:
        """Return where one plane (index of the slider axes) differs from what it was (bool)."""
        now = np.asarray(self.layer.data[plane])
        return changed(renamed_as(self.base[plane], now), now)

    def _on_paint(self, event: Any) -> None:
        self._planes |= self._strokes.add(list(event.value))
        self._recount.start()

    def _on_set_data(self, event: Any = None) -> None:
        if self.base.shape != np.shape(self.layer.data):
            return
        if self._strokes.follow(self.layer.data):
            self.count_changed.emit(self.count)
        if self._planes:
            self._recount.start()

    def _on_data(self, event: Any = None) -> None:
        """Look at all planes after other data were put into the layer, e.g. by a script."""
        self._strokes.settle()
        if self.base.shape == np.shape(self.layer.data):
            self._planes.update(np.ndindex(self.base.shape[:-2]))
        self._recount.start()

    def _count(self) -> None:
        if self.base.shape != np.shape(self.layer.data):
            self._set_count(1)  # the person put other data in: all of it is a correction
            return
        now = [np.asarray(self.layer.data[plane]) for plane in self._planes]
        base = [self.base[plane] for plane in self._planes]
        self._set_count(
            sum(count_changes(renamed_as(b, n), n) for b, n in zip(base, now, strict=True))
        )

    def _set_count(self, count: int) -> None:
        if count != self.count:
            self.count = count
            self.count_changed.emit(count)
