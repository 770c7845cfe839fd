"""Which painted strokes still stand: napari tells of each stroke, but of undo and redo not at all.

A stroke comes with the values it painted over. As strokes are undone from the last one on, it is
enough to look at the last one that stands and at the last one that was undone: if the labels have
their old values back where it painted, it was undone; if they have its new ones, it was redone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

MOST_KEPT = 100
"""As many as napari can undo; older ones stand for good."""

Plane = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class _Stroke:
    """One step of the layer's history, and the planes it is in."""

    atoms: list[Any]
    planes: set[Plane]

    def mark(self, touched: np.ndarray) -> None:
        """Mark its pixels."""
        for atom in self.atoms:
            if hasattr(atom, "slice_key"):  # napari >= 0.8
                region = touched[atom.slice_key]
                region[... if atom.mask is None else atom.mask] = True
            else:
                touched[atom[0]] = True

    def is_undone(self, data: Any) -> bool:
        """Whether the labels are there as they were before it."""
        now, old, _ = _values(self.atoms[0], data)
        return bool(np.array_equal(now, old))

    def is_redone(self, data: Any) -> bool:
        """Whether the labels are there as it painted them."""
        now, old, new = _values(self.atoms[0], data)
        return bool(np.all(now == new)) and not np.array_equal(now, old)


class Strokes:
    """The painted pixels of one labels layer.

    Parameters
    ----------
    shape : tuple of int
        Of the layer.
    earlier : ndarray of bool, shape of the layer, optional
        What was painted before.

    Attributes
    ----------
    touched : ndarray of bool, shape of the layer
        Pixels under strokes that stand.
    """

    def __init__(self, shape: tuple[int, ...], earlier: np.ndarray | None = None) -> None:
        self.touched = np.zeros(shape, dtype=bool)  # takes no memory before it is written to
        self._settled = np.zeros(shape, dtype=bool)
        self._settled_planes: set[Plane] = set()
        self._standing: list[_Stroke] = []
        self._undone: list[_Stroke] = []
        if earlier is not None:
            self._add_settled(earlier)

    @property
    def planes(self) -> set[Plane]:
        """The planes (indices of the slider axes) with strokes that stand."""
        return self._settled_planes.union(*(stroke.planes for stroke in self._standing))

    def add(self, atoms: list[Any]) -> set[Plane]:
        """Take a new stroke; returns the planes it is in."""
        stroke = _Stroke(atoms, _planes_of(atoms, self.touched.shape[:-2]))
        stroke.mark(self.touched)
        self._undone.clear()
        self._standing.append(stroke)
        if len(self._standing) > MOST_KEPT:
            self._settle(self._standing.pop(0))
        return stroke.planes

    def follow(self, data: Any) -> bool:
        """Look which strokes were undone or redone; returns whether any was.

        Parameters
        ----------
        data : array-like of int
            The labels as they are now.
        """
        undone = redone = False
        while self._standing and self._standing[-1].is_undone(data):
            self._undone.append(self._standing.pop())
            self._mark_again(self._undone[-1].planes)
            undone = True
        while not undone and self._undone and self._undone[-1].is_redone(data):
            self._standing.append(self._undone.pop())
            self._standing[-1].mark(self.touched)
            redone = True
        return undone or redone

    def settle(self) -> None:
        """Let all strokes stand for good: napari forgets its history with new data."""
        for stroke in self._standing:
            self._settle(stroke)
        self._standing, self._undone = [], []

    def adopt(self, older: Strokes) -> None:
        """Add the strokes of an older labelling of the same image; they stand for good."""
        self._add_settled(older.touched)

    def _add_settled(self, painted: np.ndarray) -> None:
        """Let pixels be touched for good."""
        for plane in np.ndindex(painted.shape[:-2]):
            if painted[plane].any():
                self._settled[plane] |= painted[plane]
                self.touched[plane] |= painted[plane]
                self._settled_planes.add(plane)

    def _settle(self, stroke: _Stroke) -> None:
        stroke.mark(self._settled)
        self._settled_planes |= stroke.planes

    def _mark_again(self, planes: set[Plane]) -> None:
        """Work out what is touched in some planes after a stroke has gone from them."""
        for plane in planes:
            self.touched[plane] = self._settled[plane]
        for stroke in self._standing:
            if stroke.planes & planes:
                stroke.mark(self.touched)


def _values(atom: Any, data: Any) -> tuple[np.ndarray, Any, Any]:
    """Return the labels where an atom painted: now, before it, and what it painted."""
    if not hasattr(atom, "slice_key"):
        indices, old, new = atom
        return np.asarray(data[indices]), np.asarray(old), new
    region = np.asarray(data[atom.slice_key])
    now = region if atom.mask is None else region[atom.mask]
    return now, np.asarray(atom.old_values), atom.new_value


def _planes_of(atoms: list[Any], lead_shape: tuple[int, ...]) -> set[Plane]:
    """Return the planes that atoms are in."""
    if not lead_shape:
        return {()}
    marked = np.zeros(lead_shape, dtype=bool)
    for atom in atoms:
        key = atom.slice_key if hasattr(atom, "slice_key") else atom[0]
        key = key if isinstance(key, tuple) else (key,)
        if any(isinstance(part, np.ndarray) for part in key):
            marked[tuple(key[: len(lead_shape)])] = True
        else:
            marked[tuple(part for part in key if part is not Ellipsis)[: len(lead_shape)]] = True
    return {tuple(at) for at in np.argwhere(marked).tolist()}
