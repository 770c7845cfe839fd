"""What the tests of the runs share."""

import pytest

from napari_unet.runs import fitted


@pytest.fixture(autouse=True)
def no_notes_of_earlier_runs(monkeypatch, tmp_path):
    """Let each test begin on a new computer: no tile is known to be too large."""
    monkeypatch.setattr(fitted, "_of_this_process", {})
    monkeypatch.setattr(fitted, "user_state_path", lambda *_, **__: tmp_path / "state")
