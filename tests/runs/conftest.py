"""What the tests of the runs share."""

import pytest

from napari_unet.runs import overlap_tile


@pytest.fixture(autouse=True)
def no_memory_of_earlier_runs(monkeypatch):
    """Let each test begin as a new process does: no tile is known to be too large."""
    monkeypatch.setattr(overlap_tile, "_largest_that_fitted", {})
