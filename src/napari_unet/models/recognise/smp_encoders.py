"""Ways down that segmentation_models_pytorch puts before its Unet, besides a ResNet.

Each function adds the layers of an encoder and returns its features, the image's size halved once
in the first of them, twice in the second and so on, and what names begin with that are not needed.
How far apart windows lie is not in the weights; it is the same in all networks of the kind.

References
----------
.. [1] Simonyan, Zisserman (2015), VGG, arXiv:1409.1556.
.. [2] Sandler et al. (2018), MobileNetV2, doi:10.1109/CVPR.2018.00474.
.. [3] Tan, Le (2019), EfficientNet, arXiv:1905.11946.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from napari_unet.network.graph import IMAGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_unet.models.recognise.layers import Layers
    from napari_unet.models.recognise.wiring import Wiring

    Encode = Callable[[Wiring, int], tuple[list[str], list[str]]]

_VGG, _BLOCKS, _DOWN = "encoder.features", "encoder._blocks", "down"
_VGG_PLACES = 60  # places of its one sequence: the largest has 53
_MOBILE_STEPS = (0, 2, 4, 7, 14)  # blocks that halve the size
_MOBILE_ENDS = (1, 3, 6, 13, 18)  # blocks whose features go over to the way up
_MOBILE_HEAD = 18
_EFFICIENT_EPS = 1e-3
_EFFICIENT_STEPS = (1, 2, 2, 2, 1, 2, 1)  # of the first block of each stage


class Kind(NamedTuple):
    """An encoder by the names of its layers."""

    first: str
    """The convolution that reads the image."""
    encode: Encode


class _Efficient(NamedTuple):
    """What the weights of an EfficientNet do not tell: it follows from its number of blocks."""

    image_px: int
    """Size of the images it was made for: its padding is fixed for them."""
    ends: tuple[int, int, int, int]
    """Blocks whose features go over to the way up."""


_EFFICIENT = {
    (16, 1280): _Efficient(224, (2, 4, 8, 15)),
    (23, 1280): _Efficient(240, (4, 7, 15, 22)),
    (23, 1408): _Efficient(260, (4, 7, 15, 22)),
    (26, 1536): _Efficient(300, (4, 7, 17, 25)),
    (32, 1792): _Efficient(380, (5, 9, 21, 31)),
    (39, 2048): _Efficient(456, (7, 12, 26, 38)),
    (45, 2304): _Efficient(528, (8, 14, 30, 44)),
    (55, 2560): _Efficient(600, (10, 17, 37, 54)),
}
"""By blocks and channels of the head: B0 to B7."""


def find_encoder(layers: Layers) -> Kind | None:
    """Tell an encoder by its names.

    Parameters
    ----------
    layers : Layers
        What the file holds.

    Returns
    -------
    Kind or None
        None if it is none of these.
    """
    for first, inner, encode in (
        ("encoder._conv_stem", "encoder._blocks.0._depthwise_conv", _encode_efficient),
        ("encoder.features.0.0", "encoder.features.1.conv.0.0", _encode_mobile),
        *(("encoder.features.0", f"encoder.features.{n}", _encode_vgg) for n in (2, 3, 4)),
    ):
        if first in layers and inner in layers:
            return Kind(first, encode)
    return None


def _encode_vgg(wiring: Wiring, depth: int) -> tuple[list[str], list[str]]:
    """Add a VGG: in its one sequence a pooling stands where a convolution would come next."""
    features: list[str] = []
    node, place = IMAGE, 0
    while len(features) <= depth:
        name, behind = f"{_VGG}.{place}", f"{_VGG}.{place + 1}"
        if wiring.has(name):
            node = wiring.convolution(name, node)
            has_norm = wiring.has(behind)
            node = wiring.norm(behind, node) if has_norm else node
            node = wiring.activation("relu", node)
            place += 3 if has_norm else 2
        else:
            features.append(node)
            node = wiring.pooling(node) if len(features) <= depth else node
            place += 1
    return features[1:], [f"{_VGG}.{left}." for left in range(place, _VGG_PLACES)]


def _encode_mobile(wiring: Wiring, depth: int) -> tuple[list[str], list[str]]:
    """Add a MobileNetV2: narrow blocks that are widened, filtered and narrowed again."""
    features: list[str] = []
    node = IMAGE
    for block in range(_MOBILE_HEAD + 1):
        name, step = f"{_VGG}.{block}", 2 if block in _MOBILE_STEPS else 1
        if block in (0, _MOBILE_HEAD):
            node = _filtered(wiring, f"{name}.0", f"{name}.1", node, step)
        else:
            node = _mobile_block(wiring, f"{name}.conv", node, step)
        if block in _MOBILE_ENDS:
            features.append(node)
        if len(features) == depth:
            break
    return features, [f"{_VGG}.{left}." for left in range(block + 1, _MOBILE_HEAD + 1)]


def _mobile_block(wiring: Wiring, name: str, reads: str, step: int) -> str:
    """Add a block of a MobileNetV2; the first one is not widened."""
    node, last = reads, 1
    if not wiring.has(f"{name}.1"):
        node, last = _filtered(wiring, f"{name}.0.0", f"{name}.0.1", node, 1), 2
    depthwise = f"{name}.{last - 1}"
    node = _filtered(wiring, f"{depthwise}.0", f"{depthwise}.1", node, step)
    node = wiring.convolution(f"{name}.{last}", node, bias=_DOWN)
    return _around(wiring, wiring.norm(f"{name}.{last + 1}", node), reads, step)


def _filtered(wiring: Wiring, name: str, norm: str, reads: str, step: int) -> str:
    """Add a convolution, of each channel by itself if the weight says so, norm and activation."""
    node = wiring.convolution(name, reads, stride=step, grouped=True, bias=_DOWN)
    return wiring.activation("relu6", wiring.norm(norm, node))


def _around(wiring: Wiring, node: str, reads: str, step: int) -> str:
    """Add what a block reads to what it gives, where that is of the same size."""
    if step == 1 and wiring.channels(node) == wiring.channels(reads):
        return wiring.join("add", node, reads)
    return node


def _encode_efficient(wiring: Wiring, depth: int) -> tuple[list[str], list[str]]:
    """Add an EfficientNet."""
    blocks = 0
    while wiring.has(f"{_BLOCKS}.{blocks}._project_conv"):
        blocks += 1
    head = wiring.layer("encoder._conv_head", "convolution").sizes[0]
    if (blocks, head) not in _EFFICIENT:
        raise wiring.misfit(f"no EfficientNet has {blocks} blocks and {head} channels at its end")
    image_px, ends = _EFFICIENT[blocks, head]
    node = _efficient_filter(wiring, "encoder._conv_stem", "encoder._bn0", IMAGE, 2, image_px)
    features, image_px, stage = [node], -(-image_px // 2), -1
    wide = 0
    for block in range(blocks):
        if len(features) == depth:
            break
        name = f"{_BLOCKS}.{block}"
        narrow = wiring.layer(f"{name}._project_conv", "convolution").sizes[0]
        stage += narrow != wide
        step = _EFFICIENT_STEPS[min(stage, len(_EFFICIENT_STEPS) - 1)] if narrow != wide else 1
        node, wide = _efficient_block(wiring, name, node, step, image_px), narrow
        image_px = -(-image_px // step)
        if block in ends:
            features.append(node)
    else:
        block = blocks
    left = [f"{_BLOCKS}.{number}." for number in range(block, blocks)]
    return features, [*left, "encoder._conv_head.", "encoder._bn1.", "encoder._fc."]


def _efficient_block(wiring: Wiring, name: str, reads: str, step: int, image_px: int) -> str:
    """Add a block of an EfficientNet: widened, filtered, its channels weighed, narrowed again."""
    node = reads
    if wiring.has(f"{name}._expand_conv"):
        node = _efficient_filter(wiring, f"{name}._expand_conv", f"{name}._bn0", node, 1, image_px)
    node = _efficient_filter(
        wiring, f"{name}._depthwise_conv", f"{name}._bn1", node, step, image_px
    )
    weight = wiring.convolution(f"{name}._se_reduce", wiring.global_average(node))
    weight = wiring.convolution(f"{name}._se_expand", wiring.activation("silu", weight))
    node = wiring.join("multiply", node, wiring.activation("sigmoid", weight))
    node = wiring.convolution(f"{name}._project_conv", node, bias=_DOWN)
    return _around(wiring, wiring.norm(f"{name}._bn2", node, eps=_EFFICIENT_EPS), reads, step)


def _efficient_filter(
    wiring: Wiring, name: str, norm: str, reads: str, step: int, image_px: int
) -> str:
    """Add a convolution, norm and activation; padded as TensorFlow pads images of that size."""
    size = wiring.kernel(name)[0]
    lacking = max((-(-image_px // step) - 1) * step + size - image_px, 0)
    padding = ((lacking // 2, lacking - lacking // 2),) * wiring.spatial_dims
    node = wiring.convolution(name, reads, stride=step, padding=padding, grouped=True, bias=_DOWN)
    return wiring.activation("silu", wiring.norm(norm, node, eps=_EFFICIENT_EPS))
