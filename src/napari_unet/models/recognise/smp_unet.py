"""The Unet of segmentation_models_pytorch: mostly a ResNet on the way down, nearest pixels up.

The ResNet halves the size at once with a 7 x 7 convolution, so the way up ends with a stage
without a skip. How deep the network goes is told by the number of stages up: layers of the ResNet
below that are in the file all the same and are left out, as is the head of a classifier. Other
ways down are in :mod:`napari_unet.models.recognise.smp_encoders`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from napari_unet.models.found import Found
from napari_unet.models.recognise.smp_encoders import Kind, find_encoder
from napari_unet.models.recognise.wiring import MisfitError, Wiring
from napari_unet.network.graph import IMAGE
from napari_unet.settings import Normalization

if TYPE_CHECKING:
    from napari_unet.models.recognise.layers import Layers
    from napari_unet.models.recognise.smp_encoders import Encode

FAMILY = "a Unet of segmentation_models_pytorch"
_ENCODERS = ("encoder.", "encoder.model.")  # of the library itself, and of timm
_HEADS = ("segmentation_head.0", "decoder.final_conv")  # since and before version 0.1
_OTHER_ENCODERS = (
    ("a DenseNet", r"encoder\.features\.denseblock1\."),
    ("a MixTransformer", r"encoder\.patch_embed1\."),
    ("an SENet", r"encoder\.layer0\.conv1\."),
    ("an Inception network", r"encoder\.(conv2d_1a|features\.0\.conv)\."),
    ("one of timm", r"encoder\.model\."),
)
_DOWN, _UP = "down", "up"
_CENTRE = ("decoder.center.0", "decoder.center.1")  # below a VGG
_RESNET_STAGES = 4
_WHITE = 255.0  # of the images of 8 bit whose colours 0..1 ImageNet's numbers are for
_MEANS = (0.485, 0.456, 0.406)
_DEVIATIONS = (0.229, 0.224, 0.225)
_MODES: tuple[Literal["nearest", "linear"], ...] = ("nearest", "linear")


@dataclass(frozen=True)
class _Stage:
    """Names of the layers of a stage on the way up."""

    place: str
    convolutions: tuple[str, str]
    norms: tuple[str, str]


def recognise_smp_unet(layers: Layers) -> list[Found] | None:
    """Recognise a Unet of segmentation_models_pytorch whose encoder is known.

    Parameters
    ----------
    layers : Layers
        What the file holds; the names of all versions of the library are known.

    Returns
    -------
    list of Found or None
        Nearest pixels on the way up, the library's default, then interpolated ones; None if the
        names are not those of a Unet of this library.

    Raises
    ------
    ModelError
        If they are, but the encoder is another one, or tensors are missing, left over or of
        another shape.
    """
    head = next((name for name in _HEADS if name in layers), None)
    stages = _stages(layers)
    if head is None or not stages or not layers.has_keys(r"encoder\."):
        return None
    encoder = _find_resnet(layers) or find_encoder(layers)
    if encoder is None:
        raise MisfitError(
            f"The tensors are those of {FAMILY}, but its encoder is {_named_encoder(layers)}; of "
            "this library ResNet, VGG, MobileNetV2 and EfficientNet are known here. Export the "
            "network as ONNX or TorchScript, which tells all of its layers, and open that file."
        )
    found = []
    for mode in _MODES:
        wiring = Wiring(layers, FAMILY, encoder.first)
        ignored = _wire(wiring, encoder.encode, stages, mode)
        wiring.convolution(head, wiring.nodes[-1].name)
        found.append(
            Found(
                architecture=wiring.graph(ignored=ignored),
                tensors=wiring.tensors,
                card={"normalization": _normalization(wiring.channels(IMAGE))},
                assumed=_assumed(mode, wiring.channels(IMAGE)),
                title=f"{mode} pixels on the way up",
            )
        )
    return found


def _named_encoder(layers: Layers) -> str:
    """Name the encoder, as far as names tell."""
    known = (kind for kind, pattern in _OTHER_ENCODERS if layers.has_keys(pattern))
    return next(known, "another one")


def _normalization(channels: int) -> Normalization:
    """Return the customary scaling: that of the photographs the ResNet was first trained on."""
    if channels != len(_MEANS):
        return Normalization(kind="mean-std")
    return Normalization(
        kind="fixed",
        offsets=tuple(_WHITE * mean for mean in _MEANS),
        scales=tuple(_WHITE * deviation for deviation in _DEVIATIONS),
    )


def _assumed(mode: str, channels: int) -> dict[str, str]:
    """Say what is taken for granted."""
    return {
        "normalization": (
            "ImageNet's mean and standard deviation of each colour, 8 bit, customary with this "
            "library; the weights do not tell."
            if channels == len(_MEANS)
            else "Zero mean and unit variance: there is no custom for other than three colours."
        ),
        "upsampling": (
            f"By {mode} pixels: the library's default is nearest, and the weights do not tell."
        ),
    }


def _stages(layers: Layers) -> list[_Stage]:
    """Find the stages on the way up under the names of the library's versions."""
    stages: list[_Stage] = []
    for place in ("decoder.blocks.{0}", "decoder.layer{1}"):
        for pair in (("conv1", "conv2"), ("block.0", "block.1")):
            for inner in ("", ".block"):
                stages = []
                while True:
                    here = place.format(len(stages), len(stages) + 1)
                    first, second = (f"{here}.{name}{inner}" for name in pair)
                    if f"{first}.0" not in layers:
                        break
                    stages.append(
                        _Stage(here, (f"{first}.0", f"{second}.0"), (f"{first}.1", f"{second}.1"))
                    )
                if stages:
                    return stages
    return stages


