"""A normalisation in the words of bioimage.io."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_unet.models.bioimageio.steps import EPS, WHOLE_RANGE

if TYPE_CHECKING:
    from napari_unet.settings import Normalization


def write_preprocessing(rule: Normalization, spatial: str, channels: int) -> list[dict[str, Any]]:
    """Say a normalisation in the steps of bioimage.io.

    Parameters
    ----------
    rule : Normalization
        Of a card.
    spatial : str
        Spatial axes: ``"yx"`` or ``"zyx"``.
    channels : int
        Channels of the input.

    Returns
    -------
    list of dict
        Format 0.5; :func:`read_preprocessing` reads it back.
    """
    axes = [*(["channel"] if rule.joint else []), *spatial]
    # bioimageio.core knows one eps only; ours is 0 unless a package gave one.
    eps = rule.eps or EPS
    steps = [_step("ensure_dtype", dtype="float32"), *_clip_step(rule.limits)]
    if rule.kind == "mean-std":
        steps.append(_step("zero_mean_unit_variance", axes=axes, eps=eps))
    elif rule.kind in {"percentile", "min-max"}:
        low, high = (rule.low, rule.high) if rule.kind == "percentile" else WHOLE_RANGE
        steps.append(
            _step("scale_range", axes=axes, min_percentile=low, max_percentile=high, eps=eps)
        )
    elif rule.kind == "divide":
        steps += _linear_step([1 / rule.divisor], [0.0])
    elif rule.kind == "fixed":
        count = channels if max(len(rule.offsets), len(rule.scales)) > 1 else 1
        offsets, scales = (
            [*values] * (count if len(values) == 1 else 1) for values in (rule.offsets, rule.scales)
        )
        gains = [1 / (scale + rule.eps) for scale in scales]
        steps += _linear_step(gains, [-o * g for o, g in zip(offsets, gains, strict=True)])
    steps += _linear_step([rule.gain], [rule.shift])
    return [*steps, *_clip_step(rule.clip), _step("ensure_dtype", dtype="float32")]


def _step(name: str, **options: Any) -> dict[str, Any]:
    """Write a step."""
    return {"id": name, "kwargs": options}


def _clip_step(bounds: tuple[float | None, float | None]) -> list[dict[str, Any]]:
    """Write that values are cut off, if they are."""
    given = {
        name: bound for name, bound in zip(("min", "max"), bounds, strict=True) if bound is not None
    }
    return [_step("clip", **given)] if given else []


def _linear_step(gains: list[float], shifts: list[float]) -> list[dict[str, Any]]:
    """Write a factor and a sum, unless they change nothing."""
    if all(gain == 1 for gain in gains) and not any(shifts):
        return []
    if len(gains) == 1:
        return [_step("scale_linear", gain=gains[0], offset=shifts[0])]
    return [_step("scale_linear", axis="channel", gain=gains, offset=shifts)]
