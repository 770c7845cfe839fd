"""What the person has vouched for in the whole session: all of it is learned from together.

Each image counts once, with the labels at hand if they are its own, else with its newest ones;
checked planes, regions and strokes of all its planes. Labels whose image is not known belong to
the image that is chosen under Segment, if they are at hand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari_unet.widget.annotation import Annotation
    from napari_unet.widget.channels import Gathered, Subject
    from napari_unet.widget.segment_panel import SegmentPanel
    from napari_unet.widget.session import Session


@dataclass(frozen=True)
class Teaching:
    """The labels to learn from, each with its image.

    Attributes
    ----------
    pairs : list of (Annotation, Subject)
        One for each image.
    left_out : list of str
        Names of images that are not learned from, because they are dark on bright and the image
        at hand is not, or the other way round.
    """

    pairs: list[tuple[Annotation, Subject]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def regions(self) -> int:
        """How many regions are checked."""
        return sum(annotation.regions.count for annotation, _ in self.pairs)

    @property
    def planes(self) -> int:
        """On how many planes something is vouched for."""
        return sum(len(annotation.planes()) for annotation, _ in self.pairs)

    @property
    def invert(self) -> bool:
        """Whether objects are dark on a bright background."""
        return any(subject.invert for _, subject in self.pairs)

    def describe(self) -> str:
        """Say in a line what is learned from."""
        if not self.pairs:
            return ""
        parts = []
        if self.regions:
            parts.append(_count(self.regions, "region"))
        if any(_has_strokes(annotation) for annotation, _ in self.pairs):
            parts.append("painted strokes")
        places = _count(self.planes, "plane")
        if len(self.pairs) > 1:
            places += f" of {len(self.pairs)} images"
        told = f"Learns from {' and '.join(parts)} on {places}."
        if self.left_out:
            told += (
                f" Not from {', '.join(self.left_out)}: objects are dark on bright in the one and "
                "bright on dark in the other."
            )
        return told

    def take(self) -> tuple[dict[str, Any], list[dict[str, Any]], tuple[int, ...] | None]:
        """Take the samples for the engine.

        Returns
        -------
        arrays : dict of str to array-like
            All arrays, under names of their own.
        samples : list of dict
            For each plane the names of its arrays, the axes of its image, and its own name.
        channels : tuple of int or None
            Those of each image that the network sees; None for all.
        """
        gathered = [subject.gather() for _, subject in self.pairs]
        is_same = len({each.channels for each in gathered}) == 1
        arrays: dict[str, Any] = {}
        described: list[dict[str, Any]] = []
        for (annotation, _), image in zip(self.pairs, gathered, strict=True):
            for sample in annotation.samples(image):
                if not is_same:
                    sample = {**sample, "image": _picked(sample, image)}
                number = len(described)
                told = {key: sample[key] for key in ("axes", "name")}
                named = {key: f"{number}_{key}" for key in sample if key not in told}
                described.append({**told, **named})
                arrays |= {name: sample[key] for key, name in named.items()}
        return arrays, described, gathered[0].channels if is_same else None


def find_teaching(session: Session, segment: SegmentPanel) -> Teaching:
    """Look through the session for what is vouched for.

    Parameters
    ----------
    session : Session
        The state the panels share.
    segment : SegmentPanel
        Says which image labels from elsewhere belong to.

    Returns
    -------
    Teaching
        The labels at hand come first; empty if nothing is vouched for.
    """
    chosen: dict[int, tuple[Annotation, Subject]] = {}
    at_hand = None if session.labels is None else session.annotation(session.labels)
    for annotation in [*session.annotations(), *([at_hand] if at_hand else [])]:
        subject = annotation.subject
        if subject is None and annotation is at_hand:
            subject = segment.subject()
        is_there = subject is not None and subject.image in session.viewer.layers
        if subject is not None and is_there and annotation.planes():
            chosen[id(subject.image)] = (annotation, subject)  # the newest, or the one at hand
    pairs = sorted(chosen.values(), key=lambda pair: pair[0] is not at_hand)
    alike = [pair for pair in pairs if pair[1].invert == pairs[0][1].invert]
    others = [subject.image.name for _, subject in pairs if subject.invert != alike[0][1].invert]
    return Teaching(alike, others)


def _picked(sample: dict[str, Any], gathered: Gathered) -> Any:
    """Return the channels of a sample that the network sees, where images have them elsewhere."""
    if gathered.channels is None:
        return sample["image"]
    return np.take(sample["image"], gathered.channels, axis=sample["axes"].index("C"))


def _has_strokes(annotation: Annotation) -> bool:
    return annotation.strokes_count and bool(annotation.edits.touched_planes())


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
