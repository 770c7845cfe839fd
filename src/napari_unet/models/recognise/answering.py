"""What the tensors of a network leave open is listed, told, and answered by a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_unet.errors import ModelError
from napari_unet.models.assumptions import check_told
from napari_unet.models.recognise.questions import QUESTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_unet.models.recognise.network import Network
    from napari_unet.models.recognise.question import Question
    from napari_unet.models.recognise.readings import Reading

_UNTOLD = " The tensors do not tell."
_DEPENDS = {
    "slope": ", or say activation=leaky_relu or activation=elu, too",
    "groups": ", or say norm=group, too",
}


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
        if not question.is_quiet(network) and not question.fields() & reading.known
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
            reading = question.answered(network, reading, given[name])
    for question in QUESTIONS:
        if question.name in left:
            raise ModelError(
                f"{question.name} makes no difference to these weights as they are read. Leave it "
                f"out{_DEPENDS.get(question.name, '')}."
            )
    check_told(left, [one.asked(network, reading) for one in open_questions(network, reading)])
    return reading
