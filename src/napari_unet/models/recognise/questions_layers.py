"""What is open of the layers: activations, norms, and shortcuts that leave no tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unet.models.recognise.question import Answer, Question

if TYPE_CHECKING:
    from napari_unet.models.recognise.network import Network
    from napari_unet.models.recognise.readings import Reading

ACTIVATIONS = {
    "relu": "ReLU",
    "leaky_relu": "leaky ReLU",
    "elu": "ELU",
    "gelu": "GELU",
    "silu": "SiLU (Swish)",
    "selu": "SELU",
    "mish": "Mish",
    "softplus": "softplus",
    "tanh": "tanh",
    "relu6": "ReLU up to 6",
    "hardswish": "hard Swish",
    "sigmoid": "sigmoid",
    "celu": "CELU",
}
SLOPED = ("leaky_relu", "elu", "celu")
SLOPES = ("0.01", "0.1", "0.2", "0.3", "1")
EPSILONS = ("1e-05", "0.001", "1e-06", "1e-08")
GROUPS = ("1", "2", "4", "8", "16", "32")


def _has_open_activation(network: Network, _: Reading) -> bool:
    return any(unit.prelu is None for unit in network.units if unit is not network.head)


def _normalises(network: Network, reading: Reading) -> bool:
    return network.has_norms() or reading.bare_norm


def _may_hold_bare_norms(network: Network, _: Reading) -> bool:
    return not network.has_norms()


def _orders(network: Network, reading: Reading) -> bool:
    return network.has_open_order() or (reading.bare_norm and not network.has_norms())


OF_LAYERS = (
    Question(
        "activation",
        "activation of the layers",
        _has_open_activation,
        {
            name: Answer(words, f"The layers are activated by {words}.", {"activation": name})
            for name, words in ACTIVATIONS.items()
        },
    ),
    Question(
        "slope",
        "slope below 0",
        lambda network, reading: (
            reading.activation in SLOPED and _has_open_activation(network, reading)
        ),
        number="slope",
        suggested=SLOPES,
        sentence="The slope of leaky ReLU, or alpha of ELU and CELU, is {}.",
        is_quiet=lambda _: True,
    ),
    Question(
        "norm",
        "kind of norm",
        lambda network, _: bool(network.open_norms()),
        {
            "instance": Answer(
                "instance norm", "The norms are instance norms.", {"norm": "instance"}
            ),
            "group": Answer("group norm", "The norms are group norms.", {"norm": "group"}),
            "layer": Answer(
                "layer norm over the channels",
                "The norms are layer norms over the channels of each pixel.",
                {"norm": "layer"},
            ),
        },
    ),
    Question(
        "groups",
        "groups of the norm",
        lambda network, reading: reading.norm == "group" and bool(network.open_norms()),
        number="groups",
        suggested=GROUPS,
        sentence="Each norm has {} groups, or as many as divide its channels.",
    ),
    Question(
        "bare_norm",
        "norm without weights",
        _may_hold_bare_norms,
        {
            "instance": Answer(
                "instance norm without weights",
                "An instance norm without weights follows each convolution.",
                {"bare_norm": True},
            ),
            "none": Answer("none", "There is no norm between the layers.", {"bare_norm": False}),
        },
    ),
    Question(
        "order",
        "order of norm and activation",
        _orders,
        {
            "norm-activation": Answer(
                "norm, then activation",
                "The norm stands before the activation.",
                {"order": "norm-activation"},
            ),
            "activation-norm": Answer(
                "activation, then norm",
                "The activation stands before the norm.",
                {"order": "activation-norm"},
            ),
        },
    ),
    Question(
        "eps",
        "small number in the norm",
        _normalises,
        number="eps",
        suggested=EPSILONS,
        sentence="{} is added to the variance in each norm; PyTorch adds 1e-05, Keras 0.001.",
    ),
    Question(
        "neighbours",
        "activation between neighbours",
        lambda network, _: bool(network.before_neighbours),
        {
            "active": Answer(
                "activation",
                "An activation stands between convolutions that follow each other in a sequence.",
                {"adjacent_linear": False},
            ),
            "linear": Answer(
                "none",
                "No activation stands between convolutions that follow each other in a sequence.",
                {"adjacent_linear": True},
            ),
        },
    ),
    Question(
        "stem_activation",
        "activation after the first convolution",
        lambda network, _: network.has_bare_stem(),
        {
            "yes": Answer(
                "activation after the convolution",
                "An activation follows the first convolution.",
                {"active_stem": True},
            ),
            "no": Answer(
                "none",
                "No activation follows the first convolution.",
                {"active_stem": False},
            ),
        },
    ),
    Question(
        "level_end",
        "activation at the end of a level",
        lambda network, _: bool(network.ends()),
        {
            "active": Answer(
                "activation",
                "An activation follows the last convolution of each level.",
                {"active_end": True},
            ),
            "linear": Answer(
                "none",
                "No activation follows the last convolution of a level.",
                {"active_end": False},
            ),
        },
        is_quiet=lambda _: True,
    ),
    Question(
        "reused",
        "norm or PReLU of several convolutions",
        lambda network, _: bool(network.reused),
        {
            "each": Answer(
                "it serves each convolution",
                "The one norm or PReLU of a module serves each of its convolutions.",
                {"reused": True},
            ),
            "once": Answer(
                "it serves one convolution",
                "The one norm or PReLU of a module serves one of its convolutions.",
                {"reused": False},
            ),
        },
    ),
    Question(
        "shortcuts",
        "shortcuts without weights",
        lambda network, _: bool(network.bare_blocks),
        {
            "none": Answer(
                "none",
                "No shortcut without weights leads past convolutions.",
                {"bare_shortcuts": False},
            ),
            "added": Answer(
                "what a module reads is added to what it gives",
                "What a module of as many channels in as out reads is added to what it gives.",
                {"bare_shortcuts": True},
            ),
        },
    ),
    Question(
        "residual_end",
        "last activation of residual blocks",
        lambda network, _: any(
            step.kind == "residual" and not step.units[-1].norm_first for step in network.steps
        ),
        {
            "after": Answer(
                "after the sum",
                "The last activation of a residual block stands after the sum.",
                {"residual_end": "after"},
            ),
            "before": Answer(
                "before the sum",
                "The last activation of a residual block stands before the sum.",
                {"residual_end": "before"},
            ),
            "none": Answer(
                "none",
                "No activation follows the last convolution of a residual block.",
                {"residual_end": "none"},
            ),
        },
    ),
    Question(
        "squeeze_place",
        "place of squeeze and excitation",
        lambda network, _: any(unit.squeeze for unit in network.units),
        {
            "block": Answer(
                "what a block gives, before the sum if there is one",
                "Each block weighs the channels that it gives, before the sum if there is one.",
                {"squeezed": "block"},
            ),
            "sum": Answer(
                "what a residual block gives, after the sum",
                "Each residual block weighs its channels after the sum.",
                {"squeezed": "sum"},
            ),
            "skip": Answer(
                "the skips alone",
                "Channels are weighed in the skips, and not on the way down.",
                {"squeezed": "skip"},
            ),
        },
    ),
)
