"""When a training run does what: its budget, its learning rate, the points of its curve.

All of it follows the used part of the budget (0..1), so a run of sixty seconds and one of a
thousand steps have the same shape. Counted in steps a run can be repeated exactly; counted in
seconds it ends on time, the judging between its rounds included.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_unet.settings import FinetuneSettings

WARM_UP = 0.05  # share of the budget
CURVE_SHARE = 0.05  # of the budget between two points of the held-out curve
CURVE_COST = 10.0  # at least so many times longer than one point takes


def learning_rate(used: float, largest: float) -> float:
    """Return the step of the optimiser at a part of the budget.

    Parameters
    ----------
    used : float
        Part of the budget, 0..1.
    largest : float
        Right after the warm-up.

    Returns
    -------
    float
        Rises evenly in the warm-up, then falls as half a cosine, to 0 at the end.
    """
    if used < WARM_UP:
        return largest * max(used / WARM_UP, 0.01)
    return largest * 0.5 * (1 + math.cos(math.pi * min(1.0, (used - WARM_UP) / (1 - WARM_UP))))


class Budget:
    """How much of the steps, or else of the time, is used.

    Parameters
    ----------
    settings : FinetuneSettings
        Its steps count; only without them its seconds do.
    """

    def __init__(self, settings: FinetuneSettings) -> None:
        self._steps = settings.steps
        self._seconds = math.inf if settings.steps else (settings.seconds or math.inf)
        self._began = time.monotonic()
        self._next_point, self._asked = CURVE_SHARE, 0.0

    @property
    def is_in_seconds(self) -> bool:
        """Whether it is counted in seconds."""
        return self._steps is None

    def elapsed(self) -> float:
        """Return the seconds since the run began."""
        return time.monotonic() - self._began

    def used(self, steps: int) -> float:
        """Return the part of the budget that is used after some steps, 0..1."""
        if self._steps is not None:
            return min(1.0, steps / self._steps)
        return min(1.0, self.elapsed() / self._seconds)

    def is_spent(self, steps: int) -> bool:
        """Tell whether nothing is left after some steps."""
        return self.used(steps) >= 1

    def left(self, steps: int) -> float:
        """Estimate the seconds until the end, judging included."""
        if self._steps is None:
            return max(0.0, self._seconds - self.elapsed())
        return self.elapsed() * (self._steps - steps) / max(steps, 1)

    def is_point_due(self, used: float) -> bool:
        """Tell whether it is time for the next point of the held-out curve."""
        self._asked = self.elapsed()
        return self._next_point <= used < 1

    def point_made(self, used: float) -> None:
        """Plan the next point: the later, the longer this one took."""
        cost = CURVE_COST * (self.elapsed() - self._asked) / self._seconds
        self._next_point = used + max(CURVE_SHARE, cost)

    def state(self) -> dict[str, float]:
        """Return what another run needs to go on from here."""
        return {"elapsed": self.elapsed(), "next_point": self._next_point}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where an earlier run was, see :meth:`state`; the time between does not count."""
        self._began = time.monotonic() - float(state["elapsed"])
        self._next_point = float(state["next_point"])
