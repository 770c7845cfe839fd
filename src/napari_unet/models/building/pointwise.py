"""Layers that change values pixel by pixel."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_unet.errors import ModelError
from napari_unet.models.building.features import CHANNEL, Feature
from napari_unet.models.building.notes import Notes
from napari_unet.models.building.refusals import does_not_fit, unsupported
from napari_unet.network.graph import (
    Activation,
    ActivationKind,
    Channels,
    Dropout,
    Join,
    JoinKind,
    Linear,
    Norm,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_NEGLIGIBLE = 1e-6


class Pointwise(Notes):
    """Adds what changes values pixel by pixel."""

    def activation(
        self,
        x: Feature,
        kind: ActivationKind,
        *,
        slope: float | None = None,
        weight: torch.Tensor | None = None,
        axis: int | None = None,
        name: str = "",
    ) -> Feature:
        """Add an activation; ``axis`` is that of softmax, in the feature's own order."""
        if axis is not None and x.order[axis] != CHANNEL:
            raise ModelError(
                "The network has a softmax that is not over the channels. No rule is known for "
                "it; export the network without it."
            )
        node = Activation(
            name=self._free(name or kind),
            inputs=(x.node,),
            kind=kind,
            slope=0.01 if slope is None else slope,
            channels=1 if weight is None else weight.numel(),
        )
        if weight is not None and weight.numel() not in {1, x.channels}:
            raise does_not_fit("PReLU", tuple(weight.shape), x.channels)
        flat = None if weight is None else weight.flatten()
        return self._add(node, x.channels, x.sizes, order=x.order, weight=flat)

    def class_numbers(self, x: Feature, axis: int) -> Feature:
        """Add the number of the largest channel: the probabilities tell the same and more."""
        before = self.nodes.get(x.node)
        ends = self.activation(x, "softmax", axis=axis, name="classes")
        if isinstance(before, Activation) and before.kind in {"sigmoid", "softmax"}:
            self.nodes[ends.node] = self.nodes[ends.node].replace(inputs=before.inputs)
        self._ends[ends.node] = "arithmetic with the numbers of classes"
        return ends

    def log_softmax(self, x: Feature, axis: int) -> Feature:
        """Add the logarithm of a softmax, for whose end the softmax stands."""
        ends = self.activation(x, "softmax", axis=axis, name="log_softmax")
        self._ends[ends.node] = "the logarithm of a softmax, elsewhere than at the end"
        return ends

    def clip(self, x: Feature, low: float | None, high: float | None) -> Feature:
        """Add limits to the values."""
        if low is None:
            if high is None:
                return x
            flipped = self.activation(self.linear(x, -1.0, high), "relu")
            return self.linear(flipped, -1.0, high)
        if high is None:
            return self.linear(self.activation(self.linear(x, 1.0, -low), "relu"), 1.0, low)
        if high <= low:
            raise unsupported("Clip with no range")
        unit = (high - low) / 6.0
        inside = self.activation(self.linear(x, 1.0 / unit, -low / unit), "relu6")
        return self.linear(inside, unit, low)

    def linear(
        self,
        x: Feature,
        factor: float | torch.Tensor = 1.0,
        offset: float | torch.Tensor = 0.0,
        name: str = "",
    ) -> Feature:
        """Add ``factor * x + offset``: numbers, or tensors of shape (channels,).

        What was scaled just before is scaled once, and a norm without weights gets them.
        """
        for value in (factor, offset):
            if isinstance(value, torch.Tensor) and tuple(value.shape) != (x.channels,):
                raise does_not_fit("factor", tuple(value.shape), x.channels)
        given = (factor, offset)
        source, factor, offset = self._unscaled(x, factor, offset)
        plain_numbers = not isinstance(factor, torch.Tensor) and not isinstance(
            offset, torch.Tensor
        )
        if plain_numbers and _close(factor, 1.0) and _close(offset, 0.0):
            return source
        before = self.nodes.get(source.node)
        if not plain_numbers:
            ones = torch.ones(x.channels)
            factor, offset = ones * factor, ones * offset
            if isinstance(before, Norm) and not before.affine:
                kept = dict(self.tensors[before.name], weight=factor, bias=offset)
                scaled = before.replace(name=self._free(before.name), affine=True)
                return self._add(scaled, x.channels, x.sizes, order=x.order, **kept)
        node = Linear(
            name=self._free(name or "scale"),
            inputs=(source.node,),
            factor=1.0 if isinstance(factor, torch.Tensor) else factor,
            offset=0.0 if isinstance(offset, torch.Tensor) else offset,
            channels=0 if plain_numbers else x.channels,
        )
        weights = {} if plain_numbers else {"weight": factor, "bias": offset}
        result = self._add(node, x.channels, x.sizes, order=x.order, **weights)  # type: ignore[arg-type]  # no tensors where plain numbers
        if isinstance(given[0], float) and isinstance(given[1], float):
            self._scaled_from[result.node] = (x, given[0], given[1])
        return result

    def join(
        self,
        how: JoinKind,
        parts: Sequence[Feature],
        name: str = "",
    ) -> Feature:
        """Add a layer that makes one of several."""
        if not parts:
            raise unsupported("joining nothing")
        order = parts[0].order
        if any(part.order != order for part in parts):
            raise ModelError(
                "The network joins layers whose axes are in different orders. No rule is known "
                "for it; export the network again, with all sizes fixed."
            )
        if how == "concatenate":
            channels = sum(part.channels for part in parts)
        else:
            channels = max(part.channels for part in parts)
            if any(part.channels not in {1, channels} for part in parts):
                raise does_not_fit("sum", tuple(p.channels for p in parts), channels)
        if len(parts) == 1:
            return parts[0]
        gelu = self._as_gelu(parts) if how == "multiply" and len(parts) == 2 else None
        if gelu is not None:
            return gelu
        stack = np.stack([part.sizes for part in parts])
        sizes = stack.max(axis=0)
        fitting = stack == sizes
        if how != "concatenate":
            fitting |= stack == 1
        self._keep(fitting.all(axis=(0, 2)), "joins layers of different sizes")
        node = Join(
            name=self._free(name or how), inputs=tuple(part.node for part in parts), how=how
        )
        return self._add(node, channels, sizes, order=order)

    def channels(self, x: Feature, first: int, count: int) -> Feature:
        """Add a choice of channels."""
        if first < 0 or count < 1 or first + count > x.channels:
            raise does_not_fit("choice of channels", (first, first + count), x.channels)
        if count == x.channels:
            return x
        node = Channels(name=self._free("channels"), inputs=(x.node,), first=first, count=count)
        return self._add(node, count, x.sizes, order=x.order)

    def dropout(self, x: Feature, share: float, *, whole_channels: bool = False) -> Feature:
        """Add what drops features while training; nothing for a share of 0."""
        if not 0 < share < 1:
            return x
        node = Dropout(
            name=self._free("dropout"),
            inputs=(x.node,),
            share=share,
            whole_channels=whole_channels,
        )
        return self._add(node, x.channels, x.sizes, order=x.order)

    def error_function(self, x: Feature) -> Feature:
        """Note the error function: it is only known as a part of GELU."""
        name = self._free("erf")
        result = Feature(name, x.channels, x.sizes, x.order)
        self.features[name] = result
        self._errors_of_gelu[name] = x
        return result

    def _unscaled(
        self, x: Feature, factor: float | torch.Tensor, offset: float | torch.Tensor
    ) -> tuple[Feature, float | torch.Tensor, float | torch.Tensor]:
        """Look through a scaling or the scale of a norm: its source and the joint numbers."""
        before = self.nodes.get(x.node)
        held = self.tensors.get(x.node, {})
        if isinstance(before, Linear):
            inner = held.get("weight", before.factor)
            added = held.get("bias", before.offset)
            source = self.features[before.inputs[0]].reordered(x.order)
            return source, inner * factor, added * factor + offset
        return x, factor, offset

    def _as_gelu(self, parts: Sequence[Feature]) -> Feature | None:
        """Recognise ``x * (1 + erf(x / sqrt(2)))``, with factors anywhere."""
        for x, bracket in (parts, parts[::-1]):
            for erf, factor, shift in self._chain(bracket):
                inner = self._errors_of_gelu.get(erf.node)
                if inner is None or not _close(factor, shift):
                    continue
                for source, stretch, moved in self._chain(inner):
                    for same, times, more in self._chain(x):
                        is_gelu = _close(stretch, math.sqrt(0.5)) and not moved and not more
                        if source.node == same.node and is_gelu:
                            curve = self.activation(source, "gelu")
                            return self.linear(curve, 2.0 * factor * times)
        return None

    def _chain(self, x: Feature) -> list[tuple[Feature, float, float]]:
        """List what a feature was scaled from, with factor and offset: itself first."""
        chain = [(x, 1.0, 0.0)]
        while x.node in self._scaled_from:
            x, inner, added = self._scaled_from[x.node]
            _, factor, offset = chain[-1]
            chain.append((x, inner * factor, added * factor + offset))
        return chain


def _close(a: float | torch.Tensor, b: float | torch.Tensor) -> bool:
    """Whether two plain numbers are the same but for rounding."""
    if isinstance(a, torch.Tensor) or isinstance(b, torch.Tensor):
        return False
    return abs(a - b) <= _NEGLIGIBLE * max(1.0, abs(a))
