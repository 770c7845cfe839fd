"""Parts of features, and what every network that only computes does with tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from napari_unet.network.receptive_field import Span

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Box = tuple[Span, ...]
"""One span per spatial axis."""


@dataclass(frozen=True)
class Part:
    """A part of a level's features."""

    values: torch.Tensor
    """Shape (N, C, *sizes)."""
    first: tuple[int, ...]
    """Which pixel of the level is the part's first; one number per spatial axis."""

    def cut(self, box: Sequence[Span]) -> torch.Tensor:
        """Cut a box of the level out of the part."""
        values = self.values
        for axis, (span, first) in enumerate(zip(box, self.first, strict=True), start=2):
            values = values.narrow(axis, span.first - first, length(span))
        return values

    def rows(self, rows: Span) -> Part:
        """Cut rows out of the part, all that it has of them."""
        cut = self.values.narrow(2, rows.first - self.first[0], length(rows))
        return Part(cut, (rows.first, *self.first[1:]))


def whole_box(sizes: Sequence[int]) -> Box:
    """Return the box of everything."""
    return tuple(Span(0, size - 1) for size in sizes)


def box_of(kept: Sequence[slice] | None, sizes: Sequence[int]) -> Box:
    """Return the box of what is kept of features of such sizes: of everything if not given."""
    if kept is None:
        return whole_box(sizes)
    return tuple(Span(part.start, part.stop - 1) for part in kept)


def length(span: Span) -> int:
    """Count the pixels of a span."""
    return span.last - span.first + 1


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """Lay features (N, C, *spatial) out so that the channels of a pixel lie side by side."""
    x = x.movedim(1, -1)
    return x.flatten().view(x.shape).movedim(-1, 1)  # says so even of a single channel


def move_channels_last(net: torch.nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Move a network, in place, to where and with what it computes, its channels side by side."""
    net.to(device, dtype)
    for parameter in net.parameters():
        if parameter.ndim > 2:
            parameter.data = channels_last(parameter.data)


class NobodyWaits(Exception):
    """The answer is not wanted any more."""


def end_when(net: torch.nn.Module, is_left: Callable[[], bool]) -> None:
    """Let a network end before its next layer once nobody waits for its answer.

    Parameters
    ----------
    net : Module
        Its layers raise NobodyWaits.
    is_left : callable
        Asked before each layer.
    """

    def ask(*_: object) -> None:
        """Raise if the answer is not wanted any more."""
        if is_left():
            raise NobodyWaits

    for layer in net.modules():
        layer.register_forward_pre_hook(ask)


def with_all_digits(logits: torch.Tensor) -> torch.Tensor:
    """Return logits in at least single precision."""
    return logits if logits.dtype == torch.float64 else logits.float()
