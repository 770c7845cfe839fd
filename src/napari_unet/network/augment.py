"""Training crops changed at random, image, targets and weights always in register.

Few corrections teach more if they are seen turned, bent and lit differently. The bending is the
paper's [1]_: random displacements on a coarse 3 x 3 grid, bicubic in between, so that tissue is
deformed smoothly. Chance draws a few numbers for each crop, on the CPU; all that is as large as
the crops is computed for the whole batch at once, on the device where the batch is.
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
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from typing import Self

    from torch import Generator, Tensor

    Batch = tuple[Tensor, Tensor, Tensor]

GRID_NODES = 3  # per axis, as in the paper
DIMMEST = 0.25  # of the grey values that a crop has


@dataclass(frozen=True, eq=False)
class Changes:
    """What chance has in store for a batch of N crops; None where nothing is to change."""

    mirrors: Tensor | None
    """bool, shape (N, 3): mirrored along Y, along X, Y and X swapped; if nothing else moves."""
    matrix: Tensor | None
    """float32, shape (N, 2, 2): where a pixel comes from, (Y, X) about the middle of the crop."""
    nodes: Tensor | None
    """float32, shape (N, 2, 3, 3): displacement (Y, X) of the nodes of the grid, in pixels."""
    grey: Tensor | None
    """float32, shape (3, N, C, 1, 1): logarithms of contrast and gamma, and brightness."""
    light: Tensor | None
    """float32, shape (N, 1, 1, 1): what the grey values of each crop are multiplied with."""

    def part(self, crops: slice) -> Self:
        """Return what is meant for some of the crops.

        Parameters
        ----------
        crops : slice
            Which.

        Returns
        -------
        Changes
            Of these alone.
        """
        every = {field.name: getattr(self, field.name) for field in fields(self)}
        grey = every.pop("grey")
        cut = {name: values if values is None else values[crops] for name, values in every.items()}
        return type(self)(**cut, grey=grey if grey is None else grey[:, crops])

    def apply(self, images: Tensor, targets: Tensor, weights: Tensor) -> Batch:
        """Change a batch of crops, on the device where it is.

        Parameters
        ----------
        images : Tensor of float, shape (N, C, H, W)
            Normalised grey values.
        targets : Tensor of float, shape (N, K, H, W)
            What the network should give.
        weights : Tensor of float, shape (N, 1, H, W)
            How much each pixel counts, 0 where nothing is known.

        Returns
        -------
        tuple of Tensor
            Images, targets and weights, of the shapes given.
        """
        device = images.device
        if self.mirrors is not None:
            mirrors = self.mirrors.to(device)
            images, targets, weights = (
                _mirrored(values, mirrors) for values in (images, targets, weights)
            )
        origins = self.origins((images.shape[-2], images.shape[-1]), device)
        if origins is not None:
            images, targets, weights = look_up(images, targets, weights, origins)
        if self.grey is not None:
            images = _relit(images, *self.grey.to(device))
        if self.light is not None:
            images = images * self.light.to(images)
        return images, targets, weights

    def origins(self, size: tuple[int, int], device: torch.device | None = None) -> Tensor | None:
        """Compute where in its crop each pixel comes from.

        Parameters
        ----------
        size : tuple of int
            Height and width of the crops in pixels.
        device : torch.device, optional
            Where to compute; the CPU if not given.

        Returns
        -------
        Tensor of float32, shape (N, H, W, 2), or None
            Position (X, Y), from -1, the middle of the first pixel, to 1, that of the last; None
            if each stays where it is.
        """
        if self.matrix is None:
            return None
        terms = torch.zeros((len(self.matrix), 2, GRID_NODES + 2, GRID_NODES + 2))
        if self.nodes is not None:
            terms[:, :, :GRID_NODES, :GRID_NODES] = self.nodes
        terms[:, :, -2, -1] = self.matrix[:, :, 0]
        terms[:, :, -1, -2] = self.matrix[:, :, 1]
        terms *= (2 / (torch.tensor(size) - 1).clamp_min(1)).view(2, 1, 1)  # pixels to -1..1
        return _summed_up(terms.flip(1).to(device), size)


def draw_changes(
    count: int,
    channels: int,
    size: tuple[int, int],
    *,
    flips: bool = True,
    elastic_px: float = 10.0,
    grey_values: float = 0.2,
    dimmed: float = 0.0,
    scale: tuple[float, float] = (1.0, 1.0),
    rotation_degrees: float = 0.0,
    share: float = 1.0,
    generator: Generator | None = None,
) -> Changes:
    """Draw what is to change in a batch of crops.

    Parameters
    ----------
    count : int
        Crops.
    channels : int
        Channels of an image.
    size : tuple of int
        Height and width of a crop in pixels.
    flips : bool
        Mirror each crop, and turn it by quarters (halves if it is not square).
    elastic_px : float
        Standard deviation of the displacements of the 3 x 3 grid, in pixels; 0 is off.
    grey_values : float
        Strength of the change of contrast, brightness and gamma, 0..1; 0 is off.
    dimmed : float
        Share of the crops whose grey values are brought nearer to 0, all channels alike, down to a
        quarter; drawn evenly on a logarithmic scale. 0..1; 0 is off.
    scale : tuple of float
        Smallest and largest magnification, drawn evenly on a logarithmic scale.
    rotation_degrees : float
        Largest free turn to either side, in degrees; 0 is off.
    share : float
        Of the crops to which all but flips and dimming is done, 0..1. To look a pixel up between
        others blurs it a little, and an image in use is not blurred: the other crops stay as sharp.
    generator : torch.Generator, optional
        Source of the random numbers, on the CPU; the same seed gives the same crops on any
        device.

    Returns
    -------
    Changes
        To be applied to crops of this size.
    """
    mirrors = matrix = nodes = grey = light = None
    if flips:
        mirrors = torch.rand((count, 3), generator=generator) < 0.5
        mirrors[:, 2] &= size[0] == size[1]
    drawn = torch.ones(count)
    if share < 1:
        drawn = (torch.rand(count, generator=generator) < share).float()
    if elastic_px > 0 or scale != (1.0, 1.0) or rotation_degrees > 0:
        widest = math.radians(rotation_degrees)
        angle = drawn * _evenly((count,), -widest, widest, generator)
        zoom = _evenly((count,), math.log(scale[0]), math.log(scale[1]), generator)
        zoom = (drawn * zoom).exp()
        cosine, sine = angle.cos() / zoom, angle.sin() / zoom
        matrix = torch.stack([cosine, -sine, sine, cosine], dim=-1).view(count, 2, 2)
        if mirrors is not None:  # all moves at once
            matrix, mirrors = matrix @ _matrices(mirrors), None
    if elastic_px > 0:
        nodes = torch.randn((count, 2, GRID_NODES, GRID_NODES), generator=generator)
        nodes *= elastic_px * drawn.view(-1, 1, 1, 1)
    if grey_values > 0:
        grey = _draw_grey(count, channels, grey_values, generator)
        grey *= drawn.view(-1, 1, 1, 1)
    if dimmed > 0:
        is_dimmed = torch.rand(count, generator=generator) < dimmed
        light = (_evenly((count,), math.log(DIMMEST), 0.0, generator) * is_dimmed).exp()
        light = light.view(-1, 1, 1, 1)
    return Changes(mirrors, matrix, nodes, grey, light)


def augment_batch(
    images: Tensor,
    targets: Tensor,
    weights: Tensor,
    *,
    flips: bool = True,
    elastic_px: float = 10.0,
    grey_values: float = 0.2,
    dimmed: float = 0.0,
    scale: tuple[float, float] = (1.0, 1.0),
    rotation_degrees: float = 0.0,
    share: float = 1.0,
    generator: Generator | None = None,
) -> Batch:
    """Change a batch of crops at random; with everything off it comes back as it is.

    Parameters
    ----------
    images, targets, weights : Tensor
        See :meth:`Changes.apply`.
    flips, elastic_px, grey_values, dimmed, scale, rotation_degrees, share, generator : object
        See :func:`draw_changes`.

    Returns
    -------
    tuple of Tensor
        Images, targets and weights, of the shapes given.
    """
    changes = draw_changes(
        len(images),
        images.shape[1],
        (images.shape[-2], images.shape[-1]),
        flips=flips,
        elastic_px=elastic_px,
        grey_values=grey_values,
        dimmed=dimmed,
        scale=scale,
        rotation_degrees=rotation_degrees,
        share=share,
        generator=generator,
    )
    return changes.apply(images, targets, weights)


def look_up(images: Tensor, targets: Tensor, weights: Tensor, origins: Tensor) -> Batch:
    """Look every pixel up where it comes from.

    Parameters
    ----------
    images, targets, weights : Tensor
        See :meth:`Changes.apply`.
    origins : Tensor of float, shape (N, H, W, 2)
        See :meth:`Changes.origins`.

    Returns
    -------
    tuple of Tensor
        Images interpolated linearly and mirrored outside; targets and weights of the nearest
        pixel, 0 outside.
    """
    labels = _sample(torch.cat([targets, weights], dim=1), origins, "nearest", "zeros")
    kinds = targets.shape[1]
    return (
        _sample(images, origins, "bilinear", "reflection"),
        labels[:, :kinds],
        labels[:, kinds:],
    )


def change_grey_values(
    images: Tensor, strength: float, generator: Generator | None = None
) -> Tensor:
    """Change contrast, brightness and gamma of each channel of each crop.

    Contrast is scaled about the channel's mean by up to ``exp(strength)`` either way, brightness
    moved by up to a quarter of the strength, and the values between the channel's extremes are
    bent by a gamma of up to ``exp(strength)`` either way. As each channel has its own, the colour
    of a stain changes, too.

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
    grey = _draw_grey(len(images), images.shape[1], strength, generator)
    return _relit(images, *grey.to(images.device))


