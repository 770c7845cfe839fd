"""Layers that change sizes: fewer pixels, more pixels, others at the edges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from napari_unet.errors import ModelError
from napari_unet.models.building.convolutions import Convolutions, window_sizes
from napari_unet.models.building.features import BATCH, CHANNEL, Feature, Ints
from napari_unet.models.building.pointwise import Pointwise
from napari_unet.models.building.refusals import does_not_fit, unsupported
from napari_unet.network.graph import (
    FitTo,
    GlobalAverage,
    Pad,
    PaddingMode,
    PixelShuffle,
    Pooling,
    Resize,
    Sides,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_MATCHING = 0.2  # share of the probes


class Sized(Convolutions, Pointwise):
    """Adds what changes sizes."""

    def pooling(
        self,
        x: Feature,
        kind: Literal["max", "average"],
        kernel: Sequence[int],
        *,
        stride: Sequence[int] = (),
        padding: Sides = (),
        ceil: bool = False,
        counts_padding: bool = True,
        name: str = "",
    ) -> Feature:
        """Add a pooling; with ``ceil`` a window may begin inside and end outside."""
        x = self._plain(x)
        window = self._each(kernel, 1)
        steps = self._each(stride, 1) if len(stride) else window
        sides = padding or ((0, 0),) * self.dims
        if ceil and any(step > 1 for step in steps):
            if kind == "average" and counts_padding:
                if any(map(any, sides)):
                    raise unsupported("average pooling with padding and ceil mode")
                counts_padding = False
            sides = tuple(
                (before, after + step - 1)
                for (before, after), step in zip(sides, steps, strict=True)
            )
        if any(p >= k for pair, k in zip(sides, window, strict=True) for p in pair):
            raise unsupported("pooling with windows that lie in the padding alone")
        sizes = window_sizes(x.sizes, window, steps, (1,) * self.dims, sides)
        node = Pooling(
            name=self._free(name or "pool"),
            inputs=(x.node,),
            kind=kind,
            kernel=window,
            stride=steps,
            padding=sides if any(map(any, sides)) else None,
            counts_padding=counts_padding,
        )
        return self._add(node, x.channels, sizes)

    def global_average(self, x: Feature, name: str = "") -> Feature:
        """Add the mean over all pixels."""
        node = GlobalAverage(name=self._free(name or "mean"), inputs=(x.node,))
        return self._add(node, x.channels, np.ones_like(x.sizes), order=x.order)

    def resize(
        self,
        x: Feature,
        mode: Literal["nearest", "linear", "cubic"],
        *,
        scale: Sequence[float] | None = None,
        sizes: Ints | None = None,
        align_corners: bool = False,
        name: str = "",
    ) -> Feature:
        """Add another size: by factors, or sizes (probes, spatial axes) that a rule must fit."""
        x = self._plain(x)
        inputs: tuple[str, ...] = (x.node,)
        if sizes is not None:
            scale = self.constant_scale(x, sizes)
            if scale is None:
                inputs = (x.node, self._feature_of_size(sizes, "resizes to a size").node)
        elif scale is not None:
            if len(scale) != self.dims or not all(0 < s < 1e3 for s in scale):
                raise unsupported(f"resizing by {tuple(scale)}")
            sizes = np.floor(x.sizes * np.array(scale) + 1e-9).astype(np.int64)
        if sizes is None:
            raise unsupported("resizing to no size")
        if scale is not None and all(s == 1 for s in scale):
            return x
        node = Resize(
            name=self._free(name or "resize"),
            inputs=inputs,
            mode=mode,
            scale=None if scale is None else tuple(float(s) for s in scale),
            align_corners=align_corners and mode != "nearest",
        )
        return self._add(node, x.channels, sizes)

    def resize_from_corner(self, x: Feature, factors: Sequence[int]) -> Feature:
        """Add linear interpolation whose first pixel stays in place, as TensorFlow 1 did it."""
        factors = self._each(factors, 1)
        widened = self.pad_by(x, (0,) * self.dims, (1,) * self.dims, "replicate")
        kernel = torch.ones((1,) * self.dims)
        for axis, factor in enumerate(factors):
            ramp = 1 - torch.arange(1 - factor, factor).abs() / factor
            kernel = kernel * ramp.reshape([-1 if a == axis else 1 for a in range(self.dims)])
        return self.transposed_convolution(
            widened,
            kernel.expand(x.channels, 1, *kernel.shape).clone(),
            None,
            stride=factors,
            crop=tuple((f - 1, f) for f in factors),
            groups=x.channels,
        )

    def pixel_shuffle(self, x: Feature, factor: int, *, depth_first: bool = False) -> Feature:
        """Add channels that become pixels; ``depth_first`` as TensorFlow orders them."""
        x = self._plain(x)
        block = factor**self.dims
        if factor < 2 or x.channels % block:
            raise does_not_fit("pixel shuffle", (factor,), x.channels)
        if depth_first:
            source = torch.arange(x.channels).reshape(block, -1).T.flatten()
            x = self.dense(x, torch.eye(x.channels)[source], None, "reorder")
        node = PixelShuffle(name=self._free("shuffle"), inputs=(x.node,), factor=factor)
        return self._add(node, x.channels // block, x.sizes * factor)

    def pad_by(
        self,
        x: Feature,
        before: Sequence[int | Ints],
        after: Sequence[int | Ints],
        mode: PaddingMode = "zeros",
        name: str = "",
    ) -> Feature:
        """Add pixels, negative ones are cut off; per spatial axis a number or one per probe."""
        x = self._plain(x)
        first = self._per_probe(before)
        last = self._per_probe(after)
        crops_only = not (first[self.alive] > 0).any() and not (last[self.alive] > 0).any()
        if x.node in self._half_cropped:
            x, cropped_first, cropped_last, refused = self._half_cropped[x.node]
            if not crops_only:
                raise refused
            first, last = first + cropped_first, last + cropped_last
        sizes = x.sizes + first + last
        if not (first[self.alive].any() or last[self.alive].any()):
            return x
        constant = all((v[self.alive] == v[self.alive][:1]).all() for v in (first, last))
        target = self._odd_target(sizes, first, last) if constant else None
        if constant and target is None:
            return self._pad_always(x, first, last, mode, name)
        if target is None:
            try:
                target = self._feature_of_size(sizes, "crops or pads to a size")
            except ModelError as error:
                if not crops_only:
                    raise
                return self._crop_half(x, first, last, error)
        here = self.alive & (target.sizes == sizes).all(axis=1)
        more = target.sizes - x.sizes
        befores = {"centre": np.sign(more) * (np.abs(more) // 2), "floor": more // 2, "end": 0}
        fitting = [w for w, n in befores.items() if (first == n)[here].all()]
        if not fitting and constant:
            return self._pad_always(x, first, last, mode, name)
        if not fitting:
            raise unsupported("a crop or padding that depends on the size of the image")
        fit = FitTo(
            name=self._free(name or "fit"),
            inputs=(x.node, target.node),
            where=fitting[0],
            mode=mode,
        )
        sizes = target.sizes
        return self._add(fit, x.channels, sizes)

    def slice(
        self, x: Feature, axis: int, start: int | Ints, stop: int | Ints, step: int = 1
    ) -> Feature:
        """Add a slice along an axis of the feature's own order, with Python's rules."""
        length = x.shape[axis]
        first = np.clip(np.where(np.less(start, 0), length + start, start), 0, length)
        last = np.clip(np.where(np.less(stop, 0), length + stop, stop), 0, length)
        if step != 1:
            raise unsupported(f"a slice in steps of {step}")
        place = x.order[axis]
        if place == BATCH:
            self._keep((first == 0) & (last == length), "takes images out of a batch")
            return x
        if place == CHANNEL:
            begin, end = self.same(first), self.same(last)
            return self.channels(x, begin, end - begin)
        before: list[int | Ints] = [0] * self.dims
        after: list[int | Ints] = [0] * self.dims
        before[place - 2], after[place - 2] = -first, last - length
        return self.pad_by(x.reordered(x.plain), before, after).reordered(x.order)

    def reshape(self, x: Feature, target: Ints) -> Feature:
        """Give the same numbers another shape (probes, axes) that keeps the image, -1 is the rest.

        Axes of size 1 may go and come back; nothing is mixed.
        """
        now = np.stack(x.shape, axis=1)
        total = now.prod(axis=1)
        known = np.where(target < 0, 1, target).prod(axis=1)
        target = np.where(target < 0, (total // np.maximum(known, 1))[:, None], target)
        wanted = target[self.alive]
        orders = [x.order]
        if (x.sizes == 1)[self.alive].all():
            # A single pixel: its axes may go, come back and stand on either side of the channels.
            spatial = tuple(range(2, 2 + self.dims))[: max(wanted.shape[1] - 2, 0)]
            orders += [
                (BATCH, *spatial[:place], CHANNEL, *spatial[place:])
                for place in range(len(spatial) + 1)
            ]
        for order in orders:
            shape = np.stack(x.reordered(order).shape, axis=1)[self.alive]
            if shape.shape == wanted.shape and (shape == wanted).all():
                return x.reordered(order)
        raise unsupported("a reshape of a layer's result")

    def either(
        self, one: Feature, mask: NDArray[np.bool_], other: Feature, other_mask: NDArray[np.bool_]
    ) -> Feature | None:
        """Find the layer that does what two branches do, each for its own probes.

        That is the one which fits to a size, where the other branch has that size already.
        """
        for done, here, left, there in (
            (one, mask, other, other_mask),
            (other, other_mask, one, mask),
        ):
            node = self.nodes.get(done.node)
            fits = isinstance(node, FitTo) or (isinstance(node, Resize) and len(node.inputs) == 2)
            if node is None or not fits or node.inputs[0] != left.node:
                continue
            if (self.features[node.inputs[1]].sizes == left.sizes)[there].all():
                sizes = np.where(here[:, None], done.sizes, left.sizes)
                merged = Feature(done.node, done.channels, sizes, done.order)
                self.features[done.node] = merged
                return merged
        return one if one.node == other.node and one.order == other.order else None

    def _pad_always(
        self, x: Feature, first: Ints, last: Ints, mode: PaddingMode, name: str
    ) -> Feature:
        """Add the same numbers of pixels whatever the size of the image."""
        probe = int(np.flatnonzero(self.alive)[0])
        sides = tuple((int(a), int(b)) for a, b in zip(first[probe], last[probe], strict=True))
        pad = Pad(name=self._free(name or "pad"), inputs=(x.node,), sides=sides, mode=mode)
        return self._add(pad, x.channels, x.sizes + first + last)

    def _crop_half(self, x: Feature, first: Ints, last: Ints, error: ModelError) -> Feature:
        """Note a crop that may go on: files cut to the size of a layer one axis after another."""
        name = self._free("cropped")
        result = Feature(name, x.channels, x.sizes + first + last, x.order)
        self.features[name] = result
        self._half_cropped[name] = (x, first, last, error)
        return result

    def _feature_of_size(self, sizes: Ints, what: str) -> Feature:
        """Find a layer that has a size for all probes, the newest first."""
        for feature in reversed(self.features.values()):
            if feature.node in {*self._errors_of_gelu, *self._half_cropped, *self._ends}:
                continue
            if (feature.sizes == sizes)[self.alive].all():
                return feature
        raise ModelError(
            f"The network {what} that is neither fixed nor that of another layer. Export it for "
            "images of one size, without dynamic axes, or use a state dict of the weights."
        )

    def _odd_target(self, sizes: Ints, first: Ints, last: Ints) -> Feature | None:
        """Find the layer whose size was wanted where one pixel more is padded at the end.

        So it stands in a file that was written for one size of image, an odd one.
        """
        uneven = np.abs(first - last)[self.alive]
        if not uneven.any() or (uneven > 1).any():
            return None
        for feature in reversed(self.features.values()):
            matching = (feature.sizes == sizes).all(axis=1)[self.alive]
            is_layer = feature.node not in {*self._errors_of_gelu, *self._half_cropped, *self._ends}
            if is_layer and matching.mean() >= _MATCHING:
                return feature
        return None
