"""Measure in slices: figures are kept in a file, line by line, and a later call adds to them.

A machine that others use is quiet for a few minutes at a time. A script that is told how many
seconds it has measures as much as surely fits, writes each figure down at once, and the next
call goes on from there; a call that is killed loses the figure it was at.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_START = time.perf_counter()


class Figures:
    """Figures with a kind and a key each, in a file or only in memory.

    Parameters
    ----------
    path : Path, optional
        Lines of JSON; made if it is not there. A line that was cut off counts for nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lines: list[dict[str, Any]] = []
        if path is not None and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    self._lines.append(json.loads(line))
                except ValueError:
                    continue

    def add(self, **figures: Any) -> None:
        """Keep some figures."""
        self._lines.append(figures)
        if self._path is not None:
            is_cut_off = self._path.exists() and not self._path.read_bytes().endswith(b"\n")
            with self._path.open("a", encoding="utf-8") as file:
                file.write("\n" * is_cut_off + json.dumps(figures) + "\n")

    def find(self, **wanted: Any) -> list[dict[str, Any]]:
        """Return those that have all of these entries, in the order they were added."""
        return [line for line in self._lines if wanted.items() <= _comparable(line, wanted)]


class Slice:
    """So many seconds from the start of the process.

    Parameters
    ----------
    seconds : float, optional
        No end if not given.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self.is_over = False

    def has(self, seconds: float) -> bool:
        """Say whether something that takes so long still fits; once it does not, nothing does."""
        if self._seconds is not None:
            self.is_over |= time.perf_counter() - _START + seconds > self._seconds
        return not self.is_over


def _comparable(line: dict[str, Any], wanted: dict[str, Any]) -> Any:
    """Return the entries of a line that are asked for."""
    return {name: line.get(name) for name in wanted}.items()
