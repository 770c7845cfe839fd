"""Open weights of any format: ours, and those of the programs people come from.

A file is told by its content and given to the reader of its format, which runs nothing of it.
What the reader found is one network or, where tensors fit several, one reading for each::

    file --sniff--> reader --> Found, Found ... --> card, network, checks --> Model

What the file does not say is assumed, and every assumption stands in the card with its reason; a
person who knows better tells it, point by point. A file is opened whole or refused: each tensor
must be there, of the right shape, and finite.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from napari_unet.errors import ModelError, UnetError, described, shortened
from napari_unet.models.assumptions import OF_CARD, OUR_CARD, Assumption, check_told
from napari_unet.models.card import FOREGROUND, Card
from napari_unet.models.card_assumptions import as_told, card_assumptions, usual_outputs
from napari_unet.models.formats import OWN, Format, refusal, sniff
from napari_unet.models.library import find_reading
from napari_unet.models.model import Model, assemble
from napari_unet.models.model import load_model as load_own
from napari_unet.models.own_file import checksum
from napari_unet.network.devices import is_out_of_memory
from napari_unet.network.graph import Graph
from napari_unet.network.graph_field import at_image_size, describe_fit
from napari_unet.settings import checked

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_unet.models.found import Found

R = TypeVar("R")

_READERS = {
    "safetensors": ("pytorch", "read_state_dict"),
    "pytorch": ("pytorch", "read_state_dict"),
    "torchscript": ("torchscript", "read_torchscript"),
    "onnx": ("onnx", "read_onnx"),
    "keras": ("keras", "read_keras"),
    "bioimageio": ("bioimageio", "read_bioimageio"),
}
_NICKNAME = re.compile(r"[a-z]+(-[a-z]+)+(/[\w.]+)?|10\.\d{4,}/\S+")

_ASSUMED = {
    "activation": "The file does not say what turns the answer into probabilities.",
    "normalization": (
        "The file does not say how grey values were scaled: percentiles 1 to 99.8 become 0 to 1."
    ),
    "input_channels": "The file does not say what the channels are.",
    "outputs": "The file does not say what the outputs are.",
    "labels": "The file does not say whether objects or classes are meant.",
}


@dataclass(frozen=True, eq=False)
class Reading:
    """One way to read a file.

    Attributes
    ----------
    title : str
        A few words that tell it from the others; empty where there is only one.
    card : Card
        What the model would be.
    build : callable
        Builds the network with a card and weights of its own; raises ModelError if they do not
        fit.
    of_network : tuple of Assumption
        What the file leaves open of the network.
    reread : callable or None
        Reads the network as a person says, given values by the names of assumptions.
    of_card : mapping of str to str
        What a person has told of the card.
    tellers : mapping of str to str
        Who tells a field of the card, if it is not the file itself.
    """

    title: str
    card: Card
    build: Callable[[Card], Model]
    of_network: tuple[Assumption, ...] = ()
    reread: Callable[[Mapping[str, Any]], Reading] | None = None
    of_card: Mapping[str, Any] = field(default_factory=dict)
    tellers: Mapping[str, str] = field(default_factory=dict)

    @property
    def assumptions(self) -> tuple[Assumption, ...]:
        """What a person may tell of the file: of the network, then of the card."""
        return (*self.of_network, *card_assumptions(self.card, self.tellers))

    def load(self) -> Model:
        """Build the network.

        Returns
        -------
        Model
            With weights of its own.

        Raises
        ------
        ModelError
            If the weights do not fit.
        """
        return self.build(self.card)

    def assume(self, values: Mapping[str, Any]) -> Reading:
        """Read the file as a person says.

        Parameters
        ----------
        values : mapping of str to str or number
            By the names of :attr:`assumptions`: ``{"activation": "elu"}``.

        Returns
        -------
        Reading
            What was told stands in ``card.told`` and no longer in ``card.assumed``.

        Raises
        ------
        ModelError
            If a name or a value is not possible; the sentence says which are.
        """
        if not isinstance(values, Mapping):
            raise ModelError(
                f"What is assumed was given as {described(values)}. Give a dict, e.g. "
                "{'activation': 'elu'}."
            )
        of_network = {name: value for name, value in values.items() if name not in OF_CARD}
        of_card = {**self.of_card, **{n: v for n, v in values.items() if n in OF_CARD}}
        reading = self
        if of_network and self.reread is None:
            check_told(of_network, self.of_network)
        elif of_network and self.reread is not None:
            reading = self.reread(of_network)
        return replace(reading, card=as_told(reading.card, of_card), of_card=of_card)


def open_weights(name_or_path: str | Path) -> list[Model]:
    """Open weights of any format in every way they can be read; no code in them is run.

    Parameters
    ----------
    name_or_path : str or Path
        A name of :func:`napari_unet.models.library.list_models`, a file, a folder, or the
        nickname of a bioimage.io model.

    Returns
    -------
    list of Model
        The likeliest reading first; never empty. What was assumed stands in ``card.assumed``.

    Raises
    ------
    ModelError
        If the file is missing, damaged, no weights, or of a network that is not known.
    """
    return [reading.load() for reading in read_weights(name_or_path)]


def load_model(
    name_or_path: str | Path,
    reading: int | None = None,
    assume: Mapping[str, Any] | None = None,
) -> Model:
    """Load a model of any format; no code in its file is run.

    Parameters
    ----------
    name_or_path : str or Path
        As for :func:`open_weights`; ``weights.pth#2`` is the second reading of a file.
    reading : int, optional
        Which reading, counted from 0; the likeliest, if not given.
    assume : mapping of str to str or number, optional
        What the file does not tell and you know: ``{"activation": "elu", "skip_order":
        "skip-first"}``. ``napari-unet info`` lists what a file leaves open.

    Returns
    -------
    Model
        On the CPU, float32, ready for inference (``net.eval()``).

    Raises
    ------
    ModelError
        If it cannot be opened, has no such reading, or leaves nothing of that name open.
    """
    path, named = find_weights(name_or_path)
    chosen = choose(path, read_weights(path), named if reading is None else reading)
    return chosen.assume(assume or {}).load()


def choose(path: Path, readings: list[Reading], wanted: int) -> Reading:
    """Return one of the readings of a file.

    Parameters
    ----------
    path : Path
        The file, for the sentence.
    readings : list of Reading
        All of them.
    wanted : int
        Counted from 0.

    Returns
    -------
    Reading
        That one.

    Raises
    ------
    ModelError
        If there are not so many.
    """
    if not 0 <= wanted < len(readings):
        advice = f"Give a number from 1 to {len(readings)}, or none for the likeliest."
        raise ModelError(
            f"{path.name} can be read in {len(readings)} "
            f"way{'s' * (len(readings) != 1)}, there is no number {wanted + 1}. "
            f"{advice if len(readings) > 1 else 'Leave the number away.'}"
        )
    return readings[wanted]


def read_weights(name_or_path: str | Path) -> list[Reading]:
    """Tell in which ways weights can be read, without building the networks.

    Parameters
    ----------
    name_or_path : str or Path
        As for :func:`open_weights`.

    Returns
    -------
    list of Reading
        The likeliest first; never empty.

    Raises
    ------
    ModelError
        If it cannot be opened.
    """
    path, _ = find_weights(name_or_path)
    found = sniff(path)
    if not found.opens:
        raise ModelError(refusal(path, found))
    if found is OWN:
        return [_own(path)]
    what = f"{path.name} is {found.text} and"
    readings = _explained(what, "be read", lambda: _reader(found)(path))
    if not readings:
        raise ModelError(f"{path.name} is {found.text}, but no network was found in it.")
    return [_reading(path, found, one, len(readings)) for one in readings]


def find_weights(name_or_path: str | Path) -> tuple[Path, int]:
    """Find weights, and which of their readings is meant; download what has a nickname.

    Parameters
    ----------
    name_or_path : str or Path
        As for :func:`open_weights`.

    Returns
    -------
    path : Path
        The file or folder.
    reading : int
        Counted from 0.

    Raises
    ------
    ModelError
        If there are none, or they cannot be downloaded.
    """
    try:
        return find_reading(name_or_path)
    except ModelError:
        if isinstance(name_or_path, str) and _NICKNAME.fullmatch(name_or_path):
            return _fetched(name_or_path), 0
        raise


def _fetched(nickname: str) -> Path:
    """Download a model of bioimage.io."""
    module = importlib.import_module("napari_unet.models.bioimageio")
    fetch: Callable[[str], Path] = module.fetch
    return _explained(f"The bioimage.io model {nickname}", "be fetched", lambda: fetch(nickname))


def _own(path: Path) -> Reading:
    """Return the one reading of a file of ours."""
    model = load_own(path)
    tellers = dict.fromkeys(Card.model_fields, OUR_CARD)
    return Reading("", model.card, lambda card: Model(model.net, card), tellers=tellers)


def _reader(found: Format) -> Callable[[Path], list[Found]]:
    """Import the reader of a format, only when it is needed."""
    module, function = _READERS[found.kind]
    reader: Callable[[Path], list[Found]] = getattr(
        importlib.import_module(f"napari_unet.models.{module}"), function
    )
    return reader


def _reading(path: Path, origin: Format, found: Found, count: int) -> Reading:
    """Make the card of what a reader has found."""
    card = _explained(
        f"{path.name} is {origin.text} and", "be described", lambda: _card(path, origin, found)
    )

    def build(card: Card) -> Model:
        tensors = {key: tensor.detach().clone() for key, tensor in found.tensors.items()}
        return _explained(
            f"{path.name} is {origin.text} and",
            "be built",
            lambda: assemble(path.name, card, tensors),
        )

    def reread(values: Mapping[str, Any]) -> Reading:
        changed = found.reread(values) if found.reread is not None else found
        return _reading(path, origin, changed, count)

    family = getattr(card.architecture, "family", "U-Net")
    title = found.title or (family if count > 1 else "")
    return Reading(
        title,
        card,
        build,
        found.assumptions,
        found.reread and reread,
        tellers=found.tellers,
    )


def _card(path: Path, origin: Format, found: Found) -> Card:
    """Put together what is known and what is assumed."""
    known = dict(found.card)
    assumed = dict(found.assumed)
    shape = found.architecture
    if isinstance(shape, Graph):
        changed = describe_fit(shape)
        if changed:
            assumed.setdefault("output size", changed)
        shape = at_image_size(shape)
    for name, value in _defaults(shape.in_channels, shape.classes, known).items():
        if name not in known:
            known[name] = value
            assumed.setdefault(name, _sentence(name, value))
    known.setdefault("name", path.name if path.is_dir() else _plain_name(path))
    known.setdefault("source", f"{path.name}, {origin.text}")
    known.setdefault("source_sha256", None if path.is_dir() else checksum(path))
    return checked(Card, {**known, "architecture": shape, "assumed": assumed})


def _defaults(inputs: int, classes: int, known: dict[str, Any]) -> dict[str, Any]:
    """Return what is assumed of a network of which nothing but its shape is known."""
    activation = known.get("activation") or ("sigmoid" if classes == 1 else "softmax")
    outputs = usual_outputs(classes, activation)
    has_foreground = FOREGROUND in tuple(known.get("outputs", outputs))
    channels = {1: ("image",), 3: ("red", "green", "blue")}
    return {
        "normalization": Card.model_fields["normalization"].default,
        "activation": activation,
        "outputs": outputs,
        "labels": "instance" if has_foreground or classes == 1 else "semantic",
        "input_channels": channels.get(
            inputs, tuple(f"channel {number}" for number in range(1, inputs + 1))
        ),
    }


def _sentence(field: str, value: Any) -> str:
    """Say that a field was assumed, and what."""
    if field == "normalization":
        return _ASSUMED[field]
    text = value if isinstance(value, str) else ", ".join(value)
    return f"{_ASSUMED[field]} Assumed: {text}."


def _plain_name(path: Path) -> str:
    """Name a model by its file."""
    return re.sub(r"[_\s]+", " ", path.stem).strip() or "model"


def _explained(what: str, done: str, action: Callable[[], R]) -> R:
    """Call a part that meets what others wrote: whatever is wrong with it becomes a sentence."""
    try:
        return action()
    except ModelError as error:
        name = what.split(" is ", 1)[0]
        if name in str(error):
            raise
        raise ModelError(f"{name}: {error}") from error
    except UnetError as error:
        raise ModelError(f"{what} cannot {done}: {error}") from error
    except MemoryError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        first = next(iter(str(error).splitlines()), "")
        about = f"{type(error).__name__}: {shortened(first)}".removesuffix(": ")
        raise ModelError(
            f"{what} cannot {done} ({about}). It is damaged, or made in a way that is not known "
            "here. Copy or download it again, or ask the sender for a state dict or ONNX file."
        ) from error
