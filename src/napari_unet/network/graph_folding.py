"""Make a graph cheaper without changing what it computes.

What :mod:`napari_unet.network.folding` does to our own U-Net is done here to a list of nodes: a
network that only computes has no dropout, and its convolutions apply the batch norm that follows
them. Features that are resized to the size of others are resized by a factor instead, so that
the others need not be kept for that.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, TypeGuard

import torch

from napari_unet.network import graph as g
from napari_unet.network.folding import folded_weights
from napari_unet.network.graph_net import GraphNet
from napari_unet.network.graph_rules import rates_along

if TYPE_CHECKING:
    from torch import Tensor

    from napari_unet.network.graph import AnyNode, Graph

Convolving = g.Convolution | g.TransposedConvolution


def folded_graph_net(net: GraphNet) -> GraphNet:
    """Copy a network for inference.

    Parameters
    ----------
    net : GraphNet
        Left as it is.

    Returns
    -------
    GraphNet
        The copy, in evaluation, without gradients; its graph is another one.
    """
    graph = _without_dropout(net.architecture)
    if net.exact:
        graph = _resized_by_factors(graph)
    tensors = {key: tensor.detach() for key, tensor in net.state_dict().items()}
    readers = count_readers(graph)
    nodes: dict[str, AnyNode] = {}
    renamed: dict[str, str] = {}
    for node in graph.nodes:
        node = _renamed(node, renamed)
        before = nodes.get(node.inputs[0])
        if isinstance(node, g.Norm) and _can_fold(before, node) and readers[before.name] == 1:
            tensors |= _folded(before, node, tensors)
            nodes[before.name] = before.replace(bias=True)
            renamed[node.name] = before.name
        else:
            nodes[node.name] = node
    with torch.device("meta"):
        twin = GraphNet(graph.replace(nodes=tuple(nodes.values())))
    weights = {key: tensors[key].clone() for key in twin.state_dict()}
    twin.load_state_dict(weights, assign=True)
    return twin.eval().requires_grad_(False)


def count_readers(graph: Graph) -> Counter[str]:
    """Count how often each node is read; the last one is read by whoever wants the answer."""
    return Counter([*(name for node in graph.nodes for name in node.inputs), graph.nodes[-1].name])


def _without_dropout(graph: Graph) -> Graph:
    """Leave out what does something in training only."""
    nodes: list[AnyNode] = []
    renamed: dict[str, str] = {}
    for node in graph.nodes:
        node = _renamed(node, renamed)
        if isinstance(node, g.Dropout) and node.name != graph.nodes[-1].name:
            renamed[node.name] = node.inputs[0]
        else:
            nodes.append(node)
    return graph.replace(nodes=tuple(nodes))


def _resized_by_factors(graph: Graph) -> Graph:
    """Resize by factors where so far the size of other features was the aim."""
    axes = [rates_along(graph, axis) for axis in range(graph.spatial_dims)]

    def by_factors(node: AnyNode) -> AnyNode:
        """Replace the second input."""
        if not isinstance(node, g.Resize) or len(node.inputs) == 1:
            return node
        scale = tuple(float(rates[node.name] / rates[node.inputs[0]]) for rates in axes)
        return node.replace(inputs=node.inputs[:1], scale=scale)

    return graph.replace(nodes=tuple(by_factors(node) for node in graph.nodes))


def _renamed(node: AnyNode, renamed: dict[str, str]) -> AnyNode:
    """Let a node read what stands in the place of what it read."""
    return node.replace(inputs=tuple(renamed.get(name, name) for name in node.inputs))


def _can_fold(before: AnyNode | None, norm: g.Norm) -> TypeGuard[Convolving]:
    """Say whether a convolution can apply the norm that follows it."""
    if norm.kind != "batch":
        return False
    # The channels of a grouped transposed convolution are laid out group by group.
    is_spreading = isinstance(before, g.TransposedConvolution) and before.groups == 1
    return isinstance(before, g.Convolution) or is_spreading


def _folded(before: Convolving, norm: g.Norm, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Compute the weights of a convolution that applies a norm."""
    measured = ("running_mean", "running_var", "weight", "bias")
    weight, bias = folded_weights(
        tensors[f"{before.name}.weight"],
        tensors.get(f"{before.name}.bias"),
        {name: tensors.get(f"{norm.name}.{name}") for name in measured},
        norm.eps,
        isinstance(before, g.TransposedConvolution),
    )
    return {f"{before.name}.weight": weight, f"{before.name}.bias": bias}
