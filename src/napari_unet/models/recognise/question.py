"""A question that the tensors of a U-Net leave open: its answers, and what they change."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from napari_unet.errors import ModelError
from napari_unet.models.assumptions import Assumption, as_number
from napari_unet.models.recognise.reader import usual_slope

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from napari_unet.models.recognise.network import Network
    from napari_unet.models.recognise.readings import Reading


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
    counted: Callable[[Network], int] | None = None
    """Where the answer may be several numbers: how many; a single one stands for all."""
    is_quiet: Callable[[Network], bool] = lambda _: False
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
        held = {name: network.settled(name, reading) for name in self.fields()}
        return next(
            value
            for value, answer in self.answers.items()
            if all(held[name] == wanted for name, wanted in answer.changes.items())
        )

    def told(self, network: Network, reading: Reading) -> str:
        """Say how a reading answers."""
        value = self.value(network, reading)
        return self.sentence.format(value) if self.number else self.answers[value].sentence

    def answered(self, network: Network, reading: Reading, value: str) -> Reading:
        """Return the reading with this answer."""
        if not self.number:
            return reading.changed(**self.answers[value].changes)
        if self.counted is not None:
            numbers = whole_numbers(self.name, value, self.counted(network))
            return reading.changed(**{self.number: numbers})
        if self.number == "groups":
            return reading.changed(groups=whole_number(self.name, value))
        return reading.changed(**{self.number: as_number(value)})

    def asked(self, network: Network, reading: Reading) -> Assumption:
        """Put the question to a person."""
        choices = {value: answer.words for value, answer in self.answers.items()}
        value = self.value(network, reading)
        if self.number:
            choices = dict.fromkeys(dict.fromkeys((value, *self.suggested)), "")
        form: Literal["choice", "number", "sizes"] = "number" if self.number else "choice"
        is_known = bool(self.fields() & reading.known)
        return Assumption(
            name=self.name,
            topic=self.topic,
            value=value,
            choices=choices,
            form="sizes" if self.counted is not None else form,
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


def whole_numbers(name: str, value: str, count: int) -> tuple[int, ...]:
    """Read one number for all, or as many as there are.

    Parameters
    ----------
    name : str
        Of the question, for the sentence.
    value : str
        Numbers as they are written, with commas between.
    count : int
        How many there may be.

    Returns
    -------
    tuple of int
        As many as were given, each from 1.

    Raises
    ------
    ModelError
        If there are more or fewer.
    """
    numbers = tuple(whole_number(name, part) for part in value.split(","))
    if len(numbers) not in (1, count):
        raise ModelError(
            f"{name}={value} is not possible: these are {len(numbers)} numbers. Give one for all, "
            f"or {count} with commas between."
        )
    return numbers


def _number_of(name: str, reading: Reading) -> float | tuple[int, ...]:
    """Return a number of a reading, or several."""
    if name == "slope":
        return usual_slope(reading.activation, reading.slope)
    held: float | tuple[int, ...] = getattr(reading, name)
    return held


def _written(number: float | tuple[int, ...]) -> str:
    if isinstance(number, tuple):
        return ",".join(str(one) for one in number)
    return f"{number:g}"
