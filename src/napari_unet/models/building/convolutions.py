"""Layers that mix channels by weights, and norms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from napari_unet.errors import ModelError
from napari_unet.models.building.notes import Notes
from napari_unet.models.building.refusals import does_not_fit
from napari_unet.network.graph import Convolution, Norm, PaddingMode, Sides, TransposedConvolution

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.models.building.features import Feature, Ints


class Convolutions(Notes):
    """Adds layers with weights."""

    def convolution(
        self,
        x: Feature,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        *,
        stride: Sequence[int] = (),
        dilation: Sequence[int] = (),
        padding: Sides = (),
        padding_mode: PaddingMode = "zeros",
        groups: int = 1,
        name: str = "",
    ) -> Feature:
        """Add a convolution; weight (out, in / groups, *kernel)."""
        x = self._plain(x)
        stride, dilation = self._each(stride, 1), self._each(dilation, 1)
        sides = padding or ((0, 0),) * self.dims
        self._check_kernel(weight, "convolution")
        out_channels, kernel = weight.shape[0], tuple(weight.shape[2:])
        if weight.shape[1] * groups != x.channels or out_channels % groups:
            raise does_not_fit("convolution", tuple(weight.shape), x.channels)
        sizes = window_sizes(x.sizes, kernel, stride, dilation, sides)
        node = Convolution(
            name=self._free(name or "conv"),
            inputs=(x.node,),
            in_channels=x.channels,
            out_channels=out_channels,
            kernel=kernel,
            stride=None if set(stride) == {1} else stride,
            dilation=None if set(dilation) == {1} else dilation,
            padding=sides if any(map(any, sides)) else None,
            padding_mode=padding_mode,
            groups=groups,
            bias=bias is not None,
        )
        return self._add(node, out_channels, sizes, weight=weight, bias=bias)

    def transposed_convolution(
        self,
        x: Feature,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        *,
        stride: Sequence[int],
        crop: Sides = (),
        groups: int = 1,
        name: str = "",
    ) -> Feature:
        """Add a transposed convolution; weight (in, out / groups, *kernel)."""
        x = self._plain(x)
        stride = self._each(stride, 1)
        sides = crop or ((0, 0),) * self.dims
        self._check_kernel(weight, "transposed convolution")
        out_channels, kernel = weight.shape[1] * groups, tuple(weight.shape[2:])
        if weight.shape[0] != x.channels or x.channels % groups:
            raise does_not_fit("transposed convolution", tuple(weight.shape), x.channels)
        sizes = (x.sizes - 1) * stride + kernel - np.sum(sides, axis=1)
        node = TransposedConvolution(
            name=self._free(name or "up"),
            inputs=(x.node,),
            in_channels=x.channels,
            out_channels=out_channels,
            kernel=kernel,
            stride=stride,
            crop=sides if any(map(any, sides)) else None,
            groups=groups,
            bias=bias is not None,
        )
        return self._add(node, out_channels, sizes, weight=weight, bias=bias)

    def dense(
        self, x: Feature, weight: torch.Tensor, bias: torch.Tensor | None, name: str = ""
    ) -> Feature:
        """Add a layer that mixes the channels of each pixel; weight (out, in)."""
        kernel = weight.reshape(*weight.shape, *(1,) * self.dims)
        mixed = self.convolution(x.reordered(x.plain), kernel, bias, name=name)
        return mixed.reordered(x.order)

    def norm(
        self,
        x: Feature,
        kind: Literal["batch", "instance", "group", "layer"],
        weight: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
        *,
        mean: torch.Tensor | None = None,
        variance: torch.Tensor | None = None,
        eps: float = 1e-5,
        groups: int = 1,
        name: str = "",
    ) -> Feature:
        """Add a norm; each tensor of shape (channels,)."""
        x = self._plain(x)
        given = next((t for t in (weight, bias) if t is not None), None)
        if given is not None:
            weight = torch.ones_like(given) if weight is None else weight
            bias = torch.zeros_like(given) if bias is None else bias
        for tensor in (weight, bias, mean, variance):
            if tensor is not None and tuple(tensor.shape) != (x.channels,):
                raise does_not_fit("norm", tuple(tensor.shape), x.channels)
        if kind == "group" and (groups < 1 or x.channels % groups):
            raise does_not_fit("group norm", (groups,), x.channels)
        node = Norm(
            name=self._free(name or "norm"),
            inputs=(x.node,),
            kind=kind,
            channels=x.channels,
            eps=eps,
            affine=weight is not None,
            groups=groups,
        )
        counted = torch.zeros((), dtype=torch.int64) if kind == "batch" else None
        return self._add(
            node,
            x.channels,
            x.sizes,
            weight=weight,
            bias=bias,
            running_mean=mean,
            running_var=variance,
            num_batches_tracked=counted,
        )

    def _check_kernel(self, weight: torch.Tensor, what: str) -> None:
        """Refuse weights of another number of axes, and empty ones."""
        if weight.ndim != 2 + self.dims or 0 in weight.shape:
            raise ModelError(
                f"The weights of a {what} have the shape {tuple(weight.shape)}, {2 + self.dims} "
                "axes were expected. The network is not for this kind of image."
            )


def window_sizes(
    sizes: Ints,
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    padding: Sides,
) -> Ints:
    """Count the places of a window along each axis."""
    reach = (np.array(kernel) - 1) * np.array(dilation) + 1
    count: Ints = (sizes + np.sum(padding, axis=1) - reach) // np.array(stride) + 1
    return count
