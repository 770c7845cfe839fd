"""Whether a new model takes the place of the old one, and why, in words.

The rule: a new model is better if on the held-out labels it finds objects better (AP at IoU 0.5)
than chance alone would do more than once in 30 times, and loses next to nothing in pixels. If it
finds at least as many, and more than half of them, it is better if its outlines fit better (pixel
IoU) than chance would do more than once in 100 times; where hardly an object is found, pixels that
agree say nothing of outlines, and a few objects do not tell whether others are lost. Classes are
judged by their IoU alone, at once in 30.

Both together let a model that is not better through at most once in 20 times. A smaller gain may
be real; the old model stays in use all the same, until more labels can tell. And no gain counts
that was found on labels that cannot be right (:mod:`napari_unet.runs.misfits`).

Where a single region both teaches and judges, what is odd about its labels is odd on both sides. If
each checked object there takes the place of several labels of the old model, these may be objects
larger than it knows, nuclei mended that it had cut in parts, or neighbours drawn as one; no
picture tells which. So that is not judged until another region says the same.

What is learned must be in the weights: if the old model finds more than the new one as soon as it
has the threshold and the smallest object that suit the held-out labels best, nothing has to be
retrained, and the person is told what to set.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from napari_unet.runs.places import measure_difference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.runs.evaluate import Scores
    from napari_unet.runs.places import Difference, Tally
    from napari_unet.settings import InstanceSettings

Outcome = Literal["better", "not better", "cannot judge"]

MOST_CHANCE = 1 / 30  # that the gain in the score that judges is luck
MOST_CHANCE_OUTLINES = 1 / 100  # that better outlines are, where as many objects are found
LEAST_IOU_GAIN = 0.01  # below it is not worth a new model
LARGEST_IOU_LOSS = 0.05  # that finding more objects may cost
MOST_TOLD = 2  # of the regions whose labels cannot be right
TOO_MANY_LABELS = 2.0  # of the old model for an object, where one region judges
LEAST_PLACES_OUTLINES = 10  # with objects: in fewer, that as many are found says little
LEAST_PLACES = 5  # of fewer, chance can give all to one model more often than MOST_CHANCE

STAYS = "The old model stays in use."
LOOK = "Look at these labels again, then retrain."
FINDS_ALL = (
    "The old model finds all of them already, and stays in use. If it errs elsewhere, check a "
    "region there, then retrain."
)
NEXT = "Check one more region where it errs, then retrain."
TOO_FEW = (
    "Too few labels to judge: mark one more region. The new model is there to be tried; until "
    "then the old one stays in use."
)


@dataclass(frozen=True)
class Verdict:
    """Whether a new model is taken."""

    outcome: Outcome
    """Only a better model should take the place of the old one unasked."""
    text: str
    """The same in a few sentences for the person, with what to do."""
    evidence: dict[str, Any]
    """Of each score that was compared ("ap50", "iou"): gain, its interval, how often chance
    alone gives it, the places with something to judge, and those where the models differ."""


@dataclass(frozen=True)
class OldAtBest:
    """The old model at its best: nothing but how objects are found is another."""

    scores: Scores
    """On the same held-out labels."""
    instances: InstanceSettings
    """How it finds them then."""


def compare(
    before: Scores | None,
    after: Scores | None,
    misfits: Sequence[str] = (),
    old_at_best: OldAtBest | None = None,
    *,
    is_one_region: bool = False,
) -> Verdict:
    """Decide whether a new model is taken.

    Parameters
    ----------
    before, after : Scores or None
        Of the old and the new model on the same held-out labels; None if there were none.
    misfits : sequence of str
        What cannot be right about the held-out labels, each in a sentence.
    old_at_best : OldAtBest, optional
        The old model with the threshold and the smallest object that suit these labels.
    is_one_region : bool
        Whether the held-out labels are a part of the region that teaches.

    Returns
    -------
    Verdict
        By the rule of this module.
    """
    verdict = _compare(before, after)
    if verdict.outcome == "better" and is_one_region and before is not None:
        verdict = _if_alike(verdict, before)
    if verdict.outcome == "better" and old_at_best is not None and after is not None:
        verdict = _if_needed(verdict, old_at_best, after)
    if not misfits:
        return verdict
    others = len(misfits) - MOST_TOLD
    more = [f"({others} more {'region' if others == 1 else 'regions'}.)"] if others > 0 else []
    wrong = " ".join([*misfits[:MOST_TOLD], *more, LOOK])
    if verdict.outcome != "better":
        return replace(verdict, text=f"{verdict.text} But: {wrong}")
    text = f"{verdict.text} But the held-out labels cannot be trusted. {wrong} {STAYS}"
    return replace(verdict, outcome="cannot judge", text=text)


def _compare(before: Scores | None, after: Scores | None) -> Verdict:
    """Decide as if all labels were right."""
    if before is None or after is None:
        return Verdict("cannot judge", TOO_FEW, {})
    pixels = _difference(before.pixels, after.pixels)
    if before.objects is None or after.objects is None:
        outcome, text = _judge_classes(before, after, pixels)
        return Verdict(outcome, text, {"iou": asdict(pixels)})
    objects = _difference(before.objects, after.objects)
    outcome, text = _judge_objects(before, after, objects, pixels)
    return Verdict(outcome, text, {"ap50": asdict(objects), "iou": asdict(pixels)})


def _if_alike(verdict: Verdict, before: Scores) -> Verdict:
    """Take no model by one region where an object is several labels of the old model."""
    labels = (before.tp or 0) + (before.fp or 0) - (before.spurious or 0)
    objects = (before.tp or 0) + (before.fn or 0)
    if not objects or labels < TOO_MANY_LABELS * objects:
        return verdict
    text = (
        f"One region cannot judge this: {objects} checked objects take the place of {labels} "
        "labels of the old model. If they are larger than the objects it knows, set Object size "
        "instead. Else check one more region and retrain; until then the old model stays in use, "
        "and the new one is there to be tried."
    )
    return replace(verdict, outcome="cannot judge", text=text)


def _if_needed(verdict: Verdict, old: OldAtBest, after: Scores) -> Verdict:
    """Take a better model back if the old one at its best finds more."""
    if old.scores.main <= after.main:
        return verdict
    best = old.instances
    text = (
        f"Not better than the old model can be: {_found(old.scores, after)}, if that has the "
        f"threshold {best.threshold:.2g}, splits at {best.split_level:.2g} and drops labels below "
        f"{best.min_size} px. {STAYS} Set these under Segment, or check one more region where it "
        "errs and retrain."
    )
    return replace(verdict, outcome="not better", text=text)


def _difference(before: Tally | None, after: Tally | None) -> Difference:
    """Compare a score that both models have."""
    if before is None or after is None:
        raise ValueError("scores of two models were compared, and one was not made by judging")
    return measure_difference(before, after)


def _judge_objects(
    before: Scores, after: Scores, objects: Difference, pixels: Difference
) -> tuple[Outcome, str]:
    """Judge a model that tells objects apart."""
    found = _found(before, after)
    overlap = f"pixel IoU {after.iou:.2f} instead of {before.iou:.2f}"
    if objects.gain > 0 and objects.places < LEAST_PLACES:
        return "cannot judge", TOO_FEW
    if objects.gain > 0 and objects.chance <= MOST_CHANCE:
        if pixels.gain < -LARGEST_IOU_LOSS:
            return (
                "not better",
                f"Not better on held-out labels: {found}, but {overlap}. {STAYS} {NEXT}",
            )
        return "better", f"Better on held-out labels: {found}. {_luck(objects)}"
    fits = after.mean_ap is None or before.mean_ap is None or after.mean_ap >= before.mean_ap
    finds_most = (after.tp or 0) > (after.fn or 0)
    invents_no_more = (after.spurious or 0) <= (before.spurious or 0)
    finds_as_many = objects.gain >= 0 and after.main >= before.main
    finds_as_many &= (after.tp or 0) >= (before.tp or 0)
    are_enough = objects.places >= LEAST_PLACES_OUTLINES
    is_as_good = finds_as_many and are_enough and finds_most and invents_no_more and fits
    if is_as_good and pixels.gain >= LEAST_IOU_GAIN and pixels.chance <= MOST_CHANCE_OUTLINES:
        return (
            "better",
            f"Better on held-out labels: {found}, and outlines that fit better ({overlap}). "
            f"{_luck(pixels)}",
        )
    if objects.gain > 0:
        return "not better", _may_be_chance(found, objects)
    if after.main > before.main:
        return "not better", (
            f"Not surely better on held-out labels: {found}. All of it comes from how objects are "
            f"found, which was fitted on these labels: that may be luck. {STAYS} {NEXT}"
        )
    advice = FINDS_ALL if before.main == 1 else f"{STAYS} {NEXT}"
    return "not better", f"Not better on held-out labels: {found}; {overlap}. {advice}"


def _judge_classes(before: Scores, after: Scores, pixels: Difference) -> tuple[Outcome, str]:
    """Judge a model of classes."""
    overlap = f"IoU {after.iou:.2f} instead of {before.iou:.2f}"
    if pixels.gain < LEAST_IOU_GAIN:
        return "not better", f"Not better on held-out labels: {overlap}. {STAYS} {NEXT}"
    if pixels.places < LEAST_PLACES:
        return "cannot judge", TOO_FEW
    if pixels.chance > MOST_CHANCE:
        return "not better", _may_be_chance(overlap, pixels)
    return "better", f"Better on held-out labels: {overlap}. {_luck(pixels)}"


def _found(before: Scores, after: Scores) -> str:
    """Say what became of AP and the objects, in numbers of the table that add up to all."""
    (new, found), (old, found_before) = _fates(after), _fates(before)
    all_now, all_before = found + sum(new[:2]), found_before + sum(old[:2])
    parts = [
        f"AP {after.main:.2f} instead of {before.main:.2f}",
        f"{found} of {all_now} objects found instead of {found_before}"
        + (f" of {all_before}" if all_before != all_now else ""),
    ]
    for name, now, was in zip(("missed", "merged or split"), new, old, strict=False):
        parts += [f"{now} {name} instead of {was}"] if now or was else []
    if new[2] or old[2]:
        parts.append(
            f"{new[2]} spurious {'label' if new[2] == 1 else 'labels'} instead of {old[2]}"
        )
    return ", ".join(parts)


def _fates(scores: Scores) -> tuple[tuple[int, int, int], int]:
    """Count objects missed, objects lost in merged or split labels, spurious labels; and found."""
    lost, missed = scores.fn or 0, scores.missed or 0
    return (missed, lost - missed, scores.spurious or 0), scores.tp or 0


def _luck(difference: Difference) -> str:
    """Say how often chance would do the same."""
    return f"Chance alone would do that {_often(difference.chance)}."


def _may_be_chance(what: str, difference: Difference) -> str:
    """Say that a gain is too small to be told from luck."""
    return (
        f"Not surely better on held-out labels: {what}. Chance alone would do that "
        f"{_often(difference.chance)}, so it may be luck. {STAYS} Check one more region and "
        "retrain: with more labels a small gain can be told."
    )


def _often(chance: float) -> str:
    """Say a probability as once in so many times."""
    times = min(int(1 / chance + 1e-9), 1000)
    return f"once in {times} times" if times > 2 else "every second time"
