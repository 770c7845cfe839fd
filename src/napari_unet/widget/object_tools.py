"""Delete, merge and cut the object under the mouse, one key each; Ctrl+Z takes any of them back.

The keys are the viewer's, so that they work whichever layer is selected; they act on the labels
at hand, in the plane that is shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_unet.arrays.objects import Part, cut_off, is_touching, part_at
from napari_unet.errors import LabelsError
from napari_unet.widget.layers import plane_problem

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_unet.widget.session import Session

DELETE_KEY, MERGE_KEY, CUT_KEY = "Shift-D", "Shift-M", "Shift-C"
NO_OBJECT = "Point at an object of the labels first, then press the key."


class Pointed(NamedTuple):
    """An object the mouse is over: its layer, its plane, the pixel in it and the part there."""

    layer: Labels
    plane: tuple[int, ...]
    pixel: tuple[int, int]
    part: Part


class ObjectTools:
    """Edits of whole objects.

    Parameters
    ----------
    session : Session
        Says which labels are at hand, in which viewer.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._first: Pointed | None = None
        session.labels_changed.connect(self._on_labels)

    def delete(self) -> None:
        """Turn the object under the mouse into background."""
        at = self._pointed()
        if at is not None:
            _write(at, at.part, 0)
            self._session.tell(f"Object {at.part.number} is deleted. Ctrl+Z brings it back.")

    def merge(self) -> None:
        """Remember the object under the mouse, or join it to the one remembered."""
        at, first = self._pointed(), self._still_there()
        self._first = None
        if at is None:
            return
        if first is None or first.layer is not at.layer or first.plane != at.plane:
            self._first = at
            self._session.tell(
                f"Object {at.part.number} is taken. Point at the one it belongs to and press "
                f"{MERGE_KEY} again."
            )
        elif at.part.number == first.part.number:
            self._session.tell("Both have one number already: they are one object.")
        else:
            _write(at, at.part, first.part.number)
            hint = "" if is_touching(first.part, at.part) else " Paint the gap between them, too."
            self._session.tell(f"Both are object {first.part.number} now.{hint}")

    def cut(self) -> None:
        """Cut the object under the mouse in two, the shortest way through that point."""
        at = self._pointed()
        if at is None:
            return
        try:
            number = next_number(at.layer)
            piece = cut_off(at.part, at.pixel)
        except LabelsError as error:
            self._session.tell(str(error))
            return
        _write(at, piece, number)
        self._session.tell(f"Object {at.part.number} is cut; the smaller part is {number}.")

    def _pointed(self) -> Pointed | None:
        """Return the object under the mouse; if there is none, the person is told."""
        layer, viewer = self._session.labels, self._session.viewer
        if layer is None or layer.multiscale or not layer.visible:
            self._session.tell("There are no labels in view to correct. Press Segment first.")
            return None
        problem = plane_problem(viewer)
        if problem is None and not isinstance(layer.data, np.ndarray):
            problem = "These labels are not in memory, so objects cannot be edited as a whole."
        if problem is None and not layer.editable:
            problem = "These labels cannot be edited now."
        if problem is not None:
            self._session.tell(problem)
            return None
        position = layer.world_to_data(viewer.cursor.position[-layer.ndim :])
        index = tuple(int(i) for i in np.rint(position))
        if not all(0 <= i < n for i, n in zip(index, layer.data.shape, strict=True)):
            self._session.tell(NO_OBJECT)
            return None
        plane, pixel = index[:-2], (index[-2], index[-1])
        part = part_at(layer.data[plane], pixel)
        if part is None:
            self._session.tell(NO_OBJECT)
            return None
        return Pointed(layer, plane, pixel, part)

    def _still_there(self) -> Pointed | None:
        """Return the object taken for merging, as it is now."""
        first, at_hand = self._first, self._session.labels
        if first is None or at_hand is None or at_hand is not first.layer:
            return None
        part = part_at(at_hand.data[first.plane], first.pixel)
        return None if part is None else first._replace(part=part)

    def _on_labels(self) -> None:
        if self._first is not None and self._first.layer is not self._session.labels:
            self._first = None


def next_number(layer: Labels) -> int:
    """Return the next number no object of a layer has.

    Raises
    ------
    LabelsError
        If the layer's type holds no larger number.
    """
    number = int(np.max(layer.data, initial=0)) + 1
    if number > np.iinfo(layer.data.dtype).max:
        raise LabelsError(
            f"These labels are {layer.data.dtype} and have no number left. Convert the layer to "
            "int32 (right click > Convert data type)."
        )
    return number


def _write(at: Pointed, part: Part, number: int) -> None:
    """Give the pixels of a part another number, as one step of the layer's history."""
    ys, xs = part.pixels
    lead = tuple(np.full(ys.shape, i) for i in at.plane)
    at.layer.data_setitem((*lead, ys, xs), number)
