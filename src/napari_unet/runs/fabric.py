"""Lightning Fabric, told that the processes are ours: it joins them and averages gradients."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING

from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy

if TYPE_CHECKING:
    from napari_unet.runs.team import Place

PATIENCE = timedelta(days=1)  # of a helper, while the first process judges
PATIENCE_OF_FIRST = timedelta(minutes=10)  # with the step of a helper


def make_fabric(place: Place) -> Fabric:
    """Join the processes of this computer; returns once all have.

    Parameters
    ----------
    place : Place
        Which of them this is.

    Returns
    -------
    Fabric
        Launched: it speaks to the other processes.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    patience = PATIENCE if place.rank else PATIENCE_OF_FIRST
    strategy = DDPStrategy(cluster_environment=Processes(place), timeout=patience)
    fabric = Fabric(accelerator=place.device, devices=place.size, strategy=strategy)
    fabric.launch()
    return fabric


class Processes(ClusterEnvironment):
    """The processes of one computer, started by :class:`napari_unet.runs.team.Team`.

    Parameters
    ----------
    place : Place
        Which of them this is.
    """

    main_address = "127.0.0.1"
    creates_processes_externally = True

    def __init__(self, place: Place) -> None:
        self._place = place

    @property
    def main_port(self) -> int:
        """Where the first one listens."""
        return self._place.port

    @staticmethod
    def detect() -> bool:
        """Never chosen unasked."""
        return False

    def world_size(self) -> int:
        """Return how many there are."""
        return self._place.size

    def set_world_size(self, size: int) -> None:
        """Do nothing: it is known."""

    def global_rank(self) -> int:
        """Return which one this is."""
        return self._place.rank

    def set_global_rank(self, rank: int) -> None:
        """Do nothing: it is known."""

    def local_rank(self) -> int:
        """Return which one of this computer it is."""
        return self._place.rank

    def node_rank(self) -> int:
        """Return which computer it is: there is one."""
        return 0
