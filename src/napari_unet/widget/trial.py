"""What of the open image models are tried on: one piece of what is in view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_unet.widget.view import shown_region

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_unet.widget.channels import Subject

TRIAL_PX = 384
TRIAL_PLANES = 16


@dataclass(frozen=True)
class Piece:
    """A piece of an image: its array with the axes, and the channels of it the network sees."""

    array: Any
    axes: str
    channels: tuple[int, ...] | None


def piece_in_view(viewer: ViewerModel, subject: Subject, spatial_dims: int) -> Piece:
    """Cut out the middle of what a person sees of an image.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        The viewer.
    subject : Subject
        The image and its channels.
    spatial_dims : int
        3 to keep some planes around the shown one, else 2.

    Returns
    -------
    Piece
        At most 384 pixels wide and high, 16 planes deep; nothing is read yet.
    """
    gathered = subject.gather()
    axes = [axis for axis in subject.axes if axis != "C"]
    region = dict(zip(axes, shown_region(viewer, subject.image, subject.axes), strict=True))
    index: list[Any] = []
    kept = ""
    for axis, size in zip(gathered.axes, gathered.array.shape, strict=True):
        if axis == "C":
            index.append(slice(None))
        elif axis in "YX":
            index.append(_middle(*region[axis], TRIAL_PX))
        elif axis == "Z" and spatial_dims == 3:
            low, high = region[axis]
            centre = (low + high) // 2
            half = TRIAL_PLANES // 2
            index.append(slice(max(0, centre - half), min(size, centre + half)))
        else:
            index.append(region[axis][0])
            continue
        kept += axis
    return Piece(gathered.array[tuple(index)], kept, gathered.channels)


def _middle(low: int, high: int, most: int) -> slice:
    """Return the middle of a span."""
    if high - low <= most:
        return slice(low, high)
    start = (low + high - most) // 2
    return slice(start, start + most)
