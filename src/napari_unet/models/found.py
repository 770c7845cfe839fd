"""What a reader of weights hands over: a network, its tensors, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

    from napari_unet.models.assumptions import Assumption
    from napari_unet.network.graph import Graph
    from napari_unet.settings import Architecture


@dataclass(frozen=True, eq=False)
class Found:
    """A network that was found in a file, and what is known of it.

    Attributes
    ----------
    architecture : Architecture or Graph
        The network that the tensors belong to.
    tensors : dict of str to Tensor
        The state dict of the network once it is built: on the CPU, float32 (or as stored).
    card : dict
        Fields of the card that the file tells, the architecture excepted: e.g. ``activation``,
        ``normalization``, ``outputs``, ``name``.
    assumed : dict of str to str
        What the file does not tell: a field of the card or a short name, e.g. ``skip order``,
        and a sentence that says what was assumed and why.
    tellers : dict of str to str
        Who tells a field of the card, if it is not the file itself: e.g. the family of the network.
    is_activated : bool
        Whether the network in the file ends with the activation of the card, so that the file gives
        probabilities, whatever was assumed when it was written.
    title : str
        A few words that tell this reading from the others of the same file, e.g.
        ``upsampled channels first``.
    assumptions : tuple of Assumption
        What is open of the network, as it is read here.
    reread : callable or None
        Reads the network as a person says, given the values of assumptions by their names, and
        refuses names and values that are not possible; None where the file tells all.
    """

    architecture: Architecture | Graph
    tensors: dict[str, torch.Tensor]
    card: dict[str, Any] = field(default_factory=dict)
    assumed: dict[str, str] = field(default_factory=dict)
    tellers: dict[str, str] = field(default_factory=dict)
    is_activated: bool = False
    title: str = ""
    assumptions: tuple[Assumption, ...] = ()
    reread: Callable[[Mapping[str, str]], Found] | None = field(default=None, repr=False)