def _draw_grey(count: int, channels: int, strength: float, generator: Generator | None) -> Tensor:
    """Draw contrast, gamma and brightness, see :class:`Changes`."""
    grey = _evenly((3, count, channels, 1, 1), -strength, strength, generator)
    grey[2] /= 4
    return grey


def _relit(images: Tensor, contrast: Tensor, gamma: Tensor, brightness: Tensor) -> Tensor:
    """Change the grey values of each channel of each crop."""
    low, high = torch.aminmax(images.flatten(2), dim=-1, keepdim=True)
    extent = (high - low).clamp_min(1e-6)[..., None]
    bent = ((images - low[..., None]) / extent).clamp_(0, 1).pow_(gamma.exp())
    # what follows is: (bent * extent - its mean) * contrast + its mean + brightness + low
    scale = extent * contrast.exp()
    mean = bent.mean((-2, -1), keepdim=True)
    return bent.mul_(scale).add_(mean * (extent - scale) + brightness + low[..., None])


def _mirrored(crops: Tensor, mirrors: Tensor) -> Tensor:
    """Mirror each crop along Y, X and the diagonal, or not; exactly (no interpolation)."""
    chosen = mirrors.T[:, :, None, None, None]
    crops = torch.where(chosen[0], crops.flip(-2), crops)
    crops = torch.where(chosen[1], crops.flip(-1), crops)
    if crops.shape[-1] == crops.shape[-2]:
        crops = torch.where(chosen[2], crops.mT, crops)
    return crops


