"""Compare a network that was recognised with the one whose weights were read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from napari_unet.errors import ModelError
from napari_unet.network.graph_net import GraphNet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_unet.models.found import Found
    from napari_unet.models.recognise.layers import Layers

TOLERANCE = 1e-9
"""In float64, relative to the largest value: what is wired otherwise differs far more."""


def shaken(net: nn.Module, seed: int) -> nn.Module:
    """Give a network weights and statistics of which each counts, in float64."""
    generator = torch.Generator().manual_seed(seed)
    net = net.double().eval()
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if not tensor.is_floating_point():
                continue
            if tensor.ndim > 1:
                share = tensor[0].numel() ** -0.5
                drawn = 1.5 * share * torch.randn(tensor.shape, generator=generator)
            elif name.endswith("weight") or name.endswith("running_var"):
                drawn = 0.5 + torch.rand(tensor.shape, generator=generator)
            else:
                drawn = 0.3 * torch.randn(tensor.shape, generator=generator)
            tensor.copy_(drawn)
    return net


def built(found: Found) -> nn.Module:
    """Build what was recognised, with all of its tensors and no other."""
    dtype = next(tensor.dtype for tensor in found.tensors.values() if tensor.is_floating_point())
    with torch.device("meta"):
        net = GraphNet(found.architecture).to(dtype)
    net.load_state_dict(found.tensors, strict=True, assign=True)
    return net.eval()


def difference(found: Found, net: nn.Module, image: torch.Tensor) -> float:
    """Largest difference between what was recognised and the original, per largest value."""
    with torch.no_grad():
        expected, ours = net(image), built(found)(image)
    if ours.shape != expected.shape:
        return float("inf")
    scale = float(expected.abs().max())
    assert float(expected.std()) > 1e-3 * scale > 0, "the original gives the same everywhere"
    return float((ours - expected).abs().max()) / scale


def is_same(found: Found, net: nn.Module, image: torch.Tensor) -> bool:
    """Say whether what was recognised computes what the original does."""
    return difference(found, net, image) < TOLERANCE


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return an image of noise with a shade, float64."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(shape, generator=generator, dtype=torch.float64)
    return image + torch.linspace(-1, 1, shape[-1], dtype=torch.float64)


def is_refused(recogniser: Callable[[Layers], list[Found] | None], layers: Layers) -> bool:
    """Say whether tensors are refused, in a sentence, or left to other recognisers."""
    try:
        return recogniser(layers) is None
    except ModelError as error:
        return ". " in str(error)


def mutilated(
    state: dict[str, torch.Tensor],
) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """Give a state dict again and again, each time with one tensor gone, changed or added."""
    first = next(iter(state))  # takes images of any number of channels
    for key, tensor in state.items():
        if key.endswith("num_batches_tracked"):
            continue
        yield f"{key} gone", {other: state[other] for other in state if other != key}
        shapes = [(), (0,), (*tensor.shape, 2), tuple(tensor.shape[1:])]
        shapes += [
            tuple(size + (place == axis) for place, size in enumerate(tensor.shape))
            for axis in range(min(tensor.ndim, 2))
        ]
        for shape in shapes:
            is_another_image = key == first and shape[:1] + shape[2:] == (
                tensor.shape[:1] + tensor.shape[2:]
            )
            if shape != tuple(tensor.shape) and not is_another_image:
                yield f"{key} {shape}", {**state, key: torch.zeros(shape)}
    yield "added", {**state, "something.else.weight": torch.zeros(3, 3)}
