"""What every network here has, whatever it was built from: sizes on a grid, levels that freeze."""

from __future__ import annotations

from typing import NamedTuple, Self

from torch import nn

from napari_unet.errors import SettingError


class Grid(NamedTuple):
    """Which sizes a network takes along an axis, and how tiles overlap there; all in pixels."""

    smallest: int
    stride: int
    """Every size is so many pixels, once or several times, larger than the smallest."""
    margin: int
    """By so much the output is smaller, on each side."""
    halo: int
    """So far from a tile's own edges is what the whole image gives; a multiple of the stride."""


class TiledNet(nn.Module):
    """A network that takes tiles on a grid, and whose uppermost levels can be frozen."""

    def __init__(self) -> None:
        super().__init__()
        self._frozen: list[nn.Module] = []

    @property
    def grid(self) -> Grid:
        """Which sizes it takes along all axes."""
        raise NotImplementedError

    @property
    def grids(self) -> tuple[Grid, ...]:
        """Which sizes it takes along each axis; those of :attr:`grid` are among them."""
        raise NotImplementedError

    @property
    def levels(self) -> int:
        """Levels of the way down: one more than its halvings."""
        raise NotImplementedError

    def level_layers(self, levels: int) -> list[nn.Module]:
        """Return the layers of the uppermost levels of the way down."""
        raise NotImplementedError

    def output_size(self, size: int, axis: int | None = None) -> int:
        """Say how large the output is along an axis.

        Parameters
        ----------
        size : int
            Size of the input in pixels.
        axis : int, optional
            Spatial axis, counted from 0; what holds for all of them if not given.

        Returns
        -------
        int
            Size of the output in pixels; 0 if the network cannot take that input.
        """
        smallest, stride, margin, _ = self.grid if axis is None else self.grids[axis]
        if size < smallest or (size - smallest) % stride:
            return 0
        return size - 2 * margin

    def valid_input(self, size: int, axis: int | None = None) -> int:
        """Say which size to give the network instead.

        Parameters
        ----------
        size : int
            Wanted size of the input along an axis, in pixels.
        axis : int, optional
            Spatial axis, counted from 0; what holds for all of them if not given.

        Returns
        -------
        int
            The next size, not smaller, that the network can take.
        """
        smallest, stride, *_ = self.grid if axis is None else self.grids[axis]
        return smallest + max(0, -(-(size - smallest) // stride)) * stride

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; frozen levels stay in evaluation."""
        super().train(mode)
        for layer in self._frozen:
            layer.eval()
        return self

    def freeze_levels(self, levels: int) -> None:
        """Keep the uppermost levels of the way down as they are, norm included.

        Parameters
        ----------
        levels : int
            How many levels, from the top; 0 frees all.

        Raises
        ------
        SettingError
            If the network has fewer levels.
        """
        if not 0 <= levels <= self.levels:
            raise SettingError(
                f"Cannot freeze {levels} levels: the network has {self.levels}. "
                f"Choose 0 to {self.levels}."
            )
        self.requires_grad_(True)
        # In place: a layer of a stranger may have the name of the list.
        self._frozen[:] = self.level_layers(levels)
        for layer in self._frozen:
            layer.requires_grad_(False)
        self.train(self.training)
