"""What is open of the way up: how the size is doubled, and how the skips come back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unet.models.recognise.question import Answer, Question

if TYPE_CHECKING:
    from napari_unet.models.recognise.network import Network
    from napari_unet.models.recognise.readings import Reading


def _concatenates(network: Network, _: Reading) -> bool:
    return any(step.kind == "join" and step.how == "concatenate" for step in network.steps)


def _resizes(network: Network, _: Reading) -> bool:
    return any(not step.transposed for step in network.ups())


OF_THE_WAY_UP = (
    Question(
        "skip_order",
        "skip order",
        _concatenates,
        {
            "upsampled-first": Answer(
                "upsampled first, then the skip",
                "The upsampled features come before the skip.",
                {"skip_first": False},
            ),
            "skip-first": Answer(
                "skip first, then the upsampled",
                "The skip comes before the upsampled features.",
                {"skip_first": True},
            ),
        },
    ),
    Question(
        "skips",
        "skips",
        lambda network, _: network.may_lack_skips(),
        {
            "added": Answer(
                "features of the same level are added",
                "Features of the same level are added; tensors cannot tell it from no skips at "
                "all.",
                {"skips": True},
            ),
            "none": Answer(
                "no skips",
                "There are no skips; tensors cannot tell it from features that are added.",
                {"skips": False},
            ),
        },
    ),
    Question(
        "upsampling",
        "upsampling",
        _resizes,
        {
            "nearest": Answer(
                "repeated pixels",
                "The size is doubled by repeating pixels.",
                {"resize": "nearest", "align_corners": False},
            ),
            "linear": Answer(
                "linear interpolation",
                "The size is doubled by linear interpolation, corner pixels as parts of the "
                "image's area.",
                {"resize": "linear", "align_corners": False},
            ),
            "linear-aligned": Answer(
                "linear interpolation, corners aligned",
                "The size is doubled by linear interpolation, corner pixels on corner pixels.",
                {"resize": "linear", "align_corners": True},
            ),
            "cubic": Answer(
                "cubic interpolation",
                "The size is doubled by cubic interpolation, corner pixels as parts of the "
                "image's area.",
                {"resize": "cubic", "align_corners": False},
            ),
            "cubic-aligned": Answer(
                "cubic interpolation, corners aligned",
                "The size is doubled by cubic interpolation, corner pixels on corner pixels.",
                {"resize": "cubic", "align_corners": True},
            ),
        },
    ),
    Question(
        "upsampling_order",
        "order of upsampling and convolution",
        lambda network, _: bool(network.open_upsamplings()),
        {
            "resize-first": Answer(
                "upsampling, then the convolution",
                "The size is doubled before the convolution that belongs to it.",
                {"resized_last": False},
            ),
            "convolution-first": Answer(
                "convolution, then the upsampling",
                "The size is doubled after the convolution that belongs to it.",
                {"resized_last": True},
            ),
        },
    ),
    Question(
        "upsampling_activation",
        "activation after upsampling",
        lambda network, _: bool(network.open_ups()),
        {
            "yes": Answer(
                "activation after the convolution",
                "An activation follows the convolution of each upsampling.",
                {"active_up": True},
            ),
            "no": Answer(
                "none",
                "No activation follows the convolution of each upsampling.",
                {"active_up": False},
            ),
        },
    ),
)
