"""What the person changed in a labels layer since it was made.

napari tells of a stroke by a ``paint`` event, but of undo and redo not at all. So the event
only marks where something may have changed; whether it did is the difference to a copy of the
labels as they were.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_unet.arrays.corrections import changed, count_changes, renamed_as

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
    touched : ndarray of bool
        Pixels the person painted over, whether or not that changed them.
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
        self.touched = np.zeros(self.base.shape, dtype=bool)
        self._planes: set[tuple[int, ...]] = set()  # where something may differ from the base
        self._touched_planes: set[tuple[int, ...]] = set()
        self._set_count(0)

    def resume(self, touched: np.ndarray) -> None:
        """Go on with strokes of an earlier time; what was changed since is looked for."""
        self.touched = touched
        lead = self.base.ndim - 2
        marked = touched.any(axis=(-2, -1)).reshape(touched.shape[:lead])
        self._touched_planes = {tuple(at) for at in np.argwhere(marked).tolist()}
        self._on_data()
        self._count()

    def adopt(self, older: Edits) -> None:
        """Take over what was painted in an older labelling of the same image."""
        self.touched |= older.touched
        self._planes |= older._planes
        self._touched_planes |= older._touched_planes
        self._recount.start()

    def touched_planes(self) -> set[tuple[int, ...]]:
        """Return the planes (indices of the slider axes) where the person painted."""
        return set(self._touched_planes)

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
        for atom in event.value:
            if hasattr(atom, "slice_key"):  # napari >= 0.8
                region = self.touched[atom.slice_key]
                region[... if atom.mask is None else atom.mask] = True
                self._note_planes(atom.slice_key)
            else:
                self.touched[atom[0]] = True
                self._note_planes(atom[0])
        self._recount.start()

    def _on_set_data(self, event: Any = None) -> None:
        if self._planes:
            self._recount.start()

    def _on_data(self, event: Any = None) -> None:
        """Look at all planes after other data were put into the layer, e.g. by a script."""
        if self.base.shape == np.shape(self.layer.data):
            self._planes.update(np.ndindex(self.base.shape[:-2]))
        self._recount.start()

    def _note_planes(self, key: Any) -> None:
        """Remember which planes a change touched."""
        lead = self.base.ndim - 2
        if not lead:
            self._planes.add(())
            self._touched_planes.add(())
            return
        marked = np.zeros(self.base.shape[:lead], dtype=bool)
        key = key if isinstance(key, tuple) else (key,)
        if any(isinstance(part, np.ndarray) for part in key):
            marked[tuple(key[:lead])] = True
        else:
            marked[tuple(part for part in key if part is not Ellipsis)[:lead]] = True
        planes = {tuple(at) for at in np.argwhere(marked).tolist()}
        self._planes |= planes
        self._touched_planes |= planes

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
