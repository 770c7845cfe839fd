"""Training crops changed at random, image, targets and weights always in register.

Few corrections teach more if they are seen turned, bent and lit differently. The bending is the
paper's [1]_: random displacements on a coarse 3 x 3 grid, bicubic in between, so that tissue is
deformed smoothly. It runs on the whole batch at once, on the device where the batch is.
Whatever comes from outside the crop is unknown and gets weight 0::

    o . . . o . . . o        o: displacement drawn from N(0, elastic_px^2), in pixels
    .       .       .        .: bicubic between them
    o . . . o . . . o        then each pixel looks up where it comes from

References
----------
.. [1] Ronneberger, Fischer, Brox (2015), U-Net, section 3.1, doi:10.1007/978-3-319-24574-4_28.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Generator, Tensor

    Batch = tuple[Tensor, Tensor, Tensor]

GRID_NODES = 3  # per axis, as in the paper


def augment_batch(
    images: Tensor,
    targets: Tensor,
    weights: Tensor,
    *,
    flips: bool = True,
    elastic_px: float = 10.0,
    grey_values: float = 0.2,
    scale: tuple[float, float] = (1.0, 1.0),
    rotation_degrees: float = 0.0,
    generator: Generator | None = None,
) -> Batch:
    """Change a batch of crops at random; with everything off it comes back as it is.

    Parameters
    ----------
    images : Tensor of float, shape (N, C, H, W)
        Normalised grey values.
    targets : Tensor of float, shape (N, K, H, W)
        What the network should give.
    weights : Tensor of float, shape (N, 1, H, W)
        How much each pixel counts, 0 where nothing is known.
    flips : bool
        Mirror each crop, and turn it by quarters (halves if it is not square).
    elastic_px : float
        Standard deviation of the displacements of the 3 x 3 grid, in pixels; 0 is off.
    grey_values : float
        Strength of the change of contrast, brightness and gamma, 0..1; 0 is off.
    scale : tuple of float
        Smallest and largest magnification, drawn evenly on a logarithmic scale.
    rotation_degrees : float
        Largest free turn to either side, in degrees; 0 is off.
    generator : torch.Generator, optional
        Source of the random numbers, on the CPU; the same seed gives the same crops on any
        device.

    Returns
    -------
    tuple of Tensor
        Images, targets and weights, of the shapes given.
    """
    if flips:
        images, targets, weights = _flip_and_turn(images, targets, weights, generator)
    if elastic_px > 0 or scale != (1.0, 1.0) or rotation_degrees > 0:
        size = (images.shape[-2], images.shape[-1])
        grid = _turned_grid(len(images), size, scale, rotation_degrees, generator)
        grid = grid + draw_displacement(len(images), size, elastic_px, generator)
        images, targets, weights = deform(images, targets, weights, grid.to(images.device))
    if grey_values > 0:
        images = change_grey_values(images, grey_values, generator)
    return images, targets, weights


def draw_displacement(
    count: int, size: tuple[int, int], elastic_px: float, generator: Generator | None = None
) -> Tensor:
    """Draw smooth random displacement fields.

    Parameters
    ----------
    count : int
        How many fields.
    size : tuple of int
        Height and width in pixels.
    elastic_px : float
        Standard deviation at the nodes of the grid, in pixels.
    generator : torch.Generator, optional
        Source of the random numbers, on the CPU.

    Returns
    -------
    Tensor of float32, shape (count, H, W, 2)
        Displacement along Y and X of each pixel, in pixels.
    """
    nodes = torch.randn((count, 2, GRID_NODES, GRID_NODES), generator=generator) * elastic_px
    field = functional.interpolate(nodes, size=size, mode="bicubic", align_corners=True)
    return field.permute(0, 2, 3, 1)


def deform(images: Tensor, targets: Tensor, weights: Tensor, grid: Tensor) -> Batch:
    """Look every pixel up where the grid says it comes from.

    Parameters
    ----------
    images, targets, weights : Tensor
        See :func:`augment_batch`.
    grid : Tensor of float, shape (N, H, W, 2)
        Position (Y, X) in the crop that each pixel comes from, in pixels.

    Returns
    -------
    tuple of Tensor
        Images interpolated linearly and mirrored outside; targets and weights of the nearest
        pixel, the weights 0 outside.
    """
    size = torch.tensor(images.shape[-2:], device=grid.device)
    relative = (2 * grid / (size - 1).clamp_min(1) - 1).flip(-1)  # torch wants (x, y) in -1..1
    return (
        _sample(images, relative, "bilinear", "reflection"),
        _sample(targets, relative, "nearest", "border"),
        _sample(weights, relative, "nearest", "zeros"),
    )


def change_grey_values(
    images: Tensor, strength: float, generator: Generator | None = None
) -> Tensor:
    """Change contrast, brightness and gamma of each channel of each crop.

    Contrast is scaled about the channel's mean by up to ``exp(strength)`` either way, brightness
    moved by up to a quarter of the strength, and the values between the channel's extremes are
    bent by a gamma of up to ``exp(strength)`` either way.

    Parameters
    ----------
    images : Tensor of float, shape (N, C, H, W)
        Normalised grey values.
    strength : float
        0..1; 0 changes nothing.
    generator : torch.Generator, optional
        Source of the random numbers, on the CPU.

    Returns
    -------
    Tensor of float, shape (N, C, H, W)
        The changed grey values.
    """
    shape = (*images.shape[:2], 1, 1)
    contrast, gamma, brightness = (
        _evenly(shape, -strength, strength, generator).to(images.device) for _ in range(3)
    )
    low, high = images.amin((-2, -1), keepdim=True), images.amax((-2, -1), keepdim=True)
    extent = (high - low).clamp_min(1e-6)
    bent = ((images - low) / extent).clamp(0, 1) ** gamma.exp() * extent + low
    mean = bent.mean((-2, -1), keepdim=True)
    return (bent - mean) * contrast.exp() + mean + brightness / 4


def _flip_and_turn(
    images: Tensor, targets: Tensor, weights: Tensor, generator: Generator | None
) -> Batch:
    """Mirror and turn each crop by quarters, exactly (no interpolation)."""
    square = images.shape[-1] == images.shape[-2]
    quarters = torch.randint(4 if square else 2, (len(images),), generator=generator)
    quarters = quarters if square else 2 * quarters
    mirrors = torch.randint(2, (len(images),), generator=generator)
    moves = list(zip(quarters.tolist(), mirrors.tolist(), strict=True))
    return (
        torch.stack([_moved(crop, *move) for crop, move in zip(images, moves, strict=True)]),
        torch.stack([_moved(crop, *move) for crop, move in zip(targets, moves, strict=True)]),
        torch.stack([_moved(crop, *move) for crop, move in zip(weights, moves, strict=True)]),
    )


def _moved(crop: Tensor, quarters: int, mirror: int) -> Tensor:
    """Turn one crop by quarters, then mirror it or not."""
    turned = torch.rot90(crop, quarters, dims=(-2, -1))
    return turned.flip(-1) if mirror else turned


def _turned_grid(
    count: int,
    size: tuple[int, int],
    scale: tuple[float, float],
    rotation_degrees: float,
    generator: Generator | None,
) -> Tensor:
    """Positions (Y, X) that the pixels of turned and magnified crops come from."""
    widest = math.radians(rotation_degrees)
    angle = _evenly((count,), -widest, widest, generator)
    zoom = _evenly((count,), math.log(scale[0]), math.log(scale[1]), generator).exp()
    cosine, sine = angle.cos() / zoom, angle.sin() / zoom
    matrix = torch.stack([cosine, -sine, sine, cosine], dim=-1).view(-1, 1, 2, 2)
    centre = (torch.tensor(size) - 1) / 2
    axes = [torch.arange(length, dtype=torch.float32) for length in size]
    offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1) - centre
    turned = (matrix @ offsets.view(1, -1, 2, 1)).view(count, *size, 2)
    return turned + centre


def _sample(values: Tensor, relative: Tensor, mode: str, padding: str) -> Tensor:
    """Sample a batch at relative positions whose corners are pixel centres."""
    return functional.grid_sample(
        values, relative.to(values.dtype), mode=mode, padding_mode=padding, align_corners=True
    )


def _evenly(shape: tuple[int, ...], low: float, high: float, generator: Generator | None) -> Tensor:
    """Random numbers spread evenly between two values."""
    return torch.rand(shape, generator=generator) * (high - low) + low
