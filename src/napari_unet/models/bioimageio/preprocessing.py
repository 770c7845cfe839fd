"""What a package does before its network, as our card says it.

The steps are a chain of small operations. We know one shape of it, which most chains come down
to::

    cut off grey values -> measure, (value - offset) / scale -> gain, shift -> cut off

so fixed factors before and after the measurement are multiplied into it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from napari_unet.errors import ModelError, SettingError
from napari_unet.models.bioimageio.steps import ASK, EPS, WHOLE_RANGE, Step, cannot
from napari_unet.settings import Normalization

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def read_preprocessing(
    steps: Iterable[Step], channels: int, spatial: str, assumed: dict[str, str]
) -> Normalization:
    """Turn the steps before the network into a normalisation.

    Parameters
    ----------
    steps : iterable of Step
        In the order in which they are done.
    channels : int
        Channels of the input.
    spatial : str
        Its spatial axes: ``"yx"`` or ``"zyx"``.
    assumed : dict
        Gets a sentence for what is done a little differently here.

    Returns
    -------
    Normalization
        Gives what the steps give.

    Raises
    ------
    ModelError
        If the steps are of a kind that we cannot follow.
    """
    chain = _Chain(channels, spatial, assumed)
    for step in steps:
        follow = getattr(chain, step.name, None) if step.name in _FOLLOWED else None
        if follow is None:
            raise ModelError(
                f"Before the network the package does {step.name!r}, which is not known here. {ASK}"
            )
        follow(step)
    return chain.normalization()


_FOLLOWED = frozenset(
    "ensure_dtype scale_linear zero_mean_unit_variance fixed_zero_mean_unit_variance "
    "scale_range clip".split()
)


@dataclass(frozen=True)
class _Measured:
    """The one step that looks at the image."""

    kind: Literal["percentile", "mean-std", "min-max"]
    joint: bool
    eps: float
    percentiles: tuple[float, float] = WHOLE_RANGE


class _Chain:
    """The steps so far: ``gains * value + shifts``, the measurement, ``gain * value + shift``."""

    def __init__(self, channels: int, spatial: str, assumed: dict[str, str]) -> None:
        self._channels, self._spatial, self._assumed = channels, spatial, assumed
        self._gains, self._shifts = [1.0] * channels, [0.0] * channels
        self._limits: tuple[float | None, float | None] = (None, None)
        self._measured: _Measured | None = None
        self._cut: _Measured | None = None  # percentiles beyond which values are cut off
        self._gain, self._shift = 1.0, 0.0
        self._clip: tuple[float | None, float | None] = (None, None)

    def ensure_dtype(self, step: Step) -> None:
        """Real numbers stay what they are; whole ones would be rounded."""
        dtype = str(step.options.get("dtype", "float32"))
        if not dtype.startswith("float") and (self._measured or self._is_scaled()):
            self._assumed["normalization"] = (
                f"The package rounds to {dtype} before the network; here nothing is rounded."
            )

    def scale_linear(self, step: Step) -> None:
        """Multiply and add fixed numbers."""
        self._scale(step, step.numbers("gain", 1.0), step.numbers("offset", 0.0))

    def fixed_zero_mean_unit_variance(self, step: Step) -> None:
        """Subtract fixed numbers and divide by others."""
        means, deviations = step.numbers("mean"), step.numbers("std")
        if min(deviations) <= 0:
            raise cannot(step, "its deviation is not above 0")
        gains = [1 / deviation for deviation in deviations]
        means, gains = self._each(step, means), self._each(step, gains)
        self._scale(step, gains, [-m * g for m, g in zip(means, gains, strict=True)])

    def zero_mean_unit_variance(self, step: Step) -> None:
        """Measure mean and deviation; an older package may give them as fixed numbers."""
        if step.options.get("mode") == "fixed":
            self.fixed_zero_mean_unit_variance(step)
            return
        joint = self._is_joint(step)
        self._measure(step, _Measured("mean-std", joint, step.number("eps", EPS)))

    def scale_range(self, step: Step) -> None:
        """Measure two percentiles, which become 0 and 1."""
        self._refuse_reference(step)
        percentiles = step.number("min_percentile", 0), step.number("max_percentile", 100)
        if not 0 <= percentiles[0] < percentiles[1] <= 100:
            raise cannot(step, f"its percentiles are {percentiles}")
        joint, eps = self._is_joint(step), step.number("eps", EPS)
        cut, self._cut = self._cut, None
        if cut is not None:
            if percentiles != WHOLE_RANGE or cut.joint != joint:
                raise cannot(step, "the values were cut off at other percentiles before")
            percentiles = cut.percentiles
        kind: Literal["min-max", "percentile"] = (
            "min-max" if percentiles == WHOLE_RANGE else "percentile"
        )
        self._measure(step, _Measured(kind, joint, eps, percentiles))
        if cut is not None:
            self._clip = (0.0, 1.0)

    def clip(self, step: Step) -> None:
        """Cut off at fixed numbers, or at percentiles that are then scaled by."""
        low, high = step.options.get("min_percentile"), step.options.get("max_percentile")
        if low is not None or high is not None:
            fixed = step.options.get("min"), step.options.get("max")
            if self._measured is not None or fixed != (None, None):
                raise cannot(step, "it cuts off at percentiles of values that were scaled")
            percentiles = step.number("min_percentile", 0), step.number("max_percentile", 100)
            self._cut = _Measured("percentile", self._is_joint(step), 0.0, percentiles)
            return
        least, most = step.bound("min"), step.bound("max")
        if least is not None and most is not None and least >= most:
            raise cannot(step, f"its bounds are {least:g} and {most:g}")
        if self._measured is not None:
            self._clip = _narrower(self._clip, (least, most))
            return
        if len(set(self._gains)) > 1 or len(set(self._shifts)) > 1 or self._gains[0] < 0:
            raise cannot(step, "the channels were scaled differently before")
        gain, shift = self._gains[0], self._shifts[0]
        bounds = tuple(None if b is None else (b - shift) / gain for b in (least, most))
        self._limits = _narrower(self._limits, (bounds[0], bounds[1]))

    def normalization(self) -> Normalization:
        """Return what all steps together are."""
        if self._cut is not None:
            raise ModelError(
                "The package cuts grey values off at percentiles without scaling by them, which "
                f"cannot be done here. {ASK}"
            )
        after = {"gain": self._gain, "shift": self._shift, "clip": self._clip}
        try:
            if self._measured is None:
                return Normalization(limits=self._limits, **self._fixed())
            measured = self._measured
            if measured.kind == "percentile":
                after |= {"low": measured.percentiles[0], "high": measured.percentiles[1]}
            return Normalization(
                kind=measured.kind,
                joint=measured.joint,
                eps=measured.eps,
                limits=self._limits,
                **after,
            )
        except SettingError as error:
            raise ModelError(
                f"What the package does before the network cannot be done here: {error} {ASK}"
            ) from error

    def _fixed(self) -> dict[str, Any]:
        """Return the normalisation of factors alone."""
        gains, shifts = self._gains, self._shifts
        if not self._is_scaled():
            return {"kind": "none"}
        if min(gains) < 0 < max(gains):
            raise ModelError(
                "The package turns some channels round and others not, which cannot be done "
                f"here. {ASK}"
            )
        scales = _one_if_same([1 / abs(gain) for gain in gains])
        if not any(shifts) and len(scales) == 1 and gains[0] > 0:
            return {"kind": "divide", "divisor": scales[0]}
        pairs = zip(gains, shifts, strict=True)
        return {
            "kind": "fixed",
            "offsets": _one_if_same([-shift / gain for gain, shift in pairs]),
            "scales": scales,
            "gain": math.copysign(1.0, gains[0]),
        }

    def _is_scaled(self) -> bool:
        """Say whether there are factors before the measurement."""
        return any(gain != 1 for gain in self._gains) or any(self._shifts)

    def _scale(self, step: Step, gains: Sequence[float], shifts: Sequence[float]) -> None:
        """Add ``gain * value + shift`` to the chain."""
        gains, shifts = self._each(step, gains), self._each(step, shifts)
        if not all(gains):
            raise cannot(step, "it multiplies with 0")
        pairs = list(zip(gains, shifts, strict=True))
        if self._measured is None:
            before = zip(self._gains, self._shifts, pairs, strict=True)
            self._shifts = [g * shift + s for _, shift, (g, s) in before]
            self._gains = [g * gain for gain, (g, _) in zip(self._gains, pairs, strict=True)]
            return
        if len(set(pairs)) > 1:
            raise cannot(step, "it scales channels differently after they were measured")
        gain, shift = pairs[0]
        self._gain, self._shift = gain * self._gain, gain * self._shift + shift
        bounds = [None if bound is None else gain * bound + shift for bound in self._clip]
        self._clip = (bounds[0], bounds[1]) if gain > 0 else (bounds[1], bounds[0])

    def _measure(self, step: Step, measured: _Measured) -> None:
        """Measure; what was measured before makes no difference any more."""
        earlier = self._measured
        if earlier is not None:
            if self._clip != (None, None) or self._gain < 0:
                raise cannot(step, "it measures again what was cut off or turned round")
            if measured.joint and not earlier.joint:
                raise cannot(step, "it measures channels together that were scaled apart")
        elif measured.joint and len({*zip(self._gains, self._shifts, strict=True)}) > 1:
            raise cannot(step, "it measures channels together that were scaled apart")
        elif min(self._gains) < 0:
            raise cannot(step, "it measures what was turned round")
        else:
            measured = _Measured(
                measured.kind,
                measured.joint,
                min(measured.eps / self._gains[0], 0.1),
                measured.percentiles,
            )
        self._measured = measured
        self._gain, self._shift = 1.0, 0.0

    def _is_joint(self, step: Step) -> bool:
        """Say whether channels are measured together; refuse what is not measured per plane."""
        axes, spatial = step.axes(), set(self._spatial)
        if axes is None or "b" in axes or step.options.get("mode") == "per_dataset":
            self._assumed["normalization"] = (
                "The package measures grey values over all images of a dataset; here each image "
                "is measured on its own."
            )
        if axes is None:
            return self._channels > 1
        if not spatial <= set(axes):
            missing = ", ".join(sorted(spatial - set(axes))).upper()
            raise cannot(step, f"it measures each {missing} on its own")
        return "c" in axes and self._channels > 1

    def _refuse_reference(self, step: Step) -> None:
        """Refuse a step that measures another tensor."""
        if step.options.get("reference_tensor") is not None:
            raise cannot(step, "it measures another tensor")

    def _each(self, step: Step, values: Sequence[float]) -> list[float]:
        """Give each channel its number."""
        if str(step.options.get("axis") or "channel") not in {"channel", "c"}:
            raise cannot(step, f"it scales along {step.options['axis']}")
        if len(values) not in {1, self._channels}:
            raise cannot(step, f"it has {len(values)} numbers for {self._channels} channels")
        return [*values] * (self._channels if len(values) == 1 else 1)


def _narrower(
    one: tuple[float | None, float | None], two: tuple[float | None, float | None]
) -> tuple[float | None, float | None]:
    """Cut off twice: at the first bounds, then at the second."""
    least = [bound for bound in (one[0], two[0]) if bound is not None]
    most = [bound for bound in (one[1], two[1]) if bound is not None]
    return (max(least) if least else None, min(most) if most else None)


def _one_if_same(values: list[float]) -> tuple[float, ...]:
    """Say once what is the same for all channels."""
    return (values[0],) if len(set(values)) == 1 else tuple(values)
