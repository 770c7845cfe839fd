"""A network is drawn as a graph, step by step, in the way it is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unet.models.recognise.drawing import Drawing, same
from napari_unet.network.graph import IMAGE

if TYPE_CHECKING:
    from napari_unet.models.recognise.layers import Layer
    from napari_unet.models.recognise.network import Network
    from napari_unet.models.recognise.readings import Reading
    from napari_unet.models.recognise.steps import Step
    from napari_unet.models.recognise.units import Unit
    from napari_unet.network.graph import Sides, Sizes


class Reader:
    """Draws a network as a graph, step by step.

    Parameters
    ----------
    network : Network
        Its steps.
    reading : Reading
        What its tensors do not tell.
    """

    def __init__(self, network: Network, reading: Reading) -> None:
        self._network, self._reading = network, reading
        self._drawing = Drawing(network.spatial_dims)
        self._normed = set(network.blocks)
        """Convolutions that a norm without tensors would follow."""
        self._ends = set() if reading.active_end else network.ends()
        self._stride: Sizes | None = None
        blocks, dilations = network.blocks, reading.dilations
        dilations = dilations * (len(blocks) if len(dilations) == 1 else 1)
        self._dilations = {
            unit.conv: dilation for unit, dilation in zip(blocks, dilations, strict=True)
        }

    def draw(self) -> Drawing:
        """Draw all steps."""
        x, skip, skips = IMAGE, "", []
        waiting: Unit | None = None  # of the last level, until its skip is taken
        scales_down = self._network.scales(self._reading)[::-1]
        scales_up = self._network.scales(self._reading)
        steps = self._network.read_steps(self._reading)
        late: Sizes | None = None  # the pooling that stands behind a module
        for step, following in zip(steps, [*steps[1:], None], strict=True):
            if step.kind == "unit":
                is_skip = following is not None and following.kind == "down"
                waiting = step.units[0] if is_skip and self._reading.squeezed == "skip" else None
                x = self._plain_unit(x, waiting) if waiting else self._unit(x, step.units[0])
                if late and not _goes_on(step, following):
                    x, late = self._drawing.pooling(x, self._reading.pooling, late), None
            elif step.kind == "residual":
                x = self._residual(x, step)
            elif step.kind == "down":
                skips.append(self._squeezed(x, waiting) if waiting else x)
                scale = scales_down.pop()
                is_late = self._reading.pooled_last and not step.units and not self._reading.strided
                if is_late and following is not None and following.kind == "unit":
                    late = scale
                else:
                    x = self._down(x, step, scale)
            elif step.kind == "up":
                skip = skips.pop()
                x = self._up(x, step, scales_up.pop())
                joins = following is not None and following.kind in ("join", "gate")
                if self._reading.skips and joins:
                    x, skip = self._fitted(x, skip)
            elif step.kind == "gate":
                skip = self._gate(x, skip, step)
            elif step.how == "add":
                if not self._reading.skips:
                    continue
                x = self._drawing.join("add", x, skip)
            else:
                inputs = (skip, x) if self._reading.skip_first else (x, skip)
                x = self._drawing.join("concatenate", *inputs)
        if self._reading.input_added:
            self._drawing.join("add", x, IMAGE)
        return self._drawing

    def _unit(self, x: str, unit: Unit, *, active: bool = True) -> str:
        """Draw a convolution with its norm and activation."""
        return self._squeezed(self._plain_unit(x, unit, active=active), unit)

    def _plain_unit(self, x: str, unit: Unit, *, active: bool = True) -> str:
        """Draw a convolution with its norm and activation, and no more."""
        active = active and unit is not self._network.head and unit not in self._ends
        if self._reading.adjacent_linear and unit in self._network.before_neighbours:
            active = False
        if unit is self._network.steps[0].units[0]:
            active = active and (self._reading.active_stem or not self._network.has_bare_stem())
        if self._reading.strided and unit in self._network.own_downs:
            active = self._network.is_active_down(unit, self._reading)
        if self._reading.reused and unit in self._network.reused:
            unit = self._network.reused[unit]
        if unit.norm is not None and unit.norm_first:
            x = self._norm(x, unit.norm)
            if unit.gap:
                return self._convolution(self._activation(x, unit), unit.conv)
            return self._active(self._convolution(x, unit.conv), unit, active=active)
        x = self._convolution(x, unit.conv)
        if unit.norm is None:
            if self._reading.bare_norm and unit in self._normed:
                return self._with_bare_norm(x, unit, active=active)
            return self._active(x, unit, active=active)
        if unit.gap or (self._reading.order == "activation-norm" and active):
            return self._norm(self._active(x, unit, active=active), unit.norm)
        return self._active(self._norm(x, unit.norm), unit, active=active)

    def _with_bare_norm(self, x: str, unit: Unit, *, active: bool) -> str:
        """Draw an instance norm without tensors, and the activation before or after it."""
        if self._reading.order == "activation-norm":
            x = self._active(x, unit, active=active)
            return self._drawing.bare_instance_norm(x, unit.narrow, self._reading.eps)
        x = self._drawing.bare_instance_norm(x, unit.narrow, self._reading.eps)
        return self._active(x, unit, active=active)

    def _active(self, x: str, unit: Unit, *, active: bool) -> str:
        return self._activation(x, unit) if active else x

    def _activation(self, x: str, unit: Unit | None = None) -> str:
        """Draw the activation of a unit."""
        prelu = unit.prelu if unit else None
        kind, slope = self._reading.activation, self._reading.slope
        return self._drawing.activation(x, kind, usual_slope(kind, slope), prelu)

    def _norm(self, x: str, norm: Layer) -> str:
        """Draw a norm."""
        kind = "batch" if norm.has_statistics else self._reading.norm
        groups = dividing(norm.channels, self._reading.groups) if kind == "group" else 1
        return self._drawing.norm(x, norm, kind, groups, self._reading.eps)

    def _convolution(self, x: str, conv: Layer) -> str:
        """Draw a convolution that keeps the size, or does not pad, or halves the size."""
        dilation = self._dilations.get(conv, 1)
        padding = same(conv.kernel, dilation) if self._reading.padded else None
        stride, self._stride = self._stride, None
        return self._drawing.convolution(
            x,
            conv,
            stride=stride,
            padding=_none_if_zero(padding),
            padding_mode=self._reading.padding_mode,
            dilation=dilation,
        )

    def _squeezed(self, x: str, unit: Unit) -> str:
        """Draw how channels are weighed by their means, and pixels by their channels."""
        if not unit.squeeze:
            return x
        reduce, expand, *spatial = unit.squeeze
        seen = self._drawing.convolution(self._drawing.global_average(x), reduce)
        seen = self._drawing.convolution(self._drawing.activation(seen, "relu"), expand)
        y = self._drawing.join("multiply", x, self._drawing.activation(seen, "sigmoid"))
        for layer in spatial:
            weight = self._drawing.activation(self._drawing.convolution(x, layer), "sigmoid")
            y = self._drawing.join("add", y, self._drawing.join("multiply", x, weight))
        return y

    def _residual(self, x: str, step: Step) -> str:
        """Draw a block with its shortcut."""
        y, stride = x, self._stride
        *before, last = step.units
        for unit in before:
            y = self._unit(y, unit)
        end, late = self._reading.residual_end, self._reading.squeezed == "sum"
        y = self._plain_unit(y, last, active=end == "before" and not last.norm_first)
        y = y if late else self._squeezed(y, last)
        if step.shortcut is not None:
            self._stride = stride
            x = self._plain_unit(x, step.shortcut, active=False)
            y = y if late else self._squeezed(y, step.shortcut)
        joined = self._drawing.join("add", y, x)
        is_active = end == "after" and not last.norm_first
        joined = self._activation(joined, last) if is_active else joined
        if late:
            joined = self._squeezed(joined, last)
            joined = self._squeezed(joined, step.shortcut) if step.shortcut else joined
        return joined

    def _down(self, x: str, step: Step, scale: Sizes) -> str:
        """Draw what halves the size."""
        if step.units:
            unit = step.units[0]
            strides = tuple(map(min, unit.kernel, scale))
            padding = tuple(
                ((size - stride + 1) // 2,) * 2
                for size, stride in zip(unit.kernel, strides, strict=True)
            )
            y = self._drawing.convolution(
                x, unit.conv, stride=strides, padding=_none_if_zero(padding)
            )
            if unit.norm is not None:
                y = self._norm(y, unit.norm)
            is_active = self._network.is_active_down(unit, self._reading)
            return self._activation(y, unit) if is_active else y
        if self._reading.strided:
            self._stride = scale
            return x
        return self._drawing.pooling(x, self._reading.pooling, scale)

    def _up(self, x: str, step: Step, scale: Sizes) -> str:
        """Draw what doubles the size."""
        unit = step.units[0] if step.units else None
        if unit is None:
            return self._resized(x, scale)
        last = self._reading.resized_last and unit in self._network.open_upsamplings()
        if step.transposed:
            x = self._drawing.transposed(x, unit.conv, scale, _crop(unit.kernel, scale))
        else:
            x = self._drawing.convolution(
                x if last else self._resized(x, scale),
                unit.conv,
                padding=_none_if_zero(same(unit.kernel)),
                padding_mode=self._reading.padding_mode,
            )
        is_active = self._network.is_active_up(step, self._reading)
        if unit.norm is not None:
            x = self._norm(x, unit.norm)
        elif is_active and self._reading.bare_norm and not unit.conv.has_bias:
            narrow = unit.conv.sizes[1 if step.transposed else 0]
            x = self._drawing.bare_instance_norm(x, narrow, self._reading.eps)
        if unit is not self._network.head and is_active:
            x = self._activation(x, unit)
        return self._resized(x, scale) if last else x

    def _resized(self, x: str, scale: Sizes) -> str:
        """Draw what makes the features larger without weights."""
        reading = self._reading
        return self._drawing.resize(x, reading.resize, scale, align_corners=reading.align_corners)

    def _fitted(self, x: str, skip: str) -> tuple[str, str]:
        """Draw what brings both sides of a join to the same size."""
        if not self._reading.padded or self._reading.fit == "skip":
            return x, self._drawing.fit(skip, x)
        if self._reading.fit == "up":
            return self._drawing.fit(x, skip), skip
        return x, skip

    def _gate(self, x: str, skip: str, step: Step) -> str:
        """Draw an attention gate; it gives the damped skip."""
        of_below, of_skip, attention = step.units
        seen = self._drawing.join(
            "add",
            self._unit(x, of_below, active=False),
            self._unit(skip, of_skip, active=False),
        )
        weight = self._unit(self._activation(seen), attention, active=False)
        return self._drawing.join("multiply", skip, self._drawing.activation(weight, "sigmoid"))


def _goes_on(step: Step, following: Step | None) -> bool:
    """Say whether the next convolution is one of the same module."""
    if following is None or following.kind != "unit":
        return False
    return following.units[0].conv.parent == step.units[0].conv.parent


def usual_slope(kind: str, slope: float | None) -> float:
    """Return the slope below 0 of an activation, or alpha of ELU, as PyTorch has it if not told."""
    if slope is not None:
        return slope
    return 1.0 if kind in ("elu", "celu") else 0.01


def _none_if_zero(sides: Sides | None) -> Sides | None:
    return None if sides is None or not any(map(any, sides)) else sides


def _crop(kernel: Sizes, scale: Sizes) -> Sides | None:
    """Return what is cut off a transposed convolution so that it gives whole multiples."""
    extra = [size - factor for size, factor in zip(kernel, scale, strict=True)]
    return _none_if_zero(tuple(((more + 1) // 2, more // 2) for more in extra))


def dividing(channels: int, wish: int) -> int:
    """Return the largest number of groups, not above the one wished for, that divides channels."""
    return next(count for count in range(min(wish, channels), 0, -1) if channels % count == 0)
