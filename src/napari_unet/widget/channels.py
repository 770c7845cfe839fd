"""Which channel of which layer each input of the network sees.

napari opens a multi-channel file either as one layer with a channel axis or as one layer a
channel. A :class:`ChannelSource` names either; :func:`gather` builds the one array the engine
wants, lazily, so that nothing large is copied on the GUI thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_unet.arrays.axes import labels_axes
from napari_unet.widget.layers import layer_array

if TYPE_CHECKING:
    from napari.layers import Image

MEAN = -1
"""Source index that means the mean of all channels of a layer."""


@dataclass(frozen=True)
class ChannelSource:
    """One channel: ``index`` along a layer's C axis, MEAN of it, or None if it has no C axis.

    It holds the layer itself: names change.
    """

    layer: Image
    index: int | None
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Gathered:
    """An array for the engine: its axes and the channels of it the network sees."""

    array: Any
    axes: str
    channels: tuple[int, ...] | None


@dataclass(frozen=True)
class Subject:
    """An image as the network is to see it: the layer, its axes, a source for each input."""

    image: Image
    axes: str
    sources: tuple[ChannelSource, ...]
    invert: bool = False

    def gather(self) -> Gathered:
        """Build the array for the engine."""
        return gather(self.image, self.axes, list(self.sources))


def list_sources(image: Image, axes: str, others: list[Image]) -> list[ChannelSource]:
    """List what could feed a network input: channels of the image, then fitting other layers.

    Parameters
    ----------
    image : napari.layers.Image
        The chosen image.
    axes : str
        Its axes.
    others : list of napari.layers.Image
        The other image layers; those of the same size without a channel axis fit.
    """
    if "C" not in axes:
        own = [ChannelSource(image, None, image.name)]
    else:
        count = layer_array(image).shape[axes.index("C")]
        names = ("red", "green", "blue", "alpha") if image.rgb else ()
        own = [
            ChannelSource(image, i, names[i] if i < len(names) else f"channel {i}")
            for i in range(count)
        ]
        mean = ChannelSource(image, MEAN, "grey (mean of channels)" if image.rgb else "mean")
        own = [mean, *own] if image.rgb else [*own, mean]
    shape = _shape_without_channel(image, axes)
    fitting = [o for o in others if not o.rgb and tuple(layer_array(o).shape) == shape]
    return own + [ChannelSource(o, None, o.name) for o in fitting]


def default_sources(sources: list[ChannelSource], wanted: int) -> list[ChannelSource]:
    """Pick a source for each input: the mean for one input of an RGB image, else in order."""
    if wanted == 1:
        return sources[:1]
    single = [source for source in sources if source.index != MEAN]
    return [single[min(i, len(single) - 1)] for i in range(wanted)]


def gather(image: Image, axes: str, picked: list[ChannelSource]) -> Gathered:
    """Build the array that holds the picked channels, without reading it.

    Parameters
    ----------
    image : napari.layers.Image
        The chosen image.
    axes : str
        Its axes.
    picked : list of ChannelSource
        One for each network input.

    Returns
    -------
    Gathered
        The layer's own array where all sources are in it, else a lazy stack ``C...YX``.
    """
    indices = [source.index for source in picked]
    if all(source.layer is image for source in picked):
        if indices == [None]:
            return Gathered(layer_array(image), axes, None)
        if indices == [MEAN]:
            return Gathered(_without_alpha(image), axes, None)
        if None not in indices and MEAN not in indices:
            return Gathered(layer_array(image), axes, tuple(i for i in indices if i is not None))
    return _stack(axes, picked)


def _stack(axes: str, picked: list[ChannelSource]) -> Gathered:
    """Stack sources of several layers along a new first axis."""
    import dask.array as da

    planes = []
    for source in picked:
        array = da.asarray(layer_array(source.layer))
        if source.index == MEAN:
            array = array.mean(axis=axes.index("C"))
        elif source.index is not None:
            array = da.take(array, source.index, axis=axes.index("C"))
        planes.append(array)
    return Gathered(da.stack(planes), "C" + labels_axes(axes), tuple(range(len(planes))))


def _without_alpha(image: Image) -> Any:
    """Return the channels that make the grey value: an alpha channel is none of them."""
    array = layer_array(image)
    return array[..., :3] if image.rgb else array


def _shape_without_channel(image: Image, axes: str) -> tuple[int, ...]:
    """Return the shape of the image without its channel axis."""
    shape = layer_array(image).shape
    return tuple(n for n, axis in zip(shape, axes, strict=True) if axis != "C")