def _matrices(mirrors: Tensor) -> Tensor:
    """Matrices (Y, X) that do the same as :func:`_mirrored` about the middle of a crop."""
    signs = 1.0 - 2.0 * mirrors[:, :2]
    straight, crossed = torch.eye(2), torch.eye(2).flip(-1)
    return signs[:, :, None] * torch.where(mirrors[:, 2, None, None], crossed, straight)


def _summed_up(terms: Tensor, size: tuple[int, int]) -> Tensor:
    """Add up functions of Y times functions of X, see :func:`_functions`, at each pixel.

    Each coordinate of each crop has a factor for each such product: shape (N, 2, 5, 5).
    """
    along_y, along_x = (_functions(length, terms.device) for length in size)
    rows = (terms @ along_x.mT).permute(0, 2, 3, 1).flatten(2)  # (N, 5, W * 2)
    return (along_y @ rows).view(len(terms), *size, 2)


def _functions(length: int, device: torch.device) -> Tensor:
    """Compute the functions along an axis that positions are made of, shape (length, 5).

    The share of each of three nodes in a bicubic curve through them, the pixel's distance from the
    middle, and 1.
    """
    nodes = torch.eye(GRID_NODES, device=device)[None, :, :, None]
    share = functional.interpolate(nodes, (length, 1), mode="bicubic", align_corners=True)[
        0, ..., 0
    ]
    pixel = torch.arange(length, dtype=torch.float32, device=device) - (length - 1) / 2
    return torch.stack([*share, pixel, torch.ones_like(pixel)], dim=-1)


def _sample(values: Tensor, origins: Tensor, mode: str, padding: str) -> Tensor:
    """Sample a batch at positions whose corners are pixel centres."""
    return functional.grid_sample(
        values, origins.to(values.dtype), mode=mode, padding_mode=padding, align_corners=True
    )


def _evenly(shape: tuple[int, ...], low: float, high: float, generator: Generator | None) -> Tensor:
    """Random numbers spread evenly between two values."""
    return torch.rand(shape, generator=generator) * (high - low) + low
