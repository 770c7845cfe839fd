"""One labels layer under correction: the image it labels, the edits, the checked regions.

This is the person's side of the loop. From it come the samples a network learns from, and what
of an older labelling must survive in a newer one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_unet.arrays.axes import name_plane
from napari_unet.arrays.corrections import keep_vouched
from napari_unet.widget.edits import Edits
from napari_unet.widget.layers import METADATA_KEY, labels_layer_axes
from napari_unet.widget.regions import Regions
from napari_unet.widget.remains import find, leave, subject_of

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Labels

    from napari_unet.models.card import Card
    from napari_unet.widget.channels import Gathered, Subject


class Annotation(QObject):
    """What the person vouches for in one labels layer.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        The viewer the layer is in.
    labels : napari.layers.Labels
        The layer.
    subject : Subject or None
        The image the labels belong to, if known.
    base : ndarray of int, optional
        The uncorrected labels; by default those an earlier dock left with the layer, with what
        was done in it, or else the layer's present ones.

    Attributes
    ----------
    strokes_count : bool
        Whether painted pixels are vouched for even outside of checked regions.
    token_plane : dict of str to int
        The plane the kept probability belongs to, by slider axis; empty for the whole image.
    visited : list of tuple of int
        Doubtful spots the person was led to, as indices of the kept probability.
    """

    changed = Signal()
    told = Signal(str)

    def __init__(
        self,
        viewer: ViewerModel,
        labels: Labels,
        subject: Subject | None,
        base: np.ndarray | None = None,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        earlier = find(labels) if base is None else None
        self.labels = labels
        self.subject = subject_of(earlier) if subject is None and earlier else subject
        self._token: str | None = None
        self.visited: list[tuple[int, ...]] = []
        self.token_plane: dict[str, int] = {}
        self.strokes_count = earlier.strokes_count if earlier else True
        self.edits = Edits(labels, earlier.base if earlier else base, self)
        regions = earlier.regions() if earlier and earlier.regions else None
        self.regions = Regions(viewer, labels, self, layer=regions)
        if earlier:
            self.edits.resume(earlier.touched)
        self.edits.count_changed.connect(lambda _: self.changed.emit())
        self.regions.changed.connect(self.changed)
        self.regions.refused.connect(self.told)

    @property
    def labels_axes(self) -> str:
        """The axes of the labels layer, e.g. ``"ZYX"``."""
        return labels_layer_axes(self.labels)

    @property
    def token(self) -> str | None:
        """Names the kept probability the labels came from; None if there is none.

        With another one the doubtful spots that were visited are forgotten.
        """
        return self._token

    @token.setter
    def token(self, token: str | None) -> None:
        """Take the name of another probability."""
        self._token = token
        self.visited = []

    @property
    def is_unedited(self) -> bool:
        """Whether the labels are what a run made of them; regions may be checked."""
        return not self.edits.any()

    def planes(self) -> list[tuple[int, ...]]:
        """List the planes (indices of the slider axes) with something vouched for."""
        planes = self.regions.planes()
        if self.strokes_count:
            planes |= self.edits.touched_planes()
        return sorted(planes)

    def vouched(self, plane: tuple[int, ...]) -> np.ndarray:
        """Return what the person vouches for in a plane: bool, shape (Y, X)."""
        mask = self.regions.mask(plane)
        return mask | self.edits.touched[plane] if self.strokes_count else mask

    def samples(self, gathered: Gathered) -> list[dict[str, Any]]:
        """Take what the person vouched for as training samples, one for each plane.

        Parameters
        ----------
        gathered : Gathered
            The image as the network sees it.

        Returns
        -------
        list of dict
            Arrays ``image`` (lazy where the layer is), ``labels``, ``labelled``, ``changed``,
            the image's ``axes`` and the plane's ``name``. Labels are copied, so the person may go
            on painting.
        """
        axes = self.labels_axes
        name = self.labels.name if self.subject is None else self.subject.image.name
        return [
            {
                "image": plane_of_image(gathered, axes, plane),
                "axes": "".join(a for a in gathered.axes if a in "CYX"),
                "name": name_plane(name, axes[:-2], plane),
                "labels": _sealed(np.array(self.labels.data[plane])),
                "labelled": _sealed(self.vouched(plane)),
                "changed": _sealed(self.edits.changed(plane)),
            }
            for plane in self.planes()
        ]

    def with_checked(self, labels: np.ndarray, at: dict[str, int]) -> np.ndarray:
        """Return newer labels in which what is checked in this layer stays as it is.

        Parameters
        ----------
        labels : ndarray of int
            Labels of the whole layer or of one plane of it.
        at : dict of str to int
            The plane, by slider axis; empty for the whole layer.
        """
        lead = self.labels_axes[:-2]
        fixed = tuple(at.get(axis) for axis in lead)
        for plane in sorted(self.regions.planes()):
            if all(want in (None, index) for want, index in zip(fixed, plane, strict=True)):
                where = tuple(i for i, want in zip(plane, fixed, strict=True) if want is None)
                if not labels.flags.writeable or labels.base is not None:
                    labels = np.array(labels)
                labels[where] = keep_vouched(
                    labels[where], np.asarray(self.labels.data[plane]), self.regions.mask(plane)
                )
        return labels

    def carry_over(self, older: Annotation) -> None:
        """Let what the person vouched for in an older labelling stand in this one, too.

        The checked regions move here; the labels inside them and under painted strokes are the
        person's. The older layer keeps its labels as they are.
        """
        self.strokes_count = older.strokes_count
        for plane in older.planes():
            self.labels.data[plane] = keep_vouched(
                np.asarray(self.labels.data[plane]),
                np.asarray(older.labels.data[plane]),
                older.vouched(plane),
            )
        self.edits.adopt(older.edits)
        self.regions.adopt(older.regions)
        self.labels.refresh()

    def close(self) -> None:
        """Stop following the layers; the next annotation of this one goes on from here."""
        leave(self)
        self.edits.close()
        self.regions.close()

    def describe(self) -> str:
        """Say in one line what the person did."""
        edits, regions = self.edits.count, self.regions.count
        return (
            f"{edits} object{'s' * (edits != 1)} corrected, "
            f"{regions} region{'s' * (regions != 1)} checked"
        )


def labels_metadata(axes: str, image: str, card: Card | None) -> dict[str, Any]:
    """Return what a labels layer keeps about itself."""
    made_by = {} if card is None else {"model": card.name, "labels": card.labels}
    return {METADATA_KEY: {"axes": axes, "image": image, **made_by}}


def _sealed(array: np.ndarray) -> np.ndarray:
    """Make an array of ours read-only: the engine need not copy what cannot change."""
    array.flags.writeable = False
    return array


def plane_of_image(gathered: Gathered, labels_axes: str, plane: tuple[int, ...]) -> Any:
    """Return one plane of an image.

    Parameters
    ----------
    gathered : Gathered
        The image as the network sees it.
    labels_axes : str
        The axes of its labels, e.g. "ZYX".
    plane : tuple of int
        Index of the slider axes of the labels.

    Returns
    -------
    array-like
        C, Y, X in the order the image has them; lazy where the image is.
    """
    at = dict(zip(labels_axes, plane, strict=False))
    index = tuple(slice(None) if axis in "CYX" else at.get(axis, 0) for axis in gathered.axes)
    return gathered.array[index]
