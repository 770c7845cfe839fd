from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_unet.errors import ModelError
from napari_unet.models.building.builder import GraphBuilder, all_found
from napari_unet.models.building.features import Feature, probe_sizes
from napari_unet.network.graph import Graph, Pad
from napari_unet.network.graph_net import GraphNet

SAME = ((1, 1), (1, 1))


def builder() -> GraphBuilder:
    return GraphBuilder(2, 1, probe_sizes(2))


def convolved(at: GraphBuilder, x: Feature, **options) -> Feature:
    return at.convolution(x, torch.ones(1, x.channels, 3, 3), None, **options)


def test_a_pixel_that_is_cut_at_different_ends_is_cut_always():
    at = builder()
    wide = at.pad_by(convolved(at, at.image, padding=SAME), (1, 0), (0, 1))
    node = at.nodes[at.pad_by(wide, (0, -1), (-1, 0)).node]
    assert isinstance(node, Pad)
    assert node.sides == ((0, -1), (-1, 0))


def test_layers_of_different_sizes_are_not_joined():
    at = builder()
    x = convolved(at, at.image)
    with pytest.raises(ModelError, match="different sizes"):
        at.join("add", [x, convolved(at, x)])


def test_a_factor_and_its_opposite_leave_nothing():
    at = builder()
    x = convolved(at, at.image)
    assert at.linear(at.linear(x, 4.0, 2.0), 0.25, -0.5).node == x.node


def test_of_several_results_the_one_that_most_layers_lead_to_comes_first():
    at = builder()
    first = convolved(at, at.image, padding=SAME, name="first")
    last = convolved(at, first, padding=SAME, name="last")
    found = all_found(at, [("output 1", first), ("output 2", last)], "test")
    assert "output 2" in found[0].title
    assert "gives 2 images" in found[0].assumed["output"]


def test_a_layer_norm_keeps_tiles_exact():
    at = builder()
    kernel = torch.arange(1.0, 5.0).reshape(4, 1, 1, 1)
    normed = at.norm(at.convolution(at.image, kernel, None), "layer")
    weights = torch.arange(4.0).reshape(1, 4, 1, 1)
    found = at.found(at.convolution(normed, weights, None), family="test")
    assert isinstance(found.architecture, Graph)
    net = GraphNet(found.architecture)
    net.load_state_dict(found.tensors)
    assert net.exact
    x = torch.rand(1, 1, 8, 8)
    wide = torch.nn.functional.layer_norm((x * kernel.reshape(1, 4, 1, 1)).movedim(1, -1), (4,))
    expected = (wide.movedim(-1, 1) * weights).sum(1, keepdim=True)
    torch.testing.assert_close(net(x), expected)


def test_a_graph_of_too_many_axes_is_refused():
    with pytest.raises(ModelError, match="spatial axes"):
        GraphBuilder(4, 1, np.ones((1, 4), np.int64))
