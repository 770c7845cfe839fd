"""The Unet of segmentation_models_pytorch: a ResNet on the way down, nearest pixels up.

The ResNet halves the size at once with a 7 x 7 convolution, so the way up ends with a stage
without a skip. How deep the network goes is told by the number of stages up: layers of the ResNet
below that are in the file all the same and are left out, as is the head of a classifier.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from napari_unet.errors import ModelError
from napari_unet.models.found import Found
from napari_unet.models.recognise.builder import GraphBuilder
from napari_unet.network.graph import IMAGE

if TYPE_CHECKING:
    from napari_unet.models.recognise.layers import Layers

FAMILY = "a Unet of segmentation_models_pytorch"
_ENCODERS = ("encoder.", "encoder.model.")  # of the library itself, and of timm
_HEADS = ("segmentation_head.0", "decoder.final_conv")  # since and before version 0.1
_RESNET_STAGES = 4
_MODES: tuple[Literal["nearest", "linear"], ...] = ("nearest", "linear")


@dataclass(frozen=True)
class _Stage:
    """Names of the layers of a stage on the way up."""

    place: str
    convolutions: tuple[str, str]
    norms: tuple[str, str]


def recognise_smp_unet(layers: Layers) -> list[Found] | None:
    """Recognise a Unet of segmentation_models_pytorch with a ResNet (or ResNeXt) as encoder.

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
    encoder = next((start for start in _ENCODERS if f"{start}layer1.0.conv1" in layers), None)
    if encoder is None:
        raise ModelError(
            f"The tensors are those of {FAMILY}, but its encoder is not a ResNet, the only one "
            "that is known here. Export the network as ONNX or TorchScript, which tells all of "
            "its layers, and open that file."
        )
    found = []
    for mode in _MODES:
        builder = GraphBuilder(layers, FAMILY, f"{encoder}conv1")
        ignored = _wire(builder, encoder, stages, mode)
        builder.convolution(head, builder.nodes[-1].name)
        found.append(
            Found(
                architecture=builder.graph(ignored=ignored),
                tensors=builder.tensors,
                assumed=_assumed(mode),
                title=f"{mode} pixels on the way up",
            )
        )
    return found


def _assumed(mode: str) -> dict[str, str]:
    """Say what is taken for granted."""
    return {
        "normalization": (
            "ImageNet's mean and standard deviation of each colour, customary with this library; "
            "the weights do not tell."
        ),
        "upsampling": f"By {mode} pixels; the library's default is nearest, the weights do not tell.",
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
    builder: GraphBuilder,
    encoder: str,
    stages: list[_Stage],
    mode: Literal["nearest", "linear"],
) -> list[str]:
    """Add encoder and decoder; return what names begin with that are not needed."""
    depth = len(stages)
    skips = _encode(builder, encoder, depth)
    ignored = [f"{encoder}layer{layer}." for layer in range(depth, _RESNET_STAGES + 1)]
    ignored += [f"{encoder}fc", "classification_head."]
    node = skips.pop()
    for stage in stages:
        skip = skips.pop() if skips else None
        node = builder.resize(node, mode=mode, like=skip or IMAGE)
        if skip is None:
            ignored.append(f"{stage.place}.attention1.")
        else:
            node = _attend(builder, f"{stage.place}.attention1", builder.concatenate(node, skip))
        for convolution, norm in zip(stage.convolutions, stage.norms, strict=True):
            node = builder.convolution(convolution, node)
            # The library leaves out the bias where a norm follows, if only one without weights.
            has_bias = builder.layer(convolution, "convolution").has_bias
            node = builder.norm(norm, node, bare="none" if has_bias else "instance")
            node = builder.activation("relu", node)
        node = _attend(builder, f"{stage.place}.attention2", node)
    return ignored


def _encode(builder: GraphBuilder, encoder: str, depth: int) -> list[str]:
    """Add the ResNet; return its features at 1/2, 1/4, ... of the size."""
    node = builder.convolution(f"{encoder}conv1", IMAGE, stride=2)
    node = builder.activation("relu", builder.norm(f"{encoder}bn1", node))
    features = [node]
    for layer in range(1, depth):
        node = builder.stem_pooling(node) if layer == 1 else node
        name, block = f"{encoder}layer{layer}", 0
        while block == 0 or builder.has(f"{name}.{block}.conv1"):
            step = 2 if layer > 1 and block == 0 else 1
            node = _residual(builder, f"{name}.{block}", node, step)
            block += 1
        features.append(node)
    return features


def _residual(builder: GraphBuilder, name: str, reads: str, stride: int) -> str:
    """Add a block of a ResNet: two convolutions, or a narrow one between two of 1 x 1."""
    around = reads
    if builder.has(f"{name}.downsample.0"):
        around = builder.convolution(f"{name}.downsample.0", reads, stride=stride)
        around = builder.norm(f"{name}.downsample.1", around)
    count = 3 if builder.has(f"{name}.conv3") else 2
    node = reads
    for number in range(1, count + 1):
        node = builder.convolution(
            f"{name}.conv{number}",
            node,
            stride=stride if number == count - 1 else 1,
            grouped=count == 3 and number == 2,
        )
        node = builder.norm(f"{name}.bn{number}", node)
        if number < count:
            node = builder.activation("relu", node)
    return builder.activation("relu", builder.join("add", node, around))


def _attend(builder: GraphBuilder, name: str, reads: str) -> str:
    """Weight channels and pixels, if the file has such attention (scSE)."""
    inner = f"{name}.attention" if builder.has(f"{name}.attention.sSE.0") else name
    if not builder.has(f"{inner}.sSE.0"):
        return reads
    squeezed = builder.convolution(f"{inner}.cSE.1", builder.global_average(reads))
    squeezed = builder.convolution(f"{inner}.cSE.3", builder.activation("relu", squeezed))
    channels = builder.join("multiply", reads, builder.activation("sigmoid", squeezed))
    gate = builder.activation("sigmoid", builder.convolution(f"{inner}.sSE.0", reads))
    return builder.join("add", channels, builder.join("multiply", reads, gate))
