"""What is open of sizes: padding, what halves the size, and by how much."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unet.models.recognise.question import Answer, Question

if TYPE_CHECKING:
    from napari_unet.models.recognise.network import Network
    from napari_unet.models.recognise.readings import Reading


def _pools(network: Network, _: Reading) -> bool:
    return any(step.kind == "down" and not step.units for step in network.steps)


OF_SIZES = (
    Question(
        "padding",
        "padding",
        lambda network, _: network.may_be_unpadded(),
        {
            "padded": Answer(
                "the size is kept", "The convolutions keep the size.", {"padded": True}
            ),
            "unpadded": Answer(
                "none, skips are cropped", "The convolutions are not padded.", {"padded": False}
            ),
        },
    ),
    Question(
        "padding_mode",
        "what is padded",
        lambda network, reading: reading.padded and network.pads(),
        {
            "zeros": Answer(
                "zeros",
                "Convolutions are padded with zeros.",
                {"padding_mode": "zeros"},
            ),
            "reflect": Answer(
                "the image mirrored",
                "Convolutions are padded with mirrored pixels.",
                {"padding_mode": "reflect"},
            ),
            "replicate": Answer(
                "the last pixel repeated",
                "Convolutions are padded with the last pixel.",
                {"padding_mode": "replicate"},
            ),
            "circular": Answer(
                "the other side of the image",
                "Convolutions are padded with pixels of the other side.",
                {"padding_mode": "circular"},
            ),
        },
    ),
    Question(
        "dilation",
        "dilation",
        lambda network, _: any(not unit.is_pointwise for unit in network.blocks),
        number="dilations",
        suggested=("1", "2"),
        sentence="The pixels that a convolution of the levels reads lie {} apart.",
        counted=lambda network: len(network.blocks),
    ),
    Question(
        "pooling",
        "pooling",
        _pools,
        {
            "max": Answer(
                "largest value",
                "The size is halved by max pooling.",
                {"pooling": "max", "strided": False},
            ),
            "average": Answer(
                "mean",
                "The size is halved by average pooling.",
                {"pooling": "average", "strided": False},
            ),
            "strided": Answer(
                "stride of the first convolution",
                "The first convolution of each level halves the size by a stride of 2.",
                {"strided": True},
            ),
        },
    ),
    Question(
        "pooling_place",
        "place of the pooling",
        lambda network, reading: network.may_pool_last() and not reading.strided,
        {
            "first": Answer(
                "before the convolutions of a level",
                "The size is halved before the convolutions of a level.",
                {"pooled_last": False},
            ),
            "last": Answer(
                "behind the first module of a level",
                "The first module of each level sees the size above, and is pooled.",
                {"pooled_last": True},
            ),
        },
        is_quiet=lambda _: True,
    ),
    Question(
        "downsampling_activation",
        "activation after downsampling",
        lambda network, reading: bool(network.open_downs(reading)),
        {
            "yes": Answer(
                "activation after the convolution",
                "An activation follows each convolution that halves the size.",
                {"active_down": True},
            ),
            "no": Answer(
                "none",
                "No activation follows the convolutions that halve the size.",
                {"active_down": False},
            ),
        },
    ),
    Question(
        "strides",
        "sizes of the levels",
        lambda network, _: bool(network.ups()),
        number="strides",
        suggested=("2", "4"),
        sentence="Each level is {} times smaller than the one above it.",
        counted=lambda network: len(network.ups()),
        is_quiet=lambda network: not network.may_step_further(),
    ),
    Question(
        "input_added",
        "image added to the answer",
        lambda network, _: network.in_channels == network.classes,
        {
            "no": Answer(
                "no",
                "The image is not added to the answer.",
                {"input_added": False},
            ),
            "yes": Answer(
                "the image is added to the answer",
                "The image is added to the answer.",
                {"input_added": True},
            ),
        },
    ),
)