def _wire(
    wiring: Wiring,
    encode: Encode,
    stages: list[_Stage],
    mode: Literal["nearest", "linear"],
) -> list[str]:
    """Add encoder and decoder; return what names begin with that are not needed."""
    skips, ignored = encode(wiring, len(stages))
    ignored.append("classification_head.")
    node = skips.pop()
    for place in _CENTRE if wiring.has(f"{_CENTRE[0]}.0") else ():
        node = _convolve(wiring, f"{place}.0", f"{place}.1", node)
    for stage in stages:
        skip = skips.pop() if skips else None
        node = wiring.resize(node, mode=mode, like=skip or IMAGE)
        if skip is None:
            ignored.append(f"{stage.place}.attention1.")
        else:
            node = _attend(wiring, f"{stage.place}.attention1", wiring.concatenate(node, skip))
        for convolution, norm in zip(stage.convolutions, stage.norms, strict=True):
            node = _convolve(wiring, convolution, norm, node)
        node = _attend(wiring, f"{stage.place}.attention2", node)
    return ignored


def _convolve(wiring: Wiring, convolution: str, norm: str, reads: str) -> str:
    """Add a convolution of the way up; it has a bias where no norm follows."""
    has_norm = not wiring.layer(convolution, "convolution").has_bias
    node = wiring.convolution(convolution, reads, bias=_UP)
    return wiring.activation("relu", wiring.norm(norm, node) if has_norm else node)


def _find_resnet(layers: Layers) -> Kind | None:
    """Tell a ResNet or ResNeXt by its names."""
    start = next((start for start in _ENCODERS if f"{start}layer1.0.conv1" in layers), None)
    return None if start is None else Kind(f"{start}conv1", partial(_encode_resnet, start))


def _encode_resnet(encoder: str, wiring: Wiring, depth: int) -> tuple[list[str], list[str]]:
    """Add the ResNet; return its features at 1/2, 1/4, ... of the size."""
    node = wiring.convolution(f"{encoder}conv1", IMAGE, stride=2, bias=_DOWN)
    node = wiring.activation("relu", wiring.norm(f"{encoder}bn1", node))
    features = [node]
    for layer in range(1, depth):
        node = wiring.stem_pooling(node) if layer == 1 else node
        name, block = f"{encoder}layer{layer}", 0
        while block == 0 or wiring.has(f"{name}.{block}.conv1"):
            step = 2 if layer > 1 and block == 0 else 1
            node = _residual(wiring, f"{name}.{block}", node, step)
            block += 1
        features.append(node)
    ignored = [f"{encoder}layer{layer}." for layer in range(depth, _RESNET_STAGES + 1)]
    return features, [*ignored, f"{encoder}fc"]


def _residual(wiring: Wiring, name: str, reads: str, stride: int) -> str:
    """Add a block of a ResNet: two convolutions, or a narrow one between two of 1 x 1."""
    around = reads
    if wiring.has(f"{name}.downsample.0"):
        around = wiring.convolution(f"{name}.downsample.0", reads, stride=stride, bias=_DOWN)
        around = wiring.norm(f"{name}.downsample.1", around)
    count = 3 if wiring.has(f"{name}.conv3") else 2
    node = reads
    for number in range(1, count + 1):
        node = wiring.convolution(
            f"{name}.conv{number}",
            node,
            stride=stride if number == count - 1 else 1,
            grouped=count == 3 and number == 2,
            bias=_DOWN,
        )
        node = wiring.norm(f"{name}.bn{number}", node)
        if number < count:
            node = wiring.activation("relu", node)
    return wiring.activation("relu", wiring.join("add", node, around))


def _attend(wiring: Wiring, name: str, reads: str) -> str:
    """Weight channels and pixels, if the file has such attention (scSE)."""
    inner = f"{name}.attention" if wiring.has(f"{name}.attention.sSE.0") else name
    if not wiring.has(f"{inner}.sSE.0"):
        return reads
    squeezed = wiring.convolution(f"{inner}.cSE.1", wiring.global_average(reads))
    squeezed = wiring.convolution(f"{inner}.cSE.3", wiring.activation("relu", squeezed))
    channels = wiring.join("multiply", reads, wiring.activation("sigmoid", squeezed))
    gate = wiring.activation("sigmoid", wiring.convolution(f"{inner}.sSE.0", reads))
    return wiring.join("add", channels, wiring.join("multiply", reads, gate))
