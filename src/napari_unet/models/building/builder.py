"""Turns the operations of somebody's computation graph into a network that is data.

Readers of ONNX, TorchScript and Keras files walk through the operations of a file without
computing one of them, and tell them to a :class:`GraphBuilder`, which notes layers and weights.
Files that belong to one size of image, and files that compute sizes ("pad by half of what the
skip connection is larger"), both become networks of free size: every size is followed for many
sizes of the image at once, the *probes*, and a rule is looked for that fits all of them::

    probe                 0     1     2    ...
    image                512   513   514
    skip connection      512   513   514        the layer's result has the size of the skip
    upsampled            512   512   514   ->   connection for every probe: FitTo(x, skip)
    padded               512   513   514

A probe for which the original could not run either, because sizes do not fit, is dropped.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import ValidationError

from napari_unet.errors import ModelError
from napari_unet.models.building.refusals import unsupported
from napari_unet.models.building.sizes import Sized
from napari_unet.models.found import Found
from napari_unet.network.graph import IMAGE, Activation, Convolution, Dropout, Graph, Linear, Norm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_unet.models.building.features import Feature


class GraphBuilder(Sized):
    """Takes operations one by one and gives the network."""

    def found(
        self, output: Feature, *, family: str, title: str = "", card: dict[str, Any] | None = None
    ) -> Found:
        """Give the network that ends with a layer.

        Parameters
        ----------
        output : Feature
            What the original gives.
        family : str
            Where the network is from.
        title : str
            Tells this reading from others.
        card : dict, optional
            What else is known.

        Returns
        -------
        Found
            A sigmoid or softmax at the end is taken off and stands in the card.

        Raises
        ------
        ModelError
            If the result is no image, or the network has a layer that has no meaning alone.
        """
        if len(output.order) != 2 + self.dims:
            raise ModelError(
                "The network gives numbers for the whole image, not an image. Use a network for "
                "segmentation, which gives a value for each pixel."
            )
        activation, last = self._without_activation(output)
        needed = self._needed(last)
        nodes = tuple(node for name, node in self.nodes.items() if name in needed)
        if not nodes:
            raise ModelError(
                "The network in the file has no layers. Use the file of a trained network."
            )
        try:
            graph = Graph(
                family=family,
                spatial_dims=2 if self.dims == 2 else 3,
                in_channels=self.in_channels,
                classes=last.channels,
                nodes=nodes,
            )
        except ValidationError as error:
            raise ModelError(
                f"The network in the file is no network we can describe: "
                f"{error.errors()[0]['msg']}. Ask for a state dict of the weights instead."
            ) from error
        tensors = {
            f"{node.name}.{key}": tensor
            for node in nodes
            for key, tensor in self.tensors.get(node.name, {}).items()
        }
        for key, tensor in tensors.items():
            if not bool(torch.isfinite(tensor).all()):
                raise ModelError(
                    f"The weights {key} hold values that are not finite numbers, so the network "
                    "cannot give an answer. Use an undamaged copy or an earlier version."
                )
        known: dict[str, Any] = {"activation": activation, **(card or {})}
        return Found(
            architecture=graph,
            tensors=tensors,
            card=known,
            assumed=dict(self.assumed),
            is_activated=activation != "none",
            title=title,
        )

    def readings(self, output: Feature, family: str, title: str = "") -> list[Found]:
        """Give the network that ends with a layer, and how its values may be meant."""
        plain = self.found(output, family=family, title=title)
        last = plain.architecture.nodes[-1] if isinstance(plain.architecture, Graph) else None
        if plain.card["activation"] != "none" or not isinstance(last, Convolution | Linear | Norm):
            return [plain]
        other = "sigmoid" if plain.architecture.classes == 1 else "softmax"
        sentence = (
            f"The network ends without sigmoid or softmax, as most are saved: a {other} is added. "
            "If it gives values from 0 to 1 by itself, choose the reading with values as they are."
        )
        made = replace(
            plain,
            card={**plain.card, "activation": other},
            assumed={**plain.assumed, "activation": sentence},
            title=", ".join(filter(None, (title, f"with a {other}"))),
        )
        sentence = "The network ends without sigmoid or softmax: its values are taken as they are."
        as_it_is = replace(
            plain,
            assumed={**plain.assumed, "activation": sentence},
            title=", ".join(filter(None, (title, "values as they are"))),
        )
        return [made, as_it_is]

    def rank(self, output: Feature) -> tuple[int, int]:
        """Say what puts the result of a network before its other ones.

        Parameters
        ----------
        output : Feature
            What the original gives.

        Returns
        -------
        tuple of int
            Pixels, and layers that lead to it.

        Raises
        ------
        ModelError
            If it depends on a layer that has no meaning alone.
        """
        probe = int(np.flatnonzero(self.alive)[0])
        return int(output.sizes[probe].prod()), len(self._needed(output))

    def _without_activation(self, output: Feature) -> tuple[str, Feature]:
        """Take a sigmoid or softmax off the end."""
        node = self.nodes.get(output.node)
        while isinstance(node, Dropout):
            output = self.features[node.inputs[0]]
            node = self.nodes.get(output.node)
        if isinstance(node, Activation) and node.kind in {"sigmoid", "softmax"}:
            source = self.features[node.inputs[0]]
            if source.node in self.nodes:
                return node.kind, source
        return "none", output

    def _needed(self, last: Feature) -> set[str]:
        """Collect the layers that a result depends on."""
        needed: set[str] = set()
        waiting = [last.node]
        while waiting:
            name = waiting.pop()
            if name in needed or name == IMAGE:
                continue
            if name in self._errors_of_gelu:
                raise unsupported("Erf")
            if name in self._half_cropped:
                raise self._half_cropped[name][-1]
            if name in self._ends and name != last.node:
                raise unsupported(self._ends[name])
            needed.add(name)
            waiting.extend(self.nodes[name].inputs)
        return needed


def all_found(
    builder: GraphBuilder, images: Sequence[tuple[str, Feature]], family: str
) -> list[Found]:
    """Give a network for each result that is an image.

    Parameters
    ----------
    builder : GraphBuilder
        Knows the layers.
    images : sequence of tuple of str and Feature
        Each result, with words that tell it from the others.
    family : str
        Where the network is from.

    Returns
    -------
    list of Found
        Of several results, as a network has that was trained with deep supervision, the largest
        comes first, and of those of one size the one that most layers lead to.

    Raises
    ------
    ModelError
        If no result is an image.
    """
    found: list[tuple[tuple[int, int], list[Found]]] = []
    refused: ModelError | None = None
    for title, feature in images:
        name = title if len(images) > 1 else ""
        try:
            found.append((builder.rank(feature), builder.readings(feature, family, name)))
        except ModelError as error:
            refused = refused or error
    if not found:
        raise refused or unsupported("a result that is no image")
    found.sort(key=lambda each: each[0], reverse=True)
    readings = [reading for _, group in found for reading in group]
    if len(found) > 1:
        for reading in readings:
            reading.assumed.setdefault(
                "output",
                f"The network gives {len(found)} images. The largest one, and of those of one size "
                "the one that most layers lead to, is read first.",
            )
    return readings
