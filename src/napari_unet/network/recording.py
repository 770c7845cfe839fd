"""Record once what a GPU is told to do, and replay it for each tile of the same shape.

A small tile is computed in less time than it takes to tell the GPU all the steps, of which a
U-Net has about a hundred. CUDA can record them and repeat them at a single word. That pays only for
what is repeated often, so the first few times everything is computed step by step. What cannot be
recorded is computed step by step for ever, and the reason is kept to be told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import torch

from napari_unet.network.transfers import new_stream

Compute = Callable[[torch.Tensor, Sequence[slice]], torch.Tensor]
"""Takes tiles (N, C, *spatial) and what is kept of them, gives (N, classes, *kept)."""
Replay = Callable[[torch.Tensor], torch.Tensor]
"""Takes tiles of the shape that was recorded, and gives an answer that nobody overwrites."""
Record = Callable[[Replay, torch.Tensor], Replay]
"""Takes a computation and an example, and gives what does the same."""

REPEATS = 8  # before it is recorded: recording takes about as long as some of them
MOST_RECORDINGS = 4  # each keeps the memory of its features
# All that a refusal to record was seen or may be raised as; computing goes on step by step.
FAILURES = (RuntimeError, MemoryError, AttributeError, NotImplementedError, TypeError, ValueError)


class Recorded:
    """A computation that is recorded where it is repeated.

    Parameters
    ----------
    compute : callable
        See :data:`Compute`.
    record : callable, optional
        See :data:`Record`; nothing is recorded without.
    """

    def __init__(self, compute: Compute, record: Record | None) -> None:
        self._compute, self._record = compute, record
        self._times: Counter[tuple[object, ...]] = Counter()
        self._recordings: dict[tuple[object, ...], Replay] = {}
        self.problem: str | None = None
        """Why nothing is recorded any more, in the words of who refused."""

    @property
    def count(self) -> int:
        """How many recordings there are."""
        return len(self._recordings)

    def __call__(self, seen: torch.Tensor, kept: Sequence[slice]) -> torch.Tensor:
        """Compute, or replay what was recorded of tiles of the same shape.

        Parameters
        ----------
        seen : Tensor, shape (N, C, *spatial)
            The tiles.
        kept : sequence of slice
            What is kept of the answer, one slice per spatial axis.

        Returns
        -------
        Tensor, shape (N, classes, *kept)
            The answer.
        """

        def compute(tiles: torch.Tensor) -> torch.Tensor:
            """Compute the same of other tiles."""
            return self._compute(tiles, kept)

        if self._record is None:
            return compute(seen)
        shape = (*seen.shape, seen.dtype, *((part.start, part.stop) for part in kept))
        self._times[shape] += 1
        is_worth_it = self._times[shape] > REPEATS and self.count < MOST_RECORDINGS
        if shape not in self._recordings and is_worth_it:
            try:
                self._recordings[shape] = self._record(compute, seen)
            except FAILURES as error:
                self._record, self.problem = None, str(error).strip().split("\n", 1)[0]
                self._recordings.clear()
                return compute(seen)
        return self._recordings.get(shape, compute)(seen)


def record_cuda_graph(compute: Replay, example: torch.Tensor) -> Replay:
    """Record a computation on an NVIDIA GPU.

    Parameters
    ----------
    compute : callable
        Must do the same steps for all tiles of a shape.
    example : Tensor, shape (N, C, *spatial)
        On the GPU.

    Returns
    -------
    callable
        Replays it; each answer lies in memory of its own.
    """
    seen = example.clone()
    here, beside = torch.cuda.current_stream(), new_stream()
    beside.wait_stream(here)
    with torch.cuda.stream(beside):
        compute(seen)  # what is made at the first use must not be recorded
    here.wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        answer = compute(seen)

    def replay(tiles: torch.Tensor) -> torch.Tensor:
        """Repeat it for other tiles."""
        seen.copy_(tiles)
        graph.replay()
        return answer.clone()

    return replay
