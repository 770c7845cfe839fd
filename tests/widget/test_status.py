"""The foot of the dock tells how far a job is, and nothing in it moves by itself."""

from __future__ import annotations

from qtpy.QtWidgets import QProgressBar

from tests.widget.fake_engine import find


def test_a_bar_is_empty_until_something_is_known_and_never_runs_to_and_fro(dock) -> None:
    find(dock, "segment").click()
    bar = find(dock, "progress")
    assert isinstance(bar, QProgressBar)
    assert bar.isVisibleTo(dock)
    assert bar.minimum() < bar.maximum(), "equal ones let Qt draw a bar that moves"
    assert bar.value() == 0
    assert bar.text() == ""
