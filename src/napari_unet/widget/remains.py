"""What a closed dock leaves behind, so that the next one goes on where it was.

It is kept beside each labels layer as long as the layer itself is; the image, its channels and
the regions are only pointed at, so that nothing here keeps a closed layer alive. Kept
probabilities are not among it: they end with the process that computed them.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_unet.widget.channels import ChannelSource, Subject

if TYPE_CHECKING:
    import numpy as np
    from napari.layers import Labels, Shapes

    from napari_unet.widget.annotation import Annotation


@dataclass(frozen=True)
class Remains:
    """The corrections of one labels layer without the dock."""

    base: np.ndarray
    touched: np.ndarray
    strokes_count: bool
    subject: _WeakSubject | None
    regions: weakref.ref[Shapes] | None


@dataclass(frozen=True)
class _WeakSubject:
    """A subject that does not hold its layers."""

    image: weakref.ref[Any]
    axes: str
    sources: tuple[tuple[weakref.ref[Any], int | None, str], ...]
    invert: bool


_remains: weakref.WeakKeyDictionary[Labels, Remains] = weakref.WeakKeyDictionary()


def leave(annotation: Annotation) -> None:
    """Keep what the person did in a labels layer, beside the layer."""
    regions = annotation.regions.layer
    _remains[annotation.labels] = Remains(
        annotation.edits.base,
        annotation.edits.touched,
        annotation.strokes_count,
        None if annotation.subject is None else _weakened(annotation.subject),
        None if regions is None else weakref.ref(regions),
    )


def find(labels: Labels) -> Remains | None:
    """Return what an earlier dock left with a labels layer, if it still fits its data."""
    remains = _remains.get(labels)
    return remains if remains is not None and remains.base.shape == labels.data.shape else None


def subject_of(remains: Remains) -> Subject | None:
    """Return the image the labels belong to, or None if any layer of it was closed."""
    weak = remains.subject
    if weak is None:
        return None
    image = weak.image()
    layers = [layer() for layer, _, _ in weak.sources]
    if image is None or any(layer is None for layer in layers):
        return None
    sources = tuple(
        ChannelSource(layer, index, text)
        for layer, (_, index, text) in zip(layers, weak.sources, strict=True)
    )
    return Subject(image, weak.axes, sources, weak.invert)


def _weakened(subject: Subject) -> _WeakSubject:
    """Point at the layers of a subject instead of holding them."""
    sources = tuple((weakref.ref(s.layer), s.index, s.text) for s in subject.sources)
    return _WeakSubject(weakref.ref(subject.image), subject.axes, sources, subject.invert)
