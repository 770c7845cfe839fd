"""What the tensors of a U-Net leave open: each question, its answers, and what they change.

A question is asked only of networks for which the answer makes a difference that the tensors do
not show. The family answers some, the rest is answered by a default that stands in the card, or
by a person.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_unet.errors import ModelError
from napari_unet.models.assumptions import Assumption, as_number, check_told
from napari_unet.models.recognise.network import may_be_active
from napari_unet.models.recognise.reader import usual_slope

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from napari_unet.models.recognise.network import Network
    from napari_unet.models.recognise.readings import Reading
    from napari_unet.models.recognise.search import Step

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
}
SLOPED = ("leaky_relu", "elu")
SLOPES = ("0.01", "0.1", "0.2", "0.3", "1")
EPSILONS = ("1e-05", "0.001", "1e-06", "1e-08")
GROUPS = ("1", "2", "4", "8", "16", "32")
_UNTOLD = " The tensors do not tell."
_DEPENDS = {
    "slope": ", or say activation=leaky_relu or activation=elu, too",
    "groups": ", or say norm=group, too",
}


@dataclass(frozen=True)
class Answer:
    """One way to answer a question."""

    words: str
    """A few, for a list to choose from."""
    sentence: str
    """What the card says of it."""
    changes: Mapping[str, Any]
    """Fields of the :class:`Reading`."""


@dataclass(frozen=True)
class Question:
    """Something that tensors do not tell."""

    name: str
    topic: str
    is_open: Callable[[Network, Reading], bool]
    """Whether it makes a difference for a network."""
    answers: Mapping[str, Answer] = field(default_factory=dict)
    number: str = ""
    """Field of the reading, where the answer is a number."""
    suggested: tuple[str, ...] = ()
    sentence: str = ""
    """What the card says of a number."""
    is_quiet: bool = False
    """Whether the default is so usual that the card does not call it assumed."""

    def fields(self) -> set[str]:
        """Return the fields of a reading that the answers change."""
        if self.number:
            return {self.number}
        return {key for answer in self.answers.values() for key in answer.changes}

    def value(self, network: Network, reading: Reading) -> str:
        """Return the answer that a reading gives."""
        if self.number:
            return _written(_number_of(self.number, reading))
        held = {name: getattr(reading, name) for name in self.fields()}
        if held.get("active_up", False) is None:
            held["active_up"] = any(
                network.is_active_up(step, reading) for step in network.ups() if step.units
            )
        return next(
            value
            for value, answer in self.answers.items()
            if all(held[name] == wanted for name, wanted in answer.changes.items())
        )

    def told(self, network: Network, reading: Reading) -> str:
        """Say how a reading answers."""
        value = self.value(network, reading)
        return self.sentence.format(value) if self.number else self.answers[value].sentence

    def answered(self, reading: Reading, value: str) -> Reading:
        """Return the reading with this answer."""
        if not self.number:
            return reading.changed(**self.answers[value].changes)
        if self.number == "groups":
            return reading.changed(groups=whole_number(self.name, value))
        return reading.changed(**{self.number: as_number(value)})

    def asked(self, network: Network, reading: Reading) -> Assumption:
        """Put the question to a person."""
        choices = {value: answer.words for value, answer in self.answers.items()}
        value = self.value(network, reading)
        if self.number:
            choices = dict.fromkeys(dict.fromkeys((value, *self.suggested)), "")
        is_known = bool(self.fields() & reading.known)
        return Assumption(
            name=self.name,
            topic=self.topic,
            value=value,
            choices=choices,
            form="number" if self.number else "choice",
            told_by=reading.family if is_known else "",
        )


def whole_number(name: str, value: str) -> int:
    """Read a count.

    Parameters
    ----------
    name : str
        Of the question, for the sentence.
    value : str
        A number as it is written.

    Returns
    -------
    int
        From 1.

    Raises
    ------
    ModelError
        If it is no whole number.
    """
    number = as_number(value) or 0.0
    if number < 1 or number % 1:
        raise ModelError(f"{name}={value} is not possible. Give a whole number from 1.")
    return int(number)


def _number_of(name: str, reading: Reading) -> float:
    """Return a number of a reading."""
    if name == "slope":
        return usual_slope(reading.activation, reading.slope)
    return float(getattr(reading, name))


def _written(number: float) -> str:
    return f"{number:g}"


def _concatenates(network: Network, _: Reading) -> bool:
    return any(step.kind == "join" and step.how == "concatenate" for step in network.steps)


def _resizes(network: Network, _: Reading) -> bool:
    return any(not step.transposed for step in network.ups())


def _pools(network: Network, _: Reading) -> bool:
    return any(step.kind == "down" and not step.units for step in network.steps)


def _has_open_activation(network: Network, _: Reading) -> bool:
    return any(unit.prelu is None for unit in network.blocks)


def _normalises(network: Network, reading: Reading) -> bool:
    return network.has_norms() or reading.bare_norm


def _may_hold_bare_norms(network: Network, _: Reading) -> bool:
    return not network.has_norms()


def _orders(network: Network, reading: Reading) -> bool:
    return network.has_open_order() or (reading.bare_norm and not network.has_norms())


def _may_be_active_up(network: Network, _: Reading) -> bool:
    return any(may_be_active(step) or _is_bare_transposed(step) for step in network.ups())


def _is_bare_transposed(step: Step) -> bool:
    return step.transposed and step.units[0].norm is None and step.units[0].prelu is None


QUESTIONS = (
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
        },
    ),
    Question(
        "upsampling_activation",
        "activation after upsampling",
        _may_be_active_up,
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
        sentence="The slope of leaky ReLU, or alpha of ELU, is {}.",
        is_quiet=True,
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
        sentence="{} is added to the variance in each norm.",
        is_quiet=True,
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
)
"""In the order in which they matter: a later one may depend on earlier answers."""


def open_questions(network: Network, reading: Reading) -> list[Question]:
    """List what the tensors of a network leave open, answered by its family or not.

    Parameters
    ----------
    network : Network
        Its steps.
    reading : Reading
        How it is read.

    Returns
    -------
    list of Question
        Those that make a difference.
    """
    return [question for question in QUESTIONS if question.is_open(network, reading)]


def sentences(network: Network, reading: Reading) -> dict[str, str]:
    """Say what was assumed: all that neither the family nor the tensors tell.

    Parameters
    ----------
    network : Network
        Its steps.
    reading : Reading
        How it is read.

    Returns
    -------
    dict of str to str
        A topic and a sentence each.
    """
    return {
        question.topic: question.told(network, reading)
        + ("" if question.name == "skips" else _UNTOLD)
        for question in open_questions(network, reading)
        if not question.is_quiet and not question.fields() & reading.known
    }


def answered(network: Network, reading: Reading, values: Mapping[str, str]) -> Reading:
    """Read a network as a person says.

    Parameters
    ----------
    network : Network
        Its steps.
    reading : Reading
        How it was read so far.
    values : mapping of str to str
        Answers by the names of questions.

    Returns
    -------
    Reading
        With these answers.

    Raises
    ------
    ModelError
        If an answer is not possible, or makes no difference here.
    """
    left = dict(values)
    for question in QUESTIONS:
        if question.name in left and question.is_open(network, reading):
            name = question.name
            given = check_told({name: left.pop(name)}, [question.asked(network, reading)])
            reading = question.answered(reading, given[name])
    for question in QUESTIONS:
        if question.name in left:
            raise ModelError(
                f"{question.name} makes no difference to these weights as they are read. Leave it "
                f"out{_DEPENDS.get(question.name, '')}."
            )
    check_told(left, [one.asked(network, reading) for one in open_questions(network, reading)])
    return reading
