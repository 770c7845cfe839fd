"""How far a network looks, computed from its layers by interval arithmetic.

Going from the output back to the input, each layer turns the span of pixels it writes into the
span of pixels it reads. A network with poolings does not look equally far from every pixel: it
depends on where the pixel lies on the grid of the poolings (its phase). A tile whose core starts
and ends on that grid needs less halo than one laid anywhere::

            left reach      core       right reach
        |<------------->|0 1 .. s-1|<--------------->|     s = stride
        first pixel read                last pixel read

Axes are treated alike, so one axis says it all, in 2D and in 3D.

References
----------
.. [1] Araujo, Norris, Sim (2019), Computing Receptive Fields of Convolutional Neural Networks,
   doi:10.23915/distill.00021.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED_CONVOLUTIONS = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
POOLINGS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool2d, nn.AvgPool3d)
PADDINGS = (nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d)
WHOLE_TILE = (
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.GroupNorm,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveAvgPool3d,
)
POINTWISE = (
    nn.Identity,
    nn.ReLU,
    nn.Sigmoid,
    nn.Dropout,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    *WHOLE_TILE,
)


@dataclass(frozen=True)
class Span:
    """Pixels ``first`` to ``last``, both included, along one axis."""

    first: int
    last: int

    def shifted(self, by: int) -> Span:
        """Return the span moved to the right by ``by`` pixels."""
        return Span(self.first + by, self.last + by)

    def joined(self, other: Span) -> Span:
        """Return the smallest span that holds both."""
        return Span(min(self.first, other.first), max(self.last, other.last))

    def widened(self, grid: int) -> Span:
        """Return the smallest span that holds this one and lies on a grid of so many pixels."""
        return Span(self.first // grid * grid, (self.last // grid + 1) * grid - 1)

    def clipped(self, size: int) -> Span:
        """Return what of the span lies within an axis of that size."""
        return Span(max(self.first, 0), min(self.last, size - 1))


@runtime_checkable
class Reads(Protocol):
    """A composite layer that knows its own way from output to input."""

    def reads(self, span: Span) -> Span:
        """Return the span of the input that the span of the output depends on."""


@dataclass(frozen=True)
class Field:
    """How far a network looks, in pixels of its input.

    Attributes
    ----------
    reach : int
        Margin per side that a core needs if it starts and ends on the stride's grid.
    halo : int
        The reach rounded up to a multiple of the stride.
    receptive_field : int
        Number of input pixels, along one axis, that one output pixel depends on; the largest
        over all phases.
    """

    reach: int
    halo: int
    receptive_field: int


def measure_field(net: Reads, stride: int, margin: int = 0) -> Field:
    """Compute how far a network looks.

    Parameters
    ----------
    net : Reads
        The built network.
    stride : int
        Grid of its poolings, in pixels.
    margin : int
        Pixels per side by which its output is smaller than its input.

    Returns
    -------
    Field
        Reach, halo and receptive field in pixels.
    """
    core = net.reads(Span(0, stride - 1)).shifted(-margin)
    reach = max(0, -core.first, core.last - (stride - 1))
    spans = [net.reads(Span(phase, phase)) for phase in range(stride)]
    return Field(
        reach=reach,
        halo=-(-reach // stride) * stride,
        receptive_field=max(span.last - span.first + 1 for span in spans),
    )


def layer_reads(layer: nn.Module, span: Span) -> Span:
    """Say which pixels a layer reads to write a span of its output.

    Parameters
    ----------
    layer : torch.nn.Module
        A convolution, pooling, resizing, padding or pointwise layer, a sequence of them, or a
        composite with a method ``reads``.
    span : Span
        Pixels of the layer's output.

    Returns
    -------
    Span
        Pixels of the layer's input; those outside the image are padding.

    Raises
    ------
    TypeError
        If we have no rule for such a layer.
    """
    if isinstance(layer, Reads):
        return layer.reads(span)
    if isinstance(layer, nn.Sequential):
        for part in reversed(layer):
            span = layer_reads(part, span)
        return span
    if isinstance(layer, CONVOLUTIONS):
        return _convolution_reads(layer, span)
    if isinstance(layer, TRANSPOSED_CONVOLUTIONS):
        return _transposed_reads(layer, span)
    if isinstance(layer, POOLINGS):
        return _pooling_reads(layer, span)
    if isinstance(layer, nn.Upsample):
        return _resize_reads(layer, span)
    if isinstance(layer, PADDINGS):
        return span.shifted(-int(layer.padding[0]))
    if isinstance(layer, POINTWISE):
        return span
    raise TypeError(f"No rule says what a layer of type {type(layer).__name__} reads.")


def is_exact(net: nn.Module) -> bool:
    """Say whether tiles can give the same result as the whole image.

    Not so if a layer measures the whole of what it is given: instance and group norm, pyramid
    pooling.
    """
    return not any(isinstance(layer, WHOLE_TILE) for layer in net.modules())


def shrinkage(layer: nn.Module) -> int:
    """Pixels that a layer's own unpadded convolutions take off a size, both sides together."""
    convolutions = [part for part in layer.modules() if isinstance(part, CONVOLUTIONS)]
    return sum(
        part.dilation[0] * (part.kernel_size[0] - 1) - 2 * int(part.padding[0])
        for part in convolutions
    )


def _convolution_reads(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, span: Span) -> Span:
    """Read a window of kernel size around each pixel."""
    stride, padding = layer.stride[0], int(layer.padding[0])
    wide = layer.dilation[0] * (layer.kernel_size[0] - 1)
    return Span(span.first * stride - padding, span.last * stride - padding + wide)


def _transposed_reads(
    layer: nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d, span: Span
) -> Span:
    """Read every pixel that was spread over the span."""
    stride, padding = layer.stride[0], int(layer.padding[0])
    wide = layer.dilation[0] * (layer.kernel_size[0] - 1)
    first = -(-(span.first + padding - wide) // stride)
    return Span(first, (span.last + padding) // stride)


def _pooling_reads(layer: nn.Module, span: Span) -> Span:
    """Read the windows that are pooled; their size is the same along all axes."""
    kernel, stride, padding = (
        _along_first_axis(getattr(layer, name)) for name in ("kernel_size", "stride", "padding")
    )
    return Span(span.first * stride - padding, span.last * stride - padding + kernel - 1)


def _resize_reads(layer: nn.Upsample, span: Span) -> Span:
    """Read the nearest pixel, or the two neighbours that are interpolated."""
    scale = int(_along_first_axis(layer.scale_factor))
    if layer.mode == "nearest":
        return Span(span.first // scale, span.last // scale)
    return Span(_below_centre(span.first, scale), _below_centre(span.last, scale) + 1)


def _below_centre(pixel: int, scale: int) -> int:
    """Floor of the source position of an enlarged pixel, corners not aligned."""
    return (2 * pixel + 1 - scale) // (2 * scale)


def _along_first_axis(value: object) -> int:
    """Take a layer's size, which may be one number or one per axis."""
    if isinstance(value, tuple | list):
        value = value[0]
    return int(value)  # type: ignore[call-overload, no-any-return]  # torch: Any
