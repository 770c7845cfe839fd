"""Resizing as ONNX defines it, by the rules of which there is one of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_unet.models.building.refusals import unsupported
from napari_unet.models.onnx.values import Known, Step, Translate, Value

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_unet.models.building.builder import GraphBuilder
    from napari_unet.models.building.features import Feature
    from napari_unet.models.onnx.reader import Reader


def _resize(reader: Reader, step: Step) -> Value:
    """Resize of opset 10 and later, and Upsample of earlier ones."""
    builder, options, x = reader.builder, step.options, step.x
    order = x.order
    if len(order) != 2 + builder.dims:
        raise unsupported("resizing of what is no image")
    legacy = step.op == "Upsample" or reader.opset < 11
    scales = step.given(1 if legacy else 2) or None
    sizes = None if legacy else step.given(3)
    axes = list(options.get("axes", range(len(order))))
    if legacy and scales is None and "scales" in options:
        scales = Known((np.array(options["scales"]),))
    if isinstance(scales, Known) and scales.arrays[0].size == 0:
        scales = None
    wanted = np.stack(x.shape, axis=1)
    factors: NDArray[Any] | None = None
    if scales is not None:
        living = reader.fold(lambda _, a: np.asarray(a, float), [scales], {})[0]
        numbers = _floats_per_probe(reader, living)
        for place, axis in enumerate(axes):
            # In float32, as it is rounded where the file is run.
            exact = wanted[:, axis].astype(np.float32) * numbers[:, place].astype(np.float32)
            wanted[:, axis] = np.floor(exact)
        if (numbers[builder.alive] == numbers[builder.alive][:1]).all():
            factors = np.ones(len(order))
            factors[axes] = numbers[builder.alive][0]
    elif sizes is not None:
        for place, axis in enumerate(axes):
            wanted[:, axis] = reader.per_probe(sizes)[:, place]
    else:
        raise unsupported("resizing to no size")
    spatial = [order.index(2 + axis) for axis in range(builder.dims)]
    others = [place for place in range(len(order)) if place not in spatial]
    if (wanted[builder.alive][:, others] != np.stack(x.shape, 1)[builder.alive][:, others]).any():
        raise unsupported("resizing of channels")
    mode = options.get("mode", "nearest")
    how = options.get("coordinate_transformation_mode", "asymmetric" if legacy else "half_pixel")
    options = {"nearest_mode": "floor", **options} if legacy else options
    target = wanted[:, spatial]
    given = None if factors is None else [float(factors[place]) for place in spatial]
    if given is not None and len(builder.alive) == 1 and any(16 * f % 1 for f in given):
        given = None  # of the one size that was exported: it was made as large as another layer
    plain = x.reordered(x.plain)
    result = _resized(builder, plain, mode, how, options, given, target)
    return result.reordered(order)


def _floats_per_probe(reader: Reader, value: Value) -> np.ndarray:
    """Return a vector of real numbers for each probe."""
    if not isinstance(value, Known):
        raise unsupported("factors that depend on the content of the image")
    arrays = value.arrays * len(reader.builder.alive) if value.is_constant else value.arrays
    return np.stack([np.asarray(a, float).reshape(-1) for a in arrays])


def _resized(
    builder: GraphBuilder,
    x: Feature,
    mode: str,
    how: str,
    options: dict[str, Any],
    factors: list[float] | None,
    sizes: np.ndarray,
) -> Feature:
    """Resize by a rule of ONNX for which there is one of ours."""
    if factors is None:
        factors_known = builder.constant_scale(x, sizes)
        whole = factors_known is not None and all(f == int(f) for f in factors_known)
        factors = list(factors_known) if factors_known is not None and whole else None
    whole = factors is not None and all(f == int(f) for f in factors)
    if mode == "nearest":
        rule = options.get("nearest_mode", "round_prefer_floor")
        if how == "asymmetric" and rule == "floor":
            return builder.resize(x, "nearest", scale=factors, sizes=None if factors else sizes)
        if factors is None or not whole or not _repeats(how, rule, [int(f) for f in factors]):
            raise unsupported(f"nearest resizing of the kind {how}, {rule}")
        return builder.resize(x, "nearest", scale=factors)
    if mode not in {"linear", "cubic"}:
        raise unsupported(f"resizing of the kind {mode}")
    if mode == "cubic":
        if abs(options.get("cubic_coeff_a", -0.75) + 0.75) > 1e-6 or builder.dims != 2:
            raise unsupported("cubic resizing of an unusual kind")
    if how == "asymmetric" and mode == "linear" and factors is not None and whole:
        return builder.resize_from_corner(x, [int(f) for f in factors])
    if how not in {"half_pixel", "pytorch_half_pixel", "align_corners"}:
        raise unsupported(f"{mode} resizing of the kind {how}")
    return builder.resize(
        x,
        "linear" if mode == "linear" else "cubic",
        scale=factors,
        sizes=None if factors else sizes,
        align_corners=how == "align_corners",
    )


def _repeats(how: str, rule: str, factors: list[int]) -> bool:
    """Whether a rule for the nearest pixel repeats each pixel as often as the factor says."""
    for factor in factors:
        place = np.arange(8 * factor, dtype=float)
        if how in {"half_pixel", "pytorch_half_pixel", "half_pixel_symmetric"}:
            source = (place + 0.5) / factor - 0.5
        elif how == "asymmetric":
            source = place / factor
        elif how == "tf_half_pixel_for_nn":
            source = (place + 0.5) / factor
        else:
            return False
        nearest = {
            "round_prefer_floor": np.ceil(source - 0.5),
            "round_prefer_ceil": np.floor(source + 0.5),
            "floor": np.floor(source),
            "ceil": np.ceil(source),
        }.get(rule)
        if nearest is None or (np.clip(nearest, 0, 7) != place // factor).any():
            return False
    return True


def _depth_to_space(reader: Reader, step: Step) -> Value:
    if reader.builder.dims != 2:
        raise unsupported("DepthToSpace of volumes")
    return reader.builder.pixel_shuffle(
        step.x,
        int(step.options["blocksize"]),
        depth_first=step.options.get("mode", "DCR") == "DCR",
    )


RESIZING: dict[str, Translate] = {
    "Resize": _resize,
    "Upsample": _resize,
    "DepthToSpace": _depth_to_space,
}
