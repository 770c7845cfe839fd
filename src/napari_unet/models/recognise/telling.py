"""What a person may tell of the networks of libraries: their graphs are changed node by node.

The recognisers of libraries know how layers are wired and take the library's defaults for what
leaves no tensors. Where somebody chose otherwise, the wiring stays and some nodes differ.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari_unet.errors import ModelError
from napari_unet.models.assumptions import YOU, Assumption, check_told, with_told
from napari_unet.models.recognise.question import whole_number
from napari_unet.models.recognise.questions import QUESTIONS
from napari_unet.models.recognise.questions_layers import SLOPED
from napari_unet.models.recognise.reader import dividing, usual_slope
from napari_unet.network.graph import Activation, Graph, Norm, Pooling, Resize

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from napari_unet.models.found import Found
    from napari_unet.network.graph import AnyNode

_POINTS = {
    question.name: question
    for question in QUESTIONS
    if question.name in ("activation", "slope", "norm", "groups", "upsampling", "pooling", "eps")
}
_NOT_OF_LAYERS = ("prelu", "sigmoid", "softmax")


def tellable(found: Found, told: Mapping[str, str] | None = None) -> Found:
    """Let a person tell what the recogniser of a library takes for granted.

    Parameters
    ----------
    found : Found
        A network as a graph; what its recogniser itself can be told is kept.
    told : mapping of str to str, optional
        What was told already, of the nodes.

    Returns
    -------
    Found
        With these changes, and with all that may be told.

    Raises
    ------
    ModelError
        If what was told is not possible.
    """
    if not isinstance(found.architecture, Graph):
        return found
    graph, sentences = found.architecture, dict[str, str]()
    inner = {one.name for one in found.assumptions}
    points = {name: point for name, point in _POINTS.items() if name not in inner}
    left = dict(told or {})
    for name, question in points.items():
        if name in left and _value(graph, name) is not None:
            value = check_told({name: left.pop(name)}, [_asked(graph, name)])[name]
            graph = _changed(graph, name, value)
            answer = question.answers.get(value)
            sentences[question.topic] = (
                answer.sentence if answer else question.sentence.format(value)
            )
    of_nodes = [_asked(graph, name) for name in points if _value(graph, name) is not None]
    assumptions = (*found.assumptions, *with_told(of_nodes, told or (), YOU))
    check_told(left, assumptions)

    def reread(values: Mapping[str, str]) -> Found:
        """Read it as a person says."""
        mine = {name: value for name, value in values.items() if name not in inner}
        rest = {name: value for name, value in values.items() if name in inner}
        base = found.reread(rest) if rest and found.reread is not None else found
        return tellable(base, {**(told or {}), **mine})

    known = {**found.card.get("told", {}), **sentences}
    return replace(
        found,
        architecture=graph,
        card={**found.card, "told": known},
        assumed={topic: why for topic, why in found.assumed.items() if topic not in known},
        tellers=dict.fromkeys(found.card, graph.family),
        assumptions=assumptions,
        reread=reread,
    )


def _asked(graph: Graph, name: str) -> Assumption:
    """Put a question on a graph to a person."""
    question, value = _POINTS[name], _value(graph, name) or ""
    choices = {choice: answer.words for choice, answer in question.answers.items()}
    if question.number:
        choices = dict.fromkeys(dict.fromkeys((value, *question.suggested)), "")
    return Assumption(
        name=name,
        topic=question.topic,
        value=value,
        choices=choices,
        form="number" if question.number else "choice",
        told_by=graph.family,
    )


def _value(graph: Graph, name: str) -> str | None:
    """Say how a graph answers a question; None where it makes no difference."""
    nodes = _nodes(graph, name)
    if not nodes:
        return None
    first = nodes[0]
    if name == "activation":
        return str(Counter(node.kind for node in nodes).most_common(1)[0][0])
    if name == "groups":
        return str(max(node.groups for node in nodes))
    if name == "upsampling":
        return f"{first.mode}-aligned" if first.align_corners else str(first.mode)
    if name in ("slope", "eps"):
        return f"{getattr(first, name):g}"
    return str(first.kind)


def _nodes(graph: Graph, name: str) -> list[Any]:
    """Return the nodes that a question is about."""
    picked: dict[str, Callable[[Any], bool]] = {
        "activation": _is_of_layers,
        "slope": lambda node: _is_of_layers(node) and node.kind in SLOPED,
        "norm": _is_open_norm,
        "groups": lambda node: _is_open_norm(node) and node.kind == "group",
        "upsampling": lambda node: isinstance(node, Resize),
        "pooling": lambda node: isinstance(node, Pooling) and node.kernel == node.stride,
        "eps": lambda node: isinstance(node, Norm),
    }
    return [node for node in graph.nodes if picked[name](node)]


def _is_of_layers(node: AnyNode) -> bool:
    """Say whether a node is the activation of a layer, and not of a gate."""
    return isinstance(node, Activation) and node.kind not in _NOT_OF_LAYERS


def _is_open_norm(node: AnyNode) -> bool:
    """Say whether a norm may be instance norm or group norm."""
    return isinstance(node, Norm) and node.kind != "batch" and node.affine


def _changed(graph: Graph, name: str, value: str) -> Graph:
    """Return the graph with all nodes that a question is about as it is answered."""
    mine = {node.name for node in _nodes(graph, name)}
    return graph.replace(
        nodes=tuple(
            node.replace(**_changes(node, name, value)) if node.name in mine else node
            for node in graph.nodes
        )
    )


def _changes(node: Any, name: str, value: str) -> dict[str, Any]:
    """Return what differs of a node."""
    if name == "activation":
        return {"kind": value, "slope": usual_slope(value, None)}
    if name in ("slope", "eps"):
        return {name: float(value)}
    if name == "norm":
        is_group = value == "group"
        return {"kind": value, "groups": dividing(node.channels, 8) if is_group else 1}
    if name == "groups":
        return {"groups": dividing(node.channels, whole_number(name, value))}
    if name == "upsampling":
        mode, _, aligned = value.partition("-")
        return {"mode": mode, "align_corners": bool(aligned)}
    if value == "strided":
        raise ModelError("pooling=strided is not possible for this network. Choose max or average.")
    return {"kind": value}
